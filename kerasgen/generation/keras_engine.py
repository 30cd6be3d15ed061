"""Decodes any KerasHub causal model by its `call_with_cache` or, where it has none, its forward pass.

Imports Keras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kerasgen import fork_safety
from kerasgen.generation import keras_passes as passes
from kerasgen.generation.engine import Session
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.end_token import EndingTokenizer


class KerasEngine:
    """A KerasHub causal model and its tokenizer, decoded by Keras on the backend that it runs on.

    Args:
        model: the model; its weights are read at each call.
    """

    name = "keras"

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's exact tokenizer."""
        return self.model.tokenizer

    @property
    def max_sequence_length(self) -> int | None:
        """Positions that the model knows, or None."""
        return self.model.max_sequence_length

    def ending_at(self, end_token_id: int) -> KerasEngine:
        """Return an engine of the same model whose texts end at another token."""
        tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        return KerasEngine(dataclasses.replace(self.model, tokenizer=tokenizer))

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> Session:
        """Return a session whose rows are these texts; see `Engine.open`."""
        fork_safety.check(fork_safety.KERAS)
        kind = _CachedSession if passes.keeps_cache(self.model.network) else _Texts
        return kind(self.model, prompts, limits)


class _Texts:
    """Session without a cache: each step reads the whole texts again."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        length = passes.cache_length(max(limits), model.max_sequence_length)
        # Rows are filled up to a power of two by the first, so that texts which end don't make new shapes.
        self.rows = len(prompts)
        filled = [prompts[row] for row in _filled(np.arange(self.rows)).tolist()]
        self.token_ids = np.full((len(filled), length), model.tokenizer.pad_token_id, dtype=np.int32)
        for row, prompt in enumerate(filled):
            self.token_ids[row, : len(prompt)] = prompt
        self.lengths = np.array([len(prompt) for prompt in filled], dtype=np.int32)
        self._causal_lm = model.network
        self._vocabulary_size = model.tokenizer.vocabulary_size
        self._known: npt.NDArray[np.float32] | None = None

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the logits of each row's next token."""
        if self._known is None:
            self._known = np.asarray(ops.convert_to_numpy(self._forward()))[:, : self._vocabulary_size]
        return self._known[: self.rows]

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row."""
        filled = np.concatenate([token_ids, np.repeat(token_ids[:1], len(self.lengths) - self.rows)])
        self.token_ids[np.arange(len(self.lengths)), self.lengths] = filled
        self.lengths += 1
        self._known = None

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows."""
        self.rows = len(rows)
        rows = _filled(rows)
        self.token_ids, self.lengths = self.token_ids[rows], self.lengths[rows]
        self._known = None if self._known is None else self._known[rows]

    def _forward(self) -> Any:
        inputs = ops.convert_to_tensor(self.token_ids), ops.convert_to_tensor(self.lengths)
        return passes.call(passes.forward, self._causal_lm, *inputs)


class _CachedSession(_Texts):
    """Session with a cache in which each position has its place; a step reads only each row's last token."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        super().__init__(model, prompts, limits)
        self._prompt_hidden, self._cache = passes.call(
            passes.prefill, self._causal_lm, ops.convert_to_tensor(self.token_ids)
        )
        self._hidden: npt.NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)

    def prompt_hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden states of the prompts."""
        return np.asarray(ops.convert_to_numpy(self._prompt_hidden))[: self.rows]

    def hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden state of each row's last token."""
        return self._hidden[: self.rows]

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows."""
        filled = _filled(rows)
        stays = len(filled) == len(self.lengths) and np.array_equal(filled, np.arange(len(filled)))
        if len(self._hidden) == len(self.lengths):
            self._hidden = self._hidden[filled]
        super().select(rows)
        if stays:
            return
        taken = ops.convert_to_tensor(filled.astype(np.int32))
        self._cache = passes.call(passes.select, self._causal_lm, self._cache, taken)

    def _forward(self) -> Any:
        last = self.token_ids[np.arange(len(self.lengths)), self.lengths - 1][:, None]
        places = self.lengths - 1
        if (places == places[0]).all():
            index = ops.convert_to_tensor(int(places[0]), dtype="int32")
            logits, hidden, self._cache = self._step(passes.step, last, self._cache, index)
        elif keras.config.backend() == "jax":
            index = ops.convert_to_tensor(places)
            logits, hidden, self._cache = self._step(passes.step_each, last, self._cache, index)
        else:
            return self._by_place(last, places)
        self._hidden = np.asarray(ops.convert_to_numpy(hidden))
        return logits

    def _by_place(self, last: npt.NDArray[np.int32], places: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Read rows of one length together, because a KerasHub cache is written at one index for all of its rows."""
        logits: Any = [None] * len(places)
        hidden: Any = [None] * len(places)
        caches: Any = [None] * len(places)
        for place in np.unique(places).tolist():
            rows = np.flatnonzero(places == place)
            taken = ops.convert_to_tensor(rows.astype(np.int32))
            cache = passes.call(passes.select, self._causal_lm, self._cache, taken)
            index = ops.convert_to_tensor(place, dtype="int32")
            stepped = self._step(passes.step, last[rows], cache, index)
            for n, row in enumerate(rows.tolist()):
                logits[row], hidden[row], caches[row] = (
                    stepped[0][n : n + 1],
                    stepped[1][n : n + 1],
                    keras.tree.map_structure(lambda array, n=n: array[n : n + 1], stepped[2]),
                )
        self._cache = keras.tree.map_structure(lambda *arrays: ops.concatenate(arrays, axis=0), *caches)
        self._hidden = np.asarray(ops.convert_to_numpy(ops.concatenate(hidden, axis=0)))
        return np.asarray(ops.convert_to_numpy(ops.concatenate(logits, axis=0)))

    def _step(self, function: Any, last: npt.NDArray[np.int32], cache: Any, index: Any) -> Any:
        return passes.call(function, self._causal_lm, ops.convert_to_tensor(last), cache, index)


def _filled(rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Pad the rows to a power of two by repeating the first."""
    count = 1 << (len(rows) - 1).bit_length()
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows))]).astype(np.int64)
