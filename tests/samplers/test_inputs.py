"""A graph takes a sampler's settings as numbers, and no kind by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from kerasgen import samplers
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
