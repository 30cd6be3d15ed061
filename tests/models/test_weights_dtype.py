"""Weights held in bfloat16: what is computed with them, tuned beside them, saved and loaded of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import keras
import numpy as np
import pytest
from contained import Contained
from ml_dtypes import bfloat16
from tiny import tiny_gpt2, tiny_llama
from toys import encode, smallest_gpt2, smallest_llama, texts

import kerasgen as kg
from kerasgen.errors import ArgumentError, ModelArgumentError, ModelFormatError
from kerasgen.generation import engine_registry, generate_ids
from kerasgen.models import described, forward, quantized_base, transformers_format, weights_dtype
from kerasgen.models.base import LanguageModel
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.models.saving import save_preset
from kerasgen.samplers.sampling import Greedy
from kerasgen.tuners import adapters

PROMPT = [5, 77, 130, 299, 3, 77, 12, 268]


def halved(model: LanguageModel) -> LanguageModel:
    """Hold a model's big weights in bfloat16."""
    quantized_base.hold(quantized_base.targets(forward.decoder_of(model)), "bfloat16")
    return model


def rounded(model: LanguageModel) -> LanguageModel:
    """Round the same weights and hold them in float32."""
    halved(model)
    for layer in model.network._flatten_layers():
        if quantized_base.is_on(layer):
            quantized_base.release(layer)
    return model


def held_bytes(model: LanguageModel) -> int:
    return sum(np.asarray(variable).nbytes for variable in model.network.weights)


def generated(model: LanguageModel, **settings: Any) -> list[int]:
    return list(generate_ids(model, [PROMPT[:3]], sampler=Greedy(), max_new_tokens=8, **settings)[0][0].token_ids)


@pytest.mark.numerical
@pytest.mark.parametrize("make", [tiny_gpt2, smallest_llama, Contained().load])
def test_texts_are_those_of_the_same_weights_in_float32(make: Any) -> None:
    """Tied and not, KerasHub's layers and a container; the engine holds bfloat16 too, and lends it out once."""
    model, same = halved(make()), rounded(make())
    assert held_bytes(model) < 0.6 * held_bytes(same)
    texts_of_one, texts_of_several = generated(model), generate_ids(model, [PROMPT[:3]] * 3, sampler=Greedy(), seed=1)
    assert texts_of_one == generated(same)
    assert list(texts_of_several[0][0].token_ids[:8]) == generated(same)
    weights = engine_registry.resolve(model).weights
    assert weights["embedding"]["tokens"].dtype == bfloat16
    assert weights["layers"][0]["query_key_value"]["kernel"].dtype == bfloat16
    if keras.config.backend() == "jax":
        lent = [variable for variable in model.network.variables if variable.dtype == "bfloat16"]
        assert lent
        assert all(variable._value is None for variable in lent)
    for one, other in zip(described.weights_of(model)["layers"], described.weights_of(same)["layers"], strict=True):
        for role in ("query", "output", "down"):
            np.testing.assert_array_equal(one[role]["kernel"], other[role]["kernel"])
    assert generated(model) == texts_of_one


def test_adapters_learn_float32_beside_bfloat16_as_beside_float32(tmp_path: Path) -> None:
    tuner = kg.LoraTuner(
        rank=2, alpha=8.0, targets=("attention",), max_steps=6, batch_size=4, sequence_length=32, precision="float32"
    )
    model, same = halved(smallest_llama()), rounded(smallest_llama())
    before = adapters.digest_of_others(model)
    report, beside = (
        tuner.tune(each, encode(each.tokenizer, texts(20)), seed=1, directory=tmp_path / name, verbose=0)
        for each, name in ((model, "half"), (same, "whole"))
    )
    np.testing.assert_allclose(report.losses, beside.losses, rtol=1e-4)
    assert report.losses[-1] < report.losses[0]
    assert (report.base, beside.base) == ("bfloat16", "float32")
    assert adapters.digest_of_others(model) == before
    assert {variable.dtype for _, variable in adapters.thin(model)} == {"float32"}
    told = generated(same)
    assert generated(model) == told
    adapters.merge(model)
    assert generated(model) == told, "what was learned is not rounded away"
    block = forward.decoder_of(model).parts["layers"][0]  # type: ignore[union-attr]
    assert [quantized_base.is_half(block[role]) for role in ("query", "output", "up")] == [False, False, True]


