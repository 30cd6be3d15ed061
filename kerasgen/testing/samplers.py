"""What every sampler must do, as tests that a plugin's author inherits.

class TestMySampler(SamplerConformance):
    def make(self) -> SamplerSpec:
        return MySampler(strength=0.3)

    def language_model(self) -> LanguageModel:
        return ...  # optional: a small one; without it the tests that generate are skipped
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from kerasgen import backend, specs
from kerasgen.errors import SamplerArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.samplers import selection
from kerasgen.samplers.base import SamplerSpec, TokenSampler, max_candidates_of

_HEAVY = ("jax", "keras", "keras_hub", "numpy", "tensorflow", "torch")
_SIZE = 11


class SamplerConformance:
    """Inherit, and return your sampler from `make`; pytest then finds the tests. Needs the extra `test`."""

    def make(self) -> SamplerSpec:
        """Return the sampler under test, with settings that are not all defaults."""
        raise NotImplementedError(f"{type(self).__name__} must override `make`.")

    def language_model(self) -> LanguageModel:
        """Return a small model to generate with, on the backend that runs."""
        pytest.skip("no language_model() was given to generate with")

    def test_it_is_a_frozen_value(self) -> None:
        """It can be compared, put into a set, and not be changed."""
        spec = self.make()
        assert spec == self.make()
        assert len({spec, self.make()}) == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            spec.temperature = 2.0  # type: ignore[misc]

    def test_its_settings_survive_being_saved(self) -> None:
        """What a manifest's JSON holds makes an equal one."""
        spec = self.make()
        arguments = json.loads(json.dumps(specs.to_arguments(spec)))
        assert specs.build(type(spec), arguments, name="sampler") == spec

    @pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"repetition_penalty": -1.0}, {"seed": -1}])
    def test_a_shared_setting_out_of_range_is_refused(self, wrong: dict[str, Any]) -> None:
        """A subclass with a `__post_init__` of its own must call its parent's."""
        with pytest.raises(SamplerArgumentError):
            dataclasses.replace(self.make(), **wrong)

    def test_making_one_imports_nothing_heavy(self) -> None:
        """A spec can be built and saved where there is no Keras, and before a backend is chosen."""
        kind = type(self.make())
        code = f"import sys, {kind.__module__}; print(*(set({_HEAVY!r}) & set(sys.modules)))"
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdout.split() == []

    @pytest.mark.parametrize("where", ["numpy", "keras"])
    def test_an_excluded_token_is_never_chosen(self, where: str) -> None:
        """Whatever the draw, and in float32 too, where 1 - 2**-53 is 1."""
        spec, logits = self._token_sampler(), _logits()
        for uniform in (0.0, 0.3, 0.9, 1 - 2.0**-24, 1 - 2.0**-53):
            token_ids = _choose(spec, where, logits, np.full(len(logits), uniform))
            assert token_ids.shape == (len(logits),)
            assert (logits[np.arange(len(logits)), token_ids] > float("-inf")).all()

    def test_a_row_is_chosen_for_by_its_own_logits_and_draw_alone(self) -> None:
        """Or a prompt would give another text in another batch."""
        spec, logits = self._token_sampler(), _logits()
        uniforms = np.random.default_rng(1).random(len(logits))
        together = _choose(spec, "numpy", logits, uniforms)
        alone = [_choose(spec, "numpy", logits[[n]], uniforms[[n]])[0] for n in range(len(logits))]
        assert together.tolist() == alone

    def test_a_graph_chooses_what_the_host_chooses(self) -> None:
        """The arithmetic is for numpy and `keras.ops` alike."""
        spec, logits = self._token_sampler(), _logits().astype("float32")
        uniforms = np.random.default_rng(2).random(len(logits))
        np.testing.assert_array_equal(
            _choose(spec, "numpy", logits, uniforms), _choose(spec, "keras", logits, uniforms)
        )

    def test_draws_matter_where_it_says_so(self) -> None:
        """A kind whose `draws` is False gives one text for every seed."""
        spec, logits = self._token_sampler(), np.zeros((1, _SIZE))
        chosen = {int(_choose(spec, "numpy", logits, np.array([u]))[0]) for u in np.linspace(0, 0.99, 40)}
        assert (len(chosen) > 1) == type(spec).draws

    def test_it_takes_none_but_the_likeliest_where_it_says_so(self) -> None:
        """A kind that says how far it reaches chooses the same when it sees these tokens alone."""
        spec, logits = self._token_sampler(), _logits()
        max_candidates = max_candidates_of(spec)
        if max_candidates is None:
            pytest.skip(f"{type(spec).__name__} may choose any token")
        ids = np.sort(selection.highest_places(np, logits, min(max_candidates, _SIZE)), axis=-1)
        uniforms = np.random.default_rng(3).random(len(logits))
        chosen = _choose(spec, "numpy", np.take_along_axis(logits, ids, axis=-1), uniforms)
        np.testing.assert_array_equal(ids[np.arange(len(ids)), chosen], _choose(spec, "numpy", logits, uniforms))

    def test_a_prompt_gives_the_same_text_twice_and_among_others(self) -> None:
        """The seed and the prompt decide, and nothing else."""
        from kerasgen.generation import generate

        model, spec = self.language_model(), self.make()

        def write(prompts: list[str]) -> list[str]:
            return generate(model, prompts, sampler=spec, max_new_tokens=6, seed=1)

        alone = write(["ab"])
        assert write(["ab"]) == alone
        assert write(["abcd", "ab", "a"])[1] == alone[0]

    def _token_sampler(self) -> TokenSampler:
        spec = self.make()
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
