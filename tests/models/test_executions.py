"""Several optimizer steps between two calls of callbacks are the same steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import encode, smallest_gpt2, texts, weights_of
from tuning_run import MODES, STEPS_PER_EPOCH

from kerasgen.errors import NonFiniteLossError
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.settings import GradientTuner

COUNT, EPOCHS = 26, 3


@dataclass
class Ran:
    """A run, the steps before each call of its callbacks, and the loss that each call showed."""

    report: TuneReport
    weights: list[Any]
    steps: list[int]
    shown: list[Any]


def run(
    settings: GradientTuner, directory: Path, *, stop_at: int | None = None, resume: bool = False, **changed: Any
) -> Ran:
    """Tune the smallest model; `stop_at` ends the run by a callback once so many steps are done."""
    model = smallest_gpt2(dropout=0.2)
    import keras

    steps: list[int] = []
    shown: list[Any] = []

    class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            steps.append(int(np.asarray(self.model.optimizer.iterations)))
            shown.append(logs["step_loss"])
            if stop_at is not None and steps[-1] >= stop_at:
                self.model.stop_training = True

    report = dataclasses.replace(settings, **changed).tune(
        model,
        encode(model.tokenizer, texts(COUNT, words=("rain", "the cat sat", "on", "home"))),
        encode(model.tokenizer, texts(4, seed=1)),
        seed=5,
        directory=directory,
        resume=resume,
        callbacks=[Recorder()],
        verbose=0,
    )
    return Ran(report, weights_of(model), steps, shown)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(MODES["full"], tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def by_fours(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(MODES["full"], tmp_path_factory.mktemp("four"), steps_per_execution=4)


def same_numbers(found: Ran, expected: Ran) -> None:
    """Within the rounding of graphs that are compiled apart."""
    assert found.report.steps == expected.report.steps == EPOCHS * STEPS_PER_EPOCH
    np.testing.assert_allclose(found.report.losses, expected.report.losses, rtol=1e-5)
    np.testing.assert_allclose(found.report.accuracies, expected.report.accuracies, rtol=1e-5)
    for one, other in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_four_at_once_are_four_one_by_one(one_by_one: Ran, by_fours: Ran) -> None:
    """An epoch of seven steps is an execution of four and one of three, with dropout on."""
    same_numbers(by_fours, one_by_one)
    assert len(set(one_by_one.report.losses)) == EPOCHS * STEPS_PER_EPOCH
    found = [(v.step, v.loss) for v in by_fours.report.validations]
    np.testing.assert_allclose(found, [(v.step, v.loss) for v in one_by_one.report.validations], rtol=1e-5)


def test_callbacks_are_called_after_each_execution_with_its_last_steps_loss(by_fours: Ran) -> None:
    assert by_fours.steps == [4, 7, 11, 14, 18, 21]
    assert by_fours.shown == [by_fours.report.losses[step - 1] for step in by_fours.steps]


@pytest.mark.slow
def test_accumulated_batches_too(tmp_path: Path) -> None:
    one = run(MODES["accumulation"], tmp_path / "one")
    same_numbers(run(MODES["accumulation"], tmp_path / "three", steps_per_execution=3), one)


def test_what_is_due_waits_for_the_end_of_its_execution(tmp_path: Path) -> None:
    """Checkpoints fall due at 3, 6, 9, …; executions end at 4, 7, 11, …; the last two checkpoints are kept."""
    run(MODES["full"], tmp_path, steps_per_execution=4, stop_at=11)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000007", "step-00000011"]


@pytest.mark.parametrize("then", [4, pytest.param(1, marks=pytest.mark.slow)], ids=["by fours", "one by one"])
def test_a_run_that_stopped_goes_on_with_the_numbers_of_one_that_did_not(
    then: int, by_fours: Ran, tmp_path: Path
) -> None:
    """From the middle of an epoch, in executions of the same size or of another."""
    stopped = run(MODES["full"], tmp_path, steps_per_execution=4, stop_at=11)
    assert stopped.report.steps == 11
    resumed = run(MODES["full"], tmp_path, steps_per_execution=then, resume=True)
    assert resumed.report.resumed_from == 11
    if then == 4:
        assert resumed.report.losses == by_fours.report.losses
        for one, other in zip(resumed.weights, by_fours.weights, strict=True):
            np.testing.assert_array_equal(one, other)
    same_numbers(resumed, by_fours)


@pytest.mark.slow
def test_the_step_whose_loss_is_not_finite_is_named(tmp_path: Path) -> None:
    tuner = FullTuner(
        batch_size=1, learning_rate=1e30, warmup_steps=2, schedule="constant", clip_norm=None, sequence_length=32
    )
    steps = set()
    for executed in (1, 4):
        with pytest.raises(NonFiniteLossError) as caught:
            run(tuner, tmp_path / str(executed), steps_per_execution=executed)
        steps.add(caught.value.step)
    assert len(steps) == 1
    assert 1 < steps.pop() < 5
