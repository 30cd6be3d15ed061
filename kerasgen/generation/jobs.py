"""Writes the texts of any number of prompts to the lines of a file, in chunks that don't change them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from kerasgen import fork_safety
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import json_lines, proposing
from kerasgen.generation.api import GeneratedText, generate
from kerasgen.generation.batches import PromptOffset
from kerasgen.generation.config import GenerationConfig, GenerationSettings, configured, takes
from kerasgen.keywords import checked
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.foreign_arguments import as_sampler
from kerasgen.samplers.resolving import is_hub_sampler

# Values of each weight that go into a model's fingerprint, evenly spread.
_VALUES = 256


@checked(GenerateArgumentError, elsewhere=as_sampler)
@takes(GenerationSettings)
def generate_to(
    model: LanguageModel,
    path: str | os.PathLike[str],
    prompts: Iterable[str],
    config: GenerationConfig | None = None,
    *,
    chunk_size: int = 1024,
    overwrite: bool = False,
    **settings: Unpack[GenerationSettings],
) -> Path:
    """Write one JSON line for each prompt; see `Pipeline.generate_to`.

    Args:
        model: the model and its tokenizer.
        path: the path of the file.
        prompts: any number, drawn a chunk at a time.
        config: the settings, a sampler among them; those that are given by name come first.
        chunk_size: prompts that are read, generated from and written together.
        overwrite: replace a file that is there already.
        **settings: keyword arguments of `GenerationConfig`.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, or a killed run had other settings or prompts.
        GenerationError: the file can't be written, or the model's logits are not finite.
    """
    fork_safety.check(fork_safety.KERAS)
    config = configured("generate_to()", GenerationSettings, config, settings, needs=("sampler",))
    spec, seed = config.sampler, config.seed or 0
    if is_hub_sampler(spec):
        raise GenerateArgumentError(
            f"KerasHub's own samplers give other texts at every call, so a killed run could not go on. Use one of "
            f"kerasgen's. Received: sampler={spec!r}."
        )
    if not isinstance(seed, int):
        raise GenerateArgumentError(f"`seed` must be one number. Received: seed={seed!r}.")
    came_before: Counter[bytes] = Counter()
    proposes = proposing.setting_of(config) is not None

    def repeats(chunk: json_lines.Chunk) -> list[int]:
        """Count how often each prompt came before, in this chunk and in earlier ones."""
        counts = []
        for ids in model.tokenizer.encode_batch(list(chunk.prompts)):
            # A fingerprint, for the prompts themselves would fill memory.
            key = hashlib.blake2b(np.asarray(ids, np.int64).tobytes(), digest_size=12).digest()
            counts.append(came_before[key])
            came_before[key] += 1
        return counts

    def run(chunk: json_lines.Chunk) -> list[dict[str, Any]]:
        offset = PromptOffset(chunk.first, repeats(chunk))
        texts = generate(model, list(chunk.prompts), config, progress=False, offset=offset)
        if config.num_return_sequences is None:
            return [_record(text, proposes=proposes) for text in texts]
        return [
            {"texts": [_record(text, proposes=proposes) if config.return_logprobs else text for text in copies]}
            for copies in texts
        ]

    return json_lines.write_lines(
        path,
        prompts,
        run,
        settings=settings_told(model, config),
        skip=repeats,
        chunk_size=chunk_size,
        overwrite=overwrite,
        progress=config.progress,
    )


def fingerprint(model: LanguageModel) -> str:
    """Return a hash of some values of each weight, which tells models apart."""
    sha256 = hashlib.sha256()
    for variable in model.network.weights:
        flat = np.asarray(variable).reshape(-1)
        sha256.update(flat[:: max(1, len(flat) // _VALUES)].astype(np.float64).tobytes())
    return sha256.hexdigest()


def settings_told(model: LanguageModel, config: GenerationConfig) -> dict[str, Any]:
    """Return all on which the texts of a run depend but its prompts; a killed run goes on where they are the same.

    The order is that of earlier versions, whose digest their killed runs kept.
    """
    settings = {
        "model": [model.source, model.tokenizer.digest(), fingerprint(model)],
        "sampler": repr(config.sampler),
        "constraint": repr(config.constraint),
        "stop": list(config.stop_strings),
        "seed": config.seed or 0,
        "num_return_sequences": config.num_return_sequences,
        "return_logprobs": config.return_logprobs,
        "max_length": config.max_length,
        "max_new_tokens": config.max_new_tokens,
        "valid_utf8": config.valid_utf8,
        "return_prompt": config.return_prompt,
        "engine": repr(config.engine),
    }
    proposes = proposing.setting_of(config)
    if config.return_logprobs and proposes is not None:  # a line says how many were proposed and accepted
        settings["proposes"] = proposes
    return settings | ({"allowed_special": config.allowed_special} if config.allowed_special else {})


def _record(text: str | GeneratedText, *, proposes: bool) -> dict[str, Any]:
    if isinstance(text, str):
        return {"text": text}
    return {
        "text": text.text,
        "token_ids": list(text.token_ids),
        "logprobs": list(text.logprobs),
        "score": text.score,
        "finished": text.finished,
        **({"proposed": text.proposed, "accepted": text.accepted} if proposes else {}),
    }
