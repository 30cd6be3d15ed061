"""Compares a TFLite file's own graph with the JSON beside it: other sizes would give other texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.tokens.base import Tokenizer

_PREFILL, _DECODE, _BEAMS = map(re.compile, (r"prefill_(\d+)", r"decode_(\d+)", r"decode_beams_(\d+)"))


def check(path: Path, compiled: Any, settings: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Check the sizes and signatures that an exporter named against those in the file.

    Args:
        path: the path of the file.
        compiled: LiteRT's `CompiledModel` of it.
        settings: as of `LiteRtEngine`.
        tokenizer: the tokenizer that it was exported with.

    Raises:
        ModelFormatError: they differ.
    """
    sizes = _read(compiled)
    shortlist = settings["shortlist"]
    named: dict[str, Any] = {key: settings.get(key) for key in sizes if key != "shortlist"}
    named |= {"shortlist": None if shortlist is None else shortlist["count"]}
    for key in ("prefill_lengths", "decode_lengths"):
        named[key], sizes[key] = sorted(named[key]), sorted(sizes[key])
    different = sorted(key for key in sizes if sizes[key] != named[key])
    if different:
        key = different[0]
        raise ModelFormatError(
            f"{path} has another graph than what lies beside it says: {key} is {sizes[key]!r} in the file, and "
            f"{named[key]!r:.80} there. Copy the files of one export together."
        )


def _read(compiled: Any) -> dict[str, Any]:
    """Return the graph's settings, read from its signatures and the shapes of their inputs and outputs."""
    names = list(compiled.get_signature_list())
    try:
        inputs = compiled.get_input_tensor_details("decode")
        _, heads, length, size = inputs["kv_cache_k_0"]["shape"]
        vocabulary = compiled.get_output_tensor_details("decode")["logits"]["shape"][-1]
        shortlist = None
        if "shortlist" in names:
            shortlist = int(compiled.get_output_tensor_details("shortlist")["ids"]["shape"][-1])
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as cause:
        raise ModelFormatError(f"The graph is none that kerasgen exports: {cause!r}. Export it again.") from cause
    return {
        "num_layers": sum(name.startswith("kv_cache_k_") for name in inputs),
        "num_heads": int(heads),
        "head_dim": int(size),
        "cache_length": int(length),
        "vocabulary_size": int(vocabulary),
        "prefill_lengths": list(map(int, _numbered(_PREFILL, names))),
        "decode_lengths": list(map(int, _numbered(_DECODE, names))),
        "beams": int(next(iter(_numbered(_BEAMS, names)), 0)),
        "shortlist": shortlist,
    }


def _numbered(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    return [match[1] for match in map(pattern.fullmatch, names) if match]
