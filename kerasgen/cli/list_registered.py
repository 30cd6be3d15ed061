"""`kerasgen list`: what is registered, plugins included."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.plugins import Registry

NAME = "list"
HELP = "show what is registered: corpora, models, tuners, samplers, constraints and exporters"

_SURFACES = ["corpora", "models", "tuners", "samplers", "constraints", "exporters"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("surface", nargs="?", choices=_SURFACES, help="one kind (default: all)")
    parser.add_argument("name", metavar="NAME", nargs="?", help="describe this one")


def run(chosen: argparse.Namespace) -> int:
    """Print the names, or one's arguments."""
    from kerasgen import constraints, corpora, exporters, models, samplers, tuners

    registries: dict[str, Registry[object]] = {
        "corpora": corpora.REGISTRY,  # type: ignore[dict-item]  # only names are asked for
        "models": models.REGISTRY,  # type: ignore[dict-item]
        "tuners": tuners.REGISTRY,  # type: ignore[dict-item]
        "samplers": samplers.REGISTRY,  # type: ignore[dict-item]
        "constraints": constraints.REGISTRY,  # type: ignore[dict-item]
        "exporters": exporters.REGISTRY,  # type: ignore[dict-item]
    }
    if chosen.name is not None:
        show(registries[chosen.surface].describe(chosen.name))
        return 0
    for surface in [chosen.surface] if chosen.surface else registries:
        show(f"{surface}: {', '.join(registries[surface].names())}")
    return 0
