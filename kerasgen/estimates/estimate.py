"""What a run will take, from two short trials of it in processes of their own.

A trial is the run's own beginning with a few layers of its model. Time and memory grow evenly with the layers, so two
trials with different numbers of layers tell them for all. On a CPU the seconds of the processors tell how time grows:
between two trials, what else the machine does changes the clock's seconds by more than some layers do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Final

from kerasgen import corpora, models, samplers, tuners
from kerasgen.backend import PROCESSES
from kerasgen.decoder import config_json
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import TABLES, shapes
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.estimates import shortened

SHORT, LONG = 1, 3
"""Layers of the two trials. A model of at most `WHOLE` layers is tried whole, twice."""

WHOLE: Final = 4
STEPS: Final = 6
"""Optimizer steps of a trial; the first compiles, and the others are timed."""

READ_BYTES_PER_SECOND: Final = 1e9
"""About what files of weights are read and converted at."""


@dataclass(frozen=True)
class Estimate:
    """The time, the memory and the file sizes that a run is estimated to take on this machine.

    Args:
        parameters: weights of the model.
        steps: optimizer steps of the run.
        step_seconds: wall-clock of one, once compiled.
        seconds_to_first_step: from the start of the process to the end of the first step, with the corpus's token ids
            in the cache.
        seconds: of the whole run, validations included; texts, checkpoints and exports are not.
        memory_bytes: the most that the process will hold.
        backend: Keras's backend of the run.
        precision: the dtype policy of the computation.
        sequence_length: positions of a row.
        batch_size: rows of a batch.
        artefacts: about how many bytes each format takes, by the exporter with its settings, as `export` takes it.
    """

    parameters: int
    steps: int
    step_seconds: float
    seconds_to_first_step: float
    seconds: float
    memory_bytes: int
    backend: str
    precision: str
    sequence_length: int
    batch_size: int
    artefacts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} weights, on {self.backend} in {self.precision}",
            f"{self.steps:,} steps of {self.batch_size} rows with {self.sequence_length} positions, "
            f"{self.step_seconds:.2f} s each",
            f"{_spelled(self.seconds_to_first_step)} to the first step, {_spelled(self.seconds)} in all",
            f"{self.memory_bytes / 1e9:.2f} GB of memory at most",
            *(f"{name}: {size / 1e6:,.1f} MB" for name, size in self.artefacts.items()),
        ]
        return "\n".join(lines)


def estimate(arguments: Mapping[str, Any], *, timeout_seconds: float = 600.0) -> Estimate:
    """Return what the run of a pipeline will take.

    Args:
        arguments: of the `Pipeline`, by name, resolved: `corpus`, `model`, `tuner`, `sampler`, and others.
        timeout_seconds: for each of the two trials.

    Raises:
        ArgumentError: the corpus or the model has no registered name, or nothing can be estimated of the model.
        KerasgenError: a trial failed; the message says why.
    """
    job = _job(arguments)
    first = _trial(job, SHORT, timeout_seconds)
    config = config_json.from_json(first["whole"])
    layers = config.num_layers
    is_whole = layers <= WHOLE
    if is_whole and layers > SHORT:
        first = _trial(job, layers, timeout_seconds)
    second = _trial(job, layers if is_whole else LONG, timeout_seconds)
    counts = (layers, layers) if is_whole else (SHORT, LONG)

    def at_all_layers(name: str) -> float:
        if is_whole:
            return float(min(first[name], second[name]))
        grown = max(0.0, second[name] - first[name]) / (counts[1] - counts[0])
        return float(first[name] + grown * (layers - counts[0]))

    def seconds_at_all_layers(name: str) -> float:
        wall, cpu = f"{name}_seconds", f"{name}_cpu_seconds"
        if is_whole or second["on_gpu"] or not second[cpu]:
            return at_all_layers(wall)
        return float(second[wall]) * at_all_layers(cpu) / float(second[cpu])

    step, validation = seconds_at_all_layers("step"), seconds_at_all_layers("validation")
    described = replace(config, vocabulary_size=int(second["vocabulary"]))
    sizes = _sizes(described)
    # What comes before the tuner doesn't grow with the layers but for the weights; the second trial finds all caches.
    before = second["seconds_to_tuner"] - second["load_seconds"] + seconds_at_all_layers("load")
    reading = 0.0 if is_whole else 4.0 * sizes.total / READ_BYTES_PER_SECOND
    to_first = before + reading + seconds_at_all_layers("opening")
    steps = int(second["steps"])
    later = _validations(second) * validation if second["validates"] else 0.0
    return Estimate(
        parameters=sizes.total,
        steps=steps,
        step_seconds=step,
        seconds_to_first_step=to_first,
        seconds=to_first + step * (steps - 1) + later,
        memory_bytes=round(at_all_layers("peak_memory_bytes")),
        backend=second["backend"],
        precision=second["precision"],
        sequence_length=second["sequence_length"],
        batch_size=second["batch_size"],
        artefacts=_artefacts(sizes),
    )


def _job(arguments: Mapping[str, Any]) -> dict[str, Any]:
    registries = {
        "corpus": corpora.REGISTRY,
        "model": models.REGISTRY,
        "tuner": tuners.REGISTRY,
        "sampler": samplers.REGISTRY,
    }
    plain = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in arguments.items()
        if name not in registries and value is not None
    }
    job: dict[str, Any] = {"arguments": plain}
    for name, registry in registries.items():
        if arguments.get(name) is None:
            raise ArgumentError(f"An estimate needs a {name}. Received: None.")
        job[name] = registry.to_manifest(arguments[name])  # type: ignore[attr-defined]
    shortened.check(arguments["model"])  # told before a process is started
    return job


def _trial(job: Mapping[str, Any], layers: int, timeout_seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        told = {**job, "layers": layers, "directory": str(Path(folder) / "run"), "begun": time.time()}
        file.write_text(json.dumps(told, allow_nan=False), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "kerasgen.trial", str(file)],
                env=os.environ | {PROCESSES: ""},  # it is no process of the run that is estimated
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise KerasgenError(
                f"A trial of {STEPS} steps with {layers} layers took more than {timeout_seconds:.0f} s, so the run is "
                "slower than can be estimated. Make batches or rows smaller."
            ) from cause
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        found: Any = json.loads(last[0])
    except ValueError:
        raise KerasgenError(f"A trial of the run failed: {_reason(done.stderr)}") from None
    assert isinstance(found, dict)
    return found


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"^kerasgen\.errors\.\w+: ", "", lines[-1]) if lines else "its process ended without a word."


def _validations(found: Mapping[str, Any]) -> int:
    every = found["validate_every"] or found["steps_per_epoch"]
    return max(1, -(-int(found["steps"]) // int(every)))


@dataclass(frozen=True)
class _Sizes:
    """How many weights a model has in tables, in matrices, and in vectors."""

    tables: int
    matrices: int
    vectors: int

    @property
    def total(self) -> int:
        return self.tables + self.matrices + self.vectors


def _sizes(config: DecoderConfig) -> _Sizes:
    tables = matrices = vectors = 0
    for name, shape in shapes(config).items():
        size = prod(shape)
        if name in TABLES:
            tables += size
        elif len(shape) > 1:
            matrices += size
        else:
            vectors += size
    return _Sizes(tables, matrices, vectors)


_PAGE_BYTES = 20_000_000
"""What a page holds beside the model: scripts, and two builds of the engine, of which a browser fetches one."""


def _artefacts(sizes: _Sizes) -> dict[str, int]:
    """Return about how many bytes each format takes: those of the weights, and of what stands beside them."""
    float32 = 4 * sizes.total
    wide = sizes.tables + sizes.matrices
    int8 = round(wide * 1.02) + 4 * sizes.vectors
    return {
        "preset": float32,
        "transformers": float32,
        "saved_model": float32,
        "tflite": float32,
        "tflite:quantize=float16": 2 * wide + 4 * sizes.vectors,
        "tflite:quantize=int8": int8,
        "web": float32 + _PAGE_BYTES,
        "web:quantize=int8": int8 + _PAGE_BYTES,
        "litertlm": float32,
        "litertlm:quantize=int8": int8,
        "gguf": float32,
        "gguf:dtype=Q8_0": round(wide * 34 / 32) + 4 * sizes.vectors,
    }


def _spelled(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
