"""Constrained verse of the starter: is all of it well-formed, and what does the constraint cost?

    python -m benchmarks.verse [--json FILE] [--threads N] [--quick]

Both contenders write the same number of texts with the same number of tokens at most, in one process, in turns; what is
compared is tokens a second, for a constrained text is as long as its form and a free one is not.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from benchmarks.harness import arguments_of, bar, report

FORM = "七言絕句"
AT_LEAST = 0.8


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return 0 if every bar holds."""
    parser = arguments_of(__doc__)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=50)
    chosen = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    found = run(texts=8 if chosen.quick else chosen.texts, batch_size=4 if chosen.quick else chosen.batch_size)
    report(found["rows"], found["bars"], chosen.json)
    return 0 if all(bar["holds"] for bar in found["bars"]) else 1


def run(*, texts: int, batch_size: int) -> dict[str, Any]:
    """Return rows and bars, as every benchmark module does."""
    import kerasgen as kg
    from kerasgen.generation import generate

    pipe = kg.Pipeline(model="starter", sampler=kg.TopK(k=40))
    form = kg.VerseForm(FORM)
    prompt = [""] * batch_size

    def write(constraint: kg.Constraint | None, seed: int) -> tuple[list[Any], float]:
        begin = time.perf_counter()
        written = generate(
            pipe.model,
            prompt,
            sampler=pipe.sampler,
            constraint=constraint,
            max_new_tokens=40,
            seed=seed,
            batch_size=batch_size,
            return_logprobs=True,
        )
        return written, time.perf_counter() - begin

    contenders = {"unconstrained": None, "constrained": form}
    for constraint in contenders.values():
        write(constraint, 0)  # compile, and fill the masks
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    right = dict.fromkeys(contenders, 0)
    turns = -(-texts // batch_size)
    for turn in range(1, turns + 1):
        for name, constraint in contenders.items():
            written, seconds = write(constraint, turn)
            speeds[name].append(sum(len(one.token_ids) for one in written) / seconds)
            right[name] += sum(form.matches(one.text) for one in written)
    count = turns * batch_size
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "tokens_per_second": statistics.median(speeds[name]),
            "texts": count,
            "well_formed": right[name] / count,
        }
        for name in contenders
    ]
    ratio = statistics.median(a / b for a, b in zip(speeds["constrained"], speeds["unconstrained"], strict=True))
    bars = [
        bar(f"share of {count} constrained texts that are well-formed", rows[1]["well_formed"], at_least=1.0),
        bar("constrained tokens/s against unconstrained", ratio, at_least=AT_LEAST),
    ]
    return {"rows": rows, "bars": bars}


if __name__ == "__main__":
    raise SystemExit(main())
