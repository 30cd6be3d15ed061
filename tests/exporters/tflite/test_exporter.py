"""A TFLite artefact generates what the model does, in a process that has neither Keras nor TensorFlow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from described import CONFIGS
from in_threads import answers_are_those_of_one_thread
from tiny import tiny_gpt2, tiny_opt
from toys import tiny_gemma
from wrong_calls import WRONG

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import ExportArgumentError, ExportError, GenerateArgumentError, ModelFormatError
from kerasgen.generation import generate, generate_ids
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.samplers import inputs
from kerasgen.testing.runtimes import RuntimeContract
from kerasgen.tokens.bpe import ByteLevelBPE

pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")

SMALL = {"cache_length": 64, "prefill_lengths": (8, 16)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An artefact of a tiny GPT-2, and the model."""
    model = tiny_gpt2()
    path = tmp_path_factory.mktemp("tflite") / "tiny.tflite"
    return model, kg.TFLiteExporter(**SMALL).export(model, path)


@pytest.fixture(scope="module")
def host(exported):
    """The library's own loops and samplers over the arithmetic in NumPy, for which nothing has to be compiled."""
    model = exported[0]
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


@pytest.fixture(scope="module")
def engine(exported):
    return kg.load_artefact(exported[1].path, weight_cache=None)


def test_the_fresh_process_generated_the_same_and_loaded_neither_keras_nor_tensorflow(exported):
    parity = exported[1].report["parity"]
    for what in ("alone_equal", "together_equal", "tokenizer_equal"):
        assert parity[what]
    assert parity["modules"] == []
    assert len(parity["prompt_lengths"]) == 5
    assert parity["new_tokens"] == [64 - 1 - length for length in parity["prompt_lengths"]]


ALLOWED = {
    "ADD", "BATCH_MATMUL", "DYNAMIC_UPDATE_SLICE", "FULLY_CONNECTED", "GATHER", "GELU", "LESS_EQUAL", "MEAN", "MUL",
    "PACK", "RESHAPE", "RSQRT", "SELECT_V2", "SOFTMAX", "SPLIT", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB",
    "TRANSPOSE",
}  # fmt: skip
SAMPLERS = ("greedy", "random", "top_k", "top_p", "min_p")
CHOOSING = {
    "ARG_MAX", "CAST", "CUMSUM", "EQUAL", "FILL", "GREATER", "GREATER_EQUAL", "LESS", "LOGICAL_AND", "LOGICAL_NOT",
    "LOGICAL_OR", "MAXIMUM", "MINIMUM", "NOT_EQUAL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "SHAPE", "SLICE", "SUM",
    "TOPK_V2", "WHILE", "DIV", "EXP", "RANGE", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT", "CONCATENATION", "EXPAND_DIMS",
    "CEIL", "PAD", "REVERSE_V2", "SELECT",
}  # fmt: skip


def test_every_operator_is_built_in(exported):
    assert set(exported[1].report["operators"]) <= ALLOWED


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"quantize": "int8"}, {"EMBEDDING_LOOKUP"}),
        pytest.param({"quantize": "int4"}, {"EMBEDDING_LOOKUP"}, marks=pytest.mark.slow),
        ({"quantize": "float16"}, {"DEQUANTIZE"}),
        ({"shortlist": 16}, {"TOPK_V2"}),
        pytest.param({"samplers": SAMPLERS}, CHOOSING, marks=pytest.mark.slow),
    ],
)
def test_every_operator_of_every_kind_of_file_is_built_in(settings, more, tmp_path, monkeypatch):
    monkeypatch.setattr(kg.TFLiteExporter, "_prove", lambda *arguments: {})
    exporter = kg.TFLiteExporter(cache_length=32, prefill_lengths=(8,), decode_lengths=(), beams=2, **settings)
    artefact = exporter.export(tiny_gpt2(num_layers=1), tmp_path / "poet.tflite")
    assert set(artefact.report["operators"]) <= ALLOWED | more
    assert artefact.report["signatures"][:2] == ["prefill_8", "decode"]


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 14, "stop": "e", "return_prompt": False},
        {"max_new_tokens": 6, "num_return_sequences": 2, "sampler": "top_k:k=9", "seed": 3},
        {"max_new_tokens": 6, "seed": (4, 5), "sampler": "random"},
        {"max_new_tokens": 3, "constraint": "regex:pattern=[ab]{3},whole_text=false"},
    ],
)
def test_an_artefact_takes_all_of_a_config(exported, settings):
    model, artefact = exported
    config = kg.GenerationConfig(**settings)
    greedy = {"sampler": config.sampler or "greedy", "seed": config.seed or 0}
    wanted = generate(model, ["the", "a cat"], config.override(greedy))
    assert artefact.generate(["the", "a cat"], config) == wanted == artefact.generate(["the", "a cat"], **settings)
    if "seed" not in settings:
        assert artefact.generate("the", config) == wanted[0]
        assert "".join(artefact.runtime.stream("the", config)) == wanted[0]


