"""Converts a sampler's name, spec or KerasHub sampler to a sampler."""

from __future__ import annotations

import sys
from typing import Any

from kerasgen import samplers
from kerasgen.errors import SamplerArgumentError
from kerasgen.samplers.base import SamplerSpec


def is_hub_sampler(value: Any) -> bool:
    """Return whether `value` is an instance of KerasHub's own `Sampler`, without importing KerasHub."""
    # Nobody can hold an instance while the module is not loaded.
    keras_hub = sys.modules.get("keras_hub")
    return keras_hub is not None and isinstance(value, keras_hub.samplers.Sampler)


def resolve(value: Any) -> Any:
    """Return the sampler that `value` stands for.

    Args:
        value: a `SamplerSpec`, a `keras_hub.samplers.Sampler` instance, or text such as `"top_k:k=40"`.

    Returns:
        A `SamplerSpec`, or the instance of KerasHub's.

    Raises:
        SamplerArgumentError: `value` is none of these.
        UnknownNameError: no sampler has this name.
    """
    if isinstance(value, str):
        return samplers.create(value)
    if isinstance(value, SamplerSpec) or is_hub_sampler(value):
        return value
    hint = f" Write {value.__name__}(), with its settings." if isinstance(value, type) else ""
    raise SamplerArgumentError(
        "A sampler is a name such as 'top_k:k=40', a spec such as TopK(k=40), or an instance of "
        f"keras_hub.samplers.Sampler. Received: {value!r}.{hint}"
    )
