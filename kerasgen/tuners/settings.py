"""The settings of every tuner that follows gradients, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from kerasgen import bounds, keywords
from kerasgen.bounds import Bounds, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare
from kerasgen.errors import TuneArgumentError
from kerasgen.tuners import keras_schedules
from kerasgen.tuners.base import FineTuner

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.tuners.objective import Objective

# Settings of 0.1.0 that are no more, and what does the same.
GONE = {
    "csv": "The report holds the loss of each step (report.losses), and a row an epoch is written by "
    "pipe.fit(callbacks=[keras.callbacks.CSVLogger(path)]).",
    "tensorboard": "Logs for TensorBoard are written by pipe.fit(callbacks=[keras.callbacks.TensorBoard(directory)]).",
}

Schedule: TypeAlias = Literal["linear", "cosine", "constant"]
Distribution: TypeAlias = Annotated[
    str,
    Bounds(
        pattern="data|model|[1-9][0-9]*x[1-9][0-9]*",
        wanted="None, 'data', 'model', or ways of data and model such as '2x4'",
    ),
]
"""How a run lies on several devices."""


@dataclass(frozen=True, kw_only=True)
class GradientTuner(FineTuner):
    """The settings shared by `FullTuner` and `LoraTuner`.

    Args:
        epochs: passes over the training documents.
        learning_rate: the highest; after the warm-up it falls as `schedule` says. Or a schedule of Keras's, which gives
            that of each optimizer step, counted from 0, and leaves nothing for `schedule` and `warmup_steps` to say.
        batch_size: rows of a batch, or None for as many as make an optimizer step of some 2,000 tokens (8,000 on a
            GPU), and fewer where the run would have less than 100 steps; the report says how many.
        max_steps: optimizer steps at most, or None; the schedule ends with the steps that are really run.
        sequence_length: positions of a row, or None for a length that holds nearly all documents whole, at most the
            model's own and 512, and shorter where `batch_size` rows of it would make steps of too many tokens. A longer
            document is split.
        packing: `"best_fit"` lets documents share a row without seeing each other and splits only those longer than a
            row, `"concatenate"` fills every row and splits what stands on an edge, `"none"` gives each a row of its
            own; `"auto"` is `"best_fit"` where the model's family can, else `"none"`.
        vocabulary: `"keep"` leaves the model's as it is. `"trim"` drops the tokens that the training texts never use;
            `"extend"` trims, and adds whole characters and frequent pieces; all bytes stay, so any text still encodes.
            `"auto"` decides by the texts, and the report says why. None, the default, extends one that spells the texts
            badly, and keeps any other, and any beside adapters. The model is changed before its texts are encoded.
        learn: `"parts"` learns of a document with parts, such as a prompt and its response, those that count; `"all"`
            learns every token of it. Held-out figures are of those that count either way.
        masking: of a masked language model, what is masked together: `"tokens"`, each by itself; `"whole_words"`; or
            `"spans"` of up to ten tokens. Of what is chosen 80 % becomes the mask, 10 % any token, and 10 % stays; the
            choice is drawn anew in each epoch.
        mask_rate: of a masked language model, the share of the tokens that are chosen, above 0 and at most 1.
        schedule: `"linear"` falls to zero over the run, `"cosine"` too, on half a wave; `"constant"` stays.
        warmup_steps: optimizer steps over which the learning rate rises from nothing.
        weight_decay: AdamW's, on matrices; embeddings, biases and normalisation are left alone.
        clip_norm: the gradient's global norm is kept below this, or None.
        gradient_accumulation_steps: batches whose gradients make one optimizer step; the loss stays a mean over
            all their tokens.
        steps_per_execution: optimizer steps between two calls of callbacks; every number stays what it is with one.
            What is due every so many steps is done after the execution in which it falls due, and Ctrl-C waits for
            its end. More than one saves time where a step takes only some milliseconds.
        precision: the dtype policy: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"` for bfloat16 where
            the device has instructions for it, and float32 elsewhere. Weights stay float32.
        remat: keep only what enters each layer for the backward pass, and compute the layer again there: less memory
            for about a third more work.
        distribution: None for one device; on JAX `"data"` splits each batch over all devices, `"model"` splits the
            weights of a described model, and `"2x4"` does both, two ways the data and four ways the weights.
        sharded_checkpoints: each process writes its own part of weights and optimizer, by orbax, for a state that one
            host can't hold. It needs a `distribution` and the extra `scale`, and a directory that all hosts see.
        validate_every: optimizer steps between validations, or None for one at the end of each epoch.
        validation_tokens: held-out tokens of a validation at most, or None for all. Of more, each validation takes the
            same documents, drawn at random; `Pipeline.evaluate` scores all.
        patience: stop after this many validations without a lower loss and go back to the best weights, or None.
        checkpoint_every: optimizer steps between checkpoints, or None for one at the end of each epoch.
        sample_every: optimizer steps between text samples, or None.
    """

    _elsewhere = staticmethod(lambda settings: " ".join(GONE.get(name, "") for name in settings))

    epochs: PositiveInt = 1
    learning_rate: PositiveFloat | Any = 2e-4
    batch_size: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    sequence_length: PositiveInt | None = None
    packing: Literal["auto", "best_fit", "concatenate", "none"] = "auto"
    vocabulary: Literal["keep", "trim", "extend", "auto"] | None = None
    learn: Literal["parts", "all"] = "parts"
    masking: Literal["tokens", "whole_words", "spans"] = "tokens"
    mask_rate: PositiveShare = 0.15
    schedule: Schedule = "linear"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = 1.0
    gradient_accumulation_steps: PositiveInt = 1
    steps_per_execution: PositiveInt = 1
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    remat: bool = False
    distribution: Distribution | None = None
    sharded_checkpoints: bool = False
    validate_every: PositiveInt | None = None
    validation_tokens: PositiveInt | None = 16_384
    patience: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    sample_every: PositiveInt | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", keras_schedules.taken(self.learning_rate))
        bounds.check(self, _out_of_bounds)
        is_schedule = isinstance(self.learning_rate, keras_schedules.KerasSchedule)
        if is_schedule and (self.schedule != "linear" or self.warmup_steps):
            raise TuneArgumentError(
                f"learning_rate={self.learning_rate!r} says the rate of each step by itself. Leave out schedule and "
                f"warmup_steps, or pass a number. Received: schedule={self.schedule!r}, "
                f"warmup_steps={self.warmup_steps}."
            )
        if not is_schedule and not isinstance(self.learning_rate, (int, float)):
            raise _out_of_bounds("learning_rate", self.learning_rate, "a finite number above 0")
        self._check_choice("packing", ("auto", "best_fit", "concatenate", "none"))
        self._check_choice("vocabulary", (None, "keep", "trim", "extend", "auto"))
        self._check_choice("learn", ("parts", "all"))
        self._check_choice("masking", ("tokens", "whole_words", "spans"))
        self._check_choice("schedule", ("linear", "cosine", "constant"))
        self._check_choice("precision", ("auto", "float32", "mixed_bfloat16", "mixed_float16"))
        self._check_choice("remat", (True, False))
        self._check_choice("sharded_checkpoints", (True, False))
        if self.sharded_checkpoints and self.distribution is None:
            raise TuneArgumentError(
                "sharded_checkpoints=True is for a run over several devices. Name a `distribution`, such as 'model', "
                "or leave it out. Received: distribution=None."
            )

    def adapt_vocabulary(
        self,
        model: LanguageModel,
        texts: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
    ) -> Mapping[str, Any]:
        """Change the model's vocabulary as `vocabulary` says; see `FineTuner.adapt_vocabulary`.

        Raises:
            TuneArgumentError: the model's family or tokenizer can't be changed so, or the model can't be tuned at all.
        """
        from kerasgen.models.base import MaskedLanguageModel
        from kerasgen.models.live import is_live
        from kerasgen.tuners import sharding, validation

        validation.require_trainable(model)
        if isinstance(model, MaskedLanguageModel):
            if self.vocabulary in (None, "keep"):
                return {}
            raise TuneArgumentError(
                f"The vocabulary of a masked language model stays as it is. Received: vocabulary={self.vocabulary!r}. "
                "Leave it out."
            )
        if self.vocabulary == "keep":
            return {}
        reason = ""
        if is_live(model):
            reason = "the model was handed over in memory and stays the one that it is"
        elif sharding.is_spread(model):
            reason = "the table of embeddings lies on several processes"
        if self.vocabulary is None and reason:
            return {"asked": None, "choice": "keep", "reason": reason}
        from kerasgen.models.precision import resolve
        from kerasgen.tuners import batch_size
        from kerasgen.tuners.vocabulary import adapt, measured

        length = validation.longest_row(model, self)

        def bits_per_character(texts: Callable[[], Iterable[str]]) -> float | None:
            return measured(
                model,
                texts,
                sequence_length=length,
                batch_size=self.batch_size or max(1, batch_size.STEP_TOKENS // length),
                precision=resolve(self.precision)[0],
                tokens=self.validation_tokens,
            )

        return adapt(model, texts, held_out, asked=self.vocabulary, bits_per_character=bits_per_character, cache=cache)

    def load_base(self, load: Callable[[], LanguageModel]) -> LanguageModel:
        """Return the model; of one that one host can't hold, each process reads its own part.

        See `FineTuner.load_base`.
        """
        if not self.sharded_checkpoints:
            return load()
        from kerasgen.tuners import sharding

        with sharding.spread_from_file(self):
            return load()

    def check_kind(self, *, is_masked: bool | None) -> None:
        """Refuse a model of a kind that these settings are not for.

        Args:
            is_masked: whether it predicts masks; None where that is not known before it is loaded.

        Raises:
            TuneArgumentError: the settings are for models of the other kind.
        """
        if is_masked is False and (self.masking, self.mask_rate) != ("tokens", 0.15):
            raise TuneArgumentError(
                f"masking={self.masking!r} and mask_rate={self.mask_rate} are for masked language models, and this one "
                "learns the next token. Leave them out."
            )
        if is_masked and type(self).objective is not GradientTuner.objective:
            raise TuneArgumentError(
                f"A {type(self).__name__} needs the probability of a whole text, which a masked language model has "
                "none of. Use the `full` or `lora` tuner."
            )

    def check_streaming(self) -> None:
        """Raise a `TuneArgumentError` unless the settings say how long a run over a streamed corpus is."""
        if self._learns_pairs:
            raise TuneArgumentError(
                f"{type(self).__name__} asks the model about every pair before the first step, so it needs all of "
                "them. Leave streaming out, or take fewer by max_documents."
            )
        if self.max_steps is None:
            raise TuneArgumentError(
                "A streamed corpus has no known end, so max_steps must say how many optimizer steps the run has. "
                f"Received: max_steps=None. Such as kg.{type(self).__name__}(max_steps=1000)."
            )
        if self.epochs != 1:
            raise TuneArgumentError(
                "A streamed corpus is read until max_steps are done, from its beginning again where it ends. Leave "
                f"epochs out. Received: epochs={self.epochs}."
            )

    def objective(self) -> Objective:
        """Return what a run of this tuner minimizes: by default the next token of each document."""
        from kerasgen.tuners.objective import Objective

        return Objective(self)

    def _check_choice(self, name: str, choices: tuple[object, ...]) -> None:
        value = getattr(self, name)
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
            hint = keywords.meant(value, choices)
            raise TuneArgumentError(
                f"{name} must be one of {', '.join(map(repr, choices))}. Received: {value!r}.{hint}"
            )


def _out_of_bounds(name: str, value: Any, wanted: str) -> TuneArgumentError:
    return TuneArgumentError(f"{name} must be {wanted.removesuffix(', or None')}. Received: {value!r}.")
