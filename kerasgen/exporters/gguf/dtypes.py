"""The types that a GGUF file's weights can be written in, by GGUF's names. Imports the standard library only."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 32
"""Weights that share a scale."""
DTYPES: Final = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0")
"""What kernels can be stored as."""
IN_BLOCKS: Final = ("Q8_0", "Q5_0", "Q4_0")

_POSITIONS: Final = "position_embd.weight"
# A token's row and its logits suffer most, and llama.cpp's own quantizer keeps these tables in more bits too.
_TABLES: Final = ("token_embd.weight", "output.weight")
# A rounded router takes other experts.
_ROUTER: Final = ".ffn_gate_inp.weight"


def kind_of(name: str, dimensions: int, dtype: str) -> str:
    """Return the type in which a tensor is stored.

    Args:
        name: in the file.
        dimensions: how many the tensor has.
        dtype: one of `DTYPES`, of the kernels.
    """
    if dimensions == 1 or name == _POSITIONS or name.endswith(_ROUTER):
        return "F32"
    return "Q8_0" if name in _TABLES and dtype in IN_BLOCKS else dtype
