"""Writes texts by a masked language model: mask-predict, or Gibbs sampling. Imports Keras when it runs.

Source: Ghazvininejad et al. 2019 (arXiv 1904.09324); Wang and Cho 2019 (arXiv 1902.04094).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from kerasgen.constraints import valid_utf8
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.errors import GenerateArgumentError, GenerationError
from kerasgen.generation import guided
from kerasgen.generation.api import GeneratedText
from kerasgen.generation.config import GenerationConfig
from kerasgen.generation.detokenize import write
from kerasgen.generation.encoding import encode_prompts
from kerasgen.generation.request import check_prompts
from kerasgen.generation.shown_lists import ShownList
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.samplers import randomness
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.masked import Gibbs, MaskPredict
from kerasgen.samplers.sampling import Greedy, Random, TopK
from kerasgen.tokens.json_codec import SPACE

if TYPE_CHECKING:
    from kerasgen.models.masked_predicting import Predictor

USUAL_TOKENS: Final = 32
"""Tokens of a text where neither a length nor a form says how many."""

_TRIES = 32  # draws of a token that shall fit into the form with those behind it


@dataclass
class _Text:
    """A text that is being written.

    Args:
        prompt: ids before it, the start token with them.
        tokens: its ids; the mask where nothing is settled.
        log_p: of each, in nats, when it was chosen.
        state: makes the state of its form before its first token, or None where every token may follow.
        key: of its random numbers.
        drawn: how many of them were used.
    """

    prompt: list[int]
    tokens: list[int]
    log_p: list[float]
    state: Any
    key: tuple[Any, Any]
    drawn: int = 0
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.tokens)


class _Utf8State:
    """Where a text stands between the bytes of characters; what `ConstraintState` says of it."""

    def __init__(self, masks: Utf8Masks, state: int) -> None:
        self._masks, self._state = masks, np.asarray([state], np.int64)

    def allowed(self) -> Any:
        return self._masks.allowed(self._state)[0]

    def advance(self, token_id: int) -> None:
        self._state = self._masks.advance(self._state, np.asarray([token_id]))

    def copy(self) -> _Utf8State:
        return _Utf8State(self._masks, int(self._state[0]))


def generate(model: MaskedLanguageModel, prompts: Iterable[str], config: GenerationConfig) -> list[Any]:
    """Return one text for each prompt, as `kerasgen.generation.generate` does for causal models.

    Args:
        model: the model.
        prompts: texts that stand before what is written.
        config: of the call, its sampler and seed with it. A sampler that chooses token by token chooses within
            mask-predict of ten iterations.

    Raises:
        GenerateArgumentError: the call can't be carried out as written.
        GenerationError: the vocabulary has no token that could stand somewhere.
    """
    spec, chooser = _samplers(config)
    texts = check_prompts(prompts)
    encoded = encode_prompts(model.tokenizer, texts, config.allowed_special)
    copies = config.num_return_sequences or 1
    begun = _begin(model, encoded, config, copies)
    from kerasgen.models.masked_predicting import Predictor

    writer = _Writer(model, Predictor(model, config.batch_size or 32), spec, chooser)
    writer.write(begun)
    written = [_written(model, config, texts[n // copies], text) for n, text in enumerate(begun)]
    kind: type[list[Any]] = ShownList if config.return_logprobs else list
    if config.num_return_sequences is None:
        return kind(written)
    return [kind(written[n : n + copies]) for n in range(0, len(written), copies)]


def check(config: GenerationConfig) -> None:
    """Raise what `generate` raises of a call's settings, before a model is loaded."""
    _samplers(config)


