"""Pushes a KerasHub preset to Kaggle, Keras's own hub, by KerasHub's `upload_preset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kerasgen import exporters
from kerasgen.errors import HubArgumentError, HubError, MissingDependencyError
from kerasgen.files import temporary
from kerasgen.models import hugging_face
from kerasgen.models.addresses import KAGGLE
from kerasgen.publishing import card_text, formats, known, model_card
from kerasgen.publishing.model_card import ModelCard
from kerasgen.publishing.plan import Publication, Push

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation
    from kerasgen.publishing.publisher import Publisher


def push(
    pipeline: Publisher, push: Push, card: ModelCard | None, *, evaluation: Evaluation | None, progress: bool | None
) -> Publication:
    """Export a preset, prove it, and let KerasHub upload it with the card as its README.

    Args:
        pipeline: the pipeline.
        push: what is asked for.
        card: the one to push, or None for the one made.
        evaluation: whose figures are told.
        progress: as of `Pipeline.export`.

    Raises:
        HubArgumentError: what was asked for is no preset alone.
        HubError: Kaggle can't be reached, or refuses.
        MissingDependencyError: its client is not installed.
    """
    layout = formats.layout(push.formats or "preset", push.stem, pipeline=False)
    names = [each.name for each in layout.formats]
    if names != ["preset"] or layout.has_pipeline:
        raise HubArgumentError(
            "On Kaggle lies a KerasHub preset alone. Leave `formats` out, or write formats=['preset']. Received: "
            f"formats={push.formats!r:.120}."
        )
    for name in ("revision", "token"):
        if getattr(push, name) is not None:
            raise HubArgumentError(f"Kaggle has no `{name}`. Leave it out; kagglehub.login() asks for its key.")
    try:
        import kagglehub
    except ImportError as cause:
        raise MissingDependencyError(
            "Kaggle needs a package that is not installed: pip install kagglehub.", package="kagglehub"
        ) from cause
    _check_login(kagglehub, push.repo_id)
    preset = layout.formats[0]
    with temporary.folder() as folder:
        exporter = preset.exporter or exporters.REGISTRY.create("preset")
        artefact = preset.artefact or pipeline.export(Path(folder) / "preset", exporter=exporter, progress=progress)
        made = card
        if made is None:
            about = known.known(pipeline, prompts=None, evaluation=evaluation)
            reports = {preset.place: artefact.report}
            made = model_card.edited(push.card, card_text.written(about, layout, repository=None, reports=reports))
        place = artefact.path / model_card.FILE
        before = place.read_bytes() if place.is_file() else None
        try:
            place.write_text(made.content, encoding="utf-8", newline="")
            files = {
                path.relative_to(artefact.path).as_posix(): path.stat().st_size
                for path in sorted(artefact.path.rglob("*"))
                if path.is_file()
            }
            _upload(push.repo_id, artefact.path)
        finally:
            if before is None:
                place.unlink(missing_ok=True)
            else:
                place.write_bytes(before)
    handle = push.repo_id.removeprefix(KAGGLE)
    return Publication(
        repository=push.repo_id,
        url=f"https://www.kaggle.com/models/{handle}",
        commit=None,
        revision="",
        files=files,
        artefacts={"": artefact},
        card=made,
    )


def _check_login(kagglehub: object, repository: str) -> None:
    try:
        from kagglehub.config import get_kaggle_credentials
    except ImportError:
        return
    if get_kaggle_credentials() is None:
        raise HubError(
            f"{repository!r} was not pushed. Nobody is logged in to Kaggle. Call kagglehub.login(), or set "
            "KAGGLE_USERNAME and KAGGLE_KEY. Nothing of it is to be seen there.",
            repository=repository,
            status=401,
        )


def _upload(repository: str, directory: Path) -> None:
    import keras_hub

    try:
        keras_hub.upload_preset(repository, str(directory))
    except Exception as cause:  # of whatever kind Kaggle's client raises
        code = getattr(getattr(cause, "response", None), "status_code", None)
        said = hugging_face.first_line(cause)
        why = (
            "Kaggle could not be reached. Check the connection, and push again"
            if hugging_face.is_network_failure(cause)
            else said
        )
        raise HubError(
            f"{repository!r} was not pushed: {why} ({type(cause).__name__}).", repository=repository, status=code
        ) from cause
