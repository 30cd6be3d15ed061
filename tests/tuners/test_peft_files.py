"""Adapters as peft keeps them, there and back: names, blocks of fused tensors, and what is refused by name.

That transformers with peft computes the same with such a file is `test_peft_itself.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contained import Contained
from safetensors.numpy import load_file, save_file
from tiny import tiny_gpt2, tiny_llama

import kerasgen as kg
from kerasgen.errors import ModelFormatError, TuneArgumentError
from kerasgen.models import described
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.tuners import adapters, peft_files
from kerasgen.tuners.adapters import AdapterConfig

pytestmark = pytest.mark.one_backend

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "llama": lambda: tiny_llama(num_layers=1),
    "gpt2": lambda: tiny_gpt2(num_layers=1),
    **{name: (lambda name=name: Contained(name).load()) for name in ("phi3", "gpt_neox", "bloom", "falcon")},
}


def adapted(name: str, **settings: Any) -> LanguageModel:
    model = MODELS[name]()
    adapters.enable(model, AdapterConfig(**{"rank": 2, "alpha": 6.0, "targets": ("all",)} | settings), seed=0)
    rng = np.random.default_rng(0)
    for layer in adapters.carrying(model):
        layer.lora_kernel_b.assign(0.1 * rng.standard_normal(layer.lora_kernel_b.shape))
        if layer.lora_magnitude is not None:
            layer.lora_magnitude.assign(
                np.asarray(layer.lora_magnitude) * rng.uniform(0.5, 1.5, layer.lora_magnitude.shape)
            )
    return model


def assert_same(one: LanguageModel, other: LanguageModel, *, atol: float = 0.0) -> None:
    for ours, theirs in zip(described.weights_of(one)["layers"], described.weights_of(other)["layers"], strict=True):
        for role in ("query", "key", "value", "output", "up", "down"):
            np.testing.assert_allclose(ours[role]["kernel"], theirs[role]["kernel"], atol=atol)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"rank_stabilized": True}),
        ("gpt2", {"use_dora": True}),
        ("gpt2", {"targets": ("query", "value", "output"), "rank_stabilized": True}),
        ("phi3", {"use_dora": True}),
        ("gpt_neox", {}),
        ("bloom", {}),
        ("falcon", {}),
    ],
)
def test_what_was_written_is_read_again(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = adapted(name, **settings)
    peft_files.write(model, tmp_path / "adapters")
    again = MODELS[name]()
    config = peft_files.read(again, tmp_path / "adapters")
    assert adapters.current(again) == adapters.current(model)
    assert (config.rank, config.alpha) == (2, 6.0)
    assert_same(again, model)


def test_names_and_settings_are_those_of_peft(tmp_path: Path) -> None:
    peft_files.write(adapted("gpt2", targets=("query", "output")), tmp_path / "adapters", base_model="openai/gpt2")
    file = load_file(str(tmp_path / "adapters" / "adapter_model.safetensors"))
    before = "base_model.model.transformer.h.0.attn"
    assert {name: array.shape for name, array in file.items()} == {
        f"{before}.c_attn.lora_A.weight": (6, 32),
        f"{before}.c_attn.lora_B.weight": (96, 6),
        f"{before}.c_proj.lora_A.weight": (2, 32),
        f"{before}.c_proj.lora_B.weight": (32, 2),
    }
    second = file[f"{before}.c_attn.lora_B.weight"]
    assert second[:32, :2].any()
    assert not second[32:].any()
    assert not second[:32, 2:].any()
    said = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert said["target_modules"] == ["attn.c_proj", "c_attn"]  # the feed-forward part has a c_proj too
    assert said["rank_pattern"] == {"transformer.h.0.attn.c_attn": 6}
    assert said["alpha_pattern"] == {"transformer.h.0.attn.c_attn": 18.0}
    assert (said["fan_in_fan_out"], said["base_model_name_or_path"]) == (True, "openai/gpt2")


def test_one_pair_for_a_fused_tensor_is_the_same_pair_for_each_part(tmp_path: Path) -> None:
    """As peft makes it of `target_modules=["c_attn"]`; its product is added to queries, keys and values alike."""
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 32), (96, 4)))
    save(tmp_path, {f"{GPT2}.c_attn.lora_A.weight": first, f"{GPT2}.c_attn.lora_B.weight": second}, r=4, lora_alpha=8)
    model = MODELS["gpt2"]()
    before = described.weights_of(model)["layers"][0]
    peft_files.read(model, tmp_path)
    after = described.weights_of(model)["layers"][0]
    for place, role in enumerate(("query", "key", "value")):
        wanted = 2.0 * (second[32 * place : 32 * (place + 1)] @ first).T
        np.testing.assert_allclose(after[role]["kernel"] - before[role]["kernel"], wanted, atol=1e-5)


GPT2 = "base_model.model.transformer.h.0.attn"
PAIR = {
    f"{GPT2}.c_proj.lora_A.weight": np.ones((2, 32), np.float32),
    f"{GPT2}.c_proj.lora_B.weight": np.ones((32, 2), np.float32),
}


def save(directory: Path, file: dict[str, Any], **settings: Any) -> None:
    save_file(file, str(directory / "adapter_model.safetensors"))
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["c_proj"], "bias": "none"} | settings
    (directory / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (PAIR, {"peft_type": "IA3"}, "kind 'IA3'"),
        (PAIR, {"bias": "all"}, "bias='all' is not computed"),
        (PAIR, {"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\]"),
        (PAIR, {"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changed the base"),
        (PAIR, {"alpha_pattern": {"c_proj": 9}}, "alpha_pattern is not computed"),
        (PAIR, {"r": 1, "alpha_pattern": {"c_proj": 8}}, "rank 2, and others 1"),
        (PAIR, {"use_dora": True}, "a, b where a, b, m are needed"),
        ({"base_model.model.lm_head.lora_A.weight": np.ones((2, 32), np.float32)}, {}, "lm_head.*belongs to no"),
        (PAIR | {f"{GPT2}.c_proj.lora_B.weight": np.ones((31, 2), np.float32)}, {}, r"c_proj has matrices of"),
        ({}, {}, "holds no adapter"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    file: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(tmp_path, file, **settings)
    model = one_gpt2()
    with pytest.raises(ModelFormatError, match=message) as error:
        peft_files.read(model, tmp_path)
    assert str(tmp_path) in str(error.value)
    assert adapters.current(model) is None


_MADE: list[LanguageModel] = []


def one_gpt2() -> LanguageModel:
    """One model for all that leaves it as it is."""
    if not _MADE:
        _MADE.append(MODELS["gpt2"]())
    return _MADE[0]


def test_files_that_are_damaged_or_in_the_way(tmp_path: Path) -> None:
    model = adapted("gpt2", targets=("query",))
    with pytest.raises(ModelFormatError, match="can't be read"):
        peft_files.read(one_gpt2(), tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "poem.txt").write_text("spring")
    for overwrite in (False, True):
        with pytest.raises(TuneArgumentError, match="is there already"):
            peft_files.write(model, tmp_path / "full", overwrite=overwrite)
    peft_files.write(model, tmp_path / "adapters")
    peft_files.write(model, tmp_path / "adapters", overwrite=True)
    (tmp_path / "adapters" / "adapter_model.safetensors").write_bytes(b"{")
    with pytest.raises(ModelFormatError, match="can't be read"):
        peft_files.read(one_gpt2(), tmp_path / "adapters")
    with pytest.raises(TuneArgumentError, match="no adapters"):
        peft_files.write(one_gpt2(), tmp_path / "none")


def test_a_pipeline_goes_on_with_adapters_that_it_loads(tmp_path: Path) -> None:
    save_preset(tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=32), tmp_path / "base")
    settings: dict[str, Any] = {"held_out": 0.0, "tuner": "lora:rank=2,targets=attention,epochs=1,batch_size=2"}
    pipe = kg.Pipeline(["the sea and the spring"] * 8, str(tmp_path / "base"), **settings)
    pipe.fit(verbose=0)
    text = pipe.generate("the", sampler="greedy", max_new_tokens=8)
    path = pipe.save_adapter(tmp_path / "adapters")
    settings["tuner"] = "lora:rank=8,epochs=1,batch_size=2,quantize=int8"
    plain = kg.Pipeline(model=str(tmp_path / "base"))
    plain.load_adapter(path)
    assert plain.generate("the", sampler="greedy", max_new_tokens=8) == text
    other = kg.Pipeline(["the sea and the spring"] * 8, str(tmp_path / "base"), **settings)
    other.load_adapter(path)
    before = adapters.current(other.model)
    assert before is not None
    assert (before.rank, before.quantize) == (2, "int8")
    other.fit(verbose=0)
    assert adapters.current(other.model) == before
    assert (other.save(tmp_path / "poet") / "adapters").is_dir()  # the base is still its source's
