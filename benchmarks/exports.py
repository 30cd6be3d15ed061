"""What it takes to export a model with its proof: wall time, and processor time of the process and of its children.

    python -m benchmarks.exports [--only FORMAT,…] [--threads N] [--json FILE] [--quick] [--earlier PYTHON]

The model has GPT-2's base shape, random weights and GPT-2's own vocabulary. Each export is a process of its own, whose
imports and drawing of weights don't count. `--quick` takes a tiny shape, to see that it runs.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.decode import SHAPE, TINY
from benchmarks.harness import EARLIER, Contender, Figures, arguments_of, bar, report

MODULE = "benchmarks.exports"
# Random weights diverge more than trained ones when they are rounded; what the limits are says nothing here.
LOOSE = {"most_divergence": 10.0, "least_agreement": 0.0, "most_logit_difference": 100.0, "most_loss_increase": 9.0}
# The exporter's name, its settings, and the end of the file's name.
FORMATS: dict[str, tuple[str, dict[str, Any], str]] = {
    "tflite int8": ("TFLite", {"quantize": "int8", **LOOSE}, ".tflite"),
    "tflite float32": ("TFLite", {}, ".tflite"),
    "gguf": ("Gguf", {}, ".gguf"),
    "saved_model": ("SavedModel", {}, ""),
}
MOST_SECONDS = {"tflite int8": 40.0, "tflite float32": 60.0, "gguf": 12.0, "saved_model": 30.0}


def export(job: dict[str, Any]) -> Figures:
    """Write one format, and return what that took."""
    import kerasgen as kg
    from benchmarks.decode_contenders import model_of

    exporter, settings, ending = FORMATS[job["format"]]
    model = model_of(job)
    with tempfile.TemporaryDirectory() as folder:
        before, began = _processor_seconds(), time.perf_counter()
        artefact = getattr(kg, f"{exporter}Exporter")(**settings).export(model, Path(folder, f"model{ending}"))
        seconds = time.perf_counter() - began
        own, children = (after - earlier for after, earlier in zip(_processor_seconds(), before, strict=True))
        return {
            "seconds": seconds,
            "cpu_seconds": own,
            "cpu_seconds_of_children": children,
            "MB": artefact.report["bytes"] / 2**20,
        }


def _processor_seconds() -> tuple[float, float]:
    """Return what this process took so far, and what its children did that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, children


def main(arguments: Sequence[str] | None = None) -> None:
    """Export in each format, one after the other."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default=",".join(FORMATS), help="formats, with commas between them")
    parser.add_argument("--row", help="a JSON object: write this format in this process")
    given = parser.parse_args(arguments)
    if given.row:
        job = json.loads(given.row)
        for _ in sys.stdin:
            print(json.dumps(export(job)), flush=True)
        return
    rows: list[Figures] = []
    for name in given.only.split(","):
        if name not in FORMATS:
            parser.error(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
        job = (TINY if given.quick else SHAPE) | {"threads": given.threads, "texts": 1, "format": name}
        for prefix in ("", EARLIER) if given.earlier else ("",):
            contender = Contender(
                prefix + name,
                MODULE,
                "--row",
                json.dumps(job),
                threads=given.threads,
                environment={"KERAS_BACKEND": "jax"},
            )
            try:
                rows.append({"part": "export", "contender": prefix + name, **contender.ask({})})
            finally:
                contender.end()
    bars = [
        bar(f"seconds of {row['contender']}", row["seconds"], at_most=MOST_SECONDS[row["contender"]])
        for row in rows
        if row["contender"] in MOST_SECONDS and not given.quick
    ]
    report(rows, bars, given.json)


if __name__ == "__main__":
    main()
