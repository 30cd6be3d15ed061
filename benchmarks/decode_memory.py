"""How much memory a process takes that loads GPT-2's base shape and generates with it.

    python -m benchmarks.decode_memory [--batch 1,8] [--backend tensorflow] [--json FILE] [--quick]

Random weights of that shape, 124 million in float32, are written as a transformers directory. For each size of a batch
a process of its own loads them and draws 64 tokens after 32, decoded by JAX. `--backend` says what Keras runs on: its
variables hold the weights, and JAX's engine takes them from there. Told is the peak of the whole process once
everything was imported, loaded and generated. `--quick` takes a shape of 0.4 million weights, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figures, bar, report

MOST_GB = 1.3
PROMPT, NEW = 32, 64


def description(*, quick: bool) -> Any:
    """Return the decoder's: GPT-2's of the base shape, or a small one of the same traits."""
    from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, LearnedPositions, Norm

    width, layers = (64, 2) if quick else (768, 12)
    biases: dict[str, Any] = dict.fromkeys(("query_bias", "key_bias", "value_bias", "output_bias"), True)
    return DecoderConfig(
        architecture="gpt2",
        vocabulary_size=4_000 if quick else 50_257,
        num_layers=layers,
        hidden_dim=width,
        max_sequence_length=1024,
        attention=Attention(width // 64, width // 64, 64, **biases),
        feedforward=FeedForward(4 * width, "gelu_approximate", up_bias=True, down_bias=True),
        norm=Norm(),
        positions=LearnedPositions(),
    )


def write(folder: Path, *, quick: bool) -> None:
    """Write a transformers directory of drawn weights."""
    from safetensors.numpy import save_file

    from kerasgen.models import architectures
    from kerasgen.models.architectures import tensors

    config, architecture = description(quick=quick), architectures.named("gpt2")
    assert architecture is not None
    rng = np.random.default_rng(0)
    arrays = {
        tensor.name: rng.standard_normal(tensor.shape, np.float32) * np.float32(0.02)
        for tensor in tensors.tensors(architecture, config, "transformers")
    }
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    said = {"model_type": "gpt2", **architecture.settings(config)}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")


def measured(place: Path, batch: int) -> Figures:
    """Load the model and generate; of a process that does nothing else."""
    from kerasgen import backend, devices
    from kerasgen.models import hub_import

    backend.use()
    hub_import.load()
    import keras

    from benchmarks.generate_contenders import Numbers
    from kerasgen.generation import generate_ids
    from kerasgen.models import transformers_format
    from kerasgen.models.base import LanguageModel

    np.asarray(keras.ops.ones((4,)))  # the backend's own start

    def peak() -> float:
        return (devices.peak_memory_bytes() or 0) / 1e9

    imported = peak()
    said = json.loads((place / "config.json").read_text(encoding="utf-8"))
    network: Any = transformers_format.convert(str(place), said)
    loaded = peak()
    tokenizer: Any = Numbers(said["vocab_size"])
    model = LanguageModel(network, tokenizer, "benchmark")
    rng = np.random.default_rng(1)
    prompts = [[int(each) for each in rng.integers(3, said["vocab_size"], PROMPT)] for _ in range(batch)]
    ids = generate_ids(model, prompts, sampler="random", seed=0, max_new_tokens=NEW, valid_utf8=False, logprobs=False)
    assert all(len(texts[0].token_ids) == NEW for texts in ids)
    held = sum(int(np.prod(variable.shape)) * 4 for variable in network.weights)
    return {"held_gb": held / 1e9, "imported_gb": imported, "loaded_gb": loaded, "peak_gb": peak()}


def main() -> None:
    """Write the directory once, and generate in a process for each size of a batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.place:
        sys.stdout.write(json.dumps(measured(arguments.place, int(arguments.batch))) + "\n")
        return
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), quick=arguments.quick)
        for batch in arguments.batch.split(","):
            command = [sys.executable, "-m", "benchmarks.decode_memory", "--place", folder, "--batch", batch]
            environment = {**os.environ, "KERAS_BACKEND": arguments.backend}
            run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            contender = f"{arguments.backend}, batch {batch}"
            rows.append({"part": "memory", "contender": contender, **json.loads(run.stdout.splitlines()[-1])})
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
    bars = [bar(f"peak in GB, {row['contender']}", row["peak_gb"], at_most=MOST_GB) for row in rows]
    report(rows, bars, arguments.json)


if __name__ == "__main__":
    main()
