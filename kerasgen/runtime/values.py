"""Checks the values of an artefact's JSON, their kinds, ranges and relations, before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from kerasgen.errors import ModelFormatError

_MOST = 1 << 24  # of a model's numbers: places, layers, tokens
_MOST_BYTES = 1 << 53
_MAY_LACK = "?"  # after a key that need not be there
_HEX = re.compile(r"[0-9a-f]{64}")
_QUANTIZATIONS = ("float32", "float16", "int8", "int4")


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        says: what it is, after "must be".
        fits: whether a value is one.
    """

    says: str
    fits: Callable[[Any], bool]

    def or_none(self) -> Kind:
        """Return the same kind, with None."""
        return Kind(f"{self.says}, or null", lambda value: value is None or self.fits(value))


Shape: TypeAlias = "Kind | Mapping[str, Shape]"


def whole(least: int, most: int = _MOST) -> Kind:
    """Return the kind of whole numbers in a range, both ends with it."""
    return Kind(
        f"a whole number from {least:,} to {most:,}", lambda value: type(value) is int and least <= value <= most
    )


def one_of(*names: str) -> Kind:
    """Return the kind of these texts."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def several(kind: Kind, *, least: int = 0) -> Kind:
    """Return the kind of lists of different values of a kind."""

    def fits(value: Any) -> bool:
        if not isinstance(value, list) or not least <= len(value) <= 1000 or not all(map(kind.fits, value)):
            return False
        return len(set(value)) == len(value)

    return Kind(f"a list of different values, each {kind.says}", fits)


TEXT = Kind("text that is not empty", lambda value: isinstance(value, str) and 0 < len(value) < 10_000)
HEX = Kind("64 hexadecimal digits", lambda value: isinstance(value, str) and bool(_HEX.fullmatch(value)))
NUMBER = Kind(
    "a finite number of at least 0",
    lambda value: type(value) in (int, float) and 0 <= value < 1e30 and math.isfinite(value),
)
YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))
SIZES = Kind(
    "an object of file names and sizes in bytes",
    lambda value: (
        isinstance(value, dict)
        and 0 < len(value) < 100_000
        and all(_is_below(name) and type(size) is int and 0 <= size < _MOST_BYTES for name, size in value.items())
    ),
)
DIGESTS = Kind(
    "an object of file names and their SHA-256",
    lambda value: (
        isinstance(value, dict) and all(_is_below(name) and HEX.fits(digest) for name, digest in value.items())
    ),
)

_COMMON: dict[str, Shape] = {"exporter": TEXT, "files": SIZES, "bytes": whole(0, _MOST_BYTES)}
_TOKENIZER: dict[str, Shape] = {
    "start_token": TEXT.or_none(),
    "end_token": TEXT,
    "pad_token": TEXT,
    "digest": HEX,
    "end_tokens?": several(TEXT, least=2),
    "special_tokens?": several(TEXT, least=1),
    "mask_token?": TEXT,
}
_SHORTLIST: dict[str, Shape] = {"count": whole(1), "row_error": NUMBER, "largest_row": NUMBER}
_GRAPH: dict[str, Shape] = {
    "num_layers": whole(1, 10_000),
    "num_heads": whole(1, 10_000),
    "head_dim": whole(1, 100_000),
    "vocabulary_size": whole(1),
    "cache_length": whole(1),
    "prefill_lengths": several(whole(1)),
    "decode_lengths": several(whole(1)),
    "beams": whole(0, 100_000),
    "samplers?": several(TEXT),
}
_FILL: dict[str, Shape] = {
    "graph": {
        "task": one_of("fill"),
        "max_sequence_length": whole(1),
        "vocabulary_size": whole(1),
        "lengths?": several(whole(1), least=1),
        "places?": whole(1),
    },
    "sha256?": HEX,
    "sha256_of_files?": DIGESTS,
    "tokenizer": _TOKENIZER,
}
"""What any artefact of a masked language model says."""

_SHAPES: dict[str, dict[str, Shape]] = {
    "tflite": {
        "quantize": one_of(*_QUANTIZATIONS),
        "graph": _GRAPH
        | {"shortlist": Kind("an object or null", lambda value: value is None or isinstance(value, dict))},
        "sha256": HEX,
        "tokenizer": _TOKENIZER,
    },
    "litertlm": {
        "quantize": one_of(*_QUANTIZATIONS),
        "max_tokens": whole(1),
        "bundle_bytes": whole(1, _MOST_BYTES),
        "sha256": HEX,
        "tokenizer": _TOKENIZER,
    },
    "gguf": {
        "dtype": one_of("F32", "F16", "Q8_0"),
        "architecture": TEXT,
        "max_tokens": whole(1),
        "sha256": HEX,
    },
    "saved_model": {
        "sha256_of_files?": DIGESTS,
        "samplers": several(TEXT, least=1),
        "num_beams": whole(1, 100_000),
        "length_penalty": Kind(
            "a finite number", lambda value: type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)
        ),
        "dtype": one_of("float32", "float16", "bfloat16"),
        "compiled": YES_OR_NO,
        "max_sequence_length": whole(1),
        "tokenizer": Kind("an object or null", lambda value: value is None or isinstance(value, dict)),
        "token_ids": {
            "start_token_id": whole(0).or_none(),
            "end_token_id": whole(0),
            "pad_token_id": whole(0),
            "vocabulary_size": whole(1),
            "end_token_ids?": several(whole(0), least=2),
        },
    },
}


def check(place: Path, description: Mapping[str, Any]) -> None:
    """Check every value that a runtime reads.

    Args:
        place: the place of the JSON, for messages.
        description: what it says; of a plugin's exporter, what all have in common is checked.

    Raises:
        ModelFormatError: one is missing, of another kind, out of range, or doesn't fit another.
    """
    exporter, graph = description["exporter"], description.get("graph")
    if exporter in ("tflite", "saved_model") and isinstance(graph, dict) and "task" in graph:
        _check(place, description, _COMMON | _FILL, "")
        exporter = "fill"
    else:
        _check(place, description, _COMMON | _SHAPES.get(exporter, {}), "")
    for problem in _relations(exporter, description):
        raise _error(place, problem)
    nested = {"tflite": ("graph", "shortlist", _SHORTLIST), "saved_model": (None, "tokenizer", _TOKENIZER)}
    if exporter in nested:
        outer, key, shape = nested[exporter]
        value = (description if outer is None else description[outer])[key]
        if value is not None:
            _check(place, value, shape, f"{outer}.{key}." if outer else f"{key}.", closed=True)
            if exporter == "tflite" and value["count"] > description["graph"]["vocabulary_size"]:
                raise _error(place, f"graph.shortlist.count is more than the vocabulary: {value['count']}")


def _check(
    place: Path, values: Mapping[str, Any], shapes: Mapping[str, Shape], where: str, *, closed: bool = False
) -> None:
    if closed:
        unknown = sorted(set(values) - {key.removesuffix(_MAY_LACK) for key in shapes})
        if unknown:
            raise _error(place, f"{where}{unknown[0]} is unknown")
    for named, shape in shapes.items():
        key = named.removesuffix(_MAY_LACK)
        if key not in values and named != key:
            continue
        if key not in values:
            raise _error(place, f"{where}{key} is missing")
        value = values[key]
        if isinstance(shape, Kind):
            if not shape.fits(value):
                raise _error(place, f"{where}{key} must be {shape.says}. Received: {value!r:.80}")
        elif not isinstance(value, dict):
            raise _error(place, f"{where}{key} must be an object. Received: {value!r:.80}")
        else:
            _check(place, value, shape, f"{where}{key}.", closed=True)


def _relations(exporter: str, description: Mapping[str, Any]) -> Iterator[str]:
    if description["bytes"] != sum(description["files"].values()):
        yield f"bytes is not the sum of the files' sizes. Received: {description['bytes']}"
    digests = description.get("sha256_of_files")
    if isinstance(digests, dict) and set(digests) != set(description["files"]):
        yield "sha256_of_files names other files than files does"
    if exporter == "tflite":
        graph = description["graph"]
        for key in ("prefill_lengths", "decode_lengths"):
            if any(length > graph["cache_length"] for length in graph[key]):
                yield f"graph.{key} has one longer than the cache. Received: {graph[key]!r:.80}"
        if graph["decode_lengths"] != sorted(graph["decode_lengths"]):
            yield f"graph.decode_lengths must ascend. Received: {graph['decode_lengths']!r:.80}"
        if graph["beams"] == 1:
            yield "graph.beams must be 0 or at least 2. Received: 1"
    if exporter == "fill":
        graph = description["graph"]
        lengths = graph.get("lengths", [])
        if lengths != sorted(lengths) or any(length > graph["max_sequence_length"] for length in lengths):
            yield f"graph.lengths must ascend up to max_sequence_length. Received: {lengths!r:.80}"
    if exporter == "litertlm" and description["bundle_bytes"] not in description["files"].values():
        yield f"bundle_bytes is the size of no file. Received: {description['bundle_bytes']}"
    if exporter == "saved_model":
        ids = description["token_ids"]
        for key in ("start_token_id", "end_token_id", "pad_token_id"):
            if ids[key] is not None and ids[key] >= ids["vocabulary_size"]:
                yield f"token_ids.{key} is beyond the vocabulary. Received: {ids[key]}"
        ends = ids.get("end_token_ids", [ids["end_token_id"]])
        if ids["end_token_id"] not in ends or max(ends) >= ids["vocabulary_size"]:
            yield f"token_ids.end_token_ids must hold the end token, and ids of the vocabulary. Received: {ends!r:.80}"


def _is_below(name: Any) -> bool:
    return (
        isinstance(name, str)
        and bool(name)
        and "\\" not in name
        and "\0" not in name
        and not PurePosixPath(name).is_absolute()
        and ".." not in PurePosixPath(name).parts
    )


def _error(place: Path, problem: str) -> ModelFormatError:
    return ModelFormatError(f"{place}: {problem}. It is not what was exported. Copy or export it again.")
