"""Remembers prompts that were read: a text that begins like one is read only from where they differ. Imports JAX."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from kerasgen.decoder.jax_hooks import Cache

# Fewer tokens are faster to read again than to find and copy.
_WORTH_IT = 8


@dataclass(frozen=True, eq=False)
class Remembered:
    """Cache of a text that was read.

    Args:
        token_ids: the tokens.
        cache: the cache of one prompt; the tokens are the first in it.
    """

    token_ids: tuple[int, ...]
    cache: Cache

    def common(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return how many tokens all the prompts begin with as this text does; at least one of each is left to read."""
        shortest = min(map(len, prompts)) - 1
        columns = zip(self.token_ids[:shortest], *(prompt[:shortest] for prompt in prompts), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


class Prompts:
    """The texts that an engine remembers, the latest `most`. Threads may keep and find at the same time.

    Args:
        most: how many; 0 remembers none.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._kept: list[Remembered] = []  # replaced as a whole, so that who reads it has one list
        self._lent: list[Remembered] = []  # likewise
        self._lock = threading.Lock()

    def keep(self, text: Remembered) -> None:
        """Remember a text; it takes the place of those that it begins with."""
        with self._lock:
            others = [other for other in self._kept if text.token_ids[: len(other.token_ids)] != other.token_ids]
            self._kept = [*others, text][-self._most :] if self._most else []

    @contextmanager
    def beside(self, texts: Sequence[Remembered]) -> Iterator[None]:
        """Remember these too for as long as the context lasts."""
        with self._lock:
            self._lent = [*self._lent, *texts]
        try:
            yield
        finally:
            with self._lock:
                self._lent = [text for text in self._lent if all(text is not one for one in texts)]

    def clear(self) -> None:
        """Forget all."""
        self._kept = []
        self._lent = []

    def holds(self, token_ids: Sequence[int]) -> bool:
        """Return whether a text is remembered that begins with all of these tokens."""
        return any(text.token_ids[: len(token_ids)] == tuple(token_ids) for text in self._kept)

    def find(self, prompts: Sequence[Sequence[int]]) -> tuple[Remembered, int] | None:
        """Return the text with which all these prompts have most in common and how many tokens, or None."""
        texts = [*self._kept, *self._lent]
        best: Any = max(((text.common(prompts), n) for n, text in enumerate(texts)), default=(0, 0))
        return (texts[best[1]], int(best[0])) if best[0] >= _WORTH_IT else None
