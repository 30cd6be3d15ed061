"""`kerasgen backend`: which backend trains faster here."""

from __future__ import annotations

import argparse

NAME = "backend"
HELP = "measure which backend trains faster on this machine, and keep it for --backend auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes nothing."""


def run(chosen: argparse.Namespace) -> int:
    """Measure, remember and say so."""
    from kerasgen import backend
    from kerasgen.tuners import backend_choice

    print("Training a small model on each backend, in turns. It takes a minute or two …", flush=True)
    path = backend.remember(backend_choice.measure())
    for name, speed in backend.remembered().items():
        print(f"{name:>10}: {speed:,.0f} tokens/s")
    print(f"{backend.AUTO} takes {backend.automatic()[0]} from now on, as {path} says.")
    return 0
