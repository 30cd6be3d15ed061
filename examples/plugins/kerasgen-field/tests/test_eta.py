"""The sampler passes kerasgen's tests, and keeps the tokens that transformers' warper keeps."""

import numpy as np
import pytest
from kerasgen.testing import SamplerContract

from kerasgen_field.eta import Eta


class TestEta(SamplerContract):
    bad_arguments = ({"epsilon": 0}, {"epsilon": 1.0}, {"epsilon": True})

    @pytest.fixture
    def sampler(self) -> Eta:
        return Eta(epsilon=0.02, temperature=0.9)

    @pytest.fixture
    def spec(self) -> str:
        return "eta:epsilon=0.02,temperature=0.9"


@pytest.mark.parametrize("epsilon", [0.0003, 0.02, 0.3])
def test_it_draws_from_the_tokens_that_transformers_keeps(epsilon: float) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 3.0, 8.0):
        logits = rng.normal(scale=scale, size=12).astype(np.float32)
        warped = transformers.EtaLogitsWarper(epsilon)(None, torch.tensor(logits[None]))[0].numpy()
        draws = np.linspace(0, 1 - 1e-9, 20_000)
        chosen = Eta(epsilon=epsilon).choose(np, np.tile(logits, (len(draws), 1)), draws)
        probabilities = np.exp(warped - warped.max()) / np.exp(warped - warped.max()).sum()
        wide_enough = probabilities > 2 / len(draws)  # for a draw of the grid to fall into it
        kept = set(np.flatnonzero(warped > -np.inf).tolist())
        assert set(chosen.tolist()) <= kept
        assert set(np.flatnonzero(wide_enough).tolist()) <= set(chosen.tolist())
