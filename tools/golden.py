"""Record what the installed kerasgen computes, to the bit, and compare two records.

    python tools/golden.py record FILE.npz [--parts PART,…]
    python tools/golden.py compare BEFORE.npz AFTER.npz

A record holds ids, log-probabilities and logits of tiny GPT-2 and OPT models and of the starter, by engine and by
format, and the losses and final weights of training runs, by backend. Each part is computed in a process of its own, on
the kerasgen that this Python imports: call it by its path, not with `-m`, so that the checkout does not come first.
Only public names are used, so that one copy of this file records an old version and a new one. Records of two machines
differ in last bits; `tests/golden` has what must be the same everywhere.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import kerasgen as kg

Arrays = dict[str, Any]

NEW_TOKENS, SEED = 24, 7
SAMPLERS = {
    "greedy": "greedy",
    "top_k": "top_k:k=5,temperature=0.8",
    "top_p": "top_p:p=0.7",
    "beam": "beam:num_beams=4",
}
TINY_PROMPTS = ("the and", "昨夜雨疏风骤", "he ran home")
STARTER_PROMPTS = ("春", "昨夜雨疏风骤", "明月")
ARCHITECTURES = ("gpt2", "opt")
ARTEFACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "saved_model": ("saved_model", {}),
    "tflite": ("tflite", {}),
    "tflite_int8": ("tflite", {"quantize": "int8", "most_divergence": 10.0, "least_agreement": 0.0}),
    "gguf": ("gguf", {}),
}
UNBOUNDED = {"most_logit_difference": 100.0, "most_loss_increase": 100.0}  # rounding tiny random weights costs much
STEPS = 50
TUNING: dict[str, Any] = {
    "epochs": 20,
    "max_steps": STEPS,
    "batch_size": 2,
    "sequence_length": 32,
    "learning_rate": 2e-3,
    "warmup_steps": 5,
    "vocabulary": "keep",
    "precision": "float32",
}
# The form of 0.1.0, whose losses are recorded; 0.1.0 itself has no other.
AS_RECORDED: dict[str, Any] = {"form": "keras"} if "form" in kg.LoraTuner.__dataclass_fields__ else {}
TUNERS = {
    "full": (kg.FullTuner(**TUNING), 0.0),
    "lora": (kg.LoraTuner(**TUNING, rank=2, **AS_RECORDED), 0.0),
    "dropout": (kg.FullTuner(**TUNING, gradient_accumulation_steps=2), 0.1),
    "remat": (kg.FullTuner(**TUNING, remat=True), 0.1),
}
WORDS = ("the cat", "sat on", "a mat", "in the rain", "and", "then", "he ran", "home", "under", "an old bridge")
PARTS = (
    "jax",
    "tensorflow",
    *(
        f"{kind}.{name}"
        for name in (*ARCHITECTURES, "starter")
        for kind in ARTEFACTS
        if (kind, name) != ("gguf", "opt")
    ),
)


@dataclass(frozen=True)
class Tiny(kg.ModelSource):
    """Bring a tiny model whose weights are drawn by NumPy, the same on each backend.

    Args:
        architecture: one of `ARCHITECTURES`.
        dropout: share of activations that training drops, 0 to 1.
        own: make its class one that kerasgen doesn't know, which KerasHub's own forward pass must decode.
    """

    architecture: str
    dropout: float = 0.0
    own: bool = False

    def load(self) -> kg.LanguageModel:
        """Return the model."""
        from tiny import tiny_gpt2, tiny_opt

        model = {"gpt2": tiny_gpt2, "opt": tiny_opt}[self.architecture](dropout=self.dropout)
        if self.own:
            kind = type(model.causal_lm)
            model.causal_lm = type(f"Own{kind.__name__}", (kind,), {})(backbone=model.backbone, preprocessor=None)
        return model


def pipeline(name: str, *, own: bool = False) -> kg.Pipeline:
    """The pipeline of a model, and no corpus."""
    return kg.Pipeline(model="starter" if name == "starter" else Tiny(name, own=own))


def prompts_of(name: str) -> list[str]:
    """The prompts that a model goes on from."""
    return list(STARTER_PROMPTS if name == "starter" else TINY_PROMPTS)


def generated(pipe: kg.Pipeline, name: str) -> Arrays:
    """Ids, log-probabilities and scores of each sampler and prompt."""
    arrays: Arrays = {}
    for sampler, spec in SAMPLERS.items():
        texts = pipe.generate(
            prompts_of(name), sampler=spec, max_new_tokens=NEW_TOKENS, seed=SEED, return_logprobs=True
        )
        for place, text in enumerate(texts):
            arrays[f"{sampler}/{place}/ids"] = np.asarray(text.token_ids, np.int32)
            arrays[f"{sampler}/{place}/logprobs"] = np.asarray([*text.logprobs, text.score], np.float64)
    return arrays


def tuned(architecture: str, tuner: str) -> Arrays:
    """Losses, validations and final weights of a run, on the backend of this process."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 8))) for _ in range(40)]
    settings, dropout = TUNERS[tuner]
    with tempfile.TemporaryDirectory() as folder:
        pipe = kg.Pipeline(texts, Tiny(architecture, dropout), tuner=settings, seed=SEED, cache=folder)
        report = pipe.fit(directory=Path(folder) / "run", resume=False, verbose=0)
    return {
        "losses": np.asarray(report.losses),
        "validations": np.asarray([validation.loss for validation in report.validations]),
        "weights": np.concatenate([np.asarray(value).ravel() for value in pipe.model.causal_lm.trainable_weights]),
    }


