"""Every built-in, in every setting: its text, its manifest and its constructor's call are one value."""

from __future__ import annotations

import importlib
import json
import math
import typing
from importlib.metadata import distribution
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasgen import specs
from kerasgen.plugins import Registry

_WORD = st.text(min_size=1, max_size=10)
_PATH = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=10)
_POSITIVE = st.floats(min_value=1e-6, max_value=1e6)
_COUNT = st.integers(1, 10**6)
_SOME = st.none() | _COUNT
_ON_ERROR = st.sampled_from(["raise", "skip"])

_ANY_SAMPLER = {
    "temperature": _POSITIVE,
    "repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": st.integers(0, 10),
    "bad_words": st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)).map(tuple),
    "seed": st.none() | st.integers(0, 2**64 - 1),
}
_ANY_TUNER = {
    "epochs": _COUNT,
    "learning_rate": _POSITIVE,
    "batch_size": _COUNT,
    "max_steps": _SOME,
    "sequence_length": _SOME,
    "packing": st.sampled_from(["auto", "best_fit", "concatenate", "none"]),
    "vocabulary": st.sampled_from(["keep", "trim", "extend", "auto"]),
    "learn": st.sampled_from(["parts", "all"]),
    "masking": st.sampled_from(["tokens", "whole_words", "spans"]),
    "mask_rate": st.floats(0.01, 1),
    "schedule": st.sampled_from(["linear", "cosine", "constant"]),
    "warmup_steps": st.integers(0, 100),
    "weight_decay": st.floats(0, 1),
    "clip_norm": st.none() | _POSITIVE,
    "gradient_accumulation_steps": _COUNT,
    "steps_per_execution": _COUNT,
    "remat": st.booleans(),
    "distribution": st.sampled_from([None, "data", "model", "2x4"]),
    "sharded_checkpoints": st.just(False),  # True needs a distribution
    "precision": st.sampled_from(["auto", "float32", "mixed_bfloat16", "mixed_float16"]),
    "validate_every": _SOME,
    "validation_tokens": _SOME,
    "patience": _SOME,
    "checkpoint_every": _SOME,
    "sample_every": _SOME,
}
# A prompt needs its response, and stands in the place of `field`.
_NO_PROMPT: dict[str, st.SearchStrategy[Any]] = {
    **{"prompt": st.none(), "response": st.none(), "chosen": st.none(), "rejected": st.none()},
    "messages": st.none(),
    "separator": _WORD,
}
_ANY_TFDS = {"split": _WORD, "data_dir": st.none() | _PATH, "download": st.booleans()}

