"""A TFLite flatbuffer's weights become 8-bit integers, each once; and what a flatbuffer holds.

On ai-edge-litert's schema and ai-edge-quantizer, which are imported late.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasgen.models.families.base import DecoderWeights


def to_int8(flatbuffer: bytes) -> bytes:
    """Return the same graph with int8 weights and float32 activations, scaled by row.

    Rows of the embedding table are looked up by `EMBEDDING_LOOKUP`, which reads the very buffer that the output layer
    multiplies with; `GATHER` would want a second copy in another type.

    Args:
        flatbuffer: float32, as `tflite_graph.convert` returns it.
    """
    from ai_edge_quantizer import quantizer, recipe

    quantized = quantizer.Quantizer(bytearray(_with_embedding_lookup(flatbuffer)), recipe.dynamic_wi8_afp32())
    return bytes(quantized.quantize().quantized_model)


def operators(flatbuffer: bytes) -> list[str]:
    """Return the names of the operators of all signatures, sorted; custom ones begin with `CUSTOM`."""
    schema, model = _read(flatbuffer)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found = set()
    for code in model.operatorCodes:
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = (code.customCode or b"").decode() if code.customCode else ""
        found.add(f"CUSTOM {custom}" if names[builtin] == "CUSTOM" else names[builtin])
    return sorted(found)


def least_bytes(weights: DecoderWeights, quantize: str) -> int:
    """Return how many bytes the weights take at the least: int8 for tables and kernels, with a scale for each row."""
    total = 0
    for array in _arrays(weights):
        if quantize == "int8" and array.ndim == 2:
            rows = array.shape[0] if array is weights.token_embedding else array.shape[1]
            total += array.size + 4 * (array.shape[0] if array is weights.position_embedding else rows)
        else:
            total += 4 * array.size
    return total


def _arrays(weights: DecoderWeights) -> list[Any]:
    flat = [weights.token_embedding, weights.position_embedding, weights.final_gamma, weights.final_beta]
    return flat + [np.asarray(array) for layer in weights.layers for array in layer]


def _read(flatbuffer: bytes) -> tuple[Any, Any]:
    from ai_edge_litert import schema_py_generated as schema

    return schema, schema.ModelT.InitFromPackedBuf(flatbuffer, 0)


def _with_embedding_lookup(flatbuffer: bytes) -> bytes:
    import flatbuffers

    schema, model = _read(flatbuffer)
    operator = schema.BuiltinOperator
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator.EMBEDDING_LOOKUP
    code.version = 1
    model.operatorCodes.append(code)
    index = len(model.operatorCodes) - 1
    for graph in model.subgraphs:
        for step in graph.operators:
            found = model.operatorCodes[step.opcodeIndex]
            table = graph.tensors[step.inputs[0]] if len(step.inputs) == 2 else None
            is_gather = max(found.builtinCode, found.deprecatedBuiltinCode) == operator.GATHER
            if not is_gather or table is None or len(table.shape) != 2:
                continue
            step.opcodeIndex = index
            step.inputs = [step.inputs[1], step.inputs[0]]
            step.builtinOptions = None
            step.builtinOptionsType = 0
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
