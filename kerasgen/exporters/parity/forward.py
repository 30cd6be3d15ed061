"""KerasHub's forward pass of one text, with which proofs compare what an artefact computes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen import backend
from kerasgen.models.base import LanguageModel


class Forward:
    """A function from a text's ids to its logits, `(tokens, vocabulary_size)`.

    On JAX it is one program for each length: operation by operation it takes twice as long. The weights are the
    program's arguments, as they are when it is called, and what is compiled is kept on the disk for later processes.

    Args:
        model: of a class of KerasHub's.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._network: Any = model.causal_lm
        self._vocabulary_size = model.tokenizer.vocabulary_size
        self._is_compiled = backend.running() == "jax" and hasattr(self._network, "stateless_call")
        self._programs: dict[int, Any] = {}
        self._compiling: dict[int, threading.Lock] = {}
        if self._is_compiled:
            backend.keep_compiled()

    def compile(self, *lengths: int) -> None:
        """Compile what texts of these lengths need, one after the other; a call of one of them waits for it alone."""
        if self._is_compiled:
            for length in lengths:
                self._program(np.zeros((1, length), np.int32))

    def __call__(self, token_ids: Sequence[int]) -> npt.NDArray[Any]:
        """Return the logits after each token."""
        from kerasgen.models import precision

        ids = np.asarray([token_ids], np.int32)
        if self._is_compiled:
            outputs = self._program(ids)(*self._weights(), ids)
        else:
            with precision.whole_float32():
                outputs = self._network(_inputs(ids), training=False)
        return np.asarray(outputs)[0, :, : self._vocabulary_size]

    def _program(self, ids: npt.NDArray[Any]) -> Any:
        import jax

        from kerasgen.models import precision

        length = ids.shape[1]
        with self._compiling.setdefault(length, threading.Lock()):
            if length not in self._programs:
                with precision.whole_float32():
                    self._programs[length] = jax.jit(self._call).lower(*self._weights(), ids).compile()
            return self._programs[length]

    def _call(self, trainable: Any, other: Any, ids: Any) -> Any:
        return self._network.stateless_call(trainable, other, _inputs(ids), training=False)[0]

    def _weights(self) -> tuple[list[Any], list[Any]]:
        network = self._network
        trainable, other = network.trainable_variables, network.non_trainable_variables
        return [variable.value for variable in trainable], [variable.value for variable in other]


def _inputs(ids: Any) -> dict[str, Any]:
    return {"token_ids": ids, "padding_mask": np.ones(ids.shape, np.int32)}
