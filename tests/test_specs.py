"""Settings as text, as a manifest and as a constructor's call are one value."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kerasgen import keywords, specs
from kerasgen.errors import ArgumentError, SamplerArgumentError

pytestmark = pytest.mark.one_backend


@dataclass(frozen=True)
class Everything:
    """An argument of every kind."""

    name: str
    count: int = 3
    rate: float = 0.5
    loud: bool = False
    folder: Path = Path("here")
    limit: int | None = 8
    note: Optional[str] = None  # noqa: UP045 - the old spelling is read as well
    mode: Literal["fast", "slow", 7, None] = "fast"
    words: tuple[str, ...] = ("a",)
    sizes: tuple[int, ...] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    step: int | str = 1
    mixed: Sequence[int | str] = ()
    place: str | os.PathLike[str] | None = None
    fresh: tuple[str, ...] = field(default_factory=tuple)
    made: int = field(default=0, init=False)


def create(text: str, kind: type[Any] = Everything) -> Any:
    return specs.build(kind, specs.split_text(text)[1], name="everything")


# --- splitting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("top_k", "top_k", {}),
        ("  top_k ", "top_k", {}),
        ("top_k:k=40,temperature=0.8", "top_k", {"k": "40", "temperature": "0.8"}),
        (" top_k : k = 40 , temperature = 0.8 ", "top_k", {"k": "40", "temperature": "0.8"}),
        ("text:path=C:\\poems\\a.txt", "text", {"path": "C:\\poems\\a.txt"}),
        ("hub:preset=hf://some/model", "hub", {"preset": "hf://some/model"}),
        ("text:path=a=b", "text", {"path": "a=b"}),
        ("text:path=", "text", {"path": ""}),
        ('text:path=""', "text", {"path": ""}),
        ('text:"path=a,b.txt",encoding=utf-8', "text", {"path": "a,b.txt", "encoding": "utf-8"}),
        ('text:path="a,b.txt",encoding=utf-8', "text", {"path": "a,b.txt", "encoding": "utf-8"}),
        ('text: path = "a,b.txt" , encoding=utf-8', "text", {"path": "a,b.txt", "encoding": "utf-8"}),
        ('text:"path=say ""hi"", twice"', "text", {"path": 'say "hi", twice'}),
        ('text:path=say "hi"', "text", {"path": 'say "hi"'}),
        ('top_k:bad_words=" the| a "', "top_k", {"bad_words": " the| a "}),
        ('text:path="a\nb"', "text", {"path": "a\nb"}),
        ("chinese_poetry:form=lüshi", "chinese_poetry", {"form": "lüshi"}),
    ],
)
def test_a_text_is_a_name_and_its_arguments(text: str, name: str, arguments: dict[str, str]) -> None:
    assert specs.split_text(text) == (name, arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "A name is needed"),
        ("  ", "A name is needed"),
        (":k=4", "A name is needed"),
        ("top_k:", "Write 'top_k' alone"),
        ("top_k:  ", "Write 'top_k' alone"),
        ("top_k:k", "key=value.*Received: 'k'"),
        ("top_k:k=4,", "key=value.*Received: ''"),
        ("top_k:,k=4", "key=value.*Received: ''"),
        ("top_k:=4", "key=value.*Received: '=4'"),
        ('top_k:"k"', "key=value"),
        ("top_k:k=4,k=5", "'k' is given twice"),
        ("top_k:k=4, k =4", "'k' is given twice"),
        ('top_k:k=4,"k=4"', "'k' is given twice"),
        ('text:"path=a', r"quotes .*'\"path=a'"),
        ('text:path="a', r"quotes .*'path=\"a'"),
        ('text:encoding=utf-8,"path=a', r"quotes .*'\"path=a'"),
        ('text:"path=a"b', "quotes"),
        ('text:path="a"b,encoding=utf-8', "quotes"),
        ('text:"path=a""', "quotes"),
    ],
)
def test_a_text_that_can_not_be_read_is_an_error_that_says_how_it_is_written(text: str, said: str) -> None:
    with pytest.raises(SamplerArgumentError, match=said):
        specs.split_text(text, error=SamplerArgumentError)


@given(st.text())
def test_any_text_is_split_or_refused(text: str) -> None:
    """No other exception, whatever a person types."""
    try:
        name, arguments = specs.split_text(text)
    except ArgumentError:
        return
    assert name
    assert all(arguments)


# --- reading by annotation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("count=40", 40),
        ("count=-4", -4),
        ("rate=5", 5.0),
        ("rate=1e-4", 1e-4),
        ("rate=inf", float("inf")),  # a number: whether it makes sense is the constructor's affair
        ("loud=true", True),
        ("loud=Yes", True),
        ("loud=1", True),
        ("loud=FALSE", False),
        ("loud=no", False),
        ("loud=0", False),
        ("folder=a/b", Path("a/b")),
        ("limit=9", 9),
        ("limit=none", None),
        ("limit=None", None),
        ("note=none", None),
        ("note=no", "no"),
        ("mode=slow", "slow"),
        ("mode=7", 7),
        ("mode=none", None),
        ("words=春|夏", ("春", "夏")),
        ("words=one", ("one",)),
        ("words=", ()),
        ('words=" the| a"', (" the", " a")),
        ("words=none", ("none",)),
        ("sizes=1|2|3", (1, 2, 3)),
        ("sizes=none", None),
        ("betas=0.8|0.95", (0.8, 0.95)),
        ("step=5", 5),
        ("step=five", "five"),
        ("mixed=1|two", (1, "two")),
        ("place=5", "5"),
    ],
)
def test_a_value_is_read_as_its_annotation_says(argument: str, value: Any) -> None:
    spec = create(f"everything:name=x,{argument}")
    found = getattr(spec, argument.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("count=4.5", "everything:count takes a whole number. Received: '4.5'."),
        ("count=", "everything:count takes a whole number. Received: ''."),
        ("rate=fast", "everything:rate takes a number. Received: 'fast'."),
        ("loud=maybe", "everything:loud takes true or false. Received: 'maybe'."),
        ("limit=many", "everything:limit takes a whole number or none. Received: 'many'."),
        ("mode=Fast", "everything:mode takes one of 'fast', 'slow', 7, None. Received: 'Fast'. Did you mean 'fast'?"),
        (
            "sizes=1|x",
            "everything:sizes takes a list of a whole number separated by '|' or none. Received: '1|x'.",
        ),
        ("betas=0.9", "everything:betas takes a number and a number separated by '|'. Received: '0.9'."),
        ("betas=1|2|3", "everything:betas takes a number and a number separated by '|'. Received: '1|2|3'."),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_says_what_is_taken(argument: str, said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        create(f"everything:name=x,{argument}")
    assert str(caught.value) == said


def test_an_unknown_argument_is_an_error_that_lists_the_near_and_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"no argument 'cuont'\. Did you mean 'count'\?.* It takes: name, count, "):
        create("everything:name=x,cuont=4")


def test_an_argument_that_the_constructor_does_not_take_is_unknown() -> None:
    with pytest.raises(ArgumentError, match="no argument 'made'"):
        create("everything:name=x,made=4")


def test_a_missing_argument_is_an_error_that_shows_how_to_give_it() -> None:
    with pytest.raises(ArgumentError, match=r"'everything' needs 'name'\. Write 'everything:name=…'"):
        create("everything:count=4")


def test_values_that_are_no_text_pass_to_the_constructor_and_lists_become_tuples() -> None:
    spec = specs.build(Everything, {"name": "x", "count": 4, "words": ["a", "b"], "sizes": None}, name="everything")
    assert spec == Everything(name="x", count=4, words=("a", "b"))


# --- there and back ----------------------------------------------------------------------------------------------

_TEXT = st.text(max_size=12)
_WORD = st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"]), max_size=8)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)

EVERYTHING = st.builds(
    Everything,
    name=_TEXT,
    count=st.integers(),
    rate=_NUMBER,
    loud=st.booleans(),
    folder=st.sampled_from([Path("a"), Path("a b") / "c,d", Path("/")]),
    limit=st.none() | st.integers(),
    note=st.none() | _TEXT,
    mode=st.sampled_from(["fast", "slow", 7, None]),
    words=st.lists(_WORD).map(tuple),
    sizes=st.none() | st.lists(st.integers()).map(tuple),
    betas=st.tuples(_NUMBER, _NUMBER),
    step=st.integers() | _TEXT,
    mixed=st.lists(st.integers() | _WORD).map(tuple),
    place=st.none() | _TEXT,
)


@given(EVERYTHING)
def test_a_manifest_through_json_gives_an_equal_value(spec: Everything) -> None:
    """Whatever the text says: the text "none" is not None, and "5" is not 5."""
    arguments = json.loads(json.dumps(specs.to_arguments(spec)))
    assert specs.restore(Everything, arguments, name="everything") == spec


@given(EVERYTHING)
def test_a_text_form_gives_an_equal_value_or_is_refused(spec: Everything) -> None:
    try:
        text = specs.to_text("everything", spec)
    except ArgumentError:
        return
    assert create(text) == spec


@given(
    name=_TEXT, count=st.integers(), rate=_NUMBER, limit=st.none() | st.integers(), words=st.lists(_WORD, min_size=2)
)
def test_a_value_without_ambiguity_has_a_text_form(
    name: str, count: int, rate: float, limit: int | None, words: list[str]
) -> None:
    """Commas, quotes, spaces and line ends are no obstacle."""
    spec = Everything(name, count=count, rate=rate, limit=limit, words=tuple(words))
    assert create(specs.to_text("everything", spec)) == spec


def test_a_text_form_names_only_what_differs_from_the_defaults() -> None:
    spec = Everything("x", limit=None, loud=True, words=("a", "b"), folder=Path("a,b"))
    assert specs.to_text("everything", spec) == 'everything:name=x,loud=true,folder="a,b",limit=none,words=a|b'


@pytest.mark.parametrize(
    "spec", [Everything("x", note="none"), Everything("x", words=("a|b",)), Everything("x", step="5")]
)
def test_a_value_that_text_would_change_has_no_text_form(spec: Everything) -> None:
    with pytest.raises(SamplerArgumentError, match="has no text form"):
        specs.to_text("everything", spec, error=SamplerArgumentError)


def test_arguments_are_those_that_differ_from_their_defaults_as_json_holds_them() -> None:
    spec = Everything("x", folder=Path("a") / "b", sizes=(1, 2), fresh=())
    assert specs.to_arguments(spec) == {"name": "x", "folder": str(Path("a") / "b"), "sizes": [1, 2]}


def test_a_value_that_json_can_not_hold_is_an_error_that_names_its_argument() -> None:
    with pytest.raises(SamplerArgumentError, match=r"Everything\(step=\{1, 2\}\) can't be saved"):
        specs.to_arguments(Everything("x", step={1, 2}), error=SamplerArgumentError)  # type: ignore[arg-type]


def test_a_manifest_of_another_version_s_arguments_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"no argument 'rates'\. Did you mean 'rate'"):
        specs.restore(Everything, {"name": "x", "rates": 1}, name="everything")
    with pytest.raises(ArgumentError, match="needs 'name'"):
        specs.restore(Everything, {}, name="everything")


# --- words -------------------------------------------------------------------------------------------------------


def test_near_words_come_closest_first_and_far_ones_not_at_all() -> None:
    assert keywords.near("top_kk", ["greedy", "top_p", "top_k"])[0] == "top_k"
    assert keywords.near("zzz", ["greedy", "top_p", "top_k"]) == []


@given(st.lists(_TEXT, min_size=1, unique=True))
def test_a_known_word_is_nearest_to_itself(words: list[str]) -> None:
    assume(words[0])
    assert keywords.near(words[0], words)[0] == words[0]
