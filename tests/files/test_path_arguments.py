"""Public calls take a path as text, as pathlib's, or as anything with `__fspath__`, and say what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from places import PathLike
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.evaluation.plotting import plot_training
from kerasgen.files.path_arguments import path_argument
from kerasgen.models.saving import save_preset
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tuners import peft_files

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def model() -> kg.LanguageModel:
    return tiny_gpt2(num_layers=1)


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory) -> Path:
    return save_preset(model, tmp_path_factory.mktemp("presets") / "preset")


def test_home_is_the_user_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_argument("~/poet") == tmp_path / "poet" == path_argument(PathLike("~/poet"))
    assert path_argument(Path("poet")) == Path("poet")
    with pytest.raises(kg.errors.ModelArgumentError, match="`model` begins with the home of a user who is not there"):
        path_argument("~nobody-of-this-name/poet", kg.errors.ModelArgumentError, name="model")


@pytest.mark.parametrize("none", [3, "", b"poet", PathLike("")])
def test_what_is_no_path_is_told_by_its_argument_s_name(none, model, preset):
    for name, call in {
        "path": lambda: plot_training(kg.TuneReport.__new__(kg.TuneReport), none),
        "directory": lambda: save_preset(model, none),
        "scores_path": lambda: kg.Pipeline(["a b"], preset).evaluate(scores_path=none),
        "vocabulary": lambda: kg.ByteLevelBPE.from_files(none, "merges.txt"),
    }.items():
        with pytest.raises(kg.errors.ArgumentError, match=f"`{name}` must be a path: a string or an os.PathLike"):
            call()
    pipe = kg.Pipeline(model=preset)
    for opened in (
        kg.Pipeline.load,
        kg.load_artefact,
        pipe.save,
        pipe.export,
        kg.ByteLevelBPE.from_directory,
        kg.ByteLevelBPE.from_tokenizer_json,
        PretrainedTokenizer.from_directory,
        model.tokenizer.save,
        lambda path: pipe.generate_to(path, ["a"]),
        lambda path: peft_files.read(model, path),
    ):
        with pytest.raises(kg.errors.ArgumentError, match=r"must be a path: a string or an os.PathLike, and not empty"):
            opened(none)


@pytest.mark.parametrize("place", [str, Path, PathLike])
def test_what_is_saved_at_a_path_is_loaded_from_it(place, model, preset, tmp_path):
    path = place(tmp_path / "poet")
    assert kg.Pipeline(model=place(preset)).save(path) == tmp_path / "poet"
    assert kg.Pipeline.load(path).model.tokenizer.digest() == model.tokenizer.digest()
    assert save_preset(model, place(tmp_path / "preset")) == tmp_path / "preset"
    assert kg.Gguf(place("poet.gguf")).file == "poet.gguf"
    assert kg.Hub(place(f".{os.sep}poet")) == kg.Hub(f".{os.sep}poet")
    (tmp_path / "tokenizer").mkdir()
    model.tokenizer.save(place(tmp_path / "tokenizer"))
    assert kg.ByteLevelBPE.from_directory(place(tmp_path / "tokenizer")).digest() == model.tokenizer.digest()
