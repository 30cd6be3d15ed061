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


def test_every_benchmark_takes_a_quick_run_and_a_file() -> None:
    """By `harness.arguments_of`, or by arguments of its own; `…_contenders` and `generate_many` are parts of others."""
    parts = {name for name in MODULES if name.endswith("_contenders")} | {"generate_many"}
    for module in set(MODULES) - parts:
        source = (ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        own = '"--quick"' in source and '"--json"' in source
        assert own or "arguments_of(" in source, module


@pytest.mark.nightly
@pytest.mark.one_backend
@pytest.mark.parametrize("module", ["checkpoints", "estimates", "streaming"])
def test_a_quick_run_writes_valid_json(module: str, tmp_path: Path) -> None:
    said(module, "--quick", "--json", str(tmp_path / "figures.json"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"), parse_constant=refuse)
