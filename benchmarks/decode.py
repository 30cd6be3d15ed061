"""How fast artefacts decode: TFLite and SavedModel beside KerasHub's `generate` and CTranslate2, on the same weights.

    python -m benchmarks.decode [--only PART,…] [--json FILE] [--threads N] [--artefacts DIR] [--quick]

Batch 1, a prompt of 32 tokens and 128 new ones, GPT-2's base shape with random weights. The artefacts are written by
the exporters themselves, which prove them first. Each contender is then a process of its own; those of one part take
turns, and the first call of each, which compiles, is kept apart. Between their turns a process reads memory by loops of
loads: an engine can't decode faster than these read its weights, and its share of that bound is in the table.

Parts: `float32`, `int8`, `beam`, `saved_model`, `gguf` and `gguf_long`, which has a prompt of 896 tokens and stands
beside llama.cpp with its defaults on the same file, and `quality`. A run whose file is there already adds to its rows.
Writing the artefacts takes longer than measuring them; `--artefacts` keeps them, and a later run uses what lies there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    EARLIER,
    Contender,
    Figures,
    arguments_of,
    bar,
    earlier,
    report,
    rows_of_other_parts,
    spread,
)

SHAPE = {"vocabulary": 50257, "positions": 1024, "dim": 768, "layers": 12, "heads": 12, "seed": 0, "megabytes": 512}
TINY = SHAPE | {"positions": 256, "dim": 32, "layers": 2, "heads": 2, "megabytes": 16}
PROMPT, LONG_PROMPT = 32, 896
MODULE = "benchmarks.decode_contenders"
MEMORY = "read memory"
EARLIER_JOB = "earlier.json"  # beside this version's
# Of each part, who takes turns, the artefact first, and the bytes that a weight takes. `kerasgen` is the model itself,
# decoded by JAX.
PARTS: dict[str, tuple[tuple[str, ...], float]] = {
    "float32": (
        (
            "tflite float32",
            "keras_hub jax",
            "ctranslate2",
            "transformers",
            "transformers static",
            "keras_hub tensorflow",
            "kerasgen",
        ),
        4,
    ),
    "int8": (("tflite int8", "ctranslate2 int8"), 1),
    "beam": (("tflite int8", "ctranslate2 int8"), 1),
    "saved_model": (("saved_model", "keras_hub tensorflow"), 4),
    "gguf": (("gguf q8_0", "llama.cpp q8_0", "gguf q8_0 strict"), 34 / 32),
    "gguf_long": (("gguf q8_0", "llama.cpp q8_0", "gguf q8_0 strict"), 34 / 32),
}
ARTEFACTS = {"float32": "tflite float32", "int8": "tflite int8", "beam": "tflite int8", "saved_model": "saved_model"}
ARTEFACTS |= {"gguf": "gguf q8_0", "gguf_long": "gguf q8_0"}


def read_bytes(shape: dict[str, int], weight_bytes: float) -> float:
    """Bytes of weights that a token's decoding must read: all but the tables' rows of other tokens and positions.

    The table of tokens is the output layer too, so it counts whole. An int8 row has a float32 scale, and each 32
    weights of Q8_0 one of two bytes.
    """
    dim, layers = shape["dim"], shape["layers"]
    kernels = shape["vocabulary"] * dim + layers * 12 * dim * dim
    rows = shape["vocabulary"] + layers * 9 * dim  # of the kernels, as they are scaled
    vectors = layers * 13 * dim + 2 * dim
    return kernels * weight_bytes + vectors * 4 + (rows * 4 if weight_bytes == 1 else 0)


def own(part: str) -> tuple[str, ...]:
    """This version's contenders of a part, each before the same one of an earlier version."""
    names = [name for name in PARTS[part][0] if name == "kerasgen" or name in ARTEFACTS.values()]
    return tuple(each for name in names for each in (name, EARLIER + name))


def compete(part: str, job: Path, shape: dict[str, int], given: Any, new: int) -> list[Figures]:
    """Let the contenders of a part take turns; returns a row each, with medians of the rounds after the first."""
    names, weight_bytes = PARTS[part]
    if given.earlier:
        names = own(part)
    elif given.quick:
        names = names[:2]
    sampler = "beam:num_beams=4" if part == "beam" else "greedy"
    rng = np.random.default_rng(1)
    length = min(LONG_PROMPT, shape["positions"] - new) if part == "gguf_long" else PROMPT
    # Another prompt each turn: an engine that keeps what it read of the last one shall gain nothing by it.
    prompts = [rng.integers(1, 50000, length).tolist() for _ in range(given.rounds + 1)]
    tasks = [{"prompts": [prompt], "lengths": [new], "sampler": sampler} for prompt in prompts]
    contenders: list[Contender] = []
    answers: dict[str, list[Figures]] = {name: [] for name in (MEMORY, *names)}
    try:
        for name in answers:
            of = job.with_name(EARLIER_JOB) if name.startswith(EARLIER) else job
            contenders.append(Contender(name, MODULE, name, str(of), threads=given.threads))
        for task in tasks:
            for contender in contenders:
                answers[contender.name].append(contender.ask(task))
    finally:
        for contender in contenders:
            contender.end()
    bandwidth = statistics.median(one["bytes"] / one["seconds"] for one in answers.pop(MEMORY)[1:])
    bound = bandwidth / read_bytes(shape, weight_bytes)
    rows = []
    for name, several in answers.items():
        timed = spread([one["seconds"] for one in several[1:]])
        seconds = timed["seconds"]
        same = several[-1]["ids"] == answers[names[0]][-1]["ids"]
        row = {"part": part, "contender": name, "threads": given.threads, **timed}
        if all("cpu_seconds" in one for one in several):  # an earlier version's answers have none
            row |= spread([one["cpu_seconds"] for one in several[1:]], "cpu_seconds")
        row |= {"first_seconds": several[0]["seconds"], "tokens_per_second": new / seconds}
        row |= {"share_of_bound": new / seconds / bound, "read_GB_per_second": bandwidth / 1e9}
        row |= {"peak_MB": several[-1]["peak_bytes"] / 2**20, "ids_like_ours": same}
        rows.append(row | {"distinct_tokens": len(set(several[-1]["ids"][0]))})
    return rows