def _samplers(config: GenerationConfig) -> tuple[MaskPredict | Gibbs, TokenSampler]:
    """Return the way of writing, and what chooses a token in it.

    Raises:
        GenerateArgumentError: a setting has no meaning for a masked language model.
    """
    spec = config.sampler
    if isinstance(spec, MaskPredict):
        chooser: TokenSampler = TopK(spec.k) if spec.k > 1 else Greedy()
    elif isinstance(spec, Gibbs):
        chooser = TopK(spec.k) if spec.k else Random()
    elif isinstance(spec, TokenSampler):
        chooser, spec = spec, MaskPredict()
    else:
        raise GenerateArgumentError(
            f"A masked language model writes in no order, so a search from left to right has no meaning. Received: "
            f"sampler={spec!r}. Use 'mask_predict', 'gibbs', or a sampler that chooses token by token, such as 'top_k'."
        )
    asked = config.sampler
    assert isinstance(asked, SamplerSpec)
    for name, none in (("no_repeat_ngram_size", 0), ("bad_words", ())):
        if getattr(asked, name) != none:
            raise GenerateArgumentError(
                f"`{name}` is for texts that are written from left to right. Received: "
                f"{name}={getattr(asked, name)!r}. Leave it out, or say which texts may be written by a `constraint`."
            )
    for name in ("prompt_lookup_num_tokens", "assistant_model"):
        if getattr(config, name) is not None:
            raise GenerateArgumentError(
                f"`{name}` proposes what comes next, and a masked language model writes in no order. Leave it out."
            )
    if config.engine not in ("auto", "keras"):
        raise GenerateArgumentError(
            f"A masked language model is computed by Keras. Received: engine={config.engine!r:.80}. Leave it out."
        )
    temperature, penalty = asked.temperature, asked.repetition_penalty
    return spec, dataclasses.replace(chooser, temperature=temperature, repetition_penalty=penalty)


def _begin(
    model: MaskedLanguageModel, encoded: Sequence[Sequence[int]], config: GenerationConfig, copies: int
) -> list[_Text]:
    """Return the texts with nothing but masks in them.

    Raises:
        GenerateArgumentError: a text has no room, or can't have the form.
    """
    tokenizer, constraint = model.tokenizer, config.constraint
    assert tokenizer.start_token_id is not None
    utf8 = valid_utf8.masks_of(tokenizer) if config.valid_utf8 and constraint is None else None
    asked: Any = config.seed
    seeds: list[int] = list(asked) if isinstance(asked, tuple) else [asked or 0] * len(encoded)
    if len(seeds) != len(encoded):
        raise GenerateArgumentError(
            f"`seed` must be one number, or one for each of the {len(encoded)} prompts. Received: {len(seeds)} of them."
        )
    with_start = [[tokenizer.start_token_id, *_led(tokenizer, prompt)] for prompt in encoded for _ in range(copies)]
    repeats = randomness.streams(list(map(tuple, with_start)))
    words = randomness.keys([seed for seed in seeds for _ in range(copies)], with_start, repeats)
    texts = []
    for prompt, key in zip(with_start, words, strict=True):
        room = model.max_sequence_length - len(prompt) - 1
        state: Any = None
        if constraint is not None:
            count = _length(config, prompt, room, _fewest(constraint, tokenizer, prompt[1:]))
            state = constraint.begin(tokenizer, prompt[1:], count)  # type: ignore[union-attr]
        else:
            count = _length(config, prompt, room, min(USUAL_TOKENS, room))
            state = None if utf8 is None else _Utf8State(utf8, utf8.state_after(prompt))
        masks = [model.mask_token_id] * count
        texts.append(_Text(prompt, masks, [0.0] * count, state, (key[0], key[1])))
    return texts


def _led(tokenizer: Any, prompt: Sequence[int]) -> list[int]:
    """Return the ids of a prompt; where each text begins with the piece of a space, so does one without a prompt."""
    lead = tokenizer.vocabulary.get(SPACE) if not prompt and tokenizer.codec.model_kind == "Unigram" else None
    return list(prompt) if lead is None else [lead]


def _fewest(constraint: Any, tokenizer: Any, prompt: Sequence[int]) -> int:
    """Return how many tokens a text of the form takes here at least, or the usual number where that is unknown."""
    from kerasgen.constraints import masks

    try:
        of_form = masks.masks_of(constraint, tokenizer)
    except AttributeError:  # a form of a person's own may be no automaton
        return USUAL_TOKENS
    return of_form.distances.fewest(of_form.begin(of_form.spell(prompt))) or USUAL_TOKENS


