"""The sampler passes the tests of kerasgen's own samplers."""

import numpy as np
import pytest
from kerasgen.testing import SamplerContract

from kerasgen_placeholder.sampler import PlaceholderSampler


class TestSampler(SamplerContract):
    bad_arguments = ({"share": -0.1}, {"share": 1.5})

    @pytest.fixture
    def sampler(self) -> PlaceholderSampler:
        return PlaceholderSampler(share=0.3, temperature=0.9)


def test_a_token_that_is_not_near_the_likeliest_is_never_drawn() -> None:
    logits = np.log([[0.6, 0.3, 0.1]]).repeat(50, axis=0)  # 0.3 * 0.6 * 0.6 = 0.108
    chosen = PlaceholderSampler(share=0.3).choose(np, logits, np.linspace(0, 0.999, 50))
    assert set(chosen.tolist()) == {0, 1}
