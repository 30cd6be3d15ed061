"""A TFLite artefact on LiteRT: an engine for the decoding loops, on `ai-edge-litert`, `tokenizers` and NumPy alone."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.runtime import metadata, verifying
from kerasgen.runtime.base import Runtime, check_call, check_text, check_threads
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.ending import EndingTokenizer

DECODE = "decode"
DEFAULT = "default"  # the weight cache in the user's cache directory
_MASKED = np.float32(-1e9)


class LiteRtRuntime(Runtime):
    """A TFLite artefact. `engine` is what `kerasgen.generation` decodes with.

    Args:
        engine: of the artefact.
    """

    def __init__(self, engine: LiteRtEngine) -> None:
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.max_sequence_length = engine.max_sequence_length

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampler: Any = "greedy",
        max_new_tokens: int,
        seed: int = 0,
        end_token_id: int | None = None,
        in_graph: bool = False,
    ) -> list[list[int]]:
        """Return the ids generated after each prompt; see `Runtime.generate_ids`.

        Args:
            prompts: as there.
            sampler: as there.
            max_new_tokens: as there.
            seed: as there.
            end_token_id: as there.
            in_graph: let the signature generate that holds loop and sampler; the artefact must have been exported with
                it (`loop=`), and the ids are the same.
        """
        from kerasgen.generation import generate_ids

        check_call(self, prompts, max_new_tokens=max_new_tokens, seed=seed, end_token_id=end_token_id)
        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        if in_graph:
            from kerasgen.runtime import litert_loop

            return litert_loop.generate_ids(engine, prompts, sampler, max_new_tokens=max_new_tokens, seed=seed)
        found = generate_ids(engine, prompts, sampler=sampler, max_new_tokens=max_new_tokens, seed=seed)
        return [list(several[0].token_ids) for several in found]

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
            texts: of one length.

        Returns:
            Float32 `(texts, tokens, vocabulary_size)`.
        """
        session = self.engine.open([prompt], [len(prompt) + len(texts[0]) + 1])
        session.select(np.zeros(len(texts), dtype=np.int64))
        found = []
        for tokens in zip(*texts, strict=True):
            session.append(np.array(tokens))
            found.append(session.logits().copy())
        return np.stack(found, axis=1)


