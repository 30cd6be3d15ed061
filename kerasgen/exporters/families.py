"""What the exporters of decoder families ask of a model before any work."""

from __future__ import annotations

from kerasgen.errors import ExportArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.models.families import DecoderFamily, family_of, names
from kerasgen.tokens.bpe import ByteLevelBPE


def family_and_tokenizer(model: LanguageModel, exporter: str) -> tuple[DecoderFamily, ByteLevelBPE]:
    """Return a model's family and its byte-level tokenizer.

    Raises:
        ExportArgumentError: kerasgen doesn't know how to write this model in another format.
    """
    family = family_of(model.causal_lm)
    if family is None:
        raise ExportArgumentError(
            f"The exporter {exporter!r} can't write a {type(model.backbone).__name__}; it writes "
            f"{' and '.join(names())}. The exporter 'preset' writes any KerasHub model."
        )
    if not isinstance(model.tokenizer, ByteLevelBPE):
        raise ExportArgumentError(
            f"The exporter {exporter!r} writes byte-level BPE tokenizers. Received: {type(model.tokenizer).__name__}."
        )
    return family, model.tokenizer
