"""What one GPU gives: training, adapters, decoding and prefill of GPT-2's base shape, beside torch and transformers.

    python -m benchmarks.gpu [--toy] [--only PART,…] [--limit SECONDS] [--json FILE]

kerasgen runs on JAX alone; TensorFlow need not be installed. Each row is a process of its own, so that its peak memory
is its own, and is given up after `--limit` seconds: all of them take at most eight minutes. Rows of torch (compiled,
bfloat16), transformers and peft are there where those are installed. Weights are random, which changes no speed.

- `training`: every weight, 8 rows of 1,024 tokens a step, bfloat16 products. `mfu` is the share of `--peak-tflops`
  (989, an H100's in bfloat16) that the model's own operations are; what is computed again counts nothing.
- `lora`: the same with adapters of rank 8 on queries and values.
- `decode N`: 32 + 128 tokens of N texts, greedy; tokens a second of all texts together, compilation apart. Both in
  bfloat16 where the device multiplies it (`weights="auto"`), and in float32 elsewhere.
- `prefill N`: 958 tokens and the first token after them, of N texts.

Where there is no network, carry the wheels, without TensorFlow, which KerasHub asks for and doesn't need here:

    pip wheel --no-deps -w wheels . keras keras-hub keras-nlp kagglehub kagglesdk gguf namex optree h5py absl-py \
        ml-dtypes sentencepiece tokenizers safetensors platformdirs rich protobuf
    pip install --no-index --no-deps wheels/*.whl       # beside jax, torch, transformers and peft

`--toy` (or `--quick`) takes a tiny shape, to see that all rows run; it measures nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import TAIL, Figures, report

PEAK_TFLOPS = 989.0
SECONDS = 480.0
LORA_RANK = 8


@dataclass(frozen=True)
class Shape:
    """A GPT-2, and how much it does: rows and tokens of a step, steps, tokens of a prompt and after it, texts."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50_257
    rows: int = 8
    length: int = 1024
    steps: int = 12
    prompt: int = 32
    new: int = 128
    long_prompt: int = 958
    texts: tuple[int, ...] = (1, 8, 64, 256)
    prefilled: tuple[int, ...] = (1, 8)

    @property
    def flops_per_token(self) -> float:
        """Operations of training on one token: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B."""
        products = 12 * self.layers * self.width**2 + self.vocabulary * self.width
        return 6.0 * products + 12.0 * self.layers * self.width * self.length


TOY = Shape(
    layers=1,
    width=32,
    heads=2,
    vocabulary=300,
    rows=2,
    length=32,
    steps=3,
    prompt=8,
    new=8,
    long_prompt=24,
    prefilled=(1,),
)
Row = Callable[[Shape], Figures]


def _drawn(shape: Shape, rows: int, length: int) -> Any:
    return np.random.default_rng(0).integers(1, shape.vocabulary, (rows, length)).astype(np.int32)


def _kerasgen_model(shape: Shape) -> Any:
    from kerasgen import backend

    backend.use("jax")
    import keras_hub

    from benchmarks.generate_contenders import Numbers
    from kerasgen.models.base import LanguageModel

    class Letters(Numbers):
        """Each token is a letter, so that every text is one."""

        def shown_bytes(self, token_id: int) -> bytes:
            return b"a"

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=shape.vocabulary,
        num_layers=shape.layers,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        intermediate_dim=4 * shape.width,
        max_sequence_length=max(1024, shape.length),
        dropout=0.0,
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm, Letters(shape.vocabulary), "benchmark")  # type: ignore[arg-type]


def _held_for_decoding(model: Any) -> str:
    """Hold a model's weights as `weights="auto"` does on this device, and return how."""
    from kerasgen.models import forward, quantized_base, weights_dtype

    dtype = weights_dtype.resolved("auto")
    if dtype == quantized_base.HALF:
        quantized_base.hold(quantized_base.targets(forward.decoder_of(model)), quantized_base.HALF)
    return str(dtype)