def exported(kind: str, name: str, folder: Path) -> Arrays:
    """Ids of each sampler that an artefact can do, and its logits of a text where it shows them."""
    exporter, settings = ARTEFACTS[kind]
    if kind == "tflite_int8" and name != "starter":
        settings = settings | UNBOUNDED
    pipe = pipeline(name)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        artefact = pipe.export(Path(made) / {"gguf": "a.gguf", "saved_model": "a_saved_model"}.get(kind, "a.tflite"),
                               exporter=exporter, **settings)  # fmt: skip
        runtime = kg.load_artefact(artefact.path)
        prompts = runtime.tokenizer.encode_batch(prompts_of(name))
        arrays: Arrays = {}
        for sampler, spec in SAMPLERS.items():
            try:
                texts = runtime.generate_ids(prompts, sampler=spec, max_new_tokens=NEW_TOKENS, seed=SEED)
            except kg.errors.GenerateArgumentError as refused:
                print(f"{kind} of {name}: {refused}", file=sys.stderr)
                continue
            arrays |= {f"{sampler}/{place}/ids": np.asarray(ids, np.int32) for place, ids in enumerate(texts)}
        try:
            arrays["logits"] = np.asarray(runtime.logits(prompts[1]))
        except kg.errors.GenerateArgumentError as refused:
            print(f"{kind} of {name}: {refused}", file=sys.stderr)
        return arrays


def computed(part: str, folder: Path) -> Iterator[tuple[str, Arrays]]:
    """The arrays of a part, named."""
    if part not in ("jax", "tensorflow"):
        kind, name = part.split(".")
        yield part, exported(kind, name, folder)
        return
    for name in (*ARCHITECTURES, "starter"):
        yield f"{part}.{name}.decoder", generated(pipeline(name), name)
        if name != "starter":
            yield f"{part}.{name}.keras", generated(pipeline(name, own=True), name)
            for tuner in TUNERS:
                yield f"{part}.{name}.{tuner}", tuned(name, tuner)


def record(path: Path, parts: Sequence[str]) -> None:
    """Compute each part in a process of its own and write all of them into one file; what it holds of others stays."""
    merged: Arrays = dict(np.load(path)) if path.exists() else {}
    for part in parts:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "part.npz"
            backend = part if part in ("jax", "tensorflow") else "jax"
            environment = os.environ | {"KERAS_BACKEND": backend, "KERASGEN_CACHE": folder, "PYTHONUTF8": "1"}
            command = [sys.executable, str(Path(__file__).resolve()), "part", str(made), "--parts", part]
            subprocess.run(command, env=environment, check=True)
            merged = {key: value for key, value in merged.items() if key.split("/")[0] != part} | dict(np.load(made))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **merged)
        print(f"{part}: {time.perf_counter() - begin:.0f} s", flush=True)


def compare(before: Path, after: Path) -> int:
    """Say which arrays differ and by how much; returns their number. What only one record holds is said apart."""
    old, new = np.load(before), np.load(after)
    differing = 0
    for key in sorted(set(old) & set(new)):
        was, now = old[key], new[key]
        if was.dtype == now.dtype and was.shape == now.shape and was.tobytes() == now.tobytes():
            continue
        differing += 1
        by = (
            "another shape"
            if was.shape != now.shape
            else f"up to {np.abs(was.astype(float) - now.astype(float)).max():.3g}"
        )
        print(f"differs: {key} ({by})")
    for key in sorted(set(old) ^ set(new)):
        print(f"only in the {'first' if key in old else 'second'}: {key}")
    print(f"{len(set(old) & set(new)) - differing} arrays equal to the bit, {differing} differ")
    return differing


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["record", "compare", "part"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}. There are {', '.join(PARTS)}")
    if arguments.command == "compare":
        return int(compare(*arguments.files) > 0)
    if arguments.command == "record":
        record(arguments.files[0], parts)
        return 0
    arrays: Arrays = {}
    for name, found in computed(parts[0], arguments.files[0].parent):
        # The part is before the slash, and so is replaced as a whole when it is recorded again.
        arrays |= {f"{parts[0]}/{name.removeprefix(parts[0]).strip('.')}/{key}": value for key, value in found.items()}
    np.savez_compressed(arguments.files[0], **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
