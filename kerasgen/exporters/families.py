"""What the exporters of decoder families ask of a model before any work."""

from __future__ import annotations

from kerasgen.errors import ExportArgumentError
from kerasgen.models.base import LanguageModel, quantization_modes
from kerasgen.models.families import DecoderFamily, family_of, names
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE


def family_and_tokenizer(model: LanguageModel, exporter: str) -> tuple[DecoderFamily, ByteLevelBPE]:
    """Return a model's family and its byte-level tokenizer.

    Raises:
        ExportArgumentError: kerasgen doesn't know how to write this model in another format.
    """
    require_plain(model, exporter)
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


def require_plain(model: LanguageModel, exporter: str) -> None:
    """Check, before any work, that a model's weights are numbers and no codes.

    Raises:
        ExportArgumentError: the model is quantized.
    """
    modes = quantization_modes(model.causal_lm)
    if modes:
        raise ExportArgumentError(
            f"The model is quantized ({', '.join(modes)}), and the exporter {exporter!r} writes models of plain "
            "weights. Export it before causal_lm.quantize(…); the exporter 'tflite' has a `quantize=` of its own."
        )


def require_held(tokenizer: Tokenizer, exporter: str, *, added_tokens: bool, end_tokens: bool) -> None:
    """Check, before any work, that a format can hold what a tokenizer knows beyond its vocabulary.

    Args:
        tokenizer: of the model.
        exporter: its name, for the message.
        added_tokens: whether the format finds added tokens in a text.
        end_tokens: whether it ends texts with several tokens.

    Raises:
        ExportArgumentError: it can't.
    """
    added = getattr(tokenizer, "added_tokens", ())
    if added and not added_tokens:
        raise ExportArgumentError(
            f"The exporter {exporter!r} can't write a tokenizer that finds added tokens in a text "
            f"({', '.join(repr(token.content) for token in added[:3])}). Pipeline.save keeps them, and "
            "of GPT-2 and OPT the exporters 'transformers' and 'tflite' do."
        )
    ends = tokenizer.end_token_ids
    if len(ends) > 1 and not end_tokens:
        raise ExportArgumentError(
            f"The exporter {exporter!r} can't write a model whose texts end with any of several tokens (the ids "
            f"{', '.join(map(str, ends))}). Pipeline.save keeps them, and of GPT-2 and OPT the exporter 'transformers' "
            "does; or name one in the 'generation_config.json' that the model is loaded from."
        )
