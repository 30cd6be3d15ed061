"""What adapters beside frozen weights in int8 and int4 take and reach, beside the same over float32.

    python -m benchmarks.qlora [--only PART,…] [--json FILE] [--steps N] [--backend NAME] [--quick]

Each row is a process of its own, whose peak memory is that of its whole life. `smollm2` tunes the real SmolLM2 on posts
and says held-out bits a character; `tinyllama` takes two steps of 512 tokens of a model of TinyLlama's shape, 1.1
billion random weights, and asks whether it stays below 8 GB. `--quick` is a trial: a shape of the same kind and a
thousandth of the weights, few posts, two steps.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import DATA, Figures, bar, report

PARTS = ("smollm2", "tinyllama")
ROWS = {"smollm2": ("float32", "int8", "int4"), "tinyllama": ("int8+remat", "int4", "int4+remat")}
BOUND_BYTES = 8e9


def smollm2(base: str, steps: int, *, quick: bool = False) -> Figures:
    """Tune SmolLM2 on 300 posts, 31 of which are held out; on ten, some three of them held out, for a trial."""
    import kerasgen as kg

    path = DATA / "tifu_posts_2012_2013.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        posts = [post["selftext"] for post in map(json.loads, file) if post["selftext"] and not post.get("nsfw")]
    quantize: Any = None if base == "float32" else base
    settings: dict[str, Any] = {
        "rank": 8,
        "targets": ("all",),
        "quantize": quantize,
        "max_steps": steps,
        "batch_size": 4,
    }
    settings |= {"sequence_length": 32 if quick else 256, "validation_tokens": None, "learning_rate": 1e-3}
    tuner = kg.LoraTuner(**settings)
    chosen = [post[:100] if quick else post for post in posts if post.strip()][: 10 if quick else 300]
    pipe = kg.Pipeline(chosen, "smollm2", tuner=tuner, held_out=0.3 if quick else 0.1)
    with tempfile.TemporaryDirectory() as folder:
        told = pipe.fit(directory=folder, verbose=0)
    return {"bits_before": told.bits_per_character_before, "bits_after": told.bits_per_character, **_figures(told)}


def tinyllama(base: str, steps: int, *, remat: bool, quick: bool = False) -> Figures:
    """Two steps of a model of TinyLlama's shape; its weights are drawn one at a time, as a file gives them."""
    from kerasgen import LoraTuner, backend
    from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, Norm, RotaryPositions
    from kerasgen.models import architectures, quantized_base
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.encoding import EncodedDocuments

    backend.use()
    from benchmarks.generate_contenders import Numbers
    from kerasgen.models import networks

    config = DecoderConfig(
        architecture="llama",
        vocabulary_size=320 if quick else 32_000,
        num_layers=2 if quick else 22,
        hidden_dim=64 if quick else 2048,
        max_sequence_length=None,
        attention=Attention(8, 4, 8) if quick else Attention(32, 4, 64),
        feedforward=FeedForward(96 if quick else 5632, "silu", gated=True),
        norm=Norm("rms", 1e-5, bias=False),
        positions=RotaryPositions(),
        tied_head=False,
    )
    rng = np.random.default_rng(0)

    def take(name: str, shape: tuple[int, ...]) -> Any:
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        return rng.standard_normal(shape, np.float32) * np.float32(0.02)

    scheme: Any = base
    llama = architectures.named("llama")
    assert llama is not None
    with quantized_base.loading(scheme):
        causal_lm = networks.build(llama, config, take, "transformers", context_length=2048)
    model = LanguageModel(causal_lm, Numbers(config.vocabulary_size), "drawn")  # type: ignore[arg-type]
    loaded = _peak()
    ids = rng.integers(0, config.vocabulary_size, 4 * 513).astype(np.int32)
    documents = EncodedDocuments(ids, np.arange(5, dtype=np.int64) * 513, np.full(4, 513, np.int64))
    settings: dict[str, Any] = {
        "rank": 8,
        "targets": ("all",),
        "quantize": scheme,
        "max_steps": min(steps, 2),
        "batch_size": 1,
    }
    settings |= {"sequence_length": 512, "vocabulary": "keep", "packing": "none", "remat": remat}
    tuner = LoraTuner(**settings)
    with tempfile.TemporaryDirectory() as folder:
        told = tuner.tune(model, documents, seed=0, directory=Path(folder), verbose=0)
    return {"loss_of_the_first_step": told.losses[0], "peak_bytes_when_loaded": loaded, **_figures(told)}


def _figures(told: Any) -> Figures:
    return {
        "steps": told.steps,
        "tokens_per_second": told.steady_tokens_per_second,
        "first_step_seconds": told.first_step_seconds,
        "peak_bytes": told.peak_memory_bytes,
        "backend": told.backend,
        "why": told.reasons.get("base", ""),
    }


def _peak() -> int:
    from kerasgen import devices

    return devices.peak_memory_bytes() or 0


def main() -> None:
    """Run the parts that are asked for, a process for each row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--quick", action="store_true", help="a trial, to see that it runs")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        part, base = arguments.row.split(":")
        base, _, remat = base.partition("+")
        if part == "smollm2":
            found = smollm2(base, arguments.steps, quick=arguments.quick)
        else:
            found = tinyllama(base, arguments.steps, remat=bool(remat), quick=arguments.quick)
            found |= {"remat": bool(remat)}
        sys.stdout.write(json.dumps({"part": part, "contender": f"kerasgen {base}", **found}) + "\n")
        return
    rows: list[Figures] = []
    for part in arguments.only.split(","):
        for base in ROWS[part]:
            command = [sys.executable, "-m", "benchmarks.qlora", "--row", f"{part}:{base}"]
            environment = os.environ | {"KERAS_BACKEND": arguments.backend}
            run = subprocess.run(
                [*command, f"--steps={2 if arguments.quick else arguments.steps}", *["--quick"] * arguments.quick],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append(json.loads(run.stdout.splitlines()[-1]))
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
    bars = [
        bar(f"GB at most, {row['contender']} of TinyLlama's shape", row["peak_bytes"] / 1e9, at_most=BOUND_BYTES / 1e9)
        for row in rows
        if row["part"] == "tinyllama"
    ]
    report(rows, bars, arguments.json)


if __name__ == "__main__":
    main()
