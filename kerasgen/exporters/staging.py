"""Stages an artefact beside its place, and moves it there when it is proved: its files appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgen import fork_safety
from kerasgen.errors import ExportArgumentError, ExportError
from kerasgen.exporters.registry import check_ending
from kerasgen.files import staging
from kerasgen.files.digests import sha256_of
from kerasgen.models.base import BASE_MODEL
from kerasgen.runtime import metadata

_MARKDOWN_FILE = "REPORT.md"
_MARKDOWN_SUFFIX = ".md"
# What the names of the files beside an artefact end with that is a file.
REPORTS = (metadata.REPORT_SUFFIX, _MARKDOWN_SUFFIX)
BESIDE = (*REPORTS, f".{metadata.TOKENIZER_FILE}")
_TENSORFLOW_ERRORS = "tensorflow.python.framework.errors"  # a full disk is one of these where TensorFlow writes


@contextmanager
def staged(path: Path, *, overwrite: bool, exporter: str, beside: Sequence[str] | None = None) -> Iterator[Path]:
    """Yield a path of the same name in an empty folder beside `path`; what lies in the folder at the end is moved.

    If the block raises, nothing is left and what lay there before is untouched.

    Args:
        path: where the artefact is to lie, a file (with others beside it that begin with its name) or a directory.
        overwrite: replace what this exporter wrote there before.
        exporter: its name.
        beside: as in `check_target`.

    Raises:
        ExportArgumentError: as in `check_target`.
        LockedError: another export to this path is going on.
        ExportError: the disk is full, or it can't be written for another reason.
    """
    target = path.absolute()
    try:
        with staging.staged(target) as stage:
            check_target(path, overwrite=overwrite, exporter=exporter, beside=beside)
            yield stage / path.name
            # Exporting took a while, in which something may have come there.
            check_target(path, overwrite=overwrite, exporter=exporter, beside=beside)
            staging.place(stage, target, removed=[path.name + suffix for suffix in beside or ()])
    except Exception as cause:
        if isinstance(cause, OSError) or type(cause).__module__.startswith(_TENSORFLOW_ERRORS):
            # NumPy's `tofile` names two numbers and no cause.
            reason = f"{cause}, as on a full disk" if getattr(cause, "errno", 0) is None else cause
            raise ExportError(f"The artefact can't be written to {path}: {reason}. Nothing of it was kept.") from cause
        raise


def check_target(path: Path, *, overwrite: bool, exporter: str, beside: Sequence[str] | None = None) -> None:
    """Raise unless an artefact may be written to a path, before the work begins.

    Args:
        path: where the artefact is to lie.
        overwrite: whether what this exporter wrote there before may be replaced; nothing else ever is.
        exporter: its name.
        beside: what the names of the files beside an artefact end with that is a file, such as `BESIDE`; None for a
            directory.

    Raises:
        ExportArgumentError: something lies there, and is not to be replaced or is none of this exporter's artefacts.
        ExportError: what a killed export had begun to move there can't be finished.
    """
    fork_safety.check(fork_safety.KERAS)
    try:
        staging.recover(path.absolute())
    except OSError as cause:
        raise ExportError(f"What a killed export had begun to move to {path} can't be finished: {cause}.") from cause
    written = [path] if beside is None else [path, *(path.with_name(path.name + suffix) for suffix in beside)]
    present = [place for place in written if os.path.lexists(place)]
    if not present:
        check_ending(path, exporter)
        return
    if not overwrite:
        raise ExportArgumentError(
            f"{' and '.join(map(str, present))} {'is' if len(present) == 1 else 'are'} there already. Choose another "
            "path, or pass overwrite=True, which replaces what the exporter wrote there before."
        )
    foreign = _foreign(path, present, exporter, is_directory=beside is None)
    if foreign:
        raise ExportArgumentError(
            f"{path} is there already and was not written by the exporter {exporter!r} alone, so it is not replaced: "
            f"{foreign}. Choose another path, or move it away."
        )


def _foreign(path: Path, present_beside: Sequence[Path], exporter: str, *, is_directory: bool) -> str | None:
    """Describe what at a path this exporter did not write; None if it wrote all of it."""
    if path.exists() and path.is_dir() != is_directory:
        return f"{path.name} is a {'directory' if path.is_dir() else 'file'}"
    if is_directory and not any(path.iterdir()):
        return None
    report = path / metadata.REPORT_FILE if is_directory else path.with_name(path.name + metadata.REPORT_SUFFIX)
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        by, known = content["exporter"], set(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"there is no report of an export in {report.name}"
    if by != exporter:
        return f"its exporter was {by!r}"
    present = [file for file in path.rglob("*") if not file.is_dir()] if is_directory else present_beside
    reports = {report, _markdown_path(path, is_directory=is_directory)}
    base = path if is_directory else path.parent
    more = [file.relative_to(base).as_posix() for file in present if file not in reports]
    unknown = sorted(set(more) - known)
    return f"that export did not write {', '.join(unknown[:3])}" if unknown else None


def _markdown_path(path: Path, *, is_directory: bool) -> Path:
    return path / _MARKDOWN_FILE if is_directory else path.with_name(path.name + _MARKDOWN_SUFFIX)


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
    written = json.loads(json.dumps(written, allow_nan=False))  # as a reader has it
    written[metadata.DIGEST] = metadata.digest_of(written)
    place = metadata.report_path(path)
    place.write_text(json.dumps(written, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _markdown_path(path, is_directory=path.is_dir()).write_text(_markdown(path.name, written), encoding="utf-8")
    return written


def sha256_of_files(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an artefact that `files` names."""
    base = path if path.is_dir() else path.parent
    return {name: sha256_of(base / name) for name in files(path)}


def files(path: Path) -> dict[str, int]:
    """Return the size in bytes of each file of an artefact, by its name beside or below it; reports are left out."""
    beside = (file for file in path.parent.iterdir() if file.name.startswith(path.name))
    paths = path.rglob("*") if path.is_dir() else beside
    base = path if path.is_dir() else path.parent
    markdown = (_MARKDOWN_FILE, path.name + _MARKDOWN_SUFFIX)
    return {
        file.relative_to(base).as_posix(): file.stat().st_size
        for file in sorted(paths)
        if file.is_file() and file != metadata.report_path(path) and file.name not in markdown
    }


def _markdown(name: str, report: Mapping[str, Any]) -> str:
    lines = [f"# {name}", "", "| what | value |", "|---|---|"]
    base = report.get(BASE_MODEL) or {}
    notices = base.get("notices") or {}
    report = {**report, **({BASE_MODEL: {**base, "notices": sorted(notices)}} if notices else {})}
    lines += [f"| {key} | {value} |" for key, value in _flat("", report)]
    for title, text in notices.items():
        lines += ["", f"## {title}", "", *(f"    {line}".rstrip() for line in text.splitlines())]
    return "\n".join(lines) + "\n"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix} · {key}" if prefix else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, f"{value:.6g}" if isinstance(value, float) else str(value)
