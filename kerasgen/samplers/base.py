"""The sampler contract: a frozen value that says how the next token is chosen.

Before anything is chosen, every kind treats the model's logits alike and in this order, which is transformers':

1. `repetition_penalty`: logits of tokens that the text holds already are divided by it if positive, multiplied if not
   (Keskar et al. 2019, section 4.1).
2. `no_repeat_ngram_size`: tokens that would complete an n-gram the text holds already are excluded.
3. `bad_words`: tokens that would complete one of these strings in the text are excluded.
4. `temperature`: logits are divided by it.
5. The kind's own part: truncation and a draw, a search over beams, …

Steps 1 to 3 give the same in any order, for an excluded token has the logit -inf, which a penalty leaves alone. The
text is the prompt and what was generated; start and end tokens are its frame, and never count as repeated. Where
everything is excluded, the text can't go on: the end token is the one choice left.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from kerasgen import bounds
from kerasgen.bounds import Bounds, NonEmptyStr, NonNegativeInt, PositiveFloat, Seed
from kerasgen.errors import SamplerArgumentError
from kerasgen.keywords import Checked

# Far below it, float32 logits overflow to infinity; at it, a millionth of a nat already becomes a nat.
LEAST_TEMPERATURE = 1e-6
Temperature: TypeAlias = Annotated[float, Bounds(minimum=LEAST_TEMPERATURE, note="for the likeliest token, use Greedy")]
"""A finite number of at least 1e-6."""


def require(holds: bool, what: str, received: str) -> None:
    """Raise `SamplerArgumentError` unless `holds`; `what` says how it must be, `received` what came."""
    if not holds:
        raise SamplerArgumentError(f"{what}. Received: {received}.")


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite int or float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any, least: int) -> bool:
    """Return whether `value` is an int of at least `least`, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(metaclass=Checked):
    """A rule for choosing the next token. Subclasses are frozen dataclasses; making one imports no Keras.

    A spec can be handed to `keras_hub.models.CausalLM.compile(sampler=spec)` as well.

    Args:
        temperature: at least 1e-6; 1 leaves the model's distribution as it is, less sharpens it, more flattens it.
        repetition_penalty: above 0; 1 is none, more makes tokens of the text so far less likely.
        no_repeat_ngram_size: tokens in a sequence that may occur only once in the text; 0 sets no limit.
        bad_words: strings that generated tokens never complete, wherever the tokens' borders lie; compared exactly.
        seed: 0 to 2**64 - 1, from which every draw follows; None leaves it to the caller.

    Raises:
        SamplerArgumentError: a setting is out of range.
    """

    contract_version: ClassVar[int]  # a plugin declares it, see kerasgen.plugins.contract_versions
    _argument_error = SamplerArgumentError
    # Runs a spec inside KerasHub's loop. The package provides the implementation, which a contract must not import.
    _run_in_keras_hub: ClassVar[Callable[..., Any]]

    temperature: Temperature = 1.0
    repetition_penalty: PositiveFloat = 1.0
    no_repeat_ngram_size: NonNegativeInt = 0
    bad_words: tuple[NonEmptyStr, ...] = ()
    seed: Seed | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bad_words, list):
            object.__setattr__(self, "bad_words", tuple(self.bad_words))  # a spec is hashable
        self._check_bounds()
        require(
            all(word.encode("utf-8", "replace").decode() == word for word in self.bad_words),
            "`bad_words` must be valid Unicode; a lone surrogate can't be written as UTF-8",
            f"bad_words={self.bad_words!r}",
        )

    def _check_bounds(self) -> None:
        """Raise a `SamplerArgumentError` for the first field that is out of the bounds of its annotation."""

        def fault(name: str, value: Any, wanted: str) -> SamplerArgumentError:
            return SamplerArgumentError(f"`{name}` must be {wanted}. Received: {name}={value!r}.")

        bounds.check(self, fault)

    @property
    def variables(self) -> list[Any]:
        """The sampler's Keras variables, for which KerasHub asks: none, because a spec keeps no state."""
        return []

    def __call__(
        self,
        next: Any,  # noqa: A002 - KerasHub passes it by this name
        prompt: Any,
        cache: Any = None,
        index: Any = 0,
        mask: Any = None,
        stop_token_ids: Any = None,
        hidden_states: Any = None,
        model: Any = None,
    ) -> Any:
        """Return `prompt` with what was generated, as KerasHub's `generate_step` asks a sampler to.

        The same seed (0 where the spec has none) gives the same text at every call.

        Args:
            next: `(token_ids, cache, index)` to `(logits, hidden_states, cache)` at `index - 1`.
            prompt: int `(batch_size, max_length)`; right-padded.
            cache: the cache of the model, filled for `prompt`.
            index: where the first token is written.
            mask: bool like `prompt`; True where the prompt's own tokens lie.
            stop_token_ids: ids that end a text, or None.
            hidden_states: `(batch_size, max_length, hidden_dim)` of the prompt; only contrastive search reads them.
            model: not used.

        Raises:
            SamplerArgumentError: the spec has `bad_words`, which can't be kept without the tokenizer, or is of a kind
                that only `kerasgen.generation` runs.
        """
        return self._run_in_keras_hub(self, next, prompt, cache, index, mask, stop_token_ids, hidden_states)


@dataclass(frozen=True, kw_only=True)
class TokenSampler(SamplerSpec, ABC):
    """Sampler that chooses each token from that step's logits alone; plugins subclass this one.

    Attributes:
        draws: whether `choose` reads its uniforms; a kind that doesn't gives the same text for every seed.
        inputs: which of its own settings `choose` takes as numbers of the executor, so that one compiled graph serves
            all values: by JAX, and by artefacts that hold the sampler. None (the default) for kinds that branch on
            theirs in Python: the host runs those.
        positive: which of the inputs must be above 0, which an artefact's graph checks when it runs.
    """

    draws: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...] | None] = None
    positive: ClassVar[tuple[str, ...]] = ()

    @property
    def max_candidates(self) -> int | None:
        """Upper bound on how many of the likeliest tokens `choose` considers; None means the whole vocabulary.

        A kind that says so may be handed the logits of these alone, in the order of their ids. It speaks for the
        `choose` of its own class and of those above: a subclass that writes its own `choose` says it anew, or is
        handed all logits. Ask `max_candidates_of`, which heeds that.
        """
        return None

    @abstractmethod
    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one token id for each row.

        Args:
            xp: the array namespace to compute in: the module `numpy`, or `keras.ops` inside a compiled graph. Use
                what both have; `kerasgen.samplers.arithmetic` is written so.
            logits: float `(rows, vocabulary_size)`, after the steps 1 to 4; -inf excludes a token, and each row has
                at least one that is not excluded.
            uniforms: float `(rows,)` in [0, 1), one for each row and step.

        Returns:
            int `(rows,)`; never an excluded token.
        """


def max_candidates_of(spec: TokenSampler) -> int | None:
    """Return a sampler's `max_candidates`, or None where its `choose` may take any token.

    It doesn't speak for a `choose` that a subclass of its class wrote after it.
    """
    author = next(kind for kind in type(spec).__mro__ if "max_candidates" in vars(kind) or "choose" in vars(kind))
    return spec.max_candidates if "max_candidates" in vars(author) else None
