"""What every sampler must do: inherit `SamplerContract`, say which sampler to test, and run pytest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kerasgen import backend
from kerasgen.errors import SamplerArgumentError
from kerasgen.generation.config import GenerationConfig
from kerasgen.models.base import LanguageModel, MaskedLanguageModel
from kerasgen.samplers import REGISTRY, selection
from kerasgen.samplers.base import SamplerSpec, TokenSampler, max_candidates_of
from kerasgen.testing.example_model import shared_small_model
from kerasgen.testing.values import PluginContract, renamed

_SIZE = 11


class SamplerContract(PluginContract):
    """The tests that every `SamplerSpec` passes.

    ```python
    class TestMine(SamplerContract):
        @pytest.fixture
        def sampler(self):
            return MySampler(strength=0.3)
    ```

    The sampler should have settings that are not all defaults. One that writes with masked language models alone is
    tried with the fixture `model` overridden by such a model.
    """

    registry = REGISTRY

    @pytest.fixture
    def sampler(self) -> SamplerSpec:
        """The sampler under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `sampler`.")

    @pytest.fixture
    def plugin(self, sampler: SamplerSpec) -> SamplerSpec:
        """What the tests of every kind look at."""
        return sampler

    @pytest.fixture
    def model(self) -> LanguageModel | MaskedLanguageModel:
        """A small model to generate with, on the backend that runs."""
        return shared_small_model()

    def test_it_can_be_put_into_a_set(self, sampler: SamplerSpec) -> None:
        """Equal ones are one."""
        assert len({sampler, dataclasses.replace(sampler)}) == 1

    @pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"repetition_penalty": -1.0}, {"seed": -1}])
    def test_a_shared_setting_out_of_range_is_refused(self, sampler: SamplerSpec, wrong: dict[str, Any]) -> None:
        """A subclass with a `__post_init__` of its own must call its parent's."""
        with pytest.raises(SamplerArgumentError):
            dataclasses.replace(sampler, **wrong)

    @pytest.mark.parametrize("where", ["numpy", "keras"])
    def test_an_excluded_token_is_never_chosen(self, sampler: SamplerSpec, where: str) -> None:
        """Whatever the draw, and in float32 too, where 1 - 2**-53 is 1."""
        spec, logits = _token_sampler(sampler), _logits()
        for uniform in (0.0, 0.3, 0.9, 1 - 2.0**-24, 1 - 2.0**-53):
            token_ids = _choose(spec, where, logits, np.full(len(logits), uniform))
            assert token_ids.shape == (len(logits),)
            assert (logits[np.arange(len(logits)), token_ids] > float("-inf")).all()

    def test_a_row_is_chosen_for_by_its_own_logits_and_draw_alone(self, sampler: SamplerSpec) -> None:
        """Or a prompt would give another text in another batch."""
        spec, logits = _token_sampler(sampler), _logits()
        uniforms = np.random.default_rng(1).random(len(logits))
        together = _choose(spec, "numpy", logits, uniforms)
        alone = [_choose(spec, "numpy", logits[[n]], uniforms[[n]])[0] for n in range(len(logits))]
        assert together.tolist() == alone

    def test_a_graph_chooses_what_the_host_chooses(self, sampler: SamplerSpec) -> None:
        """The arithmetic is for numpy and `keras.ops` alike."""
        spec, logits = _token_sampler(sampler), _logits().astype("float32")
        uniforms = np.random.default_rng(2).random(len(logits))
        np.testing.assert_array_equal(
            _choose(spec, "numpy", logits, uniforms), _choose(spec, "keras", logits, uniforms)
        )

    def test_draws_matter_where_it_says_so(self, sampler: SamplerSpec) -> None:
        """A kind whose `draws` is False gives one text for every seed."""
        spec, logits = _token_sampler(sampler), np.zeros((1, _SIZE))
        chosen = {int(_choose(spec, "numpy", logits, np.array([u]))[0]) for u in np.linspace(0, 0.99, 40)}
        assert (len(chosen) > 1) == type(spec).draws

    def test_it_takes_none_but_the_likeliest_where_it_says_so(self, sampler: SamplerSpec) -> None:
        """A kind that says how far it reaches chooses the same when it sees these tokens alone."""
        spec, logits = _token_sampler(sampler), _logits()
        max_candidates = max_candidates_of(spec)
        if max_candidates is None:
            pytest.skip(f"{type(spec).__name__} may choose any token")
        ids = np.sort(selection.highest_places(np, logits, min(max_candidates, _SIZE)), axis=-1)
        uniforms = np.random.default_rng(3).random(len(logits))
        chosen = _choose(spec, "numpy", np.take_along_axis(logits, ids, axis=-1), uniforms)
        np.testing.assert_array_equal(ids[np.arange(len(ids)), chosen], _choose(spec, "numpy", logits, uniforms))

    def test_a_prompt_gives_the_same_text_twice_and_among_others(
        self, sampler: SamplerSpec, model: LanguageModel | MaskedLanguageModel
    ) -> None:
        """The seed and the prompt decide, and nothing else."""
        from kerasgen.generation import generate
        from kerasgen.masked import writing

        def write(prompts: list[str]) -> list[str]:
            if isinstance(model, MaskedLanguageModel):
                return writing.generate(model, prompts, GenerationConfig(sampler=sampler, max_new_tokens=6, seed=1))
            return generate(model, prompts, sampler=sampler, max_new_tokens=6, seed=1)

        # Words to a vocabulary of words, letters to one that has no space.
        longer, prompt, shorter = (
            ("d e f", "a b", "c") if isinstance(model, MaskedLanguageModel) else ("abcd", "ab", "a")
        )
        alone = write([prompt])
        assert write([prompt]) == alone
        assert write([longer, prompt, shorter])[1] == alone[0]


class SamplerConformance(SamplerContract):
    """The former name and shape of `SamplerContract`: `make` returns the sampler, `language_model` the model."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        renamed("SamplerConformance", "SamplerContract, with the fixtures `sampler` and `model`")

    def make(self) -> SamplerSpec:
        """Return the sampler under test."""
        raise NotImplementedError(f"{type(self).__name__} must override `make`.")

    def language_model(self) -> LanguageModel:
        """Return a small model to generate with."""
        return shared_small_model()

    @pytest.fixture
    def sampler(self) -> SamplerSpec:
        """What `make` returns."""
        return self.make()

    @pytest.fixture
    def model(self) -> LanguageModel:
        """What `language_model` returns."""
        return self.language_model()


def _token_sampler(spec: SamplerSpec) -> TokenSampler:
    if not isinstance(spec, TokenSampler):
        pytest.skip(f"{type(spec).__name__} does not choose token by token")
    return spec


def _logits() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return rows of logits of all sorts: random, flat, with one token left, and mostly excluded."""
    logits = np.random.default_rng(0).normal(scale=2.0, size=(7, _SIZE))
    logits[1] = 0.0
    logits[2, np.arange(_SIZE) != 4] = float("-inf")
    logits[3, :8] = float("-inf")
    logits[4, -3:] = float("-inf")
    return logits


def _choose(spec: TokenSampler, where: str, logits: Any, uniforms: Any) -> Any:
    if where == "numpy":
        return np.asarray(spec.choose(np, logits, uniforms))
    backend.use()
    from keras import ops

    tensors = [ops.convert_to_tensor(np.asarray(array, dtype="float32")) for array in (logits, uniforms)]
    return np.asarray(ops.convert_to_numpy(spec.choose(ops, *tensors)))
