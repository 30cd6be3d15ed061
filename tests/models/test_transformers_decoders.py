"""A transformers directory of any architecture with a table of names is read and written as transformers does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import described
import numpy as np
import pytest
from described import TOKENS, drawn
from safetensors.numpy import save_file
from transformers_state import state

from kerasgen.decoder import weights as by_name
from kerasgen.decoder.config import LearnedPositions, RotaryPositions
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.decoder.rotary_scaling import YarnScaling
from kerasgen.errors import ExportArgumentError
from kerasgen.models import architectures, keras_decoder, packed, transformers_format
from kerasgen.models.architectures import Architecture, gguf_settings, keras_weights, tensors
from kerasgen.models.transformers_settings import settings
from kerasgen.models.transformers_tensors import Tensors

_DATA = Path(__file__).parents[1] / "decoder"
LOGITS = np.load(_DATA / "transformers_logits.npz")
SAVED: dict[str, dict[str, Any]] = json.loads((_DATA / "transformers_configs.json").read_text(encoding="utf-8"))
# Positions without a table have no limit of their own.
CONFIGS = {
    name: config if isinstance(config.positions, LearnedPositions) else replace(config, max_sequence_length=None)
    for name, config in described.CONFIGS.items()
}
NAMES = [name for name, config in CONFIGS.items() if architectures.named(config.architecture) is not None]


def known(name: str) -> Architecture:
    found = architectures.named(CONFIGS[name].architecture)
    assert found is not None
    return found


HELD = [name for name in NAMES if not known(name).hub_reason(CONFIGS[name])]


def directory(folder: Path, name: str, **said: Any) -> Path:
    """The files that transformers saves of a decoder, with weights named and laid out by hand."""
    (folder / "config.json").write_text(json.dumps({**SAVED[name], **said}), encoding="utf-8")
    save_file(
        {tensor: np.ascontiguousarray(array) for tensor, array in state(CONFIGS[name]).items()},
        folder / "model.safetensors",
    )
    return folder


@pytest.mark.one_backend
@pytest.mark.parametrize("name", NAMES)
class TestWhatTransformersSaves:
    def test_its_settings_are_read(self, name: str) -> None:
        assert known(name).read_config(settings(name, SAVED[name])) == CONFIGS[name]

    def test_settings_that_are_written_are_read_back(self, name: str) -> None:
        said = {"model_type": known(name).name, **known(name).settings(CONFIGS[name]), "resid_pdrop": 0.1}
        said = {key: value for key, value in said.items() if key != "resid_pdrop" or name == "gpt2"}
        assert known(name).read_config(settings(name, said)) == CONFIGS[name]

    def test_its_weights_compute_its_logits(self, name: str, tmp_path: Path) -> None:
        with Tensors(str(directory(tmp_path, name)), prefixes=known(name).transformers_prefixes) as source:
            weights = tensors.read(known(name), CONFIGS[name], source.take, "transformers")
            source.check_all_read()
        given = by_name.flat(drawn(CONFIGS[name]))
        for weight, array in by_name.flat(weights).items():
            np.testing.assert_array_equal(array, given[weight], err_msg=weight)
        np.testing.assert_allclose(NumpyDecoder(CONFIGS[name], weights).read(TOKENS), LOGITS[name], atol=1e-4)

    def test_its_weights_are_written(self, name: str) -> None:
        written = tensors.write(known(name), CONFIGS[name], drawn(CONFIGS[name]), "transformers")
        wanted = state(CONFIGS[name])
        assert written.keys() == wanted.keys()
        for tensor, array in written.items():
            if "embed_positions" in tensor:
                array, wanted[tensor] = array[2:], wanted[tensor][2:]
            np.testing.assert_array_equal(array, wanted[tensor], err_msg=tensor)

    def test_llama_cpps_tensors_are_read_back(self, name: str) -> None:
        file = tensors.write(known(name), CONFIGS[name], drawn(CONFIGS[name]), "gguf")
        found = tensors.read(known(name), CONFIGS[name], lambda tensor, shape: file[tensor].reshape(shape), "gguf")
        for weight, array in by_name.flat(drawn(CONFIGS[name])).items():
            np.testing.assert_allclose(by_name.flat(found)[weight], array, atol=1e-6, err_msg=weight)


@pytest.mark.one_backend
@pytest.mark.parametrize("said", [{}, {"rope_parameters": None}, {"rope_scaling": None, "rope_theta": 500.0}])
def test_a_gpt_oss_that_says_nothing_of_a_scaling_has_that_of_transformers(said: dict[str, Any]) -> None:
    """What `transformers.GptOssConfig` of 5.24 makes of these settings."""
    whole = known("gpt_oss").settings(CONFIGS["gpt_oss"])
    bare = {key: value for key, value in whole.items() if not key.startswith("rope_")}
    positions = known("gpt_oss").read_config(settings("gpt_oss", {"model_type": "gpt_oss", **bare, **said})).positions
    scaling = YarnScaling(32.0, 4096, beta_fast=32.0, beta_slow=1.0, truncate=False)
    assert positions == RotaryPositions(said.get("rope_theta", 150_000.0), scaling=scaling)


@pytest.mark.one_backend
def test_a_gpt_oss_without_a_scaling_says_so_for_transformers_would_scale() -> None:
    config = replace(CONFIGS["gpt_oss"], positions=RotaryPositions(500.0))
    said = known("gpt_oss").settings(config)
    assert said["rope_scaling"] == {"rope_type": "default"}
    assert known("gpt_oss").read_config(settings("gpt_oss", {"model_type": "gpt_oss", **said})) == config


# What llama.cpp computes otherwise, or has no key for.
NOT_IN_GGUF = {
    "llama_dynamic": "DynamicScaling",
    "llama_yarn": "YarnScaling",
    "mistral": "sliding_window",
    "gemma2": "attention.scale",
    "gemma3_text": "attention.windows",
    "phi3": "attention.windows",
    "phi3_held": "LongRopeScaling",
    "falcon_held": "norm_placement",
    "olmo2": "attention.head_dim",
    "starcoder2_windowed": "attention.windows",
    "mixtral_held": "attention.windows",
    "qwen2_moe_held": "experts.normalize",
    "qwen3_moe_held": "experts.normalize",
}


@pytest.mark.one_backend
@pytest.mark.parametrize("name", NAMES)
def test_what_a_gguf_file_says_is_the_description_or_is_refused(name: str) -> None:
    config = replace(CONFIGS[name], max_sequence_length=64)
    if known(name).gguf is None:
        assert name in ("opt", "gpt_oss", "gpt_oss_held")
    elif NOT_IN_GGUF.get(name):
        with pytest.raises(ExportArgumentError, match=NOT_IN_GGUF[name]) as caught:
            gguf_settings.check(known(name), config)
        if name in ("mistral", "starcoder2_windowed"):  # whose windows alone stand in the way
            assert "max_sequence_length=5" in str(caught.value)
            gguf_settings.check(known(name), replace(config, max_sequence_length=5))
    else:
        gguf_settings.check(known(name), config)


@pytest.mark.one_backend
@pytest.mark.parametrize(("head_dim", "fraction", "rotated"), [(6, 0.75, 4), (88, 0.69, 60), (98, 0.03, 2)])
def test_a_gguf_file_says_how_many_dimensions_of_a_head_are_rotated(
    head_dim: int, fraction: float, rotated: int
) -> None:
    """Of a fraction that makes no whole number the whole part is rotated, and `88 * (60 / 88)` is below 60."""
    tiny = CONFIGS["gpt_neox"]
    heads = tiny.attention.num_query_heads
    config = replace(
        tiny,
        hidden_dim=heads * head_dim,
        max_sequence_length=64,
        attention=replace(tiny.attention, head_dim=head_dim),
        positions=RotaryPositions(fraction=fraction),
    )
    architecture = known("gpt_neox")
    assert gguf_settings.keys(architecture, config)["rope.dimension_count"] == rotated
    gguf_settings.check(architecture, config)
    positions = gguf_settings.stored(architecture, config).positions
    assert isinstance(positions, RotaryPositions)
    assert positions.rotated_dim(head_dim) == rotated


@pytest.mark.numerical
@pytest.mark.parametrize("name", HELD)
def test_keras_hub_computes_transformers_logits(name: str, tmp_path: Path) -> None:
    causal_lm = transformers_format.convert(str(directory(tmp_path, name)), SAVED[name])
    assert keras_weights.architecture_of(causal_lm) is known(name)
    assert keras_weights.describe(known(name), causal_lm.backbone) == CONFIGS[name]
    for weight, array in by_name.flat(keras_weights.read(known(name), causal_lm.backbone)).items():
        np.testing.assert_array_equal(array, by_name.flat(drawn(CONFIGS[name]))[weight], err_msg=weight)
    ids = np.asarray([TOKENS], "int32")
    given = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    np.testing.assert_allclose(np.asarray(causal_lm(given))[0], LOGITS[name], atol=1e-4)
    if name not in ("gemma2_held", "gpt_neox_held") and CONFIGS[name].feedforward.experts is None:
        return  # KerasHub keeps the kernels of these otherwise than those of all the others
    decoder = keras_decoder.of_backbone(causal_lm.backbone)
    assert decoder is not None
    assert packed.is_fast(decoder)
    given = {
        "token_ids": ids,
        "positions": np.arange(len(TOKENS), dtype="int32")[None],
        "segment_ids": np.ones_like(ids),
    }
    hidden, table, cap, _ = packed.output(decoder, packed.hidden_states(decoder, given, training=False))
    found = np.asarray(hidden)[0] @ np.asarray(table).T
    np.testing.assert_allclose(found if cap is None else cap * np.tanh(found / cap), LOGITS[name], atol=1e-4)


@pytest.mark.numerical
def test_a_container_computes_what_keras_hub_would_compute_otherwise(tmp_path: Path) -> None:
    name = "qwen3"
    container = transformers_format.convert(str(directory(tmp_path, name)), SAVED[name])
    assert container.config == CONFIGS[name]
    ids = np.asarray([TOKENS], "int32")
    found = np.asarray(container({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0]
    np.testing.assert_allclose(found, LOGITS[name], atol=1e-4)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", [name for name in NAMES if name not in HELD])
def test_what_keras_hub_computes_otherwise_is_named(name: str) -> None:
    assert re.match(
        r"KerasHub('s \w+ can't compute [a-z_.]+=| has no class for)", known(name).hub_reason(CONFIGS[name])
    )
