"""Saves a pipeline so that another machine reads it: nothing in it names a path of this one."""

from __future__ import annotations

import fnmatch
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import locations, models, saved_pipeline
from kerasgen.errors import HubArgumentError, KerasgenWarning
from kerasgen.manifests import contents
from kerasgen.models import hugging_face
from kerasgen.models.gguf import Gguf
from kerasgen.models.hub import Hub
from kerasgen.publishing import known

if TYPE_CHECKING:
    from kerasgen.publishing.publisher import Publisher


def save(pipeline: Publisher, directory: Path) -> Path:
    """Save a pipeline for a hub, and return its directory.

    A corpus of files is left out of the settings, as texts are that were given in Python. Adapters whose model lies in
    files of this machine take those with them.

    Args:
        pipeline: the pipeline.
        directory: is not there yet.
    """
    pipeline.save(directory)
    (directory / contents.FILE).unlink(missing_ok=True)  # what the run's machine was, and the paths of its corpus
    place = directory / saved_pipeline.MANIFEST_FILE
    manifest: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    if locations.names_a_path(manifest["corpus"]):
        manifest["corpus"] = None
    config = manifest["generation_config"]
    if locations.names_a_path(config):
        warnings.warn(
            f"The assistant model {config.get('assistant_model')!r} lies on this machine, so the pushed pipeline "
            "generates without it.",
            KerasgenWarning,
            stacklevel=5,
        )
        manifest["generation_config"] = {name: value for name, value in config.items() if name != "assistant_model"}
    if not manifest[saved_pipeline.ADAPTERS]:
        manifest["model"] = _base(pipeline)
    elif locations.names_a_path(manifest["model"]) or saved_pipeline.BESIDE in manifest:
        manifest |= _with_base(pipeline.model_source, directory)
    manifest["report"] = known.report_of(pipeline) or None
    text = json.dumps(manifest, ensure_ascii=False, indent=2, allow_nan=False)
    place.write_text(f"{text}\n", encoding="utf-8")
    return directory


def _base(pipeline: Publisher) -> dict[str, Any] | None:
    """Return how to ask for the model that was tuned; None where that is a path of this machine."""
    saved = pipeline._saved
    source = pipeline.model_source if saved is None or saved.base is None else saved.base
    if models.REGISTRY.name_of(source) is None:
        return None
    manifest = models.REGISTRY.to_manifest(source)
    return None if locations.names_a_path(manifest) else manifest


def _with_base(source: Any, directory: Path) -> dict[str, Any]:
    """Copy the model of adapters beside them, and return what the manifest says of it."""
    folder, file = source.directory(), source.gguf_file()
    if isinstance(source, Gguf) and file is not None:
        name = f"{saved_pipeline.BASE}.gguf"
        shutil.copyfile(file, directory / name)
    elif isinstance(source, Hub) and folder is not None:
        name = saved_pipeline.BASE
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder).as_posix()
            if path.is_file() and any(fnmatch.fnmatchcase(inner, pattern) for pattern in hugging_face.MODEL_FILES):
                (directory / name / inner).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, directory / name / inner)
    else:
        raise HubArgumentError(
            f"The adapters belong to the model {str(source)!r:.200}, which others can't load. Merge them first: "
            "pipe.merge()."
        )
    return {"model": models.REGISTRY.to_manifest(type(source)(f"./{name}")), saved_pipeline.BESIDE: name}