def _kerasgen_trains(shape: Shape, *, lora: bool) -> Figures:
    from kerasgen.tokens.encoding import EncodedDocuments
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner
    from kerasgen.tuners.throughput import peak_memory_bytes

    model = _kerasgen_model(shape)
    count = shape.rows * shape.steps
    lengths = np.full(count, shape.length + 1, np.int64)
    ids = _drawn(shape, count, shape.length + 1).reshape(-1)
    documents = EncodedDocuments(ids, np.concatenate([[0], np.cumsum(lengths)]), lengths)
    settings: dict[str, Any] = {
        "batch_size": shape.rows,
        "sequence_length": shape.length,
        "max_steps": shape.steps,
        "precision": "mixed_bfloat16",
        "vocabulary": "keep",
        "checkpoint_every": 10**9,
    }
    tuner = LoraTuner(rank=LORA_RANK, targets=("query", "value"), **settings) if lora else FullTuner(**settings)
    with tempfile.TemporaryDirectory() as folder:
        told = tuner.tune(model, documents, seed=0, directory=Path(folder), verbose=0)
    return {
        "tokens_per_second": told.steady_tokens_per_second,
        "first_seconds": told.first_step_seconds,
        "loss": told.losses[-1],
        "peak_gb": peak_memory_bytes() / 1e9,
    }


def _kerasgen_generates(shape: Shape, texts: int, prompt: int, new: int) -> Figures:
    from kerasgen.generation.api import generate_ids
    from kerasgen.tuners.throughput import peak_memory_bytes

    model = _kerasgen_model(shape)
    dtype = _held_for_decoding(model)
    prompts = _drawn(shape, texts, prompt).tolist()

    def run() -> int:
        # No call remembers the prompts of the one before, which would not be read again.
        from kerasgen.generation import engine_registry

        engine: Any = engine_registry.resolve(model)
        engine.prompts.clear()
        found = generate_ids(engine, prompts, sampler="greedy", max_new_tokens=new, logprobs=False)
        return sum(len(of[0].token_ids) for of in found)

    return _timed(run) | {"dtype": dtype, "peak_gb": peak_memory_bytes() / 1e9}


def _timed(run: Callable[[], int]) -> Figures:
    """Return seconds of the first call, and of a later one the tokens it wrote a second; the best of three."""
    begin = time.perf_counter()
    run()
    found: Figures = {"first_seconds": time.perf_counter() - begin}
    calls = []
    for _ in range(3):
        begin = time.perf_counter()
        tokens = run()
        calls.append((time.perf_counter() - begin, tokens))
    seconds, tokens = min(calls)
    return found | {"seconds": seconds, "tokens_per_second": tokens / seconds}


def _torch_model(shape: Shape) -> tuple[Any, Any]:
    import torch
    import transformers

    config = transformers.GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=max(1024, shape.length),
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return transformers.GPT2LMHeadModel(config).to(device), device


def _torch_peak(torch: Any) -> float | None:
    return float(torch.cuda.max_memory_allocated()) / 1e9 if torch.cuda.is_available() else None


