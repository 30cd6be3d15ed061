"""GGUF files as models: whole, of every type, from a hub, and from strangers."""

from __future__ import annotations

import http.server
import random
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import CONFIGS, TOKENS, drawn
from tiny import tiny_gpt2, tiny_llama

import kerasgen as kg
from kerasgen import models, saved_pipeline
from kerasgen.decoder.config import RotaryPositions
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.decoder.rotary_scaling import LinearScaling, Llama3Scaling
from kerasgen.errors import ExportArgumentError, ModelArgumentError, ModelFormatError, ModelUnavailableError
from kerasgen.exporters.gguf import file_format
from kerasgen.generation import generate
from kerasgen.models import architectures, gguf_file, gguf_loading
from kerasgen.models.architectures import gguf_settings, keras_weights
from kerasgen.models.architectures import tensors as tensor_names
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE, CONTEXT_LENGTH, LanguageModel
from kerasgen.models.gguf import Gguf
from kerasgen.models.gguf_file import GgufFile
from kerasgen.models.hub import Hub
from kerasgen.models.resolving import resolve
from kerasgen.models.saving import save_preset
from kerasgen.testing.models import ModelContract

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.one_backend

LOGITS = np.load(Path(__file__).parents[1] / "decoder" / "transformers_logits.npz")


def written(model: LanguageModel, path: Path, dtype: str = "F32", **changes: Any) -> Path:
    """The model as a GGUF file, some of its settings changed."""
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    config = keras_weights.describe(architecture, model.backbone)
    weights = keras_weights.read(architecture, model.backbone)
    length = config.max_sequence_length or 128
    config = type(config)(**{**config.__dict__, "max_sequence_length": length, **changes})
    file_format.write(path, architecture, config, weights, model.tokenizer, dtype=dtype)
    return path


def copied(path: Path, to: Path, keys: dict[str, Any] = {}, tensors: dict[str, Any] = {}) -> Path:  # noqa: B006
    """The file with other keys and tensors; None leaves one out."""
    with GgufFile(path) as file:
        writer = gguf.GGUFWriter(to, file.says["general.architecture"])
        for key, value in {**file.says, **keys}.items():
            if key == "general.architecture" or value is None:
                continue
            if isinstance(value, list | np.ndarray):
                writer.add_array(key, list(value) if isinstance(value, list) else value.tolist())
                continue
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
        held = {name: file.read(name) for name in file.tensors}
    for name, tensor in {**held, **tensors}.items():
        if tensor is not None:
            writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    return tiny_llama(tie_word_embeddings=True)


