"""A run that was killed and one that was interrupted go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installing import without_tensorflow
from places import SUPPORT
from toys import encode, float16_can_be_had, smallest_gpt2, texts, weights_of
from tuning_run import COUNT, MODES, STEPS_PER_EPOCH, TRAINED_ON, tune

from kerasgen.errors import CheckpointError
from kerasgen.tuners.base import TuneReport

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# The interrupted run ends with its second epoch, before that epoch's validation: the resumed one must make up for it.
KILLED_AT, INTERRUPTED_AT, STEPS = 11, 13, 3 * STEPS_PER_EPOCH
WRITTEN = ["step-00000006", "step-00000009"]
# Each goes on to the bit within one process too (`test_resume_modes.py`), in a third of the time. Adapters and parts of
# texts are killed, and conversations and pairs.
OTHERS = [
    pytest.param(
        mode,
        marks=pytest.mark.slow
        if mode in ("lora", "parts", "dpo", "conversations", "streamed")
        else pytest.mark.nightly,
    )
    for mode in MODES
    if mode != "full"
]


def start(mode: str, directory: Path, *, wait_at: int, resume: bool = False) -> subprocess.Popen[str]:
    """A child that tunes; returns when it stands still after step `wait_at`."""
    for name in ("waiting", "go"):
        (directory / name).unlink(missing_ok=True)
    script = SUPPORT / "tuning_run.py"
    command = [sys.executable, str(script), mode, str(directory), "--wait-at", str(wait_at)]
    child = subprocess.Popen(
        command + ["--resume"] * resume,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=without_tensorflow(),
        text=True,
    )
    while not (directory / "waiting").exists():
        if child.poll() is not None:
            raise AssertionError(f"the child ended before step {wait_at}:\n{child.communicate()[0]}")
        time.sleep(0.05)
    return child


@dataclass
class Chain:
    """What became of a run that was killed in mid-epoch, resumed, interrupted, and resumed again."""

    after_kill: list[str]
    after_interrupt: list[str]
    returncode: int
    output: str
    directory: Path
    report: TuneReport
    weights: list[Any]
    uninterrupted: TuneReport
    uninterrupted_weights: list[Any]


def steps_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("step-*"))


def broken(mode: str, tmp_path: Path) -> Chain:
    directory = tmp_path / "broken"
    directory.mkdir()
    child = start(mode, directory, wait_at=KILLED_AT)
    before = time.monotonic()
    while steps_in(directory) != WRITTEN and time.monotonic() < before + 20:
        time.sleep(0.02)  # they are written behind
    child.kill()
    child.communicate()
    after_kill = steps_in(directory)

    child = start(mode, directory, wait_at=INTERRUPTED_AT, resume=True)
    child.send_signal(signal.SIGINT)
    (directory / "go").touch()
    output, _ = child.communicate()
    after_interrupt = steps_in(directory)

    report, model = tune(mode, directory, resume=True)
    whole, whole_model = tune(mode, tmp_path / "whole")
    return Chain(
        after_kill=after_kill,
        after_interrupt=after_interrupt,
        returncode=child.returncode,
        output=output,
        directory=directory,
        report=report,
        weights=weights_of(model),
        uninterrupted=whole,
        uninterrupted_weights=weights_of(whole_model),
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return broken("full", tmp_path_factory.mktemp("chain"))


def same_numbers(chain: Chain) -> None:
    whole, report = chain.uninterrupted, chain.report
    assert whole.steps == report.steps == STEPS
    assert report.losses == whole.losses
    assert report.validations == whole.validations
    for found, expected in zip(chain.weights, chain.uninterrupted_weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_kill_9_in_mid_epoch_leaves_the_checkpoints_that_were_written(chain: Chain) -> None:
    assert chain.after_kill == WRITTEN
    assert 0 not in (9 % STEPS_PER_EPOCH, KILLED_AT % STEPS_PER_EPOCH), "both are in mid-epoch"


def test_ctrl_c_ends_by_keyboard_interrupt_after_the_step_with_a_checkpoint(chain: Chain) -> None:
    """Step 13 had ended when the signal came; the run stops once step 14 has."""
    assert chain.after_interrupt == ["step-00000012", f"step-{INTERRUPTED_AT + 1:08d}"]
    assert chain.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert f"KeyboardInterrupt: Stopped after step {INTERRUPTED_AT + 1} of {STEPS}" in chain.output
    assert "press Ctrl-C again to stop at once" in chain.output


def test_a_killed_and_interrupted_run_gives_the_uninterrupted_ones_numbers_to_the_bit(chain: Chain) -> None:
    """Losses, validations and final weights, with dropout on."""
    assert chain.report.resumed_from == INTERRUPTED_AT + 1
    assert len(set(chain.report.losses)) == STEPS
    same_numbers(chain)


@pytest.mark.essential
@pytest.mark.parametrize("mode", OTHERS)
def test_so_do_the_other_ways_of_tuning(mode: str, tmp_path: Path) -> None:
    if mode == "float16" and not float16_can_be_had():
        pytest.skip("JAX computes attention in float16 on GPUs alone")
    chain = broken(mode, tmp_path)
    assert chain.report.resumed_from == INTERRUPTED_AT + 1
    same_numbers(chain)


def test_resuming_a_finished_run_trains_no_further(chain: Chain) -> None:
    report, model = tune("full", chain.directory, resume=True)
    assert (report.steps, report.tokens, report.resumed_from) == (STEPS, 0, STEPS)
    assert report.losses == chain.uninterrupted.losses
    assert report.validations == chain.uninterrupted.validations
    for found, expected in zip(weights_of(model), chain.uninterrupted_weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_auto_goes_on_with_a_run_that_did_not_finish(chain: Chain, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(chain.directory, tmp_path / "copy"))
    (directory / "report.json").unlink()
    report, _ = tune("full", directory, resume="auto")
    assert (report.resumed_from, report.losses) == (STEPS, chain.uninterrupted.losses)


def test_auto_starts_anew_where_a_run_has_finished(chain: Chain, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(chain.directory, tmp_path / "copy"))
    report, _ = tune("full", directory, resume="auto", max_steps=1)
    assert (report.resumed_from, report.steps) == (None, 1)
    assert report.losses == chain.uninterrupted.losses[:1]
    assert steps_in(directory) == [], "what the earlier run left is gone"


class TestAnotherRun:
    """A checkpoint is taken up only by the run that wrote it."""

    def resume(self, chain: Chain, model: Any = None, *, seed: int = 5, words: int = 0, **changed: Any) -> None:
        model = model or smallest_gpt2(dropout=0.2)
        train = encode(model.tokenizer, texts(COUNT + words, words=TRAINED_ON))
        tuner = dataclasses.replace(MODES["full"], **changed)
        held_out = encode(model.tokenizer, texts(4, seed=1))
        tuner.tune(model, train, held_out, seed=seed, directory=chain.directory, resume=True, verbose=0)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"seed": 6}, r"seed \(5 there, 6 here\)"),
            ({"words": 1}, "documents"),
            (
                {"learning_rate": 1e-3, "epochs": 9},
                r"epochs \(3 .* 9 here\), learning_rate \(0.003 .* 0.001 here\)",
            ),
            ({"precision": "mixed_bfloat16"}, r"precision \('float32' there, 'mixed_bfloat16' here\)"),
        ],
    )
    def test_what_differs_is_named(self, chain: Chain, change: dict[str, Any], named: str) -> None:
        with pytest.raises(CheckpointError, match=f"another run: {named} differ") as error:
            self.resume(chain, **change)
        assert str(chain.directory) in str(error.value)

    def test_another_backend_is_refused_for_it_rounds_otherwise(self, chain: Chain, tmp_path: Path) -> None:
        from kerasgen.tuners import checkpoints

        copy = dataclasses.replace(chain, directory=shutil.copytree(chain.directory, tmp_path / "copy"))
        saved = checkpoints.read_latest(copy.directory)
        assert saved is not None
        there = dict(saved.state["fingerprint"]) | {"backend": "torch"}
        state = dict(saved.state) | {"fingerprint": there}
        checkpoints.write(copy.directory, dataclasses.replace(saved, state=state))
        with pytest.raises(CheckpointError, match=r"another run: backend \('torch' there, '\w+' here\) differ"):
            self.resume(copy)

    def test_another_model_is_refused(self, chain: Chain) -> None:
        from tiny import tiny_gpt2

        larger = tiny_gpt2(num_layers=1, hidden_dim=32, max_sequence_length=32, dropout=0.2)
        with pytest.raises(CheckpointError, match=r"another shape: .*\(300, 16\) there and \(300, 32\) here"):
            self.resume(chain, larger)

    def test_a_damaged_checkpoint_names_its_folder(self, chain: Chain, tmp_path: Path) -> None:
        copy = dataclasses.replace(chain, directory=shutil.copytree(chain.directory, tmp_path / "copy"))
        newest = copy.directory / steps_in(copy.directory)[-1]
        path = newest / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="is damaged") as error:
            self.resume(copy)
        assert str(newest) in str(error.value)

    def test_nothing_to_resume_is_said(self, chain: Chain, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no checkpoint in"):
            self.resume(dataclasses.replace(chain, directory=tmp_path))
        assert not list(tmp_path.iterdir())
