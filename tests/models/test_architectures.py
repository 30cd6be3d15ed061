"""An architecture's table of names reads KerasHub's weights, and writes and reads those of other formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import undrawn

from kerasgen.decoder import weights as by_name
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.models import architectures
from kerasgen.models.architectures import keras_weights, tensors

TOKENS = np.random.default_rng(0).integers(0, 37, (1, 20))
LEARNED = {
    "vocabulary_size": 37,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 24,
    "intermediate_dim": 20,
    "max_sequence_length": 32,
}
ROTARY = {
    "vocabulary_size": 37,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 24,
    "intermediate_dim": 20,
    "layer_norm_epsilon": 1e-3,
    "rope_max_wavelength": 500,
}
LLAMA_3 = {
    "rope_frequency_adjustment_factor": 4.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 16,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", LEARNED),
    "opt": ("OPT", LEARNED),
    "llama": ("Llama", ROTARY),
    "llama_tied": ("Llama", ROTARY | {"tie_word_embeddings": True}),
    "llama_3": ("Llama3", ROTARY | LLAMA_3),
    # An argument that KerasHub's layers take and leave out: what counts is what they compute.
    "llama_linear": ("Llama", ROTARY | {"rope_position_scaling_factor": 4.0}),
}


def make(name: str) -> tuple[Any, Any]:
    """A KerasHub model all of whose weights are drawn, and its architecture."""
    import keras_hub

    family, settings = MODELS[name]
    with undrawn():
        backbone = getattr(keras_hub.models, f"{family}Backbone")(**settings, dtype="float32")
    rng = np.random.default_rng(1)
    for variable in backbone.trainable_variables:
        variable.assign(
            rng.normal(0.0, 0.3, variable.shape) + float("scale" in variable.path or "gamma" in variable.path)
        )
    architecture = architectures.of_backbone(type(backbone).__name__)
    assert architecture is not None
    return getattr(keras_hub.models, f"{family}CausalLM")(backbone=backbone, preprocessor=None), architecture


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_computes_keras_hubs_forward_pass(name: str) -> None:
    causal_lm, architecture = make(name)
    mask = np.ones_like(TOKENS)
    expected = np.asarray(causal_lm({"token_ids": TOKENS, "padding_mask": mask}))[0]
    config = keras_weights.describe(architecture, causal_lm.backbone)
    weights = keras_weights.read(architecture, causal_lm.backbone)
    found = NumpyDecoder(config, weights).read(TOKENS[0].tolist())
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["transformers", "gguf"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_back(name: str, kind: Any) -> None:
    causal_lm, architecture = make(name)
    config = keras_weights.describe(architecture, causal_lm.backbone)
    weights = keras_weights.read(architecture, causal_lm.backbone)
    prefix = architecture.transformers_prefixes[0] if kind == "transformers" else ""
    file = {
        tensor.removeprefix(prefix): array
        for tensor, array in tensors.write(architecture, config, weights, kind).items()
    }

    def take(tensor: str, shape: tuple[int, ...]) -> Any:
        array = file.pop(tensor)
        assert array.shape == shape
        return array

    found = tensors.read(architecture, config, take, kind)
    assert not file
    given = by_name.flat(weights)
    assert given.keys() == by_name.flat(found).keys()
    for weight, array in by_name.flat(found).items():
        np.testing.assert_array_equal(array, given[weight])
    for variable in causal_lm.backbone.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    keras_weights.assign(architecture, causal_lm.backbone, found)
    for weight, array in by_name.flat(keras_weights.read(architecture, causal_lm.backbone)).items():
        np.testing.assert_array_equal(array, given[weight])


def test_llama_cpps_queries_and_keys_are_rotated_by_neighbours() -> None:
    """Its converter takes the rows of transformers' matrix, heads by halves by pairs, and swaps the last two."""
    causal_lm, architecture = make("llama")
    config = keras_weights.describe(architecture, causal_lm.backbone)
    weights = keras_weights.read(architecture, causal_lm.backbone)
    here = tensors.write(architecture, config, weights, "transformers")
    there = tensors.write(architecture, config, weights, "gguf")
    for other, name, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        matrix = here[f"model.layers.1.self_attn.{name}.weight"]
        rows, width = matrix.shape
        wanted = matrix.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)
        np.testing.assert_array_equal(there[f"blk.1.{other}.weight"], wanted)
    np.testing.assert_array_equal(there["blk.1.attn_v.weight"], here["model.layers.1.self_attn.v_proj.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_with_what_is_written(name: str) -> None:
    import torch
    import transformers

    causal_lm, architecture = make(name)
    config = keras_weights.describe(architecture, causal_lm.backbone)
    weights = keras_weights.read(architecture, causal_lm.backbone)
    keys = architecture.settings(config)
    made = transformers.AutoConfig.for_model(architecture.name, **keys)
    model = getattr(transformers, architecture.transformers_class)(made).eval()
    file = tensors.write(architecture, config, weights, "transformers")
    loaded = model.load_state_dict(
        {tensor: torch.from_numpy(np.ascontiguousarray(array)) for tensor, array in file.items()}, strict=False
    )
    assert not loaded.unexpected_keys
    assert loaded.missing_keys in ([], ["lm_head.weight"])
    model.tie_weights()
    with torch.no_grad():
        found = model(torch.from_numpy(TOKENS)).logits[0].numpy()
    expected = np.asarray(causal_lm({"token_ids": TOKENS, "padding_mask": np.ones_like(TOKENS)}))[0]
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_every_architecture_is_found_by_each_of_its_names() -> None:
    for name in architectures.names():
        known = architectures.named(name)
        assert known is not None
        assert known.name == name
        if known.gguf is not None:
            of_gguf = architectures.named_in_gguf(known.gguf, experts=known.has_experts)
            assert of_gguf is not None
            assert of_gguf.gguf == known.gguf
    assert set(architectures.backbones()) >= {
        known.backbone for known in map(architectures.named, architectures.names())
    } - {None}
    assert architectures.of_backbone("BertBackbone") is None
    assert architectures.named("bert") is None
