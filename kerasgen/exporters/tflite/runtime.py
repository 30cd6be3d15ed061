"""Runs a TFLite artefact on LiteRT for the decoding loops, with `ai-edge-litert`, `tokenizers` and NumPy alone."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kerasgen import cache as caches
from kerasgen import file_mappings
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.exporters.tflite import graph_check
from kerasgen.exporters.tflite.mapped_weights import LOADING, MappedWeights
from kerasgen.exporters.tflite.session import LiteRtSession
from kerasgen.exporters.tflite.shortlist import Shortlist
from kerasgen.files import room
from kerasgen.generation.config import GenerationConfig
from kerasgen.quiet import at_the_end, quietly
from kerasgen.runtime import masked, metadata, verifying
from kerasgen.runtime.base import Runtime, check_text, check_threads
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.end_token import EndingTokenizer

DECODE = "decode"
SHORTLIST = "shortlist"
LOGITS = "logits"
DEFAULT = "default"  # the weight cache in kerasgen's cache
_MOST_OF_CACHE, _MORE_OF_CACHE = 2.25, 1 << 20
"""How many times a file's size its weight cache may take, and how many bytes more. Of float16 it holds float32."""


class LiteRtRuntime(Runtime):
    """A TFLite artefact. `engine` is what `kerasgen.generation` decodes with.

    Args:
        engine: the engine of the artefact.
    """

    def __init__(self, engine: LiteRtEngine) -> None:
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.max_sequence_length = engine.max_sequence_length

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids generated after each prompt; see `Runtime`."""
        from kerasgen.generation import generate_ids

        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        generated = generate_ids(engine, prompts, config, logprobs=False)
        return [list(choices[0].token_ids) for choices in generated]

    def logits(self, token_ids: Sequence[int], *, prefilled: int = 1) -> npt.NDArray[np.float32]:
        """Return the logits after each token, float32 `(tokens, vocabulary_size)`.

        Args:
            token_ids: the text, its start token with it.
            prefilled: so many tokens are read at once, as a prompt is, and the first row is that of the last of them;
                the others are read one by one.
        """
        check_text(token_ids, self.tokenizer, self.max_sequence_length)
        session = self.engine.open([token_ids[:prefilled]], [len(token_ids) + 1])
        rows = [session.logits()[0].copy()]
        for token_id in token_ids[prefilled:]:
            session.append(np.array([token_id]))
            rows.append(session.logits()[0].copy())
        return np.stack(rows)

    def branched_logits(self, prompt: Sequence[int], texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the logits after each token of texts that go on from one prompt and share its cache.

        Args:
            prompt: what they have in common, its start token with it.
            texts: the texts of one length.

        Returns:
            Float32 `(texts, tokens, vocabulary_size)`.
        """
        session = self.engine.open([prompt], [len(prompt) + len(texts[0]) + 1])
        session.select(np.zeros(len(texts), dtype=np.int64))
        rows = []
        for tokens in zip(*texts, strict=True):
            session.append(np.array(tokens))
            rows.append(session.logits().copy())
        return np.stack(rows, axis=1)


@cache
def _environment() -> Any:
    """Return the process's LiteRT environment: one for all artefacts, and never destroyed.

    LiteRT tells of every accelerator that it registers and, when an environment goes, of each that it destroys, which
    is when the process ends and nothing can keep it quiet any more.
    """
    from ai_edge_litert import environment

    home = str(Path(environment.__file__).parent)
    made = environment.Environment.create(options=environment.EnvironmentOptions(runtime_path=home))
    for immortal in (made, made._capsule):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(immortal))
    return made


