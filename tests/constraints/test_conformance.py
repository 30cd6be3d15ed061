"""Every built-in constraint, and one from outside, fulfils what plugin authors are asked to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.constraints.base import CharacterAutomaton, Constraint, State
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import GenerationError
from kerasgen.models.architectures import keras_weights
from kerasgen.testing.constraints import ConstraintContract

pytestmark = pytest.mark.one_backend

JUEJU = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"


@pytest.fixture(scope="module")
def engine() -> NumpyEngine:
    """The library's own loops over NumPy, for which nothing has to be compiled."""
    model = tiny_gpt2(num_layers=1)
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


class Contract(ConstraintContract):
    @pytest.fixture
    def model(self, engine) -> NumpyEngine:
        return engine


class TestVerseForm(Contract):
    texts = (JUEJU,)
    foreign = ("", JUEJU[:-1], JUEJU.replace("\n", ""), JUEJU.replace("日", "a"))

    @pytest.fixture
    def constraint(self) -> Constraint:
        return kg.VerseForm("五言絕句")

    @pytest.fixture
    def spec(self) -> str:
        return "verse_form:form=五言絕句"


class TestTune(Contract):
    texts = ("\n".join(["山下人。", "月中人。", "花落誰家照獨人。", "夜深無一人。"] * 2),)
    foreign = ("", "山下水。")

    @pytest.fixture
    def constraint(self) -> Constraint:
        return kg.VerseForm("長相思")

    @pytest.fixture
    def spec(self) -> str:
        return "verse_form:form=長相思"


class TestAcrostic(Contract):
    texts = (JUEJU,)
    foreign = ("", JUEJU[:-1], JUEJU.replace("黃", "大"))

    @pytest.fixture
    def constraint(self) -> Constraint:
        return kg.Acrostic("白黃欲更", "五絕")

    @pytest.fixture
    def spec(self) -> str:
        return "acrostic:heads=白黃欲更,form=五絕"


class TestCouplet(Contract):
    texts = (JUEJU[:12],)
    foreign = ("", JUEJU[:11], JUEJU[:12].replace("海", "山"))

    @pytest.fixture
    def constraint(self) -> Constraint:
        return kg.Couplet("白日依山盡", tones=False)

    @pytest.fixture
    def spec(self) -> str:
        return "couplet:first=白日依山盡,tones=false"


class TestRegex(Contract):
    texts = ("1976年春天。", "2024年冬夜")
    foreign = ("", "76年春天", "2024年冬")

    @pytest.fixture
    def constraint(self) -> Constraint:
        pytest.importorskip("outlines_core")
        return kg.Regex(r"\d{4}年(春|夏|秋|冬)[一-龥]{1,5}。?")

    @pytest.fixture
    def spec(self) -> str:
        return r'regex:pattern="\d{4}年(春|夏|秋|冬)[一-龥]{1,5}。?"'


class TestScript(Contract):
    texts = ("細草微風岸", "", "云 and 🚀")
    foreign = ("细草微风岸", "a 发")

    @pytest.fixture
    def constraint(self) -> Constraint:
        pytest.importorskip("opencc")
        return kg.Script("traditional")

    @pytest.fixture
    def spec(self) -> str:
        return "script:script=traditional"


class Parity(CharacterAutomaton):
    """An even number of a's."""

    first = 0

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        return [(ord("a"), ord("a"), 1 - state)]

    def ends(self, state: State) -> bool:
        return state == 0


class Even(Constraint):
    """Of two small classes."""

    def automaton(self) -> CharacterAutomaton:
        return Parity()


class TestFromOutside(Contract):
    texts = ("", "aa", "aaaa")
    foreign = ("a", "aaa", "b")

    @pytest.fixture
    def constraint(self) -> Constraint:
        return Even()

    def test_importing_its_module_loads_nothing_heavy(self, plugin: Constraint) -> None:
        """This module imports a model; those of plugins don't."""


class DeadEnd(Parity):
    """After three a's nothing may come, and that is no text."""

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        return [(ord("a"), ord("a"), state + 1)] if state < 3 else []

    def ends(self, state: State) -> bool:
        return state == 2


class Stuck(Constraint):
    def automaton(self) -> CharacterAutomaton:
        return DeadEnd()


class Loose(Even):
    def __post_init__(self) -> None:
        """Forgets its parent's checks."""


@pytest.mark.parametrize(
    ("constraint", "test"),
    [
        (Stuck(), "test_every_walk_through_allowed_tokens_ends_in_a_text_of_the_form"),
        (Loose(), "test_a_shared_setting_out_of_range_is_refused"),
    ],
)
def test_a_constraint_that_breaks_the_contract_is_found_out(constraint, test, engine):
    suite = TestFromOutside()
    arguments = (engine.tokenizer,) if "walk" in test else ()
    with pytest.raises((AssertionError, GenerationError, pytest.fail.Exception)):
        getattr(suite, test)(constraint, *arguments)
