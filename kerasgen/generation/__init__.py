"""Generation: prefill and decoding loops, streaming, and texts out of token ids. Keras is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasgen.generation.batches import Continuation
    from kerasgen.generation.generating import decode, generate, generate_ids, stream

__all__ = ["Continuation", "decode", "generate", "generate_ids", "stream"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kerasgen import backend

    backend.use()
    module = "batches" if name == "Continuation" else "generating"
    return getattr(import_module(f"kerasgen.generation.{module}"), name)
