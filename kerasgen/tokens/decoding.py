"""Decoders of bytes under the module name that they had in 0.1.0."""

from __future__ import annotations

from kerasgen import deprecations

__getattr__ = deprecations.moved(__name__, {"ByteTokenDecoder": "kerasgen.tokens.utf8_decoding:ByteTokenDecoder"})
