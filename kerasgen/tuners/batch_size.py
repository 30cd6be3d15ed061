"""Row length and rows of a batch: from the documents' lengths, the model's positions and the devices.

What a person asks for is kept. The figures below were measured; see the log of experiments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kerasgen.tuners.settings import GradientTuner

Settings = TypeVar("Settings", bound=GradientTuner)

ROW_LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512)
WHOLE = 0.95
"""Share of the documents that a row is to hold whole, where the model's positions and the step's tokens allow it."""

STEP_TOKENS = 2_048
"""Tokens of an optimizer step. With four times as many a run takes a quarter as many steps, and learns less by far."""

GPU_STEP_TOKENS = 8_192
"""The same on a GPU, which fewer don't keep busy."""

SHORTEST_CUT = 128
"""Positions below which no row is cut to have the step's tokens where the rows of a batch were asked for."""

LEAST_STEPS = 100
"""Optimizer steps that a run of few tokens is to have."""

LEAST_STEP_TOKENS = 256
"""Tokens below which a step costs more than it teaches."""


def sized(
    settings: Settings,
    targets: NDArray[np.int64],
    *,
    longest: int,
    packs: bool,
    ways: int = 1,
    gpu: bool = False,
    texts: int = 1,
    endless: bool = False,
) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings with `sequence_length` and `batch_size` decided, and why for each that was not asked for.

    Args:
        settings: the tuner.
        targets: int64 `(documents,)`; tokens to be predicted in each training document.
        longest: positions of a row at most.
        packs: whether documents share rows.
        ways: devices that share a batch.
        gpu: whether a GPU computes.
        texts: how many stand at each place of a row: two of pairs.
        endless: whether there are more documents than these.
    """
    reasons: dict[str, str] = {}
    targets = targets[targets > 0]
    length = settings.sequence_length
    if length is None:
        length, reasons["sequence_length"] = _row_length(settings, targets, longest, gpu=gpu, texts=texts)
    rows = settings.batch_size
    if rows is None:
        rows, reasons["batch_size"] = _rows(
            settings, targets, length, packs=packs, ways=ways, gpu=gpu, texts=texts, endless=endless
        )
    return dataclasses.replace(settings, sequence_length=length, batch_size=rows), reasons


def _row_length(
    settings: GradientTuner, targets: NDArray[np.int64], longest: int, *, gpu: bool, texts: int
) -> tuple[int, str]:
    usual_length = float(np.quantile(targets, WHOLE)) if len(targets) else 1.0
    lengths = [length for length in ROW_LENGTHS if length < longest] + [longest]
    length = next((length for length in lengths if length >= usual_length), longest)
    why = f"no row is longer than {longest}, and " if usual_length > longest else ""
    if settings.batch_size is not None:
        rows = settings.batch_size * settings.gradient_accumulation_steps * texts
        fitting = max((short for short in lengths if short * rows <= _most(gpu)), default=0)
        shorter = min(length, max(SHORTEST_CUT, fitting))
        if shorter < length:
            why = f"longer ones make steps of more than {shorter * rows:,} tokens with the {rows} rows asked for, and "
            length = shorter
    whole = float((targets <= length).mean()) if len(targets) else 1.0
    return length, f"{why}it holds {whole:.0%} of the documents whole"


def _rows(
    settings: GradientTuner,
    targets: NDArray[np.int64],
    length: int,
    *,
    packs: bool,
    ways: int,
    gpu: bool,
    texts: int,
    endless: bool,
) -> tuple[int, str]:
    share = texts * int(targets.sum()) * settings.epochs // LEAST_STEPS
    tokens = _most(gpu) if endless else max(LEAST_STEP_TOKENS, min(_most(gpu), share))
    in_a_row = texts * (float(length) if packs or not len(targets) else float(np.minimum(targets, length).mean()))
    batches = settings.gradient_accumulation_steps * ways
    rows = max(1, round(tokens / (in_a_row * batches))) * ways
    return (
        rows,
        f"it makes an optimizer step of about {rows * settings.gradient_accumulation_steps * in_a_row:,.0f} tokens",
    )


def _most(gpu: bool) -> int:
    return GPU_STEP_TOKENS if gpu else STEP_TOKENS
