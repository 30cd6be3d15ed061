"""`kerasgen doctor`: what is installed, what would compute and why, and what the cache holds. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from kerasgen.cli.arguments import Json, show_json
from kerasgen.errors import KerasgenError
from kerasgen.plugins import DISTRIBUTION
from kerasgen.terminal import show

_NOT_FOR_USERS: Final = ("docs", "lint", "test")
# A marker without an extra is one of the platform.
_REQUIREMENT: Final = re.compile(r"""(?P<name>[\w.-]+)[^;]*(?:;.*\bextra\s*==\s*["'](?P<extra>[\w.-]+)["'].*)?""")


def run(as_json: Json = False) -> int:
    """Print what a person who has trouble is asked for; the status is 1 if kerasgen could not work."""
    found = examined()
    if as_json:
        show_json(found)
    else:
        _show(found)
    return 1 if found["missing"] or found["problems"] else 0


def examined() -> dict[str, Any]:
    """Return what is installed and what would be used, as JSON could hold it."""
    from kerasgen import backend, cache, devices

    needed, extras = _requirements()
    problems = []
    backends = {}
    for task, trains in (("generating", False), ("training", True)):
        try:
            chosen, why = backend.choose(trains=trains)
            backends[task] = {"backend": chosen, "why": why}
        except KerasgenError as error:
            problems.append(str(error))
    flags = {"avx2": devices.cpu_has_avx2, "bfloat16": devices.cpu_has_bfloat16, "amx": devices.cpu_has_tiles}
    directory = cache.directory()
    files, size_bytes = _sized(directory)
    return {
        "kerasgen": metadata.version(DISTRIBUTION),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "packages": {name: version for name in needed if (version := _version(name)) is not None},
        "missing": [name for name in needed if _version(name) is None],
        "extras": {
            extra: {
                "installed": {name: version for name in names if (version := _version(name)) is not None},
                "missing": [name for name in names if _version(name) is None],
            }
            for extra, names in extras.items()
        },
        "backends": backends,
        "devices": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cpu": [name for name, has in flags.items() if has()],
            "nvidia_gpu": devices.nvidia_gpu(),
        },
        "cache": {"directory": str(directory), "files": files, "size_bytes": size_bytes},
        "problems": problems,
    }


def _show(found: dict[str, Any]) -> None:
    show(f"kerasgen {found['kerasgen']} on Python {found['python']}, {found['system']}")
    show(f"  {found['executable']}")
    show("packages:")
    for name, version in found["packages"].items():
        show(f"  {name} {version}")
    for name in found["missing"]:
        show(f"  {name} is MISSING: pip install {name}")
    show("extras:")
    for extra, packages in found["extras"].items():
        there = ", ".join(f"{name} {version}" for name, version in packages["installed"].items())
        lacking = ", ".join(packages["missing"])
        remedy = f"missing {lacking}: pip install 'kerasgen[{extra}]'" if lacking else ""
        show(f"  {extra}: {'; '.join(filter(None, [there, remedy]))}")
    for task, choice in found["backends"].items():
        show(f"{task}: {choice['backend']}, because {choice['why']}")
    gpu = "an NVIDIA GPU" if found["devices"]["nvidia_gpu"] else "no NVIDIA GPU"
    has = f" with {', '.join(found['devices']['cpu'])}" if found["devices"]["cpu"] else ""
    show(f"devices: {found['devices']['cores']} cores{has}, {gpu}")
    cached = found["cache"]
    show(f"cache: {cached['directory']}, {cached['size_bytes'] / 1e6:.1f} MB in {cached['files']} files")
    for problem in found["problems"]:
        show(f"PROBLEM: {problem}")


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Return the packages that kerasgen needs, and those of each extra that a user may want."""
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in metadata.requires(DISTRIBUTION) or ():
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            continue
        if match["extra"] is None:
            needed.append(match["name"])
        elif match["extra"] not in _NOT_FOR_USERS:
            extras.setdefault(match["extra"], []).append(match["name"])
    return needed, extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _sized(directory: Path) -> tuple[int, int]:
    """Return the number of files below a directory, and their size in bytes; links are not followed."""
    files = size_bytes = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size_bytes += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  a cache has many files
            except OSError:  # another process took it away meanwhile
                continue
            files += 1
    return files, size_bytes
