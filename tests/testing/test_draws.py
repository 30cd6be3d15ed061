"""What tells whether tokens were drawn as a sampler should draw them lets right draws pass, and no others."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kerasgen.samplers import arithmetic
from kerasgen.samplers.resolving import resolve
from kerasgen.testing import draws as drawing

pytestmark = pytest.mark.one_backend

SKEWED = np.concatenate([[9.0, 6.0, 2.0, -1.0, -4.0], np.linspace(-6, -9, 60)])
SAMPLERS = ["top_k:k=5", "top_k:k=5,temperature=0.5", "top_p:p=0.9", "min_p:p=0.01", "random"]


def drawn(logits, sampler, seed):
    """Draws by the library's own arithmetic in float32."""
    spec, rows = resolve(sampler), np.repeat(logits[None].astype(np.float32), 200, axis=0)
    uniforms = np.random.default_rng(seed).random(200).astype(np.float32)
    return [[int(token)] for token in spec.choose(np, rows / np.float32(spec.temperature), uniforms)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("flat", [False, True])
def test_right_draws_pass_however_skewed_or_flat_the_logits_are(sampler, flat):
    """Where most tokens are expected far less than once in 200 draws, the plain statistic rejects many."""
    logits = SKEWED / 9 if flat else SKEWED
    assert all(drawing.figures(drawn(logits, sampler, seed), logits, sampler)["distributed"] for seed in range(80))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_of_another_distribution_do_not_pass(sampler):
    """A temperature of 2 where 1 was asked for."""
    logits = SKEWED / 2
    wrong = drawn(logits / 2, sampler, 1)
    assert not drawing.figures(wrong, logits, sampler)["distributed"]


def test_a_gap_of_800_between_logits_leaves_no_nan():
    logits = np.array([0.0, -800.0, -900.0, -1000.0, -1100.0, -1200.0])
    found = drawing.figures([[0]] * 200, logits, "top_k:k=5")
    assert found["distributed"]
    assert math.isfinite(found["chi_square"])
    wrong = drawing.figures([[0]] * 199 + [[1]], logits, "top_k:k=5")
    assert not wrong["distributed"]
    assert wrong["chi_square"] == math.inf


def test_the_probabilities_are_those_of_the_librarys_masks():
    logits = np.random.default_rng(1).normal(size=40)
    for sampler, mask in (
        ("top_k:k=7", lambda row: arithmetic.top_k_mask(np, row, 7)),
        ("top_p:p=0.6", lambda row: arithmetic.top_p_mask(np, row, 0.6)),
        ("min_p:p=0.2", lambda row: arithmetic.min_p_mask(np, row, 0.2)),
    ):
        np.testing.assert_allclose(
            drawing.probabilities(logits, sampler), arithmetic.softmax(np, mask(logits[None]))[0], atol=1e-9
        )