def in_a_process(what: str, job: Path, environment: dict[str, str]) -> list[Figures]:
    """Rows that a process of its own finds out."""
    python, checkout = earlier() if job.name == EARLIER_JOB else (sys.executable, None)
    run = subprocess.run(
        [python, "-m", MODULE, what, str(job)],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
    )
    rows: list[Figures] = json.loads(run.stdout.strip().splitlines()[-1])
    return rows


def bars_of(rows: Sequence[Figures]) -> list[Figures]:
    """The bars that can be told from the rows."""
    by = {(row["part"], row["contender"], row.get("threads")): row for row in rows}
    floors = {
        ("float32", "keras_hub jax"): 1.5,
        ("float32", "keras_hub tensorflow"): 1.5,
        ("int8", "ctranslate2 int8"): 2.3,
        ("beam", "ctranslate2 int8"): 1.0,
        ("saved_model", "keras_hub tensorflow"): 1.5,
        ("gguf", "llama.cpp q8_0"): 0.98,
        ("gguf_long", "llama.cpp q8_0"): 0.98,
    }
    shares = {("float32", "tflite float32"): 0.85, ("int8", "tflite int8"): 0.75}
    bars = []
    for (part, name, threads), row in by.items():
        ours = by.get((part, ARTEFACTS.get(part, ""), threads))
        if ours is not None and (part, name) in floors:
            # By the time of the processor where a server's threads wait without resting: other work counts least in it.
            figure = "cpu_seconds" if part in ("gguf", "gguf_long") and "cpu_seconds" in row else "seconds"
            ratio = row[figure] / ours[figure]
            title = f"{ARTEFACTS[part]}, {part}, {figure.replace('_', ' ')}, threads {threads}, x {name}"
            bars.append(bar(title, ratio, at_least=floors[part, name]))
        if threads == 1 and (part, name) in shares:
            title = f"{name}, share of the bound of memory"
            bars.append(bar(title, row["share_of_bound"], at_least=shares[part, name]))
        if part == "file" and name == "tflite int8":
            bars.append(bar("int8 file over its weights", row["bytes_over_weight_bytes"], at_most=1.03))
        if part == "quality":
            bars.append(bar("starter, int8, held-out bits per character over float32's", row["ratio"], at_most=1.01))
    return bars


def main() -> None:
    """Run the parts that are asked for."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default=",".join([*PARTS, "quality"]))
    parser.add_argument("--rounds", type=int, default=0, help="(default: 5, or 1 with --quick)")
    parser.add_argument("--artefacts", type=Path, metavar="DIR", help="keep the artefacts here, and use what is here")
    parser.add_argument("--export-only", action="store_true", help="write the artefacts and measure nothing")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    parts = given.only.split(",")
    if unknown := set(parts) - {*PARTS, "quality"}:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    shape, new = (TINY, 24) if given.quick else (SHAPE, 128)
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as scratch:
        job, folder = Path(scratch, "job.json"), str(given.artefacts or scratch)
        Path(folder).mkdir(parents=True, exist_ok=True)
        needed = sorted({ARTEFACTS[part] for part in parts if part in ARTEFACTS})
        texts = 4 if given.quick else 100
        job.write_text(
            json.dumps(shape | {"threads": given.threads, "folder": folder, "artefacts": needed, "texts": texts})
        )
        for one in [job, job.with_name(EARLIER_JOB)][: 2 if given.earlier else 1] if needed else []:
            if one != job:
                theirs = json.loads(job.read_text()) | {"folder": str(Path(folder, "earlier"))}
                Path(theirs["folder"]).mkdir(exist_ok=True)
                one.write_text(json.dumps(theirs))
            begun = time.perf_counter()
            found = in_a_process("export", one, {"KERAS_BACKEND": "jax"})
            print(f"artefacts of {one.stem}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
            prefix = "" if one == job else EARLIER
            rows += [row | {"contender": prefix + row["contender"]} for row in found]
        parts = [] if given.export_only else parts
        for part in PARTS:
            rows += compete(part, job, shape, given, new) if part in parts else []
        rows += in_a_process("quality", job, {"KERAS_BACKEND": "jax"}) if "quality" in parts else []
    rows = rows_of_other_parts(given.json, [*parts, "file"]) + rows
    report(rows, bars_of(rows), given.json)


if __name__ == "__main__":
    main()
