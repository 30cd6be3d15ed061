"""Generates with KerasHub's own samplers, and leaves the model as it was.

`CausalLM.compile(sampler=…)` would replace the optimizer, the loss and the metrics; here only the sampler is lent.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from keras import ops

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.batches import Batch, Continuation
from kerasgen.generation.keras_passes import signature
from kerasgen.models.base import LanguageModel

_MISSING = object()
_LENDING = threading.Lock()  # a model has one sampler at a time, so threads take turns

# By sampler, then by model. A function holds its model, so a model lives as long as the samplers it has run with.
_Functions = dict[tuple[Any, ...], Callable[..., Any]]
_COMPILED: weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, _Functions]] = weakref.WeakKeyDictionary()


@contextmanager
def lent(causal_lm: Any, sampler: Any) -> Iterator[Any]:
    """Yield KerasHub's compiled generation function with `sampler`, and give the model its own back afterwards."""
    before = {name: getattr(causal_lm, name, _MISSING) for name in ("sampler", "generate_function")}
    functions = _COMPILED.setdefault(sampler, weakref.WeakKeyDictionary()).setdefault(causal_lm, {})
    # KerasHub's compiled function keeps the settings that the sampler had at its first call.
    key = (json.dumps(sampler.get_config(), default=repr, sort_keys=True, allow_nan=False), signature(causal_lm))
    causal_lm.sampler = sampler
    causal_lm.generate_function = functions.get(key)
    try:
        functions[key] = causal_lm.make_generate_function()
        yield functions[key]
    finally:
        for name, value in before.items():
            if value is _MISSING:
                delattr(causal_lm, name)
            else:
                setattr(causal_lm, name, value)


def run(model: LanguageModel, batches: Iterator[Batch], sampler: Any) -> Iterator[tuple[Batch, list[Continuation]]]:
    """Yield each batch with what KerasHub generated for its rows.

    Args:
        model: the model.
        batches: the batches, each of prompts of equal length, because KerasHub's beam search mis-scores others.
        sampler: a `keras_hub.samplers.Sampler`; its own seed generator draws, so a second call gives other texts.

    Raises:
        GenerateArgumentError: the sampler returns several texts for a prompt.
    """
    end, ends = model.tokenizer.end_token_id, model.tokenizer.end_token_ids
    if getattr(sampler, "return_all_beams", False):
        raise GenerateArgumentError(
            "KerasHub's BeamSampler can't return all beams through generate. Use kerasgen's Beam with "
            "`num_return_sequences`, or return_all_beams=False."
        )
    if model.causal_lm is None:
        raise GenerateArgumentError(
            f"A sampler of KerasHub decodes with KerasHub's class, and this {model.kind} has none: {model.hub_reason} "
            "Use a sampler of kerasgen, such as kg.TopK."
        )
    with _LENDING, lent(model.causal_lm, sampler) as function:
        for batch in batches:
            padded = batch.padded(int(batch.limits.max()), end)
            mask = np.arange(padded.shape[1]) < batch.lengths[:, None]
            # KerasHub reads an end token after the prompt as the end of the text, even where it is padding.
            inputs = {"token_ids": np.where(mask, padded, int(end == 0)), "padding_mask": mask}
            outputs = function({key: ops.convert_to_tensor(value) for key, value in inputs.items()}, ends)
            token_ids = ops.convert_to_numpy(outputs["token_ids"])
            yield batch, [_continuation(row[n:], ends) for row, n in zip(token_ids, batch.lengths, strict=True)]


def _continuation(token_ids: Any, end_token_ids: tuple[int, ...]) -> Continuation:
    ends = np.flatnonzero(np.isin(token_ids, end_token_ids))
    until_end = token_ids[: ends[0] + 1] if len(ends) else token_ids
    return Continuation(tuple(int(token_id) for token_id in until_end), float("nan"), bool(len(ends)))
