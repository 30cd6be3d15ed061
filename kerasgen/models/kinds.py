"""Tells masked language models from causal ones, before their weights are loaded where files tell it."""

from __future__ import annotations

from typing import Any

from kerasgen import limits
from kerasgen.models.base import MaskedLanguageModel, ModelSource


def is_masked(source: ModelSource, model: Any = None) -> bool | None:
    """Return whether a source brings a masked language model; None where only loading it tells.

    Args:
        source: of the model.
        model: what it brought, if it is loaded already.
    """
    if model is not None:
        return isinstance(model, MaskedLanguageModel)
    if source.gguf_file() is not None:
        return False
    directory = source.directory()
    if directory is None:
        return None
    from kerasgen.models.masked_loading import is_masked

    try:
        return is_masked(limits.read_json(directory / "config.json"))
    except (OSError, ValueError):  # told when it is loaded
        return None
