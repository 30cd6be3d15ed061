"""Callbacks and schedules of a person's own: they see the current model, change nothing by looking, or are refused."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import float16_can_be_had

import kerasgen as kg
from kerasgen.errors import NonFiniteLossError, TuneArgumentError, TuneError
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.tuners.callbacks import interruptible
from kerasgen.tuners.schedule import of_settings

TEXTS = [f"the {a} and the {b} of {c}" for a in ("sea", "hill", "moon") for b in ("wind", "rain") for c in "abcdefg"]
PEAK = 0.01
SHORT: dict[str, Any] = {"batch_size": 4, "sequence_length": 32, "vocabulary": "keep", "precision": "float32"}
OVERFLOWING: dict[str, Any] = {"learning_rate": 1e38, "schedule": "constant", "clip_norm": None}


def pipeline(**settings: Any) -> kg.Pipeline:
    """Most tests run what one of them compiled: a constant rate is the same graph however long the run."""
    made = tiny_gpt2(num_layers=1, seed=2)
    attach_preprocessor(made)
    rate = {} if "learning_rate" in settings else {"learning_rate": PEAK, "schedule": "constant"}
    tuner = kg.FullTuner(**{**SHORT, "max_steps": 4, **rate, **settings})
    return kg.Pipeline(TEXTS, made.causal_lm, tuner=tuner, held_out=0.2)


def weights_of(pipe: kg.Pipeline) -> list[Any]:
    return [np.array(weight) for weight in pipe.model.causal_lm.weights]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def same(one: list[Any], other: list[Any]) -> bool:
    return all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    """The weights that four steps lead to when nobody looks."""
    pipe = pipeline(precision="mixed_bfloat16")
    pipe.fit(verbose=0)
    return weights_of(pipe)


def test_a_callback_generates_scores_and_saves_at_any_step_and_changes_nothing(
    plain: list[Any], tmp_path: Path
) -> None:
    """Within a step of mixed precision too, it sees what the model writes outside of it."""
    pipe = pipeline(precision="mixed_bfloat16")
    _ = pipe.model
    seen: list[Any] = []

    class Looking(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch in (1, 3):
                look()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            look()

    def look() -> None:
        text = pipe.generate("the", max_new_tokens=6, sampler="greedy")
        scored = pipe.score("the sea").token_log_probabilities
        seen.append((text, scored, pipe.save(tmp_path / str(len(seen)))))

    pipe.fit(verbose=0, callbacks=[Looking()])
    assert same(weights_of(pipe), plain)
    assert len(seen) == 3
    for text, scored, path in seen[:1] + seen[-1:]:
        saved = kg.Pipeline.load(path)
        assert saved.generate("the", max_new_tokens=6, sampler="greedy") == text
        assert saved.score("the sea").token_log_probabilities == pytest.approx(scored, abs=1e-5)
    assert seen[0][1] != seen[-1][1]


def test_what_a_callback_changes_within_an_epoch_is_trained_on() -> None:
    def halved(pipe: kg.Pipeline) -> Callable[..., None]:
        def halve(batch: int, logs: Any = None) -> None:
            if batch == 3:
                for weight in pipe.model.causal_lm.weights:
                    weight.assign(weight * 0.0)

        return halve

    pipe = pipeline()
    pipe.fit(verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=halved(pipe))])
    assert all((weight == 0).all() for weight in weights_of(pipe))


def test_the_report_and_the_checkpoint_are_of_the_weights_that_a_callback_restores(tmp_path: Path) -> None:
    pipe = pipeline(epochs=5, max_steps=None)
    # The best is here the greatest, for the loss falls: it goes back to the first epoch's weights.
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", mode="max", patience=1, restore_best_weights=True)
    report = pipe.fit(verbose=0, callbacks=[stopping], directory=tmp_path)
    assert report.stopped == "a callback"
    assert report.bits_per_character == pytest.approx(pipe.evaluate().bits_per_character, rel=1e-5)
    assert report.validations[-1].loss == pytest.approx(stopping.best, rel=1e-6)
    assert report.validations[-2].loss < report.validations[-1].loss
    from safetensors.numpy import load_file

    kept = load_file(Path(str(report.checkpoint)) / "state.safetensors")
    trained = [np.array(weight) for weight in pipe.model.causal_lm.trainable_weights]
    assert same([kept[f"weights/{n:05d}"] for n in range(len(trained))], trained)


@pytest.mark.one_backend
def test_a_callback_judges_the_weights_by_their_own_held_out_loss() -> None:
    """No validation falls due within these epochs, and a callback that watches for one still has the epoch's own."""
    pipe = pipeline(max_steps=None, epochs=2, validate_every=100)
    told: list[tuple[float, float]] = []

    class Judging(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            told.append((logs["val_bits_per_character"], pipe.evaluate().bits_per_character))

    pipe.fit(verbose=0, callbacks=[Judging()])
    assert len(told) > 1
    for logged, evaluated in told:
        assert logged == pytest.approx(evaluated, rel=1e-4)


def test_keras_checkpoints_and_logs_are_what_keras_makes_of_the_task(tmp_path: Path) -> None:
    pipe = pipeline(max_steps=2)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True, save_freq=1),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TerminateOnNaN(),
    ]
    report = pipe.fit(verbose=0, callbacks=callbacks)
    loaded = keras.saving.load_model(tmp_path / "best.keras", compile=False)
    assert type(loaded) is type(pipe.model.causal_lm)
    assert same([np.array(weight) for weight in loaded.weights], weights_of(pipe))
    assert loaded.preprocessor.tokenizer("the").tolist() == pipe.tokenizer.encode("the")
    other = tiny_gpt2(num_layers=1, seed=5).causal_lm
    other.load_weights(tmp_path / "last.weights.h5")
    assert same([np.array(weight) for weight in other.weights], weights_of(pipe))
    (row,) = rows_of(tmp_path / "log.csv")
    assert float(row["val_loss"]) == pytest.approx(report.validations[-1].loss)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)], r"LearningRateScheduler.*learning_rate=keras"),
        ([keras.callbacks.ReduceLROnPlateau()], r"ReduceLROnPlateau.*patience="),
        ([keras.callbacks.BackupAndRestore("backup")], r"BackupAndRestore.*resume='auto'"),
        ([keras.callbacks.SwapEMAWeights()], "SwapEMAWeights.*AdamW keeps none"),
        ([keras.callbacks.EarlyStopping(monitor="val_accuracy")], "val_accuracy.*There are: loss.*val_loss"),
        ([keras.callbacks.EarlyStopping], "It is a class"),
        ([print], r"LambdaCallback\(on_epoch_end"),
        ("callback", "takes a list"),
    ],
)
def test_what_does_not_fit_a_run_is_refused_at_the_call(callbacks: Any, message: str) -> None:
    with pytest.raises(TuneArgumentError, match=message):
        pipeline().fit(verbose=0, callbacks=callbacks)


