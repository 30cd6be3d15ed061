"""Trackers get the run's figures: through TensorBoard's, W&B's and MLflow's own callbacks, and a logger for any."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import encoders
import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import TuneArgumentError
from kerasgen.models.saving import save_preset

TEXTS = [f"the {a} and the {b} of {c}" for a in ("sea", "hill", "moon") for b in ("wind", "rain") for c in "abcdefg"]
SETTINGS: dict[str, Any] = {"batch_size": 4, "sequence_length": 32, "vocabulary": "keep", "precision": "float32"}
PAIRS = [{"prompt": text[:8], "chosen": text[8:], "rejected": " no"} for text in TEXTS]

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1, hidden_dim=16), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def pipeline(model: Any, tuner: Any = None, corpus: Any = TEXTS) -> kg.Pipeline:
    tuner = kg.FullTuner(**SETTINGS, max_steps=8, epochs=2, validate_every=3) if tuner is None else tuner
    return kg.Pipeline(corpus, model, tuner=tuner, held_out=0.2, cache="cache")


class Log:
    """Keeps what it is called with, and stands where `trackio.log` and `wandb.log` do."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def __call__(self, figures: dict[str, float], *, step: int) -> None:
        self.lines.append((step, figures))

    def series(self, name: str) -> dict[int, float]:
        return {step: figures[name] for step, figures in self.lines if name in figures}


def test_a_logger_gets_each_step_each_validation_and_the_report(preset: Path) -> None:
    log = Log()
    report = pipeline(preset).fit(callbacks=kg.MetricsLogger(log), verbose=0)
    assert list(log.series("loss").values()) == list(report.losses)
    assert list(log.series("accuracy").values()) == list(report.accuracies)
    assert log.series("val_bits_per_character") == {v.step: v.bits_per_character for v in report.validations}
    assert {0, 3, 6, 8} <= log.series("val_loss").keys()
    rates = log.series("learning_rate")
    assert rates[1] == pytest.approx(2e-4)
    assert rates[8] < rates[1]
    assert all(value > 0 for value in log.series("tokens_per_second").values())
    assert log.series("tokens_per_second").keys() <= set(range(1, 9))
    step, last = log.lines[-1]
    assert (step, last["report/steps"]) == (8, 8)
    for name in ("bits_per_character_before", "bits_per_character", "tokens_per_second", "seconds"):
        assert last[f"report/{name}"] == getattr(report, name)
    assert all(math.isfinite(value) for _, figures in log.lines for value in figures.values())
    assert [step for step, _ in log.lines] == sorted(step for step, _ in log.lines)


def test_every_so_many_steps_and_what_a_checkpoint_holds_is_not_logged_again(preset: Path) -> None:
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.optimizer.iterations >= 5:
                raise RuntimeError

    tuner = kg.FullTuner(**SETTINGS, max_steps=8, epochs=2, validate_every=3, checkpoint_every=2)
    first, second, whole = Log(), Log(), Log()
    with pytest.raises(RuntimeError):
        pipeline(preset, tuner).fit(callbacks=[kg.MetricsLogger(first), Stop()], verbose=0, directory="broken")
    pipeline(preset, tuner).fit(callbacks=[kg.MetricsLogger(second)], verbose=0, directory="broken")
    pipeline(preset, tuner).fit(callbacks=[kg.MetricsLogger(whole, every=2)], verbose=0, directory="whole")
    assert list(first.series("loss")) == [1, 2, 3, 4, 5]
    assert list(second.series("loss")) == [5, 6, 7, 8]
    assert list(second.series("val_loss")) == [6, 8]
    assert list(whole.series("loss")) == [2, 4, 6, 8]
    assert whole.series("loss") == {
        n: v for n, v in {**first.series("loss"), **second.series("loss")}.items() if n % 2 == 0
    }


def test_several_steps_an_execution_are_all_logged(preset: Path) -> None:
    log = Log()
    tuner = kg.FullTuner(**SETTINGS, max_steps=6, steps_per_execution=3)
    report = pipeline(preset, tuner).fit(callbacks=[kg.MetricsLogger(log)], verbose=0)
    assert list(log.series("loss").values()) == list(report.losses)


