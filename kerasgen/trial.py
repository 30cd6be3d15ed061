"""The beginning of a run, with a few layers of its model: what it costs is written as one line of JSON.

    python -m kerasgen.trial JOB.json

The corpus is read, its ids are made and kept, and the tuner takes some steps, all as the run itself would. The process
ends there, without a report or a checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any


def main() -> None:
    """Run the job that the command line names."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    from kerasgen import corpora, devices, models, samplers, tuners
    from kerasgen.estimates.estimate import STEPS
    from kerasgen.estimates.shortened import WHOLE, ShortenedModel
    from kerasgen.pipeline import Pipeline

    source = models.REGISTRY.from_manifest(job["model"])
    pipeline = Pipeline(
        corpora.REGISTRY.from_manifest(job["corpus"]),
        ShortenedModel(source, job["layers"]),
        tuner=tuners.REGISTRY.from_manifest(job["tuner"]),
        sampler=samplers.REGISTRY.from_manifest(job["sampler"]),
        **job["arguments"],
    )
    watch = _Watch(job["begun"])
    pipeline._start_backend()

    from kerasgen.tuners import throughput, training
    from kerasgen.tuners.callbacks import Watcher

    times: dict[str, list[tuple[float, float]]] = {}

    def timed(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **settings: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return original(*arguments, **settings)
            finally:
                times.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - cpu))

        setattr(owner, name, wrapped)

    timed(ShortenedModel, "load")
    timed(Watcher, "measure")
    begin_run = training.run

    def run(*arguments: Any, **settings: Any) -> Any:
        watch.mark("tuner")
        return begin_run(*arguments, **settings)

    training.run = run
    after_batch: Callable[..., None] = Watcher.on_train_batch_end

    def on_train_batch_end(self: Watcher, *arguments: Any, **settings: Any) -> None:
        after_batch(self, *arguments, **settings)
        watch.step()
        if self.step == min(STEPS, self.steps):
            plan = current[0].plan
            decided = current[0].settings
            model = pipeline.model
            _finish(
                {
                    "whole": _described(model.metadata[WHOLE]),
                    "vocabulary": model.vocabulary_size,
                    "on_gpu": devices.nvidia_gpu(),
                    **_both("load", times["load"][0]),
                    **_both("validation", times.get("measure", [(0.0, 0.0)])[-1]),
                    "validates": bool(times.get("measure")),
                    "steps": plan.steps,
                    "steps_per_epoch": plan.steps_per_epoch,
                    "validate_every": decided.validate_every,
                    "sequence_length": decided.sequence_length,
                    "batch_size": decided.batch_size,
                    "precision": decided.precision,
                    "backend": pipeline.backend,
                    "peak_memory_bytes": throughput.peak_memory_bytes() or devices.peak_memory_bytes() or 0,
                    "trainable": sum(int(_size(weight)) for weight in current[0].job.model.network.trainable_variables),
                    **watch.seconds(),
                }
            )

    Watcher.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    current: list[Any] = []
    train = training._Run._train

    def remember(self: Any, *arguments: Any, **settings: Any) -> Any:
        current.append(self)
        return train(self, *arguments, **settings)

    training._Run._train = remember  # type: ignore[method-assign]
    pipeline.fit(directory=job["directory"], resume=False, verbose=0)


class _Watch:
    """Notes when what begins, and how long each step takes."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.marks: dict[str, tuple[float, float]] = {}
        self.ends: list[tuple[float, float]] = []

    def mark(self, name: str) -> None:
        self.marks[name] = self._now()

    def step(self) -> None:
        self.ends.append(self._now())

    def seconds(self) -> dict[str, Any]:
        """Return what was measured, by the clock and of the processors."""
        tuner, first = self.marks["tuner"], self.ends[0]
        opening = (first[0] - tuner[0], first[1] - tuner[1])
        steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(self.ends)] or [opening]
        return {
            "seconds_to_tuner": tuner[0],
            **_both("opening", opening),
            **_both("step", (median(wall for wall, _ in steps), median(cpu for _, cpu in steps))),
        }

    def _now(self) -> tuple[float, float]:
        return time.time() - self.begun, time.process_time()


def _both(name: str, seconds: tuple[float, float]) -> dict[str, float]:
    """Return seconds by the clock, and of the processors."""
    return {f"{name}_seconds": seconds[0], f"{name}_cpu_seconds": seconds[1]}


def _described(config: Any) -> Any:
    from kerasgen.decoder import config_json

    return config_json.to_json(config)


def _size(weight: Any) -> int:
    size = 1
    for side in weight.shape:
        size *= side
    return size


def _finish(found: dict[str, Any]) -> None:
    print(json.dumps(found, allow_nan=False), flush=True)
    os._exit(0)  # nothing that was begun is to be kept


if __name__ == "__main__":
    main()