@pytest.fixture(scope="module")
def llama_file(llama: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(llama, tmp_path_factory.mktemp("llama") / "poet.gguf")


class TestGgufFromDisk(ModelContract):
    """Of a tied Llama, so that a preset of one is written and read too."""

    @pytest.fixture
    def source(self, llama_file: Path) -> Gguf:
        return Gguf(str(llama_file))

    def test_it_is_the_model_that_was_written(self, model: LanguageModel, llama: LanguageModel) -> None:
        ids = llama.tokenizer.encode("the sand and the sea")
        assert model.tokenizer.encode("the sand and the sea") == ids
        np.testing.assert_array_equal(self.logits(model, ids), self.logits(llama, ids))
        assert model.metadata[CONTEXT_LENGTH] == 128

    def test_it_says_what_it_came_from(self, model: LanguageModel) -> None:
        told = model.metadata[BASE_MODEL]
        assert told == {"name": "poet", "format": "gguf", "file": "poet.gguf", "types": ["F32"]}


def test_what_a_model_came_from_survives_the_disk_and_another_file(
    llama: LanguageModel, llama_file: Path, tmp_path: Path
) -> None:
    """A licence holds for what is made of the weights, and a conversation is written as the model knows it."""
    keys = {"general.license": "mit", "general.languages": ["en", "zh"], "tokenizer.chat_template": "{{ messages }}"}
    model = Gguf(str(copied(llama_file, tmp_path / "x.gguf", keys))).load()
    again = resolve(save_preset(model, tmp_path / "preset")).load()
    assert dict(again.metadata) == dict(model.metadata)
    artefact = kg.GgufExporter().export(again, tmp_path / "y.gguf")
    with GgufFile(artefact.path) as file:
        assert file.says["general.license"] == "mit"
        assert file.says["general.languages"] == ["en", "zh"]
        assert file.says["general.base_model.0.name"] == "poet"
        assert file.says["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_a_file_of_another_architecture_is_its_model(make: Any, tmp_path: Path) -> None:
    made = make()
    model = Gguf(str(written(made, tmp_path / "x.gguf"))).load()
    for one, other in zip(made.backbone.weights, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_llama_3s_factors_are_its_scaling_again(tmp_path: Path) -> None:
    """KerasHub's class has the scaling by its three lengths, and the file has what each frequency is divided by."""
    scaling = {"rope_frequency_adjustment_factor": 8.0, "rope_low_freq_factor": 1.0, "rope_high_freq_factor": 4.0}
    made = tiny_llama(hidden_dim=128, num_heads=2, rope_pretraining_sequence_length=64, **scaling)
    model = Gguf(str(written(made, tmp_path / "x.gguf"))).load()
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    positions = keras_weights.describe(architecture, model.backbone).positions
    assert isinstance(positions, RotaryPositions)
    assert positions.scaling == Llama3Scaling(8.0, 1.0, 4.0, 64)


def test_what_keras_hub_has_no_layers_for_is_held_without_it(llama: LanguageModel, tmp_path: Path) -> None:
    positions = RotaryPositions(scaling=LinearScaling(4.0))
    path = written(llama, tmp_path / "x.gguf", positions=positions)
    model = Gguf(str(path)).load()
    assert model.causal_lm is None
    assert "positions.scaling=LinearScaling" in model.hub_reason
    ids = llama.tokenizer.encode("the sand and the sea")
    _, config, weights, _ = file_format.read(path)
    wanted = NumpyDecoder(config, weights).read(ids)
    inputs = {"token_ids": np.asarray([ids]), "padding_mask": np.ones((1, len(ids)), np.int32)}
    found = np.asarray(model.network(inputs))[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def in_gguf(name: str) -> bool:
    """Whether a file can say this description."""
    architecture = architectures.named(CONFIGS[name].architecture)
    try:
        if architecture is not None and architecture.gguf is not None:
            gguf_settings.check(architecture, replace(CONFIGS[name], max_sequence_length=64))
            return True
    except ExportArgumentError:
        pass
    return False


@pytest.mark.parametrize("name", [name for name in CONFIGS if in_gguf(name)])
def test_a_file_of_each_architecture_computes_transformers_logits(name: str, tmp_path: Path) -> None:
    config = replace(CONFIGS[name], max_sequence_length=64)
    architecture = architectures.named(config.architecture)
    assert architecture is not None
    tokenizer = tiny_llama(num_layers=1).tokenizer  # of more tokens than these models have, and not asked for here
    file_format.write(tmp_path / "x.gguf", architecture, config, drawn(config), tokenizer, dtype="F32")
    with GgufFile(tmp_path / "x.gguf") as file:
        found, said = gguf_loading.described(file)
        weights = tensor_names.read(found, said, lambda tensor, shape: file.read(tensor).reshape(shape), "gguf")
    # A file has no key for which of the two forms of GELU a GPT-NeoX has.
    is_same = said.feedforward.activation == config.feedforward.activation
    assert is_same or name == "gpt_neox_held"
    found_logits = NumpyDecoder(said, weights).read(TOKENS)
    np.testing.assert_allclose(found_logits, LOGITS[name], atol=1e-4 if is_same else 1e-3)


def file_of(name: str, path: Path, **changes: Any) -> Path:
    """A file of a described decoder with drawn weights."""
    config = replace(CONFIGS[name], max_sequence_length=64)
    architecture = architectures.named(config.architecture)
    assert architecture is not None
    tokenizer = tiny_llama(num_layers=1).tokenizer  # as above
    written = replace(config, **changes)
    file_format.write(path, architecture, written, drawn(config), tokenizer, dtype="F32")
    return path


def logits(path: Path) -> Any:
    """What a file's decoder predicts."""
    with GgufFile(path) as file:
        architecture, config = gguf_loading.described(file)
        weights = tensor_names.read(architecture, config, gguf_loading._taking(file, in_half=False), "gguf")
    return NumpyDecoder(config, weights).read(TOKENS)


LONG_ROPE: Any = CONFIGS["phi3_held"].positions.scaling  # type: ignore[union-attr]
LONG_ROPE_KEYS = {
    "phi3.rope.scaling.original_context_length": LONG_ROPE.original_length,
    "phi3.rope.scaling.attn_factor": LONG_ROPE.attention_factor,
}
LONG_ROPE_TENSORS = {
    "rope_factors_long.weight": np.asarray(LONG_ROPE.long_factors, np.float32),
    "rope_factors_short.weight": np.asarray(LONG_ROPE.short_factors, np.float32),
}


def test_a_phi_3_with_long_rope_computes_transformers_logits(tmp_path: Path) -> None:
    """As llama.cpp's converter writes Phi-3.5 and Phi-4 mini: two tensors of factors, and a factor of all."""
    plain = file_of("phi3_held", tmp_path / "plain.gguf", positions=RotaryPositions())
    path = copied(plain, tmp_path / "x.gguf", LONG_ROPE_KEYS, LONG_ROPE_TENSORS)
    np.testing.assert_allclose(logits(path), LOGITS["phi3_held"], atol=1e-4)
    with GgufFile(path) as file:
        _, config = gguf_loading.described(file)
    assert isinstance(config.positions, RotaryPositions)
    rounded = float(str(np.float32(LONG_ROPE.attention_factor)))  # a file's numbers have 32 bits
    assert config.positions.scaling == replace(LONG_ROPE, attention_factor=rounded)


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({}, {"rope_factors_short.weight": None}, r"takes the tensors .* It has 1 of them"),
        ({"phi3.rope.scaling.type": "linear"}, {}, r"rope.scaling.type is 'linear'"),
        ({"phi3.rope.scaling.original_context_length": None}, {}, r"does not say '.*original_context_length'"),
        ({}, {"rope_factors_short.weight": np.ones(2, np.float32)}, r"as many as"),
        ({}, dict.fromkeys(LONG_ROPE_TENSORS, np.ones(2, np.float32)), r"one for each of 3 frequencies"),
    ],
)
def test_half_of_long_rope_is_refused(tmp_path: Path, keys: Any, tensors: Any, message: str) -> None:
    plain = file_of("phi3_held", tmp_path / "plain.gguf", positions=RotaryPositions())
    path = copied(plain, tmp_path / "x.gguf", LONG_ROPE_KEYS | keys, LONG_ROPE_TENSORS | tensors)
    with pytest.raises(ModelFormatError, match=message):
        Gguf(str(path)).load()


def test_a_vector_may_lie_as_one_row_and_a_key_say_what_is_usual(tmp_path: Path) -> None:
    """A shared expert's gate is `(1, width)` in transformers, which some converters leave as it is."""
    plain = file_of("qwen2_moe_held", tmp_path / "plain.gguf")
    with GgufFile(plain) as file:
        gates = {name: file.read(name)[None] for name in file.tensors if "ffn_gate_inp_shexp" in name}
    assert gates
    usual = {"qwen2moe.expert_weights_scale": 1.0, "qwen2moe.expert_gating_func": 1}
    path = copied(plain, tmp_path / "x.gguf", usual, gates)
    np.testing.assert_array_equal(logits(path), logits(plain))
    other = copied(plain, tmp_path / "y.gguf", {"qwen2moe.expert_weights_scale": 2.0})
    with pytest.raises(ModelFormatError, match=r"expert_weights_scale' is 2.0.*computes with 1.0"):
        Gguf(str(other)).load()


def test_texts_are_written_from_the_file_itself(llama: LanguageModel, llama_file: Path) -> None:
    """Nothing of Keras is loaded for it, and the weights are in memory once."""
    pipe = kg.Pipeline(model=str(llama_file), backend="jax")
    text = pipe.generate("the sand and the sea", max_new_tokens=24, sampler="greedy")
    assert pipe._model is None
    (wanted,) = generate(llama, ["the sand and the sea"], max_new_tokens=24, sampler="greedy")
    assert text == wanted


@pytest.mark.parametrize("kind", sorted({*gguf_file._PLAIN, *(kind.name for kind in gguf.quants._type_traits)}))
def test_every_type_is_read_by_pieces_as_the_package_reads_it_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[number]
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 60, (5, 512 // block * block_bytes), dtype=np.uint8)  # small enough to be finite as floats
    wanted = raw.view(np.float64) if kind == "F64" else gguf.quants.dequantize(raw, number)
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x", raw, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setattr(gguf_file, "_AT_ONCE", 1024)
    with GgufFile(path) as file:
        assert file.tensors["x"].kind == kind
        found = file.read("x")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_a_type_that_nobody_decodes_is_named(llama_file: Path, tmp_path: Path) -> None:
    data = bytearray(llama_file.read_bytes())
    at = data.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    for number, name in ((gguf.GGMLQuantizationType.Q8_K.value, "Q8_K"), (999, "999")):
        data[at : at + 4] = struct.pack("<I", number)
        (tmp_path / "x.gguf").write_bytes(data)
        with pytest.raises(ModelFormatError, match=f"'output_norm.weight' is .*{name}"):
            Gguf(str(tmp_path / "x.gguf")).load()


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"llama.attention.sliding_window": 64}, {}, r"says 'llama.attention.sliding_window' = 64.*does not use"),
        ({"llama.expert_count": 8}, {}, r"does not say 'llama.expert_used_count'"),
        ({"llama.expert_count": 8, "llama.expert_used_count": 2}, {}, r"no tensor 'blk.0.ffn_gate_inp.weight'"),
        ({"llama.expert_used_count": 2}, {}, r"'llama.expert_used_count' is 2.*computes with 0"),
        ({"llama.rope.scaling.type": "yarn"}, {}, r"rope.scaling.type is 'yarn'"),
        ({"llama.block_count": None}, {}, r"does not say 'llama.block_count'"),
        ({"llama.block_count": 10**9}, {}, r"num_layers"),
        ({"llama.block_count": 3}, {}, r"no tensor 'blk.2.attn_norm.weight'"),
        ({"llama.block_count": 1}, {}, r"tensors 'blk.1.attn_norm.weight'.*does not use"),
        ({"llama.feed_forward_length": 65}, {}, r"'blk.0.ffn_gate.weight' has .* \(64, 32\).*implies \(65, 32\)"),
        ({"llama.embedding_length": 64}, {}, r"rope.dimension_count' is 8.*computes with 16"),
        ({"llama.attention.head_count": 0}, {}, r"whole number from 1. It is 0"),
        ({"llama.vocab_size": 299}, {}, r"vocab_size' is 299.*computes with 300"),
        ({"llama.rope.freq_base": "many"}, {}, r"freq_base' must be a number above 0. It is 'many'"),
        ({"split.count": 3}, {}, r"one of 3 files.*llama-gguf-split --merge"),
        ({"general.type": "adapter"}, {}, r"holds a 'adapter'"),
        ({}, {"blk.0.attn_q.bias": np.zeros(32, np.float32)}, r"no tensor 'blk.0.attn_k.bias'.*implies"),
        ({}, {"blk.0.attn_k.bias": np.zeros(16, np.float32)}, r"tensors 'blk.0.attn_k.bias'.*does not use"),
        ({}, {"blk.1.ffn_up.weight": None}, r"no tensor 'blk.1.ffn_up.weight'"),
        ({}, {"output_norm.weight": np.full(32, np.nan, np.float32)}, r"'output_norm.weight' holds a number that is"),
        ({"tokenizer.ggml.tokens": None}, {}, r"tokens"),
    ],
)  # fmt: skip
def test_what_a_description_does_not_use_or_lacks_is_named(
    llama_file: Path, tmp_path: Path, keys: Any, tensors: Any, message: str
) -> None:
    path = copied(llama_file, tmp_path / "x.gguf", keys, tensors)
    with pytest.raises(ModelFormatError, match=message):
        Gguf(str(path)).load()


