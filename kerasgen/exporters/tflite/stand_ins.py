"""Converts a graph to TFLite without its matrices, and puts them into the file afterwards.

The converter takes a constant of one repeated number as that number, whatever its shape, so that none of its passes
reads weights: GPT-2's base shape is converted in a quarter of the time. Imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import convert as converting
from tensorflow.lite.python import lite

from kerasgen.decoder.weights import TABLES, Weights, flat, map_named
from kerasgen.errors import ExportError
from kerasgen.exporters.tflite import quantize

_MATRICES = (*TABLES, "head.table", "estimates.table")
_VECTOR = "vector_{}"  # of such an input
_GOLDEN = (5**0.5 - 1) / 2  # whose multiples, without their whole parts, are all apart


class StandIns:
    """The weights of a graph, and what stands in for them while it is traced and converted.

    Args:
        weights: by name, NumPy arrays as the graph multiplies them.
        inputs: names of vectors that are inputs meanwhile, for the converter would compute with constants: it would
            multiply the bias of a norm with the matrix behind it.
    """

    def __init__(self, weights: Weights, inputs: Sequence[str]) -> None:
        self.weights = weights
        self._named = flat(weights)
        names = [name for name in self._named if name.endswith(".kernel") or name in _MATRICES]
        self._numbers = {name: np.float32(1 + number * _GOLDEN % 1) for number, name in enumerate(names)}
        self._inputs = {name: _VECTOR.format(number) for number, name in enumerate(inputs)}
        self._signatures: list[str] = []

    def function(self, call: Any, specs: Mapping[str, Any]) -> Any:
        """Trace a function that reads `weights`, with constants and inputs of its own in their places.

        Args:
            call: takes tensors by name.
            specs: of its inputs.
        """
        own = {of: tf.TensorSpec(self._named[name].shape, tf.float32, of) for name, of in self._inputs.items()}

        def traced(**inputs: Any) -> Any:
            vectors = {name: inputs.pop(of) for name, of in self._inputs.items()}
            weights = self.weights
            self.weights = map_named(lambda name, array: self._stand_in(name, array, vectors), weights)
            try:
                return call(**inputs)
            finally:
                self.weights = weights

        return tf.function(traced, autograph=False).get_concrete_function(**specs, **own)

    def _stand_in(self, name: str, array: Any, vectors: Mapping[str, Any]) -> Any:
        if name in vectors:
            return vectors[name]
        return tf.constant(self._numbers.get(name, array), tf.float32, array.shape)

    def save(self, module: Any, directory: Path, signatures: Mapping[str, Any]) -> None:
        """Write a SavedModel of functions that were traced by `function`, or read no weights."""
        self._signatures = list(signatures)
        tf.saved_model.save(module, str(directory), signatures=dict(signatures))

    def converted(self, directory: Path) -> bytes:
        """Return the flatbuffer of what `save` wrote, in builtin operators alone, with the weights in it.

        Raises:
            ExportError: the converter computed with what stood in for a matrix.
        """
        # `TFLiteConverter.convert` would read all functions twice and look for equal buffers in Python.
        converter = lite.TFLiteSavedModelConverterV2(str(directory), {tf.saved_model.SERVING}, self._signatures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # The pass that looks for infinity reads every number of a constant, of every signature.
        converter.canonicalizing_inf_as_min_max_float = False
        # A matrix with a number multiplied into it would be a second one, and not known for what it is.
        converter._experimental_disable_fuse_mul_and_fc = True
        return self._filled(converting.convert_saved_model(**converter._get_base_converter_args()))

    def _filled(self, flatbuffer: bytes) -> bytes:
        schema, model = quantize.read(flatbuffer)
        matrices = self._fill_matrices(schema, model)
        for signature in model.signatureDefs:
            self._fill_vectors(schema, model, signature)
        _share_buffers(model)
        wrong = [
            graph.tensors[step.inputs[1]].name.decode()
            for graph in model.subgraphs
            for step in graph.operators
            if quantize.kind(model, step) == schema.BuiltinOperator.FULLY_CONNECTED
            and model.buffers[graph.tensors[step.inputs[1]].buffer].data is not None
            and graph.tensors[step.inputs[1]].buffer not in matrices
        ]
        missing = set(self._numbers) - set(matrices.values())
        if wrong or missing:
            raise ExportError(
                "The converter computed with what stood in for weights, so the file would be of another model: "
                f"{', '.join([*wrong, *sorted(missing)][:3])}. Nothing was kept. This is a fault of kerasgen's."
            )
        return quantize.pack(model)

    def _fill_matrices(self, schema: Any, model: Any) -> dict[int, str]:
        """Put matrices into the buffers of their numbers, and return the names by the buffers."""
        names = {number.tobytes(): name for name, number in self._numbers.items()}
        first: dict[str, int] = {}
        matrices: dict[int, str] = {}
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                buffer = model.buffers[tensor.buffer]
                if tensor.type != schema.TensorType.FLOAT32 or buffer.data is None or tensor.buffer in matrices:
                    continue
                name = names.get(bytes(buffer.data[:4]))
                if name is None or tuple(tensor.shape) != self._named[name].shape:
                    continue
                numbers = np.frombuffer(buffer.data, np.float32)
                if len(numbers) == self._named[name].size and (numbers == numbers[0]).all():
                    matrices[tensor.buffer] = name
                    first.setdefault(name, tensor.buffer)
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                if tensor.buffer in matrices:
                    tensor.buffer = first[matrices[tensor.buffer]]
        for index, name in matrices.items():
            is_first = first[name] == index
            model.buffers[index].data = quantize.content(self._named[name]) if is_first else None
        return {index: name for name, index in first.items()}

    def _fill_vectors(self, schema: Any, model: Any, signature: Any) -> None:
        """Make constants of those inputs of a signature that stand in for vectors."""
        graph, names = model.subgraphs[signature.subgraphIndex], {of: name for name, of in self._inputs.items()}
        own = {
            given.tensorIndex: names[given.name.decode()] for given in signature.inputs if given.name.decode() in names
        }
        for index, name in own.items():
            buffer = schema.BufferT()
            buffer.data = quantize.content(self._named[name])
            graph.tensors[index].buffer = len(model.buffers)
            model.buffers.append(buffer)
        signature.inputs = [given for given in signature.inputs if given.tensorIndex not in own]
        graph.inputs = [index for index in graph.inputs if index not in own]


def _share_buffers(model: Any) -> None:
    """Let tensors of equal content have one buffer; each signature brings its own."""
    first: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            content = model.buffers[tensor.buffer].data
            if content is not None and 0 < len(content) < 1 << 20:
                tensor.buffer = first.setdefault(bytes(content), tensor.buffer)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
