"""`kerasgen fit`: a model tuned on a corpus, and saved."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_weights, verbosity
from kerasgen.corpora.held_out_split import SAMPLES
from kerasgen.corpora.splits import HELD_OUT
from kerasgen.terminal import show

NAME = "fit"
HELP = "tune a model on a corpus and save it"

# The tuner's settings that nearly everybody sets; the others are written into --tuner.
_TUNER_SETTINGS: dict[str, tuple[type, str]] = {
    "epochs": (int, "passes over the corpus"),
    "max_steps": (int, "optimizer steps at most"),
    "learning_rate": (float, "the highest learning rate"),
    "batch_size": (int, "rows of a step"),
    "sequence_length": (int, "tokens of a row"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "corpus",
        metavar="CORPUS",
        help="such as sample, or text:path=poems.txt,split=paragraph; - reads paragraphs from standard input",
    )
    parser.add_argument(
        "--model",
        default="starter",
        help="starter, smollm2, a KerasHub preset's name, a model's directory or GGUF file",
    )
    parser.add_argument("--tuner", default="full", help="such as full:warmup_steps=20 or lora:rank=16")
    for name, (kind, description) in _TUNER_SETTINGS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar="N", help=f"{description} (default: the tuner's)"
        )
    parser.add_argument("--sampler", default="top_k", help="how the saved pipeline chooses tokens")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the run and the saved pipeline")
    parser.add_argument(
        "--held-out", type=float, default=HELD_OUT, metavar="SHARE", help="of the corpus that is never trained on"
    )
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help="chatml, llama3, gemma, alpaca or a template's file, which writes conversations (default: its own)",
    )
    parser.add_argument("--max-documents", type=int, metavar="N", help="read so many at most (default: all)")
    parser.add_argument("--sample", choices=SAMPLES, default="first", help="which documents those are")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PATH", help="where the tuned pipeline is saved"
    )
    parser.add_argument(
        "--directory", type=Path, metavar="PATH", help="where checkpoints are kept (default: a folder of this run's)"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        help="insist on going on with an interrupted run, or on starting anew (default: go on if there is one)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a pipeline saved there before")
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Tune, report and save."""
    from kerasgen.pipeline import Pipeline

    pipeline = Pipeline(
        corpus=sources.corpus_of(chosen.corpus),
        model=chosen.model,
        tuner=_tuner(chosen),
        sampler=chosen.sampler,
        seed=chosen.seed,
        held_out=chosen.held_out,
        max_documents=chosen.max_documents,
        sample=chosen.sample,
        chat_template=chosen.chat_template,
        backend=chosen.backend,
        weights=chosen.weights,
    )
    pipeline.check_target(chosen.output, overwrite=chosen.overwrite)
    resume: Any = "auto" if chosen.resume is None else chosen.resume
    show(pipeline.fit(directory=chosen.directory, resume=resume, verbose=verbosity()))
    show(f"Saved to {pipeline.save(chosen.output, overwrite=chosen.overwrite)}")
    return 0


def _tuner(chosen: argparse.Namespace) -> Any:
    """Return the tuner of `--tuner` with the settings that have flags of their own.

    Raises:
        TuneArgumentError: one is given both ways, or is wrong.
    """
    from kerasgen import specs, tuners
    from kerasgen.errors import TuneArgumentError

    settings = {name: getattr(chosen, name) for name in _TUNER_SETTINGS if getattr(chosen, name) is not None}
    name, written = specs.split_text(chosen.tuner, error=TuneArgumentError)
    twice = sorted(settings.keys() & written.keys())
    if twice:
        raise TuneArgumentError(
            f"{', '.join(f'`{setting}`' for setting in twice)} must be said once. --tuner says it too."
        )
    return tuners.REGISTRY.build(name, {**written, **settings})
