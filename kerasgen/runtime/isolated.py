"""Runs an artefact in a process of its own, so that a crash there becomes an error here.

The process is started afresh (never forked) and spoken to through its standard input and output, a JSON a line. It ends
when the runtime is closed, or when this process ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import kerasgen
from kerasgen import errors, fork_safety, quiet
from kerasgen.errors import GenerateArgumentError, GenerationError, KerasgenError, ModelFormatError
from kerasgen.generation.config import ArtefactIdsSettings, ArtefactSettings, GenerationConfig
from kerasgen.runtime.base import Runtime, given
from kerasgen.samplers import REGISTRY
from kerasgen.tokens.base import IncrementalDecoder, Tokenizer

_STDERR_BYTES = 1000  # of the process's standard error, shown in the message when it ends
_PATIENCE = 5.0  # seconds for it to end by itself


class IsolatedRuntime(Runtime):
    """An artefact that another process runs; a context manager that ends it. Threads take turns.

    Args:
        path: the path of the artefact.
        settings: the settings of its runtime.
        timeout_seconds: for each answer, loading with it, after which the process is ended; None waits.
        memory_bytes: address space that the process may have; None for any.

    Raises:
        ModelFormatError: the artefact can't be loaded, or its process ended while it was.
        KerasgenError: what loading it here would raise.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, timeout_seconds: float | None, memory_bytes: int | None
    ) -> None:
        check_isolation(timeout_seconds, memory_bytes)
        plain = {
            key: os.fspath(setting) if isinstance(setting, os.PathLike) else setting
            for key, setting in settings.items()
        }
        self._process = _Process(path, timeout_seconds)
        try:
            shown = self._process.ask("load", path=str(path.absolute()), settings=plain, memory_bytes=memory_bytes)
        except GenerationError as cause:
            self.close()
            raise ModelFormatError(f"{cause} The artefact is damaged, or made to do this.") from cause
        except BaseException:
            self.close()
            raise
        self.max_sequence_length: int | None = shown["max_sequence_length"]
        self.tokenizer: Tokenizer = _RemoteTokenizer(self._process, shown["tokenizer"])

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids generated after each prompt; see `Runtime`."""
        asked = {"prompts": [_ids(prompt) for prompt in prompts], "end_token_id": end_token_id}
        return cast(
            list[list[int]], self._process.ask("generate_ids", **asked, **_as_json(config, ArtefactIdsSettings))
        )

    def _texts(self, prompts: list[str], config: GenerationConfig) -> list[str]:
        return cast(list[str], self._process.ask("generate", prompts=prompts, **_as_json(config, ArtefactSettings)))

    def logits(self, token_ids: Sequence[int]) -> Any:
        """Return the logits after each of these tokens; see `Runtime`."""
        import numpy as np

        return np.asarray(self._process.ask("logits", token_ids=_ids(token_ids)), dtype=np.float32)

    def close(self) -> None:
        """End the process; any later call is an error."""
        self._process.close()

    def __enter__(self) -> IsolatedRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_isolation(timeout_seconds: Any, memory_bytes: Any) -> None:
    """Check the limits of an isolated artefact.

    Raises:
        GenerateArgumentError: one is no number above 0.
    """
    for name, value, kinds in (
        ("timeout_seconds", timeout_seconds, (int, float)),
        ("memory_bytes", memory_bytes, (int,)),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1 << 62):
            raise GenerateArgumentError(f"`{name}` must be a number above 0, or None. Received: {value!r}.")


class _Process:
    """A child process that answers one question at a time."""

    def __init__(self, path: Path, timeout_seconds: float | None) -> None:
        self._path, self._timeout, self._pid = path, timeout_seconds, os.getpid()
        self._turn = threading.Lock()
        self._ended: str | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        root = str(Path(kerasgen.__file__).parents[1])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "kerasgen.runtime.isolated_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | quiet.CHILD | {"PYTHONPATH": search},
            )
        except OSError as cause:
            raise GenerationError(f"A process to run {path} in can't be started: {cause}") from cause
        self._end = weakref.finalize(self, _end, self._child)

    def ask(self, method: str, **arguments: Any) -> Any:
        """Return the answer.

        Raises:
            GenerationError: the process has ended, or took too long, and was ended.
            KerasgenError: what it raised.
        """
        fork_safety.check_owner(f"the process that runs {self._path}", self._pid)
        try:
            question = json.dumps([method, arguments], allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as cause:
            raise GenerateArgumentError(f"An isolated artefact takes plain values alone: {cause}.") from cause
        with self._turn:
            if self._ended is not None:
                raise GenerationError(self._ended)
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            timer = None
            late: list[bool] = []
            if self._timeout is not None:
                timer = threading.Timer(self._timeout, self._give_up, [late])
                timer.daemon = True
                timer.start()
            try:
                self._child.stdin.write(question)
                self._child.stdin.flush()
                answer = self._child.stdout.readline()
            except OSError:
                answer = b""
            except BaseException:  # such as Ctrl-C: the late answer would be read as the answer to the next question
                self._ended = f"The process that ran {self._path} was ended when a call was interrupted. Load it again."
                self._child.kill()
                raise
            finally:
                if timer is not None:
                    timer.cancel()
            try:
                outcome, content = json.loads(answer)
            except ValueError:
                raise GenerationError(self._end_message(late=bool(late))) from None
        if outcome == "answer":
            return content
        raise _error_named(*content)

    def close(self) -> None:
        """End the process."""
        if self._pid != os.getpid():
            return
        with self._turn:
            self._ended = self._ended or f"The process that ran {self._path} was closed. Load the artefact again."
            self._end()
            self._stderr.close()

    def _give_up(self, late: list[bool]) -> None:
        late.append(True)
        self._child.kill()

    def _end_message(self, *, late: bool) -> str:
        """End a process that gave no answer, and return the message about it."""
        self._child.kill()
        status = self._child.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_BYTES))
        stderr = self._stderr.read().decode("utf-8", "replace").strip()
        if late:
            how = f"took longer than timeout_seconds={self._timeout:g} and was ended"
        elif status < 0:
            signal_names = {member.value: member.name for member in signal.Signals}
            how = f"was ended by the signal {signal_names.get(-status, -status)}"
        else:
            how = f"ended with status {status}"
        self._ended = f"The process that ran {self._path} {how}." + (
            "" if late or not stderr else f" It said: {stderr}"
        )
        return self._ended


class _RemoteTokenizer(Tokenizer):
    """The tokenizer of an artefact in another process."""

    def __init__(self, process: _Process, shown: Mapping[str, Any]) -> None:
        self._process = process
        self.vocabulary_size: int = shown["vocabulary_size"]
        self.start_token_id: int | None = shown["start_token_id"]
        self.end_token_id: int = shown["end_token_id"]
        self.pad_token_id: int = shown["pad_token_id"]
        self._ends: tuple[int, ...] = tuple(shown["end_token_ids"])
        self.strips_first_space: bool = shown["strips_first_space"]

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self._ends

    @property
    def special_tokens(self) -> dict[str, int]:
        return cast(dict[str, int], self._process.ask("special_tokens"))

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_with_special(self, text: str, allowed_special: str | Collection[str]) -> list[int]:
        asked = {"text": text, "allowed_special": sorted(self.allowed_special(allowed_special))}
        return cast(list[int], self._process.ask("encode_with_special", **asked))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return cast(list[list[int]], self._process.ask("encode_batch", texts=list(texts)))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        asked = {"token_ids": _ids(token_ids), "skip_special_tokens": skip_special_tokens}
        return cast(str, self._process.ask("decode", **asked))

    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        from kerasgen.tokens.text_decoding import TextDecoder

        return TextDecoder(self, skip_special_tokens=skip_special_tokens)

    def continuation_decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        from kerasgen.tokens.text_decoding import TextDecoder

        return TextDecoder(self, skip_special_tokens=skip_special_tokens, begins=False)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes.fromhex(self._process.ask("token_bytes", token_id=int(token_id)))

    def digest(self) -> str:
        return cast(str, self._process.ask("digest"))

    def save(self, directory: str | os.PathLike[str]) -> None:
        raise GenerateArgumentError("The tokenizer of an isolated artefact is not saved. Copy the artefact's files.")


def _as_json(config: GenerationConfig, names: type[Any]) -> dict[str, Any]:
    """Return the settings that a call takes, as JSON values."""
    return given(config, names) | {"sampler": REGISTRY.to_manifest(config.sampler)}


def _ids(token_ids: Any) -> list[Any]:
    """Return ids as JSON values; the other process refuses whatever is no id."""
    if isinstance(token_ids, (str, bytes)):
        raise GenerateArgumentError(f"Token ids are whole numbers. Received: {token_ids!r:.80}.")
    return [
        int(token_id) if hasattr(token_id, "__index__") and not isinstance(token_id, bool) else token_id
        for token_id in token_ids
    ]


def _error_named(name: str, message: str) -> KerasgenError:
    """Return the error that another process raised, by its name; its base class if the class needs more."""
    kind: Any = getattr(errors, name, GenerationError)
    if not (isinstance(kind, type) and issubclass(kind, KerasgenError)):
        kind = GenerationError
    try:
        return cast(KerasgenError, kind(message))
    except TypeError:
        return ModelFormatError(message)


def _end(child: subprocess.Popen[bytes]) -> None:
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                continue
    try:
        child.wait(_PATIENCE if child.poll() is None else 0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
