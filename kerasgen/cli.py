"""`kerasgen` on the command line: a thin face over `Pipeline`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerasgen.errors import ArgumentError, KerasgenError

if TYPE_CHECKING:
    from kerasgen.pipeline import Pipeline
    from kerasgen.plugins import Registry

DEMO_PROMPT = "昨夜雨疏风骤"
DEMO_TOKENS = 48
_SURFACES = ["corpora", "models", "tuners", "samplers", "constraints", "exporters"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status: 0, 1 for a failure, 2 for wrong arguments."""
    # A terminal or a pipe may be set to another encoding; the texts here are rarely ASCII.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    # TensorFlow, where a backend or a package brings it in, tells of its build on every start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    chosen = _parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except ArgumentError as error:
        print(f"kerasgen: {error}", file=sys.stderr)
        return 2
    except KerasgenError as error:
        print(f"kerasgen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"kerasgen: {stop or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has had enough (head, less). Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kerasgen", description="From a corpus to a fine-tuned text generator, on Keras 3 and KerasHub."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="tune the starter on the sample corpus, and show what changed")
    demo.add_argument("--directory", type=Path, default=Path("kerasgen-demo"), help="where the tuned model is saved")
    demo.add_argument("--prompt", default=DEMO_PROMPT)
    _add_backend(demo)
    demo.set_defaults(run=_demo)

    listing = commands.add_parser(
        "list", help="show what is registered: corpora, models, tuners, samplers, constraints and exporters"
    )
    listing.add_argument("surface", nargs="?", choices=_SURFACES)
    listing.add_argument("name", nargs="?", help="describe this one")
    listing.set_defaults(run=_list)

    fit = commands.add_parser("fit", help="tune a model on a corpus and save it")
    fit.add_argument("corpus", help="such as sample, or text:path=poems.txt")
    fit.add_argument("--model", default="starter")
    fit.add_argument("--tuner", default="full", help="such as full:epochs=3,batch_size=8 or lora:rank=16")
    fit.add_argument("--sampler", default="top_k")
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument("--max-documents", type=int)
    fit.add_argument("--output", type=Path, required=True, help="where the tuned pipeline is saved")
    fit.add_argument("--directory", type=Path, help="where checkpoints are kept")
    fit.add_argument("--overwrite", action="store_true", help="replace a pipeline saved there before")
    _add_backend(fit)
    fit.set_defaults(run=_fit)

    generate = commands.add_parser("generate", help="write text with a saved pipeline or a model")
    generate.add_argument("source", help="a saved pipeline's directory, or a model such as starter")
    generate.add_argument("prompts", nargs="+")
    generate.add_argument("--sampler", help="such as top_p:p=0.9,temperature=0.8")
    generate.add_argument("--constraint", help="such as verse_form:form=七言絕句")
    generate.add_argument("--max-new-tokens", type=int, default=64)
    generate.add_argument("--seed", type=int)
    _add_backend(generate)
    generate.set_defaults(run=_generate)

    evaluate = commands.add_parser("evaluate", help="score texts under a saved pipeline or a model")
    evaluate.add_argument("source", help="a saved pipeline's directory, or a model such as starter")
    evaluate.add_argument("--corpus", help="all of it is scored; without it, the pipeline's own held-out part")
    _add_backend(evaluate)
    evaluate.set_defaults(run=_evaluate)

    measuring = commands.add_parser(
        "backend", help="measure which backend trains faster on this machine, and keep it for --backend auto"
    )
    measuring.set_defaults(run=_measure_backends)
    return parser


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=["auto", "jax", "tensorflow", "torch"], help="KERAS_BACKEND, or jax")


def _demo(chosen: argparse.Namespace) -> int:
    from kerasgen.pipeline import Pipeline
    from kerasgen.tuners.full import FullTuner

    begin = time.perf_counter()
    pipeline = Pipeline(
        corpus="sample",
        model="starter",
        tuner=FullTuner(epochs=2, learning_rate=1e-3, batch_size=8, warmup_steps=10),
        sampler="top_k:k=8,temperature=0.9",
        seed=0,
        backend=chosen.backend,
    )
    print("Loading the starter model …", flush=True)
    before_text = pipeline.generate(chosen.prompt, max_new_tokens=DEMO_TOKENS)
    before = pipeline.evaluate()
    print(f"{pipeline.model.causal_lm.count_params():,} weights on the backend {pipeline.backend}", flush=True)
    print("\nTuning it on the sample corpus …", flush=True)
    report = pipeline.fit()
    print(f"\n{report}\n")
    after_text = pipeline.generate(chosen.prompt, max_new_tokens=DEMO_TOKENS)
    after = pipeline.evaluate()
    print(f"--- before, same prompt and seed\n{before_text}\n")
    print(f"--- after\n{after_text}\n")
    print("held-out part of the sample corpus")
    print(f"  before: {before}")
    print(f"  after:  {after}\n")
    saved = pipeline.save(chosen.directory, overwrite=True)
    again = Pipeline.load(saved, backend=chosen.backend)
    same = again.generate(chosen.prompt, max_new_tokens=DEMO_TOKENS) == after_text
    print(f"Saved to {saved.resolve()} and loaded again: it writes {'the same text' if same else 'ANOTHER text'}.")
    print(f"  {saved / 'model'} is a KerasHub preset; {saved / 'pipeline.json'} says how it came about.")
    print(f"  kerasgen generate {saved} {chosen.prompt}")
    print(f"Done in {time.perf_counter() - begin:.0f} s.")
    return 0 if same and after.bits_per_character < before.bits_per_character else 1


def _list(chosen: argparse.Namespace) -> int:
    from kerasgen import constraints, corpora, exporters, models, samplers, tuners

    registries: dict[str, Registry[object]] = {
        "corpora": corpora.REGISTRY,  # type: ignore[dict-item]  # only names are asked for
        "models": models.REGISTRY,  # type: ignore[dict-item]
        "tuners": tuners.REGISTRY,  # type: ignore[dict-item]
        "samplers": samplers.REGISTRY,  # type: ignore[dict-item]
        "constraints": constraints.REGISTRY,  # type: ignore[dict-item]
        "exporters": exporters.REGISTRY,  # type: ignore[dict-item]
    }
    if chosen.name is not None:
        print(registries[chosen.surface].describe(chosen.name))
        return 0
    for surface in [chosen.surface] if chosen.surface else registries:
        print(f"{surface}: {', '.join(registries[surface].names())}")
    return 0


def _fit(chosen: argparse.Namespace) -> int:
    from kerasgen.pipeline import Pipeline

    pipeline = Pipeline(
        corpus=chosen.corpus,
        model=chosen.model,
        tuner=chosen.tuner,
        sampler=chosen.sampler,
        seed=chosen.seed,
        max_documents=chosen.max_documents,
        backend=chosen.backend,
    )
    pipeline.check_target(chosen.output, overwrite=chosen.overwrite)
    print(pipeline.fit(directory=chosen.directory))
    print(f"Saved to {pipeline.save(chosen.output, overwrite=chosen.overwrite)}")
    return 0


def _generate(chosen: argparse.Namespace) -> int:
    pipeline = _open(chosen)
    texts = pipeline.generate(
        chosen.prompts,
        sampler=chosen.sampler,
        constraint=chosen.constraint,
        seed=chosen.seed,
        max_new_tokens=chosen.max_new_tokens,
    )
    print("\n\n".join(texts))
    return 0


def _evaluate(chosen: argparse.Namespace) -> int:
    print(_open(chosen).evaluate(chosen.corpus))
    return 0


def _measure_backends(chosen: argparse.Namespace) -> int:
    from kerasgen import backend
    from kerasgen.tuners import choosing

    print("Training a small model on each backend, in turns. It takes a minute or two …", flush=True)
    path = backend.remember(choosing.measure())
    for name, speed in backend.remembered().items():
        print(f"{name:>10}: {speed:,.0f} tokens/s")
    print(f"{backend.AUTO} takes {backend.automatic()[0]} from now on, as {path} says.")
    return 0


def _open(chosen: argparse.Namespace) -> Pipeline:
    from kerasgen.pipeline import Pipeline
    from kerasgen.saved_pipeline import MANIFEST_FILE

    if (Path(chosen.source) / MANIFEST_FILE).is_file():
        return Pipeline.load(chosen.source, backend=chosen.backend)
    return Pipeline(model=chosen.source, backend=chosen.backend)
