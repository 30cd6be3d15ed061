"""Prompts without number become lines of a file: the texts that `generate` would return, whatever the chunks."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgen import forks
from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import json_lines
from kerasgen.generation.batches import Part
from kerasgen.generation.generating import GeneratedText, generate
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.resolving import is_hub_sampler, resolve

# Values of each weight that go into a model's fingerprint, evenly spread.
_VALUES = 256


def generate_to(
    model: LanguageModel,
    path: str | os.PathLike[str],
    prompts: Iterable[str],
    *,
    sampler: Any,
    chunk_size: int = 1024,
    overwrite: bool = False,
    progress: bool | None = None,
    seed: int = 0,
    batch_size: int = 32,
    return_logprobs: bool = False,
    num_return_sequences: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    **settings: Any,
) -> Path:
    """Write one JSON line for each prompt; see `Pipeline.generate_to`.

    Args:
        model: the model and its tokenizer.
        path: as there.
        prompts: as there.
        sampler: as there.
        chunk_size: as there.
        overwrite: as there.
        progress: as there.
        seed: as there.
        batch_size: as there.
        return_logprobs: as there.
        num_return_sequences: as there.
        stop: as there.
        constraint: as there.
        **settings: what else `kerasgen.generation.generate` takes.

    Raises:
        GenerateArgumentError: as there.
        GenerationError: as there.
    """
    forks.check(forks.KERAS)
    spec = resolve(sampler)
    if is_hub_sampler(spec):
        raise GenerateArgumentError(
            f"KerasHub's own samplers give other texts at every call, so a killed run could not go on. Use one of "
            f"kerasgen's. Received: sampler={spec!r}."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise GenerateArgumentError(f"`seed` must be one number. Received: seed={seed!r}.")
    came_before: Counter[bytes] = Counter()

    def repeats(chunk: json_lines.Chunk) -> list[int]:
        """How often each prompt came before, in this chunk and in those before it."""
        found = []
        for ids in model.tokenizer.encode_batch(list(chunk.prompts)):
            # A fingerprint, for the prompts themselves would fill memory.
            key = hashlib.blake2b(np.asarray(ids, np.int64).tobytes(), digest_size=12).digest()
            found.append(came_before[key])
            came_before[key] += 1
        return found

    def run(chunk: json_lines.Chunk) -> list[dict[str, Any]]:
        texts = generate(
            model,
            list(chunk.prompts),
            sampler=spec,
            seed=seed,
            batch_size=batch_size,
            stop=stop,
            constraint=constraint,
            num_return_sequences=num_return_sequences,
            return_logprobs=return_logprobs,
            progress=False,
            part=Part(chunk.first, repeats(chunk)),
            **settings,
        )
        if num_return_sequences is None:
            return [_record(text) for text in texts]
        return [{"texts": [_record(text) if return_logprobs else text for text in several]} for several in texts]

    told = {
        "model": [model.source, model.tokenizer.digest(), fingerprint(model)],
        "sampler": repr(spec),
        "constraint": repr(constraint),
        "stop": [stop] if isinstance(stop, str) else list(stop or ()),
        "seed": seed,
        "num_return_sequences": num_return_sequences,
        "return_logprobs": return_logprobs,
        **settings,
        "engine": repr(settings.get("engine")),
    }
    return json_lines.write_lines(
        path,
        prompts,
        run,
        settings=told,
        skip=repeats,
        chunk_size=chunk_size,
        overwrite=overwrite,
        progress=progress,
    )


def fingerprint(model: LanguageModel) -> str:
    """Return what tells a model's weights from others': a hash of some values of each."""
    sha256 = hashlib.sha256()
    for variable in model.causal_lm.weights:
        flat = np.asarray(variable).reshape(-1)
        sha256.update(flat[:: max(1, len(flat) // _VALUES)].astype(np.float64).tobytes())
    return sha256.hexdigest()


def _record(text: str | GeneratedText) -> dict[str, Any]:
    if isinstance(text, str):
        return {"text": text}
    return {
        "text": text.text,
        "token_ids": list(text.token_ids),
        "logprobs": list(text.logprobs),
        "score": text.score,
        "finished": text.finished,
    }
