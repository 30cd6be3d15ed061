"""The table of architectures says what `tools/matrix.py` saw."""

from __future__ import annotations

import ast
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


def test_the_pages_say_what_was_seen(matrix: ModuleType) -> None:
    for path, page in matrix.pages(SEEN).items():
        assert path.read_text(encoding="utf-8") == page, path


def test_each_architecture_has_a_row_and_a_tokenizer(matrix: ModuleType) -> None:
    assert set(matrix.MODELS) == set(matrix.TOKENIZERS) == set(architectures.names())
    assert set(SEEN) <= set(matrix.MODELS)


def test_what_is_not_right_says_why(matrix: ModuleType) -> None:
    cells = [cell for row in SEEN.values() for cell in row.values()]
    assert {cell["result"] for cell in cells} <= set(matrix.MARKS)
    assert all(len(cell["by"]) > 10 for cell in cells if cell["result"] != "ok")
    assert {kind for row in SEEN.values() for kind in row} <= set(matrix.HEADINGS)


def test_each_column_has_a_cell_that_tries_it(matrix: ModuleType) -> None:
    tree = ast.parse((ROOT / "tools" / "matrix_cells.py").read_text(encoding="utf-8"))
    cells = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "CELLS"
    )
    assert isinstance(cells, ast.Dict)
    assert [key.value for key in cells.keys if isinstance(key, ast.Constant)] == list(matrix.HEADINGS)


def test_a_process_that_dies_loses_its_own_cell_alone(matrix: ModuleType, tmp_path: Path) -> None:
    """A child that ends in the second of three cells: the third one is tried by the next child."""
    child = tmp_path / "matrix_cells.py"
    child.write_text(
        "import json, os, sys\n"
        "for cell in sys.argv[2:]:\n"
        "    if cell == 'packed':\n"
        "        os._exit(9)\n"
        "    print(json.dumps({'cell': cell, 'result': 'ok', 'by': 'seen', 'seconds': 0}), flush=True)\n",
        encoding="utf-8",
    )
    found = list(matrix.tried("qwen3", ["load", "packed", "jax"], program=child))
    assert [(cell["cell"], cell["result"]) for cell in found] == [("load", "ok"), ("packed", "failed"), ("jax", "ok")]
    assert found[1]["by"] == "the process ended with 9"
