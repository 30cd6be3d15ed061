"""Files appear whole or not at all: an artefact is staged beside its place, and moved there when it is proved."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgen.errors import ExportArgumentError, ExportError
from kerasgen.runtime import metadata

_MARKDOWN_FILE = "REPORT.md"
_MARKDOWN_SUFFIX = ".md"
_TENSORFLOW_ERRORS = "tensorflow.python.framework.errors"  # a full disk is one of these where TensorFlow writes


@contextmanager
def staged(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path of the same name in an empty folder beside `path`; what lies in the folder at the end is moved.

    If the block raises, nothing is left and what lay there before is untouched.

    Args:
        path: where the artefact is to lie, a file (with others beside it that begin with its name) or a directory.
        overwrite: replace an artefact that lies there.

    Raises:
        ExportArgumentError: something lies there, and is no artefact or is not to be replaced.
        ExportError: the disk is full, or it can't be written for another reason.
    """
    check_target(path, overwrite=overwrite)
    stage = path.absolute().parent / f".{path.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        stage.mkdir(parents=True)
        yield stage / path.name
        _move(stage, path.absolute())
    except Exception as cause:
        if isinstance(cause, OSError) or type(cause).__module__.startswith(_TENSORFLOW_ERRORS):
            raise ExportError(f"The artefact can't be written to {path}: {cause}. Nothing of it was kept.") from cause
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Say whether an artefact may be written there, which is worth knowing before the work.

    Raises:
        ExportArgumentError: something lies there, and is no artefact or is not to be replaced.
    """
    if not path.exists():
        return
    if not overwrite:
        raise ExportArgumentError(f"{path} is there already. Choose another path, or pass overwrite=True.")
    if not metadata.report_path(path).is_file():
        raise ExportArgumentError(
            f"{path} is there already and is no artefact of kerasgen, so it is not replaced. Choose another path."
        )


def write_report(path: Path, report: Mapping[str, Any], *, exporter: str) -> dict[str, Any]:
    """Write the report of a staged artefact as JSON and Markdown, and return it with the size of every file.

    Args:
        path: the staged artefact; its other files are complete.
        report: figures and metadata, as JSON could hold them.
        exporter: the name of the exporter.
    """
    written: dict[str, Any] = {"exporter": exporter, "format": metadata.FORMAT, **report}
    written["files"] = files(path)
    written["bytes"] = sum(written["files"].values())
    place = metadata.report_path(path)
    place.write_text(json.dumps(written, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    markdown = path / _MARKDOWN_FILE if path.is_dir() else path.with_name(path.name + _MARKDOWN_SUFFIX)
    markdown.write_text(_markdown(path.name, written), encoding="utf-8")
    return written


def files(path: Path) -> dict[str, int]:
    """Return the size in bytes of each file of an artefact, by its name beside or below it; reports are left out."""
    found = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    base = path if path.is_dir() else path.parent
    markdown = (_MARKDOWN_FILE, path.name + _MARKDOWN_SUFFIX)
    return {
        file.relative_to(base).as_posix(): file.stat().st_size
        for file in sorted(found)
        if file.is_file() and file != metadata.report_path(path) and file.name not in markdown
    }


def _move(stage: Path, path: Path) -> None:
    """Move what was staged to its place, the artefact itself last; old files make room, and come back on error."""
    entries = sorted(stage.iterdir(), key=lambda entry: entry.name == path.name)
    aside = stage / ".replaced"
    aside.mkdir()
    moved: list[Path] = []
    kept: list[Path] = []
    try:
        for entry in entries:
            target = path.parent / entry.name
            if target.exists():
                target.replace(aside / entry.name)
                kept.append(target)
            entry.replace(target)
            moved.append(target)
    except OSError:
        for target in moved:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        for target in kept:
            (aside / target.name).replace(target)
        raise


def _markdown(name: str, report: Mapping[str, Any]) -> str:
    lines = [f"# {name}", "", "| what | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in _flat("", report)]
    return "\n".join(lines) + "\n"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix} · {key}" if prefix else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, f"{value:.6g}" if isinstance(value, float) else str(value)
