"""Tokens: the exact tokenizer, and the blocks of tokens that a model is trained on."""

from __future__ import annotations

from kerasgen.tokens.base import IncrementalDecoder, Tokenizer

__all__ = ["IncrementalDecoder", "Tokenizer"]