def _length(config: GenerationConfig, prompt: Sequence[int], room: int, usual: int) -> int:
    asked = config.max_new_tokens
    if config.max_length is not None:
        asked = config.max_length - len(prompt) - 1
    count = usual if asked is None else asked
    if not 1 <= count <= room:
        raise GenerateArgumentError(
            f"A text of {len(prompt)} tokens before {count} new ones and an end token does not fit: the model has "
            f"{room + len(prompt) + 1} positions. Change `max_new_tokens`, `max_length` or the prompt."
        )
    return count


class _Writer:
    """Settles the tokens of texts.

    Args:
        model: the model.
        predictor: of the model.
        spec: the way of writing.
        chooser: chooses a token of a distribution.
    """

    def __init__(
        self, model: MaskedLanguageModel, predictor: Predictor, spec: MaskPredict | Gibbs, chooser: TokenSampler
    ) -> None:
        self.model, self.predictor, self.spec, self.chooser = model, predictor, spec, chooser
        special = list(model.tokenizer.special_tokens.values())
        self._possible = ~np.isin(np.arange(model.tokenizer.vocabulary_size), special)

    def write(self, texts: list[_Text]) -> None:
        """Fill the texts, each by its own random numbers."""
        iterations = self.spec.iterations if isinstance(self.spec, MaskPredict) else 1
        for nth in range(iterations):
            waiting = [text for text in texts if self.model.mask_token_id in text.tokens]
            if not waiting:
                break
            for text, at, log_p in self._predicted(waiting):
                self._settle(text, dict(zip(at, log_p, strict=True)))
                if nth + 1 < iterations:
                    self._mask_again(text, text.length * (iterations - nth - 1) // iterations)
        if isinstance(self.spec, Gibbs):
            for _ in range(self.spec.sweeps):
                self._sweep(texts)

    def _predicted(self, texts: list[_Text]) -> list[tuple[_Text, list[int], NDArray[np.float32]]]:
        """Return each text with the places of its masks and log p of all tokens there."""
        mask, end = self.model.mask_token_id, self.model.tokenizer.end_token_id
        at = [[n for n, token_id in enumerate(text.tokens) if token_id == mask] for text in texts]
        rows = [[*text.prompt, *text.tokens, end] for text in texts]
        places = [[len(text.prompt) + n for n in of_text] for text, of_text in zip(texts, at, strict=True)]
        return list(zip(texts, at, self.predictor.log_probabilities(rows, places), strict=True))

    def _settle(self, text: _Text, log_p: dict[int, NDArray[np.float32]]) -> None:
        """Choose tokens for the masks of a text, from its first place to its last, in its form.

        A token that was settled before and no longer fits to those before it is chosen anew, from what was predicted
        when it was chosen last, if anything was; else from all that fits.
        """
        state = None if text.state is None else text.state.copy()
        for n in range(text.length):
            allowed = self._allowed(state)
            if allowed is not None and not allowed.any():  # the form is complete
                text.tokens, text.log_p = text.tokens[:n], text.log_p[:n]
                text.length = n
                return
            kept = text.tokens[n]
            if n in log_p or (allowed is not None and not allowed[kept]):
                scores = log_p.get(n, np.zeros(len(self._possible), np.float32))
                text.tokens[n], text.log_p[n] = self._choose(text, n, scores, allowed)
            if state is not None:
                state.advance(text.tokens[n])

    def _allowed(self, state: Any) -> Any:
        """Return which tokens may stand next, the special ones left out; None for all that are possible."""
        found = None if state is None else state.allowed()
        return None if found is None else found & self._possible

    def _choose(self, text: _Text, n: int, log_p: NDArray[np.float32], allowed: Any) -> tuple[int, float]:
        """Return a token for a place, and its log p."""
        logits = log_p.astype(np.float32)
        if self.chooser.repetition_penalty != 1.0:
            others = [token_id for place, token_id in enumerate(text.tokens) if place != n]
            used = np.unique([*text.prompt[1:], *(each for each in others if each != self.model.mask_token_id)])
            logits[used] = logits[used] * self.chooser.repetition_penalty  # log-probabilities are never positive
        logits = np.where(self._possible if allowed is None else allowed, logits, -np.inf)
        if not np.isfinite(logits).any():
            raise GenerationError("The vocabulary has no token that could stand here, or the logits are not finite.")
        uniform = randomness.uniforms(np, _key(text.key), np.asarray([text.drawn], np.uint32))
        text.drawn += 1
        token_id = int(self.chooser.choose(np, (logits / self.chooser.temperature)[None], uniform)[0])
        return token_id, float(log_p[token_id])

    def _mask_again(self, text: _Text, count: int) -> None:
        """Mask the tokens whose probabilities were the lowest."""
        for n in np.argsort(text.log_p, kind="stable")[: min(count, text.length)].tolist():
            text.tokens[n] = self.model.mask_token_id

    def _sweep(self, texts: list[_Text]) -> None:
        """Draw each token of each text once, given all others."""
        orders = []
        for text in texts:
            luck = randomness.uniforms(
                np,
                _key(text.key, text.length),
                np.arange(text.drawn, text.drawn + text.length, dtype=np.uint32),
            )
            text.drawn += text.length
            orders.append(np.argsort(luck, kind="stable").tolist())
        for step in range(max(map(len, orders), default=0)):
            at = [(text, order[step]) for text, order in zip(texts, orders, strict=True) if step < len(order)]
            before = []
            for text, n in at:
                before.append((text.tokens[n], text.log_p[n]))
                text.tokens[n] = self.model.mask_token_id
            for (text, _, log_p), (_, n), stood in zip(
                self._predicted([text for text, _ in at]), at, before, strict=True
            ):
                text.tokens[n], text.log_p[n] = self._redrawn(text, n, log_p[0], stood)

    def _redrawn(self, text: _Text, n: int, log_p: NDArray[np.float32], stood: tuple[int, float]) -> tuple[int, float]:
        """Return a drawn token with which the whole text keeps its form, or the one that stood there."""
        if text.state is None:
            return self._choose(text, n, log_p, None)
        state = text.state.copy()
        for token_id in text.tokens[:n]:
            state.advance(token_id)
        allowed = np.array(self._allowed(state))
        for _ in range(_TRIES):
            if not allowed.any():
                break
            token_id, value = self._choose(text, n, log_p, allowed)
            if _fits(state.copy(), [token_id, *text.tokens[n + 1 :]]):
                return token_id, value
            allowed[token_id] = False
        return stood


def _fits(state: Any, token_ids: Sequence[int]) -> bool:
    for token_id in token_ids:
        allowed = state.allowed()
        if allowed is not None and not allowed[token_id]:
            return False
        state.advance(token_id)
    return bool(getattr(state, "is_complete", True))


def _key(key: tuple[Any, Any], count: int = 1) -> tuple[Any, Any]:
    """Return the words of a key as arrays of `count` numbers."""
    return np.full(count, key[0], np.uint32), np.full(count, key[1], np.uint32)


def _written(model: MaskedLanguageModel, config: GenerationConfig, prompt: str, text: _Text) -> Any:
    constraint: Any = config.constraint
    begins = not prompt and constraint is None
    shown = write(model.tokenizer, text.tokens, ended=False, stop=config.stop_strings, begins=begins)
    if constraint is not None and not config.stop_strings:
        guided.check(constraint, prompt, shown)
    whole = prompt + shown if config.return_prompt else shown
    if not config.return_logprobs:
        return whole
    return GeneratedText(
        text=whole,
        token_ids=tuple(text.tokens),
        logprobs=tuple(text.log_p),
        score=float(sum(text.log_p)),
        finished=True,
    )
