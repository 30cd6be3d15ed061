"""The command line: every command does what the Python does, and says what is wrong in one line."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt2

from kerasgen.cli import main
from kerasgen.models.saving import save_preset


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return str(save_preset(tiny_gpt2(), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_list_shows_all_surfaces(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name in ("chinese_poetry", "starter", "lora", "top_p", "verse_form", "preset"):
        assert name in said


def test_list_describes_one(capsys):
    assert main(["list", "samplers", "top_k"]) == 0
    assert "temperature" in capsys.readouterr().out


def test_fit_generate_and_evaluate_work_on_what_fit_saved(preset, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the cat sat on mat number {n}" for n in range(40)), encoding="utf-8")
    corpus, output = f"text:path={texts},split=line", str(tmp_path / "poet")
    tuner = "full:max_steps=3,batch_size=4,sequence_length=32"
    assert main(["fit", corpus, "--model", preset, "--tuner", tuner, "--output", output]) == 0
    assert "3 steps" in capsys.readouterr().out
    assert main(["generate", output, "the", "a cat", "--max-new-tokens", "6", "--sampler", "greedy"]) == 0
    both = capsys.readouterr().out
    assert "\n\na cat" in both
    assert main(["generate", output, "the", "--max-new-tokens", "6", "--sampler", "greedy"]) == 0
    assert both.startswith(capsys.readouterr().out.removesuffix("\n"))
    assert main(["evaluate", output]) == 0
    assert "bits per character" in capsys.readouterr().out


def test_a_wrong_argument_is_one_line_and_status_two(preset, tmp_path, capsys):
    assert main(["fit", "smaple", "--output", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("kerasgen: ")
    assert "'sample'" in said
    assert "Traceback" not in said


def test_a_failure_is_one_line_and_status_one(tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    assert main(["generate", str(tmp_path / "broken"), "the"]) == 1
    assert capsys.readouterr().err.startswith("kerasgen: ")


def test_an_output_in_the_way_is_said_before_the_run(preset, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert main(["fit", "sample", "--model", preset, "--output", str(tmp_path / "there")]) == 2
    assert "already" in capsys.readouterr().err
