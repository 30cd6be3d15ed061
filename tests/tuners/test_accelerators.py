"""What a run does otherwise on an accelerator, run here on a processor: it changes no number."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import encode, smallest_gpt2, texts

from kerasgen import backend
from kerasgen.errors import NonFiniteLossError
from kerasgen.tuners import callbacks, throughput
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner

pytestmark = pytest.mark.one_backend
TUNER = FullTuner(
    batch_size=4, sequence_length=32, epochs=2, learning_rate=1e-2, precision="float32", checkpoint_every=4
)


def tune(directory: Path, *, resume: bool = False, **changed: Any) -> tuple[TuneReport, list[Any]]:
    model = smallest_gpt2()
    train, held_out = encode(model.tokenizer, texts(50)), encode(model.tokenizer, texts(5, seed=1))
    tuner = dataclasses.replace(TUNER, **changed)
    report = tuner.tune(model, train, held_out, seed=0, directory=directory, resume=resume, verbose=0)
    return report, [np.asarray(weight) for weight in model.network.weights]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets losses stay on the device as on an accelerator; returns how many executions waited at each one's end."""
    backend.use()
    monkeypatch.setattr(throughput, "on_accelerator", lambda: True)
    waiting: list[int] = []
    read = callbacks.Watcher._read

    def counted(watcher: callbacks.Watcher, **settings: Any) -> Any:
        newest = read(watcher, **settings)
        waiting.append(len(watcher._waiting))
        return newest

    monkeypatch.setattr(callbacks.Watcher, "_read", counted)
    return waiting


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("changed", [{}, {"gradient_accumulation_steps": 2}, {"steps_per_execution": 2}])
def test_losses_that_are_read_later_are_the_same_losses(
    changed: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: list[int]
) -> None:
    report, weights = tune(tmp_path / "ahead", **changed)
    assert max(ahead) >= 2, "the host was ahead of what it had read"
    with monkeypatch.context() as patch:
        patch.setattr(throughput, "on_accelerator", lambda: False)
        plain, plain_weights = tune(tmp_path / "plain", **changed)
    assert report.losses == plain.losses
    assert report.accuracies == plain.accuracies
    assert report.validations == plain.validations
    assert all((one == other).all() for one, other in zip(weights, plain_weights, strict=True))
    for step in tmp_path.glob("plain/step-*"):
        for name in ("state.safetensors", "state.json"):
            assert (step / name).read_bytes() == (tmp_path / "ahead" / step.name / name).read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_though_losses_were_unread(tmp_path: Path, ahead: list[int]) -> None:
    whole, weights = tune(tmp_path / "whole")
    save = callbacks.Watcher._save

    def dies(watcher: callbacks.Watcher) -> None:
        save(watcher)
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Watcher, "_save", dies)
        with pytest.raises(ZeroDivisionError):
            tune(tmp_path / "killed")
    report, resumed = tune(tmp_path / "killed", resume=True)
    assert report.resumed_from == 4
    assert report.losses == whole.losses
    assert all((one == other).all() for one, other in zip(weights, resumed, strict=True))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step_before_a_checkpoint(
    tmp_path: Path, ahead: list[int]
) -> None:
    with pytest.raises(NonFiniteLossError, match=r"The loss became nan at step 2, .*1e\+38") as error:
        tune(tmp_path, learning_rate=1e38, schedule="constant", clip_norm=None, checkpoint_every=5)
    assert error.value.step == 2
    assert not list(tmp_path.glob("step-*"))


@pytest.mark.slow
def test_a_step_takes_over_the_memory_of_the_state_before(tmp_path: Path) -> None:
    """Weights, optimizer and metrics are donated, so that no second copy of them stands beside a step."""
    if backend.use() != "jax":
        pytest.skip("JAX says which arrays a step took over")
    import keras

    from kerasgen.tuners import objective, trainer

    states: list[Any] = []

    class Looking(trainer.Trainer):
        def _get_jax_state(self, **which: bool) -> Any:
            state = super()._get_jax_state(**which)
            if which.get("optimizer_variables"):  # a step's, and not a validation's
                states.append(state)
            return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective.Objective, "trainer", Looking)
        tune(tmp_path, max_steps=1, checkpoint_every=None)
    (state,) = states
    assert all(array.is_deleted() for array in keras.tree.flatten(state))
