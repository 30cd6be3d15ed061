"""The signatures of a SavedModel: for each sampler one of text and one of token ids, and those of the tokenizer.

Imports TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.exporters.exportable_samplers import BEAM, token_sampler
from kerasgen.exporters.saved_model import graph
from kerasgen.exporters.saved_model.beams import BeamChoice
from kerasgen.exporters.saved_model.passes import call
from kerasgen.exporters.saved_model.random_numbers import RandomNumbers
from kerasgen.exporters.saved_model.runtime import UNMASKED
from kerasgen.exporters.saved_model.tokenizer import GraphTokenizer
from kerasgen.exporters.tensorflow import namespace as xp
from kerasgen.exporters.tensorflow.utf8 import Utf8Steps, table
from kerasgen.samplers import inputs
from kerasgen.samplers.base import LEAST_TEMPERATURE
from kerasgen.tokens.bpe import ByteLevelBPE

_FLOAT, _INT, _SEED = (tf.TensorSpec([], dtype) for dtype in (tf.float32, tf.int32, tf.int64))
_COMMON = {"max_new_tokens": _INT, "end_token_id": _INT}
_TYPES = {int: _INT, float: _FLOAT}
_VALID = {"valid_utf8": tf.TensorSpec([], tf.bool)}
_TEXTS = {"prompts": tf.TensorSpec([None], tf.string)}
_DECODED = {"token_ids": tf.TensorSpec([None, None], tf.int32), "lengths": tf.TensorSpec([None], tf.int32)}
_IDS = {"prompts": tf.TensorSpec([None, None], tf.int32), "lengths": tf.TensorSpec([None], tf.int32)}


def _own(name: str) -> dict[str, tf.TensorSpec]:
    """Return the inputs of a sampler's signatures that not every signature has."""
    if name == BEAM:
        return {"temperature": _FLOAT}
    kind = token_sampler(name)
    specs = {"temperature": _FLOAT} if inputs.has_temperature(kind) else {}
    specs |= {setting: _TYPES[of] for setting, of in inputs.types(kind).items()}
    return specs | ({"seed": _SEED} if kind.draws else {})


class Decoder(Protocol):
    """A model that decodes in a graph; the methods of `graph.DecoderGraph` describe the arguments."""

    @property
    def vocabulary_size(self) -> int:
        """Number of logits of a token."""
        ...

    def logits(self, token_ids: Any) -> Any:
        """Return the logits after each token."""
        ...

    def sample(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: graph.Choice) -> graph.Generated:
        """Generate token by token."""
        ...

    def search(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: BeamChoice) -> graph.Generated:
        """Return the best text of each prompt by beam search."""
        ...


def save(
    decoder: Decoder,
    path: Path,
    *,
    tokenizer: ByteLevelBPE | None,
    utf8: Utf8Masks | None,
    start_token_id: int | None,
    end_token_id: int,
    end_token_ids: Sequence[int],
    samplers: Sequence[str],
    max_sequence_length: int,
    num_beams: int,
    length_penalty: float,
) -> list[str]:
    """Write the SavedModel and return the names of its signatures.

    Args:
        decoder: what decodes; a `tf.Module`.
        path: the path of the directory.
        tokenizer: to hold in the graph; without one, there are signatures of ids alone.
        utf8: what keeps the texts valid UTF-8, or None where every token does. Those of texts and of ids keep to it;
            for each of ids there is one more, `…_ids_unmasked`, that chooses among all tokens.
        start_token_id: put before each prompt, or None.
        end_token_id: the tokenizer's own.
        end_token_ids: each of them ends a text unless the call names another.
        samplers: a signature each; that of texts (or ids) of the first is `serving_default` too.
        max_sequence_length: tokens that a text can have.
        num_beams: the number of beams of the signature `beam`.
        length_penalty: the length penalty of the signature `beam`.
    """
    module = TextGenerator(
        decoder,
        tokenizer,
        utf8,
        start_token_id=start_token_id,
        end_token_ids=end_token_ids,
        max_sequence_length=max_sequence_length,
        num_beams=num_beams,
        length_penalty=length_penalty,
    )
    signatures = module.signatures(samplers)
    names = sorted(signatures)
    # A runtime compares what lies beside the artefact with this, which is in the graph.
    settings = {
        "samplers": list(samplers),
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "max_sequence_length": max_sequence_length,
        "start_token_id": start_token_id,
        "end_token_id": end_token_id,
        **({"end_token_ids": list(end_token_ids)} if len(end_token_ids) > 1 else {}),
        "has_tokenizer": tokenizer is not None,
    }
    module.settings = tf.function(
        lambda: tf.constant(json.dumps(settings, allow_nan=False)), input_signature=[], autograph=False
    )
    # What a server calls when nobody names a signature.
    signatures["serving_default"] = signatures[samplers[0] if tokenizer is not None else f"{samplers[0]}_ids"]
    tf.saved_model.save(module, str(path), signatures=signatures)
    return names


