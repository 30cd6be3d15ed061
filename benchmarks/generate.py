"""How fast generating is: KerasHub on JAX and TensorFlow, transformers, CTranslate2 and kerasgen, on the same weights.

    python -m benchmarks.generate [--only PART,…] [--json FILE] [--threads N] [--quick]

Each contender is a process with the weights of a random GPT-2 of the base shape, but for the parts of
`smollm2`, which take SmolLM2-135M's own weights. Those of one part take turns, and the first call of each, which
compiles, is kept apart. A run whose file is there already adds to its rows, so the parts can
be run one after another: `batch1`, `batch8`, `batch32`, `many`, `long`, `beam`, `top_p`, `calls`, `memory`, `first`,
`smollm2_batch1`, `smollm2_batch8` and `speculation`. `many` takes the starter, which CTranslate2 gets from a
transformers directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import generate_many
from benchmarks.harness import (
    EARLIER,
    Contender,
    Figures,
    arguments_of,
    bar,
    pinned,
    report,
    rows_of_other_parts,
    spread,
    write,
)

BASE = {"vocabulary": 50257, "positions": 1024, "dim": 768, "layers": 12, "heads": 12, "seed": 0}
TINY = {"vocabulary": 300, "positions": 256, "dim": 32, "layers": 2, "heads": 2, "seed": 0}
KERAS_HUB = ("keras_hub jax", "keras_hub tensorflow")
"""On its two backends; what kerasgen is compared with is the faster one of those that ran."""

ALL = ("kerasgen", *KERAS_HUB, "transformers", "transformers static", "transformers bf16", "ctranslate2")
"""transformers as it comes, with a static cache, and in bfloat16, whose texts are others."""
PARTS = (
    *("batch1", "batch8", "batch32", "many", "long", "beam", "top_p", "calls", "memory", "first"),
    *("smollm2_batch1", "smollm2_batch8", "speculation"),
)
SMOLLM2: dict[str, Any] = {"model": "smollm2", "vocabulary": 49152}

TEXT = " the" * 31  # with the start token, 32 tokens of GPT-2

CONTENDERS = "benchmarks.generate_contenders"


def task(rows: int, start: tuple[int, int], more: tuple[int, int], sampler: str, size: int) -> dict[str, Any]:
    """Prompts of random ids with lengths in a range, and how long each text becomes."""
    rng = np.random.default_rng(rows)
    starts, lengths = (rng.integers(low, high + 1, rows).tolist() for low, high in (start, more))
    prompts = [rng.integers(1, size, length).tolist() for length in starts]
    return {"prompts": prompts, "lengths": lengths, "sampler": sampler}


def compete(
    part: str, names: tuple[str, ...], tasks: dict[str, dict[str, Any]], job: Path, threads: int, rounds: int
) -> list[Figures]:
    """Let contenders take turns at each task; returns a row each, with medians of the rounds after the first."""
    contenders: list[Contender] = []
    rows = []
    try:
        contenders = [Contender(name, CONTENDERS, name, str(job), threads=threads) for name in names]
        for label, one in tasks.items():
            answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(rounds + 1):
                for contender in contenders:
                    answers[contender.name].append(contender.ask(one))
                    seconds = answers[contender.name][-1]["seconds"]
                    print(f"{part}, {label}, turn {turn}, {contender.name}: {seconds:.3f} s", file=sys.stderr)
            wanted = answers[names[0]][-1]["ids"]
            for name, several in answers.items():
                timed = spread([answer["seconds"] for answer in several[1:]])
                seconds = timed["seconds"]
                same = sum(a == b for a, b in zip(several[-1]["ids"], wanted, strict=True))
                row = {"part": part, "task": label, "contender": name, "threads": threads, **timed}
                row |= {"first_seconds": several[0]["seconds"], "tokens_per_second": sum(one["lengths"]) / seconds}
                if all("cpu_seconds" in answer for answer in several):  # an earlier version's answers have none
                    row |= spread([answer["cpu_seconds"] for answer in several[1:]], "cpu_seconds")
                rows.append(row | {"texts_like_kerasgens": f"{same}/{len(wanted)}"})
        return rows
    finally:
        for contender in contenders:
            contender.end()


def calls(job: Path, threads: int, size: int) -> list[Figures]:
    """Ten prompt lengths and ten temperatures after one call: how many graphs are compiled."""
    contender = Contender("kerasgen", CONTENDERS, "kerasgen", str(job), threads=threads)
    try:
        before = after = contender.ask(task(1, (17, 17), (24, 24), "top_p:p=0.9", size))["compilations"]
        for n in range(10):
            sampler = f"top_p:p={0.5 + n / 25},temperature={0.5 + n / 10}"
            after = contender.ask(task(1, (18 + n, 18 + n), (24, 24), sampler, size))["compilations"]
        figures = {"first": before, "compiled_after": after - before, "threads": threads}
        return [{"part": "calls", "contender": "kerasgen"} | figures]
    finally:
        contender.end()


def first(job: Path, threads: int) -> list[Figures]:
    """From the start of a process to the first token of a preset on disk.

    Each ran before, so its disk cache is warm: kerasgen's own, and for KerasHub one of JAX's that it doesn't ask for by
    itself; without it, as a person has it, is a row of its own, and so is kerasgen where it compiles all anew.
    """
    with tempfile.TemporaryDirectory() as folder:
        preset, mine = Path(folder, "preset"), Path(folder, "job.json")
        mine.write_text(json.dumps(json.loads(job.read_text()) | {"preset": str(preset)}))
        subprocess.run([sys.executable, "-m", CONTENDERS, "write preset", str(mine)], check=True, stdout=2)
        cached = {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        runs: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("kerasgen", "kerasgen begins", cached),
            ("keras_hub jax", "keras_hub jax begins", cached),
            ("kerasgen without a cache", "kerasgen begins", {"JAX_ENABLE_COMPILATION_CACHE": "false"}),
            ("keras_hub jax without a cache", "keras_hub jax begins", {}),
        )
        found: dict[str, list[float]] = {name: [] for name, _, _ in runs}
        for turn in range(4):
            for name, kind, environment in runs:
                if turn > 1 and environment is not cached:
                    continue
                contender = Contender(name, CONTENDERS, kind, str(mine), threads=threads, environment=environment)
                try:
                    contender.ask({"text": TEXT})
                    found[name].append(contender.seconds())
                finally:
                    contender.end()
                print(f"first, turn {turn}, {name}: {found[name][-1]:.2f} s", file=sys.stderr)
    return [
        {"part": "first", "contender": name, "threads": threads, **spread(several[1:])}
        for name, several in found.items()
    ]


def many(threads: int, count: int, more: int, rounds: int, names: tuple[str, ...]) -> list[Figures]:
    """Short prompts through the starter: each call after the first, and a whole process of one call, caches warm."""
    module, one = "benchmarks.generate_many", generate_many.task(count, more)
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.json")
        job.write_text(json.dumps({"folder": folder, "threads": threads}))
        if "ctranslate2" in names:
            subprocess.run([sys.executable, "-m", module, "write files", str(job)], check=True, stdout=2)

        def begun(name: str) -> Contender:
            return Contender(name, module, name, str(job), threads=threads)

        contenders = [begun(name) for name in names]
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        try:
            for turn in range(rounds + 1):
                for contender in contenders:
                    answers[contender.name].append(contender.ask(one))
                    seconds = answers[contender.name][-1]["seconds"]
                    print(f"many, turn {turn}, {contender.name}: {seconds:.3f} s", file=sys.stderr)
        finally:
            for contender in contenders:
                contender.end()
        for name in names:
            fresh = begun(name)
            try:
                whole = fresh.ask(one)
                begins = {"process_seconds": fresh.seconds(), "process_cpu_seconds": whole["process_cpu_seconds"]}
            finally:
                fresh.end()
            same = sum(a == b for a, b in zip(whole["texts"], answers[names[0]][-1]["texts"], strict=True))
            row: Figures = {"part": "many", "task": f"{count} prompts", "contender": name, "threads": threads}
            for figure in ("seconds", "cpu_seconds"):
                row |= spread([answer[figure] for answer in answers[name][1:]], figure)
            rows.append(row | begins | {"texts_like_kerasgens": f"{same}/{count}"})
    return rows


def memory(shape: dict[str, int], threads: int) -> list[Figures]:
    """What a step at batch 4 moves, by XLA's analysis; see `benchmarks.generate_memory`."""
    return _rows_of("benchmarks.generate_memory", shape, threads, [])


