"""What a graph keeps of long rows, and how JAX reduces them, against NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kerasgen import backend
from kerasgen.generation import jax_reductions
from kerasgen.generation.jax_namespace import XP
from kerasgen.samplers import arithmetic, selection

pytestmark = pytest.mark.numerical

SIZE = 4999  # rows that are laid in lanes, with a rest
NEVER = -np.inf


def rows_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (4, SIZE)
    drawn = {
        "even": lambda: rng.uniform(-4, 4, shape),
        "normal": lambda: rng.normal(scale=3, size=shape),
        "of few values": lambda: rng.integers(-3, 4, shape) * 0.5,
        "all equal": lambda: np.zeros(shape),
        "zeros of both signs": lambda: np.where(rng.random(shape) < 0.5, 0.0, -0.0),
        "falling": lambda: np.tile(np.linspace(9, -9, SIZE), (4, 1)),
        "mostly excluded": lambda: np.where(rng.random(shape) < 0.99, NEVER, rng.normal(size=shape)),
        "of all sizes": lambda: np.exp(rng.uniform(-60, 60, shape)) * rng.choice([-1, 1], shape),
        "far below": lambda: np.where(rng.random(shape) < 0.5, -1e9, rng.normal(size=shape)),
    }
    return np.asarray(drawn[kind](), dtype=np.float32)


KINDS = [
    "even",
    "normal",
    "of few values",
    "all equal",
    "zeros of both signs",
    "falling",
    "mostly excluded",
    "of all sizes",
    "far below",
]


def graph_of(where: str) -> tuple[Any, Any]:
    """A namespace of graphs, and what compiles a function of arrays over it."""
    if where == "jax":
        return XP, jax.jit
    if where == "exports":
        tf = pytest.importorskip("tensorflow", reason="exported graphs are TensorFlow's: kerasgen[tensorflow]")
        from kerasgen.exporters.tensorflow import namespace

        return namespace, tf.function
    backend.use()
    from keras import ops

    if backend.running() == "jax":
        return ops, jax.jit
    import tensorflow as tf

    return ops, tf.function


@pytest.fixture(scope="module", params=["jax", "keras", "exports"])
def keeps(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """What keeps the highest and what keeps a mass, compiled once."""
    xp, compiled = graph_of(request.param)
    return (
        compiled(lambda values, counts: selection.keep_highest(xp, values, counts)),
        compiled(lambda values, masses, goal: selection.keep_mass(xp, values, masses, goal)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_keeps_the_highest_that_a_host_keeps(keeps: tuple[Any, Any], kind: str) -> None:
    """Of equals the lower places; among the 64 highest, which are sorted, and below them."""
    values = rows_of(kind)
    for counts in ([1, 2, 63, 64], [65, 66, 1000, SIZE - 1], [SIZE] * 4):
        wanted = [
            selection.keep_highest(np, row[None], np.array([[count]]))[0]
            for row, count in zip(values, counts, strict=True)
        ]
        found = keeps[0](jnp.asarray(values), np.array(counts, dtype=np.int32)[:, None])
        np.testing.assert_array_equal(np.asarray(found), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_keeps_the_fewest_that_hold_a_mass(keeps: tuple[Any, Any], kind: str) -> None:
    values = rows_of(kind)
    masses = np.asarray(arithmetic.softmax(np, values.astype(np.float64)), dtype=np.float32)
    for goal in (1e-6, 0.1, 0.5, 0.9, 0.999):
        found = np.asarray(keeps[1](values, masses, np.full((4, 1), goal, dtype=np.float32)))
        for row, own, kept in zip(values, masses.astype(np.float64), found, strict=True):
            order = np.argsort(-row, kind="stable")
            np.testing.assert_array_equal(np.sort(order[: kept.sum()]), np.flatnonzero(kept))
            before = np.sort(own[kept])[::-1]
            # Sums of float32 round: the last one that is kept may have been needed by so much.
            assert before.sum() >= goal - 1e-5
            assert before[:-1].sum() < goal + 1e-5


@pytest.mark.one_backend
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SIZE, SIZE // 256 * 256])
def test_long_rows_are_reduced_as_short_ones_are(kind: str, size: int) -> None:
    values = rows_of(kind)[:, :size]
    np.testing.assert_array_equal(jax.jit(jax_reductions.maximum)(values), values.max(axis=-1))
    np.testing.assert_array_equal(jax.jit(jax_reductions.minimum)(values), values.min(axis=-1))
    np.testing.assert_array_equal(jax.jit(jax_reductions.first_maximum)(values), values.argmax(axis=-1))
    ones = np.isfinite(values).astype(np.float32)
    keys = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    for found, array in zip(jax.jit(jax_reductions.sums)([ones, ones[:, ::-1]]), (ones, ones), strict=True):
        np.testing.assert_array_equal(found, array.sum(axis=-1))
    np.testing.assert_array_equal(jax.jit(jax_reductions.sums)([keys])[0], keys.sum(axis=-1, dtype=np.int32))


@pytest.mark.one_backend
def test_a_row_with_nan_has_its_maximum_in_the_row_and_its_search_ends() -> None:
    values = rows_of("normal")
    values[1, 77] = np.nan
    values[2] = np.nan
    values[3, 5] = np.inf
    places = np.asarray(jax.jit(jax_reductions.first_maximum)(values))
    assert places[3] == 5
    assert ((places >= 0) & (places < SIZE)).all()
    for choose, setting in ((arithmetic.top_k_mask, np.int32(5)), (arithmetic.top_p_mask, np.float32(0.5))):
        masked = jax.jit(lambda values, setting, choose=choose: choose(XP, values, setting))(values, setting)
        assert masked.shape == values.shape  # the search ended


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 600])
@pytest.mark.parametrize("where", ["numpy", "jax", "keras"])
def test_a_draw_takes_each_place_by_its_part_of_the_sum(where: str, size: int) -> None:
    """Rows of one column, of whole columns, and with a rest: with the middle of each place's part that place comes."""
    xp, compiled = (np, lambda function: function) if where == "numpy" else graph_of(where)
    weights = np.random.default_rng(size).integers(0, 9, size).astype(np.float32)
    weights[-1] = 3
    places = np.flatnonzero(weights)
    uniforms = ((np.cumsum(weights) - weights / 2)[places] / weights.sum()).astype(np.float32)
    rows = np.tile(weights, (len(places), 1))
    found = compiled(lambda rows, uniforms: selection.draw(xp, rows, uniforms))(rows, uniforms)
    np.testing.assert_array_equal(np.asarray(found), places)