@pytest.mark.one_backend
def test_the_full_tuner_makes_float32_of_them_first(tmp_path: Path) -> None:
    tuner = kg.FullTuner(max_steps=4, batch_size=4, sequence_length=32, precision="float32")
    model, same = halved(smallest_gpt2()), rounded(smallest_gpt2())
    report, beside = (
        tuner.tune(each, encode(each.tokenizer, texts(20)), seed=1, directory=tmp_path / name, verbose=0)
        for each, name in ((model, "half"), (same, "whole"))
    )
    assert report.losses == beside.losses
    assert {variable.dtype for variable in model.network.trainable_weights} == {"float32"}
    assert report.trainable_parameters == report.parameters


@pytest.mark.one_backend
def test_a_pipeline_holds_saves_and_loads_them(tmp_path: Path) -> None:
    """Its texts are the same from the files alone, from Keras's variables, and from what was saved, whole and apart."""
    save_preset(rounded(smallest_gpt2()), tmp_path / "base")
    settings: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 8}
    wanted = kg.Pipeline(model=tmp_path / "base").generate("the", **settings)
    pipe = kg.Pipeline(
        ["the sea and the spring"] * 8,
        tmp_path / "base",
        weights="bfloat16",
        held_out=0.0,
        tuner="lora:rank=2,max_steps=2,batch_size=2,learning_rate=0.02",
    )
    assert "weights='bfloat16'" in repr(pipe)
    assert pipe.generate("the", **settings) == wanted
    assert pipe._model is None, "an engine of the files wrote it"
    assert pipe._stored_engine.weights["embedding"]["tokens"].dtype == bfloat16  # type: ignore[union-attr]
    assert weights_dtype.held(pipe.model) == "bfloat16"
    assert pipe.generate("the", **settings) == wanted
    whole = pipe.save(tmp_path / "whole")
    assert json.loads((whole / "pipeline.json").read_text())["weights"] == "bfloat16"
    again = kg.Pipeline.load(whole)
    assert weights_dtype.held(again.model) == "bfloat16"
    assert again.generate("the", **settings) == wanted
    assert weights_dtype.held(kg.Pipeline.load(whole, weights="float32").model) is None
    pipe.fit(verbose=0)
    told = pipe.generate("the", **settings)
    apart = kg.Pipeline.load(pipe.save(tmp_path / "apart"))
    assert apart.generate("the", **settings) == told
    assert adapters.current(apart.model) is not None
    assert quantized_base.scheme_of(apart.model.network) == "bfloat16"
    merged = kg.Pipeline.load(pipe.save(tmp_path / "merged", merge_adapters=True))
    assert merged.weights is None, "what was learned would be rounded away"
    assert merged.generate("the", **settings) == told


@pytest.mark.one_backend
def test_a_gguf_file_is_rounded_as_it_is_read(tmp_path: Path) -> None:
    file = kg.Pipeline(model=Contained("qwen3")).export(tmp_path / "model.gguf", dtype="F16").path
    pipe, whole = kg.Pipeline(model=file, weights="bfloat16"), kg.Pipeline(model=file)
    wanted, found = described.weights_of(whole.model), described.weights_of(pipe.model)
    assert weights_dtype.held(pipe.model) == "bfloat16"
    for one, other in zip(found["layers"], wanted["layers"], strict=True):
        np.testing.assert_array_equal(one["up"]["kernel"], other["up"]["kernel"].astype(bfloat16).astype(np.float32))
        np.testing.assert_array_equal(one["attention_norm"]["scale"], other["attention_norm"]["scale"])


@pytest.mark.one_backend
def test_what_can_t_be_is_told_before_a_model_is_loaded() -> None:
    with pytest.raises(
        ModelArgumentError, match=r"must be 'float32' or 'bfloat16' or 'auto', or None.*Files in float16 are read"
    ):
        kg.Pipeline(weights="float16")  # type: ignore[arg-type]
    model = tiny_gpt2()
    attach_preprocessor(model)
    with pytest.raises(ArgumentError, match="a CausalLM in memory stays as it is"):
        kg.Pipeline(model=model.causal_lm, weights="bfloat16")


