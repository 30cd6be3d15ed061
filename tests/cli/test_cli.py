"""The command line: every command does what the Python does, and says what is wrong in one line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import encoders
import pytest
from installing import without_tensorflow
from terminals import pieces
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.cli import COMMANDS, doctor, load, main, sources
from kerasgen.cli.json_output import show_json
from kerasgen.errors import KerasgenWarning
from kerasgen.models.saving import save_preset
from kerasgen.terminal import visible

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return str(save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def poet(preset, tmp_path_factory):
    """A saved pipeline with another sampler and another seed than the defaults."""
    pipeline = kg.Pipeline(model=preset, sampler="top_k:k=3", seed=5)
    return str(pipeline.save(tmp_path_factory.mktemp("poets") / "poet"))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def child(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "kerasgen", *arguments],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=without_tensorflow(),
        **options,
    )


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


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
    run = ["fit", corpus, "--model", preset, "--output", output]
    assert main([*run, "--tuner", "full:sequence_length=32", "--max-steps", "3", "--batch-size", "4"]) == 0
    said = capsys.readouterr()
    assert "3 steps" in said.out
    assert ("\x1b" in said.out, said.err) == (False, "")  # bars are for terminals
    assert kg.Pipeline.load(output).tuner == kg.FullTuner(max_steps=3, batch_size=4, sequence_length=32)
    assert main(["generate", output, "the", "a cat", "--max-new-tokens", "6", "--sampler", "greedy"]) == 0
    both = capsys.readouterr().out
    assert "\n\na cat" in both
    assert main(["generate", output, "the", "--max-new-tokens", "6", "--sampler", "greedy"]) == 0
    assert both.startswith(capsys.readouterr().out.removesuffix("\n"))
    assert main(["evaluate", output]) == 0
    written = ["--texts", "2", "--prompt", "the", "--max-new-tokens", "4", "--no-self-bleu"]
    assert main(["evaluate", output, *written, "--scores", str(tmp_path / "scores.csv")]) == 0
    assert "texts written" in capsys.readouterr().out
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").startswith("id,bits_per_character,")
    assert main(["evaluate", output, "--scores", str(tmp_path / "scores.txt")]) == 2
    assert "--scores must end in .jsonl or .csv" in capsys.readouterr().err
    assert main(["evaluate", output]) == 0
    assert "bits per character" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {"max_new_tokens": 64}),
        (["--max-length", "12"], {"max_length": 12}),
        (["--max-new-tokens", "9", "--seed", "3"], {"max_new_tokens": 9, "seed": 3}),
        (["--sampler", "beam:num_beams=2", "--batch-size", "1"], {"max_new_tokens": 64, "sampler": "beam:num_beams=2"}),
        (["--stop", "e", "--stop", "a"], {"max_new_tokens": 64, "stop": ["e", "a"]}),
        (["--no-return-prompt"], {"max_new_tokens": 64, "return_prompt": False}),
        (["--allowed-special", "all"], {"max_new_tokens": 64, "allowed_special": "all"}),
        (["-n", "2"], {"max_new_tokens": 64, "num_return_sequences": 2}),
        (["--stream"], {"max_new_tokens": 64}),
        (
            ["--stream", "--stop", "e", "--no-return-prompt"],
            {"max_new_tokens": 64, "stop": "e", "return_prompt": False},
        ),
    ],
    ids=" ".join,
)
def test_generate_s_flags_are_the_arguments_of_generate(poet, flags, settings, capsys):
    assert main(["generate", poet, "the sand", *flags]) == 0
    texts = kg.Pipeline.load(poet).generate("the sand", **settings)
    assert capsys.readouterr().out == "\n\n".join([texts] if isinstance(texts, str) else texts) + "\n"


def test_of_a_short_model_as_many_tokens_come_as_fit(tmp_path, capsys):
    """The command's own number must not fail; a number that a person gives is kept, and refused."""
    short = str(save_preset(tiny_gpt2(num_layers=1, max_sequence_length=24), tmp_path / "short"))
    for prompts in (["the"], ["the", "the sand and the sea"]):
        assert main(["generate", short, *prompts]) == 0
        said = capsys.readouterr()
        room = int(re.search(r"at most (\d+) new tokens: the model has 24 positions", said.err)[1])
        assert said.out == "\n\n".join(kg.Pipeline(model=short).generate(prompts, max_new_tokens=room)) + "\n"
        with pytest.raises(kg.errors.GenerateArgumentError, match="24 positions"):
            kg.Pipeline(model=short).generate(prompts, max_new_tokens=room + 1)
    assert main(["generate", short, "the", "--max-new-tokens", "64"]) == 2
    assert main(["generate", short, "the sand " * 20]) == 2
    assert "Shorten the prompt" in capsys.readouterr().err
    assert main(["generate", short, "the", "--sampler", "greedy", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_masked_model_chooses_how_many_tokens_come(tmp_path, capsys):
    """Its texts need a place for their end, so that the command's own number would not fit."""
    encoders.write("roberta", tmp_path / "masked")
    source = str(tmp_path / "masked")
    pipe = kg.Pipeline(model=source)
    assert main(["generate", source, "the sat"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (pipe.generate("the sat") + "\n", "")
    assert main(["chat", source]) == 2
    assert "is masked: it predicts masked tokens and has no conversations" in capsys.readouterr().err
    pipe.export(tmp_path / "masked.tflite")
    for command in (
        ["generate", str(tmp_path / "masked.tflite"), "the sat"],
        ["chat", str(tmp_path / "masked.tflite")],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "predicts masked tokens and writes no text" in error
        assert error.count("\n") == 1


def test_every_setting_of_generate_has_a_flag():
    """Those that change the shape of what is returned, or show bars, are Python's alone."""
    import inspect

    given = {parameter.name for parameter in load("generate").params}
    taken = set(inspect.signature(kg.Pipeline.generate).parameters) - {"self", "config"}
    assert taken - given == {"return_logprobs", "progress"}


@pytest.mark.parametrize(
    ("said", "whole", "prompts"),
    [
        ("the sand\nis\n", False, ["the sand", "is"]),
        ("the sand\r\nis", False, ["the sand", "is"]),
        ("a\n\n\x0cb\u2028\n", False, ["a", "", "\x0cb\u2028"]),
        ("\ufeff春\nis\n", True, ["春\nis\n"]),
        ("the sand\r\nis", True, ["the sand\r\nis"]),
    ],
)
def test_a_line_of_standard_input_is_a_prompt_or_all_of_it(said, whole, prompts, monkeypatch):
    typed(monkeypatch, said)
    assert sources.read_prompts(whole=whole) == prompts


def test_prompts_come_from_standard_input(poet, monkeypatch, capsys):
    typed(monkeypatch, "the sand\nis\n")
    assert main(["generate", poet, "-", "--max-new-tokens", "4"]) == 0
    lines = capsys.readouterr().out
    typed(monkeypatch, "the sand\nis\n")
    assert main(["generate", poet, "-", "--whole", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith("the sand\nis\n")
    assert main(["generate", poet, "the sand", "is", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == lines
    for flags, wrong in (([poet, "-", "-"], "once"), ([poet, "-"], "empty"), ([poet, "a", "--whole"], "--whole")):
        typed(monkeypatch, "")
        assert main(["generate", *flags]) == 2
        assert wrong in capsys.readouterr().err


def test_a_corpus_comes_from_standard_input(preset, monkeypatch, capsys):
    texts = ["the cat\nsat", "a mat"]
    typed(monkeypatch, "\n\n".join(texts))
    assert main(["evaluate", preset, "--corpus", "-"]) == 0
    assert str(kg.Pipeline(model=preset).evaluate(texts)) in capsys.readouterr().out
    typed(monkeypatch, " \n")
    assert main(["evaluate", preset, "--corpus", "-"]) == 2
    assert "no text" in capsys.readouterr().err


def test_a_terminal_gets_the_text_as_it_comes_and_a_pipe_gets_it_once(poet):
    arguments = ("generate", poet, "the sand", "--max-new-tokens", "12")
    master, terminal = pty.openpty()
    with child(*arguments, stdout=terminal) as process:
        os.close(terminal)
        seen = b"".join(pieces(master))
        assert process.stderr.read() == b""
    os.close(master)
    assert process.returncode == 0
    with child(*arguments) as process:
        piped, said = process.communicate()
    assert said == b""
    expected = kg.Pipeline.load(poet).generate("the sand", max_new_tokens=12) + "\n"
    assert piped.decode() == expected
    assert seen.decode().replace("\r\n", "\n") == visible(expected)  # a young model's text has control characters


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    for arguments in (["list"], ["list", "samplers", "top_k"], ["--help"], ["--version"]):
        with child(*arguments, stdout=write) as process:
            assert process.communicate()[1] == b""
        assert process.returncode == 0
    os.close(write)


@pytest.mark.parametrize("saved", [{"num_return_sequences": 2}, {"return_logprobs": True}, {"stop": "e"}])
def test_a_saved_config_is_kept(saved, preset, tmp_path, capsys):
    config = kg.GenerationConfig(max_new_tokens=5, sampler="top_k:k=3", seed=1, **saved)
    pipeline = kg.Pipeline(model=preset, generation_config=config)
    pipeline.save(tmp_path / "poet")
    assert main(["generate", str(tmp_path / "poet"), "the"]) == 0
    wanted = pipeline.generate("the", return_logprobs=False)
    assert capsys.readouterr().out == "\n\n".join([wanted] if isinstance(wanted, str) else wanted) + "\n"


def test_a_closed_standard_output_is_no_error():
    command = shlex.join([sys.executable, "-m", "kerasgen", "list", "samplers"])
    assert subprocess.run(f"{command} >&-", shell=True, capture_output=True, check=True).stderr == b""


def test_a_prompt_that_python_took_for_another_encoding_is_its_utf_8(poet, monkeypatch, capsys):
    assert main(["generate", poet, "春 the", "--max-new-tokens", "4", "--sampler", "greedy"]) == 0
    expected = capsys.readouterr().out
    taken = "春 the".encode().decode("ascii", "surrogateescape")
    assert main(["generate", poet, taken, "--max-new-tokens", "4", "--sampler", "greedy"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["generate", poet, "\udcff\udcfe"]) == 2
    assert "A prompt must be UTF-8" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_status_130(preset, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the cat sat on mat number {n}" for n in range(400)), encoding="utf-8")
    run = ["fit", f"text:path={texts},split=line", "--model", preset, "--output", str(tmp_path / "poet")]
    with child(*run, "--max-steps", "100000", "--epochs", "100000") as process:
        shown = b""
        while b"loss" not in shown and process.poll() is None:
            shown += os.read(process.stdout.fileno(), 1 << 12)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].rpartition("\r")[2].strip().startswith("kerasgen: Stopped after step")
    assert "--resume goes on from it" in said


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"kerasgen {kg.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_with_its_default(command):
    for parameter in load(command).params:
        assert parameter.help, parameter.name
        if parameter.opts[0].startswith("-") and not parameter.required and not parameter.is_bool_flag:
            assert "(default: " in parameter.help, (command, parameter.name)
        assert "None" not in parameter.help


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
    said = capsys.readouterr().err
    assert said.startswith("kerasgen: ")
    assert said.count("\n") == 1


# Each with the flag that the message must name.
MISTAKES = [
    (["generate", "POET", "the", "--max-new-tokens", "0"], "--max-new-tokens"),
    (["generate", "POET", "the", "--max-length", "1"], "--max-length"),
    (["generate", "POET", "the", "--seed", "-1"], "--seed"),
    (["generate", "POET", "the", "-n", "0"], "--num-return-sequences"),
    (["generate", "POET", "the", "--stop", ""], "--stop"),
    (["generate", "POET", "the", "--batch-size", "0"], "--batch-size"),
    (["generate", "POET", "the", "--constraint", "verse"], "verse_form"),
    (["generate", "POET", "the", "--sampler", "topk"], "top_k"),
    (["generate", "POET", "the", "a", "--stream"], "--stream"),
    (["generate", "POET", "the", "--max-new-tokens", "100000"], "--max-new-tokens"),
    (["fit", "sample", "--output", "NEW", "--learning-rate", "-1"], "--learning-rate"),
    (["fit", "sample", "--output", "NEW", "--epochs", "0"], "--epochs"),
    (["fit", "sample", "--output", "NEW", "--seed", "-1"], "--seed"),
    (["fit", "sample", "--output", "NEW", "--max-documents", "0"], "--max-documents"),
    (["fit", "sample", "--output", "NEW", "--held-out", "2"], "--held-out"),
    (["fit", "sample", "--output", "NEW", "--batch-size", "2", "--tuner", "full:batch_size=3"], "--batch-size"),
    (["fit", "sample", "--output", "POET"], "--overwrite"),
    (["evaluate", "POET"], "--corpus"),
    (["evaluate", "POET", "--corpus", "sample", "--batch-size", "0"], "--batch-size"),
    (["export", "POET", "NEW.onnx"], "--exporter"),
    (["export", "POET", "NEW.tflite", "--quantize", "int7"], "--quantize"),
    (["export", "POET", "NEW", "--quantize", "int8"], "quantize"),
    (["export", "POET", "POET"], "--overwrite"),
    (["demo", "--directory", "POET"], "--directory"),
]


@pytest.mark.parametrize(("arguments", "flag"), MISTAKES, ids=[" ".join(one) for one, _ in MISTAKES])
def test_a_mistake_is_told_in_the_command_s_own_words(arguments, flag, poet, tmp_path, capsys):
    given = [poet if one == "POET" else one.replace("NEW", str(tmp_path / "new")) for one in arguments]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert flag in said
    assert said.count("\n") == 1
    assert re.findall(r"Pipeline\(|fit\(|=True|`\w+`|\b(?:max_new_tokens|learning_rate|max_documents)=", said) == []


def test_an_output_in_the_way_is_said_before_the_run(preset, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert main(["fit", "sample", "--model", preset, "--output", str(tmp_path / "there")]) == 2
    assert "already" in capsys.readouterr().err


def test_an_export_is_summed_up_and_opened_as_a_model(poet, tmp_path, capsys):
    assert main(["export", poet, str(tmp_path / "tiny"), "--overwrite"]) == 0
    assert f"preset: {tmp_path / 'tiny'}" in capsys.readouterr().out
    assert main(["generate", str(tmp_path / "tiny"), "the", "--sampler", "greedy", "--max-new-tokens", "4"]) == 0
    expected = kg.Pipeline.load(poet).generate("the", sampler="greedy", max_new_tokens=4)
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.tensorflow
def test_an_artefact_generates_and_streams(poet, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    path = str(tmp_path / "poet.tflite")
    assert main(["export", poet, path, "--exporter", "tflite:cache_length=64,beams=0,shortlist=0"]) == 0
    capsys.readouterr()
    pipeline = kg.Pipeline.load(poet)
    for flags in (
        ["--sampler", "top_k:k=3", "--seed", "2"],
        ["--stop", "e", "--sampler", "greedy", "-n", "1"],
        ["--stream"],
    ):
        assert main(["generate", path, "the sand", "--max-new-tokens", "8", *flags]) == 0
        said = capsys.readouterr().out
        settings = {"sampler": "greedy"} | ({"sampler": "top_k:k=3", "seed": 2} if "--seed" in flags else {})
        stop = "e" if "--stop" in flags else None
        assert said == pipeline.generate("the sand", max_new_tokens=8, stop=stop, **settings) + "\n"
    assert main(["generate", path, "the", "--backend", "jax"]) == 2
    assert "--backend" in capsys.readouterr().err
    assert main(["evaluate", path]) == 2
    assert "artefact" in capsys.readouterr().err


def told(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_json_is_one_object_with_what_the_text_says(poet, preset, tmp_path, capsys):
    pipeline = kg.Pipeline.load(poet)
    settings = ["--max-new-tokens", "6", "--sampler", "greedy", "--json"]
    assert main(["generate", poet, "the sand", "a", *settings]) == 0
    texts = pipeline.generate(["the sand", "a"], max_new_tokens=6, sampler="greedy")
    assert told(capsys)["texts"] == [
        {"prompt": prompt, "texts": [text]} for prompt, text in zip(["the sand", "a"], texts, strict=True)
    ]
    (tmp_path / "texts.txt").write_text("the sea\nthe sand\n", encoding="utf-8")
    corpus = f"text:path={tmp_path / 'texts.txt'},split=line"
    assert main(["evaluate", preset, "--corpus", corpus, "--json"]) == 0
    evaluation = kg.Pipeline(model=preset).evaluate(corpus)
    assert told(capsys)["bits_per_character"] == pytest.approx(evaluation.bits_per_character)


@pytest.mark.slow
def test_json_names_an_artefact_and_progress_is_told(poet, tmp_path, capsys):
    assert main(["export", poet, str(tmp_path / "tiny"), "--json", "--progress"]) == 0
    said = capsys.readouterr()
    artefact = json.loads(said.out)
    assert (artefact["path"], artefact["exporter"]) == (str(tmp_path / "tiny"), "preset")
    assert "steps" in said.err


@pytest.mark.slow
def test_json_holds_the_report_of_a_run_alone(preset, tmp_path, capsys):
    fitting = ["fit", "sample:language=en", "--model", preset, "--max-steps", "1", "--set", "batch_size=2", "--json"]
    assert main([*fitting, "-o", str(tmp_path / "poet")]) == 0
    fitted = told(capsys)
    assert (fitted["saved"], fitted["report"]["steps"]) == (str(tmp_path / "poet"), 1)
    assert kg.Pipeline.load(fitted["saved"]).tuner == kg.FullTuner(max_steps=1, batch_size=2)


def test_json_lists_each_name_with_its_package(capsys):
    assert main(["list", "--json"]) == 0
    listed = told(capsys)
    assert {"name": "top_p", "distribution": "kerasgen", "version": metadata.version("kerasgen")} in listed["samplers"]
    assert main(["list", "samplers", "top_k", "--json"]) == 0
    assert "temperature" in told(capsys)["description"]


def test_json_in_a_terminal_holds_no_command_of_it_and_the_same_text(monkeypatch):
    text = "a\x1b[2J\x9b31m\u202eb\n春\t\ud83d"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    show_json({"text": text})
    written = sys.stdout.getvalue()
    assert json.loads(written) == {"text": text}
    assert visible(written) == written
    assert "春" in written


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (
            ["max_new_tokens=5", "seed=3", "return_prompt=false"],
            {"max_new_tokens": 5, "seed": 3, "return_prompt": False},
        ),
        (
            ["max-new-tokens=5", "sampler=top_k:k=2", "stop=e"],
            {"max_new_tokens": 5, "sampler": "top_k:k=2", "stop": "e"},
        ),
    ],
)
def test_settings_by_name_are_read_as_their_kind(values, settings, poet, capsys):
    assert main(["generate", poet, "the sand", *(part for value in values for part in ("--set", value))]) == 0
    assert capsys.readouterr().out == kg.Pipeline.load(poet).generate("the sand", **settings) + "\n"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["generate", "POET", "the", "--set", "sede=3"], "'seed'"),
        (["generate", "POET", "the", "--set", "seed=x"], "'seed' of --set takes"),
        (["generate", "POET", "the", "--set", "seed"], "KEY=VALUE"),
        (["generate", "POET", "the", "--set", "seed=1", "--set", "seed=2"], "once"),
        (["generate", "POET", "the", "--set", "seed=1", "--seed", "2"], "once"),
        (["generate", "POET", "the", "--set", "temperature=0.5"], "--set sampler=top_k:temperature=0.5"),
        (["generate", "POET", "the", "--stream", "--json"], "--json"),
        (["chat", "POET", "--set", "sede=3"], "'seed'"),
        (["evaluate", "POET", "--set", "sede=3"], "'seed'"),
        (["serve", "POET", "--set", "prot=80"], "'port'"),
        (["serve", "POET", "--set", "port=80", "--port", "80"], "--port must be said once"),
        (["serve", "POET", "--set", "api_key=secret"], "no setting"),
        (["serve", "POET", "--port", "70000"], "--port must be at most"),
        (["fit", "sample", "-o", "NEW", "--set", "warmup_step=3"], "'warmup_steps'"),
        (["fit", "sample", "-o", "NEW", "--set", "epochs=3", "--epochs", "3"], "once"),
        (["export", "POET", "NEW.tflite", "--set", "quantise=int8"], "'quantize'"),
        (["export", "POET", "NEW.tflite", "--set", "quantize=int8", "--quantize", "int8"], "--quantize"),
        (["export", "POET", "NEW.tflite", "--set", "cache_length=short"], "cache_length"),
        (["export", "POET", "NEW_web", "--form", "verse_form:form=五言絶"], "五言絕句"),
    ],
    ids=lambda said: " ".join(said) if isinstance(said, list) else "",
)
def test_a_wrong_setting_by_name_is_told(arguments, meant, poet, tmp_path, capsys):
    given = [poet if one == "POET" else one.replace("NEW", str(tmp_path / "new")) for one in arguments]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert meant in said
    assert said.count("\n") == 1


def test_help_names_and_mistakes_import_nothing_heavy(preset):
    right = [["--help"], ["list"], ["list", "exporters", "tflite"], ["doctor"]]
    wrong = [[], ["generate", preset, "a", "--sede", "3"], ["generate", preset, "a", "--set", "sede=3"]]
    wrong += [["fit", "smaple", "-o", "x"], ["export", preset, "x.tflite", "--set", "quantise=int8"]]
    code = (
        "import sys\nfrom kerasgen.cli import main\n"
        f"for line in {right + wrong!r}:\n"
        "    try: status = main(line)\n"
        "    except SystemExit as stop: status = stop.code\n"
        "    heavy = {'keras', 'keras_hub', 'jax', 'tensorflow', 'torch', 'rich'} & set(sys.modules)\n"
        "    print('status', status, *heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    told = re.findall("^status .*", done.stdout, re.MULTILINE)
    assert told == ["status 0"] * len(right) + ["status 2"] * len(wrong)


def test_the_doctor_tells_what_is_installed_what_computes_and_what_is_cached(tmp_path, monkeypatch, capsys):
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "file").write_bytes(b"x" * 300)
    (tmp_path / "tokens" / "link").symlink_to(Path(__file__))
    monkeypatch.setenv("KERASGEN_CACHE", str(tmp_path))
    found_version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "sacrebleu" else found_version(name))
    monkeypatch.setattr("kerasgen.backend.running", lambda: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main(["doctor", "--json"]) == 0
    found = told(capsys)
    assert found["packages"]["keras"] == metadata.version("keras")
    assert found["extras"]["diversity"] == {"installed": {}, "missing": ["sacrebleu"]}
    assert "docs" not in found["extras"]
    assert found["backends"]["training"] == {"backend": "jax", "why": "KERAS_BACKEND says so"}
    assert found["cache"]["directory"] == str(tmp_path)
    assert found["cache"]["size_bytes"] == 300 + (tmp_path / "tokens" / "link").lstat().st_size
    assert main(["doctor"]) == 0
    assert "missing sacrebleu: pip install 'kerasgen[diversity]'" in capsys.readouterr().out
    monkeypatch.setenv("KERAS_BACKEND", "jaxx")
    assert main(["doctor"]) == 1
    assert "PROBLEM: The environment variable KERAS_BACKEND" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:The model 'starter' hardly knows")
def test_the_demo_s_json_says_how_the_starter_became_better(tmp_path, capsys):
    assert main(["demo", "--language", "en", "--directory", str(tmp_path / "demo"), "--json"]) == 0
    shown = told(capsys)
    before, after = (shown[when]["evaluation"]["bits_per_character"] for when in ("before", "after"))
    assert after < before
    pipeline = kg.Pipeline.load(shown["saved"])
    assert pipeline.generate(shown["prompt"], max_new_tokens=48) == shown["after"]["text"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell):
    asked = {"_KERASGEN_COMPLETE": f"complete_{shell}", "COMP_WORDS": "kerasgen gene", "COMP_CWORD": "1"}
    variables = {**without_tensorflow(), **asked, "_TYPER_COMPLETE_ARGS": "kerasgen gene"}
    variables["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = subprocess.run([sys.executable, "-m", "kerasgen"], env=variables, capture_output=True, text=True, check=True)
    assert "generate" in done.stdout
    assert "evaluate" not in done.stdout


def test_the_demo_replaces_a_demo_s_directory_alone(poet, preset, tmp_path, capsys):
    before = sorted(Path(poet).iterdir())
    assert main(["demo", "--directory", poet]) == 2
    assert "no demo" in capsys.readouterr().err
    assert sorted(Path(poet).iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["generat", "POET", "the"], "Did you mean 'generate'"),
        ([], "A command is missing. There are: demo, list"),
        (["list", "sampler"], "Did you mean 'samplers'"),
        (["generate", "POET"], "Missing argument 'PROMPT'"),
        (["generate", "POET", "the", "--seed", "x"], "--seed takes a whole number. Received: 'x'."),
        (["generate", "POET", "the", "-n=x"], "--num-return-sequences takes a whole number"),
        (["fit", "sample", "-o", "NEW", "--learning-rate=fast"], "--learning-rate takes a number. Received: 'fast'."),
        (["generate", "POET", "the", "--backend", "tensorflwo"], "Did you mean 'tensorflow'"),
        (["generate", "POET", "the", "--temprature", "0.5"], "--sampler top_k:temperature=0.5\n"),
        (["generate", "POET", "the", "--top-p=0.9"], "--sampler top_p:p=0.9\n"),
        (["generate", "POET", "the", "--num-beams", "4"], "--sampler beam:num_beams=4\n"),
        (["generate", "POET", "the", "--max-tokens", "3"], "Did you mean '--max-new-tokens'"),
        (["generate", "POET", "the", "--stop-words", "3"], "Did you mean '--stop'"),
        (["fit", "sample", "-o", "NEW", "--lr", "1e-3"], "Did you mean '--learning-rate'"),
        (["fit", "sample", "-o", "NEW", "--rank", "8"], "--tuner lora:rank=8\n"),
        (["fit", "sample", "-o", "NEW", "--warmup", "8"], "--tuner full:warmup_steps=8\n"),
        (["evaluate", "POET", "--corpsu", "sample"], "Did you mean '--corpus'"),
    ],
    ids=lambda said: " ".join(said) if isinstance(said, list) else "",
)
def test_a_flag_or_a_command_that_is_not_there_is_told_what_was_meant(arguments, meant, poet, capsys):
    with pytest.raises(SystemExit) as stop:
        main([poet if one == "POET" else one for one in arguments])
    assert stop.value.code == 2
    assert meant in capsys.readouterr().err


def test_a_way_out_that_an_error_names_is_written_as_the_command_takes_it(preset, tmp_path, capsys):
    """A tuner's and a corpus's own settings are part of their text, and no flags."""
    (tmp_path / "x.json").write_text('["one text", "another"]')
    output = ["-o", str(tmp_path / "new"), "--model", preset]
    assert main(["fit", "sample", *output, "--tuner", "lora:rnk=4"]) == 2
    said = capsys.readouterr().err
    assert "'rank'" in said
    assert "--" not in said
    corpus = f"text:path={tmp_path / 'x.json'}"
    assert main(["fit", corpus, *output]) == 1
    said = capsys.readouterr().err
    assert "write check_kind=false after the corpus's path" in said
    assert main(["evaluate", preset, "--corpus", f"{corpus},check_kind=false"]) == 0
    assert main(["fit", str(tmp_path / "y.txt"), *output]) == 2
    assert "no file or folder of this name" in capsys.readouterr().err


def test_a_flag_with_two_forms_is_named_by_the_one_that_is_meant(poet, monkeypatch, capsys):
    """A package that is missing has a way out, and it is a flag that there is."""
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert main(["evaluate", poet, "--corpus", "sample", "--texts", "4"]) == 1
    assert "or pass --no-self-bleu." in capsys.readouterr().err


def test_a_corpus_s_setting_that_an_error_names_is_written_as_it_is_read(preset, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("今天天气很好，我在街上走。".encode("gb18030"))
    (tmp_path / "a.csv").write_text("day;text\n1;one\n", encoding="utf-8")
    for corpus, wanted in ((f"text:path={tmp_path}", "encoding=gb18030"), (f"csv:path={tmp_path}", "delimiter=;")):
        assert main(["fit", corpus, "--model", preset, "-o", str(tmp_path / "new")]) == 1
        assert f"write {wanted} after the corpus's path" in capsys.readouterr().err
        assert list(kg.corpora.create(f"{corpus},{wanted}").documents())


def test_a_warning_is_one_line_and_says_flags(monkeypatch, capsys):

    def run() -> int:
        warnings.warn(
            "The model hardly knows the script. Pass one that does as model=….", KerasgenWarning, stacklevel=2
        )
        return 0

    from kerasgen.cli import list_registered

    monkeypatch.setattr(list_registered, "run", run)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["list"]) == 0
    assert capsys.readouterr().err.startswith("kerasgen: warning: The model hardly knows the script.")
