"""How long choosing one token of each row takes in a graph, beside NumPy and JAX's own operations.

    python -m benchmarks.choosing [--json FILE] [--quick]

Logits of 32 rows of GPT-2's vocabulary are random. What is timed takes turns; the figures are medians of CPU time, in
milliseconds, of one process that is pinned to one processor. `choose` is all that a step of decoding does after the
logits, with log-probabilities; `choose alone` is without them, as `generate` chooses if nobody asks for any.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import THREADS, Figures, arguments_of, bar, report

ROWS, VOCABULARY = 32, 50257
SAMPLERS = ("greedy", "top_k:k=40", "top_p:p=0.9", "min_p", "random")
AT_MOST = {"greedy": 2.0, "top_k:k=40": 4.0, "top_p:p=0.9": 8.0}
SCALE = 3.0


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_ids = (0,)


def contenders(rows: int, vocabulary: int) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    import jax
    import jax.numpy as jnp

    from kerasgen.generation import jax_steps
    from kerasgen.generation.jax_options import compiler_options
    from kerasgen.samplers.resolving import resolve

    rng = np.random.default_rng(0)
    on_host = rng.standard_normal((rows, vocabulary), dtype=np.float32) * np.float32(SCALE)
    uniforms = rng.random(rows, dtype=np.float32)
    logits = jnp.asarray(on_host)

    def of_graph(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(function, compiler_options=compiler_options())
        return lambda: jax.block_until_ready(compiled(*arguments))

    found: dict[str, Callable[[], Any]] = {}
    for name in SAMPLERS:
        spec = resolve(name)
        for label, logprobs in (("choose", True), ("choose alone", False)):
            _, choose = jax_steps.choosing(spec, Numbers(), logprobs=logprobs)  # type: ignore[arg-type]
            found[f"{label} {name}"] = of_graph(choose, logits, None, uniforms, jax_steps.inputs_of(spec))
        found[f"numpy {name}"] = lambda spec=spec: spec.choose(np, on_host, uniforms)  # type: ignore[misc]
    found["jnp.argmax"] = of_graph(lambda values: jnp.argmax(values, axis=-1), logits)
    found["lax.top_k, 40"] = of_graph(lambda values: jax.lax.top_k(values, 40), logits)
    found["jnp.sort"] = of_graph(lambda values: jnp.sort(values, axis=-1), logits)
    return found


def measure(rows: int, vocabulary: int, rounds: int) -> list[Figures]:
    """Let all take turns; returns a row for each."""
    runs = contenders(rows, vocabulary)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            if turn:
                taken[name].append((time.process_time() - begun) * 1000)
    return [
        {"part": "choosing", "what": name, "rows": rows, "milliseconds": statistics.median(several)}
        for name, several in taken.items()
    ]


def main() -> None:
    """Measure, and print the rows and the bars."""
    given = arguments_of(__doc__).parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ |= dict.fromkeys(THREADS, "1") | {"KERAS_BACKEND": "jax"}
    rows = measure(*((2, 5000, 1) if given.quick else (ROWS, VOCABULARY, 15)))
    by = {row["what"]: row["milliseconds"] for row in rows}
    bars = [bar(f"{name}, milliseconds", by[f"choose alone {name}"], at_most=most) for name, most in AT_MOST.items()]
    report(rows, bars, given.json)


if __name__ == "__main__":
    main()
