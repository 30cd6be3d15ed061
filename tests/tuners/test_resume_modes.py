"""However a run is set up, one that stopped and went on has the numbers of one that did not, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt
from toys import encode, weights_of

from kerasgen.models.base import LanguageModel
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.lora import LoraTuner

POEMS = [f"{a}{b}{c}花落知多少" for a in "春夏秋冬" for b in "風雨雲月" for c in "山水"]
STEPS, STOPPED_AT = 8, 5
SETTINGS: dict[str, Any] = {"max_steps": STEPS, "sequence_length": 32, "learning_rate": 1e-2, "checkpoint_every": 2}
FLOAT32, BFLOAT16 = {"precision": "float32"}, {"precision": "mixed_bfloat16"}
ACCUMULATED = {"batch_size": 1, "gradient_accumulation_steps": 2, "epochs": 2}
AT_ONCE = {"batch_size": 2, "steps_per_execution": 2, "epochs": 2}

MODES: dict[str, tuple[Any, Callable[..., LanguageModel], dict[str, Any]]] = {
    "lora beside int4, accumulated": (
        LoraTuner,
        tiny_gpt2,
        {**FLOAT32, **ACCUMULATED, "rank": 2, "quantize": "int4", "use_dora": True},
    ),
    "remat, steps at once": (FullTuner, tiny_gpt2, {**FLOAT32, **AT_ONCE, "remat": True}),
    "trimmed, steps at once": (FullTuner, tiny_gpt2, {**FLOAT32, **AT_ONCE, "vocabulary": "trim"}),
    "bfloat16, lora, extended, opt": (
        LoraTuner,
        tiny_opt,
        {**BFLOAT16, "rank": 2, "vocabulary": "extend", "batch_size": 2, "epochs": 2},
    ),
    "bfloat16, trimmed, accumulated": (FullTuner, tiny_gpt2, {**BFLOAT16, **ACCUMULATED, "vocabulary": "trim"}),
}


def tune(mode: str, directory: Path, *, stop: bool = False, resume: bool = False) -> tuple[TuneReport, LanguageModel]:
    kind, build, changed = MODES[mode]
    model = build(400, num_layers=1, hidden_dim=16, max_sequence_length=32, dropout=0.2)
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) >= STOPPED_AT:
                raise RuntimeError("killed")

    tuner = kind(**SETTINGS, **changed)
    tuner.adapt_vocabulary(model, lambda: POEMS)
    report = tuner.tune(
        model,
        encode(model.tokenizer, POEMS),
        encode(model.tokenizer, POEMS[:3]),
        seed=3,
        directory=directory,
        resume=resume,
        callbacks=[Stop()] if stop else [],
        verbose=0,
    )
    return report, model


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[pytest.mark.slow] * (n > 0)) for n, mode in enumerate(MODES)]
)
def test_a_run_that_stopped_goes_on_to_the_bit(mode: str, tmp_path: Path) -> None:
    whole, expected = tune(mode, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        tune(mode, tmp_path / "stopped", stop=True)
    report, found = tune(mode, tmp_path / "stopped", resume=True)
    assert report.resumed_from == (6 if "at once" in mode else 4)  # two steps at once stop after the sixth
    assert len(set(whole.losses)) == whole.steps == STEPS
    assert report.precision == MODES[mode][2]["precision"]
    assert (report.losses, report.accuracies) == (whole.losses, whole.accuracies)
    assert report.validations == whole.validations
    for one, other in zip(weights_of(found), weights_of(expected), strict=True):
        assert one.dtype in (np.float32, np.int8, np.uint8, np.float16)  # codes of a held base, and their scales
        np.testing.assert_array_equal(one, other)
