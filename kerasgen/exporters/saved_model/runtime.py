"""Runs a SavedModel that kerasgen exported, with TensorFlow alone."""

from __future__ import annotations

import atexit
import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from kerasgen import fork_safety, garbage, quiet
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.generation.config import GenerationConfig
from kerasgen.runtime import masked, metadata, verifying
from kerasgen.runtime.base import Runtime, check_text, new_tokens_of
from kerasgen.samplers import REGISTRY, inputs
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.lookahead import Beam
from kerasgen.tokens.base import Tokenizer

UNMASKED = "_ids_unmasked"
"""After a sampler's name, the signature that chooses among all tokens, those that break a character too."""


class SavedModelRuntime(Runtime):
    """A SavedModel that was loaded. Its calls may run at the same time.

    Args:
        path: the directory.
        found: what `metadata.read` returned.

    Raises:
        ModelFormatError: the files are damaged.
        MissingDependencyError: TensorFlow is not installed.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        check_files = verifying.begin_to_check_files(path, description)
        try:
            quiet.load("tensorflow")
            import tensorflow as tf
        except ImportError as cause:
            raise MissingDependencyError(
                "A SavedModel runs in TensorFlow: pip install 'kerasgen[tensorflow]'.",
                package="tensorflow",
                extra="tensorflow",
            ) from cause
        fork_safety.begin(fork_safety.TENSORFLOW)
        self.tokenizer = (
            cast(Tokenizer, _Outside(path, description["token_ids"]))
            if description["tokenizer"] is None
            else metadata.read_tokenizer(path, description["tokenizer"])
        )
        self.max_sequence_length: int = description["max_sequence_length"]
        if description["tokenizer"] is not None and metadata.token_ids(self.tokenizer) != description["token_ids"]:
            raise ModelFormatError(f"{path} names other token ids than its tokenizer has. Copy or export it again.")
        self._samplers: list[str] = description["samplers"]
        self._fixed = {"num_beams": description["num_beams"], "length_penalty": description["length_penalty"]}
        self._tf = tf
        check_files()
        try:
            with quiet.quietly(), garbage.put_off():
                self._module = tf.saved_model.load(str(path))
            self._signatures = self._module.signatures
            missing = [name for name in self._samplers if f"{name}_ids" not in self._signatures]
            if missing:
                raise ValueError(f"it holds no signature for the sampler {missing[0]!r}")
            graph_settings: dict[str, Any] = json.loads(self._module.settings().numpy())
            # Else the loaded module's finalizers call TensorFlow functions that no longer exist at Python's end.
            atexit.register(_let_go, weakref.ref(self))
        except Exception as cause:  # damaged files end in errors of every kind
            raise ModelFormatError(f"{path} can't be loaded as a SavedModel; export it again. {cause}") from cause
        _check_settings(path, graph_settings, description)

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids generated after each prompt; see `Runtime`."""
        fork_safety.check(fork_safety.TENSORFLOW)
        spec = config.sampler
        name = self._name(spec)
        own = inputs.values(spec) if isinstance(spec, TokenSampler) else {}
        if not prompts:
            return []
        padded = np.zeros((len(prompts), max(map(len, prompts))), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            padded[row, : len(prompt)] = prompt
        unmasked = f"{name}{UNMASKED}"  # an artefact without it has no other signature than this
        call = self._signatures[unmasked if not config.valid_utf8 and unmasked in self._signatures else f"{name}_ids"]
        arguments = {
            "prompts": padded,
            "lengths": [len(prompt) for prompt in prompts],
            "max_new_tokens": new_tokens_of(config),
            "end_token_id": -1 if end_token_id is None else end_token_id,
            "temperature": spec.temperature,
            "seed": np.uint64(cast(int, config.seed)).astype(np.int64),
            **own,
        }
        input_specs = call.structured_input_signature[1]  # greedy takes no temperature, and a search no seed
        generated = call(
            **{key: self._tf.constant(arguments[key], input_spec.dtype) for key, input_spec in input_specs.items()}
        )
        ids, lengths = generated["token_ids"].numpy(), generated["lengths"].numpy()
        return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that the graph itself reads each text as; see `Runtime`."""
        if "encode" not in self._signatures:
            return super().encode_batch(texts)
        fork_safety.check(fork_safety.TENSORFLOW)
        encoded = self._signatures["encode"](texts=self._tf.constant([text.encode() for text in texts]))
        ids, lengths = encoded["token_ids"].numpy(), encoded["lengths"].numpy()
        return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]

    def logits(self, token_ids: Sequence[int]) -> Any:
        """Return the logits after each of these tokens, float32 `(tokens, vocabulary_size)`."""
        fork_safety.check(fork_safety.TENSORFLOW)
        check_text(token_ids, self.tokenizer, self.max_sequence_length)
        outputs = self._signatures["logits"](token_ids=self._tf.constant([list(token_ids)], self._tf.int32))
        return outputs["logits"].numpy()[0]

    def _name(self, spec: Any) -> str:
        name = REGISTRY.name_of(spec)
        if name is None or name not in self._samplers:
            raise GenerateArgumentError(
                f"This SavedModel holds the samplers {', '.join(self._samplers)}. Received: {spec!r}. Export it with "
                "the sampler, or use one of these."
            )
        if spec.repetition_penalty != 1 or spec.no_repeat_ngram_size or spec.bad_words:
            raise GenerateArgumentError(
                "A SavedModel knows no repetition_penalty, no_repeat_ngram_size and bad_words. Received: "
                f"{spec!r}. Leave them out, or generate with the model itself."
            )
        if isinstance(spec, Beam):
            wanted = Beam(**self._fixed, temperature=spec.temperature, seed=spec.seed)
            if spec != wanted:
                raise GenerateArgumentError(
                    f"The search in this SavedModel is fixed to {wanted!r}. Received: {spec!r}. Export it with these "
                    "settings."
                )
        return name


def _check_settings(path: Path, graph_settings: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Compare the settings in the graph with those in the JSON beside it."""
    in_graph = bool(description["tokenizer_in_graph"]) and description["tokenizer"] is not None
    recorded = {**description, **description["token_ids"], "has_tokenizer": in_graph}
    for key, value in graph_settings.items():
        if recorded.get(key) != value:
            raise ModelFormatError(
                f"{path} has another graph than what lies beside it says: {key} is {value!r} in the graph, and "
                f"{recorded.get(key)!r:.80} there. Copy or export it again."
            )


def _let_go(runtime: weakref.ref[SavedModelRuntime]) -> None:
    alive = runtime()
    if alive is not None:
        alive._module = alive._signatures = None


class _Outside:
    """Stands for a tokenizer that no file can hold: it knows the ids, and the caller encodes and decodes texts.

    Args:
        path: the path of the artefact.
        token_ids: what `metadata.token_ids` returned.
    """

    def __init__(self, path: Path, token_ids: dict[str, Any]) -> None:
        self._path = path
        self.__dict__ |= {"end_token_ids": (token_ids["end_token_id"],)} | token_ids

    def __getattr__(self, name: str) -> Any:
        raise GenerateArgumentError(
            f"{self._path} holds no tokenizer, for KerasHub's own is none that a file of another kind can hold. Encode "
            "the prompts with the model's tokenizer, and call `generate_ids`."
        )


def open_artefact(path: Path, description: dict[str, Any]) -> Runtime:
    """Return the runtime of the SavedModel at `path`; it has no settings of its own.

    Raises:
        ModelFormatError: files are missing, cut off or damaged.
    """
    metadata.check_sizes(path, description)
    if masked.is_filling(description):
        return masked.open_saved_model(path, description)
    return SavedModelRuntime(path, description)
