"""The bounds in the JSON Schema of recipes are those that the constructors check: neither wider nor narrower."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

import kerasgen as kg
from kerasgen import bounds, constraints, exporters
from kerasgen.bounds import Bounds, PositiveFloat
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.recipes import layout, schema

pytestmark = pytest.mark.one_backend

REGISTRIES = {**layout.PARTS, "constraint": constraints.REGISTRY, "exporter": exporters.REGISTRY}
# What a class can't do without.
NEEDED: dict[str, dict[str, Any]] = {
    "csv": {"path": "x.csv"},
    "jsonl": {"path": "x.jsonl"},
    "parquet": {"path": "x.parquet"},
    "text": {"path": "x.txt"},
    "datasets": {"name": "x"},
    "tfds": {"name": "x", "text": "text"},
    "dedup": {"of": "sample"},
    "mix": {"of": "sample"},
    "model-gguf": {"file": "x.gguf"},
    "hub": {"preset": "gpt2_base_en"},
    "acrostic": {"heads": "春夏"},
    "couplet": {"first": "春風又綠江南岸", "tones": False},
    "regex": {"pattern": "x"},
    "script": {"script": "simplified"},
    "verse_form": {"form": "七言絕句", "rhyme": False},
}
# Settings that are bounded by others, which are changed with them.
WITH = {
    ("beam", "num_return_sequences"): lambda value: {"num_beams": value},
    ("beam", "num_beam_groups"): lambda value: {"num_beams": value},
    ("tflite", "shortlist"): lambda value: {"quantize": "float32"},
}


def numbers_of() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Every setting of every plugin that takes a number: the kind, the name, the setting and its schema."""
    found = []
    for part, registry in REGISTRIES.items():
        for name in registry.built_ins():
            for key, shape in schema.settings(registry.get(name)).items():
                if any(each.get("type") in ("integer", "number") for each in flat(shape)):
                    found.append((part, name, key, shape))
    return found


