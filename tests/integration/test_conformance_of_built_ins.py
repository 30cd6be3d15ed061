"""Each registered built-in, of whichever kind, is what some conformance suite of these tests looks at."""

from __future__ import annotations

import ast
import functools
from importlib.metadata import distribution

import pytest
from places import TESTS

pytestmark = pytest.mark.one_backend

SUITES = {
    "corpora": {"CorpusContract"},
    "models": {"ModelContract"},
    "tuners": {"TunerContract"},
    "samplers": {"SamplerContract"},
    "constraints": {"ConstraintContract"},
    "exporters": {"ExporterContract"},
}
BUILT_INS = [
    (point.group.removeprefix("kerasgen."), point.name, point.value.partition(":")[2])
    for point in distribution("kerasgen").entry_points
    if point.group.startswith("kerasgen.")
]


@functools.cache
def looked_at(kind: str) -> frozenset[str]:
    """The names of the classes that the suites of a kind construct in their fixtures."""
    names: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        source = path.read_text(encoding="utf-8")
        if not any(suite in source for suite in SUITES[kind]):
            continue
        suites = set(SUITES[kind])
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and any(_name(base) in suites for base in node.bases):
                suites.add(node.name)
                called = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
                names |= {name for name in map(_name, called) if name is not None}
    return frozenset(names)


def _name(node: ast.expr) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


@pytest.mark.parametrize(("kind", "name", "class_name"), BUILT_INS, ids=[f"{k}:{n}" for k, n, _ in BUILT_INS])
def test_a_built_in_is_in_a_suite(kind: str, name: str, class_name: str) -> None:
    assert class_name in looked_at(kind), (
        f"No suite of tests/ looks at the built-in {name!r}. Inherit {' or '.join(SUITES[kind])}, and return a "
        f"{class_name} from its fixture."
    )


def test_every_kind_of_plugin_has_suites() -> None:
    assert {kind for kind, _, _ in BUILT_INS} == set(SUITES)


def test_a_class_that_no_suite_constructs_is_found_out() -> None:
    assert "Corpus" not in looked_at("corpora")
    assert "TopK" not in looked_at("tuners")