def speculation(shape: dict[str, int], threads: int, more: int, rounds: int, *, quick: bool) -> list[Figures]:
    """One text without proposals, with prompt lookup and with drafts; see `benchmarks.generate_speculation`."""
    shape = shape | {"layers": max(shape["layers"], 4)}  # the draft has three
    job = {"shape": shape, "more": more, "rounds": rounds, "drafts": [15], "quick": quick}
    return _rows_of("benchmarks.generate_speculation", job, threads, pinned(threads))


def _rows_of(module: str, job: dict[str, Any], threads: int, before: list[str]) -> list[Figures]:
    """Run a module that reads a job and writes rows, with what stands before its command."""
    run = subprocess.run(
        [*before, sys.executable, "-m", module],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )
    return [row | {"threads": threads} for row in json.loads(run.stdout.strip().splitlines()[-1])]


def bars_of(rows: list[Figures]) -> list[dict[str, Any]]:
    """The bars that can be told from the rows."""
    by = {(row["part"], row.get("task"), row["contender"], row.get("threads")): row for row in rows}
    bars: list[dict[str, Any]] = []

    floors = {
        "batch1": {"keras_hub": 1.5, "transformers": 1.0, "ctranslate2": 1.0},
        "batch8": {"keras_hub": 3.0, "transformers": 1.0},
        "batch32": {"keras_hub": 3.0, "transformers": 1.0},
        "beam": {"keras_hub": 2.0, "transformers": 1.0},
        "smollm2_batch1": {"keras_hub": 1.5, "transformers": 2.5},
        "smollm2_batch8": {"keras_hub": 3.0},
    }

    def floor(part: str, label: str | None, name: str, threads: int | None) -> float | None:
        """What a contender's time is to be at least, of kerasgen's: of KerasHub's backends, the faster one's."""
        if name not in KERAS_HUB:
            return floors.get(part, {}).get(name)
        ran = [by[part, label, other, threads] for other in KERAS_HUB if (part, label, other, threads) in by]
        is_fastest = by[part, label, name, threads] is min(ran, key=lambda one: float(one.get("seconds", 0.0)))
        return floors.get(part, {}).get("keras_hub") if is_fastest else None

    for (part, label, name, threads), row in by.items():
        ours, theirs = by.get((part, label, "kerasgen", threads)), by.get((part, label, "keras_hub jax", threads))
        least = floor(part, label, name, threads)
        if ours and least is not None:
            ratio = row["seconds"] / ours["seconds"]
            bars.append(bar(f"{part}, threads {threads}, x {name}", ratio, at_least=least))
        if ours and part == "long" and label and name in ("ctranslate2", "transformers"):
            ratio = row["seconds"] / ours["seconds"]
            wanted = {"ctranslate2": 1.0, "transformers": 1.7} if label.endswith(" 1") else {"ctranslate2": 1.1}
            if name in wanted:
                bars.append(bar(f"{label}, threads {threads}, x {name}", ratio, at_least=wanted[name]))
        if part == "many" and ours and name == "ctranslate2":
            # By the time of the processor, in which other work counts least.
            for figure, wanted in (("cpu_seconds", 1.0), ("process_cpu_seconds", 0.9)):
                title = f"{label}, {figure.replace('_', ' ')}, threads {threads}, x ctranslate2"
                bars.append(bar(title, row[figure] / ours[figure], at_least=wanted))
        if part == "top_p" and label and label.startswith("top_p"):
            greedy = by[part, label.replace("top_p", "greedy"), name, threads]
            ratio = row["seconds"] / greedy["seconds"]
            bars.append(bar(f"{label}, threads {threads}, x greedy", ratio, at_most=1.1))
        if part == "first" and theirs and ours is row:
            bars.append(bar("time to first token, x keras_hub jax", row["seconds"] / theirs["seconds"], at_most=1 / 3))
        if part == "memory" and theirs and name.startswith("kerasgen"):
            # What is moved holds for texts that fill all positions too; what is held there is mostly the cache itself.
            for figure in ("bytes_accessed", "bytes_of_a_step")[: 2 if ours is row else 1]:
                title = f"{figure.replace('_', ' ')}, {name}, x keras_hub jax"
                bars.append(bar(title, row[figure] / theirs[figure], at_most=1 / 3))
        if part == "speculation" and name == "prompt lookup" and not row["proposed"]:
            ratio = row["seconds"] / by[part, label, "without", threads]["seconds"]
            bars.append(bar(f"{label}: prompt lookup where nothing is proposed, x without", ratio, at_most=1.03))
        if part == "calls":
            bars.append(bar("graphs compiled by ten calls after the first", row["compiled_after"], at_most=0))
    return bars