# Valid values of every argument of every built-in.
ARGUMENTS: dict[str, dict[str, dict[str, st.SearchStrategy[Any]]]] = {
    "corpora": {
        "chinese_poetry": {
            "path": st.none() | _PATH,
            "dynasty": st.sampled_from(["tang", "song", "both"]),
            "collection": st.sampled_from(["auto", "全唐诗", "quan_tang_shi"]),
            "form": st.sampled_from(["any", "five", "seven", "jueju", "lüshi", "lushi"]),
            "script": st.sampled_from(["as_is", "simplified", "traditional"]),
            "notes": st.sampled_from(["keep", "strip"]),
            "lacunae": st.sampled_from(["keep", "drop"]),
            "fragments": st.sampled_from(["keep", "drop"]),
            "glyphs": st.sampled_from(["keep", "drop"]),
            "unify_variants": st.booleans(),
            "deduplicate": st.booleans(),
            "on_error": _ON_ERROR,
            "url": _WORD.map("https://example.org/".__add__),
            "cache_dir": st.none() | _PATH,
        },
        "reddit_tifu": {
            "text": st.sampled_from(["documents", "title", "tldr"]),
            "variant": st.sampled_from(["short", "long", "long_split"]),
            **_ANY_TFDS,
            "path": st.none() | _PATH,
        },
        "cnn_dailymail": {
            "text": st.sampled_from(["article", "highlights"]),
            **_ANY_TFDS,
            "path": st.none() | _PATH,
        },
        "tfds": {
            "name": _WORD,
            "text": _WORD,
            "prompt": st.none(),
            "response": st.none(),
            "separator": _WORD,
            **_ANY_TFDS,
        },
        "text": {
            "path": _PATH,
            "split": st.sampled_from(["file", "line", "paragraph"]),
            "check_kind": st.booleans(),
            "encoding": st.sampled_from(["utf-8", "gb18030", "big5"]),
            "on_error": _ON_ERROR,
        },
        "jsonl": {"path": _PATH, "field": _WORD, "id_field": st.none() | _WORD, "on_error": _ON_ERROR, **_NO_PROMPT},
        "csv": {
            "path": _PATH,
            "field": _WORD,
            "delimiter": st.sampled_from([",", ";", "|", " ", "\t", "tab", "，"]),
            "on_error": _ON_ERROR,
            "encoding": st.sampled_from(["utf-8", "gb18030", "big5"]),
            **_NO_PROMPT,
        },
        "parquet": {"path": _PATH, "field": _WORD, "id_field": st.none() | _WORD, "on_error": _ON_ERROR, **_NO_PROMPT},
        "datasets": {
            "name": _WORD,
            "split": _WORD,
            "config": st.none() | _WORD,
            "revision": st.none() | _WORD,
            "streaming": st.booleans(),
            "field": _WORD,
            "id_field": st.none() | _WORD,
            "on_error": _ON_ERROR,
            **_NO_PROMPT,
        },
        "mix": {
            "of": st.sampled_from(["sample", "3 * sample | 0.5 * sample:language=zh", "sample|sample"]),
            "until": st.sampled_from(["all", "first"]),
            "seed": st.integers(0, 99),
        },
        "dedup": {
            "of": st.sampled_from(["sample", "sample:language=zh"]),
            "threshold": st.floats(0.1, 1.0),
            "shingle": _COUNT,
            "permutations": st.integers(16, 256),
            "seed": st.integers(0, 99),
        },
        "sample": {"language": st.sampled_from(["all", "zh", "en"])},
    },
    "models": {
        "hub": {
            "preset": st.sampled_from(["gpt2_base_en", "hf://a/b", "kaggle://keras/gpt2/keras/base", "./a,b", '~/"c"'])
        },
        "gguf": {"file": st.sampled_from(["x.gguf", "hf://a/b/c.gguf", "hf://a/b/c/d.GGUF", "./a,b", '~/"c"'])},
        "smollm2": {},
        "starter": {},
    },
    "tuners": {
        "full": _ANY_TUNER,
        "lora": {
            **_ANY_TUNER,
            "rank": _COUNT,
            "alpha": _POSITIVE,
            "targets": st.none() | st.lists(_WORD, min_size=1).map(tuple),
            "form": st.just("paper"),
            "rank_stabilized": st.booleans(),
            "use_dora": st.booleans(),
            "quantize": st.sampled_from([None, "int8", "int4"]),
            "distribution": st.none(),  # the others are full's, and not for a base in codes
        },
        "dpo": {
            **_ANY_TUNER,
            "packing": st.sampled_from(["auto", "best_fit", "none"]),
            "learn": st.just("parts"),
            "distribution": st.none(),
            "rank": st.integers(0, 100),
            "alpha": _POSITIVE,
            "form": st.just("paper"),
            **dict.fromkeys(("targets", "quantize"), st.none()),  # others need a rank, as the next two
            **dict.fromkeys(("rank_stabilized", "use_dora"), st.just(False)),
            "loss": st.sampled_from(["sigmoid", "simpo"]),
            "beta": _POSITIVE,
            "label_smoothing": st.floats(0, 0.49),
            "gamma": st.floats(0, 5),
        },
    },
    "samplers": {
        "greedy": _ANY_SAMPLER,
        "random": _ANY_SAMPLER,
        "top_k": {**_ANY_SAMPLER, "k": _COUNT},
        "top_p": {**_ANY_SAMPLER, "p": st.floats(1e-6, 1)},
        "min_p": {**_ANY_SAMPLER, "p": st.floats(0, 1)},
        "beam": {
            **_ANY_SAMPLER,
            "num_beams": st.integers(2, 32).map(lambda half: 2 * half),
            "num_beam_groups": st.just(1),
            "diversity_penalty": st.floats(0, 10),
            "length_penalty": st.floats(-4, 4),
            "num_return_sequences": st.integers(1, 4),
            "early_stopping": st.booleans(),
        },
        "contrastive": {**_ANY_SAMPLER, "k": _COUNT, "alpha": st.floats(0, 1)},
        "mask_predict": {**_ANY_SAMPLER, "iterations": _COUNT, "k": _COUNT},
        "gibbs": {**_ANY_SAMPLER, "sweeps": _COUNT, "k": st.integers(0, 10)},
    },
    "constraints": {
        "regex": {
            "pattern": st.sampled_from(["a", "[春夏]{2,3}", "x,y|z", '"', "none", ""]),
            "whole_text": st.booleans(),
        },
        "verse_form": {
            "form": st.sampled_from(["七言絕句", "五律", "6x5"]),
            "odd_ends": st.sampled_from(["，", "，？！", ","]),
            "even_ends": st.sampled_from(["。", "。？！", "|"]),
            "between": st.sampled_from(["\n", "", " "]),
            "rhyme": st.booleans() | st.sampled_from(["東", "花"]),
            "tones": st.booleans(),
            "acrostic": st.just(""),
            "script": st.sampled_from([None, "simplified", "traditional"]),
            "whole_text": st.booleans(),
        },
        "acrostic": {
            "heads": st.sampled_from(["春夏秋冬", "天下"]),
            "script": st.sampled_from([None, "simplified", "traditional"]),
            "form": st.just(""),
            "rhyme": st.booleans(),
            "tones": st.booleans(),
            "whole_text": st.booleans(),
        },
        "couplet": {
            "first": st.sampled_from(["白日依山盡", "春風，花月"]),
            "script": st.none(),
            "rhyme": st.sampled_from(["", "東", "尤"]),
            "middle": st.sampled_from(["，", "\n", ""]),
            "end": st.sampled_from(["。", ""]),
            "tones": st.booleans(),
            "whole_text": st.booleans(),
        },
        "script": {
            "script": st.sampled_from(["simplified", "traditional"]),
            "whole_text": st.booleans(),
        },
    },
    "exporters": {
        "gguf": {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0"]),
            "most_divergence": st.none() | st.floats(0, 1),
            "max_sequence_length": _SOME,
        },
        "web": {
            "engine": st.just("litert"),
            "quantize": st.sampled_from(["float32", "float16", "int8", "int4"]),
            "cache_length": st.none() | st.integers(8, 2048),
            "forms": st.sampled_from(
                [(), ("verse_form:form=五絕",), ("verse_form:form=五絕", "script:script=simplified")]
            ),
            "title": st.none() | _WORD,
            "prompts": st.lists(_WORD, max_size=3).map(tuple),
            "node_modules": st.none() | _WORD,
        },
        "litertlm": {
            "quantize": st.sampled_from(["float32", "float16", "int8", "int4"]),
            "cache_length": st.none() | st.integers(8, 2048),
            "prefill_lengths": st.lists(st.integers(2, 512), unique=True, max_size=3).map(sorted).map(tuple),
            "most_divergence": st.none() | st.floats(0, 1),
            "least_agreement": st.none() | st.floats(0, 1),
            "most_logit_difference": st.none() | st.floats(0, 10),
            "most_loss_increase": st.none() | st.floats(0, 1),
            "held_out_text": st.none() | _WORD,
        },
        "preset": {"dtype": st.sampled_from(["float32", "float16"])},
        "transformers": {"dtype": st.sampled_from(["float32", "float16", "bfloat16"]), "max_sequence_length": _SOME},
        "saved_model": {
            "samplers": st.sampled_from([("greedy",), ("greedy", "beam"), ("top_k", "top_p", "min_p")]),
            "num_beams": _COUNT,
            "length_penalty": st.floats(-2, 2),
            "dtype": st.sampled_from(["float32", "float16"]),
            "compiled": st.booleans(),
            "max_sequence_length": _SOME,
        },
        "tflite": {
            "quantize": st.sampled_from(["float32", "float16", "int8", "int4"]),
            "cache_length": st.none() | st.integers(8, 2048),
            "prefill_lengths": st.lists(st.integers(2, 512), unique=True, max_size=3).map(sorted).map(tuple),
            "decode_lengths": st.none() | st.lists(st.integers(8, 512), unique=True, max_size=3).map(sorted).map(tuple),
            "beams": st.sampled_from([0, 2, 4]),
            "shortlist": st.sampled_from([None, 0]),  # more than none goes with float32 alone
            "samplers": st.sampled_from([(), ("greedy",), ("top_k", "min_p")]),
            "most_divergence": st.none() | st.floats(0, 1),
            "least_agreement": st.none() | st.floats(0, 1),
            "most_logit_difference": st.none() | st.floats(0, 10),
            "most_loss_increase": st.none() | st.floats(0, 1),
            "held_out_text": st.none() | _WORD,
        },
    },
}
BUILT_INS = [(surface, name) for surface, each in ARGUMENTS.items() for name in each]


