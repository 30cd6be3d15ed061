"""SmolLM2 tuned by adapters on posts, by kerasgen and by peft: the same weights, first matrices and batches.

    python -m benchmarks.peft_beside [--steps N] [--length N] [--batch N] [--held-out N] [--json FILE]
                                     [--backend NAME] [--quantize int8|int4] [--keep FOLDER] [--quick]

Needs torch, transformers and peft. A row is of one post, a step some rows in the same order for both, with AdamW, a
constant learning rate of 5e-4 and a clipped norm. Each contender is a process of its own, one after the other, whose
peak memory is that of its whole life. Told are the furthest that two losses of a step are apart, held-out bits a
character, and tokens a second after the first step. `--keep` keeps kerasgen's adapters; `--quick` is a trial of two
short steps.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import DATA, Figures, bar, report
from kerasgen import devices

HELD_OUT = 48  # rows
RANK, ALPHA, RATE, EPSILON = 8, 16.0, 5e-4, 1e-7


@dataclass(frozen=True)
class Sizes:
    """How much is read: optimizer steps, tokens of a row that are predicted, rows of a step, rows held out."""

    steps: int
    length: int
    batch: int
    held_out: int = HELD_OUT


def prepare(folder: Path, sizes: Sizes) -> None:
    """Write what both contenders read: transformers' weights and settings, adapters that begin, and rows of tokens."""
    from safetensors.numpy import save_file

    from kerasgen.models import architectures, described
    from kerasgen.models.architectures import tensors
    from kerasgen.models.smollm2 import Smollm2
    from kerasgen.tuners import adapters, peft_files

    model = Smollm2().load()
    config, weights = described.decoder_of(model)
    architecture = architectures.named(config.architecture)
    assert architecture is not None
    file = tensors.write(architecture, config, weights, "transformers")
    save_file({name: np.ascontiguousarray(array) for name, array in file.items()}, str(folder / "model.safetensors"))
    (folder / "settings.json").write_text(json.dumps(architecture.settings(config)), encoding="utf-8")
    adapters.enable(model, adapters.AdapterConfig(RANK, ALPHA, ("all",)), seed=0)
    peft_files.write(model, folder / "start")
    with lzma.open(DATA / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as posts:
        texts = [post["selftext"] for post in map(json.loads, posts) if post["selftext"] and not post.get("nsfw")]
    rows: list[list[int]] = []
    size, wanted = sizes.length + 1, sizes.held_out + sizes.steps * sizes.batch
    for text in texts:
        ids = model.tokenizer.encode(text)
        rows += [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
        if len(rows) >= wanted:
            break
    held_out = rows[: sizes.held_out]
    np.save(folder / "rows.npy", np.asarray(rows[:wanted], np.int32))
    np.save(folder / "characters.npy", np.asarray([len(model.tokenizer.decode(row[1:])) for row in held_out]))


def kerasgen(folder: Path, sizes: Sizes, quantize: Any) -> Figures:
    """Tune by kerasgen."""
    from kerasgen import LoraTuner
    from kerasgen.models.smollm2 import Smollm2
    from kerasgen.tokens.encoding import EncodedDocuments
    from kerasgen.tuners import adapters, peft_files

    model = Smollm2().load()
    adapters.hold(model, quantize)
    config = peft_files.read(model, folder / "start")
    rows, characters = np.load(folder / "rows.npy"), np.load(folder / "characters.npy")

    def documents(of: Any, counts: Any) -> EncodedDocuments:
        return EncodedDocuments(of.reshape(-1), np.arange(len(of) + 1, dtype=np.int64) * (sizes.length + 1), counts)

    train = rows[sizes.held_out :]
    settings: dict[str, Any] = {
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": config.targets,
        "quantize": quantize,
    }
    settings |= {
        "learning_rate": RATE,
        "schedule": "constant",
        "batch_size": sizes.batch,
        "sequence_length": sizes.length,
    }
    settings |= {"packing": "none", "precision": "float32", "vocabulary": "keep", "validation_tokens": None}
    tuner = LoraTuner(**settings)
    with tempfile.TemporaryDirectory() as run:
        told = tuner.tune(
            model,
            documents(train, np.full(len(train), sizes.length + 1, np.int64)),
            documents(rows[: sizes.held_out], characters.astype(np.int64)),
            seed=0,
            directory=Path(run),
            verbose=0,
        )
    peft_files.write(model, folder / "tuned")
    return {
        "losses": list(told.losses),
        "bits_before": told.bits_per_character_before,
        "bits_after": told.bits_per_character,
        "tokens_per_second": told.steady_tokens_per_second,
    }


def peft(folder: Path, sizes: Sizes, quantize: Any) -> Figures:
    """Tune by peft, the rows in the order that kerasgen's run has them."""
    import peft as library  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import torch  # type: ignore[import-not-found, unused-ignore]
    import transformers  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from safetensors.torch import load_file

    settings = transformers.LlamaConfig(**json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    model = transformers.LlamaForCausalLM(settings)
    model.load_state_dict(load_file(str(folder / "model.safetensors")), strict=False)
    model.tie_weights()
    model = library.PeftModel.from_pretrained(model, str(folder / "start"), is_trainable=True)
    rows, characters = np.load(folder / "rows.npy"), np.load(folder / "characters.npy")
    train = rows[sizes.held_out :]
    order = np.random.default_rng([0, 0]).permutation(len(train))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.999), eps=EPSILON, weight_decay=0.0)

    def nats(batch: Any) -> Any:
        ids = torch.from_numpy(batch.astype(np.int64))
        logits = model(ids[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def held_out() -> float:
        model.eval()
        with torch.no_grad():
            total = sum(float(nats(rows[place : place + 1])) for place in range(sizes.held_out)) * sizes.length
        model.train()
        return total / math.log(2) / float(characters.sum())

    before, losses, seconds = held_out(), [], []
    for step in range(sizes.steps):
        begin = time.perf_counter()
        loss = nats(train[order[step * sizes.batch : (step + 1) * sizes.batch]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - begin)
    return {
        "losses": losses,
        "bits_before": before,
        "bits_after": held_out(),
        "tokens_per_second": sizes.batch * sizes.length * (sizes.steps - 1) / sum(seconds[1:]),
    }


def main() -> None:
    """Run both contenders, a process each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--length", type=int, default=256, help="tokens of a row that are predicted")
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="rows")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--quantize", choices=("int8", "int4"))
    parser.add_argument("--keep", type=Path, help="a new folder for kerasgen's adapters")
    parser.add_argument("--quick", action="store_true", help="two steps of one short row, to see that it runs")
    parser.add_argument("--row", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    asked = Sizes(arguments.steps, arguments.length, arguments.batch, arguments.held_out)
    sizes = Sizes(2, 16, 1, 2) if arguments.quick else asked
    if arguments.row:
        who, folder = arguments.row[0], Path(arguments.row[1])
        if who == "prepare":
            prepare(folder, sizes)
            return
        contenders: dict[str, Callable[..., Figures]] = {"kerasgen": kerasgen, "peft": peft}
        found = contenders[who](folder, sizes, arguments.quantize)
        found |= {"contender": who, **asdict(sizes), "peak_bytes": devices.peak_memory_bytes()}
        (folder / f"{who}.json").write_text(json.dumps(found), encoding="utf-8")
        return
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as name:
        for who in ("prepare", "kerasgen", "peft"):
            command = [sys.executable, "-m", "benchmarks.peft_beside", "--row", who, name]
            command += [f"--steps={sizes.steps}", f"--length={sizes.length}", f"--batch={sizes.batch}"]
            command += [f"--held-out={sizes.held_out}"]
            command += ["--quantize", arguments.quantize] if arguments.quantize else []
            command += ["--quick"] if arguments.quick else []
            subprocess.run(command, env=os.environ | {"KERAS_BACKEND": arguments.backend}, check=True)
            if who == "kerasgen" and arguments.keep:
                shutil.copytree(Path(name, "tuned"), arguments.keep)
            if who != "prepare":
                rows.append(json.loads(Path(name, f"{who}.json").read_text(encoding="utf-8")))
                sys.stderr.write(json.dumps({key: rows[-1][key] for key in rows[-1] if key != "losses"}) + "\n")
    ours, theirs = (np.asarray(row.pop("losses")) for row in rows)
    furthest = float(np.abs(ours / theirs - 1).max())
    sys.stderr.write(f"losses of a step differ by {furthest:.2g} of them at most\n")
    bars = []
    if arguments.quantize is None:
        bars = [bar("share by which a loss differs from peft's, at most", furthest, at_most=0.01)]
    report(rows, bars, arguments.json)


if __name__ == "__main__":
    main()
