"""Generating by the signature of a TFLite artefact that holds the decoding loop and the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasgen.constraints.valid_utf8 import masks_of
from kerasgen.errors import GenerateArgumentError
from kerasgen.exporters.tflite.runtime import LiteRtEngine
from kerasgen.generation.config import GenerationConfig
from kerasgen.runtime.base import Runtime, new_tokens_of, seed_of
from kerasgen.samplers import REGISTRY, inputs, randomness
from kerasgen.samplers.base import TokenSampler

_TYPES = {int: np.int32, float: np.float32}


class InGraph(Runtime):
    """A TFLite artefact whose own graph holds the loop; one prompt after the other.

    Args:
        engine: of the artefact.
    """

    def __init__(self, engine: LiteRtEngine) -> None:
        self._engine = engine
        self.tokenizer = engine.tokenizer
        self.max_sequence_length = engine.max_sequence_length

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids after each prompt; see `Runtime`.

        Raises:
            GenerateArgumentError: the artefact holds no such loop, or the call doesn't fit into it.
        """
        spec = config.sampler
        name = REGISTRY.name_of(spec) if inputs.are_declared(type(spec)) else None
        held = self._engine.settings.get("loop")
        if name is None or name != held:
            there = "no loop" if held is None else f"a loop for {held!r}"
            raise GenerateArgumentError(
                f"This artefact holds {there}. Received: {spec!r}. Export it with loop={name or held!r}, or generate "
                "without in_graph."
            )
        if spec.repetition_penalty != 1 or spec.no_repeat_ngram_size or spec.bad_words:
            raise GenerateArgumentError(
                "The loop in the graph knows no repetition_penalty, no_repeat_ngram_size and bad_words. Received: "
                f"{spec!r}. Leave them out, or generate without in_graph."
            )
        states = self._engine.settings.get("utf8_states")
        masks = masks_of(self._engine.tokenizer)
        if config.valid_utf8 and masks is not None and states is None:
            raise GenerateArgumentError(
                "The loop in this artefact's graph chooses among all tokens, which may not be valid UTF-8. Pass "
                "valid_utf8=False, or export it again."
            )
        engine = self._engine if end_token_id is None else self._engine.ending_at(end_token_id)
        start = self._engine.tokenizer.start_token_id
        texts = [[*([] if start is None else [start]), *prompt] for prompt in prompts]
        keys = randomness.keys([seed_of(config)] * len(texts), texts, randomness.streams(list(map(tuple, texts))))
        found = []
        for text, key in zip(texts, keys, strict=True):
            within = None
            if states is not None:
                within = masks.state_after(text) if config.valid_utf8 and masks is not None else states
            found.append(_one(engine, spec, name, text, key, new_tokens_of(config), within))
        return found


def _one(
    engine: LiteRtEngine,
    spec: TokenSampler,
    name: str,
    text: list[int],
    key: Any,
    max_new_tokens: int,
    utf8_state: int | None,
) -> list[int]:
    length = engine.max_sequence_length
    if not text or len(text) + max_new_tokens > length or max_new_tokens < 1:
        raise GenerateArgumentError(
            f"A prompt of {len(text)} tokens (its start token with them) and {max_new_tokens} new ones must fit into "
            f"the artefact's {length} places, with one at least of each."
        )
    given: dict[str, Any] = {
        "tokens": np.array([text[-1:]], np.int32),
        "input_pos": np.array([len(text) - 1], np.int32),
        "max_new_tokens": np.array([max_new_tokens], np.int32),
        "end_token_id": np.array([engine.tokenizer.end_token_id], np.int32),
    }
    if utf8_state is not None:
        given["utf8_state"] = np.array([utf8_state], np.int32)
    if spec.draws:
        places = np.arange(length, dtype=np.uint32)
        one = tuple(np.full_like(places, word) for word in key)
        given["uniforms"] = randomness.uniforms(np, (one[0], one[1]), places)
    if inputs.has_temperature(type(spec)):
        given["temperature"] = np.array([spec.temperature], np.float32)
    for key, value in inputs.values(spec).items():
        given[key] = np.array([value], _TYPES[type(value)])
    return engine.loop(f"generate_{name}", engine.prefilled(text), given)
