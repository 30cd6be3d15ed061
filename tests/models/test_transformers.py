"""Transformers-format GPT-2 and OPT say the same through KerasHub as by their own definition, written out in NumPy."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import GPT2_END, OPT_END, OPT_PAD
from transformers_files import (
    GPT2_CONFIG,
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    OPT_CONFIG,
    POSITIONS,
    VOCABULARY,
    Weights,
    gpt2_shapes,
    opt_shapes,
    random_weights,
    write_model,
)

from kerasgen.errors import ModelFormatError
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset
from kerasgen.testing.models import ModelContract

TOKEN_IDS = [5, 77, 130, 299, 0, 77, 12, 268, 31, 4, 199]


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + bias


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Causal attention, head by head and position by position; each `(sequence_length, HIDDEN)`."""
    width = HIDDEN // HEADS
    out = np.zeros_like(query)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(query)):
            scores = key[: t + 1, part] @ query[t, part] / np.sqrt(width)
            chances = np.exp(scores - scores.max())
            out[t, part] = (chances / chances.sum()) @ value[: t + 1, part]
    return out


def opt_logits(weights: Weights, token_ids: list[int]) -> np.ndarray:
    """Source: Zhang et al. 2022; positions begin at row 2, norms come first, the activation is ReLU."""
    w = {name: weight.astype("float64") for name, weight in weights.items()}
    x = w["embed_tokens.weight"][token_ids] + w["embed_positions.weight"][2 : 2 + len(token_ids)]
    for layer in range(LAYERS):
        at = f"layers.{layer}."

        def linear(y: np.ndarray, name: str, at: str = at) -> np.ndarray:
            return y @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]

        normed = layer_norm(x, w[f"{at}self_attn_layer_norm.weight"], w[f"{at}self_attn_layer_norm.bias"])
        mixed = attend(*(linear(normed, f"self_attn.{name}_proj") for name in "qkv"))
        x = x + linear(mixed, "self_attn.out_proj")
        normed = layer_norm(x, w[f"{at}final_layer_norm.weight"], w[f"{at}final_layer_norm.bias"])
        x = x + linear(np.maximum(linear(normed, "fc1"), 0), "fc2")
    x = layer_norm(x, w["final_layer_norm.weight"], w["final_layer_norm.bias"])
    return x @ w["embed_tokens.weight"].T


def gpt2_logits(weights: Weights, token_ids: list[int]) -> np.ndarray:
    """Source: Radford et al. 2019; norms come first, the activation is GELU by its tanh formula."""
    w = {name: weight.astype("float64") for name, weight in weights.items()}
    x = w["wte.weight"][token_ids] + w["wpe.weight"][: len(token_ids)]
    for layer in range(LAYERS):
        at = f"h.{layer}."
        normed = layer_norm(x, w[f"{at}ln_1.weight"], w[f"{at}ln_1.bias"])
        query, key, value = np.split(normed @ w[f"{at}attn.c_attn.weight"] + w[f"{at}attn.c_attn.bias"], 3, axis=-1)
        x = x + attend(query, key, value) @ w[f"{at}attn.c_proj.weight"] + w[f"{at}attn.c_proj.bias"]
        normed = layer_norm(x, w[f"{at}ln_2.weight"], w[f"{at}ln_2.bias"])
        wide = normed @ w[f"{at}mlp.c_fc.weight"] + w[f"{at}mlp.c_fc.bias"]
        wide = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        x = x + wide @ w[f"{at}mlp.c_proj.weight"] + w[f"{at}mlp.c_proj.bias"]
    return layer_norm(x, w["ln_f.weight"], w["ln_f.bias"]) @ w["wte.weight"].T


def logits(directory: Path, token_ids: list[int]) -> np.ndarray:
    import keras

    model = Hub(str(directory)).load()
    ids = np.asarray([token_ids], dtype="int32")
    outputs = model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(keras.ops.convert_to_numpy(outputs))[0]


@pytest.fixture(scope="module")
def opt_weights() -> Weights:
    return random_weights(opt_shapes(), seed=11)


