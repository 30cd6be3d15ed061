"""Arguments that several commands take, and how a help text shows defaults."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kerasgen.keywords import did_you_mean
from kerasgen.models.weights_dtype import DTYPES


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors suggest the closest choice."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as wrong:
            hint = did_you_mean(str(value), map(str, action.choices or ()))
            if not hint:
                raise
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}.{hint}") from wrong


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of every option that has one; a flag that is off has none worth reading."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


def verbosity() -> int:
    """Shows the progress of a run: as a bar in a terminal, elsewhere as a line an epoch."""
    return 1 if sys.stdout.isatty() else 2


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend`."""
    parser.add_argument(
        "--backend",
        choices=["auto", "jax", "tensorflow", "torch"],
        help="what Keras runs on (default: KERAS_BACKEND, else auto for what trains, else jax)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add what a command opens."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a saved pipeline's directory, or a model: starter, smollm2, a KerasHub preset's name, a model's "
        "directory or GGUF file",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    parser.add_argument(
        "--weights",
        choices=DTYPES,
        help="what kernels and the token table are held in: bfloat16 takes half the memory (default: float32)",
    )
