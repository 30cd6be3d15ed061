"""Random numbers that depend only on the seed, the prompt and the place: not on batch, block, backend or earlier calls.

A counter-based generator in 32-bit integers that wrap, which NumPy, JAX and TensorFlow compute alike. The functions
take an array namespace `xp` first (`numpy`, or `keras.ops` in a graph), of which they use `bitwise_xor`, `bitwise_or`,
`left_shift`, `right_shift`, `where` and `sum`; arrays of uint32 must add with wrap-around.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry 2x32, 20 rounds).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry(xp: Any, key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return two random words for each counter under its key.

    Args:
        xp: the array namespace.
        key: two uint32 arrays.
        counter: two uint32 arrays, which broadcast against the key's.
    """
    keys = (*key, xp.bitwise_xor(xp.bitwise_xor(*key), _word(xp, key[0], _PARITY)))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[:4] if group % 2 == 0 else _ROTATIONS[4:]:
            x = x + y
            left = xp.left_shift(y, _word(xp, y, rotation))
            y = xp.bitwise_xor(xp.bitwise_or(left, xp.right_shift(y, _word(xp, y, 32 - rotation))), x)
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + _word(xp, y, group + 1)
    return x, y


def prompt_key(xp: Any, seed: tuple[Any, Any], token_ids: Any, counted: Any, repeat: Any) -> tuple[Any, Any]:
    """Return the key of each row's numbers: of the seed, the prompt and how often the same prompt came before.

    So different prompts of one call share no numbers, a prompt gives alone what it gives among others, and one that is
    given twice gives two texts.

    Args:
        xp: the array namespace.
        seed: low and high word of the seed, each uint32 `(rows, 1)` or `(1, 1)`.
        token_ids: uint32 `(rows, n)`, the prompts with their start tokens, from the first column on.
        counted: bool `(rows, n)`, which are the prompt's; how far it is padded changes nothing.
        repeat: uint32 `(rows,)`, how often the same prompt came before.

    Returns:
        Two uint32 `(rows,)`.
    """
    nothing = xp.zeros_like(token_ids)
    places = nothing + _column(xp, token_ids)
    # A sum of one random word for each (place, token): the order of summation and the padding don't matter.
    words = threefry(xp, (nothing + seed[0], nothing + seed[1]), (places, token_ids))
    low, high = (_sum(xp, xp.where(counted, word, nothing)) for word in words)
    return threefry(xp, (low, high), (repeat, repeat * 0))


def uniforms(xp: Any, key: tuple[Any, Any], place: Any) -> Any:
    """Return one number in [0, 1) for each key and place, float32, a multiple of 2**-24 that float32 holds exactly.

    Args:
        xp: the array namespace.
        key: two uint32 arrays, as `prompt_key` returns them.
        place: uint32 like the key's words; a text's n-th generated token, from 0, is drawn by the n-th number.
    """
    word, _ = threefry(xp, key, (place, place * 0))
    top = xp.right_shift(word, _word(xp, word, 8))
    return _float32(xp, top) * np.float32(2.0**-24)


def seed_words(seed: int) -> tuple[int, int]:
    """Return the low and the high 32 bits of a seed of 0 to 2**64 - 1."""
    return seed & 0xFFFFFFFF, seed >> 32


def keys(seeds: Sequence[int], prompts: Sequence[Sequence[int]], repeats: Sequence[int]) -> npt.NDArray[np.uint32]:
    """Return each prompt's key, uint32 `(rows, 2)`, on the host.

    Args:
        seeds: one for each prompt, 0 to 2**64 - 1.
        prompts: ids, the start token with them.
        repeats: what `streams` returned.
    """
    longest = max(map(len, prompts), default=0)
    token_ids = np.zeros((len(prompts), longest), dtype=np.uint32)
    for row, prompt in enumerate(prompts):
        token_ids[row, : len(prompt)] = prompt
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    counted = np.arange(longest) < lengths[:, None]
    words = np.array([seed_words(seed) for seed in seeds], dtype=np.uint32).reshape(-1, 2)
    key_words = prompt_key(
        np, (words[:, :1], words[:, 1:]), token_ids, counted, np.asarray(repeats, dtype=np.uint32).reshape(-1)
    )
    return np.stack(key_words, axis=1)


def streams(prompts: Sequence[Hashable]) -> list[int]:
    """Return how often each prompt came before: 0 for the first time."""
    seen: dict[Hashable, int] = {}
    repeats = []
    for prompt in prompts:
        repeats.append(seen.get(prompt, 0))
        seen[prompt] = repeats[-1] + 1
    return repeats


def _word(xp: Any, like: Any, value: int) -> Any:
    """A constant of the type and shape of `like`; shifts want both sides alike in TensorFlow."""
    if xp is np:
        return np.full_like(like, value)
    return xp.full_like(like, value)


def _column(xp: Any, like: Any) -> Any:
    if xp is np:
        return np.arange(like.shape[1], dtype=np.uint32)[None]
    # Counted and not read from the shape, which a graph may not know.
    return xp.cast(xp.cumsum(xp.ones_like(like[:1], dtype="int32"), axis=1) - 1, "uint32")


def _sum(xp: Any, words: Any) -> Any:
    """Return the sum of each row, modulo 2**32."""
    if xp is np:
        return np.add.reduce(words, axis=-1, dtype=np.uint32)
    return xp.cast(xp.sum(words, axis=-1), "uint32")


def _float32(xp: Any, words: Any) -> Any:
    if xp is np:
        return words.astype(np.float32)
    return xp.cast(words, "float32")
