"""Saves and loads a pipeline: a directory with a manifest and either a preset or a preset's adapters."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kerasgen import constraints, corpora, limits, locations, models, samplers, specs, tuners
from kerasgen.chat.named import NAMED
from kerasgen.corpora.base import CorpusSource
from kerasgen.corpora.texts import Texts
from kerasgen.errors import ArgumentError, KerasgenError, KerasgenWarning, ModelFormatError, TuneArgumentError
from kerasgen.files import presence, staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.manifests import contents
from kerasgen.manifests.contents import RunManifest
from kerasgen.models import addresses, hugging_face, weights_dtype
from kerasgen.models.base import ModelSource, WeightsDtype
from kerasgen.models.gguf import Gguf
from kerasgen.models.hub import Hub
from kerasgen.models.live import Live
from kerasgen.tuners.report import TuneReport
from kerasgen.tuners.settings import GONE

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

MANIFEST_FILE = locations.PIPELINE_FILE
MODEL, ADAPTERS = addresses.SAVED_MODEL, "adapters"
BASE = "base"
"""The folder, or with `.gguf` the file, of the adapters' model in a pipeline that was pushed to a hub."""
BESIDE = "model_beside"
"""In the manifest, the path of the adapters' model from the directory."""
FORMAT = 1
_PARTS = (MANIFEST_FILE, *(f"{name}/*" for name in (MODEL, ADAPTERS, BASE)), f"{BASE}.gguf")


class Arguments(NamedTuple):
    """The arguments of a `Pipeline` that are saved with it, as it holds them.

    Args:
        corpus: a `CorpusSource`, or None.
        model: a `ModelSource`.
        tuner: a `FineTuner`.
        sampler: a `SamplerSpec`.
        seed: as there.
        held_out: as there.
        max_documents: as there.
        sample: as there.
        generation_config: as there; its sampler is saved as the pipeline's.
        weights: as there; what is saved is what the model's weights are held in.
        chat_template: as there, a name or a text.
        streaming: as there.
    """

    corpus: Any
    model: Any
    tuner: Any
    sampler: Any
    seed: int
    held_out: float
    max_documents: int | None
    sample: Any = "first"
    generation_config: GenerationConfig = GenerationConfig()
    weights: WeightsDtype | None = None
    chat_template: str | None = None
    streaming: bool | int = False


