"""How much memory loading a model takes, beside the bytes that its weights are held in.

    python -m benchmarks.loading [--only CASE,…] [--json FILE] [--quick]

A model of TinyLlama's shape, 1.1 billion random weights, is written to a temporary folder: sharded safetensors in
float32 and in bfloat16, and a GGUF file in Q8_0. Each case is a process of its own. Its figure is the peak of its
memory less what it held once everything was imported, divided by the bytes of the weights that it holds at the end.
`--quick` takes a shape of 2 million weights, to see that it runs; there the ratio means nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figures, bar, report

CASES = {
    "float32 directory": ("float32", None),
    "float32 directory held in bfloat16": ("float32", "bfloat16"),
    "bfloat16 directory": ("bfloat16", None),
    "bfloat16 directory held in bfloat16": ("bfloat16", "bfloat16"),
    "GGUF Q8_0": ("gguf", None),
    "GGUF Q8_0 held in bfloat16": ("gguf", "bfloat16"),
}
MOST = 1.2


def description(*, quick: bool) -> Any:
    """Return the decoder's: TinyLlama's, or a small one of the same traits."""
    from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, Norm, RotaryPositions

    width, layers, inner = (128, 4, 352) if quick else (2048, 22, 5632)
    return DecoderConfig(
        architecture="llama",
        vocabulary_size=4_000 if quick else 32_000,
        num_layers=layers,
        hidden_dim=width,
        max_sequence_length=2048,
        attention=Attention(width // 64, max(1, width // 512), 64),
        feedforward=FeedForward(inner, "silu", gated=True),
        norm=Norm("rms", 1e-5, bias=False),
        positions=RotaryPositions(),
        tied_head=False,
    )


def write(folder: Path, kind: str, *, quick: bool) -> Path:
    """Write the files of a case, a tensor at a time, and return the path to load."""
    from ml_dtypes import bfloat16
    from safetensors.numpy import save_file

    from kerasgen.models import architectures
    from kerasgen.models.architectures import tensors

    config, architecture = description(quick=quick), architectures.named("llama")
    assert architecture is not None
    rng = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> Any:
        return np.ones(shape, np.float32) if len(shape) == 1 else rng.standard_normal(shape, np.float32) * 0.02

    if kind == "gguf":
        return _gguf(folder / "model.gguf", architecture, config, drawn)
    dtype: Any = bfloat16 if kind == "bfloat16" else np.float32
    places: dict[str, str] = {}
    shard: dict[str, Any] = {}

    def flush() -> None:
        name = f"model-{len(set(places.values())):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for tensor in tensors.tensors(architecture, config, "transformers"):
        shard[tensor.name] = drawn(tensor.shape).astype(dtype)
        if sum(array.nbytes for array in shard.values()) > 5e8:
            flush()
    flush()
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    said = {"model_type": "llama", **architecture.settings(config)}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def _gguf(path: Path, architecture: Any, config: Any, drawn: Any) -> Path:
    """Write a GGUF file without a vocabulary, its matrices in Q8_0."""
    import gguf

    from kerasgen.models.architectures import gguf_settings, tensors

    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, architecture.gguf)
    add: Any = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
    for key, value in gguf_settings.keys(architecture, config).items():
        add[type(value)](f"{architecture.gguf}.{key}", value)
    for tensor in tensors.tensors(architecture, config, "gguf"):
        numbers = drawn(tensor.shape)
        if numbers.ndim > 1:
            writer.add_tensor(tensor.name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def measured(place: Path, weights: str | None) -> Figures:
    """Load a model, and return what that took; of a process that does nothing else."""
    from kerasgen import backend, devices, quiet

    backend.use()
    quiet.load("keras_hub")
    import keras

    from kerasgen.models import gguf_loading, networks, quantized_base, transformers_format  # noqa: F401
    from kerasgen.models.gguf_file import GgufFile

    np.asarray(keras.ops.ones((4,)))  # the backend's own start
    before = devices.peak_memory_bytes() or 0
    began = time.perf_counter()
    scheme: Any = weights
    with quantized_base.loading(scheme):
        if place.is_dir():
            said = json.loads((place / "config.json").read_text(encoding="utf-8"))
            network = transformers_format.convert(str(place), said)
        else:
            with GgufFile(place) as file:
                architecture, config = gguf_loading.described(file)
                network = gguf_loading._network(file, architecture, config, None)
    seconds = time.perf_counter() - began
    sizes = {"bfloat16": 2}
    held = sum(math.prod(variable.shape) * sizes.get(variable.dtype, 4) for variable in network.weights)
    taken = (devices.peak_memory_bytes() or 0) - before
    return {"held_bytes": held, "peak_bytes_less_imports": taken, "ratio": taken / held, "seconds": seconds}


def main() -> None:
    """Write each kind of files once, and load them in a process for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.place:
        sys.stdout.write(json.dumps(measured(arguments.place, arguments.weights)) + "\n")
        return
    rows: list[Figures] = []
    by_kind: dict[str, list[str]] = {}
    for case in arguments.only.split(","):
        by_kind.setdefault(CASES[case][0], []).append(case)
    for kind, cases in by_kind.items():
        with tempfile.TemporaryDirectory() as folder:
            place = write(Path(folder), kind, quick=arguments.quick)
            for case in cases:
                command = [sys.executable, "-m", "benchmarks.loading", "--place", str(place)]
                held_in = CASES[case][1]
                command += [] if held_in is None else ["--weights", held_in]
                environment = {**os.environ, "KERAS_BACKEND": "jax"}
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                rows.append({"part": "loading", "contender": case, **json.loads(run.stdout.splitlines()[-1])})
                sys.stderr.write(json.dumps(rows[-1]) + "\n")
    bars = [bar(f"peak by the weights' bytes, {row['contender']}", row["ratio"], at_most=MOST) for row in rows]
    report(rows, bars, arguments.json)


if __name__ == "__main__":
    main()