@pytest.fixture(scope="module")
def gpt2_weights() -> Weights:
    return random_weights(gpt2_shapes(), seed=12)


@pytest.fixture
def opt(tmp_path: Path, opt_weights: Weights) -> Path:
    return write_model(tmp_path / "opt", OPT_CONFIG, opt_weights, prefix="model.decoder.")


@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder."])
def test_opt_logits_are_those_of_its_definition(prefix: str, tmp_path: Path, opt_weights: Weights) -> None:
    """`OPTForCausalLM` and `OPTModel` write their tensors under different names."""
    directory = write_model(tmp_path / "opt", OPT_CONFIG, opt_weights, prefix=prefix)
    expected = opt_logits(opt_weights, TOKEN_IDS)
    assert expected.std() > 1  # the comparison means something
    np.testing.assert_allclose(logits(directory, TOKEN_IDS), expected, atol=1e-4, rtol=1e-4)


def test_opt_reads_every_position_it_has(opt: Path, opt_weights: Weights) -> None:
    """The last row of the position table belongs to the last position, not to one before it."""
    token_ids = [n % VOCABULARY for n in range(3, 3 + 7 * POSITIONS, 7)]
    np.testing.assert_allclose(logits(opt, token_ids), opt_logits(opt_weights, token_ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_logits_are_those_of_its_definition(prefix: str, tmp_path: Path, gpt2_weights: Weights) -> None:
    directory = write_model(tmp_path / "gpt2", GPT2_CONFIG, gpt2_weights, prefix=prefix)
    expected = gpt2_logits(gpt2_weights, TOKEN_IDS)
    assert expected.std() > 1
    np.testing.assert_allclose(logits(directory, TOKEN_IDS), expected, atol=1e-4, rtol=1e-4)


class TestOptInTransformersFormat(ModelContract):
    @pytest.fixture
    def source(self, opt_module: Path) -> Hub:
        return Hub(str(opt_module))


@pytest.fixture(scope="module")
def opt_module(tmp_path_factory: pytest.TempPathFactory, opt_weights: Weights) -> Path:
    return write_model(tmp_path_factory.mktemp("opt"), OPT_CONFIG, opt_weights, prefix="model.decoder.")


def test_weights_in_several_files_are_found_by_their_index(tmp_path: Path, opt_weights: Weights) -> None:
    whole = write_model(tmp_path / "opt", OPT_CONFIG, opt_weights, prefix="model.decoder.")
    expected = logits(whole, TOKEN_IDS)
    (whole / "model.safetensors").unlink()
    names = sorted(opt_weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    weight_map = {}
    for file, members in parts.items():
        save_file({f"model.decoder.{name}": opt_weights[name] for name in members}, whole / file)
        weight_map |= {f"model.decoder.{name}": file for name in members}
    (whole / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    np.testing.assert_array_equal(logits(whole, TOKEN_IDS), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halved_weights_are_read_as_float32(dtype: str, tmp_path: Path, opt_weights: Weights) -> None:
    """OPT's published weights are float16, and NumPy alone knows no bfloat16."""
    import ml_dtypes

    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    halved = {name: weight.astype(kind) for name, weight in opt_weights.items()}
    directory = write_model(tmp_path / "opt", OPT_CONFIG, halved, prefix="model.decoder.")
    expected = opt_logits({name: weight.astype("float32") for name, weight in halved.items()}, TOKEN_IDS)
    np.testing.assert_allclose(logits(directory, TOKEN_IDS), expected, atol=1e-4, rtol=1e-4)


def test_a_head_that_repeats_the_embeddings_is_accepted_and_another_is_not(
    tmp_path: Path, opt_weights: Weights
) -> None:
    embeddings = opt_weights["embed_tokens.weight"]
    weights = {f"model.decoder.{name}": weight for name, weight in opt_weights.items()}
    tied = write_model(tmp_path / "tied", OPT_CONFIG, weights | {"lm_head.weight": embeddings.copy()})
    expected = opt_logits(opt_weights, TOKEN_IDS)
    np.testing.assert_allclose(logits(tied, TOKEN_IDS), expected, atol=1e-4, rtol=1e-4)
    untied = write_model(tmp_path / "untied", OPT_CONFIG, weights | {"lm_head.weight": embeddings + 1})
    with pytest.raises(ModelFormatError, match="head of its own"):
        Hub(str(untied)).load()


def test_a_converted_opt_saved_as_a_preset_says_the_same(opt: Path, tmp_path: Path) -> None:
    directory = save_preset(Hub(str(opt)).load(), tmp_path / "preset")
    np.testing.assert_array_equal(logits(directory, TOKEN_IDS), logits(opt, TOKEN_IDS))


@pytest.mark.parametrize(
    ("config", "setting", "value"),
    [
        (OPT_CONFIG, "word_embed_proj_dim", 16),
        (OPT_CONFIG, "do_layer_norm_before", False),
        (OPT_CONFIG, "activation_function", "gelu"),
        (OPT_CONFIG, "tie_word_embeddings", False),
        (OPT_CONFIG, "num_attention_heads", 5),
        (OPT_CONFIG, "enable_bias", False),
        (OPT_CONFIG, "quantization_config", {"quant_method": "gptq"}),
        (GPT2_CONFIG, "tie_word_embeddings", False),
        (GPT2_CONFIG, "add_cross_attention", True),
        (GPT2_CONFIG, "auto_map", {"AutoModelForCausalLM": "modeling_other.Other"}),
        (GPT2_CONFIG, "architectures", ["GPT2ForSequenceClassification"]),
        (GPT2_CONFIG, "n_layer", [3, 3]),
        (GPT2_CONFIG, "hidden_size", 64),
        (GPT2_CONFIG, "swiglu_limit", 7.0),
        (GPT2_CONFIG, "activation_function", "relu"),
        (GPT2_CONFIG, "layer_norm_epsilon", 1e-6),
        (GPT2_CONFIG, "scale_attn_by_inverse_layer_idx", True),
        (OPT_CONFIG, "model_type", "ctrl"),
    ],
)
def test_what_keras_hub_s_layers_can_t_compute_is_refused_by_its_setting(
    config: dict[str, Any], setting: str, value: Any, tmp_path: Path, opt_weights: Weights, gpt2_weights: Weights
) -> None:
    """A model that would be read without an error and say something else is the worst outcome."""
    weights = opt_weights if config is OPT_CONFIG else gpt2_weights
    directory = write_model(tmp_path / "model", config | {setting: value}, weights)
    with pytest.raises(ModelFormatError, match=f"{setting}|{value}"):
        Hub(str(directory)).load()


class TestUnread:
    """A tensor that is left, and a setting that is not known, would make another model of the same name."""

    def test_gpt2_s_head_of_its_own_is_refused_and_a_repeated_one_is_not(
        self, tmp_path: Path, gpt2_weights: Weights
    ) -> None:
        weights = {f"transformer.{name}": weight for name, weight in gpt2_weights.items()}
        embeddings = gpt2_weights["wte.weight"]
        untied = write_model(tmp_path / "untied", GPT2_CONFIG, weights | {"lm_head.weight": embeddings[::-1].copy()})
        with pytest.raises(ModelFormatError, match=r"head of its own \('lm_head\.weight'"):
            Hub(str(untied)).load()
        masks = {f"transformer.h.{n}.attn.bias": np.ones((1, 1, 24, 24), np.float32) for n in range(LAYERS)}
        tied = write_model(tmp_path / "tied", GPT2_CONFIG, weights | masks | {"lm_head.weight": embeddings.copy()})
        np.testing.assert_allclose(logits(tied, TOKEN_IDS), gpt2_logits(gpt2_weights, TOKEN_IDS), atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("family", ["gpt2", "opt"])
    def test_a_tensor_without_a_place_is_named(
        self, family: str, tmp_path: Path, opt_weights: Weights, gpt2_weights: Weights
    ) -> None:
        config, weights = (GPT2_CONFIG, gpt2_weights) if family == "gpt2" else (OPT_CONFIG, opt_weights)
        name = "h.1.attn.rotary.bias" if family == "gpt2" else "project_in.weight"
        directory = write_model(tmp_path / "model", config, weights | {name: np.ones(3, np.float32)})
        with pytest.raises(ModelFormatError, match=name.replace(".", r"\.")):
            Hub(str(directory)).load()

    def test_layers_beyond_those_of_the_configuration_are_named(self, tmp_path: Path, gpt2_weights: Weights) -> None:
        directory = write_model(tmp_path / "model", GPT2_CONFIG | {"n_layer": LAYERS - 1}, gpt2_weights)
        with pytest.raises(ModelFormatError, match=r"h\.2\.attn\.c_attn\.bias"):
            Hub(str(directory)).load()

    def test_one_tensor_under_two_names(self, tmp_path: Path, gpt2_weights: Weights) -> None:
        twice = gpt2_weights | {"transformer.wte.weight": gpt2_weights["wte.weight"] + 1}
        with pytest.raises(ModelFormatError, match=r"transformer\.wte\.weight"):
            Hub(str(write_model(tmp_path / "model", GPT2_CONFIG, twice))).load()

    def test_quantized_tensors_are_named(self, tmp_path: Path, gpt2_weights: Weights) -> None:
        codes = gpt2_weights | {"wte.weight": np.ones((VOCABULARY, HIDDEN), np.int8)}
        with pytest.raises(ModelFormatError, match=r"wte\.weight.*int8.*quantized"):
            Hub(str(write_model(tmp_path / "model", GPT2_CONFIG, codes))).load()

    @pytest.mark.parametrize("beside_a_model", [True, False])
    def test_adapters_of_peft_are_named(self, beside_a_model: bool, tmp_path: Path, gpt2_weights: Weights) -> None:
        directory = write_model(tmp_path / "model", GPT2_CONFIG, gpt2_weights)
        (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
        if not beside_a_model:
            (directory / "config.json").unlink()
        with pytest.raises(ModelFormatError, match=r"adapter_config\.json.*load_adapter"):
            Hub(str(directory)).load()

    def test_any_width_inside_gpt2_is_read(self, tmp_path: Path) -> None:
        """KerasHub's own converter knows 4 * n_embd alone."""
        shapes = gpt2_shapes()
        for layer in range(LAYERS):
            at = f"h.{layer}.mlp."
            shapes |= {f"{at}c_fc.weight": (HIDDEN, 48), f"{at}c_fc.bias": (48,), f"{at}c_proj.weight": (48, HIDDEN)}
        weights = random_weights(shapes, seed=5)
        directory = write_model(tmp_path / "model", GPT2_CONFIG | {"n_inner": 48}, weights)
        np.testing.assert_allclose(logits(directory, TOKEN_IDS), gpt2_logits(weights, TOKEN_IDS), atol=1e-4, rtol=1e-4)

    def test_the_whole_file_comes_before_an_index_that_was_left(self, opt: Path, opt_weights: Weights) -> None:
        """Where both lie, transformers reads the single file."""
        left = {"weight_map": {"model.decoder.embed_tokens.weight": "model-00001-of-00001.safetensors"}}
        (opt / "model.safetensors.index.json").write_text(json.dumps(left), encoding="utf-8")
        np.testing.assert_allclose(logits(opt, TOKEN_IDS), opt_logits(opt_weights, TOKEN_IDS), atol=1e-4, rtol=1e-4)

    def test_a_part_that_the_index_names_and_that_is_missing(self, opt: Path) -> None:
        (opt / "model.safetensors").unlink()
        index = {"weight_map": {"model.decoder.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
        (opt / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        with pytest.raises(ModelFormatError, match=r"model-00001-of-00002\.safetensors.*missing"):
            Hub(str(opt)).load()


class TestDamaged:
    def test_a_missing_tensor_is_named(self, tmp_path: Path, opt_weights: Weights) -> None:
        weights = {name: weight for name, weight in opt_weights.items() if name != "layers.1.fc2.bias"}
        directory = write_model(tmp_path / "opt", OPT_CONFIG, weights, prefix="model.decoder.")
        with pytest.raises(ModelFormatError, match=r"layers\.1\.fc2\.bias"):
            Hub(str(directory)).load()

    def test_a_tensor_of_another_shape_is_named_with_both_shapes(self, tmp_path: Path, opt_weights: Weights) -> None:
        directory = write_model(tmp_path / "opt", OPT_CONFIG | {"ffn_dim": 64}, opt_weights, prefix="model.decoder.")
        with pytest.raises(ModelFormatError, match=r"fc1\.weight.*\(128, 32\).*\(64, 32\)"):
            Hub(str(directory)).load()

    @pytest.mark.parametrize("kept", [4, 200, 20_000])
    def test_a_weights_file_that_was_cut_short(self, opt: Path, kept: int) -> None:
        path = opt / "model.safetensors"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors.*damaged"):
            Hub(str(opt)).load()

    def test_pickled_weights_are_named_with_what_to_do(self, opt: Path) -> None:
        (opt / "model.safetensors").rename(opt / "pytorch_model.bin")
        with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin.*save_pretrained"):
            Hub(str(opt)).load()

    def test_a_missing_tokenizer_is_named(self, opt: Path) -> None:
        (opt / "merges.txt").unlink()
        with pytest.raises(ModelFormatError, match=r"merges\.txt"):
            Hub(str(opt)).load()

    def test_a_missing_setting_is_named(self, tmp_path: Path, opt_weights: Weights) -> None:
        config = {key: value for key, value in OPT_CONFIG.items() if key != "ffn_dim"}
        directory = write_model(tmp_path / "opt", config, opt_weights)
        with pytest.raises(ModelFormatError, match="ffn_dim"):
            Hub(str(directory)).load()


@pytest.mark.essential
@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_logits_and_ids_are_those_of_transformers_itself(family: str, tmp_path: Path) -> None:
    """The models and tokenizers that transformers 5 writes, read by us, against transformers' own forward pass."""
    for package in ("transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    text = "spring 春\n\nthe 42"
    write_model(
        tmp_path / "tokenizer",
        GPT2_CONFIG if family == "gpt2" else OPT_CONFIG,
        {"unused": np.zeros(1, dtype="float32")},
    )
    code = f"""
        import json, numpy as np, torch, transformers
        torch.manual_seed(3)
        if {family!r} == "gpt2":
            config = transformers.GPT2Config(
                vocab_size={VOCABULARY}, n_embd={HIDDEN}, n_layer={LAYERS}, n_head={HEADS}, n_positions={POSITIONS},
                bos_token_id=299, eos_token_id=299, initializer_range=0.3)
            model = transformers.GPT2LMHeadModel(config)
            names = dict(bos_token={GPT2_END!r}, eos_token={GPT2_END!r}, unk_token={GPT2_END!r})
        else:
            config = transformers.OPTConfig(
                vocab_size={VOCABULARY}, hidden_size={HIDDEN}, num_hidden_layers={LAYERS}, ffn_dim={INNER},
                num_attention_heads={HEADS}, max_position_embeddings={POSITIONS}, init_std=0.3)
            model = transformers.OPTForCausalLM(config)
            names = dict(bos_token={OPT_END!r}, eos_token={OPT_END!r}, unk_token={OPT_END!r}, pad_token={OPT_PAD!r})
        model.eval()
        directory = {str(tmp_path / "model")!r}
        model.save_pretrained(directory)
        tokenizer = transformers.GPT2Tokenizer.from_pretrained({str(tmp_path / "tokenizer")!r}, **names)
        tokenizer.save_pretrained(directory)
        with torch.no_grad():
            logits = model(torch.tensor([{TOKEN_IDS}])).logits[0].numpy()
        np.save({str(tmp_path / "logits.npy")!r}, logits)
        print(json.dumps(tokenizer({text!r}, add_special_tokens=False)["input_ids"]))
        """
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "USE_TF": "0"},
    )
    assert run.returncode == 0, run.stderr
    expected = np.load(tmp_path / "logits.npy")
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits(tmp_path / "model", TOKEN_IDS), expected, atol=1e-4, rtol=1e-4)
    assert Hub(str(tmp_path / "model")).load().tokenizer.encode(text) == json.loads(run.stdout.splitlines()[-1])