@dataclass(frozen=True)
class SavedPipeline:
    """The content of a saved pipeline's directory.

    Args:
        arguments: of the pipeline; its model is the one that was saved, or the one that the adapters belong to.
        adapters: the directory of the adapters, if they stand apart.
        vocabulary: what was done to the model's vocabulary, if anything.
        report: the report of its last tuning, if it was tuned.
        base: where the model came from before it was tuned, if that can be said.
    """

    arguments: Arguments
    adapters: Path | None
    vocabulary: Mapping[str, Any] | None
    report: TuneReport | None = None
    base: ModelSource | None = None


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the path if a pipeline may be written there.

    Raises:
        ArgumentError: something is in the way.
    """
    target = path_argument(path)
    try:
        staging.recover(target.resolve())
    except (OSError, ValueError) as cause:  # ValueError: the path holds a NUL
        raise ArgumentError(f"No pipeline can be written to {str(target)!r}: {cause}.") from cause
    if presence.exists(target) and not (overwrite and presence.is_file(target / MANIFEST_FILE)):
        raise ArgumentError(
            f"{target} is there already. "
            + ("It is no saved pipeline." if overwrite else "Choose another path, or pass overwrite=True.")
        )
    return target


def write(
    target: Path,
    arguments: Arguments,
    model: LanguageModel,
    *,
    backend: str,
    report: TuneReport | None,
    apart: bool,
    overwrite: bool,
    manifest: RunManifest | None = None,
) -> None:
    """Write the arguments and the model, or its adapters alone if they stand apart, whole or not at all.

    A pipeline that is there is exchanged for the new one at once, see `kerasgen.files.staging`.

    Args:
        target: the directory.
        arguments: the arguments of the pipeline.
        model: as it is.
        backend: which it ran on; for the reader of the file.
        report: the report of its last tuning; for the reader of the file.
        apart: write the adapters alone.
        overwrite: replace a pipeline that is there.
        manifest: that of the run that tuned the model, which is written beside.

    Raises:
        ArgumentError: something came into the way meanwhile, or a part of the pipeline has no registered name.
        LockedError: another process or thread is saving there.
        KerasgenError: it can't be written.
    """
    about = _manifest(arguments, model, backend, report, apart=apart)
    from kerasgen.models.saving import save_preset
    from kerasgen.tuners import adapters

    target = target.resolve()  # what is moved is the directory, and no link to it
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging.staged(target) as stage:
            check_target(target, overwrite=overwrite)
            new = stage / target.name
            new.mkdir()
            if apart:
                (new / ADAPTERS).mkdir()
                adapters.save(model, new / ADAPTERS)
            else:
                save_preset(model, new / MODEL)
            base_paths = _base(arguments.model, target) if apart else {}
            content = json.dumps(
                {"format": FORMAT, **about, **base_paths, "adapters": apart},
                ensure_ascii=False,
                indent=2,
                allow_nan=False,
            )
            (new / MANIFEST_FILE).write_text(content + "\n", encoding="utf-8")
            if manifest is not None:
                (new / contents.FILE).write_text(manifest.to_json(), encoding="utf-8")
            check_target(target, overwrite=overwrite)  # saving took a while, in which something may have come there
            staging.place(stage, target)
    except OSError as cause:
        raise KerasgenError(f"The pipeline can't be written to {target}: {cause}") from cause


def fetched(address: addresses.HubAddress) -> Path | None:
    """Return the folder of a pipeline that lies on the Hugging Face hub; None if the repository holds none.

    Raises:
        ModelUnavailableError: the hub can't be reached, or has no such repository.
        ModelFormatError: a name in it leads out of its folder.
    """
    folder = hugging_face.snapshot(address, (MANIFEST_FILE,))
    if not presence.is_file(folder / MANIFEST_FILE):
        return None
    return hugging_face.snapshot(hugging_face.pinned(address, folder), _PARTS)


def read(directory: Path, *, is_foreign: bool = False) -> SavedPipeline:
    """Read a saved pipeline's directory.

    Args:
        directory: the directory.
        is_foreign: whether it comes from a hub: then it names no path of this machine outside itself.

    Raises:
        ModelFormatError: the directory holds no saved pipeline, a damaged one, or one of a later format; or a foreign
            one whose model would lie outside it.
    """
    manifest = _read_manifest(directory)
    apart = manifest["adapters"]
    if is_foreign:
        manifest = _without_paths(manifest, directory)
    own = Hub(str(directory / MODEL))
    arguments = Arguments(
        corpus=manifest["corpus"] and corpora.REGISTRY.from_manifest(manifest["corpus"]),
        model=_located_base(models.REGISTRY.from_manifest(manifest["model"]), manifest, directory) if apart else own,
        tuner=tuners.REGISTRY.from_manifest(_without_gone(manifest["tuner"])),
        sampler=samplers.REGISTRY.from_manifest(manifest["sampler"]),
        seed=manifest["seed"],
        held_out=manifest["held_out"],
        max_documents=manifest["max_documents"],
        sample=manifest.get("sample", "first"),  # 0.1 took the first always
        generation_config=_read_config(manifest.get("generation_config", {}), directory / MANIFEST_FILE),
        weights=_read_weights(manifest.get("weights"), directory / MANIFEST_FILE),
        chat_template=_read_template(manifest.get("chat_template"), directory / MANIFEST_FILE),
        streaming=manifest.get("streaming", False),
    )
    return SavedPipeline(
        arguments,
        directory / ADAPTERS if apart else None,
        manifest.get("vocabulary"),
        _read_report(manifest.get("report"), directory / MANIFEST_FILE),
        arguments.model if apart else _read_base(manifest["model"]),
    )


def _read_base(manifest: Any) -> ModelSource | None:
    """Return where the model came from, as far as the manifest says it in a way that this installation knows."""
    try:
        return None if manifest is None else models.REGISTRY.from_manifest(manifest)
    except KerasgenError:
        return None


def _read_report(figures: Any, file: Path) -> TuneReport | None:
    if figures is None:
        return None
    try:
        return TuneReport.from_dict(figures)
    except (TuneArgumentError, AttributeError, TypeError) as cause:
        raise _damaged(file, f"its 'report' can't be read: {cause}") from cause


def _without_paths(manifest: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return a foreign manifest without what would be read from this machine's own files.

    Raises:
        ModelFormatError: that is its model.
    """
    checked = dict(manifest)
    left_out = [name for name in ("corpus", "generation_config") if locations.names_a_path(manifest.get(name))]
    if "corpus" in left_out:
        checked["corpus"] = None
    if "generation_config" in left_out:
        settings = {name: value for name, value in manifest["generation_config"].items() if name != "assistant_model"}
        checked["generation_config"] = settings
    if left_out:
        warnings.warn(
            KerasgenWarning(
                f"{directory / MANIFEST_FILE} comes from a hub and names files of another machine in its "
                f"{' and '.join(left_out)}, which are left out. Give them anew: Pipeline.load(path, corpus=…)."
            ),
            stacklevel=4,
        )
    beside = manifest.get(BESIDE)
    is_beside = isinstance(beside, str) and addresses.is_inside(beside)
    if manifest[ADAPTERS] and not is_beside and (beside is not None or locations.names_a_path(manifest["model"])):
        raise _damaged(
            directory / MANIFEST_FILE, "it comes from a hub, and the model of its adapters would lie outside it"
        )
    if manifest[ADAPTERS] and isinstance(beside, str):
        arguments = dict.fromkeys(manifest["model"]["arguments"], str(directory / beside))
        checked["model"] = {"name": manifest["model"]["name"], "arguments": arguments}
    template = manifest.get("chat_template")
    if isinstance(template, str) and template not in NAMED and "{" not in template:
        raise _damaged(directory / MANIFEST_FILE, "it comes from a hub, and its 'chat_template' would be a file here")
    return checked


