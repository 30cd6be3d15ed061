"""Architectures that go through KerasHub's converters: their logits are transformers', or they are refused by name."""

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
from tiny import tiny_vocabulary
from tokenizers import AddedToken as RustToken
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ModelFormatError
from kerasgen.models import architectures, transformers_format
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset
from kerasgen.models.transformers_settings import settings

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5}

READ: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    ("Mistral", {"sliding_window": 5, "head_dim": 16, "rms_norm_eps": 1e-2}),
    ("Mixtral", {"num_local_experts": 4, "sliding_window": 5, "rms_norm_eps": 1e-2}),
    ("Qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    ("Qwen2Moe", {**EXPERTS, "shared_expert_intermediate_size": 48, "norm_topk_prob": True, "rms_norm_eps": 1e-2}),
    ("Qwen3", {"head_dim": 16}),
    ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    ("Qwen3Moe", {**EXPERTS, "head_dim": 16}),
    ("Qwen3Moe", {**EXPERTS, "head_dim": 16, "mlp_only_layers": [0, 2]}),
    ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 5}),
    ("Gemma", {"head_dim": 16}),
    ("Gemma2", GEMMA),
    ("Gemma3", GEMMA | {"num_hidden_layers": 7}),
    ("SmolLM3", {"rms_norm_eps": 1e-2}),
]
TOKEN_IDS = [5, 77, 130, 299, 3, 77, 12, 268, 31, 4, 199, 200, 201, 7, 8, 9]


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.nightly
@pytest.mark.essential
def test_what_is_read_says_what_transformers_says(tmp_path: Path) -> None:
    for package in ("transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    asked = [(name, SIZES | ends | {"initializer_range": 0.3} | further) for name, further in READ]
    code = f"""
        import numpy as np, torch, transformers
        for n, (name, sizes) in enumerate({asked!r}):
            torch.manual_seed(n)
            config = getattr(transformers, ("Gemma3Text" if name == "Gemma3" else name) + "Config")(**sizes)
            model = getattr(transformers, name + "ForCausalLM")(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim == 1:
                        parameter.add_(0.1 * torch.randn_like(parameter))
                logits = model(torch.tensor([{TOKEN_IDS}])).logits[0].numpy()
            model.save_pretrained({str(tmp_path)!r} + f"/{{n}}")
            np.save({str(tmp_path)!r} + f"/{{n}}/logits.npy", logits)
        """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "USE_TF": "0"}
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=600, env=environment
    )
    assert run.returncode == 0, run.stderr
    for n, (name, further) in enumerate(READ):
        directory = tmp_path / str(n)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        expected = np.load(directory / "logits.npy")
        assert expected.std() > 1
        found = logits(transformers_format.convert(str(directory), config))
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4, err_msg=f"{name} {further}")


def logits(causal_lm: Any) -> np.ndarray:
    import keras

    ids = np.asarray([TOKEN_IDS], "int32")
    outputs = causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(keras.ops.convert_to_numpy(outputs))[0]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"hidden_act": "mish"}, "hidden_act='mish'"),
    ("llama", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_scaling.*ntk"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "attention_factor": 0.5}}, "attention_factor=0.5"),
    ("llama", {"rope_parameters": {**LLAMA3_ROPE, "factor": None, "x": 1}}, "x=1"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"num_key_value_heads": [2, 1]}, r"num_key_value_heads=\[2, 1\]"),
    ("llama", {"layer_types": ["full_attention"] * 4}, "layer_types"),
    ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier=12.0"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
    ("llama", {"hidden_size": None}, "hidden_size=None"),
    ("qwen2", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "sliding_window"),
    ("gemma3_text", GEMMA | {"attn_logit_softcapping": 0.5}, "attn_logit_softcapping=0.5"),
    ("gptj", {}, "model_type='gptj'"),
    ("phi", {}, "model_type='phi'"),
]


@pytest.mark.one_backend
@pytest.mark.parametrize(("model_type", "said", "named"), REFUSED)
def test_what_a_converter_would_pass_over_is_named_before_anything_is_loaded(
    model_type: str, said: dict[str, Any], named: str, tmp_path: Path
) -> None:
    """There are no weights at all here: the configuration alone decides."""
    config = {"model_type": model_type, **SIZES, **said}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=named):
        Hub(str(tmp_path)).load()