class LiteRtEngine:
    """Decodes a TFLite artefact.

    Args:
        path: the `.tflite` file.
        tokenizer: that it was exported with.
        settings: what the exporter said of the graph: `num_layers`, `num_heads`, `head_dim`, `cache_length`,
            `prefill_lengths`, `beams`, `vocabulary_size`.
        threads: that LiteRT may use.
        weight_cache: a file where XNNPACK keeps the weights as it multiplies them, mapped into memory by every
            process that uses them; None keeps a copy in this process's memory.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
        ModelFormatError: the file is cut off or damaged.
    """

    name = "litert"

    def __init__(
        self, path: Path, tokenizer: Tokenizer, settings: dict[str, Any], *, threads: int, weight_cache: Path | None
    ) -> None:
        try:
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
            self._compiled = CompiledModel.from_file(str(path), options=Options(cpu_options=options))
        except Exception as cause:
            raise ModelFormatError(f"LiteRT can't read {path}: {cause}. Copy or export it again.") from cause
        layers = range(settings["num_layers"])
        self.cache_names = [f"kv_cache_{kind}_{index}" for kind in "kv" for index in layers]
        self._buffers: dict[tuple[str, str], Any] = {}

    def ending_at(self, end_token_id: int) -> LiteRtEngine:
        """Return the same engine whose texts end at another token."""
        other = copy.copy(self)
        other.tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        return other

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> LiteRtSession:
        """Return a session whose rows are these texts; see `kerasgen.generation.engine.Engine`."""
        return LiteRtSession(self, prompts)

    def decode_name(self, place: int) -> str:
        """Return the signature that reads a token at a place and attends to the fewest places beyond it."""
        seen = next((length for length in self.settings.get("decode_lengths", ()) if length > place), None)
        return DECODE if seen is None else f"{DECODE}_{seen}"

    def prefilled(self, prompt: Sequence[int]) -> dict[str, Any]:
        """Return caches in which all of a prompt but its last token was read."""
        return _read_prompt(self, list(prompt)).caches

    def caches(self) -> dict[str, Any]:
        """Return new caches, zeroed: masked places must hold something finite."""
        shape = self.settings["num_heads"], self.settings["cache_length"], self.settings["head_dim"]
        zeros = np.zeros(int(np.prod(shape)), dtype=np.float32)
        found = {name: self._compiled.create_input_buffer_by_name(DECODE, name) for name in self.cache_names}
        for buffer in found.values():
            buffer.write(zeros)
        return found

    def copy_caches(self, caches: dict[str, Any]) -> dict[str, Any]:
        """Return caches of their own that hold the same."""
        found = self.caches()
        size = self.settings["num_heads"] * self.settings["cache_length"] * self.settings["head_dim"]
        for name, buffer in found.items():
            buffer.write(caches[name].read(size, np.float32))
        return found

    def run(self, signature: str, caches: dict[str, Any], *, rows: int, **inputs: npt.NDArray[Any]) -> Any:
        """Run a signature, whose caches are updated in place, and return logits, float32 `(rows, vocabulary_size)`.

        Args:
            signature: its name.
            caches: of the text.
            rows: of the logits; 0 for a signature that has none.
            **inputs: its other inputs.
        """
        asked = dict(caches)
        for name, array in inputs.items():
            buffer = self._buffer(signature, name)
            buffer.write(array)
            asked[name] = buffer
        answered = dict(caches)
        if rows:
            answered["logits"] = self._buffer(signature, "logits", output=True)
        self._compiled.run_by_name(signature, asked, answered)
        if not rows:
            return None
        size = self.settings["vocabulary_size"]
        found = answered["logits"].read(rows * size, np.float32).reshape(rows, size)
        return found[:, : self.tokenizer.vocabulary_size]

    def loop(self, signature: str, caches: dict[str, Any], inputs: Mapping[str, npt.NDArray[Any]]) -> list[int]:
        """Run a signature that generates by itself, and return the ids; see `run`."""
        asked, answered = dict(caches), dict(caches)
        for name, array in inputs.items():
            asked[name] = self._buffer(signature, name)
            asked[name].write(array)
        for name in ("token_ids", "count"):
            answered[name] = self._buffer(signature, name, output=True)
        self._compiled.run_by_name(signature, asked, answered)
        count = int(answered["count"].read(1, np.int32)[0])
        ids: list[int] = answered["token_ids"].read(self.settings["cache_length"], np.int32)[:count].tolist()
        return ids

    def _buffer(self, signature: str, name: str, *, output: bool = False) -> Any:
        key = signature, name
        if key not in self._buffers:
            make = self._compiled.create_output_buffer_by_name if output else self._compiled.create_input_buffer_by_name
            self._buffers[key] = make(signature, name)
        return self._buffers[key]