@pytest.mark.slow
def test_adapters_pairs_and_masked_models_are_logged_too(preset: Path, tmp_path: Path) -> None:
    log = Log()
    pipeline(preset, kg.LoraTuner(**SETTINGS, rank=2, max_steps=2)).fit(callbacks=[kg.MetricsLogger(log)], verbose=0)
    assert log.lines[-1][1]["report/trainable_parameters"] < log.lines[-1][1]["report/parameters"]
    pairs = Log()
    settings = {**SETTINGS, "max_steps": 2}
    pipeline(preset, kg.DpoTuner(**settings), PAIRS).fit(callbacks=[kg.MetricsLogger(pairs)], verbose=0)
    assert list(pairs.series("margin")) == [1, 2]
    assert list(pairs.series("val_pair_accuracy")) == [0, 2]
    masked = Log()
    folder = encoders.write("roberta", tmp_path / "roberta")
    words = [" ".join(encoders.letters(5 + n % 7)) for n in range(24)]
    tuner = kg.FullTuner(batch_size=4, sequence_length=16, max_steps=2)
    pipeline(str(folder), tuner, words).fit(callbacks=[kg.MetricsLogger(masked)], verbose=0)
    assert list(masked.series("loss")) == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "said"), [({"log": 3}, "log must be"), ({"log": print, "every": 0}, "every must be")]
)
def test_what_is_no_logger_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(TuneArgumentError, match=said):
        kg.MetricsLogger(**wrong)


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_keras_callbacks_read_rate_speed_and_validations(preset: Path) -> None:
    import keras

    batches: list[dict[str, float]] = []
    epochs: list[dict[str, float]] = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(dict(logs)),
        on_epoch_end=lambda epoch, logs: epochs.append(dict(logs)),
    )
    pipeline(preset).fit(callbacks=[callback], verbose=0)
    assert batches[0]["learning_rate"] == pytest.approx(2e-4)
    assert batches[2]["tokens_per_second"] > 0
    assert {"learning_rate", "val_bits_per_character", "val_loss"} <= epochs[-1].keys()


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_tensorboard_writes_them_by_keras_own_callback(kind: str, preset: Path) -> None:
    needs("tensorboard")
    import keras
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorflow.io import parse_tensor  # noqa: F401  (the logs are TensorFlow's)

    settings = {**SETTINGS, "max_steps": 8, "epochs": 2}
    tuner = kg.LoraTuner(**settings, rank=2) if kind == "lora" else kg.FullTuner(**settings)
    board = keras.callbacks.TensorBoard("logs", update_freq="batch", write_graph=False)
    report = pipeline(preset, tuner).fit(callbacks=[board], verbose=0)
    found: dict[str, list[float]] = {}
    for run in ("train", "validation"):
        events = EventAccumulator(f"logs/{run}", size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            found[tag] = [float(_value(event.tensor_proto)) for event in events.Tensors(tag)]
    assert found["batch_step_loss"] == pytest.approx(list(report.losses))
    assert found["epoch_bits_per_character"][-1] == pytest.approx(report.bits_per_character)
    assert found["batch_learning_rate"][0] == pytest.approx(tuner.learning_rate)
    assert found["batch_tokens_per_second"][-1] > 0


def _value(tensor: Any) -> Any:
    import numpy as np
    import tensorflow as tf

    return np.asarray(tf.make_ndarray(tensor))


@pytest.mark.slow
def test_wandb_writes_them_offline(preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    run = wandb.init(project="poems", dir=str(tmp_path), settings=wandb.Settings(x_disable_stats=True))
    try:
        report = pipeline(preset).fit(callbacks=[kg.MetricsLogger(wandb.log)], verbose=0)
    finally:
        run.finish()
    (written,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    end = time.monotonic() + 30
    while b"report/bits" not in (content := written.read_bytes()) and time.monotonic() < end:
        time.sleep(0.1)  # wandb's own process writes it, and numbers as JSON
    for name, value in (("loss", report.losses[-1]), ("report/bits_per_character", report.bits_per_character)):
        assert name.encode() in content
        assert json.dumps(value, allow_nan=False)[:8].encode() in content
    assert content.count(b"val_bits_per_character") >= len(report.validations)


@pytest.mark.slow
def test_mlflow_writes_them_into_a_folder(preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    import mlflow
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs the whole of MLflow, and not mlflow-skinny
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        report = pipeline(preset).fit(callbacks=[kg.MetricsLogger(mlflow.log_metrics)], verbose=0)
    found = [point.value for point in MlflowClient().get_metric_history(run.info.run_id, "loss")]
    assert found == pytest.approx(list(report.losses))


@pytest.mark.slow
def test_trackio_writes_them_into_its_folder(preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    import trackio

    trackio.init(project="poems", name="first", embed=False)
    try:
        report = pipeline(preset).fit(callbacks=[kg.MetricsLogger(trackio.log)], verbose=0)
    finally:
        trackio.finish()
    from trackio.sqlite_storage import SQLiteStorage

    logged = SQLiteStorage.get_logs("poems", "first")
    assert [line["loss"] for line in logged if "loss" in line] == pytest.approx(list(report.losses))
