"""Tokens become weights: what a run computes, what it leaves behind, and what it refuses."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import documents_of, encode, float16_can_be_had, smallest_gpt2, texts, tiny_gemma, weights_of

from kerasgen import tuners
from kerasgen.errors import NonFiniteLossError, TuneArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.testing.tuners import TunerContract
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.lora import LoraTuner

PEAK, DECAY, CLIP = 3e-3, 0.1, 0.05
COUNT = 22
SHARED: dict[str, Any] = {
    "epochs": 3,
    "max_steps": 8,
    "learning_rate": PEAK,
    "weight_decay": DECAY,
    "clip_norm": CLIP,
    "warmup_steps": 2,
    "sequence_length": 32,
    "packing": "none",  # rows of 3 to 32 tokens: an unweighted mean of batch means would be far off
}


class TestFullContract(TunerContract):
    @pytest.fixture
    def tuner(self) -> FullTuner:
        return FullTuner(epochs=2, batch_size=3, learning_rate=0.01, checkpoint_every=2, precision="mixed_bfloat16")

    @pytest.fixture
    def spec(self) -> str:
        return "full:epochs=2,batch_size=3,learning_rate=0.01,checkpoint_every=2,precision=mixed_bfloat16"


@pytest.mark.slow
class TestLoraContract(TunerContract):
    @pytest.fixture
    def tuner(self) -> LoraTuner:
        return LoraTuner(rank=3, targets=("query", "value"), epochs=2, batch_size=3, checkpoint_every=2)


@dataclass
class Watched:
    """A finished run and what its callbacks saw."""

    model: LanguageModel
    before: list[Any]
    report: TuneReport
    events: list[tuple[str, Any]]
    rates: list[float]
    dtypes: set[str]
    momentum: list[Any]
    after_first_step: list[Any]
    directory: Path
    printed: str


def watched(
    tuner: Any,
    directory: Path,
    *,
    held_out: bool = False,
    sample: Callable[[], str] | None = None,
    callbacks: Sequence[Any] = (),
) -> Watched:
    """Tune the smallest model on toy texts and keep what there is to see."""
    model = smallest_gpt2()
    import keras

    seen: dict[str, Any] = {"events": [], "rates": [], "dtypes": set(), "momentum": [], "after": []}

    class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            seen["events"].append(("begin", None))

        def on_train_end(self, logs: Any = None) -> None:
            seen["events"].append(("end", None))

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen["events"].append(("epoch begins", epoch))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen["events"].append(("epoch ends", (epoch, dict(logs or {}))))

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen["rates"].append(float(np.asarray(self.model.optimizer.learning_rate)))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen["dtypes"].add(model.backbone.transformer_layers[0].compute_dtype)
            optimizer = self.model.optimizer
            if int(np.asarray(optimizer.iterations)) == 1 and not seen["after"]:
                seen["momentum"] = [np.array(value) for value in getattr(optimizer, "_momentums", ())]
                seen["after"] = [np.array(value) for value in self.model.trainable_variables]

    train = encode(model.tokenizer, texts(COUNT))
    before = weights_of(model)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = tuner.tune(
            model,
            train,
            encode(model.tokenizer, texts(5, seed=1)) if held_out else None,
            seed=2,
            directory=directory,
            callbacks=[Recorder(), *callbacks],
            sample=sample,
            verbose=0,
        )
    return Watched(
        model=model,
        before=before,
        report=report,
        events=seen["events"],
        rates=seen["rates"],
        dtypes=seen["dtypes"],
        momentum=seen["momentum"],
        after_first_step=seen["after"],
        directory=directory,
        printed=printed.getvalue(),
    )


@pytest.fixture(scope="module")
def accumulating(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """22 documents in 23 rows: windows of 2 batches of 3 rows, 4 steps an epoch, the fourth one row short."""
    tuner = FullTuner(**SHARED, batch_size=3, gradient_accumulation_steps=2, sample_every=3, checkpoint_every=100)
    numbers = iter(range(100))
    return watched(
        tuner,
        tmp_path_factory.mktemp("accumulating"),
        held_out=True,
        sample=lambda: f"text {next(numbers)}",
    )


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The same windows of 6 rows, each in one batch."""
    directory = tmp_path_factory.mktemp("at_once")
    callbacks = []
    if all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
        import keras

        callbacks.append(keras.callbacks.TensorBoard(str(directory / "tensorboard"), update_freq="batch"))
    return watched(FullTuner(**SHARED, batch_size=6), directory, callbacks=callbacks)