@pytest.mark.one_backend
def test_a_signature_chooses_as_each_sampler_does(tmp_path, monkeypatch):
    from ai_edge_litert.interpreter import Interpreter

    monkeypatch.setattr(kg.TFLiteExporter, "_prove", lambda *arguments: {})  # it doesn't ask for these signatures
    small = {"cache_length": 32, "prefill_lengths": (8,), "decode_lengths": (), "beams": 0, "shortlist": 0}
    kg.TFLiteExporter(samplers=SAMPLERS, **small).export(tiny_gpt2(num_layers=1), tmp_path / "poet.tflite")
    file = Interpreter(str(tmp_path / "poet.tflite"))
    rng = np.random.default_rng(0)
    logits, uniforms = rng.normal(0, 3, (40, 300)).astype(np.float32), rng.random(40).astype(np.float32)
    for text in ("greedy", "random", "top_k:k=5", "top_p:p=0.8", "min_p:p=0.1"):
        spec = kg.samplers.create(text)
        choose = file.get_signature_runner(f"choose_{text.partition(':')[0]}")
        given = {name: np.array([value]) for name, value in inputs.values(spec).items()}
        given |= {"temperature": np.array([0.7], np.float32), "uniforms": None}
        wanted = set(choose.get_input_details())
        found = []
        for row, uniform in zip(logits, uniforms, strict=True):
            own = given | {"logits": row[None], "uniforms": uniform[None]}
            own = {name: np.asarray(own[name], np.int32 if name == "k" else np.float32) for name in wanted}
            found.append(choose(**own)["token_ids"].item())
        scaled = logits / np.float32(0.7) if inputs.has_temperature(type(spec)) else logits
        assert found == spec.choose(np, scaled, uniforms).tolist(), text


