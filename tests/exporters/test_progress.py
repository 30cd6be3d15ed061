"""Who waits for an export sees which step is being done; who doesn't look at a terminal sees nothing."""

from __future__ import annotations

import io
import sys

import pytest

from kerasgen.exporters import progress


def take_steps() -> None:
    progress.plan("write", "compare")
    progress.plan("trace")  # an exporter within, whose steps come first
    for step in ("trace", "write", "compare"):
        progress.begin(step)


def test_each_step_is_shown_with_the_one_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(True):
        take_steps()
    said = capsys.readouterr().err
    told = ("trace (then: write): 0 of 3 steps", "write (then: compare): 1 of 3 steps", "compare: 2 of 3 steps")
    places = [said.index(step) for step in told]
    assert places == sorted(places)


@pytest.mark.parametrize(("asked", "is_terminal", "is_shown"), [
    (None, False, False), (None, True, True), (False, True, False), (True, False, True),
])  # fmt: skip
def test_it_is_shown_on_a_terminal_unless_the_call_says_otherwise(asked, is_terminal, is_shown, monkeypatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.shown(asked):
        take_steps()
    assert ("trace" in stream.getvalue()) == is_shown


def test_steps_that_nobody_asked_to_see_are_said_to_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """An exporter may be called outside of a pipeline, and one that failed leaves no bar behind."""
    take_steps()
    with pytest.raises(KeyError), progress.shown(False):
        raise KeyError
    take_steps()
    assert capsys.readouterr().err == ""