def flat(shape: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema."""
    for each in shape.get("anyOf", [shape]):
        yield from flat(each) if "anyOf" in each else [each]


def edges(shape: dict[str, Any]) -> list[float]:
    """Numbers on, beside and far from the bounds of a schema, and those that often are bounds."""
    found: list[float] = [0, 1, -1, 2, 7, 8, 15, 16, 100, -(2**70), 2**64 - 1, 2**64, 2**70]
    for each in flat(shape):
        for word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if word in each:
                found += [each[word] - 1, each[word], each[word] + 1]
    is_real = any(each.get("type") == "number" for each in flat(shape))
    if is_real:
        found += [0.5, -0.5, 1e-9, 1e-6, 0.999999, 1.000001, 1e30, math.nextafter(0.5, 0), math.nextafter(1, 0)]
    return [value if is_real else int(value) for value in found]


def construct(part: str, name: str, key: str, value: Any) -> None:
    """Make an instance with one setting, and those that it can't do without."""
    needed = NEEDED.get(name) or NEEDED.get(f"{part}-{name}", {})
    others = WITH[name, key](value) if (name, key) in WITH else {}
    REGISTRIES[part].get(name)(**needed | others | {key: value})


NUMBERS = numbers_of()


def str_of(value: Any) -> str:
    """What the name of a test says of an argument."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("part", "name", "key", "shape"), NUMBERS, ids=str_of)
def test_a_number_is_in_the_schema_s_bounds_if_the_constructor_takes_it(part, name, key, shape) -> None:
    validator = Draft7Validator(shape)
    for value in edges(shape):
        try:
            construct(part, name, key, value)
        except KerasgenError as error:
            taken, said = False, str(error)
        else:
            taken, said = True, ""
        assert validator.is_valid(value) == taken, (value, shape, said)


@given(value=st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize(("part", "name", "key", "shape"), NUMBERS, ids=str_of)
def test_any_number_is(part, name, key, shape, value) -> None:
    if isinstance(value, float) and not any(each.get("type") == "number" for each in flat(shape)):
        return  # JSON Schema calls 1.0 an integer
    try:
        construct(part, name, key, value)
    except KerasgenError:
        taken = False
    else:
        taken = True
    assert Draft7Validator(shape).is_valid(value) == taken


@pytest.mark.parametrize("word", ["data", "model", "2x4", "10x1", "", "x", "0x1", "2x", "dat", "datamodel"])
def test_a_text_matches_the_schema_s_pattern_if_the_constructor_takes_it(word: str) -> None:
    shape = schema.settings(kg.FullTuner)["distribution"]
    try:
        kg.FullTuner(distribution=word)
    except ArgumentError:
        taken = False
    else:
        taken = True
    assert Draft7Validator(shape).is_valid(word) == taken


@pytest.mark.parametrize(
    ("table", "key", "call"),
    [
        (None, "seed", lambda value: kg.Pipeline("sample", seed=value)),
        (None, "held_out", lambda value: kg.Pipeline("sample", held_out=value)),
        (None, "max_documents", lambda value: kg.Pipeline("sample", max_documents=value)),
        (None, "streaming", lambda value: kg.Pipeline("sample", streaming=value)),
        ("generation", "max_length", lambda value: kg.GenerationConfig(max_length=value)),
        ("generation", "max_new_tokens", lambda value: kg.GenerationConfig(max_new_tokens=value)),
        ("generation", "batch_size", lambda value: kg.GenerationConfig(batch_size=value)),
        ("generation", "num_return_sequences", lambda value: kg.GenerationConfig(num_return_sequences=value)),
        ("generation", "seed", lambda value: kg.GenerationConfig(seed=value)),
        (
            "generation",
            "prompt_lookup_num_tokens",
            lambda value: kg.GenerationConfig(prompt_lookup_num_tokens=value),
        ),
        (
            "generation",
            "num_assistant_tokens",
            lambda value: kg.GenerationConfig(assistant_model="starter", num_assistant_tokens=value),
        ),
    ],
)
def test_a_pipeline_and_its_calls_take_what_the_schema_takes(table, key, call) -> None:
    properties = schema.schema()["properties"]
    shape = properties[key] if table is None else properties[table]["properties"][key]
    for value in edges(shape):
        try:
            call(value)
        except ArgumentError:
            taken = False
        else:
            taken = True
        assert Draft7Validator(shape).is_valid(value) == taken, (value, shape)


def test_a_bound_of_a_recipe_is_told_with_its_line(tmp_path) -> None:
    file = tmp_path / "r.toml"
    for text, said in [
        ('corpus = "sample"\nseed = -1\n', "from 0 to 2"),
        ('corpus = "sample"\n\nheld_out = 1.0\n', "below 1"),
        ('corpus = "sample"\n[generation]\nmax_new_tokens = 0\n', "at least 1"),
        ('corpus = "sample"\n[evaluate]\ntexts = -1\n', "at least 0"),
        ('corpus = "sample"\n[tuner]\ntype = "lora"\nrank = 0\n', "at least 1"),
    ]:
        file.write_text(text)
        with pytest.raises(ArgumentError) as caught:
            kg.Pipeline.from_recipe(file)
        assert said in str(caught.value)
        assert f"r.toml:{text.count(chr(10))}: " in str(caught.value)


def test_bounds_say_themselves_in_words_and_as_a_schema() -> None:
    assert Bounds(minimum=0, below=0.5).say(float) == "a finite number of at least 0 and below 0.5"
    assert Bounds(above=0, note="1 is none").say(float) == "a finite number above 0 (1 is none)"
    assert bounds.say(PositiveFloat | None) == "a finite number above 0, or None"
    assert Bounds(above=0, maximum=1).schema() == {"exclusiveMinimum": 0, "maximum": 1}
    assert bounds.accepts(True, PositiveFloat) is False
    assert [bounds.accepts(value, PositiveFloat | Any) for value in (1, 0, "x", math.inf)] == [True, False, True, False]