class _Tree:
    """Texts that share one cache: each has the slots that are its past, and texts that part copy nothing.

    Args:
        engine: that reads tokens.
        caches: of the texts.
        past: bool `(rows, cache_length)`, the slots of each text.
    """

    def __init__(self, engine: LiteRtEngine, caches: dict[str, Any], past: npt.NDArray[np.bool_]) -> None:
        self.engine = engine
        self.caches = caches
        self.past = past

    def read(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read the next token of each text and return the logits after it, `(rows, vocabulary_size)`."""
        lengths = self.past.sum(axis=1)
        if len(tokens) == 1 and self.past[0, : lengths[0]].all():
            at = np.array([lengths[0]], dtype=np.int32)
            self.past[0, lengths[0]] = True
            name = self.engine.decode_name(int(lengths[0]))
            single = self.engine.run(name, self.caches, rows=1, tokens=tokens.astype(np.int32)[None], input_pos=at)
            return cast(npt.NDArray[np.float32], single)
        width = int(self.engine.settings["beams"])
        slots = self._free()[: len(tokens)]
        self.past[np.arange(len(tokens)), slots] = True
        found = []
        for first in range(0, len(tokens), width):
            # A chunk that is not full repeats its first text: what is written twice is the same.
            rows = np.arange(first, first + width)
            rows[rows >= len(tokens)] = first
            found.append(
                self.engine.run(
                    f"decode_beams_{width}",
                    self.caches,
                    rows=width,
                    tokens=tokens[rows].astype(np.int32)[None],
                    input_pos=lengths[rows].astype(np.int32),
                    slots=slots[rows].astype(np.int32),
                    mask=np.where(self.past[rows], np.float32(0), _MASKED)[None, None],
                )[: len(tokens) - first]
            )
        return np.concatenate(found)

    def parted(self) -> list[_Tree]:
        """Return trees in which there is a slot for the next token of each text: this one, while its cache has room.

        Texts that have parted fill more slots than each is long; a full cache is copied, and each half of the texts
        goes on in one of its own, in which what only the other half had is free again.
        """
        count = len(self.past)
        if count == 1 or len(self._free()) >= count:
            return [self]
        half = count // 2
        second = _Tree(self.engine, self.engine.copy_caches(self.caches), self.past[half:])
        return [*_Tree(self.engine, self.caches, self.past[:half]).parted(), *second.parted()]

    def _free(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(~self.past.any(axis=0))

    def take(self, rows: npt.NDArray[np.int64]) -> list[_Tree]:
        """Return trees of these texts, one tree if the graph reads several texts of a cache at once."""
        if len(rows) <= 1 or self.engine.settings["beams"]:
            return [_Tree(self.engine, self.caches, self.past[rows])]
        first = [_Tree(self.engine, self.caches, self.past[rows[:1]])]
        return first + [_Tree(self.engine, self.engine.copy_caches(self.caches), self.past[[row]]) for row in rows[1:]]


class LiteRtSession:
    """One batch of texts while they grow; see `kerasgen.generation.engine.Session`."""

    def __init__(self, engine: LiteRtEngine, prompts: Sequence[Sequence[int]]) -> None:
        self._trees = [_read_prompt(engine, list(prompt)) for prompt in prompts]
        self._next = np.array([prompt[-1] for prompt in prompts], dtype=np.int64)
        self._logits: npt.NDArray[np.float32] | None = None

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the logits of each row's next token."""
        if self._logits is None:
            self._trees = [part for tree in self._trees for part in tree.parted()]
            found, at = [], 0
            for tree in self._trees:
                count = len(tree.past)
                found.append(tree.read(self._next[at : at + count]))
                at += count
            self._logits = np.concatenate(found)
        return self._logits

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row."""
        self.logits()
        self._next = np.asarray(token_ids, dtype=np.int64)
        self._logits = None

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._logits is not None:
            self._logits = self._logits[rows]
        self._next = self._next[rows]
        tree_of = np.repeat(np.arange(len(self._trees)), [len(tree.past) for tree in self._trees])
        first_of = np.cumsum([0, *(len(tree.past) for tree in self._trees)])
        # Rows of one tree may stand apart: each run of neighbours becomes a tree, later runs with caches of their own.
        taken: list[_Tree] = []
        used: set[int] = set()
        at = 0
        while at < len(rows):
            origin = int(tree_of[rows[at]])
            end = at
            while end < len(rows) and tree_of[rows[end]] == origin:
                end += 1
            tree = self._trees[origin]
            if origin in used:
                tree = _Tree(tree.engine, tree.engine.copy_caches(tree.caches), tree.past)
            used.add(origin)
            taken += tree.take(rows[at:end] - first_of[origin])
            at = end
        self._trees = taken


def _read_prompt(engine: LiteRtEngine, prompt: list[int]) -> _Tree:
    """A tree of one text that has read all of its prompt but the last token."""
    caches, length = engine.caches(), engine.settings["cache_length"]
    past = np.zeros((1, length), dtype=np.bool_)
    tree = _Tree(engine, caches, past)
    waiting, at = prompt[:-1], 0
    while at < len(waiting):
        left = len(waiting) - at
        size = _chunk(engine.settings["prefill_lengths"], left, length - at)
        if size is None:
            tree.read(np.array([waiting[at]]))
            at += 1
            continue
        tokens = np.zeros((1, size), dtype=np.int32)
        count = min(size, left)
        tokens[0, :count] = waiting[at : at + count]
        # Places after the prompt are written too, and again before they are attended to.
        engine.run(f"prefill_{size}", caches, rows=0, tokens=tokens, input_pos=np.arange(at, at + size, dtype=np.int32))
        past[0, at : at + count] = True
        at += count
    return tree


def _chunk(sizes: Sequence[int], left: int, room: int) -> int | None:
    """The prefill to read `left` tokens with, or None where reading one by one is cheaper or nothing else fits."""
    fitting = [size for size in sorted(sizes) if size <= room]
    enough = [size for size in fitting if size >= left]
    if enough and left * 4 >= enough[0]:
        return enough[0]
    smaller = [size for size in fitting if size <= left]
    return smaller[-1] if smaller else None


def open_artefact(
    path: Path, found: dict[str, Any], *, threads: int = 1, weight_cache: Path | str | None = DEFAULT
) -> LiteRtRuntime:
    """Return the runtime of a TFLite artefact; `found` is what `metadata.read` returned.

    Args:
        path: the `.tflite` file.
        found: what lies beside it.
        threads: that LiteRT may use.
        weight_cache: a file for XNNPACK's weights, None for none, or `"default"` for one in the user's cache directory,
            which is done without where nothing can be written there.

    Raises:
        GenerateArgumentError: `threads` is no whole number of at least 1, or the weight cache can't be written.
        ModelFormatError: files of several exports are mixed, or the file is cut off.
    """
    check_threads(threads)
    expected = metadata.size_of(path, found)
    size = path.stat().st_size
    if size != expected:
        raise ModelFormatError(f"{path} holds {size} bytes where {expected} were written. Copy or export it again.")
    kept = _verified(path, found["sha256"], weight_cache)
    tokenizer = metadata.read_tokenizer(path, found["tokenizer"])
    return LiteRtRuntime(LiteRtEngine(path, tokenizer, found["graph"], threads=threads, weight_cache=kept))


def _verified(path: Path, sha256: str, weight_cache: Path | str | None) -> Path | None:
    """The weight cache of a file that is the one that was exported, or None where there is none."""
    kept = _place(sha256, weight_cache)
    try:
        verifying.check_sha256(path, sha256, weight_cache=kept)
        if kept is not None and kept.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(kept))
        if kept is not None and not kept.exists() and not os.access(kept.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(kept.parent))
    except OSError as cause:
        if weight_cache != DEFAULT:
            raise GenerateArgumentError(
                f"`weight_cache` can't be written: {cause}. Name another file, or None, which keeps the weights in "
                "this process's memory."
            ) from cause
        verifying.check_sha256(path, sha256)
        return None
    return kept


def _place(sha256: str, weight_cache: Path | str | None) -> Path | None:
    if weight_cache is None:
        return None
    if weight_cache != DEFAULT:
        if not isinstance(weight_cache, (str, os.PathLike)):
            raise GenerateArgumentError(f"`weight_cache` must be a path or None. Received: {weight_cache!r}.")
        return Path(weight_cache).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("kerasgen") / "litert" / f"{sha256[:32]}.xnnpack"