def test_what_changes_nothing_is_passed_over(llama_file: Path, tmp_path: Path) -> None:
    keys = {"llama.tensor_data_layout": "Meta AI original pth", "llama.expert_count": 0, "general.license": "mit"}
    path = copied(llama_file, tmp_path / "x.gguf", {**keys, "tokenizer.chat_template": "{{ messages }}"})
    model = Gguf(str(path)).load()
    assert model.metadata[BASE_MODEL]["license"] == "mit"
    assert model.metadata[CHAT_TEMPLATE] == "{{ messages }}"


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_of_a_stranger_is_an_error_of_ours_or_its_numbers(
    llama_file: Path, tmp_path: Path, seed: int
) -> None:
    raw = llama_file.read_bytes()
    with GgufFile(llama_file) as file:
        start = min(tensor.offset for tensor in file.tensors.values())
    draw, path, refused = random.Random(seed), tmp_path / "x.gguf", 0
    for turn in range(80):
        data = bytearray(raw)
        for place in draw.choices(range(start), k=draw.choice([1, 2, 8])):
            data[place] = draw.randrange(256)
        path.write_bytes(data if turn % 8 else data[: draw.randrange(len(data))])
        try:
            with GgufFile(path) as file:
                gguf_loading.described(file)
        except (ModelFormatError, ModelArgumentError, ValueError):
            refused += 1
    assert refused > 20


