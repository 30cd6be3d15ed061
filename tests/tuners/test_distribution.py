"""A run on several devices, or in several processes, has the losses of one on one device."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from installing import without_tensorflow
from places import SUPPORT
from ports import free_port
from toys import encode, smallest_gpt2, texts, tiny_gemma
from transformers_files import GPT2_CONFIG, gpt2_shapes, random_weights, write_model

from kerasgen import backend
from kerasgen.errors import MissingDependencyError, TuneArgumentError
from kerasgen.tuners import sharding
from kerasgen.tuners.full import FullTuner

pytestmark = pytest.mark.one_backend

SCRIPT, SPREAD = SUPPORT / "distributed_run.py", SUPPORT / "spread_run.py"
TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def start(
    directory: Path, distribution: str, *more: str, environment: dict[str, str], script: Path = SCRIPT
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(directory), distribution, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_tensorflow(os.environ | {"KERAS_BACKEND": "jax"} | environment),
        text=True,
    )


def result(child: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors[-3000:]
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def run(directory: Path, distribution: str, *more: str) -> dict[str, Any]:
    return result(start(directory, distribution, *more, environment=TWO_DEVICES))


def processes(
    directory: Path, distribution: str, *more: Sequence[str], script: Path = SCRIPT
) -> list[subprocess.Popen[str]]:
    """Two processes of one run; `more` are the arguments of each."""
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            directory,
            distribution,
            *more[number],
            script=script,
            environment={
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
                "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
                "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
            },
        )
        for number in range(2)
    ]


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)
    for one, other in zip(found["validations"], expected["validations"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    np.testing.assert_allclose(found["weights"], expected["weights"], rtol=2e-3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if backend.use() != "jax":
        pytest.skip("several devices are JAX's")
    return run(tmp_path_factory.mktemp("alone"), "none")


@pytest.mark.slow
def test_two_devices_that_share_a_batch_have_the_losses_of_one(alone: dict[str, Any], tmp_path: Path) -> None:
    """With dropout: the numbers drawn don't depend on where they are drawn."""
    found = run(tmp_path, "data")
    same(found, alone)
    assert set(found["devices"]) == {1}, "the model is back on one device"


@pytest.mark.nightly
@pytest.mark.usefixtures("alone")
def test_a_step_s_loss_is_the_mean_over_the_learned_tokens_of_both_devices(tmp_path: Path) -> None:
    found, expected = (run(tmp_path / name, name, "--parts") for name in ("data", "none"))
    same(found, expected)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("alone")
def test_so_do_pairs_and_their_reference(tmp_path: Path) -> None:
    found, expected = (run(tmp_path / name, name, "--dpo") for name in ("data", "none"))
    same(found, expected)
    for one, other in zip(found["validations"], expected["validations"], strict=True):
        assert one["margin"] == pytest.approx(other["margin"], rel=1e-3, abs=1e-6)
        assert one["divergence"] == pytest.approx(other["divergence"], rel=1e-3, abs=1e-6)
    assert found["validations"][-1]["margin"] > 1e-3


@pytest.mark.slow
@pytest.mark.essential
def test_two_processes_have_the_losses_of_one_and_go_on_when_one_is_killed(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    """Process 1 dies after step 5; both are started again and go on from the checkpoint of step 4."""
    first, second = processes(tmp_path, "data", [], ["--stop-at", "5"])
    assert second.wait(timeout=300) == 9
    written, before = ["step-00000002", "step-00000004"], time.monotonic()
    while sorted(path.name for path in tmp_path.glob("step-*")) != written and time.monotonic() < before + 20:
        time.sleep(0.02)  # they are written behind
    first.kill()
    for child in (first, second):
        child.communicate()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == written
    found = [result(child) for child in processes(tmp_path, "data", ["--resume"], ["--resume"])]
    for one in found:
        assert one["resumed_from"] == 4
        same(one, alone)
    assert found[0]["losses"] == found[1]["losses"]


@pytest.mark.slow
@pytest.mark.essential
def test_checkpoints_of_which_each_process_writes_a_part_go_on_when_one_is_killed(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    """Weights and optimizer are split over two processes, so that neither holds all of them when it saves."""
    pytest.importorskip("orbax.checkpoint")
    # A callback in each, as a run of several processes must have: what they see of split weights, all must ask for.
    first, second = processes(tmp_path, "model", ["--sharded", "--stop-at", "99"], ["--sharded", "--stop-at", "5"])
    assert second.wait(timeout=100) == 9
    before = time.monotonic()
    while not (tmp_path / "step-00000004" / "state.json").exists() and time.monotonic() < before + 20:
        time.sleep(0.02)
    first.kill()
    for child in (first, second):
        child.communicate()
    (written,) = {path.parent.parent for path in tmp_path.glob("step-00000004/arrays/ocdbt.process_*")}
    assert len(list(written.glob("arrays/ocdbt.process_*"))) == 2, "each process wrote a part"
    assert not list(tmp_path.glob("*/*.safetensors"))
    found = [
        result(child) for child in processes(tmp_path, "model", ["--resume", "--sharded"], ["--resume", "--sharded"])
    ]
    for one in found:
        assert one["resumed_from"] == 4
        same(one, alone)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.nightly)])