NOT_IN_KERAS_HUB: list[tuple[str, dict[str, Any], str]] = [
    ("smollm3", {"tie_word_embeddings": False}, "tied_head=False"),
    ("llama", {"attention_bias": True}, "attention.query_bias=True"),
    ("llama", {"mlp_bias": True}, "feedforward.up_bias=True"),
    ("llama", {"hidden_act": "gelu"}, "feedforward.activation='gelu'"),
    ("llama", {"head_dim": 16}, "attention.head_dim=16"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "positions.scaling=DynamicScaling"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "positions.scaling=YarnScaling"),
    ("mistral", {"tie_word_embeddings": True}, "tied_head=True"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}, "attention.windows"),
    ("qwen3", {"head_dim": 16}, "query_key_norm.epsilon=1e-06"),
    ("qwen3", {"head_dim": 16, "attention_bias": True}, "attention.query_bias=True"),
    ("gemma", {"head_dim": 16, "rms_norm_eps": 1e-5}, "norm.epsilon=1e-05"),
    ("gemma", {"head_dim": 16, "rope_theta": 500.0}, "positions.base=500.0"),
    ("gemma2", GEMMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "positions.base=1000000.0"),
    ("gemma2", GEMMA | {"query_pre_attn_scalar": 8}, "attention.scale=0.35"),
    ("gemma3_text", GEMMA | {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "positions.scaling=YarnScaling"),
]


@pytest.mark.one_backend
@pytest.mark.parametrize(("model_type", "said", "named"), NOT_IN_KERAS_HUB)
def test_what_keras_hub_s_layers_would_pass_over_is_described_and_named(
    model_type: str, said: dict[str, Any], named: str
) -> None:
    checked = transformers_format.check_config("here", {"model_type": model_type, **SIZES, **said})
    architecture = architectures.named(model_type)
    assert architecture is not None
    assert named in architecture.hub_reason(architecture.read_config(checked))


@pytest.mark.one_backend
def test_a_configuration_of_before_there_was_grouped_attention_is_completed() -> None:
    """Llama 1's has neither `num_key_value_heads` nor `tie_word_embeddings`, and its rotary base is the first one."""
    config = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    found = settings("llama", {"model_type": "llama", **config})
    assert found["num_key_value_heads"] == 4
    assert found["tie_word_embeddings"] is False
    assert found["rotary"][""].base == 10_000.0


def small_weights(*, seed: int) -> dict[str, np.ndarray]:
    """The tensors of a Llama or Mistral of one layer, of values that float16 would round."""
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (300, 32), "lm_head.weight": (300, 32), "model.norm.weight": (32,)}
    at = "model.layers.0."
    shapes |= {f"{at}self_attn.{name}_proj.weight": (32 if name in "qo" else 16, 32) for name in "qkvo"}
    shapes |= {f"{at}mlp.{name}_proj.weight": (64, 32) for name in ("gate", "up")}
    shapes |= {f"{at}mlp.down_proj.weight": (32, 64), f"{at}input_layernorm.weight": (32,)}
    shapes |= {f"{at}post_attention_layernorm.weight": (32,)}
    return {name: rng.standard_normal(shape).astype("float32") * 1e-3 for name, shape in shapes.items()}


def small_config(model_type: str, **said: Any) -> dict[str, Any]:
    return {"model_type": model_type, **SIZES, "num_hidden_layers": 1, **said}


@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_weights_are_read_as_they_are_stored(model_type: str, tmp_path: Path) -> None:
    """KerasHub's converter of Mistral rounds each weight to float16."""
    weights = small_weights(seed=1)
    save_file(weights, tmp_path / "model.safetensors")
    causal_lm = transformers_format.convert(str(tmp_path), small_config(model_type))
    table = causal_lm.backbone.token_embedding
    np.testing.assert_array_equal(np.asarray(table.embeddings), weights["model.embed_tokens.weight"])
    np.testing.assert_array_equal(np.asarray(table.reverse_embeddings), weights["lm_head.weight"].T)
    dense = causal_lm.backbone.transformer_layers[0]._feedforward_output_dense
    np.testing.assert_array_equal(np.asarray(dense.kernel), weights["model.layers.0.mlp.down_proj.weight"].T)


