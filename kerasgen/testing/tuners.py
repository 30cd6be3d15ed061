"""What every tuner must do: inherit `TunerContract`, say which tuner to test, and run pytest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasgen.corpora.base import Document
from kerasgen.errors import CheckpointError, TuneArgumentError
from kerasgen.models.base import LanguageModel, computing_layers
from kerasgen.testing.example_model import small_model
from kerasgen.testing.values import PluginContract, renamed
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tuners import REGISTRY
from kerasgen.tuners.base import FineTuner
from kerasgen.tuners.report import TuneReport

SEED = 3


class _StoppedByATestError(Exception):
    """Stands for whatever ends a process between two steps."""


@dataclasses.dataclass
class Tuned:
    """A finished, uninterrupted run of the tuner.

    Args:
        model: as it was left.
        before: its weights before the run, in the order of `network.weights`.
        report: what the tuner returned.
        events: what the Keras callbacks saw, in order.
    """

    model: LanguageModel
    before: list[Any]
    report: TuneReport
    events: list[str]


_TUNED: dict[Any, Tuned] = {}


class TunerContract(PluginContract):
    """The tests that every `FineTuner` passes.

    ```python
    class TestMine(TunerContract):
        @pytest.fixture
        def tuner(self):
            return MyTuner(epochs=2, checkpoint_every=2, learning_rate=0.01)
    ```

    The tuner under test should pass over the documents twice, validate at least once and write a checkpoint every few
    steps; there are 24 documents of at most 40 tokens.
    """

    registry = REGISTRY

    @pytest.fixture
    def tuner(self) -> FineTuner:
        """The tuner under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `tuner`.")

    @pytest.fixture
    def plugin(self, tuner: FineTuner) -> FineTuner:
        """What the tests of every kind look at."""
        return tuner

    def fresh_model(self) -> LanguageModel:
        """Return the model to tune, a new one with the same weights at each call; override this for another family."""
        return small_model()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "model" in vars(cls):
            renamed(f"{cls.__name__}.model()", "fresh_model()")
            cls.fresh_model = cls.model  # type: ignore[attr-defined, method-assign]

    def documents(self, model: LanguageModel, count: int = 24) -> EncodedDocuments:
        """Return documents that a model learns something from in a few steps."""
        texts = ("rain, rain. " * (1 + n % 3) for n in range(count))
        return encode_documents((Document(text, str(n)) for n, text in enumerate(texts)), model.tokenizer)

    def tune(
        self, tuner: FineTuner, model: LanguageModel, directory: Path, *, callbacks: Sequence[Any] = (), **more: Any
    ) -> TuneReport:
        """Tune the model on the contract's documents."""
        settings: dict[str, Any] = {"train": self.documents(model), "held_out": self.documents(model, 3)} | more
        return tuner.tune(model, **settings, seed=SEED, directory=directory, callbacks=callbacks, verbose=0)

    @pytest.fixture
    def tuned(self, tuner: FineTuner, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
        """The undisturbed run, made once for all tests."""
        key = (type(self), tuner)
        if key not in _TUNED:
            model = self.fresh_model()
            before = [np.array(variable) for variable in model.network.weights]
            events: list[str] = []
            report = self.tune(tuner, model, tmp_path_factory.mktemp("whole"), callbacks=[_recorder(events)])
            _TUNED[key] = Tuned(model, before, report, events)
        return _TUNED[key]

    def test_the_report_accounts_for_every_step(self, tuned: Tuned) -> None:
        """One finite loss a step; validations in the order of their steps, the first before tuning."""
        report = tuned.report
        assert report.steps == len(report.losses) > 0
        assert all(math.isfinite(loss) and loss > 0 for loss in report.losses)
        steps = [validation.step for validation in report.validations]
        assert steps[0] == 0
        assert steps == sorted(steps)
        assert steps[-1] == report.steps
        assert report.documents == 24
        assert 0 < report.fill <= 1
        assert report.resumed_from is None
        assert report.tokens > 0
        assert report.seconds > 0

    def test_the_model_learns(self, tuned: Tuned) -> None:
        """Held-out text like the training text costs less after than before."""
        assert tuned.report.bits_per_character is not None
        assert tuned.report.bits_per_character_before is not None
        assert tuned.report.bits_per_character < tuned.report.bits_per_character_before

    def test_the_report_counts_what_changed(self, tuned: Tuned) -> None:
        """`trainable_parameters` are the weights that the optimizer was given, and no others moved."""
        causal_lm = tuned.model.network
        report = tuned.report
        trainable = sum(int(np.prod(variable.shape)) for variable in causal_lm.trainable_variables)
        assert report.trainable_parameters == trainable
        assert 0 < report.trainable_parameters <= report.parameters

    def test_weights_and_policy_are_float32_afterwards(self, tuned: Tuned) -> None:
        """Whatever the precision of the computation, the model is left as it was brought."""
        causal_lm = tuned.model.network
        assert {str(variable.dtype) for variable in causal_lm.weights} == {"float32"}
        assert {layer.dtype_policy.name for layer in computing_layers(causal_lm)} == {"float32"}

    def test_callbacks_see_one_run_with_its_epochs(self, tuned: Tuned) -> None:
        """However the tuner calls Keras, a callback sees one beginning, one end and rising epochs."""
        events = tuned.events
        assert events[0] == "begin"
        assert events[-1] == "end"
        assert events.count("begin") == events.count("end") == 1
        epochs = [event for event in events if event.startswith("epoch")]
        assert epochs == [f"epoch {n}" for n in range(len(epochs))]
        assert len(epochs) == math.ceil(tuned.report.epochs)

    def test_a_run_broken_off_goes_on_to_the_same_numbers(self, tuner: FineTuner, tuned: Tuned, tmp_path: Path) -> None:
        """Ended by an exception two steps before its end, the run resumes from its last checkpoint."""
        last = tuned.report.steps - 2
        assert last > 0, "the contract needs a run of at least three steps"
        with pytest.raises(_StoppedByATestError):
            self.tune(tuner, self.fresh_model(), tmp_path, callbacks=[_breaker(last)])
        again = self.fresh_model()
        report = self.tune(tuner, again, tmp_path, resume=True)
        assert report.resumed_from is not None, "the contract needs a checkpoint before the last two steps"
        assert 0 < report.resumed_from <= last
        assert report.losses == tuned.report.losses
        assert report.validations == tuned.report.validations
        for resumed, expected in zip(again.network.weights, tuned.model.network.weights, strict=True):
            np.testing.assert_array_equal(np.asarray(resumed), np.asarray(expected))

    def test_there_must_be_a_checkpoint_to_resume(self, tuner: FineTuner, tmp_path: Path) -> None:
        """Asked to go on from nothing, a tuner says so."""
        with pytest.raises(CheckpointError):
            self.tune(tuner, self.fresh_model(), tmp_path / "empty", resume=True)

    def test_there_must_be_something_to_train_on(self, tuner: FineTuner, tmp_path: Path) -> None:
        """Without a document the model is left as it was."""
        model = self.fresh_model()
        before = [np.array(variable) for variable in model.network.weights]
        with pytest.raises(TuneArgumentError):
            self.tune(tuner, model, tmp_path, train=encode_documents([], model.tokenizer))
        for variable, was in zip(model.network.weights, before, strict=True):
            np.testing.assert_array_equal(np.asarray(variable), was)


def _recorder(events: list[str]) -> Any:
    import keras

    class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            events.append("begin")

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            events.append(f"epoch {epoch}")

        def on_train_end(self, logs: Any = None) -> None:
            events.append("end")

    return Recorder()


def _breaker(step: int) -> Any:
    import keras

    class Breaker(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) >= step:
                raise _StoppedByATestError

    return Breaker()
