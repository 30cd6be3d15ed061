"""Refuses, in a forked child, an engine whose threads stayed in the parent: the child would wait for them forever."""

from __future__ import annotations

import os

from kerasgen.errors import ForkedError

KERAS = "Keras's backend"
JAX = "JAX"
TENSORFLOW = "TensorFlow"
LITERT_LM = "LiteRT-LM"
LLAMA_CPP = "llama.cpp"

_began: dict[str, int] = {}


def begin(engine: str) -> None:
    """Take note that an engine begins to run in this process.

    Raises:
        ForkedError: it began in a process of which this one is a forked child.
    """
    check(engine)
    _began[engine] = os.getpid()


def check(engine: str) -> None:
    """Raise if an engine can't run in this process.

    Args:
        engine: one of the names above.

    Raises:
        ForkedError: it began in a process of which this one is a forked child.
    """
    check_owner(engine, _began.get(engine))


def check_owner(engine: str, parent: int | None) -> None:
    """Raise if what an engine made can't be used in this process.

    Args:
        engine: one of the names above.
        parent: number of the process that it was made in, if any.

    Raises:
        ForkedError: this one is another.
    """
    if parent is not None and parent != os.getpid():
        raise ForkedError(
            f"This process, {os.getpid()}, was forked from {parent} after {engine} had begun there, and its threads "
            "were not forked with it: it would wait for them without an end. Start processes by "
            'multiprocessing.get_context("spawn") or subprocess, or fork before a model is loaded. Tokenizers and '
            "corpora work here."
        )
