"""Generation: prefill and decoding loops, streaming, and texts out of token ids.

Importing it, and decoding an artefact with it, needs no Keras; a Keras model brings its engine when it is decoded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasgen.generation.api import GeneratedText, decode, generate, generate_ids, stream
    from kerasgen.generation.batches import Continuation, PromptOffset
    from kerasgen.generation.engine import Engine, Session

__all__ = [
    "Continuation",
    "Engine",
    "GeneratedText",
    "PromptOffset",
    "Session",
    "decode",
    "generate",
    "generate_ids",
    "stream",
]

_HOMES = {
    "Continuation": "batches",
    "PromptOffset": "batches",
    "Engine": "engine",
    "Session": "engine",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kerasgen.generation.{_HOMES.get(name, 'api')}"), name)