class TestWhatARunComputes:
    def test_batches_accumulated_give_the_weights_of_one_large_batch(
        self, accumulating: Watched, at_once: Watched
    ) -> None:
        """However unequal the batches, the loss is the mean over all tokens of an optimizer step."""
        np.testing.assert_allclose(accumulating.report.losses, at_once.report.losses, rtol=1e-5)
        moved = 0.0
        for one, other, start in zip(
            weights_of(accumulating.model), weights_of(at_once.model), accumulating.before, strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)
            moved = max(moved, float(np.abs(one - start).max()))
        assert moved > 5e-3, "hundreds of times the tolerance"

    def test_the_loss_falls(self, accumulating: Watched) -> None:
        before, after = accumulating.report.validations[0], accumulating.report.validations[-1]
        assert after.loss < before.loss - 0.3
        assert after.bits_per_character < before.bits_per_character
        assert np.mean(accumulating.report.losses[-2:]) < accumulating.report.losses[0] - 0.3

    def test_each_steps_loss_is_the_mean_over_its_real_targets(self, at_once: Watched) -> None:
        """The first step's, from the untouched model's scores of the documents that its order names."""
        from kerasgen.models.scoring import score
        from kerasgen.tokens.packing import pack
        from kerasgen.tuners.plan import Plan

        model = smallest_gpt2()
        train = encode(model.tokenizer, texts(COUNT))
        rows = pack(train, sequence_length=32, packing="none")
        plan = Plan(train, rows, 6, 1, 3, 8, seed=2)
        starts, targets = rows.pieces.starts, rows.pieces.targets  # a piece a row
        first = [train.token_ids[starts[row] : starts[row] + targets[row] + 1].tolist() for row in plan.order(0)[:6]]
        found = score(model, documents_of(first), sequence_length=32, batch_size=6)
        assert at_once.report.losses[0] == pytest.approx(found.loss, rel=1e-5)

    def test_max_steps_ends_the_run_and_the_schedule(self, accumulating: Watched, at_once: Watched) -> None:
        """The learning rate that the optimizer used: up over 2 steps, then to zero as Keras's PolynomialDecay."""
        import keras

        decay = keras.optimizers.schedules.PolynomialDecay(PEAK, 6, end_learning_rate=0.0)
        expected = [PEAK / 2, PEAK, *(float(decay(step)) for step in range(6))]
        assert at_once.report.steps == accumulating.report.steps == 8
        assert at_once.report.stopped == accumulating.report.stopped == "max_steps"
        assert at_once.report.epochs == 2.0
        np.testing.assert_allclose(at_once.rates, expected, rtol=1e-5)
        np.testing.assert_allclose(accumulating.rates, np.repeat(expected, 2), rtol=1e-5)

    def test_the_gradients_norm_is_kept_below_clip_norm(self, at_once: Watched) -> None:
        """After one step Adam's first moment is a tenth of the gradient that it was given."""
        norm = math.sqrt(sum(float(np.square(moment / 0.1).sum()) for moment in at_once.momentum))
        assert norm == pytest.approx(CLIP, rel=1e-4)

    def test_weight_decay_is_on_matrices_alone(self, at_once: Watched) -> None:
        """Against one step of AdamW by hand; biases, embeddings and normalisation are left alone."""
        variables = at_once.model.causal_lm.trainable_variables
        decayed = 0
        for variable, start, moment, after in zip(
            variables, at_once.before, at_once.momentum, at_once.after_first_step, strict=True
        ):
            gradient = moment.astype(np.float64) / 0.1
            rate = PEAK / 2
            alone = start - rate * gradient / (np.abs(gradient) + 1e-7 / math.sqrt(0.001))
            is_matrix = variable.path.endswith("kernel")
            expected = alone - rate * DECAY * start * is_matrix
            np.testing.assert_allclose(after, expected, rtol=1e-4, atol=2e-6, err_msg=variable.path)
            decayed += is_matrix
        assert decayed == 6, "query, key, value, output and the two feed-forward kernels"

    @pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision_computes_in_it_and_leaves_float32_behind(
        self, precision: Any, at_once: Watched, tmp_path: Path
    ) -> None:
        if precision == "mixed_float16" and not float16_can_be_had():
            pytest.skip("JAX computes attention in float16 on GPUs alone")
        tuner = FullTuner(**SHARED | {"max_steps": 3}, batch_size=6, precision=precision)
        run = watched(tuner, tmp_path)
        assert run.report.losses != at_once.report.losses[:3]  # rounded to other sums
        assert run.dtypes == at_once.dtypes == {"float32"}  # a callback finds the model as it came
        assert run.report.precision == precision
        np.testing.assert_allclose(run.report.losses, at_once.report.losses[:3], rtol=0.03)
        assert {str(variable.dtype) for variable in run.model.causal_lm.weights} == {"float32"}
        assert {layer.dtype_policy.name for layer in run.model.causal_lm._flatten_layers()} == {"float32"}
        assert any((one != other).any() for one, other in zip(weights_of(run.model), run.before, strict=True))


