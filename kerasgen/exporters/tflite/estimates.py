"""Adds an 8-bit copy of the output layer, whose estimates say which few logits are worth computing.

For the likeliest tokens of a step a graph need not multiply the whole output layer in float32, which is a third of what
GPT-2 base reads for a token. It estimates every logit with the rows rounded to 8 bits, takes the highest estimates, and
computes those tokens' logits with the float32 rows. How far an estimate can be off is bounded by the rows' rounding and
the hidden state's, so the runtime knows when the likeliest tokens are among those, and computes all logits when not.

Source: scan in low precision, then rank again exactly, as searches for the greatest inner product do (Guo et al. 2020,
"Accelerating Large-Scale Inference with Anisotropic Vector Quantization"); the bound is Cauchy and Schwarz's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ExportError
from kerasgen.exporters.tflite import quantize
from kerasgen.quiet import quietly

COUNT = 256
ESTIMATES = "estimates"  # of the logits, as the graph names them
_LEVELS = 127


def rounded_rows(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the rows of a table `(vocabulary_size, hidden_dim)`, each rounded to 127 steps of its largest number."""
    scales = np.abs(table).max(axis=1, keepdims=True) / _LEVELS
    scales[scales == 0] = 1
    return np.asarray(np.rint(table / scales) * scales, dtype=np.float32)


def bounds(flatbuffer: bytes, table: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the numbers by which the runtime bounds an estimate's error: the largest Euclidean norms of rows.

    Args:
        flatbuffer: the flatbuffer whose rows in 8 bits are compared, as they are stored.
        table: the float32 rows.

    Raises:
        ExportError: it stores no such rows.
    """
    wide, stored = table.astype(np.float64), _stored_rows(flatbuffer, table.shape)
    return {
        "row_error": float(np.sqrt(((wide - stored) ** 2).sum(axis=1).max())),
        "largest_row": float(np.sqrt((wide**2).sum(axis=1).max())),
    }


def _stored_rows(flatbuffer: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the rows that logits are estimated with, as float64."""
    schema, model = quantize.read(flatbuffer)
    tables = {
        tensor.buffer: tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.INT8 and tuple(tensor.shape) == shape
    }
    if len(tables) != 1:
        raise ExportError(
            f"The file should hold one table of {shape} in 8 bits to estimate logits with, and holds {len(tables)}. "
            "Nothing was kept. Export it with shortlist=0."
        )
    ((buffer, tensor),) = tables.items()
    steps = np.frombuffer(bytes(model.buffers[buffer].data), np.int8).reshape(shape).astype(np.float64)
    return steps * np.asarray(tensor.quantization.scale, np.float64)[:, None]


def with_estimates_in_8_bits(flatbuffer: bytes) -> bytes:
    """Return the graph with the rows that estimates are made with in 8 bits, and all else as it is."""
    from litert_quantizer import qtyping, quantizer, recipe

    recipes: list[Any] = recipe.dynamic_wi8c_afp32(
        regex=f".*{ESTIMATES}.*", operation_name=qtyping.TFLOperationName.FULLY_CONNECTED
    )
    with quietly(quantize.BARS):
        made = quantizer.Quantizer(bytearray(flatbuffer), recipes).quantize(**quantize.SILENT).quantized_model
    return quantize.with_shared_scales(bytes(made))
