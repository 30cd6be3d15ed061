"""What JAX draws of long rows among the likeliest tokens, against distributions in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kerasgen.generation import jax_drawing
from kerasgen.generation.jax_namespace import XP
from kerasgen.samplers import arithmetic, selection
from tests.samplers.test_selection import KINDS, SIZE, rows_of

pytestmark = [pytest.mark.numerical, pytest.mark.one_backend]

ROWS = 4
ROUNDED = 2e-5  # of sums in float32


@pytest.fixture(scope="module")
def top_k() -> Any:
    return jax.jit(lambda logits, k, uniforms: arithmetic.draw_top_k(XP, logits, k, uniforms))


@pytest.fixture(scope="module")
def top_p() -> Any:
    return jax.jit(lambda logits, p, uniforms: arithmetic.draw_top_p(XP, logits, p, uniforms))


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True).astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def uniforms_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(ROWS, dtype=np.float32)


def assert_drawn(places: np.ndarray, least: np.ndarray, most: np.ndarray, uniforms: np.ndarray) -> None:
    """Each place is the one at which the running sum passes the uniform's share of one of two masses, or between."""
    for place, few, many, uniform in zip(places, least, most, uniforms, strict=True):
        assert many[place] > 0
        shares = [(kept[:place].sum() / kept.sum(), kept[: place + 1].sum() / kept.sum()) for kept in (few, many)]
        assert min(before for before, _ in shares) - ROUNDED <= uniform <= max(after for _, after in shares) + ROUNDED


@pytest.mark.parametrize("kind", KINDS)
def test_among_the_k_highest_each_is_drawn_by_its_part(top_k: Any, kind: str) -> None:
    """So few that they are sorted, as many as are, and more; of equals at the edge the lower places."""
    logits = rows_of(kind)
    for k in (1, 40, 63, 64, 65, 1000, SIZE):
        kept = selection.keep_highest(np, logits, np.full((ROWS, 1), k))
        wanted = np.where(kept, probabilities(logits), 0.0)
        uniforms = uniforms_of(k)
        places = np.asarray(top_k(logits, np.int32(k), uniforms))
        assert kept[np.arange(ROWS), places].all()
        assert_drawn(places, wanted, wanted, uniforms)


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_nucleus_each_is_drawn_by_its_part(top_p: Any, kind: str) -> None:
    logits = rows_of(kind)
    every = probabilities(logits)
    for n, p in enumerate((1e-6, 0.1, 0.5, 0.9, 0.999, 1.0)):
        least, most = (
            np.where(
                selection.keep_mass(np, logits, every, min(max(goal, 1e-7), 2.0 if p == 1 else 1 - 1e-9)), every, 0.0
            )
            for goal in (p - ROUNDED, p + ROUNDED)
        )
        uniforms = uniforms_of(n)
        assert_drawn(np.asarray(top_p(logits, np.float32(p), uniforms)), least, most, uniforms)


@pytest.mark.parametrize(
    ("kind", "is_sure"), [("normal", True), ("even", True), ("falling", True), ("all equal", False)]
)
def test_the_slower_way_is_left_to_equals_at_the_edge(kind: str, is_sure: bool) -> None:
    """What takes a third of its time is taken for logits as models give them."""
    logits, uniforms = jnp.asarray(rows_of(kind)), uniforms_of(0)

    def refuse(logits: Any, uniforms: Any) -> Any:
        return jnp.full(len(logits), -1)

    for places in (
        jax_drawing.among_highest(logits, 40, uniforms, refuse),
        jax_drawing.from_nucleus(XP, logits, 0.9, uniforms, refuse),
    ):
        assert ((np.asarray(places) >= 0) == is_sure).all()


def test_a_row_of_nan_gets_a_place_in_it(top_k: Any, top_p: Any) -> None:
    logits = rows_of("normal")
    logits[1, 77] = np.nan
    logits[2] = np.nan
    for places in (top_k(logits, np.int32(5), uniforms_of(0)), top_p(logits, np.float32(0.5), uniforms_of(0))):
        assert ((np.asarray(places) >= 0) & (np.asarray(places) < SIZE)).all()
