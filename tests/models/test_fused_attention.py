"""Attention as a GPU is given it gathers what the other attention does, and its dropout is one of whole keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kerasgen import backend

pytestmark = pytest.mark.one_backend
BATCH, LENGTH, HEADS, SIZE = 2, 24, 2, 8
SEGMENTS = np.stack([np.repeat([1, 2, 3, 0], (9, 8, 4, 3)), np.repeat([1, 2], (1, 23))]).astype(np.int32)


@pytest.fixture(scope="module", autouse=True)
def running() -> None:
    if backend.use() != "jax":
        pytest.skip("JAX's attention")


def drawn(seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((BATCH * LENGTH, 3 * HEADS * SIZE)).astype(np.float32)


def by_hand(qkv: Any, scale: Any = 1.0) -> Any:
    """In NumPy, query by query; each value is scaled by `scale`, `(batch, length, heads)`."""
    query, key, value = np.moveaxis(qkv.astype(np.float64).reshape(BATCH, LENGTH, 3, HEADS, SIZE), 2, 0)
    value = value * np.broadcast_to(scale, (BATCH, LENGTH, HEADS))[..., None]
    gathered = np.zeros_like(value)
    for row, place, head in np.ndindex(BATCH, LENGTH, HEADS):
        seen = [n for n in range(place + 1) if SEGMENTS[row, n] == SEGMENTS[row, place]]
        scores = key[row, seen, head] @ query[row, place, head] / np.sqrt(SIZE)
        shares = np.exp(scores - scores.max())
        gathered[row, place, head] = shares / shares.sum() @ value[row, seen, head]
    return gathered.reshape(BATCH * LENGTH, -1)


def test_it_gathers_within_documents_and_from_before_alone_and_so_do_its_gradients() -> None:
    import jax

    from kerasgen.models import kernels_jax

    qkv = drawn()
    np.testing.assert_allclose(kernels_jax.fused(qkv, SEGMENTS, HEADS, 0.0, None), by_hand(qkv), atol=1e-5)
    upstream = drawn(1)[:, : HEADS * SIZE]
    found = [
        jax.grad(lambda qkv, attend=attend: (attend(qkv, SEGMENTS, HEADS, 0.0, None) * upstream).sum())(qkv)
        for attend in (kernels_jax.fused, kernels_jax.attention)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_its_dropout_drops_keys_of_a_head_from_the_sight_of_all_queries() -> None:
    """What was dropped is read from the gradient by the values; then the whole is compared with sums by hand."""
    import jax

    from kerasgen.models import kernels_jax

    rate, qkv = 0.25, drawn()
    seeds = [np.array([0, n], np.uint32) for n in range(200)]
    ones = qkv.reshape(BATCH, LENGTH, 3, HEADS, SIZE).copy()
    ones[:, :, 2] = 1.0

    @jax.jit
    def gathers(qkv: Any, seed: Any) -> Any:
        return kernels_jax.fused(qkv.reshape(BATCH * LENGTH, -1), SEGMENTS, HEADS, rate, seed)

    @jax.jit
    def kept_of(seed: Any) -> Any:
        of_values = jax.grad(lambda values: gathers(values, seed).sum())(ones)
        return of_values.reshape(BATCH, LENGTH, 3, HEADS, SIZE)[:, :, 2, :, 0]

    masks = []
    for seed in seeds[:3]:
        own = np.asarray(kept_of(seed)) != 0
        np.testing.assert_allclose(gathers(qkv, seed), by_hand(qkv, own / (1 - rate)), atol=1e-4)
        masks.append(own)
    assert not (masks[0] == masks[1]).all(), "each step draws anew"
    mean = np.mean([np.asarray(gathers(qkv, seed)) for seed in seeds], axis=0)
    spread = np.std([np.asarray(gathers(qkv, seed)) for seed in seeds], axis=0) / np.sqrt(len(seeds))
    assert np.all(np.abs(mean - by_hand(qkv)) < 5 * spread + 1e-6)


def test_on_a_gpu_it_is_what_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    from kerasgen.models import kernels_jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    qkv, seed = drawn(), np.array([0, 1], np.uint32)
    fused = kernels_jax.fused(qkv, SEGMENTS, HEADS, 0.5, seed)
    assert (kernels_jax.attention(qkv, SEGMENTS, HEADS, 0.5, seed) == fused).all()
