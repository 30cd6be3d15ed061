"""A pipeline on disk: a directory with a manifest and either a preset or the adapters of one."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.errors import ArgumentError, KerasgenError, ModelFormatError

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

MANIFEST_FILE = "pipeline.json"
MODEL, ADAPTERS = "model", "adapters"
FORMAT = 1


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the path if a pipeline may be written there.

    Raises:
        ArgumentError: something is in the way.
    """
    target = Path(path)
    if target.exists() and not (overwrite and (target / MANIFEST_FILE).is_file()):
        raise ArgumentError(
            f"{target} is there already. "
            + ("It is no saved pipeline." if overwrite else "Choose another path, or pass overwrite=True.")
        )
    return target


def write(target: Path, manifest: Mapping[str, Any], model: LanguageModel, *, apart: bool) -> None:
    """Write the manifest and the model, or its adapters alone if they stand apart, whole or not at all.

    Raises:
        KerasgenError: it can't be written.
    """
    from kerasgen.models.saving import save_preset
    from kerasgen.tuners import adapters

    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        if apart:
            (partial / ADAPTERS).mkdir()
            adapters.save(model, partial / ADAPTERS)
        else:
            save_preset(model, partial / MODEL)
        said = json.dumps({"format": FORMAT, **manifest, "adapters": apart}, ensure_ascii=False, indent=2)
        (partial / MANIFEST_FILE).write_text(said + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as cause:
        raise KerasgenError(f"The pipeline can't be written to {target}: {cause}") from cause
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest that `write` wrote.

    Raises:
        ModelFormatError: the directory holds no saved pipeline, or one of a later format.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ModelFormatError(f"{directory} holds no saved pipeline: {cause}") from cause
    if manifest.get("format") != FORMAT:
        raise ModelFormatError(
            f"{directory} was saved in format {manifest.get('format')!r}, and this version reads {FORMAT}. "
            "Upgrade kerasgen."
        )
    return manifest
