"""The exception tree is the one that is drawn, and its exceptions travel between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from kerasgen import errors
from kerasgen.errors import KerasgenError

CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, KerasgenError)
}

# A value for each keyword that an exception takes.
VALUES: dict[str, Any] = {
    "name": "tpo_k",
    "near": ("top_k", "top_p"),
    "distribution": "some-package",
    "package": "opencc",
    "extra": "opencc",
    "path": Path("poems") / "春.txt",
    "line": 3,
    "byte": 17,
    "step": 120,
    "learning_rate": 5e-4,
    "checkpoint": "run/000100",
    "pid": 4711,
    "host": "forge",
    "since": "2026-01-02 03:04:05+0000",
    "figures": {"max_difference": 0.25},
    "repository": "name/poet",
    "status": 403,
    "faults": (errors.RecipeFault("tuner.rank", "takes a whole number.", 4),),
}


def example(kind: type[KerasgenError]) -> KerasgenError:
    keywords = [p.name for p in inspect.signature(kind.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return kind("What is wrong. Received: 春. What to do.", **{name: VALUES[name] for name in keywords})


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Each name of the drawing, with the name it hangs from and what stands in brackets."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│ ]   )*)(├── |└── )?(\w*Error)(?: \((\w+)\))?( |$)", line)
        if found:
            depth = len(found[1]) // 4 + bool(found[2])
            above[depth] = found[3]
            tree[found[3]] = (above[depth - 1] if depth else None, found[4])
    return tree


def test_the_drawn_tree_holds_every_exception_and_no_other() -> None:
    assert set(drawn()) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_an_exception_inherits_what_the_drawing_says(name: str) -> None:
    parent, bracketed = drawn()[name]
    bases = [base.__name__ for base in CLASSES[name].__bases__]
    assert bases == [each for each in (parent or "Exception", bracketed) if each is not None]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_exception_comes_out_of_a_pickle_as_it_went_in(name: str, protocol: int) -> None:
    """A worker process hands its exceptions to its parent as pickles."""
    before = example(CLASSES[name])
    before.add_note("while tuning")
    after = pickle.loads(pickle.dumps(before, protocol))
    assert type(after) is type(before)
    assert (str(after), after.args) == (str(before), before.args)
    assert vars(after) == vars(before)
    assert after.__notes__ == ["while tuning"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_copy_of_an_exception_has_its_attributes(name: str) -> None:
    before = example(CLASSES[name])
    for after in (copy.copy(before), copy.deepcopy(before)):
        assert (type(after), str(after), vars(after)) == (type(before), str(before), vars(before))


def test_a_pickled_missing_dependency_is_still_an_import_error_with_its_name() -> None:
    after = pickle.loads(pickle.dumps(errors.MissingDependencyError("Install it.", package="opencc", extra="opencc")))
    assert isinstance(after, ImportError)
    assert (after.msg, after.name, after.package, after.extra) == ("Install it.", "opencc", "opencc", "opencc")


def test_a_path_is_kept_as_text_whatever_it_was() -> None:
    for kind in (errors.CorpusError, errors.TokenizerError):
        assert kind("m", path=Path("a") / "b").path == str(Path("a") / "b")
        assert kind("m").path is None


def test_figures_are_a_copy_that_nobody_else_changes() -> None:
    figures = {"loss": 1.0}
    error = errors.ExportError("m", figures=figures)
    figures["loss"] = 2.0
    assert error.figures == {"loss": 1.0}
