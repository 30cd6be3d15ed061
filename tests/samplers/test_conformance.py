"""Every built-in sampler, and one from outside, fulfils what plugin authors are asked to."""

from __future__ import annotations

import pytest
from letters import shared_model
from typical import Typical

from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP
from kerasgen.testing.samplers import SamplerConformance, SamplerContract


class TestBuiltIns(SamplerContract):
    @pytest.fixture(
        params=[
            Greedy(repetition_penalty=1.2),
            Random(temperature=0.7),
            TopK(k=3),
            TopP(p=0.7),
            MinP(p=0.2),
            Beam(num_beams=3),
            Contrastive(k=3),
            Typical(width=0.5),
        ],
        ids=lambda spec: type(spec).__name__,
    )
    def sampler(self, request: pytest.FixtureRequest) -> SamplerSpec:
        return request.param

    @pytest.fixture
    def model(self) -> LanguageModel:
        return shared_model()


class Broken(Random):
    """Takes the draw of the first row for all."""

    def choose(self, xp, logits, uniforms):
        return super().choose(xp, logits, xp.zeros_like(uniforms) + uniforms[0])


def test_a_sampler_that_mixes_rows_is_found_out() -> None:
    with pytest.raises(AssertionError):
        SamplerContract().test_a_row_is_chosen_for_by_its_own_logits_and_draw_alone(Broken())


def test_a_suite_of_the_former_shape_works_and_is_told_of_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="SamplerContract"):

        class Suite(SamplerConformance):
            def make(self) -> SamplerSpec:
                return Broken()

    assert issubclass(Suite, SamplerContract)
    assert Suite().make() == Broken()