def registry(surface: str) -> Registry[Any]:
    found: Registry[Any] = importlib.import_module(f"kerasgen.{surface}").REGISTRY
    return found


def needed(surface: str, name: str) -> dict[str, str]:
    """The arguments without which it can't be made."""
    given = {"path": "a.txt", "file": "a.gguf", "preset": "gpt2_base_en", "name": "imdb_reviews", "text": "text"}
    given |= {"of": "sample", "pattern": "a", "form": "七絕", "script": "traditional"}
    given |= {"heads": "春夏秋冬", "first": "白日依山盡"}
    required = {"text": ["path"], "jsonl": ["path"], "csv": ["path"], "tfds": ["name", "text"], "hub": ["preset"]}
    required |= {"parquet": ["path"], "datasets": ["name"], "mix": ["of"], "dedup": ["of"]}
    required |= {"gguf": ["file"]} if surface == "models" else {}
    required |= {"regex": ["pattern"], "verse_form": ["form"], "script": ["script"]}
    required |= {"acrostic": ["heads"], "couplet": ["first"]}
    return {key: given[key] for key in required.get(name, [])}


def test_every_built_in_is_listed_here_with_every_argument() -> None:
    declared = {
        (point.group.removeprefix("kerasgen."), point.name)
        for point in distribution("kerasgen").entry_points
        if point.group.startswith("kerasgen.")
    }
    assert declared == set(BUILT_INS)
    for surface, name in BUILT_INS:
        assert set(specs.fields(registry(surface).get(name))) == set(ARGUMENTS[surface][name]), name


