"""A graph takes a sampler's settings as numbers, and no kind by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from kerasgen import samplers
from kerasgen.errors import ExportArgumentError, SamplerArgumentError
from kerasgen.exporters import exportable_samplers
from kerasgen.generation.jax_namespace import XP
from kerasgen.samplers import inputs
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.lookahead import Beam
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

pytestmark = pytest.mark.one_backend


@dataclass(frozen=True)
class InPython(TopK):
    """One that writes its own choice and doesn't say what it takes."""

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        return xp.argmax(logits, axis=-1) if self.k > 3 else xp.argmin(logits, axis=-1)


@dataclass(frozen=True)
class Renamed(TopK):
    """One that inherits the choice, and what it takes."""


@dataclass(frozen=True)
class Scaled(TokenSampler):
    """One with a whole number and another."""

    inputs: ClassVar[tuple[str, ...] | None] = ("times", "share")
    times: int = 3
    share: float = 1

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        return xp.argmax(logits * self.times * self.share, axis=-1)


def test_a_kind_is_known_by_what_it_says_of_its_own_choice() -> None:
    assert all(map(inputs.are_declared, (Greedy, Random, TopK, TopP, MinP, Renamed, Scaled)))
    assert not any(map(inputs.are_declared, (InPython, Beam, TokenSampler, int, TopK())))


def test_a_setting_that_is_no_input_keeps_a_choice_out_of_graphs() -> None:
    """A graph would compute with the default of the class."""

    @dataclass(frozen=True)
    class Two(TopK):
        power: float = 1.0

    @dataclass(frozen=True)
    class Plain(MinP):
        inputs: ClassVar[tuple[str, ...] | None] = None

    assert not inputs.are_declared(Two)
    assert inputs.undeclared(Two).startswith("its `inputs` leave out 'power'")
    assert not inputs.are_declared(Plain)
    assert inputs.undeclared(InPython) == "InPython writes `choose` and says no `inputs` beside it"


def test_numbers_have_their_types_and_fit_into_32_bits() -> None:
    assert inputs.types(Scaled) == {"times": int, "share": float}
    assert inputs.values(Scaled()) == {"times": 3, "share": 1.0}
    assert type(inputs.values(Scaled())["share"]) is float
    assert inputs.values(TopK(k=2**40)) == {"k": 2**31 - 1}
    assert inputs.values(Greedy()) == {}
    assert [inputs.has_temperature(kind) for kind in (Greedy, Random, Scaled)] == [False, True, True]


@pytest.mark.parametrize("text", ["greedy", "random", "top_k:k=3", "top_p:p=0.4", "min_p:p=0.2"])
def test_what_is_traced_chooses_as_the_sampler(text: str) -> None:
    spec = samplers.create(text)
    rng = np.random.default_rng(0)
    logits, uniforms = rng.normal(size=(50, 30)), rng.random(50)
    numbers = {name: np.asarray([value]) for name, value in inputs.values(spec).items()}
    traced = inputs.traced(type(spec), numbers)
    np.testing.assert_array_equal(traced.choose(np, logits, uniforms), spec.choose(np, logits, uniforms))


@dataclass(frozen=True)
class Named(TokenSampler):
    """Its inputs are what a test says."""

    mode: str = "hard"
    share: float = 0.5
    inputs: ClassVar[tuple[str, ...] | None] = ("share",)

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        return xp.argmax(logits) if self.share > 0.4 else xp.argmin(logits)


@pytest.mark.parametrize("name", ["mode", "nowhere"])
def test_an_input_that_is_no_number_is_named(name, monkeypatch):
    monkeypatch.setattr(Named, "inputs", (name,))
    with pytest.raises(SamplerArgumentError, match=rf"Named says that '{name}' is an input"):
        inputs.types(Named)


def test_a_choice_that_branches_on_an_input_is_told_what_to_write():
    import jax

    with pytest.raises(SamplerArgumentError, match=r"(?s)can't be part of a graph: TracerBool.*xp\.where"):
        jax.jit(lambda share: inputs.choose(Named, {"share": share}, XP, np.zeros((1, 4)), None))(0.5)


def test_a_graph_knows_numpy_s_functions_and_says_which_it_does_not_know():
    tf = pytest.importorskip("tensorflow", reason="graphs are TensorFlow's: kerasgen[tensorflow]")
    from kerasgen.exporters.tensorflow import namespace

    assert namespace.argsort(tf.constant([[3.0, 1.0, 2.0]])).numpy().tolist() == [[1, 2, 0]]
    with pytest.raises(AttributeError, match="no function 'convolve_all'"):
        namespace.convolve_all  # noqa: B018


def test_an_input_that_is_named_like_a_graph_s_own_is_refused_by_exporters(monkeypatch):
    @dataclass(frozen=True)
    class Ending(TokenSampler):
        inputs: ClassVar[tuple[str, ...] | None] = ("end_token_id",)
        end_token_id: int = 0

        def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
            return xp.argmax(logits, axis=-1)

    monkeypatch.setattr(exportable_samplers.samplers, "get", lambda name: Ending)
    with pytest.raises(ExportArgumentError, match="has an input 'end_token_id' of its own"):
        exportable_samplers.token_sampler("ending")
