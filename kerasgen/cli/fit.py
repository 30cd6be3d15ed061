"""`kerasgen fit`: a model tuned on a corpus, and saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import (
    Backend,
    Json,
    Template,
    Weights,
    assigned,
    once,
    option,
    verbosity,
)
from kerasgen.cli.json_output import show_json
from kerasgen.corpora.splits import HELD_OUT
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show

# The tuner's settings that nearly everybody sets; the others are written into --tuner, or given by --set.
_TUNER_SETTINGS = ("epochs", "max_steps", "learning_rate", "batch_size", "sequence_length")

_RECIPE_KEYS = {
    **{name: (name,) for name in ("output", "model", "tuner", "sampler", "seed", "held_out", "chat_template")},
    **{name: (name,) for name in ("max_documents", "sample", "backend", "weights", "streaming")},
    **{name: ("tuner", name) for name in _TUNER_SETTINGS},
    **{name: ("fit", name) for name in ("directory", "resume")},
}
"""Where a recipe has what a flag says."""


def _of_tuner(name: str, description: str) -> Any:
    return option(f"--{name.replace('_', '-')}", metavar="N", help=f"{description} (default: the tuner's)")


def run(
    context: typer.Context,
    corpus: Annotated[
        str | None,
        typer.Argument(
            metavar="CORPUS",
            help="such as sample, or text:path=poems.txt,split=paragraph; - reads paragraphs from standard input; a "
            "recipe's file that ends in .toml says corpus, model and all else",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="PATH",
            help="where the tuned pipeline is saved (default: the name of the recipe; without one, it is needed)",
        ),
    ] = None,
    model: Annotated[
        str,
        option(
            "--model",
            metavar="MODEL",
            help="starter, smollm2, a KerasHub preset's name, a model's directory or GGUF file (default: starter)",
        ),
    ] = "starter",
    tuner: Annotated[
        str, option("--tuner", metavar="TUNER", help="such as full:warmup_steps=20 or lora:rank=16 (default: full)")
    ] = "full",
    epochs: Annotated[int | None, _of_tuner("epochs", "passes over the corpus")] = None,
    max_steps: Annotated[int | None, _of_tuner("max_steps", "optimizer steps at most")] = None,
    learning_rate: Annotated[float | None, _of_tuner("learning_rate", "the highest learning rate")] = None,
    batch_size: Annotated[int | None, _of_tuner("batch_size", "rows of a step")] = None,
    sequence_length: Annotated[int | None, _of_tuner("sequence_length", "tokens of a row")] = None,
    assignments: Annotated[
        list[str] | None,
        option(
            "--set",
            metavar="KEY=VALUE",
            help="a further setting of the tuner, such as warmup_steps=20, or one of a recipe's, such as "
            "tuner.rank=16; may be repeated (default: none)",
        ),
    ] = None,
    sampler: Annotated[
        str, option("--sampler", metavar="SAMPLER", help="how the saved pipeline chooses tokens (default: top_k)")
    ] = "top_k",
    seed: Annotated[int, option("--seed", metavar="N", help="seed of the run and the saved pipeline (default: 0)")] = 0,
    held_out: Annotated[
        float,
        option("--held-out", metavar="SHARE", help=f"share of the corpus to hold out (default: {HELD_OUT})"),
    ] = HELD_OUT,
    chat_template: Template = None,
    max_documents: Annotated[
        int | None, option("--max-documents", metavar="N", help="documents read at most (default: all)")
    ] = None,
    sample: Annotated[
        Literal["first", "random"], option("--sample", help="which documents those are (default: first)")
    ] = "first",
    streaming: Annotated[
        bool,
        option("--streaming", help="read the corpus in windows, and keep neither texts nor tokens; needs --max-steps"),
    ] = False,
    directory: Annotated[
        Path | None,
        option("--directory", metavar="PATH", help="where checkpoints are kept (default: a folder of this run's)"),
    ] = None,
    resume: Annotated[
        bool | None,
        option(
            "--resume/--no-resume",
            help="insist on going on with an interrupted run, or on starting anew (default: go on if there is one)",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        option(
            "--from",
            metavar="MANIFEST",
            help="repeat the run of a manifest.json, or of the saved pipeline that it lies in, in place of CORPUS; the "
            "status is 1 if the losses are not the same to the bit (default: none)",
        ),
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="replace a pipeline saved there before")] = False,
    as_json: Json = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Tune, report and save."""
    from kerasgen.pipeline import Pipeline

    if (corpus is None) == (manifest is None):
        raise ArgumentError("fit needs CORPUS, a recipe, or a run to repeat by --from, and one of them.")
    if manifest is not None:
        return _repeat(context, manifest)
    assert corpus is not None
    if corpus.lower().endswith(".toml") and ":" not in corpus:
        return _recipe(context, Path(corpus))
    if output is None:
        raise ArgumentError("`output` is missing: where the tuned pipeline is saved. Write output=PATH.")
    flags = {name: context.params[name] for name in _TUNER_SETTINGS if context.params[name] is not None}
    pipeline = Pipeline(
        corpus=sources.corpus_of(corpus),
        model=model,
        tuner=_tuner(tuner, once(flags, assigned(assignments))),
        sampler=sampler,
        seed=seed,
        held_out=held_out,
        max_documents=max_documents,
        sample=sample,
        chat_template=chat_template,
        backend=backend,
        weights=weights,
        streaming=streaming,
    )
    pipeline.check_target(output, overwrite=overwrite)
    going_on: Any = "auto" if resume is None else resume
    report = pipeline.fit(directory=directory, resume=going_on, verbose=verbosity(as_json))
    if not as_json:
        show(report)
    saved = pipeline.save(output, overwrite=overwrite)
    if as_json:
        show_json({"saved": saved, "report": report})
    else:
        show(f"Saved to {saved}")
    return 0


