"""`kerasgen cache`: what the cache holds, and its removal."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kerasgen import cache
from kerasgen.cli.arguments import Json, option
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.keywords import did_you_mean
from kerasgen.terminal import show


def run(
    action: Annotated[
        Literal["list", "clean"], typer.Argument(metavar="ACTION", help="list (the default) or clean, which removes it")
    ] = "list",
    kinds: Annotated[
        list[str] | None,
        option("--kind", metavar="KIND", help=f"one of {', '.join(cache.KINDS)}; may be repeated (default: all)"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Show how large each part of the cache is, or remove it; it is made again when it is needed."""
    chosen = kinds or list(cache.KINDS)
    for kind in chosen:
        if kind not in cache.KINDS:
            raise ArgumentError(
                f"The cache has no {kind!r}.{did_you_mean(kind, cache.KINDS)} It has: {', '.join(cache.KINDS)}."
            )
    directory = cache.directory()
    found = cache.clean(directory, chosen) if action == "clean" else cache.sizes(directory)
    sizes = {kind: found[kind] for kind in chosen if kind in found}
    if as_json:
        told = {kind: {"files": files, "size_bytes": size_bytes} for kind, (files, size_bytes) in sizes.items()}
        show_json({"directory": directory, "action": action, "kinds": told})
        return 0
    show(f"{directory}{', removed' if action == 'clean' else ''}:")
    for kind, (files, size_bytes) in sizes.items():
        show(f"  {kind}: {size_bytes / 1e6:,.1f} MB in {files:,} files ({cache.KINDS[kind]})")
    if not sizes:
        show("  nothing")
    return 0
