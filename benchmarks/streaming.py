"""Tunes on a large corpus as it is stored and as it is streamed: peak memory and bytes on disk of each.

    python -m benchmarks.streaming --megabytes 100 [--json FILE] [--quick]

Each way runs in a process of its own. The corpus is made up as it is read, so that the disk holds what kerasgen writes
and nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAYS = ("stored", "streamed")


class MadeUp:
    """Texts of some thousand characters, put together from a sample's words; the same ones each time.

    Args:
        megabytes: of the texts together, about.
    """

    def __init__(self, megabytes: float) -> None:
        import kerasgen as kg

        self.characters = int(megabytes * 1e6)
        self.words = " ".join(document.text for document in kg.Sample("en").documents()).split()

    def __iter__(self) -> Iterator[str]:
        draws, written = random.Random(0), 0
        while written < self.characters:
            text = " ".join(draws.choices(self.words, k=400))
            written += len(text)
            yield text


def main() -> None:
    """Print a line of JSON for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too small to measure anything")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.megabytes, arguments.steps = min(arguments.megabytes, 0.2), min(arguments.steps, 2)
    if arguments.way is not None:
        print(json.dumps(measure(arguments.way, arguments.megabytes, arguments.steps), allow_nan=False))
        return
    found = []
    for way in WAYS:
        further = ["--megabytes", str(arguments.megabytes), "--steps", str(arguments.steps), "--way", way]
        command = [sys.executable, "-m", "benchmarks.streaming", *further]
        line = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        print(line, flush=True)
        found.append(json.loads(line))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": found}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def measure(way: str, megabytes: float, steps: int) -> dict[str, Any]:
    """Tune the starter for some steps on the corpus and return what that took."""
    import warnings

    import kerasgen as kg
    from kerasgen.devices import peak_memory_bytes
    from kerasgen.errors import KerasgenWarning

    with tempfile.TemporaryDirectory() as folder:
        tuner = kg.FullTuner(max_steps=steps, batch_size=4, sequence_length=128, vocabulary="keep", precision="float32")
        settings: dict[str, Any] = {"streaming": True} if way == "streamed" else {}
        pipe = kg.Pipeline(MadeUp(megabytes), "starter", tuner=tuner, cache=folder, backend="jax", **settings)
        warnings.simplefilter("ignore", KerasgenWarning)  # the starter knows no English, which costs nothing here
        begin, begin_processor = time.perf_counter(), time.process_time()
        report = pipe.fit(verbose=0, directory=Path(folder) / "run")
        seconds, processor = time.perf_counter() - begin, time.process_time() - begin_processor
        stored = sum(file.stat().st_size for file in (Path(folder) / "tokens").rglob("*") if file.is_file())
    return {
        "way": way,
        "text_mb": megabytes,
        "peak_mb": (peak_memory_bytes() or 0) / 1e6,
        "tokens_on_disk_mb": stored / 1e6,
        "seconds": seconds,
        "cpu_seconds": processor,
        "documents_read": report.corpus["read"],
        "bits_per_character": report.bits_per_character,
    }


if __name__ == "__main__":
    main()