@pytest.mark.one_backend
@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_a_directory_of_quantized_weights_is_refused_by_the_name_of_its_method(method: str, tmp_path: Path) -> None:
    said = {"model_type": "llama", **SIZES, "quantization_config": {"quant_method": method, "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=f"quantized by {method} .*Take the model that it was made from"):
        kg.Pipeline(model=tmp_path, weights="bfloat16").model  # noqa: B018


def _by_jax(model: LanguageModel) -> Any:
    """Return the logits after the prompt that the JAX engine computes with what it holds."""
    engine = engine_registry.resolve(model)
    return np.asarray(engine.open([PROMPT], [len(PROMPT) + 1]).logits())[0]  # type: ignore[union-attr]


SIZES: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
# Tied and not, with norms on queries and keys, biases, a table of positions, soft caps, windows, norms of 1 + w.
WRITTEN: list[tuple[str, dict[str, Any], str]] = [
    ("Llama", {**SIZES, "tie_word_embeddings": True}, "bfloat16"),
    ("Llama", SIZES, "float16"),
    ("Qwen3", {**SIZES, "head_dim": 16}, "bfloat16"),
    ("Gemma2", {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5}, "bfloat16"),
    ("GPT2", GPT2, "float16"),
    ("GPT2", GPT2, "bfloat16"),
]


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.numerical
@pytest.mark.nightly
def test_what_transformers_saves_in_half_precision_says_what_transformers_says(tmp_path: Path) -> None:
    """Sharded directories of transformers' own, held in bfloat16 and in float32, against its logits in float32."""
    for package in ("transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    code = f"""
        import numpy as np, torch, transformers
        for n, (name, sizes, dtype) in enumerate({WRITTEN!r}):
            torch.manual_seed(n)
            config = getattr(transformers, name + "Config")(**sizes)
            model = getattr(transformers, name + ("LMHeadModel" if name == "GPT2" else "ForCausalLM"))(config).eval()
            model.to(getattr(torch, dtype)).save_pretrained(f"{{n}}", max_shard_size="20KB")
            model = type(model).from_pretrained(f"{{n}}", dtype=torch.float32).eval()  # the angles are no weights
            with torch.no_grad():
                logits = [model(torch.tensor([{PROMPT!r}])).logits[0].numpy()]
                for key, weight in model.named_parameters():
                    if weight.dim() > 1 and "wpe" not in key:
                        weight.copy_(weight.to(torch.bfloat16).float())
                logits.append(model(torch.tensor([{PROMPT!r}])).logits[0].numpy())
            np.save(f"{{n}}.npy", np.stack(logits))
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", dedent(code)], cwd=tmp_path, env=environment, check=True, timeout=300)
    tokenizer = tiny_llama().tokenizer
    for n, (name, _, dtype) in enumerate(WRITTEN):
        folder = tmp_path / str(n)
        assert len(list(folder.glob("*.safetensors"))) > 2
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inputs = {"token_ids": np.asarray([PROMPT]), "padding_mask": np.ones((1, len(PROMPT)), np.int32)}
        for scheme, wanted in zip((None, "bfloat16"), np.load(tmp_path / f"{n}.npy"), strict=True):
            with quantized_base.loading(scheme):  # type: ignore[arg-type]
                network = transformers_format.convert(str(folder), config)
            is_hubs = hasattr(network, "backbone")
            model = LanguageModel(network if is_hubs else None, tokenizer, "", {}, None if is_hubs else network)
            held = [variable.dtype for variable in network.weights if len(variable.shape) > 1]
            assert ("bfloat16" in held) == (scheme is not None), (name, dtype)
            logits = np.asarray(network(inputs))[0]
            np.testing.assert_allclose(logits, wanted, atol=2e-4 * np.abs(wanted).max(), err_msg=f"{name} in {dtype}")
            np.testing.assert_allclose(_by_jax(model), wanted[-1], atol=2e-4 * np.abs(wanted).max(), err_msg=name)