@pytest.mark.parametrize(("surface", "name"), BUILT_INS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_manifest_and_a_text_give_the_value_that_the_constructor_gives(surface: str, name: str, data: Any) -> None:
    arguments = data.draw(
        st.fixed_dictionaries(
            {key: ARGUMENTS[surface][name][key] for key in needed(surface, name)},
            optional={key: each for key, each in ARGUMENTS[surface][name].items() if key not in needed(surface, name)},
        )
    )
    here = registry(surface)
    spec = here.get(name)(**arguments)
    assert here.from_manifest(json.loads(json.dumps(here.to_manifest(spec)))) == spec
    # Of valid settings, only these have no text form: "|" in a list, and text that reads as None where None may be.
    listed = [word for value in arguments.values() if isinstance(value, tuple) for word in value]
    nones = any(isinstance(value, str) and value.strip().lower() == "none" for value in arguments.values())
    if nones or any(isinstance(word, str) and "|" in word for word in listed) or arguments.get("targets") == ("none",):
        return
    assert here.create(here.to_text(spec)) == spec
    assert hash(here.create(here.to_text(spec))) == hash(spec)


@pytest.mark.parametrize(
    ("surface", "text", "arguments"),
    [
        ("samplers", "top_k:k=40,temperature=0.8", {"k": 40, "temperature": 0.8}),
        ("samplers", "beam:num_beams=4,early_stopping=true,seed=none", {"num_beams": 4, "early_stopping": True}),
        ("samplers", "greedy:bad_words=春| the", {"bad_words": ("春", " the")}),
        ("tuners", "full:learning_rate=5e-4,max_steps=500", {"learning_rate": 5e-4, "max_steps": 500}),
        ("tuners", "lora:rank=8,alpha=16,targets=query|value", {"alpha": 16.0, "targets": ("query", "value")}),
        (
            "corpora",
            "chinese_poetry:path=/data/chinese-poetry,dynasty=tang",
            {"path": "/data/chinese-poetry", "dynasty": "tang"},
        ),
        ("corpora", "jsonl:path=a.jsonl,field=post", {"path": "a.jsonl", "field": "post"}),
        ("models", "hub:preset=hf://some/model", {"preset": "hf://some/model"}),
        ("exporters", "preset:dtype=float16", {"dtype": "float16"}),
        ("exporters", "tflite:samplers=top_k", {"samplers": ("top_k",)}),
    ],
)
def test_a_text_means_this_call(surface: str, text: str, arguments: dict[str, Any]) -> None:
    here = registry(surface)
    assert here.create(text) == here.get(text.partition(":")[0])(**arguments)


@pytest.mark.parametrize(("surface", "name"), BUILT_INS)
def test_nothing_that_is_not_finite_gets_into_a_built_in(surface: str, name: str) -> None:
    here = registry(surface)
    for key, annotation in specs.fields(here.get(name)).items():
        if annotation is float or float in typing.get_args(annotation):
            for value in ("nan", "inf", "-inf"):
                with pytest.raises(here.error, match=key):
                    here.build(name, needed(surface, name) | {key: value})
                with pytest.raises(here.error, match=key):
                    here.get(name)(**(needed(surface, name) | {key: float(value)}))
            assert math.isfinite(getattr(here.build(name, needed(surface, name)), key) or 0)


@pytest.mark.parametrize(("surface", "name"), BUILT_INS)
def test_a_value_of_the_wrong_kind_is_the_surface_s_own_error(surface: str, name: str) -> None:
    here = registry(surface)
    for key, annotation in specs.fields(here.get(name)).items():
        options = typing.get_args(annotation) or (annotation,)
        if str not in options and tuple not in map(typing.get_origin, options):
            # What may be of any kind, such as a schedule of Keras's, is checked by the built-in itself.
            taker = key if Any in options else f"{name}:{key} takes"
            with pytest.raises(here.error, match=f"{taker} .*Received: 'no such value'"):
                here.build(name, needed(surface, name) | {key: "no such value"})
            with pytest.raises(here.error):
                here.build(name, needed(surface, name) | {key: 1 + 2j})
            if typing.get_origin(annotation) is not Literal and int in options:
                with pytest.raises(here.error):
                    here.build(name, needed(surface, name) | {key: True})  # a bool is no number of anything


@pytest.mark.parametrize(("surface", "name"), BUILT_INS)
def test_a_built_in_can_not_be_changed_once_it_is_made(surface: str, name: str) -> None:
    spec = registry(surface).build(name, needed(surface, name))
    for key in specs.fields(type(spec)):
        with pytest.raises(AttributeError):
            setattr(spec, key, None)


@pytest.mark.parametrize(("surface", "name"), BUILT_INS)
def test_a_description_shows_every_argument_and_what_the_thing_does(surface: str, name: str) -> None:
    call, summary = registry(surface).describe(name).split("\n", 1)
    assert call.startswith(f"{name}(")
    for key in specs.fields(registry(surface).get(name)):
        assert f"{key}: " in call
    assert summary.strip().endswith((".", ")"))