class TestWhatARunLeaves:
    def test_callbacks_see_one_run_and_its_epochs(self, accumulating: Watched) -> None:
        names = [name for name, _ in accumulating.events]
        assert names == ["begin", "epoch begins", "epoch ends", "epoch begins", "epoch ends", "end"]
        assert [number for name, number in accumulating.events if name == "epoch begins"] == [0, 1]

    def test_callbacks_find_the_validation_in_the_logs_of_an_epoch(self, accumulating: Watched) -> None:
        validations = accumulating.report.validations
        assert [validation.step for validation in validations] == [0, 4, 8]
        for (name, seen), found in zip(accumulating.events[2:5:2], validations[1:], strict=True):
            assert name == "epoch ends"
            assert seen[1]["val_loss"] == found.loss
            assert seen[1]["val_bits_per_character"] == found.bits_per_character

    def test_texts_are_written_as_often_as_asked_and_silence_is_kept(self, accumulating: Watched) -> None:
        assert [(sample.step, sample.text) for sample in accumulating.report.samples] == [(3, "text 0"), (6, "text 1")]
        assert accumulating.printed == "", "verbose=0"

    def test_tensorboard_logs_are_written(self, at_once: Watched) -> None:
        for package in ("tensorflow", "tensorboard"):
            pytest.importorskip(package, reason=f"Keras writes TensorBoard logs with {package}")
        written = list((at_once.directory / "tensorboard").rglob("events.out.tfevents.*"))
        assert written
        assert all(path.stat().st_size > 0 for path in written)

    def test_the_report_counts_tokens_and_characters(self, at_once: Watched) -> None:
        """Two whole passes over 22 documents in 23 rows."""
        train = encode(at_once.model.tokenizer, texts(COUNT))
        report = at_once.report
        assert (report.tokens, report.characters) == (2 * train.targets, 2 * int(train.characters.sum()))
        assert report.fill == pytest.approx(train.targets / (23 * 32))
        assert (report.documents, report.split_documents, report.sequence_length) == (COUNT, 1, 32)
        assert report.trainable_parameters == report.parameters == sum(start.size for start in at_once.before)
        assert report.checkpoint is not None
        assert Path(report.checkpoint).name == "step-00000008"

    def test_early_stopping_goes_back_to_the_best_weights(self, tmp_path: Path) -> None:
        """Trained on one text alone, the model soon does worse on others than it did."""
        from kerasgen.models.scoring import score

        model = smallest_gpt2()
        train, other = encode(model.tokenizer, ["aaaa aaaa"] * 4), encode(model.tokenizer, texts(6))
        tuner = FullTuner(
            epochs=60, batch_size=4, sequence_length=32, learning_rate=0.03, patience=2, schedule="constant"
        )
        report = tuner.tune(model, train, other, seed=0, directory=tmp_path, verbose=0)
        *losses, restored = [validation.loss for validation in report.validations[1:]]
        assert report.stopped == "early stopping"
        assert report.steps == len(losses) < 60
        assert len(losses) - 1 - int(np.argmin(losses)) == 2, "two validations without a lower loss"
        assert restored == min(losses)
        found = score(model, other, sequence_length=32, batch_size=4)
        assert found.loss == pytest.approx(min(losses), rel=1e-6)
        again = tuner.tune(smallest_gpt2(), train, other, seed=0, directory=tmp_path, resume=True, verbose=0)
        assert (again.stopped, again.losses, again.validations) == (report.stopped, report.losses, report.validations)

    def test_a_callbacks_exception_leaves_the_model_with_its_weights(self, tmp_path: Path) -> None:
        """On JAX they are in other hands while Keras trains."""
        model = smallest_gpt2()
        import keras

        class Break(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    raise ZeroDivisionError

        before = weights_of(model)
        train = encode(model.tokenizer, texts(COUNT))
        tuner = FullTuner(**SHARED, batch_size=6)
        with pytest.raises(ZeroDivisionError):
            tuner.tune(model, train, seed=0, directory=tmp_path, callbacks=[Break()], verbose=0)
        assert all((one != other).any() for one, other in zip(weights_of(model)[:2], before[:2], strict=True))
        assert model.causal_lm.dtype_policy.name == "float32"


class TestWhatARunRefuses:
    def test_a_loss_that_is_not_finite_stops_with_step_and_learning_rate(self, tmp_path: Path) -> None:
        model = smallest_gpt2()
        train = encode(model.tokenizer, texts(8))
        tuner = FullTuner(batch_size=1, learning_rate=1e30, warmup_steps=2, schedule="constant", clip_norm=None)
        with pytest.raises(NonFiniteLossError, match=r"at step 2, at a learning rate of 1e\+30") as error:
            tuner.tune(model, train, seed=0, directory=tmp_path, verbose=0)
        assert error.value.step == 2
        assert error.value.learning_rate == pytest.approx(1e30)
        assert error.value.checkpoint is None
        assert len(weights_of(model)) == len(model.causal_lm.weights), "there to be looked at"

    def test_more_positions_than_the_model_has(self, tmp_path: Path) -> None:
        with pytest.raises(TuneArgumentError, match=r"at most the model's 32 positions\. Received: 33"):
            self.tune(FullTuner(sequence_length=33), smallest_gpt2(), tmp_path)

    def test_packing_where_the_family_cannot_keep_documents_apart(self, tmp_path: Path) -> None:
        with pytest.raises(TuneArgumentError, match=r"best_fit.*GemmaBackbone has none"):
            self.tune(FullTuner(packing="best_fit"), tiny_gemma(), tmp_path)

    def test_patience_without_anything_to_validate_on(self, tmp_path: Path) -> None:
        with pytest.raises(TuneArgumentError, match=r"held-out documents.*patience=3"):
            self.tune(FullTuner(patience=3), smallest_gpt2(), tmp_path)

    def test_float16_where_jax_cannot_compute_it(self, tmp_path: Path) -> None:
        model = smallest_gpt2()
        if float16_can_be_had():
            pytest.skip("this backend computes in float16 here")
        with pytest.raises(TuneArgumentError, match=r"needs a GPU.*mixed_bfloat16.*mixed_float16"):
            self.tune(FullTuner(precision="mixed_float16"), model, tmp_path)

    def tune(self, tuner: FullTuner, model: LanguageModel, directory: Path) -> None:
        before = weights_of(model)
        try:
            tuner.tune(model, encode(model.tokenizer, texts(3)), seed=0, directory=directory / "run", verbose=0)
        finally:
            assert not (directory / "run").exists()
            for one, other in zip(weights_of(model), before, strict=True):
                np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize(
        ("setting", "value", "bound"),
        [
            ("epochs", 0, "at least 1"),
            ("batch_size", 2.0, "whole number"),
            ("batch_size", True, "whole number"),
            ("gradient_accumulation_steps", 0, "at least 1"),
            ("max_steps", 0, "at least 1"),
            ("sequence_length", -1, "at least 1"),
            ("patience", 0, "at least 1"),
            ("checkpoint_every", 0, "at least 1"),
            ("warmup_steps", -1, "at least 0"),
            ("learning_rate", 0.0, "above 0"),
            ("learning_rate", math.nan, "finite"),
            ("learning_rate", "0.1", "number"),
            ("weight_decay", -0.1, "at least 0"),
            ("clip_norm", 0, "above 0"),
            ("packing", "tight", "'auto', 'best_fit', 'concatenate', 'none'"),
            ("schedule", "step", "'linear', 'cosine', 'constant'"),
            ("precision", "float16", "'mixed_bfloat16'"),
        ],
    )
    def test_a_setting_that_cannot_be(self, setting: str, value: Any, bound: str) -> None:
        """At birth, with the name, the bound and what was received."""
        for kind in (FullTuner, LoraTuner):
            with pytest.raises(TuneArgumentError, match=rf"{setting} must be .*{bound}") as error:
                kind(**{setting: value})
            assert f"Received: {value!r}." in str(error.value)

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"rank": 0}, r"rank must be .*at least 1\. Received: 0"),
            ({"alpha": 0}, r"alpha must be .*above 0\. Received: 0"),
            ({"targets": ()}, r"names of layers, or None\. Received: \(\)"),
            ({"targets": ("query", 3)}, r"names of layers, or None\. Received: \('query', 3\)"),
        ],
    )
    def test_a_setting_of_lora_that_cannot_be(self, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(TuneArgumentError, match=complaint):
            LoraTuner(**settings)


class TestSchedule:
    @pytest.mark.parametrize("steps", [1, 7, 1000])
    def test_linear_without_warm_up_is_keras_polynomial_decay_to_zero(self, steps: int) -> None:
        smallest_gpt2()  # Keras is imported through the backend
        import keras

        from kerasgen.tuners.schedule import WarmUpAndDecay

        ours = WarmUpAndDecay(0.5, steps, 0, "linear")
        keras_s = keras.optimizers.schedules.PolynomialDecay(0.5, steps, end_learning_rate=0.0)
        for step in {0, 1, steps // 2, steps - 1, steps, steps + 5}:
            assert float(ours(step)) == pytest.approx(float(keras_s(step)), abs=1e-7)

    def test_cosine_and_constant_after_a_warm_up(self) -> None:
        smallest_gpt2()
        from kerasgen.tuners.schedule import WarmUpAndDecay

        cosine, constant = (WarmUpAndDecay(2.0, 12, 4, decay) for decay in ("cosine", "constant"))
        assert [float(constant(step)) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
        expected = [2.0 * 0.5 * (1 + math.cos(math.pi * gone / 8)) for gone in range(9)]
        np.testing.assert_allclose([float(cosine(4 + gone)) for gone in range(9)], expected, atol=1e-6)

    def test_a_warm_up_longer_than_the_run_only_rises(self) -> None:
        smallest_gpt2()
        from kerasgen.tuners.schedule import WarmUpAndDecay

        assert [float(WarmUpAndDecay(1.0, 2, 4, "linear")(step)) for step in range(2)] == [0.25, 0.5]


def test_the_built_in_tuners_are_registered() -> None:
    assert tuners.names() == ("dpo", "full", "lora")
    assert tuners.create("lora:rank=4,targets=query") == LoraTuner(rank=4, targets=("query",))