def _recipe(context: typer.Context, file: Path) -> int:
    """Carry out a recipe, with the flags and `--set` in place of its own settings."""
    from kerasgen.cli import recipe_run
    from kerasgen.pipeline import Pipeline
    from kerasgen.recipes import reading

    recipe = reading.read(file, Pipeline, assignments=_assignments(context))
    if recipe.output is None:  # a run that leaves nothing is of no use
        recipe = dataclasses.replace(recipe, output=file.stem)
    recipe_run.carry_out(recipe, overwrite=context.params["overwrite"], as_json=context.params["as_json"])
    return 0


def _repeat(context: typer.Context, file: Path) -> int:
    """Repeat the run of a manifest, with the flags and `--set` in place of its own settings."""
    from kerasgen.cli import repeating

    given = {".".join(map(str, key)): value for key, value in _assignments(context).items() if key != ("output",)}
    return repeating.repeat(
        file,
        given,
        output=context.params["output"],
        overwrite=context.params["overwrite"],
        as_json=context.params["as_json"],
    )


def _assignments(context: typer.Context) -> dict[Any, Any]:
    """Return what flags and `--set` say, by the keys of a recipe.

    Raises:
        ArgumentError: one is said twice.
    """
    from kerasgen.recipes import assigning

    given: dict[Any, Any] = {}
    for name, key in _RECIPE_KEYS.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[name]
            given[key] = str(value) if isinstance(value, Path) else value
    further: dict[Any, Any] = {**assigning.parsed(context.params["assignments"] or ())}
    twice = sorted(".".join(map(str, key)) for key in given.keys() & further.keys())
    if twice:
        raise ArgumentError(f"{', '.join(twice)} must be said once. --set says it too.")
    return {**given, **further}


def _tuner(text: str, settings: Mapping[str, Any]) -> Any:
    """Return the tuner of `--tuner` with the settings of flags and `--set`.

    Raises:
        TuneArgumentError: one is given both ways, or is wrong.
    """
    from kerasgen import specs, tuners
    from kerasgen.errors import TuneArgumentError

    name, written = specs.split_text(text, error=TuneArgumentError)
    twice = sorted(settings.keys() & written.keys())
    if twice:
        raise TuneArgumentError(
            f"{', '.join(f'`{setting}`' for setting in twice)} must be said once. --tuner says it too."
        )
    return tuners.REGISTRY.build(name, {**written, **settings})