@pytest.mark.one_backend
class TestTensors:
    def refused(self, directory: Path, weights: dict[str, np.ndarray], named: str, **said: Any) -> None:
        save_file(weights, directory / "model.safetensors")
        with pytest.raises(ModelFormatError, match=named):
            transformers_format.convert(str(directory), small_config("llama", **said))

    def test_one_that_a_converter_leaves_is_named(self, tmp_path: Path) -> None:
        bias = {"model.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)}
        self.refused(tmp_path, small_weights(seed=1) | bias, r"q_proj\.bias")

    def test_a_head_beside_tied_embeddings_is_named(self, tmp_path: Path) -> None:
        self.refused(tmp_path, small_weights(seed=1), r"head of its own.*lm_head", tie_word_embeddings=True)

    def test_a_missing_one_is_named(self, tmp_path: Path) -> None:
        weights = small_weights(seed=1)
        del weights["lm_head.weight"]
        self.refused(tmp_path, weights, r"lm_head\.weight")

    def test_a_misshapen_one_is_named(self, tmp_path: Path) -> None:
        self.refused(tmp_path, small_weights(seed=1), r"gate_proj|down_proj|up_proj", intermediate_size=48)


def test_a_tied_llama_comes_back_from_a_preset(tmp_path: Path) -> None:
    """Its `get_config` does not say that the embeddings are the head, and its preset could not be read."""
    import keras_hub

    from kerasgen.models.saving import _unsaid

    weights = small_weights(seed=2)
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    backbone = transformers_format.convert(str(tmp_path), small_config("llama", tie_word_embeddings=True)).backbone
    said = _unsaid(backbone, backbone.get_config())
    assert said == {"tie_word_embeddings": True}
    again = keras_hub.models.Llama3Backbone.from_config(backbone.get_config() | said)
    assert len(again.weights) == len(backbone.weights)


LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama(directory: Path, change: Any = None, **settings: Any) -> Tokenizer:
    """A small Llama's directory with a tokenizer as Llama 3's; returns the library's."""
    vocabulary, merges = tiny_vocabulary(294, last=())
    made = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    split = pre_tokenizers.Split(Regex(LLAMA3_CUT), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|begin|>", "<|end|>", "<|eot|>", "<|sep|>"])
    made.add_tokens(["<user>", RustToken("春風", lstrip=True)])
    template = {"single": "<|begin|> $A", "special_tokens": [("<|begin|>", made.token_to_id("<|begin|>"))]}
    made.post_processor = processors.Sequence(
        [processors.ByteLevel(False), processors.TemplateProcessing(pair="$A $B", **template)]
    )
    if change is not None:
        change(made)
    made.save(str(directory / "tokenizer.json"))
    said = {"bos_token": "<|begin|>", "eos_token": "<|end|>", **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    ends = [made.token_to_id("<|end|>"), made.token_to_id("<|eot|>")]
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    (directory / "config.json").write_text(json.dumps(small_config("llama")), encoding="utf-8")
    save_file(small_weights(seed=4), directory / "model.safetensors")
    return made


@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda made: setattr(made, "pre_tokenizer", pre_tokenizers.ByteLevel(False)),
        lambda made: setattr(made.model, "ignore_merges", True),
        lambda made: setattr(made, "normalizer", normalizers.NFC()),
        lambda made: setattr(made, "pre_tokenizer", pre_tokenizers.ByteLevel(True)),
        lambda made: setattr(
            made, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])
        ),
    ],
    ids=["as Llama 3", "as GPT-2", "merges ignored", "normalized", "space before", "digits together"],
)
def test_a_directory_s_tokenizer_is_what_its_file_says(change: Any, tmp_path: Path) -> None:
    theirs = llama(tmp_path, change)
    theirs.encode_special_tokens = True
    model = Hub(str(tmp_path)).load()
    assert model.causal_lm.preprocessor is None
    assert model.metadata["max_position_embeddings"] == 64
    for tokenizer in (model.tokenizer, Hub(str(save_preset(model, tmp_path / "preset"))).load().tokenizer):
        for text in ("a<user>b  春風 c", "it's 12345 <user><user>", "nothing", "e\u0301 <|sep|>"):
            assert [tokenizer.start_token_id, *tokenizer.encode(text)] == theirs.encode(text).ids
        assert tokenizer.encode_with_special("a<|sep|>", "all")[-1] == theirs.token_to_id("<|sep|>")
        ids = [theirs.token_to_id(token) for token in ("<|end|>", "<|eot|>", "<|sep|>", "<user>")]
        assert tokenizer.end_token_ids == tuple(ids[:2])
        assert tokenizer.decode(ids, skip_special_tokens=True) == theirs.decode(ids) == "<user>"
        assert tokenizer == model.tokenizer
    with pytest.raises(ExportArgumentError, match="cut a text otherwise"):
        kg.PresetExporter().export(model, tmp_path / "out")


def test_a_directory_that_puts_nothing_before_a_text_has_no_start_token(tmp_path: Path) -> None:
    llama(tmp_path, lambda made: setattr(made, "post_processor", processors.ByteLevel(False)))
    assert Hub(str(tmp_path)).load().tokenizer.start_token_id is None