def _written_config(config: GenerationConfig) -> dict[str, Any]:
    """Return the settings that differ from their defaults, without the sampler, as JSON values.

    Raises:
        ArgumentError: the constraint has no registered name, or the engine or the assistant model is no text.
    """
    settings = {name: value for name, value in config.changed().items() if name != "sampler"}
    if "constraint" in settings:
        settings["constraint"] = constraints.REGISTRY.to_manifest(settings["constraint"])
    if not isinstance(config.engine, str):
        raise ArgumentError(f"An engine is saved by its name. Received: generation_config={config!r}.")
    if not isinstance(config.assistant_model, str | None):
        raise ArgumentError(
            "A pipeline is saved without the weights of its `assistant_model`, and names it by its address. Received: "
            f"assistant_model={config.assistant_model!r:.80} in generation_config. Give the address there, or pass the "
            "model to generate(assistant_model=…)."
        )
    return settings


def _read_config(settings: Any, file: Path) -> GenerationConfig:
    """Read what `_written_config` wrote.

    Raises:
        ModelFormatError: it is damaged, or holds a setting that this version doesn't know.
    """
    try:
        arguments = dict(settings)
        if "constraint" in arguments:
            arguments["constraint"] = constraints.REGISTRY.from_manifest(arguments["constraint"])
        return GenerationConfig(**arguments)
    except (ArgumentError, TypeError, ValueError) as cause:
        raise _damaged(file, f"its 'generation_config' can't be read: {cause}") from cause


def _read_weights(value: Any, file: Path) -> WeightsDtype | None:
    try:
        return weights_dtype.check(value)
    except ArgumentError as cause:
        raise _damaged(file, f"its 'weights' can't be read: {cause}") from cause


def _read_template(value: Any, file: Path) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _damaged(file, f"its 'chat_template' can't be read: {value!r:.80}")
    return value


def _base(source: Any, target: Path) -> dict[str, Any]:
    """Return the absolute and relative path of the adapters' model; empty if it lies in no local files."""
    place = _place(source)
    if place is None:
        return {}
    whole = place.resolve()
    try:
        relative = os.path.relpath(whole, target)
    except ValueError:  # on another drive
        relative = None
    return {"model": models.REGISTRY.to_manifest(type(source)(str(whole))), BESIDE: relative}


def _place(source: Any) -> Path | None:
    """Return where the files of a local model lie, or None if there are none."""
    if isinstance(source, Gguf):
        return source.gguf_file()
    return source.directory() if isinstance(source, Hub) else None


