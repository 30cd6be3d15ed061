"""`kerasgen demo`: the whole way in a minute, with what changed shown before and after."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kerasgen.cli.arguments import add_backend, verbosity
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show

NAME = "demo"
HELP = "tune the starter on the sample corpus, and show what changed"

TOKENS = 48
PROMPTS = {"zh": "昨夜雨疏风骤", "en": "The neighbour"}
MARKER = "kerasgen-demo.txt"
_MARKED = "`kerasgen demo` made this directory, and replaces it when it runs again.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "--language",
        choices=list(PROMPTS),
        default="zh",
        help="of the sample's texts; the starter has read Chinese verse alone, so English is new to it",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("kerasgen-demo"),
        metavar="PATH",
        help="where the tuned model is saved; an earlier demo's is replaced",
    )
    parser.add_argument("--prompt", help=f"what to go on from (default: {PROMPTS['zh']}, or {PROMPTS['en']})")
    add_backend(parser)


def run(chosen: argparse.Namespace) -> int:
    """Tune, write with the same prompt and seed before and after, evaluate, save and load again."""
    from kerasgen.pipeline import Pipeline
    from kerasgen.tuners.full import FullTuner

    target = chosen.directory.expanduser()
    if target.exists() and not (target / MARKER).is_file():
        raise ArgumentError(
            f"{str(target)!r} is there already, and no demo made it. Say another `directory`, or move it away."
        )
    prompt = PROMPTS[chosen.language] if chosen.prompt is None else chosen.prompt
    begin = time.perf_counter()
    pipeline = Pipeline(
        corpus=f"sample:language={chosen.language}",
        model="starter",
        tuner=FullTuner(epochs=2, learning_rate=1e-3, batch_size=8, warmup_steps=10),
        sampler="top_k:k=8,temperature=0.9",
        seed=0,
        backend=chosen.backend,
    )
    show("Loading the starter, a small model of classical Chinese verse …")
    if chosen.language != "zh":
        show("It has never read English: what it writes before, and its figures, are those of a beginner.")
    before_text = pipeline.generate(prompt, max_new_tokens=TOKENS)
    before = pipeline.evaluate()
    show(f"{pipeline.model.network.count_params():,} weights on the backend {pipeline.backend}")
    show("\nTuning it on the sample corpus …")
    report = pipeline.fit(verbose=verbosity())
    show(f"\n{report}\n")
    after_text = pipeline.generate(prompt, max_new_tokens=TOKENS)
    after = pipeline.evaluate()
    show(f"--- before, same prompt and seed\n{before_text}\n")
    show(f"--- after\n{after_text}\n")
    show("held-out part of the sample corpus")
    show(f"  before: {before}")
    show(f"  after:  {after}\n")
    saved = pipeline.save(target, overwrite=True)
    (saved / MARKER).write_text(_MARKED, encoding="utf-8")
    again = Pipeline.load(saved, backend=chosen.backend)
    same = again.generate(prompt, max_new_tokens=TOKENS) == after_text
    show(f"Saved to {saved.resolve()} and loaded again: it writes {'the same text' if same else 'ANOTHER text'}.")
    show(f"  {saved / 'model'} is a KerasHub preset; {saved / 'pipeline.json'} says how it came about.")
    show(f"  kerasgen generate {saved} {prompt!r}")
    show(f"Done in {time.perf_counter() - begin:.0f} s.")
    return 0 if same and after.bits_per_character < before.bits_per_character else 1
