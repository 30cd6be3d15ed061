"""The how-to's blocks for trackers run as they stand there, and a killed run goes on in its tracker step by step."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import TuneArgumentError
from kerasgen.models.saving import save_preset

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

PAGE = ROOT / "docs" / "how-to" / "track.md"
STEPS, KILLED = 8, 5
TUNER: dict[str, Any] = {"batch_size": 4, "sequence_length": 32, "vocabulary": "keep", "precision": "float32"}
TUNER |= {"max_steps": STEPS, "epochs": 2, "validate_every": 3, "checkpoint_every": 2}
TEXTS = [f"the {a} and the {b} of {c}" for a in ("sea", "hill", "moon") for b in ("wind", "rain") for c in "abcdefg"]

# What the page has above its blocks: a pipeline. One process is killed in the middle of the run.
PRELUDE = f"""
import os, signal, sys
import kerasgen as kg

def pipeline_that_dies(step):
    import keras

    class Die(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations >= step:
                os.kill(os.getpid(), signal.SIGKILL)

    class Dying(kg.Pipeline):
        def fit(self, *, callbacks, **settings):
            return super().fit(callbacks=[*callbacks, *([Die()] if step else [])], verbose=0, **settings)

    tuner = kg.FullTuner(**{TUNER!r})
    return Dying({TEXTS!r}, sys.argv[1], tuner=tuner, held_out=0.2, cache="cache")

pipe = pipeline_that_dies(int(sys.argv[2]))
"""


def block(*words: str) -> str:
    """The one block of the page that has all these words."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = (each for each in blocks if all(word in each for word in words))
    return str(found)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1, hidden_dim=16), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def losses(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Those of the run that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    pipe = kg.Pipeline(TEXTS, preset, tuner=kg.FullTuner(**TUNER), held_out=0.2, cache=folder / "cache")
    return list(pipe.fit(directory=folder / "run", verbose=0).losses)


def of_trackio(folder: Path) -> dict[str, list[tuple[int, float]]]:
    code = (
        "import json; from trackio.sqlite_storage import SQLiteStorage\n"
        "print(json.dumps(SQLiteStorage.get_logs('poems', 'first')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables(folder), capture_output=True, check=True, encoding="utf-8"
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    return {
        name: [(row["step"], row[name]) for row in rows if name in row]
        for name in ("loss", "val_loss", "report/bits_per_character")
    }


def of_mlflow(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for name in ("loss", "val_loss", "report/bits_per_character"):
        (file,) = (folder / "mlruns").glob(f"*/*/metrics/{name}")
        lines = [line.split() for line in file.read_text().splitlines()]
        found[name] = [(int(step), float(value)) for _, value, step in lines]
    return found


def of_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs"), size_guidance={"tensors": 0}).Reload()
    return {
        name: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]
        for name in ("loss", "val_loss", "report/bits_per_character")
    }


def of_wandb(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from wandb.proto import wandb_internal_pb2

    (file,) = (folder / "wandb").glob("offline-run-*-first/*.wandb")
    found: dict[str, list[tuple[int, float]]] = {"loss": [], "val_loss": [], "report/bits_per_character": []}
    for content in records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        for name in found.keys() & items.keys():
            found[name].append((int(items["_step"]), float(items[name])))
    return found


def records(content: bytes) -> list[bytes]:
    """The records of a log as LevelDB has it: blocks of 32 KiB, of pieces with a checksum, a length and a kind."""
    whole, part, at = [], b"", 7  # after the file's own head
    while at + 7 <= len(content):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            whole.append(part)
            part = b""
    return whole


def variables(folder: Path) -> dict[str, str]:
    own = {"XDG_STATE_HOME": "state", "HOME": "home", "TRACKIO_DIR": "trackio", "MLFLOW_DIR": "mlruns"}
    further = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "MLFLOW_ALLOW_FILE_STORE": "true"}
    return {**os.environ, **further, **{name: str(folder / place) for name, place in own.items()}}


TRACKERS: dict[str, tuple[tuple[str, ...], Callable[[Path], dict[str, list[tuple[int, float]]]]]] = {
    "trackio": (("import trackio",), of_trackio),
    "mlflow": (("import mlflow",), of_mlflow),
    "tensorboard": (("create_file_writer",), of_tensorboard),
    "wandb": (("import wandb",), of_wandb),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "tracker", ["trackio", *(pytest.param(name, marks=pytest.mark.nightly) for name in TRACKERS if name != "trackio")]
)
def test_a_killed_run_goes_on_in_its_tracker_without_a_doubled_step(
    tracker: str, preset: Path, losses: list[float], tmp_path: Path
) -> None:
    for package in (tracker, *(["tensorflow"] if tracker == "tensorboard" else [])):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    words, read = TRACKERS[tracker]
    code = PRELUDE + block(*words)
    for killed in (KILLED, 0):
        command = [sys.executable, "-c", code, str(preset), str(killed)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=variables(tmp_path),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        assert done.returncode == (-9 if killed else 0), done.stderr[-3000:]
    found = read(tmp_path)
    steps = [step for step, _ in found["loss"]]
    assert steps == list(range(1, STEPS + 1))
    assert [value for _, value in found["loss"]] == pytest.approx(losses, rel=1e-6)
    assert [step for step, _ in found["val_loss"]] == [0, 3, 6, 8]
    assert [step for step, _ in found["report/bits_per_character"]] == [STEPS]


@pytest.mark.slow
@pytest.mark.tensorflow
def test_keras_s_own_callback_for_tensorboard_runs_as_the_page_has_it(preset: Path, tmp_path: Path) -> None:
    for package in ("tensorboard", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    code = PRELUDE + block("keras.callbacks.TensorBoard")
    command = [sys.executable, "-c", code, str(preset), "0"]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables(tmp_path), capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "logs" / "train").glob("events.*"))


@pytest.mark.parametrize(
    ("last_step", "steps", "validations"),
    [
        (None, [5, 6, 7, 8], [6, 8]),
        (-1, [1, 2, 3, 4, 5, 6, 7, 8], [0, 3, 6, 8]),
        (2, [3, 4, 5, 6, 7, 8], [3, 6, 8]),
        (5, [6, 7, 8], [6, 8]),
        ({"loss": 6, "val_loss": 3}, [7, 8], [6, 8]),
        ({"loss": 6}, [7, 8], [0, 3, 6, 8]),
        ({}, [1, 2, 3, 4, 5, 6, 7, 8], [0, 3, 6, 8]),
    ],
)
def test_what_is_logged_is_what_the_tracker_lacks(
    last_step: Any, steps: list[int], validations: list[int], preset: Path, losses: list[float], tmp_path: Path
) -> None:
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.optimizer.iterations >= KILLED:
                raise RuntimeError

    lines: list[tuple[int, dict[str, float]]] = []

    def log(figures: dict[str, float], *, step: int) -> None:
        lines.append((step, figures))

    def pipeline() -> kg.Pipeline:
        return kg.Pipeline(TEXTS, preset, tuner=kg.FullTuner(**TUNER), held_out=0.2, cache=tmp_path / "cache")

    with pytest.raises(RuntimeError):
        pipeline().fit(callbacks=[Stop()], verbose=0, directory=tmp_path / "run")
    logger = kg.MetricsLogger(log, last_step=last_step)
    pipeline().fit(callbacks=[logger], verbose=0, directory=tmp_path / "run")
    found = [(step, figures["loss"]) for step, figures in lines if "loss" in figures]
    assert [step for step, _ in found] == steps
    assert [value for _, value in found] == [losses[step - 1] for step in steps]
    assert [step for step, figures in lines if "val_loss" in figures] == validations
    assert [step for step, _ in lines] == sorted(step for step, _ in lines)


@pytest.mark.parametrize("last_step", [-2, 1.5, True, "5", {"loss": None}, {"accuracy": 3}])
def test_what_is_no_step_is_refused(last_step: Any) -> None:
    with pytest.raises(TuneArgumentError, match="last_step must be a step"):
        kg.MetricsLogger(print, last_step=last_step)