def _located_base(source: Any, manifest: Mapping[str, Any], directory: Path) -> Any:
    """Return the adapters' model at its old path, else at its relative path, if both were moved together.

    Raises:
        ModelFormatError: it lies at neither.
    """
    relative = manifest.get(BESIDE)
    if not isinstance(source, Hub | Gguf) or not isinstance(relative, str) or _place(source) is not None:
        return source
    moved = type(source)(os.path.normpath(directory.resolve() / relative))
    if _place(moved) is not None:
        return moved
    places = list(dict.fromkeys([str(Path(str(source)).expanduser().absolute()), str(moved)]))
    raise ModelFormatError(
        f"{directory} holds adapters, and the model that they belong to is no longer at "
        f"{', nor at '.join(map(repr, places))}. Put it back{'' if len(places) == 1 else ' at one of them'}, or save "
        "the pipeline whole where the model is, with save(…, merge_adapters=True)."
    )


def _manifest(
    arguments: Arguments, model: LanguageModel, backend: str, report: TuneReport | None, *, apart: bool
) -> dict[str, Any]:
    """Return the manifest as JSON values: what `read` needs, and facts for a human reader."""
    from importlib.metadata import version

    corpus = arguments.corpus
    return {
        **arguments._asdict(),
        "corpus": corpora.REGISTRY.to_manifest(corpus) if _is_saved(corpus) else None,
        "model": None if isinstance(arguments.model, Live) else models.REGISTRY.to_manifest(arguments.model),
        "tuner": tuners.REGISTRY.to_manifest(arguments.tuner),
        "sampler": samplers.REGISTRY.to_manifest(arguments.sampler),
        "generation_config": _written_config(arguments.generation_config),
        "weights": arguments.weights if apart else weights_dtype.held(model),
        "backend": backend,
        "versions": {name: version(name) for name in ("kerasgen", "keras", "keras-hub")},
        "vocabulary": model.metadata.get("vocabulary"),
        "report": None if report is None else report.to_dict(),
    }


def _is_saved(value: Any) -> bool:
    """Whether a corpus, or what one holds, can be written down.

    Texts that were given in Python are not, and neither is a corpus of a class that nobody registered.
    """
    if isinstance(value, (tuple, list)):
        return all(map(_is_saved, value))
    if not isinstance(value, CorpusSource):
        return value is not None
    if isinstance(value, Texts) or corpora.REGISTRY.name_of(value) is None:
        return False
    return all(_is_saved(held) for held in specs.changed(value).values() if held is not None)


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST_FILE
    try:
        staging.recover(directory.resolve())
        place = locations.look(directory)
        if place.kind != "pipeline":
            raise ModelFormatError(
                f"{directory} holds no saved pipeline, which Pipeline.save would have written. {place}"
            )
        manifest: Any = limits.read_json(file)
    except (OSError, ValueError) as cause:
        raise ModelFormatError(f"{directory} holds no saved pipeline: {cause}") from cause
    if not isinstance(manifest, dict):
        raise _damaged(file, f"it holds no JSON object but {manifest!r:.80}")
    if manifest.get("format") != FORMAT:
        raise ModelFormatError(
            f"{directory} was saved in format {manifest.get('format')!r}, and this version reads {FORMAT}. "
            "Upgrade kerasgen."
        )
    optional = Arguments._field_defaults
    missing = [key for key in (*Arguments._fields, ADAPTERS) if key not in manifest and key not in optional]
    if missing:
        raise _damaged(file, f"it lacks {', '.join(missing)}")
    if not isinstance(manifest[ADAPTERS], bool):
        raise _damaged(file, f"its {ADAPTERS!r} is neither true nor false but {manifest[ADAPTERS]!r:.80}")
    return manifest


def _damaged(file: Path, fault: str) -> ModelFormatError:
    return ModelFormatError(
        f"{file} was changed or cut since it was saved: {fault}. Save the pipeline again, or load its model alone, "
        f"with Pipeline(model={str(file.parent / MODEL)!r})."
    )


def _without_gone(manifest: Any) -> Any:
    """Remove the settings that only 0.1.0 had from a tuner's manifest; none of them changed a number."""
    arguments = manifest.get("arguments") if isinstance(manifest, dict) else None
    if not isinstance(arguments, dict):
        return manifest
    return manifest | {"arguments": {name: value for name, value in arguments.items() if name not in GONE}}
