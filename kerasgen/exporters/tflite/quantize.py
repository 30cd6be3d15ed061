"""Quantises the weights of a TFLite flatbuffer, each once, and reads what a flatbuffer holds.

On ai-edge-litert's schema and litert-quantizer, which are imported late.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.weights import Weights, flat
from kerasgen.quiet import quietly

_ALIGNMENT = 64
BLOCK = 32  # weights of a kernel's row that int4 scales together
SILENT = {"enable_progress_bar": False, "enable_progress_report": False}  # litert-quantizer prints both
# The library shows one bar although it was told to show none.
BARS = re.compile(rb"\s*(\r?(Applying Transformations|Generating Quantization)[^\n]*\n?)*", re.DOTALL)


def quantized(flatbuffer: bytes, quantize: str) -> bytes:
    """Return the same graph with weights of another type and float32 activations.

    Rows of a table are looked up by `EMBEDDING_LOOKUP`, which reads the very buffer that the output layer multiplies
    with; `GATHER` would want a second copy in another type.

    Args:
        flatbuffer: float32, as `tflite_graph.convert` returns it.
        quantize: `"float32"`, `"float16"`, `"int8"` or `"int4"`. int8 scales by row; so does int4 tables, which stay
            int8, as do kernels whose inputs `BLOCK` doesn't divide, and other kernels by blocks of `BLOCK` inputs.
    """
    if quantize == "float32":
        return flatbuffer
    if quantize == "float16":
        return _to_float16(flatbuffer)
    from litert_quantizer import quantizer, recipe

    graph = _with_embedding_lookup(flatbuffer)
    recipes = recipe.dynamic_wi8c_afp32()
    if quantize == "int4":
        # Later ones win; the table stays 8 bits wide, which its use as the output layer asks for.
        recipes = recipes + [_by_blocks(name) for name in _kernels(graph)]
    with quietly(BARS):
        made = quantizer.Quantizer(bytearray(graph), recipes).quantize(**SILENT).quantized_model
    return with_shared_scales(bytes(made))


def operators(flatbuffer: bytes) -> list[str]:
    """Return the names of the operators of all signatures, sorted; custom ones begin with `CUSTOM`."""
    schema, model = read(flatbuffer)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    names_used = set()
    for code in model.operatorCodes:
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = (code.customCode or b"").decode() if code.customCode else ""
        names_used.add(f"CUSTOM {custom}" if names[builtin] == "CUSTOM" else names[builtin])
    return sorted(names_used)


def least_bytes(weights: Weights, quantize: str) -> int:
    """Return how many bytes the weights take at the least, the scales of integers with them."""
    total = 0
    for name, array in flat(weights).items():
        is_table = name.startswith(("embedding.", "head."))
        if array.ndim != 2 or quantize == "float32":
            total += 4 * array.size
        elif quantize == "float16":
            total += 2 * array.size
        elif quantize == "int8" or is_table or array.shape[0] % BLOCK:
            total += array.size + 4 * array.shape[0 if name.startswith("embedding.") else 1]
        else:  # a nibble each, and a float16 for a block
            total += array.size // 2 + 2 * (array.size // BLOCK)
    return total


def read(flatbuffer: bytes) -> tuple[Any, Any]:
    """Return the schema, and the model with all its buffers' content in it."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # it lies behind the tables
            buffer.data = np.frombuffer(flatbuffer, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return schema, model


def pack(model: Any) -> bytes:
    """Return the file of a model, whose buffers are empty afterwards.

    They are tables, then each buffer's content, aligned as the runtime maps it into memory.
    """
    import flatbuffers

    contents: list[tuple[Any, memoryview]] = []
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data):
            contents.append((buffer, memoryview(buffer.data)))
            buffer.data, buffer.offset, buffer.size = None, _ALIGNMENT, len(contents[-1][1])

    def tables() -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    at = length = _aligned(len(tables()))
    for buffer, content in contents:
        buffer.offset = at
        at = _aligned(at + len(content))
    parts: list[Any] = [tables().ljust(length, b"\0")]
    for _, of_buffer in contents:
        parts += [of_buffer, bytes(_aligned(len(of_buffer)) - len(of_buffer))]
    return b"".join(parts)


