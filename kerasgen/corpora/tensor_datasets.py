"""Reads texts from a `tf.data.Dataset` of strings. TensorFlow is not imported here: the caller has done so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kerasgen.errors import CorpusArgumentError, CorpusFormatError


def is_dataset(value: object) -> bool:
    """Return whether the value is a `tf.data.Dataset`."""
    data = getattr(sys.modules.get("tensorflow"), "data", None)
    return data is not None and isinstance(value, data.Dataset)


def check_is_none_of_one(value: object) -> None:
    """Raise a `CorpusArgumentError` for a tensor, which is no dataset yet, and for an iterator of a dataset."""
    tensorflow = sys.modules.get("tensorflow")
    if getattr(tensorflow, "data", None) is None:
        return
    assert tensorflow is not None
    if isinstance(value, tensorflow.Tensor):
        advice = "Wrap it: tf.data.Dataset.from_tensor_slices(tensor)."
        if value.dtype != tensorflow.string:
            advice = "Pass the texts; token ids are made here, with the model's own tokenizer."
        raise CorpusArgumentError(
            f"texts must be an iterable of strings. Received a tensor of {value.dtype.name}, of shape {value.shape}. "
            f"{advice}"
        )
    if isinstance(value, tensorflow.data.Iterator):
        raise CorpusArgumentError(
            "texts must be an iterable of strings. Received an iterator of a tf.data.Dataset, which gives tensors. "
            "Pass the dataset itself."
        )


def is_infinite(dataset: Any) -> bool:
    """Return whether the dataset says of itself that it has no end."""
    return bool(dataset.cardinality() == sys.modules["tensorflow"].data.INFINITE_CARDINALITY)


def check(dataset: Any) -> None:
    """Raise a `CorpusArgumentError` unless the dataset's elements are strings or batches of them."""
    tensorflow = sys.modules["tensorflow"]
    spec = dataset.element_spec
    if isinstance(spec, (tensorflow.TensorSpec, tensorflow.RaggedTensorSpec)) and spec.dtype == tensorflow.string:
        return
    raise CorpusArgumentError(
        f"A tf.data.Dataset must give strings, or batches of them. Received elements of {spec}. {_advice(spec)}"
    )


def _advice(spec: Any) -> str:
    tensorflow = sys.modules["tensorflow"]

    def is_text(part: Any) -> bool:
        return bool(getattr(part, "dtype", None) == tensorflow.string)

    if isinstance(spec, Mapping):
        key = next((key for key, part in spec.items() if is_text(part)), None)
        if key is not None:
            return f"Pick the texts: dataset.map(lambda row: row[{key!r}])."
    elif isinstance(spec, (tuple, list)):
        at = next((at for at, part in enumerate(spec) if is_text(part)), None)
        if at is not None:
            return f"Pick the texts: dataset.map(lambda *parts: parts[{at}])."
    elif isinstance(spec, tensorflow.SparseTensorSpec) and is_text(spec):
        return "Fill the sparse batches up: dataset.map(tf.sparse.to_dense)."
    return "Map each element to its text; token ids are made here, with the model's own tokenizer."


def texts(dataset: Any) -> Iterator[str]:
    """Yield the dataset's texts, batches taken apart.

    Raises:
        CorpusFormatError: a text is not UTF-8; says its position.
    """
    every = (text for element in dataset.as_numpy_iterator() for text in _taken_apart(element))
    for position, text in enumerate(every):
        try:
            yield text.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise CorpusFormatError(
                f"Item {position} of the dataset is not UTF-8: {cause}. Convert it: dataset.map(lambda text: "
                "tf.strings.unicode_transcode(text, 'GB18030', 'UTF-8')), with the encoding that it has."
            ) from cause


def _taken_apart(element: Any) -> Iterator[bytes]:
    """Yield the texts of an element: one, or an array of them, ragged or not."""
    if isinstance(element, bytes):
        yield element
    else:
        for part in element:
            yield from _taken_apart(part)
