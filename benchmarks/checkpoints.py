"""How long training waits for a checkpoint, of GPT-2's base shape: 1.5 GB of weights and what the optimizer keeps.

    python -m benchmarks.checkpoints [--json FILE] [--threads N] [--quick] [--earlier PYTHON]

On each backend a process of its own takes 30 steps of one row of 32 tokens, and writes a checkpoint after each
tenth. The row tells, as medians of the checkpoints but the last: the seconds for which training waited between two
steps, the processor seconds of all threads meanwhile, the seconds of the step after a checkpoint (it shares the
processors with the writer) and of other steps; and the process's peak memory. With `--earlier` an earlier version goes
before this one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import EARLIER, Contender, Figures, arguments_of, bar, gpt2_files, report
from kerasgen.devices import peak_memory_bytes

BACKENDS = ("jax", "tensorflow")
STEPS, EVERY, LENGTH = 30, 10, 32
MOST_SECONDS = 0.3


def measure(backend: str, *, quick: bool) -> Figures:
    """Tune a model of random weights and return what its checkpoints took."""
    from kerasgen import backend as backends

    backends.use(backend)
    import keras_hub
    import numpy as np

    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.encoding import EncodedDocuments
    from kerasgen.tuners.callbacks import Watcher
    from kerasgen.tuners.full import FullTuner

    end = "<|endoftext|>"
    tokenizer = ByteLevelBPE.from_files(*gpt2_files(), start_token=end, end_token=end, pad_token=end)
    layers, width = (1, 64) if quick else (12, 768)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=layers,
        num_heads=width // 64,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=1024,
        dropout=0.0,
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model = LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="benchmark")
    lengths = np.full(STEPS, LENGTH + 1, np.int64)
    ids = np.random.default_rng(0).integers(0, tokenizer.vocabulary_size, lengths.sum()).astype(np.int32)
    documents = EncodedDocuments(ids, np.concatenate([[0], np.cumsum(lengths)]), lengths)

    class Clock:
        """Between the steps of the run, what was waited for."""

        waits: list[float]
        waits_cpu: list[float]
        steps: list[float]
        began: float

    clock = Clock()
    clock.waits, clock.waits_cpu, clock.steps, clock.began = [], [], [], 0.0
    begin, finish = Watcher.on_train_batch_begin, Watcher.on_train_batch_end

    def began(self: Any, batch: int, logs: Any = None) -> None:
        clock.began = time.perf_counter()
        begin(self, batch, logs)

    def ended(self: Any, batch: int, logs: Any = None) -> None:
        clock.steps.append(time.perf_counter() - clock.began)
        before, cpu = self.aside, time.process_time()
        finish(self, batch, logs)
        clock.waits.append(self.aside - before)
        clock.waits_cpu.append(time.process_time() - cpu)

    Watcher.on_train_batch_begin, Watcher.on_train_batch_end = began, ended  # type: ignore[method-assign]
    tuner = FullTuner(
        batch_size=1,
        sequence_length=LENGTH,
        packing="none",
        max_steps=STEPS,
        checkpoint_every=EVERY,
        vocabulary="keep",
        precision="float32",
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tuner.tune(model, documents, seed=0, directory=Path(folder), verbose=0)
        whole = time.perf_counter() - start
        size = max(path.stat().st_size for path in Path(folder).glob("step-*/*"))
    saved = range(EVERY - 1, STEPS - 1, EVERY)
    others = [step for step in range(1, STEPS) if step - 1 not in saved]
    return {
        "checkpoint_gb": size / 1e9,
        "waits_seconds": median(clock.waits[step] for step in saved),
        "waits_most_seconds": max(clock.waits[step] for step in saved),
        "waits_cpu_seconds": median(clock.waits_cpu[step] for step in saved),
        "step_after_seconds": median(clock.steps[step + 1] for step in saved),
        "step_seconds": median(clock.steps[step] for step in others),
        "run_seconds": whole,
        "peak_gb": (peak_memory_bytes() or 0) / 1e9,
    }


def compete(backend: str, *, threads: int, quick: bool) -> list[Figures]:
    """Return the rows of this version, and of an earlier one before it if one is named."""
    import os

    names = (f"{EARLIER}kerasgen", "kerasgen") if "KERASGEN_EARLIER" in os.environ else ("kerasgen",)
    rows = []
    for name in names:
        contender = Contender(
            name, "benchmarks.checkpoints", "--contender", backend, *["--quick"] * quick, threads=threads
        )
        try:
            rows.append({"backend": backend, "contender": name, **contender.ask(None)})
        finally:
            contender.end()
    return rows


def main(arguments: Sequence[str] | None = None) -> Figures:
    """Measure, print the table, write the JSON."""
    parser = arguments_of(__doc__)
    parser.set_defaults(threads=2)
    parser.add_argument("--contender", choices=BACKENDS, help="be the process that is measured")
    parser.add_argument("--only", default=",".join(BACKENDS), help="backends, separated by commas")
    chosen = parser.parse_args(arguments)
    if chosen.contender is not None:
        answer, sys.stdout = sys.stdout, sys.stderr
        sys.stdin.readline()
        found = measure(chosen.contender, quick=chosen.quick)
        print(json.dumps(found), file=answer, flush=True)
        return found
    rows = []
    for backend in chosen.only.split(","):
        rows += compete(backend, threads=chosen.threads, quick=chosen.quick)
    bars = [
        bar(f"seconds that training waits, at most, {row['backend']}", row["waits_seconds"], at_most=MOST_SECONDS)
        for row in rows
        if row["contender"] == "kerasgen"
    ]
    return report(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
