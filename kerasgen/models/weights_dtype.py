"""The dtype that a model's big weights are held in: float32, or bfloat16 in half the memory. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Final, get_args

from kerasgen.errors import ModelArgumentError, ModelError
from kerasgen.models.base import LanguageModel, ModelSource, WeightsDtype

DTYPES: Final[tuple[str, ...]] = get_args(WeightsDtype)


def check(weights: Any) -> WeightsDtype | None:
    """Return a `weights` argument that is a dtype or None.

    Raises:
        ModelArgumentError: it is neither.
    """
    if weights is None or weights in DTYPES:
        return weights  # type: ignore[no-any-return]
    why = ""
    if weights == "float16":
        why = " Files in float16 are read, and held in one of these, for float16 ends at 65,504."
    raise ModelArgumentError(
        f"`weights` must be {' or '.join(map(repr, DTYPES))}, or None for 'float32'. Received: {weights!r}.{why}"
    )


def resolved(weights: WeightsDtype | None) -> WeightsDtype | None:
    """Return the dtype that `"auto"` stands for on this device: bfloat16 where products of it are made as they are.

    A GPU or a TPU multiplies bfloat16 by bfloat16, twice as fast as what it makes of float32, and reads half as much
    for a token. A CPU widens it first.
    """
    if weights != "auto":
        return weights
    from kerasgen.models import precision

    return "bfloat16" if precision.multiplies_bfloat16() else "float32"


def load(source: ModelSource, weights: WeightsDtype | None) -> LanguageModel:
    """Return the model of a source, its big weights held as asked.

    In bfloat16 are the kernels of projections, the table of token embeddings and the output layer's kernel. Everything
    is computed in float32. Of transformers directories and GGUF files each tensor is rounded as it is read; what
    another source brings is rounded afterwards, a layer at a time. Where a caller holds weights as codes already
    (`quantized_base.loading`), these count.

    Args:
        source: of the model.
        weights: `"bfloat16"`, or `"float32"` or None, which are the same, or `"auto"`; see `resolved`.

    Raises:
        ModelError: bfloat16 is asked for of a model that kerasgen doesn't describe.
    """
    if resolved(weights) != "bfloat16":
        return source.load()
    from kerasgen.models import quantized_base

    scheme = quantized_base.loaded_as() or quantized_base.HALF
    with quantized_base.loading(scheme):
        model = source.load()
    from kerasgen.models import forward

    decoder = forward.decoder_of(model)
    if decoder is None:
        raise ModelError(
            f"weights='bfloat16' is for models that kerasgen describes, and this {model.kind} is none. Leave it out."
        )
    if scheme == quantized_base.HALF:
        quantized_base.hold(quantized_base.targets(decoder), scheme)
    return model


def held(model: LanguageModel) -> WeightsDtype | None:
    """Return `"bfloat16"` if all weights that `load` would hold so are, adapters added in, and None otherwise."""
    from kerasgen.models import forward, quantized_base

    decoder = forward.decoder_of(model)
    if decoder is None:
        return None
    layers = list(quantized_base.targets(decoder))
    is_half = all(quantized_base.is_half(layer) and not getattr(layer, "lora_enabled", False) for layer in layers)
    return "bfloat16" if is_half else None
