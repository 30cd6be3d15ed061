"""What llama.cpp should compute of weights: NumPy's decoder with llama.cpp's GELU, and its choices beside others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.arithmetic import activate
from kerasgen.decoder.numpy import XP, NumpyDecoder

_CLEARLY = 1.0  # nats by which an end token comes nearer than before, to end a text there


class LlamaCppDecoder(NumpyDecoder):
    """The same with llama.cpp's GELU, which on a CPU is a table from float16 to float16 between -10 and 10."""

    def activate(self, hidden: Any) -> Any:
        """Return the activations between the kernels of the feed-forward part."""
        part = self._config.feedforward
        if part.gated or part.activation != "gelu_approximate":
            return super().activate(hidden)
        half = np.clip(hidden, -10, 10).astype(np.float16)
        table = _gelu_table()[half.view(np.uint16)]
        return np.where(hidden <= -10, np.float32(0), np.where(hidden >= 10, hidden, table))


@functools.cache
def _gelu_table() -> npt.NDArray[np.float32]:
    """Return GELU of each float16 by its bits, rounded to float16, as float32."""
    with np.errstate(all="ignore"):  # some of them are no numbers, and some powers overflow
        every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
        table: npt.NDArray[np.float32] = activate(XP, every, "gelu_approximate").astype(np.float16).astype(np.float32)
    return table


@dataclasses.dataclass(frozen=True)
class Ending:
    """A text that llama.cpp should end: its ids with the end token, and what is added to that token's logit."""

    ids: list[int]
    bias: float

    @classmethod
    def of(cls, decoder: NumpyDecoder, prompt: Sequence[int], new_tokens: int, end: int) -> Ending:
        """Return where the text of so many new tokens, which this decoder writes, is to end."""
        rows = [decoder.read(prompt)[-1].astype(np.float64)]
        ids = [int(rows[0].argmax())]
        while len(ids) < new_tokens:
            rows.append(decoder.read(ids[-1:])[-1].astype(np.float64))
            ids.append(int(rows[-1].argmax()))
        place, bias = _ending(np.stack(rows), end)
        return cls([*ids[:place], end], bias)


def _ending(rows: npt.NDArray[np.float64], end: int) -> tuple[int, float]:
    """Return a place, and what to add to the end token's logit so that the text ends there and not before.

    It is where the end token comes nearer to the likeliest than ever before, by most; if it never clearly does, it is
    at once.
    """
    margins = rows.max(-1) - rows[:, end]
    before = np.minimum.accumulate(margins)[:-1]
    nearer = before - margins[1:]
    if not len(nearer) or nearer.max() < _CLEARLY:
        return 0, float(margins[0]) + _CLEARLY
    place = int(nearer.argmax()) + 1
    return place, float(before[place - 1] + margins[place]) / 2


Behind = dict[tuple[tuple[int, ...], tuple[int, ...]], npt.NDArray[np.float64]]
"""Of a prompt and ids after it, by how many nats each id is behind the likeliest one."""


def choices(
    decoder: NumpyDecoder, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], known: Behind
) -> tuple[float, float]:
    """Return how often the texts' ids are the likeliest ones, and by how many nats they are behind at most.

    A text that another one of the same prompt begins with is read once, with that one.

    Args:
        decoder: what should have chosen them.
        prompts: ids.
        texts: ids after each.
        known: of texts that were read before, to which those of this call are added.
    """
    asked = [(tuple(prompt), tuple(ids)) for prompt, ids in zip(prompts, texts, strict=True)]
    for prompt, ids in sorted(asked, key=lambda text: -len(text[1])):
        if (prompt, ids) not in known:
            rows = decoder.copy().read([*prompt, *ids[:-1]])[len(prompt) - 1 :].astype(np.float64)
            nats = rows.max(-1) - rows[np.arange(len(ids)), list(ids)]
            known |= {(prompt, ids[:count]): nats[:count] for count in range(1, len(ids) + 1)}
    together = np.concatenate([known[text] for text in asked])
    return float((together == 0).mean()), float(together.max())
