"""A saved model is an ordinary KerasHub preset, whole or not there at all."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt, tiny_vocabulary

from kerasgen import backend
from kerasgen.errors import ModelArgumentError, ModelError
from kerasgen.models import saving
from kerasgen.models.base import LanguageModel
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset
from kerasgen.tokens.bpe import ByteLevelBPE


def logits(causal_lm: Any) -> np.ndarray:
    import keras

    ids = np.asarray([[7, 80, 81, 200, 250]], dtype="int32")
    outputs = causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(keras.ops.convert_to_numpy(outputs))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_plain_keras_hub_loads_it_with_its_tokenizer_and_generates(make: Any, tmp_path: Path) -> None:
    model = make(seed=5)
    directory = save_preset(model, tmp_path / "poet")
    backend.use()
    import keras_hub

    plain = keras_hub.models.CausalLM.from_preset(str(directory))
    np.testing.assert_array_equal(logits(plain), logits(model.causal_lm))
    assert np.asarray(plain.preprocessor.tokenizer("spring the")).tolist() == model.tokenizer.encode("spring the")
    assert plain.preprocessor.sequence_length == model.max_sequence_length
    plain.compile(sampler="greedy")
    assert plain.generate("spring", max_length=12).startswith("spring")


def test_float16_halves_the_weights_and_they_load_back_as_float32(tmp_path: Path) -> None:
    """Each weight is rounded to 11 bits, and nothing else is."""
    model = tiny_gpt2(hidden_dim=64)
    whole = save_preset(model, tmp_path / "whole", dtype="float32")
    half = save_preset(model, tmp_path / "half", dtype="float16")
    sizes = [(directory / "model.weights.h5").stat().st_size for directory in (whole, half)]
    saved = (sizes[0] - sizes[1]) / model.backbone.count_params()
    assert saved == pytest.approx(2.0, rel=0.02)  # bytes a weight
    again = Hub(str(half)).load()
    for kept, original in zip(again.causal_lm.weights, model.causal_lm.weights, strict=True):
        assert str(kept.dtype) == "float32"
        np.testing.assert_array_equal(_numpy(kept), _numpy(original).astype("float16").astype("float32"))


def test_a_starter_of_five_million_weights_stays_under_12_mb(tmp_path: Path) -> None:
    model = tiny_gpt2(
        vocabulary_size=600, num_layers=6, hidden_dim=288, num_heads=4, max_sequence_length=128, intermediate_dim=1024
    )
    assert model.backbone.count_params() > 5_000_000
    directory = save_preset(model, tmp_path / "starter", dtype="float16")
    assert sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) < 12_000_000


def test_weights_beyond_float16_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = tiny_gpt2()
    model.backbone.weights[0].assign(np.full(model.backbone.weights[0].shape, 1e5, dtype="float32"))
    with pytest.raises(ModelError, match="float16's largest, 65504"):
        save_preset(model, tmp_path / "large", dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_mixed_precision_is_saved_as_the_float32_that_its_weights_are(tmp_path: Path) -> None:
    backend.use()
    import keras

    model = tiny_gpt2()
    model.backbone.token_embedding.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model.backbone.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    directory = save_preset(model, tmp_path / "mixed")
    for name in ("config.json", "task.json"):
        text = (directory / name).read_text("utf-8")
        assert "mixed" not in text
        json.loads(text)
    assert Hub(str(directory)).load().causal_lm.dtype_policy.name == "float32"


def test_saving_changes_nothing_about_the_model(tmp_path: Path) -> None:
    model = tiny_gpt2()
    task, before = model.causal_lm, logits(model.causal_lm)
    layers = len(list(task._flatten_layers()))
    save_preset(model, tmp_path / "poet")
    assert task.preprocessor is None
    assert len(list(task._flatten_layers())) == layers
    np.testing.assert_array_equal(logits(task), before)


class TestWhereItGoes:
    def test_an_existing_preset_is_replaced_only_when_told(self, tmp_path: Path) -> None:
        first, second = tiny_gpt2(seed=1), tiny_gpt2(seed=2)
        directory = save_preset(first, tmp_path / "poet")
        with pytest.raises(ModelArgumentError, match="overwrite=True"):
            save_preset(second, directory)
        np.testing.assert_array_equal(logits(Hub(str(directory)).load().causal_lm), logits(first.causal_lm))
        save_preset(second, directory, overwrite=True)
        np.testing.assert_array_equal(logits(Hub(str(directory)).load().causal_lm), logits(second.causal_lm))
        assert [path.name for path in tmp_path.iterdir()] == ["poet"]

    def test_what_is_no_preset_is_never_replaced(self, tmp_path: Path) -> None:
        precious = tmp_path / "thesis"
        precious.mkdir()
        (precious / "chapter1.txt").write_text("…", encoding="utf-8")
        with pytest.raises(ModelArgumentError, match="is not replaced"):
            save_preset(tiny_gpt2(), precious, overwrite=True)
        assert (precious / "chapter1.txt").is_file()

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "poet").write_text("", encoding="utf-8")
        with pytest.raises(ModelArgumentError, match="is a file"):
            save_preset(tiny_gpt2(), tmp_path / "poet", overwrite=True)

    def test_parents_are_made_and_an_empty_directory_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for target in (tmp_path / "empty", tmp_path / "a" / "b" / "poet"):
            assert (save_preset(tiny_gpt2(), target) / "config.json").is_file()

    def test_it_can_be_read_by_those_who_can_read_its_parent(self, tmp_path: Path) -> None:
        """A temporary directory's private mode must not stay on the preset."""
        directory = save_preset(tiny_gpt2(), tmp_path / "poet")
        sibling = tmp_path / "sibling"
        sibling.mkdir()
        assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(sibling.stat().st_mode)

    def test_a_failure_half_way_leaves_the_old_preset_and_no_scraps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = tiny_gpt2(seed=1)
        directory = save_preset(first, tmp_path / "poet")
        write = saving._write

        def full_disk(model: LanguageModel, preprocessor: Any, partial: Path, dtype: Any) -> None:
            write(model, preprocessor, partial, dtype)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(saving, "_write", full_disk)
        with pytest.raises(ModelError, match="No space left"):
            save_preset(tiny_gpt2(seed=2), directory, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["poet"]
        np.testing.assert_array_equal(logits(Hub(str(directory)).load().causal_lm), logits(first.causal_lm))


@pytest.mark.skipif(sys.platform != "linux", reason="it limits the size of files as POSIX does")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99, 1.0])
def test_a_full_disk_while_hdf5_writes_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, dtype: Any, share: float
) -> None:
    import resource

    model = tiny_gpt2(num_layers=1)
    size = (save_preset(model, tmp_path / "whole", dtype=dtype) / "model.weights.h5").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share) - 1, limits[1]))
    try:
        with pytest.raises(ModelError, match="File too large"):
            save_preset(model, tmp_path / "poet", dtype=dtype)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelArgumentError, match="int8"):
        save_preset(tiny_gpt2(), tmp_path / "poet", dtype="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["another end", "no merges"])
def test_a_tokenizer_that_keras_hub_can_t_hold_is_kept_by_us(kind: str, tmp_path: Path) -> None:
    """KerasHub's can't be without `<|endoftext|>`, nor without merges: it then loads the model alone."""
    import keras_hub

    model = tiny_gpt2(300 if kind == "another end" else 257)
    vocabulary, merges = tiny_vocabulary(300, last=("</s>",)) if kind == "another end" else tiny_vocabulary(257)
    model.tokenizer = ByteLevelBPE(vocabulary, merges)
    directory = save_preset(model, tmp_path / "poet")
    assert Hub(str(directory)).load().tokenizer == model.tokenizer
    theirs = keras_hub.models.CausalLM.from_preset(str(directory))
    assert theirs.preprocessor is None
    np.testing.assert_array_equal(logits(theirs), logits(model.causal_lm))


def _numpy(tensor: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def test_a_weight_that_is_no_number_is_named_and_nothing_is_saved(tmp_path: Path) -> None:
    model = tiny_gpt2(300)
    bias = model.backbone.transformer_layers[0]._feedforward_output_dense.bias
    for value in (float("nan"), float("-inf")):
        bias.assign(np.where(np.arange(bias.shape[0]) == 1, value, 0.0))
        with pytest.raises(ModelError, match=r"feedforward_output_dense/bias.* holds NaN or infinity"):
            save_preset(model, tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
