"""Decodes texts in a TFLite artefact's caches: one text a cache, or several texts that share a prompt's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kerasgen.exporters.tflite.shortlist import Shortlist
from kerasgen.generation.engine import highest_of, logits_of

if TYPE_CHECKING:
    from kerasgen.exporters.tflite.runtime import LiteRtEngine

_MASKED = np.float32(-1e9)
# A shortlist that fails costs a third more than all logits; one that holds saves a fifth. After this many more failures
# than successes, it is given up.
_MOST_FAILED = 16


class Tree:
    """Texts that share one cache: each has the slots that are its past, and texts that part copy nothing.

    Args:
        engine: the engine that reads tokens.
        caches: the caches of the texts.
        past: bool `(rows, cache_length)`, the slots of each text.
    """

    def __init__(self, engine: LiteRtEngine, caches: dict[str, Any], past: npt.NDArray[np.bool_]) -> None:
        self.engine = engine
        self.caches = caches
        self.past = past

    def read(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read the next token of each text and return the logits after it, `(rows, vocabulary_size)`."""
        lengths = self.past.sum(axis=1)
        if self.is_one_text:
            at = np.array([lengths[0]], dtype=np.int32)
            self.past[0, lengths[0]] = True
            name = self.engine.decode_name(int(lengths[0]))
            return self.engine.logits(name, self.caches, rows=1, tokens=tokens.astype(np.int32)[None], input_pos=at)
        width = int(self.engine.settings["beams"])
        slots = self._free()[: len(tokens)]
        self.past[np.arange(len(tokens)), slots] = True
        chunks = []
        for first in range(0, len(tokens), width):
            # An incomplete chunk repeats its first text, which writes the same values twice.
            rows = np.arange(first, first + width)
            rows[rows >= len(tokens)] = first
            chunks.append(
                self.engine.logits(
                    f"decode_beams_{width}",
                    self.caches,
                    rows=width,
                    tokens=tokens[rows].astype(np.int32)[None],
                    input_pos=lengths[rows].astype(np.int32),
                    slots=slots[rows].astype(np.int32),
                    mask=np.where(self.past[rows], np.float32(0), _MASKED)[None, None],
                )[: len(tokens) - first]
            )
        return np.concatenate(chunks)

    @property
    def is_one_text(self) -> bool:
        """Whether there is but one text, whose past lies in the first slots."""
        return len(self.past) == 1 and bool(self.past[0, : self.past[0].sum()].all())

    def read_shortlist(self, token_id: int) -> Shortlist:
        """Read the next token of the one text and return the logits after it that are worth computing."""
        place = int(self.past[0].sum())
        self.past[0, place] = True
        return self.engine.read_shortlist(self.caches, token_id, place)

    def parted(self) -> list[Tree]:
        """Return trees in which there is a slot for the next token of each text: this one, while its cache has room.

        Texts that have parted fill more slots than each is long; a full cache is copied, and each half of the texts
        goes on in one of its own, in which what only the other half had is free again.
        """
        count = len(self.past)
        if count == 1 or len(self._free()) >= count:
            return [self]
        half = count // 2
        second = Tree(self.engine, self.engine.copy_caches(self.caches), self.past[half:])
        return [*Tree(self.engine, self.caches, self.past[:half]).parted(), *second.parted()]

    def _free(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(~self.past.any(axis=0))

    def take(self, rows: npt.NDArray[np.int64]) -> list[Tree]:
        """Return trees of these texts, one tree if the graph reads several texts of a cache at once."""
        if len(rows) <= 1 or self.engine.settings["beams"]:
            return [Tree(self.engine, self.caches, self.past[rows])]
        first = [Tree(self.engine, self.caches, self.past[rows[:1]])]
        return first + [Tree(self.engine, self.engine.copy_caches(self.caches), self.past[[row]]) for row in rows[1:]]


class LiteRtSession:
    """One batch of texts while they grow; see `kerasgen.generation.engine.Session`."""

    def __init__(self, engine: LiteRtEngine, prompts: Sequence[Sequence[int]]) -> None:
        self._trees = [read_prompt(engine, list(prompt)) for prompt in prompts]
        self._next = np.array([prompt[-1] for prompt in prompts], dtype=np.int64)
        # A step's tokens have been read once either of these is known.
        self._logits: npt.NDArray[np.float32] | None = None
        self._hidden: list[npt.NDArray[np.float32]] | None = None
        self._engine = engine
        self._failed = 0

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the logits of each row's next token."""
        if self._logits is None and self._hidden is not None:
            self._logits = np.concatenate([self._engine.logits_after(hidden) for hidden in self._hidden])
        if self._logits is None:
            self._trees = [part for tree in self._trees for part in tree.parted()]
            chunks, at = [], 0
            for tree in self._trees:
                count = len(tree.past)
                chunks.append(tree.read(self._next[at : at + count]))
                at += count
            self._logits = np.concatenate(chunks)
        return self._logits

    def shortlist(
        self, count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer[Any]]]:
        """Return logits of each row's `count` likeliest next tokens and of some others; see `ShortlistSession`."""
        settings = self._engine.shortlist
        is_read = self._logits is not None or self._hidden is not None
        is_enough = settings is not None and count <= settings["count"]
        if is_enough and settings and not is_read and self._failed < _MOST_FAILED and self._are_apart():
            candidates = [tree.read_shortlist(int(token)) for tree, token in zip(self._trees, self._next, strict=True)]
            self._hidden = [shortlist.hidden for shortlist in candidates]
            if allowed is not None:
                candidates = [shortlist.among(row) for shortlist, row in zip(candidates, allowed, strict=True)]
            if all(shortlist.holds(count, settings) for shortlist in candidates):
                self._failed = max(self._failed - 1, 0)
                ids = np.stack([shortlist.ids for shortlist in candidates])
                order = np.argsort(ids, axis=-1)
                logits = np.stack([shortlist.logits for shortlist in candidates])
                return np.take_along_axis(logits, order, axis=-1), np.take_along_axis(ids, order, axis=-1)
            self._failed += 1
        logits = self.logits()
        ids = np.sort(highest_of(logits, count, allowed), axis=-1)
        return logits_of(logits, ids, allowed), ids

    def _are_apart(self) -> bool:
        return all(tree.is_one_text for tree in self._trees)

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row."""
        if self._hidden is None:
            self.logits()
        self._next = np.asarray(token_ids, dtype=np.int64)
        self._logits = self._hidden = None

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._logits is not None:
            self._logits = self._logits[rows]
        if self._hidden is not None:
            self._hidden = [self._hidden[row] for row in rows.tolist()]
        self._next = self._next[rows]
        tree_of = np.repeat(np.arange(len(self._trees)), [len(tree.past) for tree in self._trees])
        first_of = np.cumsum([0, *(len(tree.past) for tree in self._trees)])
        # Rows of one tree may stand apart: each run of neighbours becomes a tree, later runs with caches of their own.
        taken: list[Tree] = []
        used: set[int] = set()
        at = 0
        while at < len(rows):
            origin = int(tree_of[rows[at]])
            end = at
            while end < len(rows) and tree_of[rows[end]] == origin:
                end += 1
            tree = self._trees[origin]
            if origin in used:
                tree = Tree(tree.engine, tree.engine.copy_caches(tree.caches), tree.past)
            used.add(origin)
            taken += tree.take(rows[at:end] - first_of[origin])
            at = end
        self._trees = taken


def read_prompt(engine: LiteRtEngine, prompt: list[int]) -> Tree:
    """Return a tree of one text that has read all of its prompt but the last token."""
    caches, length = engine.caches(), engine.settings["cache_length"]
    past = np.zeros((1, length), dtype=np.bool_)
    tree = Tree(engine, caches, past)
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
        places = np.arange(at, at + size, dtype=np.int32)
        engine.run(f"prefill_{size}", caches, tokens=tokens, input_pos=places)
        past[0, at : at + count] = True
        at += count
    return tree


def _chunk(sizes: Sequence[int], left: int, remaining: int) -> int | None:
    """Return the prefill for `left` tokens, or None where reading one by one is cheaper or nothing else fits."""
    fitting = [size for size in sorted(sizes) if size <= remaining]
    enough = [size for size in fitting if size >= left]
    if enough and left * 4 >= enough[0]:
        return enough[0]
    smaller = [size for size in fitting if size <= left]
    return smaller[-1] if smaller else None
