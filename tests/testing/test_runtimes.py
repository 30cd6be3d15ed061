"""The suite for runtimes lets a right one pass, and finds out what an export no longer looks for."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt2

from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.runtime import Runtime
from kerasgen.samplers.resolving import resolve
from kerasgen.testing.runtimes import RuntimeContract

pytestmark = pytest.mark.one_backend


class OnNumPy(Runtime):
    """The library's own loops over NumPy."""

    def __init__(self, engine: NumpyEngine) -> None:
        self.engine, self.tokenizer, self.max_sequence_length = engine, engine.tokenizer, engine.max_sequence_length

    def generate_checked(self, prompts, config, *, end_token_id):
        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        return [list(several[0].token_ids) for several in generate_ids(engine, prompts, config)]


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return tiny_gpt2(num_layers=1)


@pytest.fixture(scope="module")
def engine(tiny) -> NumpyEngine:
    return NumpyEngine(*keras_weights.decoder_of(tiny.causal_lm), tiny.tokenizer)


class TestOnNumPy(RuntimeContract):
    samplers = ("top_k:k=5,temperature=0.8", "random")
    beams = ("beam:num_beams=3",)

    @pytest.fixture
    def model(self, tiny) -> LanguageModel:
        return tiny

    @pytest.fixture
    def runtime(self, engine) -> Runtime:
        return OnNumPy(engine)

    @pytest.fixture
    def reference(self, engine) -> NumpyEngine:
        return engine


class OneBeam(OnNumPy):
    def generate_ids(self, prompts, *, sampler, **settings):
        sampler = "beam:num_beams=1" if str(sampler).startswith("beam") else sampler
        return super().generate_ids(prompts, sampler=sampler, **settings)


class Padded(OnNumPy):
    """Shorter prompts of a batch see padding."""

    def generate_ids(self, prompts, **settings):
        longest = max(map(len, prompts))
        return super().generate_ids([[5] * (longest - len(prompt)) + list(prompt) for prompt in prompts], **settings)


class Endless(OnNumPy):
    def generate_ids(self, prompts, *, end_token_id=None, **settings):
        return super().generate_ids(prompts, **settings)


class OneRandomNumber(OnNumPy):
    """Equal prompts are drawn for with the same numbers."""

    def generate_ids(self, prompts, **settings):
        return [super(OneRandomNumber, self).generate_ids([prompt], **settings)[0] for prompt in prompts]


class Hot(OnNumPy):
    def generate_ids(self, prompts, *, sampler, **settings):
        spec = resolve(sampler)
        sampler = f"top_k:k={spec.k},temperature=3.0" if hasattr(spec, "k") else sampler
        return super().generate_ids(prompts, sampler=sampler, **settings)


class AnyBytes(OnNumPy):
    def generate_ids(self, prompts, *, valid_utf8, **settings):
        return super().generate_ids(prompts, valid_utf8=False, **settings)


GREEDY = "test_greedy_ids_are_the_models_for_prompts_of_all_lengths"


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (OneBeam, "test_a_beam_search_finds_the_models_texts"),
        (Padded, "test_a_prompt_gives_the_same_text_alone_and_in_a_batch_of_any_order"),
        (Endless, "test_a_text_ends_with_its_end_token_and_the_others_go_on"),
        (OneRandomNumber, "test_a_seed_gives_the_same_text_again"),
        (Hot, "test_what_is_drawn_is_distributed_as_the_models_logits_say"),
        (AnyBytes, "test_texts_are_valid_utf8_unless_they_shall_not_be"),
    ],
)
def test_what_a_runtime_does_wrong_is_found_out(tiny, engine, kind, test):
    suite = TestOnNumPy()
    last = tiny if "drawn" in test else engine
    getattr(suite, test)(OnNumPy(engine), last)
    with pytest.raises(AssertionError):
        getattr(suite, test)(kind(engine), last)


def test_other_weights_are_found_out(engine):
    other = tiny_gpt2(num_layers=1, seed=1)
    wrong = NumpyEngine(engine.config, keras_weights.decoder_of(other.causal_lm)[1], engine.tokenizer)
    with pytest.raises(AssertionError):
        getattr(TestOnNumPy(), GREEDY)(OnNumPy(wrong), engine)
