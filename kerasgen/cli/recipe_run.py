"""Carries out a recipe: tunes, saves, evaluates, writes texts and exports, as the recipe asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import specs
from kerasgen.cli.arguments import verbosity
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.files import staging
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.recipes.reading import Recipe


def carry_out(recipe: Recipe, *, overwrite: bool, as_json: bool) -> dict[str, Any]:
    """Do what a recipe asks for, and show the results of each step as they come.

    Args:
        recipe: as it was read.
        overwrite: replace what a run wrote there before.
        as_json: show nothing but one JSON object at the end.

    Returns:
        The results by the names of the steps.

    Raises:
        KerasgenError: a step can't be carried out; those before it are done.
    """
    pipeline = recipe.pipeline
    if recipe.output is not None:
        pipeline.check_target(recipe.output, overwrite=overwrite)
    _check_targets(recipe, overwrite=overwrite)
    _check_evaluation(recipe)
    done: dict[str, Any] = {}

    def tell(name: str, value: Any, text: str | None = None) -> None:
        done[name] = value
        if not as_json:
            show(value if text is None else text)

    tell("report", pipeline.fit(**recipe.fit, verbose=verbosity(as_json)))
    if recipe.output is not None:
        saved = pipeline.save(recipe.output, overwrite=overwrite)
        tell("saved", saved, f"Saved to {saved}")
    if recipe.evaluate is not None:
        tell("evaluation", pipeline.evaluate(**recipe.evaluate))
    if recipe.samples is not None:
        settings = {name: value for name, value in recipe.samples.items() if name not in ("prompts", "path")}
        texts = pipeline.generate(list(recipe.samples["prompts"]), **settings)
        written = "\n\n".join(map(str, _flat(texts)))
        tell("samples", texts, written)
        if recipe.samples.get("path") is not None:
            staging.replace(Path(recipe.samples["path"]).expanduser(), written + "\n")
    artefacts = []
    for export in recipe.exports:
        artefacts.append(pipeline.export(export.path, exporter=export.exporter, overwrite=overwrite))
        tell("exports", artefacts, str(artefacts[-1]))
    if as_json:
        show_json(done)
    return done


def _flat(texts: Any) -> list[Any]:
    return [one for each in texts for one in _flat(each)] if isinstance(texts, list) else [texts]


def _check_targets(recipe: Recipe, *, overwrite: bool) -> None:
    """Refuse what is in the way before the run, which may take hours.

    Raises:
        ArgumentError: a file or folder is there already.
    """
    paths = [export.path for export in recipe.exports]
    samples = (recipe.samples or {}).get("path")
    paths += [] if samples is None else [Path(samples).expanduser()]
    for path in paths:
        if path.exists() and not overwrite:
            raise ArgumentError(f"{path} is there already. Choose another path, or pass overwrite=True.")


def _check_evaluation(recipe: Recipe) -> None:
    """Raise an `ArgumentError` for settings that `evaluate` would refuse after the run."""
    if recipe.evaluate is None:
        return
    from kerasgen.evaluation import generated, scores_file

    settings = recipe.evaluate
    for name, least in (("batch_size", 1), ("max_new_tokens", 1)):
        if name in settings:
            specs.check_whole(name, settings[name], least=least)
    texts = settings.get("texts", 0)
    generated.check(texts, self_bleu=settings.get("self_bleu", True))
    generated.prompts_of(settings.get("prompt", ""), texts)
    scores_file.check_path(settings.get("scores_path"))
