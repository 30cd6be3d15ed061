"""Every benchmark has a smoke run that writes valid JSON; those without tests of their own are run here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

MODULES = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if f"python -m benchmarks.{path.stem} " in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
)


def said(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_takes_a_quick_run_and_a_file(module: str) -> None:
    told = said(module, "--help")
    assert "--quick" in told
    assert "--json" in told


@pytest.mark.nightly
@pytest.mark.one_backend
@pytest.mark.parametrize("module", ["checkpoints", "estimates", "streaming"])
def test_a_quick_run_writes_valid_json(module: str, tmp_path: Path) -> None:
    said(module, "--quick", "--json", str(tmp_path / "figures.json"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"), parse_constant=refuse)
