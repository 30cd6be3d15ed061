"""An artefact generates where neither Keras nor a backend is installed: the runtime, `tokenizers` and NumPy suffice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tiny import tiny_gpt2

import kerasgen as kg

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]
pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")

ROOT = Path(kg.__file__).resolve().parents[1]
NEEDED = ("ai-edge-litert", "tokenizers", "numpy", "platformdirs")
FOREIGN = ("keras", "keras_hub", "tensorflow", "jax", "torch")
PROGRAM = f"""
import json, sys
from importlib.util import find_spec
import kerasgen as kg
artefact = kg.load_artefact(sys.argv[1], weight_cache=None)
texts = [artefact.generate("the sand", max_new_tokens=24, sampler=sampler, seed=3) for sampler in sys.argv[2:]]
foreign = {FOREIGN!r}
loaded = [name for name in foreign if name in sys.modules]
print(json.dumps([texts, loaded, [name for name in foreign if find_spec(name)]]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    """The interpreter of a new environment that holds kerasgen and what its TFLite runtime needs."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder / "env", with_pip=False)
    interpreter = str(folder / "env" / "bin" / "python")
    install = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        interpreter,
        "install",
        "--quiet",
        "--disable-pip-version-check",
    )
    done = run(*install, *NEEDED)
    if done.returncode:
        pytest.skip(f"pip reaches no package index: {done.stderr.strip()[-200:]}")
    # A copy, for a build leaves its traces in the folder that it is started in.
    sources = folder / "sources"
    shutil.copytree(ROOT / "kerasgen", sources / "kerasgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    done = run(*install, "--no-deps", f"{sources}[runtime]")
    assert done.returncode == 0, done.stderr[-2000:]
    return interpreter


def test_an_artefact_generates_where_there_is_only_its_runtime(python, tmp_path):
    samplers = ("greedy", "top_k:k=5", "beam:num_beams=3")
    exporter = kg.TFLiteExporter(cache_length=64, prefill_lengths=(8, 16))
    artefact = exporter.export(tiny_gpt2(), tmp_path / "tiny.tflite")
    done = run(python, "-I", "-c", PROGRAM, str(artefact.path), *samplers)
    assert done.returncode == 0, done.stderr[-2000:]
    texts, loaded, installed = json.loads(done.stdout.splitlines()[-1])
    assert (loaded, installed) == ([], [])
    assert texts == [artefact.generate("the sand", max_new_tokens=24, sampler=one, seed=3) for one in samplers]