def content(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return an array as the content of a buffer."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def kind(model: Any, step: Any) -> int:
    """Return which of the builtin operators a step is."""
    code = model.operatorCodes[step.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _add_code(model: Any, schema: Any, builtin: int, version: int) -> int:
    """Add an operator to the model and return its index."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _with_embedding_lookup(flatbuffer: bytes) -> bytes:
    schema, model = read(flatbuffer)
    operator = schema.BuiltinOperator
    index = _add_code(model, schema, operator.EMBEDDING_LOOKUP, 1)
    for graph in model.subgraphs:
        for step in graph.operators:
            table = graph.tensors[step.inputs[0]] if len(step.inputs) == 2 else None
            if kind(model, step) != operator.GATHER or table is None or len(table.shape) != 2:
                continue
            step.opcodeIndex = index
            step.inputs = [step.inputs[1], step.inputs[0]]
            step.builtinOptions = None
            step.builtinOptionsType = 0
    return pack(model)


def _kernels(flatbuffer: bytes) -> list[str]:
    """Return the names of the products with kernels, without the output layer's."""
    schema, model = read(flatbuffer)
    operator = schema.BuiltinOperator

    def second_inputs(builtin: int) -> list[tuple[Any, bytes]]:
        return [
            (graph.tensors[step.inputs[1]], graph.tensors[step.outputs[0]].name)
            for graph in model.subgraphs
            for step in graph.operators
            if kind(model, step) == builtin
        ]

    tables = {table.buffer: tuple(table.shape) for table, _ in second_inputs(operator.EMBEDDING_LOOKUP)}
    products = second_inputs(operator.FULLY_CONNECTED)
    outputs = set(tables) & {kernel.buffer for kernel, _ in products}
    if not outputs:  # an output layer of its own has the shape of the tokens' table
        tokens = max(tables.values())
        outputs = {kernel.buffer for kernel, _ in products if tuple(kernel.shape) == tokens}
    whole = [(kernel, name) for kernel, name in products if kernel.shape[-1] % BLOCK == 0]
    return [name.decode() for kernel, name in whole if kernel.buffer not in outputs]


def _by_blocks(name: str) -> Any:
    from litert_quantizer import qtyping, recipe

    (rule,) = recipe.dynamic_wi4b32_afp32(
        regex=f"^{re.escape(name)};?$", operation_name=qtyping.TFLOperationName.FULLY_CONNECTED
    )
    return rule


def _to_float16(flatbuffer: bytes) -> bytes:
    """Convert matrices to float16; each graph dequantises them before use, which the runtime does once.

    They are what is multiplied or looked up in. Other constants of two dimensions, such as the frequencies of rotary
    positions, stay as they are.
    """
    schema, model = read(flatbuffer)
    types, operator = schema.TensorType, schema.BuiltinOperator
    of_matrices = {operator.FULLY_CONNECTED: 1, operator.BATCH_MATMUL: 1, operator.GATHER: 0}
    matrices = {
        graph.tensors[step.inputs[of_matrices[kind(model, step)]]].buffer
        for graph in model.subgraphs
        for step in graph.operators
        if kind(model, step) in of_matrices
    }
    dequantize = _add_code(model, schema, schema.BuiltinOperator.DEQUANTIZE, 3)
    halved: set[int] = set()
    for graph in model.subgraphs:
        first = []
        for index, tensor in enumerate(list(graph.tensors)):
            content = model.buffers[tensor.buffer].data
            is_matrix = tensor.type == types.FLOAT32 and len(tensor.shape) == 2 and tensor.buffer in matrices
            if not is_matrix or content is None or not len(content):
                continue
            if tensor.buffer not in halved:
                if np.prod(tensor.shape) * 4 != len(content):
                    raise ValueError(f"A tensor of shape {tensor.shape} has {len(content)} bytes.")
                array = np.frombuffer(bytes(content), np.float32)
                model.buffers[tensor.buffer].data = np.frombuffer(array.astype(np.float16).tobytes(), np.uint8)
                halved.add(tensor.buffer)
            half = copy.copy(tensor)
            half.type, half.name = types.FLOAT16, tensor.name + b"_float16"
            tensor.buffer = 0
            graph.tensors.append(half)
            step = schema.OperatorT()
            step.opcodeIndex, step.inputs, step.outputs = dequantize, [len(graph.tensors) - 1], [index]
            first.append(step)
        graph.operators = first + list(graph.operators)
    return pack(model)


def with_shared_scales(flatbuffer: bytes) -> bytes:
    """Write equal scales once: every signature has tensors of its own for the same weights."""
    schema, model = read(flatbuffer)

    class Shared(schema.QuantizationParametersT):  # type: ignore[misc, name-defined]
        """Quantisation parameters that are packed once in each file."""

        packed: tuple[Any, int] = (None, 0)

        def Pack(self, builder: Any) -> int:  # noqa: N802  the schema's name
            if self.packed[0] is not builder:
                self.packed = builder, int(super().Pack(builder))
            return self.packed[1]

    shared: dict[tuple[int, bytes], Any] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            parameters = tensor.quantization
            if parameters is None or parameters.scale is None or len(parameters.scale) < 2:
                continue
            key = tensor.buffer, np.asarray(parameters.scale, np.float32).tobytes()
            if key not in shared:
                shared[key] = Shared()
                shared[key].__dict__.update(parameters.__dict__)
            tensor.quantization = shared[key]
    return pack(model)