def main() -> None:
    """Run the parts that are asked for."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--contenders", default=",".join(ALL))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    parts = given.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    shape, threads = (TINY if given.quick else BASE), given.threads
    names = ("kerasgen", "keras_hub jax") if given.quick else tuple(given.contenders.split(","))
    own = ("kerasgen", f"{EARLIER}kerasgen") if given.earlier else ("kerasgen",)
    names = own if given.earlier else names
    size, rounds, more = shape["vocabulary"], (1 if given.quick else given.rounds), (8 if given.quick else 128)
    half, mixed = (more // 2, more // 2), (more // 8, more)
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        job, real = Path(folder, "job.json"), Path(folder, "smollm2.json")
        job.write_text(json.dumps(shape | {"threads": threads}))
        real.write_text(json.dumps(SMOLLM2 | {"threads": threads}))

        def run(part: str) -> list[Figures]:
            model, _, count = part.rpartition("batch")
            if count.isdecimal():
                ids = SMOLLM2["vocabulary"] if model else size
                one = task(1, (32, 32), (more, more), "greedy", ids)
                several = task(int(count), (8, 64), mixed, "greedy", ids)
                tasks = {"32 + 128": one} if int(count) == 1 else {"8 to 64 + 16 to 128": several}
                some = tuple(
                    name for name in names if not model or name in ("kerasgen", "keras_hub jax", "transformers")
                )
                return compete(part, some, tasks, real if model else job, threads, rounds)
            if part == "long":
                longest = shape["positions"] - 66  # 958 of GPT-2's
                tasks = {
                    f"{longest} + {count}": task(1, (longest, longest), (count, count), "greedy", size)
                    for count in (1, 64)
                }
                some = tuple(name for name in names if name != "keras_hub tensorflow")
                return compete(part, some, tasks, job, threads, rounds)
            if part == "beam":
                tasks = {"32 + 64": task(1, (32, 32), half, "beam:num_beams=5", size)}
                some = tuple(name for name in names if name != "keras_hub tensorflow")
                return compete(part, some, tasks, job, threads, rounds)
            if part == "top_p":
                tasks = {
                    f"{kind}, batch {count}": task(count, (32, 32), half, sampler, size)
                    for count in (1, 8)
                    for kind, sampler in (("greedy", "greedy"), ("top_p", "top_p:p=0.9"))
                }
                return compete(part, own, tasks, job, threads, rounds)
            if part == "many":
                some = ("kerasgen",) if given.quick else tuple(x for x in names if x in ("kerasgen", "ctranslate2"))
                return many(threads, *((4, 8) if given.quick else (2000, 32)), rounds, some)
            if part == "memory":
                return memory(shape, threads)
            if part == "speculation":
                return speculation(shape, threads, more, rounds, quick=given.quick)
            return calls(job, threads, size) if part == "calls" else first(job, threads)

        # A run that is ended keeps the parts that are done.
        for part in parts:
            rows += run(part)
            measured = [(done, threads) for done in parts[: parts.index(part) + 1]]
            found = rows_of_other_parts(given.json, measured) + rows
            if part == parts[-1]:
                report(found, bars_of(found), given.json)
            elif given.json is not None:
                write(found, bars_of(found), given.json)


if __name__ == "__main__":
    main()
