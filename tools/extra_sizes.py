"""Tells how much of the disk a plain installation of kerasgen takes, and what each extra adds to it.

It looks at the packages that are installed where it runs, so run it where all extras are:
`.tox/all/bin/python tools/extra_sizes.py`. A size is the sum of the files that a package's RECORD names.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_MIB = 2**20


def closure(name: str, extra: str = "") -> tuple[set[str], set[str]]:
    """Return the packages that one needs, itself among them, and those that are not installed here."""
    found: set[str] = set()
    missing: set[str] = set()
    asked: set[tuple[str, str]] = set()
    waiting = [(name, extra)]
    while waiting:
        package, of_extra = waiting.pop()
        if (package, of_extra) in asked:
            continue
        asked.add((package, of_extra))
        try:
            needed = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            missing.add(package)
            continue
        found.add(package)
        for line in needed:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": of_extra}):
                inner = canonicalize_name(requirement.name)
                waiting += [(inner, ""), *((inner, each) for each in requirement.extras)]
    return found, missing


def size(package: str) -> int:
    """Return the bytes of an installed package's files."""
    paths = (Path(str(file.locate())) for file in metadata.files(package) or [])
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print a table in Markdown."""
    plain, missing = closure("kerasgen")
    sizes = {package: size(package) for package in plain}
    total = sum(sizes.values())
    print("| what | MiB on the disk | the largest of it |\n|---|---|---|")
    print(f"| `kerasgen` | {total / _MIB:,.0f} | {_largest(sizes)} |")
    if missing:
        print(f"not installed here: {', '.join(sorted(missing))}", file=sys.stderr)
    for extra in sorted(metadata.metadata("kerasgen").get_all("Provides-Extra") or []):
        found, missing = closure("kerasgen", extra)
        added = {package: size(package) for package in found - plain}
        if missing:
            print(f"{extra}: not installed here: {', '.join(sorted(missing))}", file=sys.stderr)
        print(f"| `[{extra}]` | + {sum(added.values()) / _MIB:,.0f} | {_largest(added)} |")


def _largest(sizes: dict[str, int]) -> str:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {size / _MIB:,.0f}" for name, size in largest if size >= _MIB / 2) or "–"


if __name__ == "__main__":
    main()
