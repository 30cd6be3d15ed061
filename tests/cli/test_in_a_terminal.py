"""A terminal shows progress, gets no control character raw, and completes in bash."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installing import without_tensorflow
from terminals import pieces
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.cli import COMMANDS, load, main
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

# Clear the screen, retitle the window, colour by C1, a carriage return, right to left.
HOSTILE = "a\x1b[2J\x1b]0;t\x07\x9b31m\rb\u202ec"
RAW = ("\x1b[2J", "\x1b]0", "\x9b", "\x07", "\u202e")


def shown(*arguments: str, typed: bytes = b"", environment: dict[str, str] | None = None) -> tuple[int, str]:
    """The status of a command whose input, output and errors are a terminal, and all that it showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "kerasgen", *arguments]
    variables = dict(environment or without_tensorflow()) | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=variables) as process:
        os.close(slave)
        os.write(master, typed)
        seen = b"".join(pieces(master))
        status = process.wait(timeout=120)
    os.close(master)
    return status, seen.decode("utf-8", "replace")


@contextlib.contextmanager
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Standard output and error of this process are a terminal; the function returns what it was handed."""
    master, slave = pty.openpty()
    seen = bytearray()

    def read() -> None:
        for piece in pieces(master):
            seen.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8", errors="replace") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)

        def said() -> str:
            stream.close()
            reader.join(30)
            return seen.decode("utf-8", "replace")

        yield said
    reader.join(30)
    os.close(master)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.mark.slow
@pytest.mark.tensorflow
def test_an_export_shows_how_far_its_proof_is(preset: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    target = str(tmp_path / "poet.tflite")
    settings = ["quantize=int8", "cache_length=64", "beams=0"]
    further = [part for setting in settings for part in ("--set", setting)]
    status, seen = shown("export", preset, target, *further, environment=dict(os.environ))
    assert status == 0, seen[-2000:]
    assert f"tflite: {target}" in seen
    told = re.findall(r"([a-z][^\r\n]*): (\d+) of (\d+) steps", seen)
    assert len({step for _, step, _ in told}) > 3, seen
    assert "(then: " in seen
    further += ["--overwrite", "--no-progress"]
    status, quiet = shown("export", preset, target, *further, environment=dict(os.environ))
    assert status == 0
    assert " steps" not in quiet


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "PRESET", "HOSTILE", "--max-new-tokens", "3"],
        ["generate", "PRESET", "HOSTILE", "b", "--max-new-tokens", "3"],
        ["generate", "PRESET", "HOSTILE", "--max-new-tokens", "3", "--json"],
        ["generate", "HOSTILE", "a"],
        ["evaluate", "PRESET", "--corpus", "text:path=HOSTILE"],
        ["evaluate", "PRESET", "--corpus", "text:path=THERE,split=line"],
        ["evaluate", "PRESET", "--corpus", "text:path=THERE", "--texts", "1", "--prompt", "HOSTILE", "--no-self-bleu"],
        ["fit", "text:path=THERE,split=line", "--model", "PRESET", "--max-steps", "1", "-o", "HOSTILE-new"],
        ["fit", "HOSTILE", "-o", "HOSTILE-new"],
        ["export", "PRESET", "HOSTILE-preset"],
        ["export", "PRESET", "HOSTILE.onnx"],
        ["report", "HOSTILE", "x.html"],
        ["list", "samplers", "HOSTILE"],
        ["list", "HOSTILE"],
        ["HOSTILE"],
        ["generate", "PRESET", "a", "--HOSTILE", "x"],
        ["generate", "PRESET", "a", "--set", "HOSTILE=x"],
        ["plugins", "new", "HOSTILE"],
        ["plugins", "check", "HOSTILE"],
        ["recipe", "check", "HOSTILE.toml"],
        ["recipe", "check", "RECIPE"],
        ["recipe", "show", "SOUND"],
        ["push", "PRESET", "HOSTILE"],
        ["serve", "HOSTILE", "--port", "0"],
        ["cache", "clean", "--kind", "HOSTILE"],
        ["doctor", "HOSTILE.toml"],
        ["demo", "--directory", "THERE"],
    ],
    ids=lambda said: " ".join(said),
)
def test_no_command_hands_a_terminal_what_it_would_obey(
    arguments: list[str], preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / f"{HOSTILE}.txt"
    there.write_text("".join(f"line {n} {HOSTILE}\n" for n in range(12)), encoding="utf-8")
    (tmp_path / "r.toml").write_text('corpus = "a\\u001b[2Jb"\n"x\\u001b[2J" = 1\n', encoding="utf-8")
    (tmp_path / "s.toml").write_text(
        'corpus = "sample"\n[samples]\nprompts = ["a\\u001b[2J\\u202e"]\n', encoding="utf-8"
    )
    places = {"PRESET": preset, "RECIPE": str(tmp_path / "r.toml"), "SOUND": str(tmp_path / "s.toml")}
    given = [
        places.get(each, each).replace("THERE", str(there)).replace("HOSTILE", HOSTILE.replace("\x00", ""))
        if each in places or each in ("HOSTILE", "--HOSTILE", "HOSTILE=x") or "THERE" in each
        else each.replace("HOSTILE", str(tmp_path / HOSTILE))
        for each in arguments
    ]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with tty(monkeypatch) as said:
        with contextlib.suppress(SystemExit):
            main(given)
        seen = said()
    assert len(seen) > 10
    assert [mark for mark in RAW if mark in seen] == []


@pytest.mark.slow
def test_a_conversation_hands_a_terminal_nothing_that_it_would_obey(tmp_path: Path) -> None:
    from kerasgen.models import chat

    model = tiny_gpt2(400, num_layers=1)
    chat.give(model, "alpaca", seed=0)
    talker = str(save_preset(model, tmp_path / "talker"))
    said = "/system a\u202eb\nhello \u202e\n/nonsense\u202e\n/quit\n".encode()
    status, seen = shown("chat", talker, "--max-new-tokens", "24", "--set", "valid_utf8=true", typed=said)
    assert status == 0, seen
    after = seen.split("/quit")[-1]  # before that the terminal's own echo may stand
    assert [mark for mark in RAW if mark in after] == []
    assert [mark for mark in RAW[:4] if mark in re.sub("\x1b\\[\\?2004[hl]", "", seen)] == []


def bash(code: str, home: Path) -> str:
    place = Path(sys.executable).parent
    variables = os.environ | {"HOME": str(home), "PATH": f"{place}:{os.environ['PATH']}", "PYTHONUTF8": "1"}
    done = subprocess.run(["bash", "--norc", "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_bash_completes_commands_flags_and_choices(tmp_path: Path) -> None:
    if shutil.which("bash") is None or not (Path(sys.executable).parent / "kerasgen").exists():
        pytest.skip("bash, or the command kerasgen beside this Python, is not installed")
    assert "installed" in bash("kerasgen --install-completion; true", tmp_path)
    asked = {
        "gene": ["generate"],
        "generate --max": ["--max-new-tokens", "--max-length"],
        "list sam": ["samplers"],
        "fit sample --sample ra": ["random"],
        "export --qua": ["--quantize"],
    }
    lines = []
    for words in asked:
        count = len(words.split())
        lines.append(
            f"COMP_WORDS=(kerasgen {words}); COMP_CWORD={count}; _kerasgen_completion kerasgen; echo ${{COMPREPLY[@]}}"
        )
    for source in (". ~/.bashrc", 'eval "$(kerasgen --show-completion)"'):
        told = bash("; ".join([source, *lines]), tmp_path).splitlines()
        assert [line.split() for line in told] == list(asked.values())


def test_the_reference_has_every_command_and_option() -> None:
    from places import ROOT

    text = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(COMMANDS)
    for name, section in sections.items():
        for parameter in load(name).params:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                if flag.startswith("-"):
                    assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", section), (name, flag)
            assert str(parameter.help).replace("|", "\\|") in section, (name, parameter.name)


def test_the_reference_is_what_its_tool_writes() -> None:
    import importlib.util

    from places import ROOT

    spec = importlib.util.spec_from_file_location("command_line_page", ROOT / "tools" / "command_line_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "python tools/command_line_page.py writes it"
    assert kg.__version__
