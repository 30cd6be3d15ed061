"""Random numbers that depend on the seed and on nothing else: not on the batch, the backend or earlier calls."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt


def uniforms(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    """Return the first `count` numbers of one stream, each in [0, 1).

    A number depends on the seed, the stream and its place alone, so a longer request begins like a shorter one.

    Args:
        seed: 0 to 2**64 - 1.
        stream: 0 to 2**64 - 1; streams of one seed are independent.
        count: how many; a text's n-th generated token is drawn by the n-th.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox 4x64).
    """
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def streams(prompts: Sequence[Hashable]) -> list[int]:
    """Return each prompt's stream: how often the same prompt came before it.

    So a prompt gives alone what it gives among others, and one that is given twice gives two texts.
    """
    seen: dict[Hashable, int] = {}
    found = []
    for prompt in prompts:
        found.append(seen.get(prompt, 0))
        seen[prompt] = found[-1] + 1
    return found