HUGE = (1 << 63) - 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut"),
        (b"PK\3\4" + bytes(64), "begins with"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE), "announces"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE) + bytes(64), "announces"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 8, HUGE), "announces"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 9, 1) + bytes(64), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 77) + bytes(64), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"a", 1, 1 << 60, 0, 0) + bytes(64), "does not lie in"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"a", 900) + bytes(64), "900 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"a", 1, 7, 8, 0) + bytes(64), "can't hold"),
    ],
)  # fmt: skip
def test_no_length_in_a_file_is_taken_on_trust(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ModelFormatError, match=message):
        Gguf(str(tmp_path / "x.gguf")).load()


def test_tensors_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A few bytes could otherwise be announced as gigabytes of weights."""
    place = struct.pack("<Q1sIQIQ", 1, b"a", 1, 8, 0, 0) + struct.pack("<Q1sIQIQ", 1, b"b", 1, 8, 0, 0)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + place + bytes(96))
    with pytest.raises(ModelFormatError, match="'a' and 'b' lie over each other"):
        GgufFile(tmp_path / "x.gguf")


def test_a_header_has_a_limit_that_the_environment_raises(llama_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASGEN_MAX_JSON_BYTES", "100")
    with pytest.raises(ModelFormatError, match=r"The limit is 100; raise it with .* KERASGEN_MAX_JSON_BYTES"):
        GgufFile(llama_file)


def test_adapters_find_the_file_that_they_belong_to_where_both_were_moved(llama_file: Path, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    base = tmp_path / "before" / "poet.gguf"
    base.write_bytes(llama_file.read_bytes())
    told = saved_pipeline._base(Gguf(str(base)), tmp_path / "before" / "tuned")
    source = models.REGISTRY.from_manifest(told["model"])
    assert saved_pipeline._located_base(source, told, tmp_path / "before" / "tuned") == Gguf(str(base))
    (tmp_path / "before").rename(tmp_path / "after")
    found = saved_pipeline._located_base(source, told, tmp_path / "after" / "tuned")
    assert found == Gguf(str(tmp_path / "after" / "poet.gguf"))
    (tmp_path / "after" / "poet.gguf").unlink()
    with pytest.raises(ModelFormatError, match=r"no longer at .*before/poet\.gguf', nor at .*after/poet\.gguf'"):
        saved_pipeline._located_base(source, told, tmp_path / "after" / "tuned")


class TestAddresses:
    def test_what_ends_with_gguf_is_a_file(self, tmp_path: Path) -> None:
        assert resolve("poet.gguf") == resolve(Path("poet.gguf")) == Gguf("poet.gguf")
        assert resolve("~/models/Poet.GGUF") == Gguf("~/models/Poet.GGUF")
        assert resolve("hf://a/b/c.gguf") == Gguf("hf://a/b/c.gguf")
        assert resolve("gguf:file=x") == Gguf("x")
        (tmp_path / "folder.gguf").mkdir()
        assert resolve(tmp_path / "folder.gguf") == Hub(str(tmp_path / "folder.gguf"))

    @pytest.mark.parametrize("file", ["", "hf://a.gguf", "hf://a/b", "hf://a/b/../c.gguf", "s3://a/b/c.gguf", 3])
    def test_other_forms_are_refused_at_once(self, file: Any) -> None:
        with pytest.raises(ModelArgumentError, match="Received"):
            Gguf(file)

    def test_a_file_that_is_not_there_is_said_before_keras_is_loaded(self, tmp_path: Path) -> None:
        (tmp_path / "poet.gguf").write_bytes(b"")
        with pytest.raises(ModelUnavailableError, match=r"Did you mean.*poet\.gguf"):
            Gguf(str(tmp_path / "poets.gguf")).check()

    def test_a_source_survives_its_text(self, llama_file: Path, tmp_path: Path) -> None:
        path = tmp_path / 'a,b "c".gguf'
        path.write_bytes(llama_file.read_bytes())
        assert models.create(Gguf(str(path)).load().source) == Gguf(str(path))


@pytest.fixture
def hub(llama_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server on this machine that has one file, as the Hugging Face hub serves it; what it was asked for."""
    from huggingface_hub import constants

    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            if self.path != "/poets/tang/resolve/main/q8/poet.gguf":
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = llama_file.read_bytes()
            self.send_response(200)
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", "f" * 40)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_of_the_hub_is_fetched_once(hub: list[str]) -> None:
    model = resolve("hf://poets/tang/q8/poet.gguf").load()
    assert model.metadata["hub"] == "Hugging Face"
    assert models.create(model.source) == Gguf("hf://poets/tang/q8/poet.gguf")
    resolve("hf://poets/tang/q8/poet.gguf").load()
    assert hub.count("GET /poets/tang/resolve/main/q8/poet.gguf") == 1


