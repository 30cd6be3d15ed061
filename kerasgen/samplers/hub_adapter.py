"""Runs a sampler's spec inside KerasHub's compiled generation loop, with the same arithmetic as elsewhere.

KerasHub hands over a function for the next logits and the padded prompts, and takes back the ids. Imports Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops, tree

from kerasgen.errors import SamplerArgumentError
from kerasgen.samplers import arithmetic, randomness
from kerasgen.samplers import beam_search as search
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.lookahead import Beam, Contrastive

# (token_ids, cache, index) to (logits, hidden_states, cache) of the token at index - 1
Next = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def run(
    spec: SamplerSpec,
    next_logits: Next,
    prompt: Any,
    cache: Any,
    index: Any,
    mask: Any,
    stop_token_ids: Any,
    hidden_states: Any,
) -> Any:
    """Return `prompt` with what was generated; see `SamplerSpec.__call__` for the arguments."""
    if spec.bad_words:
        raise SamplerArgumentError(
            "`bad_words` are strings, and KerasHub hands a sampler token ids without their tokenizer. Generate with "
            f"kerasgen, or compile a sampler without them. Received: {spec!r}."
        )
    if None in tuple(prompt.shape):
        raise SamplerArgumentError(
            "A spec in KerasHub's generate needs prompts of a known batch size and length. Received: token_ids of "
            f"shape {tuple(prompt.shape)}. Pass arrays, or a dataset of whole batches."
        )
    if isinstance(spec, Beam) and spec.num_beam_groups > 1:
        raise SamplerArgumentError(
            "Diverse beams (`num_beam_groups` above 1) are searched by kerasgen's own loops only. Generate with "
            f"kerasgen. Received: {spec!r}."
        )
    loop = _Loop(spec, next_logits, prompt, () if cache is None else cache, index, mask, stop_token_ids)
    if isinstance(spec, TokenSampler):
        return loop.tokens(spec)
    if isinstance(spec, Beam):
        return loop.beams(spec)
    if isinstance(spec, Contrastive):
        return loop.contrastive(spec, hidden_states)
    raise SamplerArgumentError(f"KerasHub's generate can't run a sampler of the kind {type(spec).__name__}.")


class _Loop:
    """The while loops, one for each way to choose. All rows write at the same index, as KerasHub's caches ask."""

    def __init__(
        self,
        spec: SamplerSpec,
        next_logits: Next,
        prompt: Any,
        cache: Any,
        index: Any,
        mask: Any,
        stop_token_ids: Any,
    ) -> None:
        self.spec = spec
        self.next = next_logits
        self.prompt = prompt
        self.cache = cache
        self.index = ops.cast(index, "int32")
        self.mask = ops.zeros_like(prompt, dtype="bool") if mask is None else ops.cast(mask, "bool")
        self.rows, self.length = (int(size) for size in prompt.shape)
        self.stop = () if stop_token_ids is None else tuple(int(token_id) for token_id in stop_token_ids)
        self.lengths = ops.sum(ops.cast(self.mask, "int32"), axis=-1)  # (rows,), of the prompts

    def tokens(self, spec: TokenSampler) -> Any:
        key = self._key()

        def body(prompt: Any, cache: Any, index: Any, done: Any) -> tuple[Any, ...]:
            logits, _, cache = self.next(prompt, cache, index)
            # The n-th draw of a row is for its n-th generated token, wherever that stands in the batch.
            drawn = randomness.uniforms(ops, key, ops.cast(ops.maximum(index - self.lengths, 0), "uint32"))
            token = ops.cast(spec.choose(ops, self._constrain(logits, prompt, index), drawn), prompt.dtype)
            from_prompt = self._column(self.mask, index)
            token = ops.where(ops.logical_or(from_prompt, done), self._column(prompt, index), token)
            prompt = ops.slice_update(prompt, [0, index], ops.expand_dims(token, -1))
            return prompt, cache, index + 1, ops.logical_or(done, self._ends(token, from_prompt))

        state = (self.prompt, self.cache, self.index, ops.zeros((self.rows,), dtype="bool"))
        prompt, *_ = self._while(body, state)
        return prompt

    def beams(self, spec: Beam) -> Any:
        count, rows = spec.num_beams, self.rows
        most = self.length - self.lengths

        def body(state: search.Beams, cache: Any, index: Any, done: Any) -> tuple[Any, ...]:
            flat = ops.reshape(state.token_ids, (rows * count, self.length))
            logits, _, cache = self.next(flat, cache, index)
            logprobs = arithmetic.log_softmax(ops, self._constrain(logits, flat, index))
            generated = index - self.lengths + 1
            active = ops.logical_not(ops.logical_or(self._column(self.mask, index), done))
            after, parents = search.step(
                ops,
                state,
                ops.reshape(logprobs, (rows, count, int(logprobs.shape[-1]))),
                active=active,
                index=index,
                # Where a prompt's own tokens still come, the count is below 1 and the result is thrown away.
                generated=ops.maximum(generated, 1),
                stop_token_ids=self.stop,
                length_penalty=spec.length_penalty,
            )
            after = search.Beams(*(ops.cast(new, old.dtype) for new, old in zip(after, state, strict=True)))
            places = ops.reshape(parents + ops.expand_dims(ops.arange(rows), -1) * count, (-1,))
            cache = tree.map_structure(lambda x: ops.take(x, places, axis=0), cache)
            ended = search.is_done(
                ops,
                after,
                generated=ops.maximum(generated, 1),
                most=most,
                length_penalty=spec.length_penalty,
                num_return_sequences=spec.num_return_sequences,
                early_stopping=spec.early_stopping,
            )
            return after, cache, index + 1, ops.logical_or(done, ops.logical_and(active, ended))

        state = search.begin(ops, self.prompt, ops.zeros((rows, count), dtype="float32"))
        cache = tree.map_structure(lambda x: ops.repeat(x, count, axis=0), self.cache)
        state, _, _, done = self._while(body, (state, cache, self.index, ops.zeros((rows,), dtype="bool")))
        cut = ops.logical_not(done)
        generated = ops.maximum(most, 1)
        state = search.finish(ops, state, cut=cut, generated=generated, length_penalty=spec.length_penalty)
        return ops.cast(state.finished_ids[:, 0], self.prompt.dtype)

    def contrastive(self, spec: Contrastive, hidden_states: Any) -> Any:
        if hidden_states is None:
            raise SamplerArgumentError("Contrastive search needs the model's hidden states, and received none.")
        rows, count = self.rows, spec.k
        first_logits, _, cache = self.next(self.prompt, self.cache, self.index)
        count = min(count, int(first_logits.shape[-1]))

        def body(prompt: Any, cache: Any, index: Any, done: Any, logits: Any, hidden: Any) -> tuple[Any, ...]:
            probabilities = arithmetic.softmax(ops, self._constrain(logits, prompt, index))
            probabilities, tokens = arithmetic.top(ops, probabilities, count)
            from_prompt = self._column(self.mask, index)
            is_fixed = ops.expand_dims(ops.logical_or(from_prompt, done), -1)
            own = ops.expand_dims(self._column(prompt, index), -1)
            tokens = ops.where(is_fixed, own, ops.cast(tokens, prompt.dtype))
            wide = ops.repeat(prompt, count, axis=0)
            wide = ops.slice_update(wide, [0, index], ops.reshape(tokens, (rows * count, 1)))
            wide_cache = tree.map_structure(lambda x: ops.repeat(x, count, axis=0), cache)
            wide_logits, states, wide_cache = self.next(wide, wide_cache, index + 1)
            states = ops.cast(states, hidden.dtype)
            scores = arithmetic.contrastive_score(
                ops,
                probabilities,
                ops.reshape(states, (rows, count, int(states.shape[-1]))),
                hidden,
                ops.broadcast_to(ops.expand_dims(ops.arange(self.length) < index, 0), (rows, self.length)),
                spec.alpha,
            )
            best = arithmetic.highest(ops, scores)
            places = ops.cast(best, "int32") + ops.arange(rows) * count
            prompt = ops.take(wide, places, axis=0)
            hidden = ops.slice_update(hidden, [0, index, 0], ops.expand_dims(ops.take(states, places, axis=0), 1))
            cache = tree.map_structure(lambda x: ops.take(x, places, axis=0), wide_cache)
            logits = ops.cast(ops.take(wide_logits, places, axis=0), logits.dtype)
            done = ops.logical_or(done, self._ends(self._column(prompt, index), from_prompt))
            return prompt, cache, index + 1, done, logits, hidden

        done = ops.zeros((rows,), dtype="bool")
        state = (self.prompt, cache, self.index, done, first_logits, ops.cast(hidden_states, "float32"))
        prompt, *_ = self._while(body, state)
        return prompt

    def _while(self, body: Callable[..., tuple[Any, ...]], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run until the length is full or every row is done; index and done are the third and fourth of the state."""

        def goes_on(*state: Any) -> Any:
            index, done = state[2], state[3]
            return ops.logical_and(index < self.length, ops.logical_not(ops.all(done)))

        return tuple(ops.while_loop(goes_on, body, state))

    def _constrain(self, logits: Any, token_ids: Any, index: Any) -> Any:
        return arithmetic.constrain(
            ops,
            ops.cast(logits, "float32"),
            token_ids=token_ids,
            counted=arithmetic.text_mask(ops, token_ids, index, self.stop),
            index=index,
            repetition_penalty=self.spec.repetition_penalty,
            no_repeat_ngram_size=self.spec.no_repeat_ngram_size,
            temperature=self.spec.temperature,
            end_token_id=self.stop[0] if self.stop else None,
        )

    def _column(self, array: Any, index: Any) -> Any:
        return ops.squeeze(ops.take(array, ops.reshape(index, (1,)), axis=1), axis=1)

    def _ends(self, token: Any, from_prompt: Any) -> Any:
        """Return which rows have just generated a stop token, bool `(rows,)`."""
        ended = ops.zeros_like(from_prompt)
        for token_id in self.stop:
            ended = ops.logical_or(ended, ops.equal(token, token_id))
        return ops.logical_and(ended, ops.logical_not(from_prompt))

    def _key(self) -> tuple[Any, Any]:
        """The key of each row's numbers, two uint32 `(rows,)`."""
        words = randomness.seed_words(0 if self.spec.seed is None else self.spec.seed)
        seed = tuple(ops.convert_to_tensor([[word]], dtype="uint32") for word in words)
        ids = ops.where(self.mask, self.prompt, -1)
        same = ops.all(ops.equal(ops.expand_dims(ids, 0), ops.expand_dims(ids, 1)), axis=-1)
        row = ops.arange(self.rows)
        earlier = ops.expand_dims(row, 0) < ops.expand_dims(row, 1)
        repeat = ops.sum(ops.cast(ops.logical_and(same, earlier), "int32"), axis=-1)
        token_ids = ops.cast(ops.where(self.mask, self.prompt, 0), "uint32")
        return randomness.prompt_key(ops, (seed[0], seed[1]), token_ids, self.mask, ops.cast(repeat, "uint32"))
