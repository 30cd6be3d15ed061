"""Pushes a pipeline: looks at the hub, exports and proves, writes the card, and commits all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import exporters
from kerasgen.errors import HubArgumentError
from kerasgen.exporters import masked_models
from kerasgen.exporters.base import Artefact
from kerasgen.files import temporary
from kerasgen.models import kinds, licences
from kerasgen.publishing import card_text, formats, known, model_card, portable
from kerasgen.publishing.formats import Format, Layout
from kerasgen.publishing.model_card import ModelCard
from kerasgen.publishing.plan import Publication, Push, repository_of
from kerasgen.runtime import metadata

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation
    from kerasgen.publishing.publisher import Publisher


def card(
    pipeline: Publisher,
    repo_id: str | None = None,
    *,
    formats: Any = (),
    prompts: Iterable[str] | None = None,
    evaluation: Evaluation | None = None,
) -> ModelCard:
    """Return the card that is made of what is known; see `Pipeline.model_card`."""
    repository = None if repo_id is None else repository_of(repo_id)
    layout = _layout(pipeline, formats, "poet" if repository is None else repository.rpartition("/")[2])
    _check_evaluation(evaluation)
    about = known.known(pipeline, prompts=prompts, evaluation=evaluation)
    reports = {each.place: each.artefact.report for each in layout.formats if each.artefact is not None}
    made = card_text.written(about, layout, repository=repository, reports=reports)
    made.check()
    return made


def push(
    pipeline: Publisher, push: Push, *, evaluation: Evaluation | None = None, progress: bool | None = None
) -> Publication:
    """Push, and return what was pushed; see `Pipeline.push_to_hub`."""
    given = model_card.given(push.card)
    _check_evaluation(evaluation)
    if push.is_kaggle:
        from kerasgen.publishing import kaggle

        return kaggle.push(pipeline, push, given, evaluation=evaluation, progress=progress)
    layout = _layout(pipeline, push.formats, push.stem, has_pipeline=push.pipeline)
    from kerasgen.publishing.client import Client

    client = Client(push)
    target = client.look()
    try:
        if given is not None:
            client.validate(given)
        with temporary.folder() as folder:
            files, artefacts = staged(pipeline, layout, Path(folder), progress=progress)
            made = given or _card(pipeline, push, layout, artefacts, client.repository, evaluation)
            _write_card(made, files, Path(folder))
            removed = client.outdated(target, files)
            url, commit, pushed_to = client.commit(target, files, removed)
            sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
    except BaseException:
        client.drop(target)
        raise
    return Publication(
        repository=client.repository,
        url=url,
        commit=commit,
        revision=push.revision or "main",
        files=sizes,
        removed=tuple(removed),
        artefacts=artefacts,
        card=made,
        is_private=pushed_to.is_private if pushed_to.is_private is not None or not pushed_to.was_made else push.private,
    )


def staged(
    pipeline: Publisher, layout: Layout, folder: Path, *, progress: bool | None
) -> tuple[dict[str, Path], dict[str, Artefact]]:
    """Write all that is pushed but the card into a folder; return the files and the artefacts by their places.

    Raises:
        ExportError: an artefact did not prove equal.
        HubArgumentError: two files have one place.
    """
    files: dict[str, Path] = {}
    artefacts: dict[str, Artefact] = {}
    for each in layout.formats:
        artefact = each.artefact or _exported(pipeline, each, folder / "artefacts", progress)
        artefacts[each.place] = replace(artefact, path=Path(each.place or "."))
        _add(files, _files_of(artefact, each))
    if layout.has_pipeline:
        place = portable.save(pipeline, folder / "pipeline")
        _add(files, {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()})
    notices = folder / "notices"
    notices.mkdir()
    licences.write(pipeline.model.metadata, notices, card=False)
    files |= {path.name: path for path in notices.iterdir()}
    return files, artefacts


def _exported(pipeline: Publisher, each: Format, folder: Path, progress: bool | None) -> Artefact:
    folder.mkdir(exist_ok=True)
    assert each.exporter is not None
    return pipeline.export(folder / (each.place or each.name), exporter=each.exporter, progress=progress)


def _files_of(artefact: Artefact, each: Format) -> dict[str, Path]:
    """Return an artefact's files by their names in the repository; the card of a directory gives way to the push's."""
    path = artefact.path
    if path.is_dir():
        prefix = f"{each.place}/" if each.place else ""
        found = {f"{prefix}{inner.relative_to(path).as_posix()}": inner for inner in path.rglob("*") if inner.is_file()}
        return {name: inner for name, inner in found.items() if name != model_card.FILE}
    named = [path, *(path.with_name(name) for name in artefact.report.get("files", {}))]
    beside = [metadata.report_path(path), path.with_name(f"{path.name}.md")]
    return {place.name: place for place in (*named, *beside) if place.is_file()}


def _add(files: dict[str, Path], more: Mapping[str, Path]) -> None:
    twice = sorted(files.keys() & more.keys())
    if twice:
        raise HubArgumentError(f"Two of the formats would write {twice[0]!r}. Push one of them to another repository.")
    files.update(more)


def _write_card(made: ModelCard, files: dict[str, Path], folder: Path) -> None:
    place = folder / model_card.FILE
    place.write_text(made.content, encoding="utf-8", newline="")
    files[model_card.FILE] = place


def _card(
    pipeline: Publisher,
    push: Push,
    layout: Layout,
    artefacts: Mapping[str, Artefact],
    repository: str,
    evaluation: Evaluation | None,
) -> ModelCard:
    about = known.known(pipeline, prompts=None, evaluation=evaluation)
    reports = {place: artefact.report for place, artefact in artefacts.items()}
    made = card_text.written(about, layout, repository=repository, revision=push.revision, reports=reports)
    return model_card.edited(push.card, made)


def _layout(pipeline: Publisher, asked: Any, stem: str, *, has_pipeline: bool = True) -> Layout:
    """Return where each format goes, and refuse those that can't be written of this kind of model."""
    layout = formats.layout(asked, stem, pipeline=has_pipeline)
    if layout.formats and kinds.is_masked(pipeline.model_source, pipeline._model):
        for each in layout.formats:
            if each.exporter is not None:
                masked_models.check(each.exporter, exporters.REGISTRY.name_of(each.exporter) or each.name)
    return layout


def _check_evaluation(evaluation: Any) -> None:
    from kerasgen.evaluation.base import Evaluation

    if evaluation is not None and not isinstance(evaluation, Evaluation):
        raise HubArgumentError(f"`evaluation` must be what evaluate() returned. Received: {evaluation!r:.80}.")
