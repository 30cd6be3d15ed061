"""Checks that a model can be exported, before any work."""

from __future__ import annotations

from typing import TypeAlias

from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ExportArgumentError
from kerasgen.models import architectures, described
from kerasgen.models.architectures import Architecture
from kerasgen.models.base import CONTEXT_LENGTH, LanguageModel, quantization_modes
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.preprocessing import DEFAULT_SEQUENCE_LENGTH
from kerasgen.runtime import metadata
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import GPT2
from kerasgen.tokens.pretrained import PretrainedTokenizer

FileTokenizer: TypeAlias = ByteLevelBPE | PretrainedTokenizer
"""A tokenizer that one file holds."""


def file_tokenizer(model: LanguageModel, exporter: str) -> FileTokenizer:
    """Return a model's tokenizer where a file beside an artefact holds it: a `tokenizer.json` or a SentencePiece model.

    Raises:
        ExportArgumentError: it is another kind.
    """
    tokenizer = _bare(model.tokenizer)
    return tokenizer if isinstance(tokenizer, PretrainedTokenizer) else json_tokenizer(model, exporter)


def json_tokenizer(model: LanguageModel, exporter: str) -> FileTokenizer:
    """Return a model's tokenizer where a `tokenizer.json` holds it.

    Raises:
        ExportArgumentError: it is another kind.
    """
    tokenizer = _bare(model.tokenizer)
    if isinstance(tokenizer, ByteLevelBPE) or (isinstance(tokenizer, PretrainedTokenizer) and tokenizer.is_json):
        return tokenizer
    raise ExportArgumentError(
        f"The exporter {exporter!r} writes tokenizers that came from a tokenizer.json, and no SentencePiece model, "
        f"which none can say exactly. Received: {model.tokenizer!r}. The exporter 'preset' takes KerasHub's; or load "
        "the model from a directory that has a tokenizer.json."
    )


def decoder_of(model: LanguageModel, exporter: str) -> Architecture:
    """Return the architecture of a model that a table describes.

    Raises:
        ExportArgumentError: kerasgen doesn't know how to write this model in another format.
    """
    require_plain(model, exporter)
    architecture = described.architecture_of(model)
    if architecture is None:
        raise _unwritable(model, exporter)
    return architecture


def description_of(model: LanguageModel, exporter: str) -> DecoderConfig:
    """Return the description of a model that has one; no table of names is needed.

    Raises:
        ExportArgumentError: kerasgen doesn't know how to write this model in another format.
    """
    require_plain(model, exporter)
    config = described.config_of(model)
    if config is None:
        raise _unwritable(model, exporter)
    return config


def _unwritable(model: LanguageModel, exporter: str) -> ExportArgumentError:
    alternative = (
        "The exporter 'preset' writes any KerasHub model." if model.causal_lm is not None else "Pipeline.save does."
    )
    return ExportArgumentError(
        f"The exporter {exporter!r} can't write a {described.name_of(model)}; it writes "
        f"{', '.join(architectures.backbones())}. {alternative}"
    )


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer without KerasHub's wrapper."""
    if isinstance(tokenizer, KerasHubTokenizer):
        return tokenizer.as_byte_level() or tokenizer.as_pretrained()
    return tokenizer


def byte_level(tokenizer: Tokenizer) -> ByteLevelBPE | None:
    """Return a tokenizer as the byte-level BPE that it is, or None where it is of another kind."""
    if isinstance(tokenizer, KerasHubTokenizer):
        return tokenizer.as_byte_level()
    return tokenizer if isinstance(tokenizer, ByteLevelBPE) else None


def held_in_graph(tokenizer: Tokenizer) -> ByteLevelBPE | None:
    """Return a tokenizer that a TensorFlow graph computes, byte-level BPE that cuts a text as GPT-2's, or None."""
    return tokenizer if isinstance(tokenizer, ByteLevelBPE) and tokenizer.pretokenization == GPT2 else None


def held_beside(tokenizer: Tokenizer) -> FileTokenizer | None:
    """Return a tokenizer that a file beside an artefact holds, with the same ids, or None."""
    bare = _bare(tokenizer)
    if not isinstance(bare, (ByteLevelBPE, PretrainedTokenizer)):
        return None
    return bare if metadata.token_ids(bare) == metadata.token_ids(tokenizer) else None


def text_length(model: LanguageModel, requested: int | None) -> int:
    """Return how many tokens a text may have in an artefact that says so.

    Args:
        model: what is exported.
        requested: what the caller wants, or None for the model's own; of a model that has no limit of its own, what its
            transformers directory said, else its preprocessor's, else 1024.

    Raises:
        ExportArgumentError: the model has another number of positions.
    """
    own = model.max_sequence_length
    if requested is None:
        context_length = model.metadata.get(CONTEXT_LENGTH)
        usual = getattr(model.network.preprocessor, "sequence_length", None) or DEFAULT_SEQUENCE_LENGTH
        return own or (context_length if isinstance(context_length, int) else int(usual))
    if own is not None and requested != own:
        raise ExportArgumentError(
            f"`max_sequence_length` is for models without a limit of their own, and this one has {own} positions. "
            f"Received: {requested}. Leave it out."
        )
    return requested


def require_plain(model: LanguageModel, exporter: str) -> None:
    """Check, before any work, that a model's weights are numbers and no codes.

    Raises:
        ExportArgumentError: the model is quantized.
    """
    modes = quantization_modes(model.network)
    if modes:
        raise ExportArgumentError(
            f"The model is quantized ({', '.join(modes)}), and the exporter {exporter!r} writes models of plain "
            "weights. Export it before causal_lm.quantize(…); the exporter 'tflite' has a `quantize=` of its own."
        )


def require_held(tokenizer: Tokenizer, exporter: str, *, added_tokens: bool, end_tokens: bool) -> None:
    """Check, before any work, that a format can hold what a tokenizer knows beyond its vocabulary.

    Args:
        tokenizer: the tokenizer of the model.
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
            "the exporters 'transformers' and 'tflite' do."
        )
    ends = tokenizer.end_token_ids
    if len(ends) > 1 and not end_tokens:
        raise ExportArgumentError(
            f"The exporter {exporter!r} can't write a model whose texts end with any of several tokens (the ids "
            f"{', '.join(map(str, ends))}). Pipeline.save keeps them, and the exporters 'transformers', "
            "'saved_model' and 'tflite' do; or name one in the 'generation_config.json' that the "
            "model is loaded from."
        )
