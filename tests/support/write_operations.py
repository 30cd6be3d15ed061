"""Counts the operations of what JAX compiles when a small model is tuned and generates, and writes `operations.json`.

`python tests/support/write_operations.py`, after a change that is meant to change them. The counts are those of the
graphs before XLA optimizes them, so that no machine, flag or load moves them.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HELD = Path(__file__).parents[1] / "golden" / "operations.json"
# A model, and a sampler or a tuner; a sampler after a long prompt; a choice among 32 rows of GPT-2's vocabulary.
RUNS = ("gpt2 top_k", "llama greedy", "gpt2 FullTuner", "llama LoraTuner", "long greedy")
RUNS += ("choose greedy", "choose top_k", "choose top_p")
_SMALLEST = 50  # operations of a graph that is counted; smaller ones make arrays and convert them, but for a choice
_OPERATION = re.compile(r" = \"?(?:stablehlo|chlo)\.\w+")
_DONATED = re.compile(r"tf\.aliasing_output|jax\.buffer_donor")
_RESULT = re.compile(r"tensor<((?:\d+x)*)(?:[a-z]+)(\d+)[^<>]*>$")
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kerasgen import backend
backend.use("jax")
import jax
import kerasgen as kg
from kerasgen.corpora.base import Document
from kerasgen.generation import generate
from kerasgen.tokens.encoding import encode_documents
from tiny import tiny_gpt2
from toys import smallest_llama
def choice(name):
    import types
    import jax.numpy as jnp
    from kerasgen.generation import jax_steps
    from kerasgen.samplers.resolving import resolve
    spec = resolve(name)
    numbers = types.SimpleNamespace(start_token_id=None, end_token_ids=(0,))
    _, choose = jax_steps.choosing(spec, numbers, logprobs=False)
    rows = jax.ShapeDtypeStruct((32, 50257), jnp.float32), None, jax.ShapeDtypeStruct((32,), jnp.float32)
    return jax.jit(choose).lower(*rows, jax_steps.inputs_of(spec)).as_text()
documents = [Document("the cat sat on the mat. " * n, str(n)) for n in range(1, 12)]
for run in sys.argv[3:]:
    name, what = run.split()
    if name == "choose":
        file = Path(sys.argv[2], run, "choose_compile.mlir")
        file.parent.mkdir()
        file.write_text(choice(what))
        continue
    model = {"gpt2": tiny_gpt2, "llama": smallest_llama, "long": tiny_gpt2}[name]()
    jax.config.update("jax_dump_ir_to", f"{sys.argv[2]}/{run}")
    if what.endswith("Tuner"):
        tuner = getattr(kg, what)(epochs=1, batch_size=2, sequence_length=32, precision="float32")
        tuner.tune(model, encode_documents(documents, model.tokenizer), seed=0, directory=f"{sys.argv[2]}/{run} run")
    else:
        prompts = ["the cat sat on the mat " * 4] if name == "long" else ["the cat", "a"]
        generate(model, prompts, sampler=what, max_new_tokens=20)
"""


def counted() -> dict[str, dict[str, int]]:
    """Return of each run the large graphs that a new process compiles, their operations, and their results' bytes.

    And how many arrays are given away to the graphs, so that results take their place and not more memory.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), folder, *RUNS]
        subprocess.run(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=True, capture_output=True)
        for run in RUNS:
            graphs = {file: _operations(file) for file in (Path(folder) / run).glob("*_compile.mlir")}
            large = [each for each in graphs.values() if len(each) >= _SMALLEST or run.startswith("choose")]
            donated = sum(len(_DONATED.findall(file.read_text(encoding="utf-8"))) for file in graphs)
            found[run] = {
                "graphs": len(large),
                "operations": sum(map(len, large)),
                "donated": donated,
                "bytes": sum(_bytes(line) for lines in large for line in lines),
            }
    return found


def _operations(file: Path) -> list[str]:
    lines = (line.partition(" loc(")[0].rstrip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if _OPERATION.search(line)]


def _bytes(line: str) -> int:
    """Return the bytes of an operation's result; 0 of one that has several, which are those of others."""
    result = _RESULT.search(line)
    if result is None:
        return 0
    return math.prod(int(size) for size in result[1].split("x") if size) * max(int(result[2]) // 8, 1)


if __name__ == "__main__":
    HELD.write_text(json.dumps(counted(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(HELD.read_text(encoding="utf-8"), end="")