@pytest.mark.one_backend
@pytest.mark.parametrize("quantize", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_text_may_fill_all_positions_of_a_model_without_a_start_token(quantize, tmp_path):
    model = tiny_gpt2(num_layers=1, max_sequence_length=48)
    own = ByteLevelBPE(model.tokenizer.vocabulary, model.tokenizer.merges, start_token=None)
    model = LanguageModel(model.causal_lm, own, "test")
    loose = {"most_divergence": 9.0, "least_agreement": 0.0, "most_logit_difference": 9.0, "most_loss_increase": 9.0}
    limits = {} if quantize == "float32" else loose
    exporter = kg.TFLiteExporter(quantize, cache_length=48, prefill_lengths=(8,), decode_lengths=(), beams=0, **limits)
    parity = exporter.export(model, tmp_path / "poet.tflite").report["parity"]
    assert parity["greedy_equal"] or quantize == "int8"  # rounding may choose others


@pytest.mark.one_backend
@pytest.mark.slow
def test_an_int8_file_whose_prefill_reads_other_tokens_is_not_handed_over(tmp_path, monkeypatch):
    """Its token-by-token predictions are right."""
    from kerasgen.exporters.tflite import graph as tflite_graph

    read = tflite_graph._Module._read

    def broken(self, tokens, *arguments):
        return read(self, tokens * 0 if tokens.shape[1] > 1 else tokens, *arguments)

    monkeypatch.setattr(tflite_graph._Module, "_read", broken)
    exporter = kg.TFLiteExporter(quantize="int8", cache_length=64, prefill_lengths=(8,), decode_lengths=(), beams=0)
    with pytest.raises(ExportError, match="signatures of prefill"):
        exporter.export(tiny_gpt2(num_layers=1), tmp_path / "poet.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.slow
def test_an_int8_file_whose_beams_see_each_other_is_not_handed_over(tmp_path, monkeypatch):
    from kerasgen.exporters.tflite import graph as tflite_graph

    attention = tflite_graph._attention

    def broken(queries, keys, values, past, weigh):
        past = past._replace(mask=past.mask * 0) if queries.shape[2] == 4 else past
        return attention(queries, keys, values, past, weigh)

    monkeypatch.setattr(tflite_graph, "_attention", broken)
    exporter = kg.TFLiteExporter(quantize="int8", cache_length=64, prefill_lengths=(8,), decode_lengths=())
    with pytest.raises(ExportError, match="signatures of beams"):
        exporter.export(tiny_gpt2(num_layers=1), tmp_path / "poet.tflite")


def test_beams_go_on_where_their_cache_is_full(host, engine):
    """Six texts that part fill 64 places before each of them is 64 tokens long."""
    arguments = {"sampler": "beam:num_beams=6,length_penalty=0.0", "max_new_tokens": 62}
    wanted = generate_ids(host, [[5]], **arguments)
    assert engine.generate_ids([[5]], **arguments) == [list(wanted[0][0].token_ids)]


def test_random_texts_of_one_prompt_go_on_where_their_cache_is_full(host, engine):
    arguments = {"sampler": "random", "max_new_tokens": 60, "num_return_sequences": 5, "seed": 1}
    wanted = generate_ids(host, [[5, 6]], **arguments)
    found = generate_ids(engine.engine, [[5, 6]], **arguments)
    assert [one.token_ids for one in found[0]] == [one.token_ids for one in wanted[0]]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_call_that_can_not_be_carried_out_is_told(engine, wrong):
    with pytest.raises(GenerateArgumentError, match=r"Received|prompt 0|Prompt 0"):
        engine.generate_ids(**{"prompts": [[5]], "max_new_tokens": 2} | wrong)


@pytest.mark.parametrize("wrong", [[], [-1], [300], [5] * 65, [5.0], "the"])
def test_logits_are_of_a_text_that_fits(engine, wrong):
    with pytest.raises(GenerateArgumentError):
        engine.logits(wrong)
    assert engine.logits([5] * 64).shape == (64, 300)


def test_a_lone_surrogate_is_read_as_the_library_reads_it(exported, engine):
    model = exported[0]
    ids = model.tokenizer.encode("a\ud83d")
    text = engine.generate("a\ud83d", max_new_tokens=4)
    assert text.startswith("a\ud83d")
    assert engine.generate_ids([ids], max_new_tokens=4)


def test_what_lies_there_is_the_flatbuffer_its_tokenizer_and_the_report(exported):
    path = exported[1].path
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["tiny.tflite", "tiny.tflite.json", "tiny.tflite.md", "tiny.tflite.tokenizer.json"]
    assert json.loads((path.parent / "tiny.tflite.json").read_text(encoding="utf-8")) == exported[1].report


class TestRuntime(RuntimeContract):
    """With as many beams as one call reads, with fewer and with more."""

    samplers = ("random", "top_k:k=5", "top_p:p=0.9", "min_p:p=0.1")
    beams = ("beam:num_beams=3", "beam:num_beams=4", "beam:num_beams=6")
    chunks = SMALL["prefill_lengths"]

    @pytest.fixture
    def model(self, exported) -> LanguageModel:
        return exported[0]

    @pytest.fixture
    def runtime(self, engine):
        return engine

    @pytest.fixture
    def reference(self, host) -> NumpyEngine:
        return host


def test_texts_of_one_prompt_share_a_cache_and_stay_apart(exported, host, engine):
    model = exported[0]
    prompt = model.tokenizer.encode("the sea")
    arguments = {"sampler": "random", "max_new_tokens": 10, "num_return_sequences": 5, "seed": 1}
    wanted = generate_ids(host, [prompt], **arguments)
    found = generate_ids(engine.engine, [prompt], **arguments)
    assert [one.token_ids for one in found[0]] == [one.token_ids for one in wanted[0]]


def test_teacher_forced_logits_are_the_models(exported, engine):
    model = exported[0]
    ids = model.tokenizer.encode("the sand and the sea")
    outputs = model.causal_lm({"token_ids": np.asarray([ids]), "padding_mask": np.ones((1, len(ids)), "int32")})
    np.testing.assert_allclose(engine.logits(ids), np.asarray(outputs)[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.one_backend
def test_opt_without_beams(tmp_path):
    """Beams are then held in caches of their own."""
    model = tiny_opt()
    artefact = kg.TFLiteExporter(beams=0, **SMALL).export(model, tmp_path / "opt.tflite")
    assert artefact.report["parity"]["alone_equal"]
    runtime = kg.load_artefact(artefact.path, weight_cache=None)
    prompt = model.tokenizer.encode("the sand")
    wanted = generate_ids(model, [prompt], sampler="beam:num_beams=3", max_new_tokens=8)
    assert runtime.generate_ids([prompt], sampler="beam:num_beams=3", max_new_tokens=8) == [
        list(wanted[0][0].token_ids)
    ]


@pytest.mark.one_backend
def test_float16_is_the_model_as_float16_rounds_it(tmp_path):
    model = tiny_gpt2()
    artefact = kg.TFLiteExporter(quantize="float16", **SMALL).export(model, tmp_path / "half.tflite")
    parity = artefact.report["parity"]
    assert parity["alone_equal"]
    assert isinstance(parity["like_the_unrounded_model"], bool)
    assert "DEQUANTIZE" in artefact.report["operators"]


@pytest.mark.one_backend
@pytest.mark.slow
def test_int4_has_a_scale_for_each_32_inputs_and_8_bits_where_32_does_not_divide_them(tmp_path):
    """The width of 48 is 1.5 blocks; the 96 inputs of the layer that goes back to it are three."""
    from kerasgen.exporters.tflite.quantize import read

    model = tiny_gpt2(num_layers=1, hidden_dim=48, intermediate_dim=96)
    limits = {"most_divergence": 9.0, "least_agreement": 0.0, "most_logit_difference": 99.0, "most_loss_increase": 9.0}
    artefact = kg.TFLiteExporter(quantize="int4", **SMALL, **limits).export(model, tmp_path / "poet.tflite")
    schema, file = read(artefact.path.read_bytes())
    found = {}
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            if tensor.type == schema.TensorType.INT4:
                scales = graph.tensors[tensor.quantization.details.scales]
                found[tuple(tensor.shape)] = (tensor.quantization.details.blockSize, tuple(scales.shape))
    assert found == {(48, 96): (32, (48, 3))}


@pytest.mark.one_backend
@pytest.mark.slow
@pytest.mark.parametrize(("quantize", "most", "share"), [("int8", 0.02, 0.3), ("int4", 0.3, 0.2)])
@pytest.mark.nightly
def test_the_starter_in_integers_is_close_and_small(tmp_path, quantize, most, share):
    """A trained model, for random weights say nothing about rounding."""
    model = kg.Starter().load()
    path = tmp_path / "poet.tflite"
    artefact = kg.TFLiteExporter(quantize=quantize, cache_length=128).export(model, path)
    parity = artefact.report["parity"]
    assert parity["divergence_in_nats"] < most
    if quantize == "int8":
        assert abs(parity["nats_per_token"] / parity["nats_per_token_of_the_model"] - 1) < 0.01
    assert artefact.report["weight_bytes"] < share * 4 * model.causal_lm.count_params()
    assert artefact.report["bytes_over_weight_bytes"] < 1.1
    text = artefact.generate("春", max_new_tokens=24, sampler=kg.TopK(k=5, seed=1))
    assert text.startswith("春")
    assert len(text) > 8


@pytest.mark.one_backend
def test_a_divergence_beyond_the_limit_leaves_no_file(tmp_path):
    exporter = kg.TFLiteExporter(
        quantize="int8", cache_length=64, prefill_lengths=(8,), decode_lengths=(), beams=0, most_divergence=0.0
    )
    with pytest.raises(ExportError, match="nats a token") as caught:
        exporter.export(tiny_gpt2(), tmp_path / "poet.tflite")
    assert caught.value.figures["divergence_in_nats"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_family_that_is_not_known_is_refused_before_any_work(tmp_path):
    with pytest.raises(ExportArgumentError, match=r"a GemmaBackbone; it writes BloomBackbone, .*OPTBackbone"):
        kg.TFLiteExporter().export(tiny_gemma(), tmp_path / "gemma.tflite")


def test_too_long_a_cache_is_refused(tmp_path):
    with pytest.raises(ExportArgumentError, match="positions"):
        kg.TFLiteExporter(cache_length=4096).export(tiny_gpt2(), tmp_path / "x.tflite")


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize": "int3"},
        {"cache_length": 0},
        {"beams": 1},
        {"prefill_lengths": (1,)},
        {"decode_lengths": (4,)},
        {"samplers": ("beam",)},
        {"most_divergence": -1},
    ],
)
def test_wrong_settings_are_said_at_once(settings):
    with pytest.raises(ExportArgumentError, match="Received"):
        kg.TFLiteExporter(**settings)


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the artefact's files, to be damaged."""
    for file in exported[1].path.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / "tiny.tflite"


def test_a_cut_file_is_told(copied):
    copied.write_bytes(copied.read_bytes()[:-100])
    with pytest.raises(ModelFormatError, match="bytes where"):
        kg.load_artefact(copied)


def test_another_tokenizer_beside_the_model_is_told(copied):
    other = tiny_gpt2(vocabulary_size=290).tokenizer.to_tokenizer_json()
    copied.with_name("tiny.tflite.tokenizer.json").write_text(other, encoding="utf-8")
    with pytest.raises(ModelFormatError, match="not the tokenizer"):
        kg.load_artefact(copied)


def test_a_lost_report_is_told(copied):
    copied.with_name("tiny.tflite.json").unlink()
    with pytest.raises(ModelFormatError, match="lost the file"):
        kg.load_artefact(copied)


def test_nothing_that_is_no_artefact_is_replaced(tmp_path):
    path = tmp_path / "mine.tflite"
    path.write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(ExportArgumentError, match="there already"):
            kg.TFLiteExporter(**SMALL).export(tiny_gpt2(), path, overwrite=overwrite)
    assert path.read_text(encoding="utf-8") == "mine"


def test_the_weights_are_kept_in_a_file_that_the_next_process_uses(exported, engine, tmp_path):
    """It is written at the first start, and the text is the same with it."""
    model, artefact = exported
    kept = tmp_path / "cache" / "weights"
    prompt = model.tokenizer.encode("the sand")
    wanted = engine.generate_ids([prompt], max_new_tokens=8)
    for _ in range(2):
        runtime = kg.load_artefact(artefact.path, weight_cache=kept)
        assert runtime.generate_ids([prompt], max_new_tokens=8) == wanted
        assert kept.stat().st_size > 0


def test_eight_threads_get_the_texts_that_one_gets(exported):
    """By every signature: one text's, several beams', shortlists; and from two engines of one graph."""
    model, artefact = exported
    runtime = kg.load_artefact(artefact.path, weight_cache=None)
    prompts = [model.tokenizer.encode(text) for text in ("the sea", "春", "the sand and the sun and the sea", "a")]
    end = runtime.generate_ids(prompts[:1], max_new_tokens=4)[0][2]
    calls = [
        {"prompts": [prompt], "sampler": sampler, "seed": seed, "end_token_id": end if seed % 2 else None}
        for seed, prompt in enumerate(prompts)
        for sampler in ("greedy", "top_k:k=5", "random", "beam:num_beams=3")
    ]
    answers_are_those_of_one_thread(lambda one: runtime.generate_ids(**one, max_new_tokens=12), calls)


@pytest.mark.parametrize(("windows", "beams"), [((), 4), ((8, None), 0)])
def test_beams_are_left_out_where_a_decoder_has_windows(windows, beams):
    attention = replace(CONFIGS["llama"].attention, windows=windows and windows * 2)
    config = replace(CONFIGS["llama"], attention=attention)
    assert kg.TFLiteExporter()._beams(config) == beams
    assert kg.TFLiteExporter(beams=0)._beams(config) == 0
    if windows:
        with pytest.raises(ExportArgumentError, match=r"beams must be 0 .*Received: 2. Leave it out"):
            kg.TFLiteExporter(beams=2)._beams(config)