def test_of_a_model_that_no_host_can_hold_each_process_reads_a_part(kind: str, tmp_path: Path) -> None:
    """The weights stay split to the end. Adapters are saved then, and a whole model by one process that resumes."""
    if backend.use() != "jax":
        pytest.skip("several devices are JAX's")
    pytest.importorskip("orbax.checkpoint")
    model = write_model(tmp_path / "model", GPT2_CONFIG, random_weights(gpt2_shapes(), 0))

    def alone(directory: str, distribution: str, *more: str) -> dict[str, Any]:
        arguments = (str(tmp_path / directory), kind, distribution, *more)
        return result(start(model, *arguments, environment={}, script=SPREAD))

    whole = alone("alone", "none")
    arguments = [str(tmp_path / "run"), kind, "model"]
    children = processes(model, arguments[0], arguments[1:], arguments[1:], script=SPREAD)
    found = [result(child) for child in children]
    for one in found:
        np.testing.assert_allclose(one["losses"], whole["losses"], rtol=1e-4)
        np.testing.assert_allclose(one["validations"], whole["validations"], rtol=1e-4)
        for all_bytes, held in (one["read"], one["left"]):
            assert held < 0.6 * all_bytes
    assert found[0]["generate"].startswith("ModelError: The weights of this GPT2CausalLM lie on 2 processes")
    if kind == "lora":
        assert found[0]["save"] == str(tmp_path / "run-out")
        return
    assert found[0]["save"].startswith("ModelError: The weights of this GPT2CausalLM lie on 2 processes")
    resumed = alone("run", "model", "--resume")
    assert resumed["losses"] == found[0]["losses"], "there was nothing left to do"
    assert (resumed["generate"], resumed["save"]) == (whole["generate"], str(tmp_path / "run-out"))


@pytest.mark.slow
@pytest.mark.nightly
def test_the_best_weights_are_kept_in_parts_too(tmp_path: Path) -> None:
    if backend.use() != "jax":
        pytest.skip("several devices are JAX's")
    pytest.importorskip("orbax.checkpoint")
    whole = run(tmp_path / "whole", "none", "--patience", "1")
    found = run(tmp_path / "parts", "model", "--patience", "1", "--sharded")
    same(found, whole)
    assert len(list((tmp_path / "parts").glob("best-*/state.json"))) == 1
    assert not (tmp_path / "parts" / "best.safetensors").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_under_slurm_processes_find_each_other_by_its_variables(alone: dict[str, Any], tmp_path: Path) -> None:
    """Only their number is said in Keras's; JAX takes a port that the job's number decides."""
    number = str(os.getpid())
    job = {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "SLURM_JOB_ID": number, "SLURM_STEP_NODELIST": "localhost"}
    children = [
        start(
            tmp_path,
            "data",
            environment=job | {"SLURM_NTASKS": "2", "SLURM_PROCID": str(place), "SLURM_LOCALID": str(place)},
        )
        for place in range(2)
    ]
    found = [result(child) for child in children]
    assert found[0]["losses"] == found[1]["losses"]
    same(found[0], alone)


