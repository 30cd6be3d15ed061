"""Which backend trains faster on this machine: both train the same small model, in processes of their own, in turns.

    python -m kerasgen.tuners.backend_choice jax 3

is one of these processes. It imports Keras when it is run so, and never otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

from kerasgen import backend as backends
from kerasgen.errors import BackendError

CONTENDERS = ("jax", "tensorflow")
LAYERS, WIDTH, HEADS, VOCABULARY_SIZE, ROWS, LENGTH = 4, 256, 4, 5_000, 16, 128
TURNS, SECONDS = 3, 3.0


def measure(
    contenders: Sequence[str] | None = None, *, turns: int = TURNS, seconds: float = SECONDS
) -> dict[str, float]:
    """Return how many tokens a second each backend trains, the first steps left out; it takes about a minute.

    The model is a GPT-2 of 4 layers of 256 with 5,000 ids, in rows of 128, at the precision that `"auto"` takes.

    Args:
        contenders: backends, or None for JAX and TensorFlow, those that are installed.
        turns: that each takes; the median counts.
        seconds: of a turn, at least; it ends with a step.

    Raises:
        BackendError: fewer than two are installed, or one could not train; the message has what it said.
    """
    names = [name for name in contenders or CONTENDERS if find_spec(name) is not None]
    if len(names) < 2:
        raise BackendError(
            f"Two backends are needed to measure which is faster. Installed: {', '.join(names) or 'none'}. Install "
            "kerasgen[tensorflow], or name the backend."
        )
    processes = {name: _start(name, seconds) for name in names}
    try:
        found: dict[str, list[float]] = {name: [] for name in names}
        for name, process in processes.items():  # both compile, one after the other
            _turn(name, process)
        for _ in range(turns):
            for name, process in processes.items():
                found[name].append(_turn(name, process))
        return {name: statistics.median(speeds) for name, speeds in found.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def _start(name: str, seconds: float) -> subprocess.Popen[str]:
    # Two processes may share a GPU only if neither takes all of its memory.
    shared = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    environment = {key: value for key, value in os.environ.items() if key != backends.VARIABLE} | shared
    return subprocess.Popen(
        [sys.executable, "-m", "kerasgen.tuners.backend_choice", name, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def _turn(name: str, process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        _, errors = process.communicate()
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        raise BackendError(f"The backend {name!r} could not train on this machine: {last[0]}")
    return float(json.loads(answer))


def _contend(name: str, seconds: float) -> None:
    """Train whenever a line comes in, and answer each with the tokens a second."""
    backends.use(name)
    import keras_hub
    import numpy as np

    from kerasgen.models.base import LanguageModel
    from kerasgen.models.forward import set_precision
    from kerasgen.models.precision import resolve
    from kerasgen.tokens.encoding import EncodedDocuments
    from kerasgen.tokens.packing import pack
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.plan import Plan
    from kerasgen.tuners.trainer import compiled

    rng = np.random.default_rng(0)
    lengths = rng.integers(20, LENGTH, 100)
    encoded = EncodedDocuments(
        token_ids=rng.integers(0, VOCABULARY_SIZE, lengths.sum()).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        characters=lengths.astype(np.int64),
    )
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=VOCABULARY_SIZE,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=4 * WIDTH,
        max_sequence_length=LENGTH,
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    set_precision(causal_lm, resolve("auto")[0])
    model = LanguageModel(causal_lm, cast(Any, None), source="a model to measure by")  # nothing is written or read
    plan = Plan(encoded, pack(encoded, sequence_length=LENGTH), ROWS, 1, epochs=1, max_steps=None, seed=0)
    trainer, _ = compiled(model, plan, FullTuner(), 0)
    epoch = plan.batches(0, first_step=0)
    batches = [epoch[index][0] for index in range(len(epoch))]
    tokens = [int((batch["segment_ids"] > 0).sum()) for batch in batches]
    step = 0
    for _line in sys.stdin:
        begin, done = time.perf_counter(), 0
        while not done or (step > len(batches) and time.perf_counter() - begin < seconds):
            for _ in range(1 if step > len(batches) else len(batches) + 1):  # all shapes are compiled in the first turn
                trainer.train_on_batch(batches[step % len(batches)])
                done += tokens[step % len(batches)]
                step += 1
        print(json.dumps(done / (time.perf_counter() - begin), allow_nan=False), flush=True)


if __name__ == "__main__":
    _contend(sys.argv[1], float(sys.argv[2]))