def _torch_trains(shape: Shape, *, lora: bool) -> Figures:
    import torch

    model, device = _torch_model(shape)
    if lora:
        import peft

        # GPT-2's queries, keys and values are one matrix there.
        model = peft.get_peft_model(model, peft.LoraConfig(r=LORA_RANK, target_modules=["c_attn"], fan_in_fan_out=True))
    model.train()
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=on_gpu or None)
    compiled = torch.compile(model) if on_gpu else model  # on a CPU it needs a compiler
    rows = torch.from_numpy(_drawn(shape, shape.rows, shape.length + 1)).long().to(device)
    seconds: list[float] = []
    for _ in range(shape.steps):
        begin = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            logits = compiled(input_ids=rows[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        told = loss.item()
        seconds.append(time.perf_counter() - begin)
    return {
        "tokens_per_second": shape.rows * shape.length / float(np.median(seconds[2:])),
        "first_seconds": seconds[0],
        "loss": told,
        "peak_gb": _torch_peak(torch),
    }


def _transformers_generates(shape: Shape, texts: int, prompt: int, new: int) -> Figures:
    import torch

    model, device = _torch_model(shape)
    model = model.to(torch.bfloat16).eval() if device.type == "cuda" else model.eval()
    prompts = torch.from_numpy(_drawn(shape, texts, prompt)).long().to(device)
    settings = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}

    def run() -> int:
        with torch.inference_mode():
            found = model.generate(prompts, attention_mask=torch.ones_like(prompts), **settings)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return int(found.shape[0] * (found.shape[1] - prompt))

    return _timed(run) | {"peak_gb": _torch_peak(torch)}


def rows_of(shape: Shape) -> dict[tuple[str, str], Row]:
    """Return what is measured, by part and contender."""
    has_torch = find_spec("torch") is not None and find_spec("transformers") is not None
    found: dict[tuple[str, str], Row] = {}

    def add(part: str, ours: Row, theirs: Row, *, package: str = "transformers") -> None:
        found[part, "kerasgen"] = ours
        if has_torch and find_spec(package) is not None:
            found[part, package] = theirs

    add("training", lambda of: _kerasgen_trains(of, lora=False), lambda of: _torch_trains(of, lora=False))
    add("lora", lambda of: _kerasgen_trains(of, lora=True), lambda of: _torch_trains(of, lora=True), package="peft")
    for texts in shape.texts:
        add(
            f"decode {texts}",
            lambda of, texts=texts: _kerasgen_generates(of, texts, of.prompt, of.new),  # type: ignore[misc]
            lambda of, texts=texts: _transformers_generates(of, texts, of.prompt, of.new),  # type: ignore[misc]
        )
    for texts in shape.prefilled:
        add(
            f"prefill {texts}",
            lambda of, texts=texts: _kerasgen_generates(of, texts, of.long_prompt, 1),  # type: ignore[misc]
            lambda of, texts=texts: _transformers_generates(of, texts, of.long_prompt, 1),  # type: ignore[misc]
        )
    return found


def measured(part: str, contender: str, shape: Shape, *, toy: bool, limit: float, peak_tflops: float) -> Figures:
    """Return a row, measured in a process of its own; what went wrong instead of figures if it did."""
    row: Figures = {"part": part, "contender": contender}
    command = [sys.executable, "-m", "benchmarks.gpu", "--row", part, contender, *["--toy"] * toy]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return row | {"gave_up_after_seconds": limit}
    if ran.returncode:
        return row | {"error": ran.stderr[-TAIL:]}
    row |= json.loads(ran.stdout.splitlines()[-1])
    if part == "training":
        row["mfu"] = row["tokens_per_second"] * shape.flops_per_token / (peak_tflops * 1e12)
    return row


def main(arguments: Sequence[str] | None = None) -> Figures:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--toy", "--quick", action="store_true", help="a tiny shape, too small to measure anything")
    parser.add_argument("--only", help="parts, separated by commas, as in `training,decode 8`")
    parser.add_argument("--contenders", help="contenders, separated by commas, as in `kerasgen`")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds that a row may take (default: 90)")
    parser.add_argument("--peak-tflops", type=float, default=PEAK_TFLOPS, help="of the GPU in bfloat16 (default: 989)")
    parser.add_argument("--row", nargs=2, metavar=("PART", "CONTENDER"), help="measure one row in this process")
    chosen = parser.parse_args(arguments)
    shape = TOY if chosen.toy else Shape()
    rows = rows_of(shape)
    if chosen.row is not None:
        answer, sys.stdout = sys.stdout, sys.stderr
        found = rows[tuple(chosen.row)](shape)
        print(json.dumps(found), file=answer, flush=True)
        return found
    wanted = [
        (part, contender)
        for part, contender in rows
        if (chosen.only is None or part in chosen.only.split(","))
        and (chosen.contenders is None or contender in chosen.contenders.split(","))
    ]
    begin, told = time.perf_counter(), []
    for part, contender in wanted:
        left = SECONDS - (time.perf_counter() - begin)
        if left <= 0:
            told.append({"part": part, "contender": contender, "error": "the eight minutes were over"})
            continue
        how = {"toy": chosen.toy, "peak_tflops": chosen.peak_tflops}
        told.append(measured(part, contender, shape, limit=min(chosen.limit, left), **how))
        print(json.dumps(told[-1]), file=sys.stderr, flush=True)
    found = report(told, [], None)
    if chosen.json is not None:
        content = {"shape": dataclasses.asdict(shape), "seconds": time.perf_counter() - begin, **found}
        chosen.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
