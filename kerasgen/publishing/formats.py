"""Which formats are pushed, and where each lies in the repository."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kerasgen import exporters
from kerasgen.errors import HubArgumentError, UnknownNameError
from kerasgen.exporters.base import Artefact, Exporter

PIPELINE: Final = "pipeline"
# Where others look for them: transformers and KerasHub read a repository's root, and one of them can have it.
_OF_ROOT: Final = ("transformers", "preset")
# A SavedModel is a program of TensorFlow's, which may read and write files: nobody's is run from a hub.
PROGRAMS: Final = ("saved_model",)


@dataclass(frozen=True)
class Format:
    """One format of a push.

    Args:
        name: of its exporter.
        exporter: what writes it, or None.
        artefact: what was written already, or None.
        place: its path in the repository; empty for the root.
        is_directory: whether it lies there as a directory.
        opens_from_hub: whether `load_artefact` opens it by its address.
    """

    name: str
    exporter: Exporter | None
    artefact: Artefact | None
    place: str
    is_directory: bool
    opens_from_hub: bool

    @property
    def is_root(self) -> bool:
        """Whether its files lie in the root of the repository."""
        return not self.place


@dataclass(frozen=True)
class Layout:
    """What a repository holds besides its card.

    Args:
        formats: in the order in which they were asked for.
        has_pipeline: whether the saved pipeline is there.
    """

    formats: Sequence[Format]
    has_pipeline: bool = True


def layout(formats: Any, stem: str, *, pipeline: bool = True) -> Layout:
    """Return where each format goes.

    Args:
        formats: names of exporters with their settings, exporters, artefacts; one alone counts as a list of it.
        stem: what the files are called before their endings.
        pipeline: whether the saved pipeline goes too.

    Raises:
        HubArgumentError: one is something else, comes twice, or would lie where another does.
        UnknownNameError: there is no such exporter.
        ExportArgumentError: its settings are wrong.
    """
    if not isinstance(pipeline, bool):
        raise HubArgumentError(f"`pipeline` must be True or False. Received: {pipeline!r:.80}.")
    single = isinstance(formats, (str, Exporter, Artefact))
    if not single and not isinstance(formats, Iterable):
        raise HubArgumentError(f"`formats` must be a list of exporters' names. Received: {formats!r:.80}.")
    asked = [formats] if single else list(formats)
    pipeline = pipeline or PIPELINE in asked
    chosen = [_chosen(each) for each in asked if each != PIPELINE]
    if not chosen and not pipeline:
        raise HubArgumentError("There is nothing to push: pipeline=False, and no format. Name one, such as 'gguf'.")
    root = next((name for name in _OF_ROOT if any(name == each for each, _, _ in chosen)), None)
    placed: list[Format] = []
    for number, (name, exporter, artefact) in enumerate(chosen):
        alike = [other for other, (its_name, _, _) in enumerate(chosen) if its_name == name]
        if name == root and alike[0] == number:
            place = ""
        elif artefact is not None:
            place = artefact.path.name
        else:
            kinds = [chosen[other][1] for other in alike]
            place = _place(name, stem, exporter, kinds)
        placed.append(_format(name, exporter, artefact, place))
    for number, each in enumerate(placed):
        if each.place in [other.place for other in placed[:number]]:
            raise HubArgumentError(
                f"`formats` names {each.name!r} twice, and both would be {each.place or 'the root'!r}. Leave one out, "
                "or give them settings that differ."
            )
    return Layout(tuple(placed), pipeline)


def _chosen(value: Any) -> tuple[str, Exporter | None, Artefact | None]:
    if isinstance(value, Artefact):
        if not value.path.exists():
            raise HubArgumentError(f"The artefact {str(value.path)!r} is no longer there. Export it again.")
        return value.exporter, None, value
    if isinstance(value, str) and not value.strip():
        raise HubArgumentError("A format is an exporter's name, such as 'gguf'. Received an empty one.")
    if not isinstance(value, (str, Exporter)):
        raise HubArgumentError(
            f"A format is an exporter's name, an exporter or an artefact. Received: {value!r:.80}. There are: "
            f"{', '.join((PIPELINE, *exporters.REGISTRY.names()))}."
        )
    try:
        exporter = exporters.REGISTRY.resolve(value)
    except UnknownNameError as cause:
        raise UnknownNameError(
            f"{cause} The pipeline itself is the format {PIPELINE!r}.", name=cause.name, near=cause.near
        ) from cause
    return exporters.REGISTRY.name_of(exporter) or type(exporter).__name__, exporter, None


def _place(name: str, stem: str, exporter: Exporter | None, alike: Sequence[Exporter | None]) -> str:
    """Return the name of a file or folder; of several of one exporter, with the settings in which they differ."""
    told = ""
    if exporter is not None and len(alike) > 1:
        differing = [
            getattr(exporter, field.name)
            for field in dataclasses.fields(exporter)  # type: ignore[arg-type]
            if len({repr(getattr(other, field.name, None)) for other in alike}) > 1
        ]
        told = "".join(f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', str(value))}" for value in differing)
    suffixes = () if exporter is None else exporter.suffixes
    suffix = (suffixes if isinstance(suffixes, str) else next(iter(suffixes), "")) or f"_{name}"
    return f"{stem}{told}{suffix if suffix.startswith(('.', '_')) else f'_{suffix}'}"


def _format(name: str, exporter: Exporter | None, artefact: Artefact | None, place: str) -> Format:
    registered = name in exporters.REGISTRY.names()
    kind: Any = exporters.REGISTRY.get(name) if registered else type(exporter)
    # The ending of a file begins with a dot; a repository's own name may hold dots too.
    suffixes = getattr(kind, "suffixes", ())
    is_file = any(ending.startswith(".") for ending in ((suffixes,) if isinstance(suffixes, str) else suffixes))
    is_directory = artefact.path.is_dir() if artefact is not None else not is_file
    runs = getattr(kind, "runtime", None) is not None and name not in PROGRAMS
    return Format(name, exporter, artefact, place, is_directory, runs)
