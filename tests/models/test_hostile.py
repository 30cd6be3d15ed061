"""A model's files from a stranger: nothing but their own numbers gets into weights, and none of them hangs or kills."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen import models
from kerasgen.decoder import weights as by_name
from kerasgen.errors import KerasgenError, ModelFormatError
from kerasgen.models import hdf5, integrity, preset_files, starter
from kerasgen.models.architectures import stored
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

WEIGHTS = "model.weights.h5"
GAMMA = "layers/layer_normalization/vars/0"
SECRET = 0.625


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(), tmp_path_factory.mktemp("saved") / "poet")


@pytest.fixture
def preset(saved: Path, tmp_path: Path) -> Path:
    """A copy whose files may be changed: without digests, as KerasHub itself writes a preset."""
    directory = Path(shutil.copytree(saved, tmp_path / "poet"))
    metadata = json.loads((directory / "metadata.json").read_text())
    del metadata["sha256"]
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return directory


def flat(found: stored.StoredDecoder) -> list[np.ndarray]:
    return [*by_name.flat(found.weights).values()]


def external_link(file: h5py.File, beside: Path) -> None:
    with h5py.File(beside / "secret.h5", "w") as other:
        other["it"] = np.full((16,), SECRET, np.float32)
    del file[GAMMA]
    file[GAMMA] = h5py.ExternalLink(str(beside / "secret.h5"), "/it")


def external_group(file: h5py.File, beside: Path) -> None:
    with h5py.File(beside / "secret.h5", "w") as other:
        other["0"] = other["1"] = np.full((16,), SECRET, np.float32)
    del file["layers/layer_normalization/vars"]
    file["layers/layer_normalization/vars"] = h5py.ExternalLink(str(beside / "secret.h5"), "/")


def soft_link(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file[GAMMA] = h5py.SoftLink("/layers/layer_normalization/vars/1")


def hard_link(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file[GAMMA] = file["layers/layer_normalization/vars/1"]


def cycle(file: h5py.File, beside: Path) -> None:
    file["layers/again"] = file["layers"]


def external_storage(file: h5py.File, beside: Path) -> None:
    (beside / "secret.bin").write_bytes(np.full((16,), SECRET, np.float32).tobytes())
    del file[GAMMA]
    file.create_dataset(GAMMA, (16,), np.float32, external=[(str(beside / "secret.bin"), 0, 64)])


def virtual(file: h5py.File, beside: Path) -> None:
    with h5py.File(beside / "secret.h5", "w") as other:
        other["it"] = np.full((16,), SECRET, np.float32)
    layout = h5py.VirtualLayout((16,), np.float32)
    layout[:] = h5py.VirtualSource(str(beside / "secret.h5"), "it", (16,))
    del file[GAMMA]
    file.create_virtual_dataset(GAMMA, layout)


def bomb(file: h5py.File, beside: Path) -> None:
    file.create_dataset("bomb", (1 << 40,), np.float32, compression="gzip", chunks=(1 << 16,))


def unwritten(file: h5py.File, beside: Path) -> None:
    """Declared, never written: HDF5 fills such numbers in as they are read."""
    del file[GAMMA]
    file.create_dataset(GAMMA, (16,), np.float32)


def huge_unwritten(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file.create_dataset(GAMMA, (1 << 50,), np.float32)


def objects(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file.create_dataset(GAMMA, (16,), dtype=h5py.ref_dtype)


def strings(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file[GAMMA] = np.array(["a"] * 16, dtype=h5py.string_dtype())


def varying(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file.create_dataset(GAMMA, (16,), dtype=h5py.vlen_dtype(np.float32))


def named_type(file: h5py.File, beside: Path) -> None:
    del file[GAMMA]
    file[GAMMA] = np.dtype(np.float32)


def deep(file: h5py.File, beside: Path) -> None:
    file.create_group("/".join(["a"] * 500))


HOSTILE = [
    external_link, external_group, soft_link, hard_link, cycle, external_storage, virtual, bomb, unwritten,
    huge_unwritten, objects, strings, varying, named_type, deep,
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_no_weights_file_brings_in_what_it_does_not_hold(preset: Path, tmp_path: Path, change: Any) -> None:
    with h5py.File(preset / WEIGHTS, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(ModelFormatError, match=r"weights file '.*h5' can't be taken"):
        hdf5.check(preset / WEIGHTS)
    assert stored.read(preset) is None
    with pytest.raises(ModelFormatError, match="can't be taken"):
        models.create(f"hub:preset={preset}").load()


def test_compressed_weights_are_left_to_keras_hub_and_are_the_same(preset: Path) -> None:
    """Compression is honest where the numbers are there: another writer may have chosen it."""
    before = stored.read(preset)
    assert before is not None
    with h5py.File(preset / WEIGHTS, "r+") as file:
        gamma = file[GAMMA][()]
        del file[GAMMA]
        file.create_dataset(GAMMA, data=gamma, compression="gzip", shuffle=True)
    assert stored.read(preset) is None
    model = models.create(f"hub:preset={preset}").load()
    np.testing.assert_array_equal(np.asarray(model.backbone.get_layer("layer_norm").gamma), gamma)


def test_weights_that_the_configuration_does_not_know_are_not_passed_over(preset: Path) -> None:
    """Half of the layers is another model."""
    config = json.loads((preset / "config.json").read_text())
    config["config"]["num_layers"] = 1
    (preset / "config.json").write_text(json.dumps(config))
    assert stored.read(preset) is None


def test_a_file_of_more_weights_than_the_model_has_is_another_model_s(preset: Path) -> None:
    """As KerasHub writes a preset, without digests; it would leave the second layer out."""
    for name in ("config.json", "task.json"):
        config = json.loads((preset / name).read_text())
        (config["config"] if name == "config.json" else config["config"]["backbone"]["config"])["num_layers"] = 1
        (preset / name).write_text(json.dumps(config))
    (preset / "metadata.json").write_text("{}")
    with pytest.raises(ModelFormatError, match=r"model\.weights\.h5' holds 36 arrays.* has 20"):
        models.create(f"hub:preset={preset}").load()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_dim", 1 << 40), ("hidden_dim", -16), ("hidden_dim", 0), ("hidden_dim", "16"), ("hidden_dim", True),
        ("num_layers", 10**9), ("num_layers", 1.5), ("vocabulary_size", 10**8), ("intermediate_dim", 10**9),
        ("num_layers", [2]), ("dropout", float("nan")), ("max_sequence_length", 10**4000), ("num_layers", None),
    ],
)  # fmt: skip
def test_no_size_is_taken_on_trust(preset: Path, setting: str, value: Any) -> None:
    config = json.loads((preset / "config.json").read_text())
    config["config"][setting] = value
    (preset / "config.json").write_text(json.dumps(config))
    assert stored.read(preset) is None
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        models.create(f"hub:preset={preset}").load()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", "\0"])
def test_no_json_ends_in_an_error_of_pythons(preset: Path, text: str) -> None:
    for name in ("config.json", "assets/tokenizer/vocabulary.json", "metadata.json"):
        before = (preset / name).read_bytes()
        (preset / name).write_text(text)
        assert stored.read(preset) is None or name == "metadata.json"
        with pytest.raises(KerasgenError):
            models.create(f"hub:preset={preset}").load()
        (preset / name).write_bytes(before)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "assets/tokenizer/vocabulary.json", "task.json"])
@pytest.mark.parametrize("place", ["a pipe", "a device"])
def test_a_pipe_or_a_device_is_not_waited_for(preset: Path, name: str, place: str) -> None:
    (preset / name).unlink()
    if place == "a pipe":
        os.mkfifo(preset / name)
    else:
        (preset / name).symlink_to("/dev/zero")
    if name != "task.json":
        assert stored.read(preset) is None
    with pytest.raises(ModelFormatError, match=f"is {place}|no 'config.json'"):
        models.create(f"hub:preset={preset}").load()


def test_a_file_of_json_has_a_limit_that_the_environment_raises(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASGEN_MAX_JSON_BYTES", "100")
    with pytest.raises(ModelFormatError, match=r"The limit is 100; raise it with .* KERASGEN_MAX_JSON_BYTES"):
        preset_files.check(preset)
    monkeypatch.setenv("KERASGEN_MAX_JSON_BYTES", "1M")
    preset_files.check(preset)


def test_the_starters_files_are_the_ones_that_were_trained() -> None:
    listed = json.loads((starter.DIRECTORY / "metadata.json").read_text())["sha256"]
    assert {WEIGHTS, "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"} <= listed.keys()
    integrity.check(starter.DIRECTORY)


@pytest.mark.parametrize("name", [WEIGHTS, "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"])
def test_a_saved_model_with_one_other_bit_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    """No format notices it: a flipped bit would be another weight or another token, and another text."""
    directory = Path(shutil.copytree(saved, tmp_path / "poet"))
    data = bytearray((directory / name).read_bytes())
    for place in random.Random(0).sample(range(len(data)), 8):
        data[place] ^= 1
        (directory / name).write_bytes(data)
        assert stored.read(directory) is None
        with pytest.raises(ModelFormatError, match="is not the file that was saved"):
            integrity.check(directory)
        data[place] ^= 1
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)
    with pytest.raises(ModelFormatError):
        models.create(f"hub:preset={directory}").load()


def test_the_list_of_digests_names_no_file_elsewhere(saved: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(saved, tmp_path / "poet"))
    for name in ("../secret", "/etc/hostname", "no.h5"):
        (directory / "metadata.json").write_text(json.dumps({"sha256": {name: "0" * 64}}))
        with pytest.raises(ModelFormatError, match="does not lie beside it"):
            integrity.check(directory)


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_of_a_stranger_gives_its_numbers_or_an_error(preset: Path, seed: int) -> None:
    """Flipped bytes of everything but the numbers themselves, and cuts: never a crash, nor another error than ours."""
    path = preset / WEIGHTS
    raw = path.read_bytes()
    with hdf5.WeightsFile(path) as file:
        extents = [(found.offset, found.size_bytes) for found in file.datasets.values()]
    is_number = np.zeros(len(raw), bool)
    for offset, size in extents:
        is_number[offset : offset + size] = True
    others = np.flatnonzero(~is_number)
    draw = random.Random(seed)
    refused = 0
    for turn in range(60):
        data = bytearray(raw)
        for place in draw.choices(others, k=draw.choice([1, 2, 8])):
            data[place] = draw.randrange(256)
        path.write_bytes(data if turn % 10 else data[: draw.randrange(len(data))])
        try:
            hdf5.check(path)
        except ModelFormatError:
            refused += 1
            assert stored.read(preset) is None
    assert refused > 10