class TextGenerator(tf.Module):  # type: ignore[misc]
    """What is saved: a decoder, its tokenizer and the functions over them.

    Args:
        decoder: the decoder.
        tokenizer: the exact tokenizer, or None for signatures of ids alone.
        utf8: as `save` takes it.
        start_token_id: put before each prompt, or None.
        end_token_id: the tokenizer's own.
        end_token_ids: each of them ends a text unless the call names another.
        max_sequence_length: tokens that a text can have.
        num_beams: the number of beams of the signature `beam`.
        length_penalty: the length penalty of the signature `beam`.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: ByteLevelBPE | None,
        utf8: Utf8Masks | None,
        *,
        start_token_id: int | None,
        end_token_ids: Sequence[int],
        max_sequence_length: int,
        num_beams: int,
        length_penalty: float,
    ) -> None:
        super().__init__()
        self._decoder = decoder
        self._tokenizer = None if tokenizer is None else GraphTokenizer(tokenizer)
        self._utf8 = Utf8Steps(table(utf8, decoder.vocabulary_size))
        self._start = start_token_id
        self._ends = tuple(end_token_ids)
        self._longest = max_sequence_length
        self._random = RandomNumbers()
        self._num_beams = num_beams
        self._length_penalty = length_penalty

    def signatures(self, samplers: Sequence[str]) -> dict[str, Any]:
        """Return the functions to save, by the names of their signatures."""
        functions = {
            "logits": tf.function(
                self._logits, input_signature=[tf.TensorSpec([None, None], tf.int32, "token_ids")], autograph=False
            )
        }
        tokenizer = self._tokenizer
        if tokenizer is not None:
            # One graph of each, which the signatures of texts call; a vocabulary is a constant of many bytes.
            encode = functions["encode"] = _function(
                partial(_encode, tokenizer), {"texts": tf.TensorSpec([None], tf.string)}
            )
            ended = tf.TensorSpec([None], tf.bool)
            decode = _function(partial(_decode, tokenizer), _DECODED | {"ended": ended})
            functions["decode"] = _function(
                lambda token_ids, lengths: call(decode, token_ids, lengths, tf.fill(tf.shape(lengths), True)), _DECODED
            )
        for name in samplers:
            # One graph for all: the others call it.
            ids = _function(partial(self._generate, name), _VALID | _IDS | _COMMON | _own(name))
            functions[f"{name}_ids"] = _function(_ids(ids, valid_utf8=True), _IDS | _COMMON | _own(name))
            if self._utf8.matters:
                unmasked = _ids(ids, valid_utf8=False)
                functions[f"{name}{UNMASKED}"] = _function(unmasked, _IDS | _COMMON | _own(name))
            if tokenizer is not None:
                functions[name] = _function(_texts(encode, decode, ids), _TEXTS | _COMMON | _own(name))
        return functions

    def _logits(self, token_ids: Any) -> dict[str, Any]:
        return {"logits": self._decoder.logits(token_ids)}

    def _generate(self, name: str, valid_utf8: Any, prompts: Any, lengths: Any, **settings: Any) -> graph.Generated:
        most, end = settings["max_new_tokens"], settings["end_token_id"]
        end = tf.where(end < 0, tf.constant(self._ends), tf.fill((len(self._ends),), end))
        if self._start is not None:
            prompts = tf.pad(prompts, [[0, 0], [1, 0]], constant_values=self._start)
            lengths = lengths + 1
        checks = [
            tf.debugging.assert_positive(lengths, "A prompt is empty, and this model has no start token."),
            tf.debugging.assert_positive(most, "`max_new_tokens` must be at least 1."),
            tf.debugging.assert_less_equal(
                lengths + most, self._longest, f"Prompt and new tokens must fit into {self._longest} positions."
            ),
        ]
        with tf.control_dependencies(checks):
            prompts = tf.identity(prompts)
        begun = self._utf8.begin(prompts, lengths, valid_utf8)
        temperature = _at_least(settings.get("temperature"))
        if name == BEAM:
            choose = BeamChoice(self._num_beams, self._length_penalty, temperature, self._utf8, begun)
            return self._decoder.search(prompts, lengths, most, end, choose)
        kind = token_sampler(name)
        positive = [tf.debugging.assert_positive(settings[key], f"`{key}` must be above 0.") for key in kind.positive]
        with tf.control_dependencies(positive):
            own = {key: tf.identity(settings[key]) for key in kind.inputs or ()}

        def pick(logits: Any, numbers: Any) -> Any:
            return inputs.choose(kind, own, xp, logits if temperature is None else logits / temperature, numbers)

        key = self._random.keys(prompts, lengths, settings["seed"]) if kind.draws else None

        def numbers(step: Any) -> Any:
            if key is None:
                return tf.zeros(tf.broadcast_dynamic_shape(tf.shape(step), tf.shape(lengths)))
            return self._random.uniforms(key, tf.zeros_like(key[0]) + tf.cast(step, tf.uint32))

        return self._decoder.sample(prompts, lengths, most, end, graph.Choice(pick, numbers, self._utf8, begun))


def _at_least(temperature: Any) -> Any:
    """Check the temperature when the graph runs; None stays None."""
    if temperature is None:
        return None
    is_high_enough = tf.debugging.assert_greater_equal(
        temperature,
        LEAST_TEMPERATURE,
        f"`temperature` must be at least {LEAST_TEMPERATURE}; for the likeliest token, ask `greedy`.",
    )
    with tf.control_dependencies([is_high_enough]):
        return tf.identity(temperature)


def _encode(tokenizer: GraphTokenizer, texts: Any) -> dict[str, Any]:
    ids = tokenizer.encode(texts)
    return {"token_ids": ids.to_tensor(0), "lengths": tf.cast(ids.row_lengths(), tf.int32)}


def _decode(tokenizer: GraphTokenizer, token_ids: Any, lengths: Any, ended: Any) -> dict[str, Any]:
    counted = tf.range(tf.shape(token_ids)[1]) < lengths[:, None]
    return {"texts": tokenizer.decode(token_ids, counted, ended)}


def _texts(encode: Any, decode: Any, of_ids: Any) -> Callable[..., dict[str, Any]]:
    def generate(prompts: Any, **settings: Any) -> dict[str, Any]:
        ids = call(encode, prompts)
        asked = (tf.constant(True), ids["token_ids"], ids["lengths"], *settings.values())
        generated = graph.Generated(*call(of_ids, *asked))
        last = generated.lengths - tf.cast(generated.ended, tf.int32)
        texts = call(decode, generated.token_ids, last, generated.ended)["texts"]
        return {"texts": texts, "token_ids": generated.token_ids, "lengths": generated.lengths}

    return generate


def _ids(of_ids: Any, *, valid_utf8: bool) -> Callable[..., dict[str, Any]]:
    def generate(**inputs: Any) -> dict[str, Any]:
        generated = graph.Generated(*call(of_ids, tf.constant(valid_utf8), *inputs.values()))
        return {"token_ids": generated.token_ids, "lengths": generated.lengths}

    return generate


def _function(body: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Return a `tf.function` whose inputs have these names, as a signature shows them."""

    def by_name(*values: Any) -> Any:
        return body(**dict(zip(inputs, values, strict=True)))

    specs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in inputs.items()]
    return tf.function(by_name, autograph=False).get_concrete_function(*specs)
