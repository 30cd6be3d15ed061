"""A package that `kerasgen plugins new` writes passes its tests, its types and its linter as it stands."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from installing import environment_of_its_own, install, run_module

from kerasgen import cli, plugins
from kerasgen.errors import ArgumentError
from kerasgen.plugin_template import write

pytestmark = pytest.mark.one_backend

EVERY = ("corpus", "sampler", "exporter", "model", "tuner", "constraint")
LONGEST = "abcdefghijklmnopqrstuvwxyz-abc"


@pytest.mark.slow
@pytest.mark.essential
def test_a_package_of_every_kind_passes_at_once(tmp_path: Path) -> None:
    """Installed into an environment of its own, as its README says."""
    folder = write("two-words", None, tmp_path)
    python = environment_of_its_own(tmp_path / "environment")
    run_module(
        *(sys.executable, "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-build-isolation"),
        *("--disable-pip-version-check", "-e", "."),
        within=folder,
    )
    tested = run_module(python, "pytest", "-q", "-p", "no:cacheprovider", within=folder)
    assert int(re.findall(r"(\d+) passed", tested)[0]) > 80
    assert "Success: no issues found" in run_module(
        python, "mypy", "--cache-dir", str(tmp_path / "types"), within=folder
    )


@pytest.mark.parametrize("name", ["a", "two-words", LONGEST, "test", "test" + LONGEST[4:]])
def test_what_is_written_is_as_its_linter_wants_it(name: str, tmp_path: Path) -> None:
    """However long its names are, lines are neither too long nor broken where they need not be."""
    pytest.importorskip("ruff")
    folder = write(name, None, tmp_path)
    run_module(sys.executable, "ruff", "check", "--no-cache", ".", within=folder)
    run_module(sys.executable, "ruff", "format", "--no-cache", "--check", ".", within=folder)


@pytest.mark.parametrize("kind", EVERY)
def test_only_what_was_asked_for_is_written(kind: str, tmp_path: Path) -> None:
    folder = write("haiku", [kind], tmp_path)
    modules = {path.name for path in (folder / "src" / "kerasgen_haiku").iterdir()}
    assert modules == {"__init__.py", "py.typed", f"{kind}.py"}
    assert {path.name for path in (folder / "tests").iterdir()} == {"test_package.py", f"test_{kind}.py"}
    about = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["name"] == "kerasgen-haiku"
    ((group, points),) = about["entry-points"].items()
    assert group.removeprefix("kerasgen.") in plugins.KINDS
    assert list(points) == ["haiku"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert len(re.findall("placeholder|Placeholder", readme + str(about))) == 0


@pytest.mark.parametrize("kinds", [None, *([kind] for kind in EVERY), ["sampler", "exporter"], ["constraint", "model"]])
def test_the_lines_of_its_readme_define_what_they_use(kinds: list[str] | None, tmp_path: Path) -> None:
    readme = (write("haiku", kinds, tmp_path) / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    defined = {"kg"}
    for line in filter(None, source.splitlines()[1:]):
        used = {node.id for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Name)}
        if line.startswith("pipe = "):
            defined.add("pipe")
        assert used <= defined, line


def test_no_class_of_a_package_is_one_that_it_imports_or_that_tests_it(tmp_path: Path) -> None:
    """Of each name that would be one with a kind behind it, such as token: `TokenSampler` is the class it inherits."""
    classes = "(?:Corpus|Sampler|Exporter|Runtime|Model|Tuner|Constraint)"
    written_files = list((write("plain", None, tmp_path)).rglob("*.py"))
    words = {word for file in written_files for word in re.findall(r"\b[A-Z]\w+\b", file.read_text("utf-8"))}
    prefixes = {match[1] for word in words if (match := re.fullmatch(rf"([A-Z]\w+?){classes}", word))} - {"Plain"}
    assert {"Token", "Language", "Gradient", "Test"} <= prefixes
    for prefix in sorted(prefixes):
        for file in write(prefix.lower(), None, tmp_path).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names]
            made = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
            assert not {*imported} & {*made}, (prefix, file.name)
            if file.parent.name == "tests":
                assert not [name for name in imported if name.startswith("Test")], "pytest would take it for tests"


def test_no_word_of_the_template_is_left(tmp_path: Path) -> None:
    folder = write("haiku", None, tmp_path)
    for path in folder.rglob("*"):
        assert "laceholder" not in str(path)
        assert not path.is_file() or "laceholder" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("given", "written"),
    [("haiku", "kerasgen-haiku"), ("kerasgen-haiku", "kerasgen-haiku"), ("kerasgen_two_words", "kerasgen-two-words")],
)
def test_the_package_is_called_by_the_name(given: str, written: str, tmp_path: Path) -> None:
    assert write(given, ["sampler"], tmp_path) == tmp_path / written


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "1st", "Haiku", "ha iku", "häiku", "俳句", "-a", "a-", "a--b", "a/b", "../a", "a.b", "kerasgen"),
        *("kerasgen-", "kerasgen-kerasgen", "x" * 31, "a\n", None, 3, "none", "all", "kerasgen-all"),
    ],
)
def test_a_name_that_can_not_be_one_is_refused_and_nothing_is_written(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="name of a package"):
        write(name, ["sampler"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_nearly_one_is_mended(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Write 'ha-iku', for one"):
        write("Ha Iku", ["sampler"], tmp_path)


@pytest.mark.parametrize(
    ("name", "kinds", "said"),
    [
        ("text", ["corpus"], "'text' is one that kerasgen itself has"),
        ("top-k", ["corpus", "sampler"], "sampler 'top_k'"),
        ("lora", ["tuner"], "tuner 'lora'"),
        ("starter", ["model"], "model 'starter'"),
        ("regex", ["constraint"], "constraint 'regex'"),
        ("gguf", ["exporter"], "exporter 'gguf'"),
    ],
)
def test_a_name_that_is_taken_is_told_before_anything_is_written(
    name: str, kinds: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=said):
        write(name, kinds, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_another_kind_is_free(tmp_path: Path) -> None:
    assert write("lora", ["sampler"], tmp_path).is_dir()


def test_a_name_of_another_package_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasgen import samplers

    site_folder = tmp_path / "site"
    install(site_folder, "other", {"kerasgen.samplers": {"haiku": "no_such_module:Mine"}})
    monkeypatch.syspath_prepend(site_folder)
    monkeypatch.setattr(samplers.REGISTRY, "_entry_points", None)
    try:
        with pytest.raises(ArgumentError, match="the package 'other' has"):
            write("haiku", ["sampler"], tmp_path)
    finally:
        samplers.REGISTRY._entry_points = None


@pytest.mark.parametrize("lies_there", ["folder", "file", "link"])
def test_what_lies_there_is_left_alone(lies_there: str, tmp_path: Path) -> None:
    place = tmp_path / "kerasgen-haiku"
    if lies_there == "folder":
        place.mkdir()
    elif lies_there == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="there already"):
        write("haiku", None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kerasgen-haiku"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        write("haiku", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kinds", [["corpse"], ["corpus;sampler"], [""], [","], []])
def test_an_unknown_kind_is_refused(kinds: list[str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="corpus, sampler, exporter, model, tuner, constraint"):
        write("haiku", kinds, tmp_path)


def test_a_folder_to_write_into_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="must be there"):
        write("haiku", None, tmp_path / "nowhere")


def test_the_command_writes_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "new", "haiku", "--with", "corpora, sampler", "--in", str(tmp_path)]) == 0
    assert "pip install -e '.[test]'" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "kerasgen-haiku" / "tests").iterdir()) == [
        "test_corpus.py",
        "test_package.py",
        "test_sampler.py",
    ]
    assert cli.main(["plugins", "new", "haiku", "--in", str(tmp_path)]) == 2
    assert "there already" in capsys.readouterr().err
