"""Every built-in sampler, and one from outside, fulfils what plugin authors are asked to."""

from __future__ import annotations

import encoders
import pytest
from letters import shared_model
from typical import Typical

import kerasgen as kg
from kerasgen.models.base import LanguageModel, MaskedLanguageModel
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.masked import Gibbs, MaskPredict
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


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> MaskedLanguageModel:
    model = kg.Pipeline(model=str(encoders.write("roberta", tmp_path_factory.mktemp("roberta")))).model
    assert isinstance(model, MaskedLanguageModel)
    return model


@pytest.mark.slow
class TestMasked(SamplerContract):
    """Those that write with masked language models alone."""

    @pytest.fixture(params=[MaskPredict(iterations=3, k=4), Gibbs(sweeps=2, k=5)], ids=lambda spec: type(spec).__name__)
    def sampler(self, request: pytest.FixtureRequest) -> SamplerSpec:
        return request.param

    @pytest.fixture
    def model(self, masked: MaskedLanguageModel) -> MaskedLanguageModel:
        return masked


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
