"""First weights that a file's take the place of are drawn by NumPy, from the same distribution."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

from kerasgen.models import undrawn


def drawn(initializer: Any) -> np.ndarray[Any, Any]:
    return np.asarray(keras.Variable(initializer, shape=(400, 300)))


def test_a_draw_has_the_mean_and_the_deviation_that_keras_asks_for() -> None:
    initializer = keras.initializers.RandomNormal(mean=0.5, stddev=0.02, seed=7)
    with undrawn.by_numpy():
        ours = drawn(initializer)
    theirs = drawn(initializer)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == np.float32
    assert not np.array_equal(ours, theirs)
    for found in (ours, theirs):
        assert found.mean() == pytest.approx(0.5, abs=0.001)
        assert found.std() == pytest.approx(0.02, rel=0.02)
        # Kolmogorov and Smirnov's distance of the two samples: 1.95 * sqrt(2 / n) at the 0.001 level.
    both = np.sort(np.concatenate([ours.ravel(), theirs.ravel()]))
    shares = [np.searchsorted(np.sort(found.ravel()), both, side="right") / found.size for found in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / ours.size)


def test_other_threads_and_other_draws_are_keras_s_own() -> None:
    initializer = keras.initializers.RandomNormal(seed=7)
    uniform = keras.initializers.RandomUniform(seed=7)
    wanted, wanted_uniform = drawn(initializer), drawn(uniform)
    with undrawn.by_numpy(), ThreadPoolExecutor(1) as thread:
        np.testing.assert_array_equal(thread.submit(drawn, initializer).result(), wanted)
        np.testing.assert_array_equal(drawn(uniform), wanted_uniform)
        assert not np.array_equal(drawn(initializer), wanted)
    np.testing.assert_array_equal(drawn(initializer), wanted)
