"""What llama.cpp should compute of weights: texts read by the model, and by NumPy's decoder with llama.cpp's GELU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.arithmetic import activate
from kerasgen.decoder.numpy import XP, NumpyDecoder
from kerasgen.exporters.parity.comparison import Read

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
    def of(cls, rows: npt.NDArray[Any], ids: Sequence[int], end: int) -> Ending:
        """Return where a text is to end.

        Args:
            rows: the logits of each of its tokens, `(ids, vocabulary_size)`.
            ids: of the text.
            end: the end token.
        """
        place, bias = _ending(rows.astype(np.float64), end)
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


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts that llama.cpp wrote, each read once by the model; those that others begin with are read with them.

    Args:
        read: the model.
        decoder: the same with llama.cpp's GELU, which reads a text up to the last id that is not the model's likeliest.
        likeliest: of each text that was read, the model's likeliest id after each of its tokens.
    """

    read: Read
    decoder: LlamaCppDecoder
    likeliest: dict[tuple[int, ...], list[int]] = dataclasses.field(default_factory=dict)
    _behind: dict[tuple[tuple[int, ...], tuple[int, ...]], npt.NDArray[np.float64]] = dataclasses.field(
        default_factory=dict
    )

    def add(self, prompt: Sequence[int], ids: Sequence[int]) -> npt.NDArray[Any]:
        """Read a text, and return the logits of each of the ids after its prompt, `(ids, vocabulary_size)`."""
        before = (*prompt, *ids[:-1])
        every = np.asarray(self.read(before))
        self.likeliest[before] = every.argmax(-1).tolist()
        rows = every[len(prompt) - 1 :]
        nats = _behind(rows, ids)
        others = np.flatnonzero(nats)
        if len(others):
            last = int(others[-1]) + 1
            with_gelu = self.decoder.copy().read([*prompt, *ids[: last - 1]])[len(prompt) - 1 :]
            nats[:last] = np.minimum(nats[:last], _behind(with_gelu, ids[:last]))
        self._behind.update({(tuple(prompt), tuple(ids[:count])): nats[:count] for count in range(1, len(ids) + 1)})
        return rows

    def choices(self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Return how often the texts' ids are the likeliest ones, and by how many nats they are behind at most.

        Args:
            prompts: ids.
            texts: ids after each.
        """
        asked = [(tuple(prompt), tuple(ids)) for prompt, ids in zip(prompts, texts, strict=True)]
        for prompt, ids in sorted(asked, key=lambda text: -len(text[1])):
            if (prompt, ids) not in self._behind:
                self.add(prompt, ids)
        together = np.concatenate([self._behind[text] for text in asked])
        return float((together == 0).mean()), float(together.max())


def _behind(rows: npt.NDArray[Any], ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return by how many nats each id is behind the likeliest one of its row."""
    nats: npt.NDArray[np.float64] = rows.max(-1).astype(np.float64) - rows[np.arange(len(ids)), list(ids)]
    return nats
