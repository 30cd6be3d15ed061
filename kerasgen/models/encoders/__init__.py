"""The architectures of masked language models, a file of data each."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from kerasgen.models.encoders.base import EncoderArchitecture

_HOMES: Final = {
    "roberta": "roberta",
    "xlm-roberta": "xlm_roberta",
    "bert": "bert",
    "distilbert": "distil_bert",
    "albert": "albert",
    "deberta-v2": "deberta_v2",
}
_BACKBONES: Final = {
    "RobertaBackbone": "roberta",
    "XLMRobertaBackbone": "xlm-roberta",
    "BertBackbone": "bert",
    "DistilBertBackbone": "distilbert",
    "AlbertBackbone": "albert",
    "DebertaV3Backbone": "deberta-v2",
}


def names() -> tuple[str, ...]:
    """Return the names of all architectures, transformers' `model_type`."""
    return tuple(_HOMES)


def named(name: object) -> EncoderArchitecture | None:
    """Return the architecture of a `model_type`, or None."""
    if not isinstance(name, str) or name not in _HOMES:
        return None
    found: EncoderArchitecture = import_module(f"{__name__}.{_HOMES[name]}").ARCHITECTURE
    return found


def tasks() -> tuple[str, ...]:
    """Return the names of KerasHub's classes of masked language models that are read."""
    return tuple(architecture.task for name in _HOMES if (architecture := named(name)) is not None)


def of_backbone(class_name: str) -> EncoderArchitecture | None:
    """Return the architecture of a class of KerasHub's, or None."""
    return named(_BACKBONES.get(class_name.rpartition(">")[2]))
