"""What `pipe.estimate()` says of a run beside what is then measured: time to the first step, time in all, memory, size.

    python -m benchmarks.estimates [--only CASE,…] [--steps N] [--json FILE] [--quick]

The cases are the starter on poems, GPT-2's base shape (random weights, written to a directory) on English posts, and
SmolLM2 with adapters on the same posts. Each estimate and each run is made in a process of its own, the caches warm.
The texts are files on this machine: `--poems` is an archive of the chinese-poetry collection's Tang poems, `--posts` a
JSONL file with a field `selftext`. `--quick` takes the starter alone, on the poems in the package.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES = ("starter", "gpt2", "smollm2")
BAR = 0.25
"""The greatest error that an estimate should have, as a share of what is measured."""


def main() -> None:
    """Estimate and run each case, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--poems")
    parser.add_argument("--posts")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too small to measure anything")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(_job(**json.loads(arguments.job)), allow_nan=False))
        return
    if arguments.quick:
        arguments.only, arguments.steps = "starter", min(arguments.steps, 3)
    elif arguments.poems is None or arguments.posts is None:
        parser.error("--poems and --posts are required without --quick")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.only.split(","):
            pipeline = _case(case, arguments.poems, arguments.posts, arguments.steps, Path(folder))
            estimated = _asked({"what": "estimate", "pipeline": pipeline})
            measured = _asked({"what": "fit", "pipeline": pipeline})
            found[case] = {"estimated": estimated, "measured": measured}
            for name, value in measured.items():
                error = estimated[name] / value - 1.0
                verdict = "" if abs(error) <= BAR else "  MISSED"
                print(f"{case:10} {name:24} {estimated[name]:14,.2f} {value:14,.2f} {error:+8.1%}{verdict}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _case(case: str, poems: str | None, posts: str | None, steps: int, folder: Path) -> dict[str, Any]:
    if case == "starter":
        tang = "sample:language=zh" if poems is None else f"chinese_poetry:path={poems},dynasty=tang"
        return {"corpus": tang, "model": "starter", "tuner": f"full:max_steps={steps}"}
    english = f"jsonl:path={posts},field=selftext"
    if case == "smollm2":
        return {"corpus": english, "model": "smollm2", "tuner": f"lora:max_steps={steps}"}
    written = _asked({"what": "write", "directory": str(folder / "gpt2")})
    return {"corpus": english, "model": written["directory"], "tuner": f"full:max_steps={steps}"}


def _asked(job: dict[str, Any]) -> dict[str, Any]:
    line = [sys.executable, "-m", "benchmarks.estimates", "--job", json.dumps(job)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _job(what: str, **told: Any) -> dict[str, Any]:
    began = time.time()
    if what == "write":
        return _written(Path(told["directory"]))
    import kerasgen as kg

    pipe = kg.Pipeline(**told["pipeline"])
    if what == "estimate":
        found = pipe.estimate()
        return {
            "seconds_to_first_step": found.seconds_to_first_step,
            "seconds": found.seconds,
            "memory_MB": found.memory_bytes / 1e6,
            "preset_MB": found.artefacts["preset"] / 1e6,
            "gguf_MB": found.artefacts["gguf"] / 1e6,
        }
    first = _first_step(began)
    report = pipe.fit(verbose=0)
    seconds = time.time() - began
    with tempfile.TemporaryDirectory() as folder:
        pipe.merge()
        preset = pipe.export(Path(folder, "preset"))
        gguf = pipe.export(Path(folder, "model.gguf"))
        sizes = {"preset_MB": preset.report["bytes"] / 1e6, "gguf_MB": gguf.report["bytes"] / 1e6}
    return {
        "seconds_to_first_step": first[0],
        "seconds": seconds,
        "memory_MB": report.peak_memory_bytes / 1e6,
        **sizes,
    }


def _first_step(began: float) -> list[float]:
    """Return a list that gets the seconds until the first step has ended."""
    ended: list[float] = []
    from kerasgen import backend

    backend.use("auto")
    from kerasgen.tuners.callbacks import Watcher

    after = Watcher.on_train_batch_end

    def noted(self: Watcher, *arguments: Any, **settings: Any) -> None:
        after(self, *arguments, **settings)
        if not ended:
            ended.append(time.time() - began)

    Watcher.on_train_batch_end = noted  # type: ignore[method-assign]
    return ended


def _written(directory: Path) -> dict[str, Any]:
    from benchmarks.decode_contenders import model_of
    from kerasgen import backend

    backend.use("jax")
    from benchmarks.decode import SHAPE
    from kerasgen.models.saving import save_preset

    save_preset(model_of(SHAPE), directory)
    return {"directory": str(directory)}


if __name__ == "__main__":
    main()
