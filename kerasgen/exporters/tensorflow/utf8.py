"""Keeps texts valid UTF-8 inside a graph, by the table of `kerasgen.constraints.valid_utf8`. Imports TensorFlow.

The table has one more state than there: the one of a text that nothing is kept from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kerasgen.constraints.valid_utf8 import REACH, START, Utf8Masks

LOWEST = float("-inf")


def table(masks: Utf8Masks | None, width: int) -> npt.NDArray[np.int8] | None:
    """Return the table for logits of a width, int8 `(states + 1, width)`, or None where every token may follow.

    Args:
        masks: the masks of the tokenizer.
        width: logits that the graph computes; those beyond the vocabulary are of no token.
    """
    if masks is None:
        return None
    states, size = masks.steps.shape
    steps = np.full((states + 1, width), -1 - START, dtype=np.int8)
    steps[:states, :size] = masks.steps
    steps[states] = states
    return steps


class Utf8Steps(tf.Module):  # type: ignore[misc]
    """The table as a variable, which all functions of a module share.

    Args:
        steps: what `table` returned; None where every token may follow.
    """

    def __init__(self, steps: npt.NDArray[np.int8] | None) -> None:
        super().__init__()
        self._steps = None if steps is None else tf.Variable(steps, trainable=False)
        self._free = 0 if steps is None else len(steps) - 1

    @property
    def matters(self) -> bool:
        """Whether some token may not follow somewhere."""
        return self._steps is not None

    def begin(self, prompts: Any, lengths: Any, valid_utf8: Any) -> Any:
        """Return the states after prompts, int32 `(batch,)`.

        Args:
            prompts: int32 `(batch, length)`, right-padded, the start token with them.
            lengths: int32 `(batch,)`.
            valid_utf8: bool scalar; without it, nothing is kept from the texts.
        """
        states = tf.zeros_like(lengths)
        if self._steps is None:
            return states
        for back in range(REACH, 0, -1):
            places = lengths - back
            tokens = tf.gather(prompts, tf.maximum(places, 0), batch_dims=1)
            states = tf.where(places >= 0, self.after(states, tokens), states)
        return tf.where(valid_utf8, states, self._free)

    def masked(self, logits: Any, states: Any) -> Any:
        """Return logits `(rows, width)`, -inf where a token may not follow; states are int32 `(rows,)`."""
        if self._steps is None:
            return logits
        return tf.where(tf.gather(self._steps, states) >= 0, logits, LOWEST)

    def after(self, states: Any, tokens: Any) -> Any:
        """Return the states after a token each, int32 `(rows,)`."""
        if self._steps is None:
            return states
        steps = tf.convert_to_tensor(self._steps)  # XLA gathers from it, and not from a variable
        next_states = tf.cast(tf.gather_nd(steps, tf.stack([states, tokens], axis=1)), tf.int32)
        return tf.where(next_states < 0, -1 - next_states, next_states)
