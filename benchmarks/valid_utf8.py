"""What it costs that texts are valid UTF-8: the processor's time of the same calls with and without, in turns.

    python -m benchmarks.valid_utf8 [--only starter,base] [--json FILE] [--threads N] [--quick]

The models are the starter and a random GPT-2 of the base shape with GPT-2's vocabulary. No text ends before its limit,
so both write as many tokens. Each turn is a call without and a call with, in changing order; the figure is the median
of the turns' ratios.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from typing import Any

from benchmarks.harness import Figures, arguments_of, bar, gpt2_files, report

AT_MOST = 1.02
SAMPLERS = ("greedy", "top_k:k=40", "top_p:p=0.9")
BATCHES = (1, 8, 32)
TOKENS = {"starter": 96, "base": 24}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return 0 if every bar holds."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default="starter,base")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--turns", type=int, default=15, help="pairs of calls (default: 15)")
    chosen = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    rows: list[Figures] = []
    for name in chosen.only.split(","):
        batches = BATCHES[:1] if chosen.quick else tuple(map(int, chosen.batches.split(",")))
        rows += run(name, batches=batches, turns=2 if chosen.quick else chosen.turns)
    bars = [
        bar(f"{row['model']}, {row['sampler']}, batch {row['batch']}: CPU time", row["ratio"], at_most=AT_MOST)
        for row in rows
    ]
    report(rows, bars, chosen.json)
    return 0 if all(one["holds"] for one in bars) else 1


def run(name: str, *, batches: tuple[int, ...], turns: int) -> list[Figures]:
    """Return a row for each sampler and batch of one model."""
    from kerasgen.generation import engine_registry, generate_ids

    engine: Any = engine_registry.resolve(_model(name))
    engine = engine.ending_at(engine.tokenizer.vocabulary_size)
    rows = []
    for batch, sampler in itertools.product(batches, SAMPLERS):
        prompts = [engine.tokenizer.encode("春")] * batch

        def spent(valid_utf8: bool, seed: int, prompts: Any = prompts, sampler: str = sampler) -> float:
            begin = time.process_time()
            generate_ids(
                engine, prompts, sampler=sampler, max_new_tokens=TOKENS[name], seed=seed, valid_utf8=valid_utf8
            )
            return time.process_time() - begin

        for valid_utf8 in (False, True):  # compile
            spent(valid_utf8, 0)
        found: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(turns):
            for valid_utf8 in (False, True) if turn % 2 else (True, False):
                found[valid_utf8].append(spent(valid_utf8, turn))
        ratio = statistics.median(a / b for a, b in zip(found[True], found[False], strict=True))
        print(f"{name}, {sampler}, batch {batch}: {ratio:.4f}", file=sys.stderr, flush=True)
        rows.append(
            {
                "model": name,
                "batch": batch,
                "sampler": sampler,
                "seconds_without": statistics.median(found[False]),
                "seconds_with": statistics.median(found[True]),
                "ratio": ratio,
            }
        )
    return rows


def _model(name: str) -> Any:
    import kerasgen as kg

    if name == "starter":
        return kg.Pipeline(model="starter").model
    from benchmarks.generate import BASE
    from benchmarks.generate_contenders import keras_model
    from kerasgen import backend
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.bpe import ByteLevelBPE

    backend.use()
    return LanguageModel(keras_model(BASE), ByteLevelBPE.from_files(*gpt2_files()), "benchmark")


if __name__ == "__main__":
    raise SystemExit(main())
