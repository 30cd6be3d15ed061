"""The weights that a run begins with are scored while its first step is traced, and before it is taken."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from toys import encode, smallest_llama, texts

import kerasgen as kg
from kerasgen.errors import NonFiniteLossError
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import training
from kerasgen.tuners.base import Validation
from kerasgen.tuners.first_validation import FirstValidation

pytestmark = pytest.mark.numerical

FOUND = Validation(0, 1.0, 2.0, documents=1, tokens=3, standard_error=None)


def tuned(model: LanguageModel, directory: Path, **settings: Any) -> kg.TuneReport:
    settings = {"max_steps": 3, "batch_size": 4, "sequence_length": 32, "precision": "float32", **settings}
    documents = texts(30)
    train, held_out = encode(model.tokenizer, documents[:20]), encode(model.tokenizer, documents[20:])
    return kg.FullTuner(**settings).tune(model, train, held_out, seed=1, directory=directory, verbose=0)


def test_figures_come_in_front_once_and_waiting_for_them_is_timed() -> None:
    held: list[Validation] = [Validation(4, 0.5, 1.0, documents=1, tokens=3, standard_error=None)]
    go_on = threading.Event()

    def measure() -> Validation:
        go_on.wait(10)
        return FOUND

    first = FirstValidation(measure, held)
    threading.Timer(0.05, go_on.set).start()
    first.finish()
    first.finish()
    first.end()
    assert [each.step for each in held] == [0, 4]
    assert first.waited_seconds > 0.03
    assert first.error is None


def test_what_went_wrong_is_raised_and_kept() -> None:
    def measure() -> Validation:
        raise NonFiniteLossError("nan", step=0, learning_rate=0.1)

    held: list[Validation] = []
    first = FirstValidation(measure, held)
    with pytest.raises(NonFiniteLossError, match="nan"):
        first.finish()
    first.end()
    assert isinstance(first.error, NonFiniteLossError)
    assert not held


@pytest.mark.skipif("keras.config.backend() != 'tensorflow'", reason="elsewhere the first weights are scored before")
@pytest.mark.parametrize("settings", [{}, {"steps_per_execution": 2}, {"gradient_accumulation_steps": 2}])
def test_a_run_has_the_numbers_of_one_that_scores_before(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[str] = []
    finish = FirstValidation.finish

    def finished(self: FirstValidation) -> None:
        beside.append(threading.current_thread().name)
        finish(self)

    monkeypatch.setattr(FirstValidation, "finish", finished)
    report = tuned(smallest_llama(), tmp_path / "beside", **settings)
    assert beside, "it was asked for while the step was traced"
    monkeypatch.setattr(training._Run, "_validates_while_tracing", lambda self: False)
    monkeypatch.setattr(FirstValidation, "finish", finish)
    before = tuned(smallest_llama(), tmp_path / "before", **settings)
    assert (report.losses, report.validations) == (before.losses, before.validations)
    assert report.validations[0].step == 0


def test_weights_that_are_no_numbers_are_told_before_a_step_is_taken(tmp_path: Path) -> None:
    model = smallest_llama()
    variable = model.network.trainable_variables[-1]
    variable.assign(np.full(variable.shape, np.nan))
    before = [np.array(each) for each in model.network.variables]
    with pytest.raises(NonFiniteLossError, match="before the first step") as raised:
        tuned(model, tmp_path)
    assert raised.value.step == 0
    for each, numbers in zip(model.network.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(each), numbers, err_msg=each.path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kerasgen-validation")]


@pytest.mark.skipif("keras.config.backend() != 'tensorflow'", reason="elsewhere the first weights are scored before")
def test_no_step_is_taken_before_a_slow_validation_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the time that it takes is none of the training's."""
    model = smallest_llama()
    start = np.array(model.network.trainable_variables[0])
    seen: list[bool] = []
    validate = training._after_steps

    def slow(*arguments: Any) -> Validation:
        found = validate(*arguments)
        if not seen:
            time.sleep(3.0)
            seen.append(bool((np.array(model.network.trainable_variables[0]) == start).all()))
        return found

    monkeypatch.setattr(training, "_after_steps", slow)
    report = tuned(model, tmp_path)
    assert seen == [True]
    assert report.first_step_seconds > report.seconds
    assert keras.config.backend() == report.backend
