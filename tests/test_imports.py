"""Heavy things wait until someone asks for them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from installing import child

import kerasgen

pytestmark = pytest.mark.one_backend

ROOT = Path(kerasgen.__file__).resolve().parent
CONTRACTS = sorted(ROOT.rglob("base.py"))

# Everything that is loaded and is neither Python's, nor kerasgen's, nor was there when Python had started.
FOREIGN = """
import sys
before = set(sys.modules)

def foreign():
    top = {name.partition(".")[0] for name in set(sys.modules) - before}
    return sorted(top - set(sys.stdlib_module_names) - {"kerasgen"})
"""

# Every built-in with the arguments that it needs.
NEEDED = {
    "corpora": {
        "text": "path=a.txt",
        "jsonl": "path=a.jsonl",
        "datasets": "name=imdb",
        "parquet": "path=a.parquet",
        "mix": "of=sample",
        "dedup": "of=sample",
        "csv": "path=a.csv",
        "tfds": "name=imdb_reviews,text=text",
    },
    "models": {"gguf": "file=x.gguf", "hub": "preset=gpt2_base_en"},
}


def test_importing_kerasgen_loads_the_standard_library_at_most() -> None:
    assert child(FOREIGN + "import json, kerasgen\nprint(json.dumps(foreign()))") == []


def test_listing_names_imports_nothing_but_the_way_to_list_them() -> None:
    """Not even the module that holds a built-in."""
    foreign, loaded = child(
        FOREIGN
        + """
import json
from importlib.metadata import distribution
import kerasgen as kg
assert all(surface.names() for surface in (kg.corpora, kg.models, kg.tuners, kg.samplers, kg.exporters))
built_in = {point.module for point in distribution("kerasgen").entry_points if point.group != "console_scripts"}
print(json.dumps([foreign(), sorted(built_in & set(sys.modules))]))
"""
    )
    assert foreign == []
    assert loaded == []


def test_making_describing_and_saving_every_built_in_loads_the_standard_library_at_most() -> None:
    foreign, made = child(
        FOREIGN
        + f"""
import json
from importlib.metadata import distribution
import kerasgen as kg
needed = {NEEDED!r}
made = 0
for surface in ("corpora", "models", "tuners", "samplers", "exporters"):
    registry = getattr(kg, surface).REGISTRY
    for point in distribution("kerasgen").entry_points.select(group="kerasgen." + surface):
        arguments = needed.get(surface, {{}}).get(point.name)
        spec = registry.create(point.name + (":" + arguments if arguments else ""))
        assert registry.from_manifest(json.loads(json.dumps(registry.to_manifest(spec)))) == spec
        assert registry.create(registry.to_text(spec)) == spec
        assert hash(spec) == hash(registry.create(registry.to_text(spec)))
        assert registry.describe(point.name) and repr(spec)
        made += 1
print(json.dumps([foreign(), made]))
"""
    )
    assert foreign == []
    assert made >= 20


def test_a_pipeline_is_made_and_printed_with_the_standard_library_at_most() -> None:
    """Its names and arguments are checked; corpora, models and Keras come when they are needed."""
    foreign = child(
        FOREIGN
        + """
import json
import kerasgen as kg
pipelines = [
    kg.Pipeline(corpus="sample", model="starter", sampler="top_k", seed=0),
    kg.Pipeline(corpus="chinese_poetry:path=/data/chinese-poetry,dynasty=tang", model="gpt2_base_en",
                tuner=kg.FullTuner(epochs=1, learning_rate=5e-4, batch_size=16, max_steps=500),
                sampler=kg.TopK(k=5, seed=1)),
    kg.Pipeline(corpus="reddit_tifu", model="gpt2_base_en", tuner=kg.LoraTuner(rank=8, alpha=16), sampler="beam"),
]
assert all(map(repr, pipelines))
print(json.dumps(foreign()))
"""
    )
    assert foreign == []


def test_there_is_a_contract_for_each_surface() -> None:
    folders = {path.parent.name for path in CONTRACTS}
    assert {"corpora", "tokens", "models", "samplers", "tuners", "exporters"} <= folders


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda path: path.parent.name)
def test_a_contract_imports_only_the_standard_library_and_kerasgen(contract: Path) -> None:
    """Anywhere in the file, inside functions too: whoever fulfils a contract needs nothing else to read it."""
    imported = set()
    for node in ast.walk(ast.parse(contract.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"kerasgen"}


def test_the_backend_s_variable_is_read_and_set_in_one_place() -> None:
    """A second reader would sooner or later choose differently."""
    readers = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.rglob("*.py"))
        if any(
            isinstance(node, ast.Constant) and node.value == "KERAS_BACKEND"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert readers == ["backend.py"]


def test_the_decoding_loops_need_neither_keras_nor_a_backend() -> None:
    """An exported artefact is decoded by them where there is no Keras."""
    foreign = child(
        FOREIGN
        + """
import json
from kerasgen.generation import Continuation, Engine, generate, stream
print(json.dumps(foreign()))
"""
    )
    assert set(foreign) <= {"numpy"}
