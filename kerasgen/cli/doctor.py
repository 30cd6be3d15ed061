"""`kerasgen doctor`: what is installed, what would compute and why, and what a recipe's run will take.

Without a recipe it imports nothing heavy.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from typing import Annotated, Any, Final

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import Json, RecipeAssignments
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.plugins import DISTRIBUTION
from kerasgen.terminal import show

_NOT_FOR_USERS: Final = ("docs", "lint", "test")
# A marker without an extra is one of the platform.
_REQUIREMENT: Final = re.compile(r"""(?P<name>[\w.-]+)[^;]*(?:;.*\bextra\s*==\s*["'](?P<extra>[\w.-]+)["'].*)?""")


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="estimate what this recipe's run will take, by two short trials of it (default: none)",
        ),
    ] = None,
    assignments: RecipeAssignments = None,
    as_json: Json = False,
) -> int:
    """Print what a person who has trouble is asked for; the status is 1 if kerasgen could not work."""
    if recipe is None and assignments:
        raise ArgumentError("--set changes a recipe. Name its file: kerasgen doctor poet.toml --set tuner.rank=16.")
    pipeline = None if recipe is None else sources.pipeline_of_recipe(recipe, assignments)
    found = examined()
    estimate = None if pipeline is None or found["missing"] or found["problems"] else pipeline.estimate()
    if as_json:
        show_json(found | ({} if estimate is None else {"estimate": estimate.to_dict()}))
    else:
        _show(found)
        if estimate is not None:
            show(f"{recipe} will take about:")
            show("\n".join(f"  {line}" for line in str(estimate).splitlines()))
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
    sizes = cache.sizes(directory)
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
        "cache": {
            "directory": str(directory),
            "is_writable": cache.is_writable(directory),
            "files": sum(files for files, _ in sizes.values()),
            "size_bytes": sum(size_bytes for _, size_bytes in sizes.values()),
        },
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
    if not cached["is_writable"]:
        show(
            "  it CAN'T BE WRITTEN, so tuning stops there, and all else is made anew each time: "
            "name another folder in KERASGEN_CACHE"
        )
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