def test_val_loss_needs_held_out_texts() -> None:
    pipe = pipeline()
    pipe.held_out = 0.0
    with pytest.raises(TuneArgumentError, match="No text is held out; raise held_out"):
        pipe.fit(verbose=0, callbacks=keras.callbacks.EarlyStopping())


def test_a_callback_reads_the_learning_rate_and_can_not_set_it() -> None:
    rates: list[float] = []

    class Reading(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rates.append(float(self.model.optimizer.learning_rate))

    class Setting(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 0.5

    pipeline(learning_rate=0.5).fit(verbose=0, callbacks=[Reading()])
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
    with pytest.raises(TuneArgumentError, match=r"callback can't.*LearningRateSchedule"):
        pipeline().fit(verbose=0, callbacks=[Setting()])


@keras.saving.register_keras_serializable(package="test_tuners_callbacks")
class Halving(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A person's own schedule."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first

    def __call__(self, step: Any) -> Any:
        return self.first * keras.ops.power(0.5, keras.ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {"first": self.first}


class TestSchedules:
    @pytest.mark.parametrize(
        ("schedule", "rates"),
        [
            (keras.optimizers.schedules.PolynomialDecay(0.4, 4, end_learning_rate=0.0), [0.4, 0.3, 0.2, 0.1]),
            (keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.3, 0.2, 0.1]), [0.3, 0.3, 0.2, 0.1]),
            (Halving(0.4), [0.4, 0.2, 0.1, 0.05]),
        ],
    )
    def test_one_of_keras_counts_optimizer_steps_and_not_batches(self, schedule: Any, rates: list[float]) -> None:
        found = of_settings(kg.FullTuner(learning_rate=schedule), steps=4, batches_per_step=2)
        assert [float(found(batch)) for batch in range(8)] == pytest.approx(np.repeat(rates, 2))
        assert [float(found.of_step(step)) for step in range(4)] == pytest.approx(rates)

    def test_it_is_what_the_run_steps_by(self) -> None:
        schedule = keras.optimizers.schedules.PolynomialDecay(PEAK, 4, end_learning_rate=0.0)  # what "linear" computes
        pipe = pipeline(learning_rate=schedule, gradient_accumulation_steps=2, batch_size=2)
        rates: list[float] = []
        told = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: rates.append(float(np.asarray(told.model.optimizer.learning_rate)))
        )
        pipe.fit(verbose=0, callbacks=[told])
        assert rates[::2] == pytest.approx([PEAK, 0.75 * PEAK, 0.5 * PEAK, 0.25 * PEAK])
        linear = pipeline(learning_rate=PEAK, gradient_accumulation_steps=2, batch_size=2)
        linear.fit(verbose=0)
        for one, other in zip(weights_of(pipe), weights_of(linear), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    @pytest.mark.one_backend
    def test_it_is_a_value_that_is_saved_and_gone_on_with(self, tmp_path: Path) -> None:
        def settings() -> Any:
            return keras.optimizers.schedules.CosineDecay(0.01, 4)

        pipe, other = pipeline(learning_rate=settings()), pipeline(learning_rate=settings())
        assert pipe.tuner == other.tuner
        assert "CosineDecay(" in repr(pipe.tuner)
        pipe.fit(verbose=0)
        again = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
        assert again.tuner == pipe.tuner

        class Stop(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    raise RuntimeError("stopped")

        halfway = pipeline(learning_rate=settings(), checkpoint_every=1)
        with pytest.raises(RuntimeError):
            halfway.fit(verbose=0, directory=tmp_path / "run", callbacks=[Stop()])
        resumed = pipeline(learning_rate=settings(), checkpoint_every=1)
        report = resumed.fit(verbose=0, directory=tmp_path / "run", resume=True)
        assert report.resumed_from == 2
        assert same(weights_of(resumed), weights_of(pipe))

    def test_what_could_not_be_saved_or_says_it_twice_is_refused(self) -> None:
        class NoConfig(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
            def __call__(self, step: Any) -> Any:
                return 0.1

        for learning_rate, message in ((lambda step: 0.1, "subclass, with a get_config"), (NoConfig(), "get_config")):
            with pytest.raises(TuneArgumentError, match=message):
                kg.FullTuner(learning_rate=learning_rate)
        with pytest.raises(TuneArgumentError, match="Leave out schedule and warmup_steps"):
            kg.FullTuner(learning_rate=keras.optimizers.schedules.CosineDecay(0.1, 4), warmup_steps=2)


class TestDiverged:
    def test_weights_that_became_nan_at_the_last_step_are_no_success(self, tmp_path: Path) -> None:
        """Its loss, of the weights before, is a number; only what is left of it is not."""
        pipe = pipeline(checkpoint_every=1)

        def spoil(batch: int, logs: Any = None) -> None:
            if batch == 3:
                pipe.model.backbone.weights[0].assign(pipe.model.backbone.weights[0] * math.nan)

        spoiling = keras.callbacks.LambdaCallback(on_train_batch_begin=spoil)
        with pytest.raises(NonFiniteLossError, match=r"at step 4.*last checkpoint.*step-00000003") as failure:
            pipe.fit(verbose=0, directory=tmp_path, callbacks=[spoiling])
        assert failure.value.step == 4
        assert sorted(path.name for path in tmp_path.glob("step-*"))[-1] == "step-00000003"
        assert not (tmp_path / "report.json").exists()

    def test_a_step_that_overflows_behind_a_finite_loss_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NonFiniteLossError, match="held-out loss became nan at step 1"):
            pipeline(**OVERFLOWING, max_steps=1).fit(verbose=0, directory=tmp_path)
        assert not list(tmp_path.glob("step-*"))

    def test_without_held_out_texts_the_weights_tell(self, tmp_path: Path) -> None:
        pipe = pipeline(max_steps=1, checkpoint_every=5)
        pipe.held_out = 0.0

        def spoil(batch: int, logs: Any = None) -> None:
            pipe.model.backbone.weights[0].assign(pipe.model.backbone.weights[0] * math.nan)

        with pytest.raises(NonFiniteLossError, match=r"weights .* became NaN or infinite at step 1"):
            pipe.fit(verbose=0, directory=tmp_path, callbacks=keras.callbacks.LambdaCallback(on_train_batch_end=spoil))

    def test_a_model_that_is_nan_from_the_start_is_told_so(self, tmp_path: Path) -> None:
        pipe = pipeline()
        weight = pipe.model.backbone.weights[0]
        weight.assign(weight * math.nan)
        with pytest.raises(TuneError, match="before the first step: the model's weights hold NaN"):
            pipe.fit(verbose=0, directory=tmp_path)

    def test_patience_takes_no_validation_that_is_nan(self, tmp_path: Path) -> None:
        """No loss is lower than the best where it is NaN, so it could pass for one validation without a gain."""
        pipe = pipeline(**OVERFLOWING, patience=1, validate_every=1, checkpoint_every=1)
        with pytest.raises(NonFiniteLossError, match="held-out loss became nan at step 1"):
            pipe.fit(verbose=0, directory=tmp_path)
        assert list(tmp_path.glob("step-*")) == []
        assert not (tmp_path / "report.json").exists()

    @pytest.mark.skipif(not float16_can_be_had(), reason="JAX computes attention in float16 on GPUs alone")
    @pytest.mark.parametrize("factor", [300, 3000, 1e6])
    def test_what_overflows_float16_is_told(self, tmp_path: Path, factor: float) -> None:
        """In the gradients of some steps, in those of all, where Keras changes no weight, or in the loss itself."""
        pipe = pipeline(precision="mixed_float16", max_steps=3)
        table = next(one for one in pipe.model.causal_lm.weights if "token_embedding" in one.path)
        table.assign(table * factor)
        if factor == 300:
            report = pipe.fit(verbose=0, directory=tmp_path)
            assert "of 3 batches changed no weight, for their gradients overflowed float16" in str(report)
            return
        before = weights_of(pipe)
        with pytest.raises(NonFiniteLossError, match=r"no weight was changed|held-out loss is nan before") as failure:
            pipe.fit(verbose=0, directory=tmp_path)
        assert ("no weight" in str(failure.value)) == (factor == 3000)
        assert same(weights_of(pipe), before)
        assert list(tmp_path.glob("step-*")) == []
        assert not (tmp_path / "report.json").exists()

    @pytest.mark.skipif(not float16_can_be_had(), reason="JAX computes attention in float16 on GPUs alone")
    def test_a_loss_that_overflows_float16_at_a_later_step_names_what_holds_more(self, tmp_path: Path) -> None:
        pipe = pipeline(precision="mixed_float16", learning_rate=1e4, clip_norm=None, checkpoint_every=1)
        pipe.held_out = 0.0
        with pytest.raises(NonFiniteLossError, match=r"loss became nan at step 2.*'mixed_bfloat16'.*step-00000001"):
            pipe.fit(verbose=0, directory=tmp_path)

    def test_a_report_without_a_step_is_json(self) -> None:
        pipe = pipeline()
        report = pipe.fit(verbose=0)
        import dataclasses

        empty = dataclasses.replace(report, steps=0, losses=(), accuracies=(), validations=())
        assert json.loads(json.dumps(empty.to_dict(), allow_nan=False))["loss"] is None


def test_ctrl_c_within_a_write_that_waits_for_its_reader_ends_the_step_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python lets a signal's handler run within such a write, and refuses the handler a second one."""

    class Run:
        interrupted = False

    run: Any = Run()
    reads, writes = os.pipe()
    written = 1 << 20  # more than a pipe holds

    def press_and_read() -> None:
        select.select([reads], [], [], 60)  # until the write has begun, which can't end before it is read
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        while not run.interrupted:
            time.sleep(0.05)
        found = 0
        while found < written:
            found += len(os.read(reads, 1 << 16))

    reader = threading.Thread(target=press_and_read)
    with io.TextIOWrapper(io.BufferedWriter(io.FileIO(writes, "w")), write_through=True) as shown:
        monkeypatch.setattr(sys, "stdout", shown)
        with interruptible(run):
            reader.start()
            shown.write("x" * written)
            shown.flush()
        reader.join()
        monkeypatch.undo()
    os.close(reads)
    assert run.interrupted
    assert "Stopping after this step" in capsys.readouterr().err
