"""The README's table of architectures says what `tools/matrix.py` saw."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from kerasgen.models import architectures

pytestmark = pytest.mark.one_backend
ROOT = Path(__file__).parents[1]
SEEN = json.loads((ROOT / "docs" / "reference" / "matrix.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools" / "matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_was_seen(matrix: ModuleType) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert matrix.into(page, SEEN) == page


def test_each_architecture_has_a_row(matrix: ModuleType) -> None:
    assert set(matrix.MODELS) == set(architectures.names())
    assert set(SEEN) <= set(matrix.MODELS)


def test_what_is_not_right_says_why(matrix: ModuleType) -> None:
    cells = [cell for row in SEEN.values() for cell in row.values()]
    assert {cell["result"] for cell in cells} <= set(matrix.MARKS)
    assert all(len(cell["by"]) > 20 for cell in cells if cell["result"] != "ok")
    assert set(matrix.HEADINGS) == set(matrix.CELLS)