@pytest.mark.slow
@pytest.mark.nightly
def test_weights_split_over_two_devices_give_the_losses_of_whole_ones(alone: dict[str, Any], tmp_path: Path) -> None:
    same(run(tmp_path, "model"), alone)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("llama", marks=pytest.mark.slow),
        pytest.param("container", marks=pytest.mark.slow),
        pytest.param("opt", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.nightly
def test_so_do_those_of_other_families(family: str, tmp_path: Path) -> None:
    if backend.use() != "jax":
        pytest.skip("several devices are JAX's")
    whole = run(tmp_path / "whole", "none", "--family", family)
    same(run(tmp_path / "split", "model", "--family", family), whole)


def test_two_numbers_say_what_the_names_say() -> None:
    """So that a run by numbers is the run by name, which has the losses of one device."""
    for devices in (2, 4):
        assert sharding.mesh_shape(f"1x{devices}", devices) == sharding.mesh_shape("model", devices) == (1, devices)
        assert sharding.mesh_shape(f"{devices}x1", devices) == sharding.mesh_shape("data", devices) == (devices, 1)
    assert sharding.mesh_shape("2x4", 8) == (2, 4)


@pytest.mark.slow
@pytest.mark.nightly
def test_adapters_and_weights_split_over_two_processes(tmp_path: Path) -> None:
    if backend.use() != "jax":
        pytest.skip("several devices are JAX's")
    whole = run(tmp_path / "whole", "none", "--lora")
    for child in processes(tmp_path / "split", "model", ["--lora"], ["--lora"]):
        same(result(child), whole)


@pytest.mark.parametrize("first", [True, False])
def test_what_the_writing_process_saw_on_the_disk_holds_for_all(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one sees the report of a finished run removed, and would take the directory for an unfinished run's."""
    if backend.use() != "jax":
        pytest.skip("several processes are JAX's")
    from jax._src import distributed

    from kerasgen.tuners import sharding

    class Client:
        kept: ClassVar[dict[str, str]] = {}

        def key_value_set(self, key: str, value: str) -> None:
            self.kept[key] = value

        def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
            return self.kept[key]

    monkeypatch.setattr(distributed.global_state, "client", Client())
    found = []
    for index, answer in enumerate((first, not first)):
        monkeypatch.setattr(sharding, "_barriers", itertools.count())  # each process counts its own
        share = sharding.Share(count=2, index=index, writes=index == 0, processes=2)
        found.append(sharding.agreed(share, answer, "whether a run goes on"))
    assert found == [first, first]
    assert sharding.agreed(sharding.Share(), not first, "") is not first


def test_what_does_not_fit_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = backend.use()
    model = smallest_gpt2()
    train = encode(model.tokenizer, texts(3))

    def tune(model: Any = model, **settings: Any) -> None:
        FullTuner(**settings).tune(model, train, seed=0, directory=tmp_path, verbose=0)

    if running != "jax":
        with pytest.raises(TuneArgumentError, match="needs the JAX backend"):
            tune(distribution="data")
        return

    with pytest.raises(TuneArgumentError, match=r"takes 8 devices, and JAX sees 1\."):
        tune(distribution="2x4")
    monkeypatch.setattr(sharding, "mesh_shape", lambda distribution, devices: (3, 1))
    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["cpu:0"] * 3)
    with pytest.raises(TuneArgumentError, match=r"batch_size must be a multiple of the 3 devices"):
        tune(distribution="data", batch_size=4)
    monkeypatch.setattr(sharding, "mesh_shape", lambda distribution, devices: (1, 3))
    with pytest.raises(TuneArgumentError, match="can't be split 3 ways: its num_heads is 2"):
        tune(distribution="model")
    with pytest.raises(TuneArgumentError, match=r"is for BloomBackbone, .*OPTBackbone.*Received: GemmaBackbone"):
        tune(tiny_gemma(), distribution="model")
    monkeypatch.setattr(sharding, "_processes", lambda: 2)
    with pytest.raises(TuneArgumentError, match="2 processes need a `distribution`"):
        tune()


def test_parts_are_for_several_devices_and_need_orbax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TuneArgumentError, match=r"sharded_checkpoints=True is for a run over several .*'model'"):
        FullTuner(sharded_checkpoints=True)
    model = smallest_gpt2()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'kerasgen\[scale\]'") as error:
        FullTuner(sharded_checkpoints=True, distribution="model").tune(
            model, encode(model.tokenizer, texts(3)), seed=0, directory=tmp_path / "run", verbose=0
        )
    assert error.value.extra == "scale"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("distribution", ["", "both", "0x2", "2x", 2])
def test_a_distribution_is_named_or_two_numbers(distribution: Any) -> None:
    with pytest.raises(TuneArgumentError, match="distribution must be None, 'data', 'model'"):
        FullTuner(distribution=distribution)
