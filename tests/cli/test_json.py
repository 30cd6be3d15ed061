"""`--json`: standard output is JSON and nothing else, for answers and errors, whoever else prints."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from installing import without_tensorflow
from tiny import tiny_gpt2

from kerasgen.cli import COMMANDS, load, main
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KERASGEN_CACHE", str(tmp_path / "cache"))


def test_every_command_has_it() -> None:
    assert [name for name in COMMANDS if "as_json" not in {each.name for each in load(name).params}] == []


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["list"], {"samplers", "exporters"}),
        (["list", "samplers"], {"samplers"}),
        (["list", "exporters", "tflite"], {"name", "description"}),
        (["plugins"], {"plugins", "faults"}),
        (["plugins", "new", "haiku", "--with", "sampler", "--in", "NEW"], {"folder", "files"}),
        (["recipe", "schema"], {"$schema", "properties"}),
        (["recipe", "check", "RECIPE"], {"recipe"}),
        (["recipe", "show", "RECIPE"], {"recipe"}),
        (["doctor"], {"packages", "extras", "problems"}),
        (["cache"], {"directory", "kinds"}),
        (["cache", "clean", "--kind", "tokens"], {"directory", "kinds"}),
    ],
    ids=lambda said: " ".join(said) if isinstance(said, list) else "",
)
def test_an_answer_is_one_object_on_a_line(
    arguments: list[str], keys: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "poet.toml").write_text('corpus = "sample"\nmodel = "starter"\n', encoding="utf-8")
    (tmp_path / "new").mkdir()
    places = {"NEW": str(tmp_path / "new"), "RECIPE": str(tmp_path / "poet.toml")}
    assert main([places.get(each, each) for each in [*arguments, "--json"]]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert keys <= json.loads(line).keys()


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        (["demo", "--directory", "THERE"], 2, "ArgumentError"),
        (["list", "samplers", "topk"], 2, "UnknownNameError"),
        (["fit", "smaple", "-o", "NEW"], 2, "UnknownNameError"),
        (["fit", "text:path=NEW", "-o", "NEWER"], 1, None),
        (["recipe", "check", "NEW.toml"], 2, "RecipeError"),
        (["recipe", "check", "WRONG"], 2, "RecipeError"),
        (["generate", "BROKEN", "the"], 1, None),
        (["generate", "PRESET", "the", "--max-new-tokens", "0"], 2, None),
        (["chat", "PRESET"], None, "ChatTemplateError"),
        (["evaluate", "PRESET"], 2, "ArgumentError"),
        (["report", "PRESET", "NEW.html"], 2, "ArgumentError"),
        (["export", "PRESET", "NEW.onnx"], 2, None),
        (["push", "PRESET", "a b"], 2, "HubArgumentError"),
        (["serve", "PRESET", "--set", "prot=80"], 2, "ArgumentError"),
        (["plugins", "check", "nothing-of-this-name"], 2, "UnknownNameError"),
        (["doctor", "NEW.toml"], 2, "RecipeError"),
        (["cache", "clean", "--kind", "tokns"], 2, "ArgumentError"),
    ],
    ids=lambda said: " ".join(said) if isinstance(said, list) else "",
)
def test_an_error_is_an_object_too(
    arguments: list[str], status: int, kind: str | None, preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    (tmp_path / "wrong.toml").write_text('corpos = "sample"\nmodl = "starter"\n', encoding="utf-8")
    places = {"PRESET": preset, "THERE": str(tmp_path), "BROKEN": str(tmp_path / "broken")}
    places |= {"WRONG": str(tmp_path / "wrong.toml")}
    given = [places.get(each, each).replace("NEW", str(tmp_path / "new")) for each in arguments]
    ended = main([*given, "--json"])
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    error = json.loads(line)["error"]
    assert ended == error["status"] != 0
    assert status in (None, ended)
    assert kind in (None, error["type"])
    assert [f"kerasgen: {' '.join(each.split())}" for each in error["message"].splitlines()] == err.splitlines()
    assert len(err.splitlines()) == (2 if "WRONG" in arguments else 1)


@pytest.mark.parametrize("arguments", [["generat", "x"], ["generate"], ["fit", "--sede", "3"], ["list", "sampler"]])
def test_a_command_line_of_the_wrong_form_is_told_so_too(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json"])
    assert stop.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], error["status"]) == ("ArgumentError", 2)
    with pytest.raises(SystemExit):
        main([*arguments, "--", "--json"])  # which is a prompt
    assert capsys.readouterr().out == ""


def test_what_others_print_goes_to_standard_error() -> None:
    """A package's own words, those of C, and those of a process that it starts."""
    code = (
        "import ctypes, os, sys\n"
        "from kerasgen import cli\n"
        "from kerasgen.cli import cache_files\n"
        "def sizes(directory):\n"
        "    print('noise by Python')\n"
        "    os.system('echo noise by a shell')\n"
        "    c = ctypes.CDLL(None); c.puts(b'noise by C'); c.fflush(None)\n"
        "    return {}\n"
        "cache_files.cache.sizes = sizes\n"
        "status = cli.main(['cache', '--json'])\n"
        "print('afterwards', status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    answer, afterwards = done.stdout.splitlines()
    assert json.loads(answer)["kinds"] == {}
    assert afterwards == "afterwards 0"
    assert {"noise by Python", "noise by a shell", "noise by C"} <= set(done.stderr.splitlines())


def test_a_conversation_s_error_is_a_line_like_its_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kerasgen.models import chat

    model = tiny_gpt2(400, num_layers=1, max_sequence_length=64)
    chat.give(model, "alpaca", seed=0)
    talker = str(save_preset(model, tmp_path / "talker"))
    said = "hello\n" + "a long line " * 40 + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode()), encoding="utf-8"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    status = main(["chat", talker, "--json", "--max-new-tokens", "2", "--sampler", "greedy"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["error"]["status"] == status != 0
    assert [line.get("role") for line in lines[:-1]] in ([], ["assistant"])


def test_ctrl_c_is_an_object_too(preset: str, tmp_path: Path) -> None:
    arguments = ["fit", "sample:language=en", "--model", preset, "-o", str(tmp_path / "poet")]
    command = [sys.executable, "-m", "kerasgen", *arguments, "--max-steps", "100000", "--epochs", "100000", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [*command, "--directory", str(tmp_path / "run"), "--set", "checkpoint_every=1"],
        env=without_tensorflow(),
        encoding="utf-8",
        **pipes,
    ) as process:
        while not list((tmp_path / "run").glob("step-*")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    error = json.loads(out)["error"]
    assert (error["type"], error["status"]) == ("Interrupted", 130) or error["status"] == 130
    assert "--resume goes on from it" in error["message"]


@pytest.mark.slow
def test_a_server_tells_where_it_listens(preset: str) -> None:
    command = [sys.executable, "-m", "kerasgen", "serve", preset, "--port", "0", "--json", "--set", "warm_up=false"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=without_tensorflow()) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert told["url"] == f"http://127.0.0.1:{told['port']}"
            with urllib.request.urlopen(f"{told['url']}/v1/models", timeout=60) as answer:
                assert json.load(answer)["data"][0]["id"] == Path(preset).name
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read() if process.stdout is not None else ""
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    assert rest == ""


FORMATS = {
    "tflite": ("poet.tflite", ["cache_length=64", "beams=0", "quantize=int8"], "ai_edge_litert"),
    "litertlm": ("poet.litertlm", [], "litert_lm_builder"),
    "gguf": ("poet.gguf", [], "gguf"),
    "saved_model": ("poet_saved_model", [], "tensorflow"),
    "transformers": ("poet", [], "safetensors"),
}


@pytest.mark.nightly
@pytest.mark.tensorflow
def test_what_an_export_s_packages_print_is_no_part_of_the_answer(preset: str, tmp_path: Path) -> None:
    """Converters and runtimes have a lot to tell, some of it on standard output."""
    names = [name for name, (_, _, needed) in FORMATS.items() if importlib.util.find_spec(needed) is not None]
    assert names
    lines = []
    for name in names:
        place, settings, _ = FORMATS[name]
        further = [part for setting in settings for part in ("--set", setting)]
        lines.append(["export", preset, str(tmp_path / place), "--exporter", name, *further, "--json"])
        lines.append(["generate", str(tmp_path / place), "the", "--max-new-tokens", "4", "--json"])
    code = f"from kerasgen.cli import main\nfor line in {lines!r}: assert main(line) == 0, line"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stdout
    for name, exported, written in zip(names, answers[::2], answers[1::2], strict=True):
        assert exported["exporter"] == name
        assert exported["report"]["parity"]
        assert written["texts"][0]["texts"][0].startswith("the")


@pytest.mark.slow
def test_a_run_and_its_figures_are_one_line_each(preset: str, tmp_path: Path) -> None:
    poet = str(tmp_path / "poet")
    run = ["fit", "sample:language=en", "--model", preset, "--max-steps", "2", "--batch-size", "2", "-o", poet]
    lines = [run, ["evaluate", poet], ["report", poet, str(tmp_path / "run.html")], ["fit", "--from", poet]]
    code = f"from kerasgen.cli import main\nfor line in {lines!r}: assert main([*line, '--json']) == 0, line"
    done = subprocess.run(
        [sys.executable, "-c", code], env=without_tensorflow(), capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fitted, evaluated, page, again = map(json.loads, done.stdout.splitlines())
    assert (fitted["report"]["steps"], fitted["saved"]) == (2, poet)
    assert evaluated["bits_per_character"] > 0
    assert page["bytes"] == (tmp_path / "run.html").stat().st_size
    assert again["repeated"] is True
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout)