def test_a_file_that_the_hub_does_not_have_is_said(hub: list[str]) -> None:
    with pytest.raises(ModelUnavailableError, match=r"did not give us 'hf://poets/tang/other.gguf'"):
        resolve("hf://poets/tang/other.gguf").load()


def test_settings_that_are_written_are_read(llama: LanguageModel) -> None:
    architecture = keras_weights.architecture_of(llama.causal_lm)
    assert architecture is not None
    config = keras_weights.describe(architecture, llama.backbone)
    config = type(config)(**{**config.__dict__, "max_sequence_length": 64})
    says = {f"llama.{key}": value for key, value in gguf_settings.keys(architecture, config).items()}
    assert gguf_settings.described(architecture, says, {}, 300) == config


@pytest.mark.parametrize(("name", "other"), [("starcoder2", "layer_norm_rms"), ("llama", "layer_norm")])
def test_of_two_epsilons_the_one_of_the_models_norm_is_read(name: str, other: str) -> None:
    """As llama.cpp does, whose converter writes both where a `config.json` has both."""
    architecture, config = architectures.named(name), replace(CONFIGS[name], max_sequence_length=64)
    assert architecture is not None
    says = {f"{name}.{key}": value for key, value in gguf_settings.keys(architecture, config).items()}
    held = dict.fromkeys(tensor.name for tensor in tensor_names.tensors(architecture, config, "gguf"))
    says[f"{name}.attention.{other}_epsilon"] = 0.5
    assert gguf_settings.described(architecture, says, held, 37) == config
