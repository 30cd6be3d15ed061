"""Chooses the signatures of a page's model so that the model fits into the memory that a browser gives it."""

from __future__ import annotations

from typing import Final

from kerasgen.errors import ExportArgumentError

WEBASSEMBLY_BYTES: Final = 4 << 30
"""What WebAssembly can address."""

_PREFERRED_BYTES = 5 << 29  # 2.5 GiB: 3.2 (SmolLM2 in float32, five signatures) ended with an error of the engine
_MOST_BYTES = 13 << 28  # 3.25 GiB: the engine's own buffers and the caches come on top
_FILE_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}  # of a weight
_PACKED_BYTES = {"float32": 4.0, "float16": 4.0, "int8": 1.0, "int4": 1.0}  # of a weight, once for each signature
_FEWEST = {"prefill_lengths": (32,), "decode_lengths": ()}


def signature_lengths(weights: int, quantize: str, signatures: int) -> dict[str, tuple[int, ...]]:
    """Return the settings by which the file has as many signatures as there is room for.

    LiteRT keeps the file in memory, and the weights once more for each signature, packed for the processor.

    Args:
        weights: how many there are.
        quantize: how they are stored.
        signatures: how many the file has if nothing is said.

    Returns:
        Nothing, or lengths for `TFLiteExporter`, by which long prompts are read in short pieces.

    Raises:
        ExportArgumentError: the model is too large for a browser, however few signatures it has.
    """

    def needed(count: int, kind: str = quantize) -> float:
        return weights * (_FILE_BYTES[kind] + count * _PACKED_BYTES[kind])

    if needed(signatures) <= _PREFERRED_BYTES:
        return {}
    if needed(2) <= _MOST_BYTES:
        return dict(_FEWEST)
    fitting = [kind for kind in _FILE_BYTES if needed(2, kind) <= _MOST_BYTES]
    what = f"Take quantize={fitting[0]!r}" if fitting else "Take a smaller model, or serve this one: kerasgen serve"
    raise ExportArgumentError(
        f"A page can't hold this model of {weights:,} weights: a browser would need {needed(2) / 1e9:.1f} GB for it, "
        f"and gives {WEBASSEMBLY_BYTES / 1e9:.1f}. {what}. Received: quantize={quantize!r}."
    )