class LiteRtEngine:
    """Decodes a TFLite artefact. Threads take turns at each run of the graph, and each session has caches of its own.

    Args:
        path: the `.tflite` file.
        tokenizer: the tokenizer that it was exported with.
        settings: what the exporter said of the graph: `num_layers`, `num_heads` (of keys and values), `head_dim`,
            `cache_length`, `prefill_lengths`, `decode_lengths`, `beams`, `shortlist`, `vocabulary_size`.
        threads: the number of threads that LiteRT may use.
        weight_cache: a file where XNNPACK keeps the weights as it multiplies them, mapped into memory by every
            process that uses them; None keeps a copy in this process's memory.
        huge_pages: whether a process that goes on generating moves the mapped weights into memory of its own, which is
            read faster; see `mapped_weights`.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
        ModelFormatError: the file is cut off or damaged.
    """

    name = "litert"

    def __init__(
        self,
        path: Path,
        tokenizer: Tokenizer,
        settings: dict[str, Any],
        *,
        threads: int,
        weight_cache: Path | None,
        huge_pages: bool = False,
    ) -> None:
        try:
            with quietly():
                from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options
        except ImportError as cause:
            raise MissingDependencyError(
                "Running a TFLite artefact needs LiteRT: pip install 'kerasgen[runtime]'.",
                package="ai_edge_litert",
                extra="runtime",
            ) from cause
        self.tokenizer = tokenizer
        self.settings = settings
        self.max_sequence_length: int = settings["cache_length"]
        options = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=str(weight_cache or ""))
        try:
            with contextlib.ExitStack() as stack:
                if weight_cache is not None:
                    stack.enter_context(verifying.written_by_one(weight_cache))
                    stack.enter_context(LOADING)
                    mapped = file_mappings.of_file(weight_cache)
                with quietly():
                    self._compiled = CompiledModel.from_file(
                        str(path), environment=_environment(), options=Options(cpu_options=options)
                    )
                    # A process's first write would create LiteRT's own environment, which LiteRT destroys at the end.
                    self._compiled.create_input_buffer_by_name(DECODE, "tokens").write(np.zeros((1, 1), np.int32))
                if weight_cache is not None:
                    mapped = file_mappings.of_file(weight_cache) - mapped
                at_the_end()
        except Exception as cause:
            raise ModelFormatError(f"LiteRT can't read {path}: {cause}. Copy or export it again.") from cause
        graph_check.check(path, self._compiled, settings, tokenizer)
        self._hidden_dim = 0
        if settings["shortlist"] is not None:
            shape = self._compiled.get_output_tensor_details(SHORTLIST)["hidden"]["shape"]
            self._hidden_dim = int(shape[-1])
        layers = range(settings["num_layers"])
        self.cache_names = [f"kv_cache_{kind}_{index}" for kind in "kv" for index in layers]
        self._buffers: dict[tuple[str, str], Any] = {}
        # The graph's own buffers, and what is written into them, belong to one run at a time; caches are the sessions'.
        self._running = threading.RLock()
        self.mapped_weights: MappedWeights | None = None
        if weight_cache is not None and huge_pages:
            self.mapped_weights = MappedWeights(self._compiled, weight_cache, mapped, self._running)

    def ending_at(self, end_token_id: int) -> LiteRtEngine:
        """Return the same engine whose texts end at another token."""
        other = copy.copy(self)
        other.tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        return other

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> LiteRtSession:
        """Return a session whose rows are these texts; see `kerasgen.generation.engine.Engine`."""
        return LiteRtSession(self, prompts)

    @property
    def shortlist(self) -> dict[str, Any] | None:
        """The settings of the signatures `shortlist`, or None where there are none."""
        settings: dict[str, Any] | None = self.settings.get("shortlist")
        return settings

    def decode_name(self, place: int) -> str:
        """Return the signature that reads a token at a place and attends to the fewest places beyond it."""
        return self._of_length(DECODE, place)

    def _of_length(self, kind: str, place: int) -> str:
        seen = next((length for length in self.settings.get("decode_lengths", ()) if length > place), None)
        return kind if seen is None else f"{kind}_{seen}"

    def caches(self) -> dict[str, Any]:
        """Return new caches, zeroed: masked places must hold something finite."""
        shape = self.settings["num_heads"], self.settings["cache_length"], self.settings["head_dim"]
        zeros = np.zeros(int(np.prod(shape)), dtype=np.float32)
        with self._running:
            buffers = {name: self._compiled.create_input_buffer_by_name(DECODE, name) for name in self.cache_names}
            for buffer in buffers.values():
                buffer.write(zeros)
        return buffers

    def copy_caches(self, caches: dict[str, Any]) -> dict[str, Any]:
        """Return copies of the caches."""
        copies = self.caches()
        size = self.settings["num_heads"] * self.settings["cache_length"] * self.settings["head_dim"]
        with self._running:
            for name, buffer in copies.items():
                buffer.write(caches[name].read(size, np.float32))
        return copies

    def run(
        self,
        signature: str,
        caches: dict[str, Any],
        answers: Mapping[str, tuple[int, type[np.generic]]] | None = None,
        **inputs: npt.NDArray[Any],
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a signature, whose caches are updated in place, and return what else it answers.

        Args:
            signature: its name.
            caches: the caches of the text; empty for a signature that reads no text.
            answers: its other outputs: how many numbers each has, and their type.
            **inputs: its other inputs.

        Returns:
            Arrays of one dimension.
        """
        answers = answers or {}
        asked, answered = dict(caches), dict(caches)
        with self._running:
            for name, array in inputs.items():
                asked[name] = self._buffer(signature, name)
                asked[name].write(array)
            for name in answers:
                answered[name] = self._buffer(signature, name, output=True)
            self._compiled.run_by_name(signature, asked, answered)
            if self.mapped_weights is not None:
                self.mapped_weights.count()
            return {name: answered[name].read(size, kind) for name, (size, kind) in answers.items()}

    def logits(
        self, signature: str, caches: dict[str, Any], *, rows: int, **inputs: npt.NDArray[Any]
    ) -> npt.NDArray[np.float32]:
        """Run a signature that gives logits, and return those of the tokenizer's ids, `(rows, vocabulary_size)`."""
        size = self.settings["vocabulary_size"]
        flat_logits = self.run(signature, caches, {"logits": (rows * size, np.float32)}, **inputs)["logits"]
        return flat_logits.reshape(rows, size)[:, : self.tokenizer.vocabulary_size]

    def read_shortlist(self, caches: dict[str, Any], token_id: int, place: int) -> Shortlist:
        """Read one text's token at a place, and return what of the next token's logits was worth computing."""
        outputs = self.run(
            self._of_length(SHORTLIST, place),
            caches,
            {
                "ids": (self.settings["shortlist"]["count"], np.int32),
                "logits": (self.settings["shortlist"]["count"], np.float32),
                "floor": (1, np.float32),
                "hidden": (self._hidden_dim, np.float32),
            },
            tokens=np.array([[token_id]], dtype=np.int32),
            input_pos=np.array([place], dtype=np.int32),
        )
        # Rows of the output layer beyond the tokenizer's ids are no tokens.
        logits = np.where(outputs["ids"] < self.tokenizer.vocabulary_size, outputs["logits"], np.float32(-np.inf))
        return Shortlist(outputs["ids"], logits, float(outputs["floor"][0]), outputs["hidden"])

    def logits_after(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return all logits after a hidden state of `read_shortlist`, `(1, vocabulary_size)`."""
        return self.logits(LOGITS, {}, rows=1, hidden=hidden)

    def _buffer(self, signature: str, name: str, *, output: bool = False) -> Any:
        key = signature, name
        if key not in self._buffers:
            make = self._compiled.create_output_buffer_by_name if output else self._compiled.create_input_buffer_by_name
            self._buffers[key] = make(signature, name)
        return self._buffers[key]


def open_artefact(
    path: Path,
    description: dict[str, Any],
    *,
    threads: int = 1,
    weight_cache: Path | str | None = DEFAULT,
    huge_pages: bool | None = None,
) -> Runtime:
    """Return the runtime of a TFLite artefact; `description` is what `metadata.read` returned.

    Args:
        path: the `.tflite` file.
        description: what lies beside it.
        threads: the number of threads that LiteRT may use.
        weight_cache: a file for XNNPACK's weights, None for none, or `"default"` for one in kerasgen's cache,
            which is done without where nothing can be written there.
        huge_pages: whether a process that has read 256 tokens copies the weight cache into huge pages of its own, where
            the system has them and memory enough. They are read faster, and are not shared with other processes. None
            stands for True with weights of 8 or fewer bits: others gain 2 to 4 % for four times the memory.

    Raises:
        GenerateArgumentError: `threads` is no whole number of at least 1, `huge_pages` is neither a bool nor None, or
            the weight cache can't be written.
        ModelFormatError: files of several exports are mixed, or the file is cut off.
    """
    check_threads(threads)
    if huge_pages is not None and not isinstance(huge_pages, bool):
        raise GenerateArgumentError(f"`huge_pages` must be True, False or None. Received: {huge_pages!r}.")
    expected = metadata.size_of(path, description)
    size = path.stat().st_size
    if size != expected:
        raise ModelFormatError(f"{path} holds {size} bytes where {expected} were written. Copy or export it again.")
    cache_file = _verified(path, description["sha256"], weight_cache)
    if masked.is_filling(description):
        return masked.open_tflite(path, description, threads=threads)
    tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
    moves = description.get("quantize") in ("int8", "int4") if huge_pages is None else huge_pages
    engine = LiteRtEngine(
        path, tokenizer, description["graph"], threads=threads, weight_cache=cache_file, huge_pages=moves
    )
    return LiteRtRuntime(engine)


def _verified(path: Path, sha256: str, weight_cache: Path | str | None) -> Path | None:
    """Check the artefact's file by its digest, and return the path of its weight cache, or None without one."""
    cache_file = _place(sha256, weight_cache)
    try:
        verifying.check_sha256(path, sha256, weight_cache=cache_file)
        if cache_file is not None and cache_file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(cache_file))
        if cache_file is not None and not verifying.is_known(cache_file):
            if not os.access(cache_file.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(cache_file.parent))
            room.require(cache_file, int(_MOST_OF_CACHE * path.stat().st_size) + _MORE_OF_CACHE)
    except OSError as cause:
        if weight_cache != DEFAULT:
            raise GenerateArgumentError(
                f"`weight_cache` can't be written: {cause}. Name another file, or None, which keeps the weights in "
                "this process's memory."
            ) from cause
        verifying.check_sha256(path, sha256)
        return None
    return cache_file


def _place(sha256: str, weight_cache: Path | str | None) -> Path | None:
    if weight_cache is None:
        return None
    if weight_cache != DEFAULT:
        if not isinstance(weight_cache, (str, os.PathLike)):
            raise GenerateArgumentError(f"`weight_cache` must be a path or None. Received: {weight_cache!r}.")
        return Path(weight_cache).expanduser()
    return caches.directory() / "litert" / f"{sha256[:32]}.xnnpack"
