"""What a terminal would obey is shown, wherever kerasgen writes to one; files and pipes get the text itself."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kerasgen as kg
from kerasgen import cli, terminal
from kerasgen.errors import CorpusUnavailableError, KerasgenError, UnknownNameError

pytestmark = pytest.mark.one_backend

# Clear the screen, retitle the window, a bell, C1's CSI, write over the line, right-to-left, a half of a pair.
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\re\u202ef\u2066g\x7fh\ud83d"
SHOWN = r"a\x1b[2Jb\x1b]0;title\x07c\x9b31md\re\u202ef\u2066g\x7fh\ud83d".replace(r"\re", r"\x0de")


@contextlib.contextmanager
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Standard output and error are a terminal; the function returns what came there since it was last called."""
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8", errors="replace") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)

        def said() -> str:
            print(end="\0", file=stream, flush=True)  # The kernel may hand over in pieces what was written at once.
            received = b""
            while not received.endswith(b"\0"):
                received += os.read(master, 1 << 16)
            return received.removesuffix(b"\0").decode().replace("\r\n", "\n")

        yield said
    os.close(master)


def test_texts_of_every_language_are_themselves() -> None:
    for text in ("春眠不覺曉\n", "a\tb", "שלום", "مرحبا", "👩\u200d👧", "é", "नमस्ते", ""):
        assert terminal.visible(text) == text
    assert terminal.visible(HOSTILE) == SHOWN
    assert terminal.visible(SHOWN) == SHOWN
    assert terminal.visible("a\r\nb") == "a\nb"


def test_no_control_character_but_tab_and_line_feed_is_left() -> None:
    import unicodedata

    left = {
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp") and terminal.visible(chr(code)) == chr(code)
    }
    assert left == {"\t", "\n"}


def test_a_terminal_shows_and_a_file_holds_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tty(monkeypatch) as said:
        terminal.show(HOSTILE)
        assert said() == SHOWN + "\n"
    with (tmp_path / "a").open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        terminal.show(HOSTILE, stream=file, end="")
    assert (tmp_path / "a").read_bytes() == HOSTILE.encode("utf-8", "surrogatepass")


def test_every_error_s_message_is_fit_to_be_read_in_a_terminal(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "").removesuffix("\ud83d")
    with pytest.raises(KerasgenError) as caught:
        list(kg.Text(tmp_path / name).documents())
    assert not set(str(caught.value)) & set("\x1b\x07\x9b\r\u202e")
    (tmp_path / f"{name}.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(KerasgenError) as caught:
        list(kg.Text(tmp_path).documents())
    assert not set(str(caught.value)) & set("\x1b\x07\x9b\r\u202e")
    for error in (CorpusUnavailableError(HOSTILE), UnknownNameError(HOSTILE, name="a"), KerasgenError("a\nb")):
        assert str(error) == terminal.visible(error.args[0])
        assert str(pickle.loads(pickle.dumps(error))) == str(copy.copy(error)) == str(error)


def test_the_command_line_shows_what_a_text_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "\x1b[2J\x9b31m春"
    with tty(monkeypatch) as said:
        for further in ([], ["--no-stream"]):
            assert cli.main(["generate", "starter", prompt, "--max-new-tokens", "2", *further]) == 0
            text = said()
            assert text.startswith(r"\x1b[2J\x9b31m春")
            assert "\x1b" not in text
        assert cli.main(["generate", "./\x1b[31mnowhere", "a"]) in (1, 2)
        assert "\x1b" not in said()
