"""The keys of a GGUF file's architecture, and which of them were read. Imports NumPy only.

A key that the description of a decoder does not use is an error, for it may change what the decoder computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from kerasgen.models.architectures.base import Architecture

EXPERT_COUNT: Final = "expert_count"
EXPERT_USED_COUNT: Final = "expert_used_count"
ATTENTION_FACTOR: Final = "rope.scaling.attn_factor"

# What changes nothing in what a decoder computes, and what must be so where a file says it at all.
_BOOKKEEPING: Final = ("tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length")
_AS_USUAL: Final[Mapping[str, Any]] = {
    "attention.causal": True,
    "attention.max_alibi_bias": 8.0,
    "expert_gating_func": 1,  # the softmax
    "expert_weights_scale": 1.0,
    "pooling_type": 0,
    ATTENTION_FACTOR: 1.0,
}


class FileKeys:
    """What a file says of an architecture, and which of it has been used.

    Args:
        architecture: by whose name in llama.cpp the keys begin.
        says: all that the file says.
    """

    def __init__(self, architecture: Architecture, says: Mapping[str, Any]) -> None:
        self._prefix = f"{architecture.gguf}."
        self._said = {key.removeprefix(self._prefix): says[key] for key in says if key.startswith(self._prefix)}
        self._used: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._said

    def take(self, key: str, default: Any = None) -> Any:
        """Return what the file says under a key, or the default.

        Raises:
            ValueError: it says nothing, and there is no default.
        """
        self._used.add(key)
        if key not in self._said and default is None:
            raise ValueError(f"it does not say {self._prefix + key!r}")
        return self._said.get(key, default)

    def size(self, key: str, default: int | None = None) -> int:
        """Return a whole number from 1, which a file may say once for each layer; see `take`."""
        value = self.take(key, default)
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():  # one for each layer
            value = value[0].item()
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise ValueError(f"its {self._prefix + key!r} must be a whole number from 1. It is {value!r:.80}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number above 0; see `take`."""
        value = self.take(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ValueError(f"its {self._prefix + key!r} must be a number above 0. It is {value!r:.80}")
        return shortest(value)

    def require(self, key: str, wanted: Any) -> None:
        """Check what a file may say, and that it says nothing else."""
        value = self.take(key, wanted)
        if value is not wanted and (isinstance(value, np.ndarray) or value != wanted):
            raise ValueError(f"its {self._prefix + key!r} is {value!r:.80}, and this decoder computes with {wanted!r}")

    def check_used(self) -> None:
        """Check that nothing is left that a decoder may depend on.

        Raises:
            ValueError: a key was not used.
        """
        for key in (EXPERT_COUNT, EXPERT_USED_COUNT):
            if key not in self._used:
                self.require(key, 0)
        for key, value in _AS_USUAL.items():
            if key not in self._used:
                self.require(key, value)
        left = [key for key in self._said if key not in self._used and key not in _BOOKKEEPING]
        if left:
            raise ValueError(
                f"it says {self._prefix + left[0]!r} = {self._said[left[0]]!r:.80}, which the description of this "
                "decoder does not use: without it, it would be another model"
            )


def shortest(number: float) -> float:
    """Return the number of the fewest digits that a file's 32 bits stand for: 1e-05, kept as 9.999999747378752e-06."""
    return float(str(np.float32(number)))
