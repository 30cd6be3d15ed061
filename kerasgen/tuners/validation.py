"""Checks that the settings of a run fit its model and device, before anything is changed.

Imports Keras: import it late.
"""

from __future__ import annotations

import keras

from kerasgen.errors import TuneArgumentError
from kerasgen.models import architectures, described
from kerasgen.models.base import LanguageModel, quantization_modes
from kerasgen.models.forward import can_pack
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import Packing
from kerasgen.tuners.settings import GradientTuner


def longest_row(model: LanguageModel, settings: GradientTuner) -> int:
    """Return the positions that a row has at most: those asked for, or the model's own, at most 512.

    Raises:
        TuneArgumentError: the model has fewer than were asked for.
    """
    longest = model.max_sequence_length
    if settings.sequence_length is None:
        return model.default_sequence_length
    if longest is not None and settings.sequence_length > longest:
        raise TuneArgumentError(
            f"sequence_length must be at most the model's {longest} positions. Received: {settings.sequence_length}."
        )
    return settings.sequence_length


def packing_of(model: LanguageModel, settings: GradientTuner) -> Packing:
    """Return how documents are put into rows.

    Raises:
        TuneArgumentError: the model's family can't keep documents apart that share a row.
    """
    if settings.packing == "auto":
        return "best_fit" if can_pack(model) else "none"
    if settings.packing != "none" and not can_pack(model):
        raise TuneArgumentError(
            f"packing={settings.packing!r} needs a forward pass that keeps documents apart, and "
            f"{described.name_of(model)} has none. Use packing='none' or 'auto'."
        )
    return settings.packing


def require_trainable(model: LanguageModel) -> None:
    """Raise a `TuneArgumentError` if the model's weights are of a kind that no gradient changes."""
    modes = quantization_modes(model.network)
    if modes:
        raise TuneArgumentError(
            f"The model is quantized ({', '.join(modes)}), and what is rounded to a few values can't be tuned. "
            "Tune it before it is quantized: load it anew, fit, and call causal_lm.quantize(…) afterwards. To tune "
            "adapters beside frozen weights in int8 or int4, load it anew and use kg.LoraTuner(quantize='int8')."
        )


def check(model: LanguageModel, settings: GradientTuner, train: EncodedDocuments, *, has_held_out: bool) -> None:
    """Raise unless a run with these settings can begin.

    Args:
        model: that shall be tuned.
        settings: the tuner, its precision decided.
        train: the documents to train on.
        has_held_out: whether there are documents to validate on.

    Raises:
        TuneArgumentError: the settings don't fit the model, the device or the documents.
    """
    if settings.patience is not None and not has_held_out:
        raise TuneArgumentError(
            f"patience needs held-out documents to validate on. Received: patience={settings.patience} and none."
        )
    if settings.remat and not can_pack(model):
        raise TuneArgumentError(f"remat=True is for {architectures.listed()}. Received: {described.name_of(model)}.")
    require_precision(settings.precision)
    require_trainable(model)
    if not train.targets:
        if train.parts is not None and len(train.token_ids) > len(train):
            raise TuneArgumentError(
                "There is nothing to train on: every part of the training documents is only read (weight 0). Give what "
                "shall be learned a weight, or train with learn='all'."
            )
        if has_held_out and not len(train):
            raise TuneArgumentError(
                "There is nothing to train on: all documents were held out. Either there is only one, or all are "
                "nearly the same, and such texts lie on one side. Give more texts that differ, or pass held_out=0.0 to "
                "the pipeline."
            )
        raise TuneArgumentError("There is nothing to train on: no training document holds a token.")


def require_precision(precision: str) -> None:
    """Raise a `TuneArgumentError` if the device can't compute in this precision."""
    if precision != "mixed_float16" or keras.config.backend() != "jax":
        return
    import jax

    if jax.default_backend() != "gpu":  # JAX asks there for a float16 product that XLA has on GPUs alone
        raise TuneArgumentError(
            "On JAX, attention in float16 needs a GPU. Use 'mixed_bfloat16', or the TensorFlow backend. Received: "
            f"precision='mixed_float16' on a {jax.default_backend()}."
        )
