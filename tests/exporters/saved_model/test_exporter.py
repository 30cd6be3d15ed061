"""A SavedModel generates what the model does, from text to text, where there is only TensorFlow."""

from __future__ import annotations

import functools
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import oracle
import pytest
from in_threads import answers_are_those_of_one_thread
from metadata_variants import outcomes
from tiny import tiny_gpt2, tiny_opt, tiny_vocabulary
from wrong_calls import WRONG

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.exporters.validation import held_in_graph
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.runtime import metadata
from kerasgen.testing.runtimes import RuntimeContract
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import GPT2_PATTERN, Pretokenization

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

TEXTS = ("the and", "昨夜雨疏风骤", "", "the and")
STARTER = Path(kg.__file__).parent / "models" / "starter_preset"


@pytest.mark.one_backend
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.nightly
def test_each_of_several_end_tokens_ends_a_text(compiled, tmp_path):
    model, asked = tiny_gpt2(num_layers=1, max_sequence_length=64), {"max_new_tokens": 20, "seed": 1}
    *merges, last = model.tokenizer.merges
    further = model.tokenizer.vocabulary[last.replace(" ", "")]
    names = {token: token_id for token, token_id in model.tokenizer.vocabulary.items() if token_id != further}
    own = ByteLevelBPE({**names, "<|eot|>": further}, merges, end_tokens=("<|eot|>",))
    model = LanguageModel(model.causal_lm, own, "test")
    prompts = own.encode_batch(TEXTS)
    likely = generate_ids(model, prompts, sampler="greedy", **asked)[1][0].token_ids[3]
    table = model.backbone.get_layer("token_embedding").embeddings
    weights = np.array(table)
    weights[further] = 1.1 * weights[likely]
    table.assign(weights)
    samplers = ("greedy", "top_k", "beam")
    artefact = kg.SavedModelExporter(samplers=samplers, compiled=compiled).export(model, tmp_path / "poet")
    runtime = kg.load_artefact(artefact.path)
    for sampler in ("greedy", "top_k:k=4", "beam:num_beams=4"):
        wanted = [list(several[0].token_ids) for several in generate_ids(model, prompts, sampler=sampler, **asked)]
        assert runtime.generate_ids(prompts, sampler=sampler, **asked) == wanted, sampler
    assert any(ids[-1] == further for ids in runtime.generate_ids(prompts, **asked))
    assert own.end_token_ids == runtime.tokenizer.end_token_ids
    wanted = kg.generation.generate(model, list(TEXTS), sampler="greedy", **asked)
    assert runtime.generate(list(TEXTS), **asked) == wanted


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_gpt2(num_layers=1, max_sequence_length=160)


@pytest.fixture(scope="module")
def host(model) -> NumpyEngine:
    """The library's own loops and samplers over the arithmetic in NumPy, for which nothing has to be compiled."""
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


@pytest.fixture(scope="module")
def artefact(model, tmp_path_factory):
    return kg.SavedModelExporter().export(model, tmp_path_factory.mktemp("saved") / "poet")


def test_a_fresh_process_generated_what_the_model_does_before_it_was_handed_over(artefact):
    parity = artefact.report["parity"]
    assert all(parity[f"{what}_equal"] for what in ("alone", "together", "tokenizer"))
    assert not parity["is_degenerate"]
    assert not {"keras_hub", "tensorflow_text"} & set(parity["modules"])


@pytest.mark.one_backend
class TestRuntime(RuntimeContract):
    samplers = ("top_k:k=5,temperature=0.8", "top_p:p=0.7", "min_p:p=0.1")
    beams = ("beam:num_beams=4",)
    chunks = (16,)

    model = None  # this module's fixture is not overridden

    @pytest.fixture
    def runtime(self, artefact):
        return artefact.runtime

    @pytest.fixture
    def reference(self, host) -> NumpyEngine:
        return host

    def test_texts_go_on_past_the_64_steps_of_one_call(self, runtime, reference) -> None:
        prompts = self.prompts(reference.tokenizer)[:2]
        for sampler in ("greedy", *self.samplers, *self.beams):
            asked = self.asked(sampler) | {"max_new_tokens": 70}
            assert runtime.generate_ids(prompts, **asked) == self.expected(reference, prompts, **asked), sampler


@pytest.mark.one_backend
def test_texts_are_valid_utf8_and_ids_are_so_unless_they_shall_not_be(artefact, host, model):
    """A prompt of ids may end within a character, which is then completed."""
    sampler = "top_k:k=40"
    prompts = [*model.tokenizer.encode_batch(TEXTS), model.tokenizer.encode("🐉")[:2]]
    for valid_utf8 in (True, False):
        settings = {"sampler": sampler, "max_new_tokens": 30, "seed": 3, "valid_utf8": valid_utf8}
        theirs = [list(several[0].token_ids) for several in generate_ids(host, prompts, **settings)]
        assert artefact.runtime.generate_ids(prompts, **settings) == theirs
        texts = [
            model.tokenizer.decode(prompt + ids, skip_special_tokens=True)
            for prompt, ids in zip(prompts, theirs, strict=True)
        ]
        assert any("\ufffd" in text.rstrip("\ufffd") for text in texts) != valid_utf8
    call = artefact.runtime._signatures["top_k"]
    texts = call(
        prompts=tf.constant(TEXTS), max_new_tokens=tf.constant(30), end_token_id=tf.constant(-1),
        temperature=tf.constant(2.0), k=tf.constant(200), seed=tf.constant(1, tf.int64),
    )["texts"]  # fmt: skip
    assert not any("\ufffd" in text.decode() for text in texts.numpy())


@pytest.mark.one_backend
@pytest.mark.slow
@pytest.mark.nightly
def test_steps_that_xla_compiles_give_the_same_ids(model, host, tmp_path):
    """With caches that grow, rows beside the batch's, unequal prompts and ends, and seeds past one call of 64 steps."""
    exporter = kg.SavedModelExporter(samplers=("greedy", "top_p"), compiled=True)
    runtime = exporter.export(model, tmp_path / "poet").runtime
    prompts = model.tokenizer.encode_batch(("the and", "昨夜雨疏风骤" * 2, ""))
    for sampler in ("greedy", "top_p:p=0.7,temperature=0.9"):
        settings = {"sampler": sampler, "max_new_tokens": 110, "seed": 2**63 + 5}
        wanted = [list(several[0].token_ids) for several in generate_ids(host, prompts, **settings)]
        assert runtime.generate_ids(prompts, **settings) == wanted
        last = wanted[0][9]
        ended = [ids[: ids.index(last) + 1] if last in ids else ids for ids in wanted]
        assert runtime.generate_ids(prompts, **settings, end_token_id=last) == ended


@pytest.mark.slow
@pytest.mark.nightly
def test_opt_is_written_too(tmp_path):
    """Positions that begin at two, and padding that is not the end token."""
    exporter = kg.SavedModelExporter(samplers=("greedy", "beam"))
    report = exporter.export(tiny_opt(num_layers=1, max_sequence_length=64), tmp_path / "poet").report
    assert report["parity"]["together_equal"]


@pytest.mark.essential
@pytest.mark.one_backend
def test_a_process_with_tensorflow_alone_goes_from_text_to_text(artefact, model):
    program = """
import json, sys
import tensorflow as tf
before = set(sys.modules)
poet = tf.saved_model.load(sys.argv[1])
answer = poet.signatures["greedy"](
    prompts=tf.constant(json.loads(sys.argv[2])), max_new_tokens=tf.constant(20), end_token_id=tf.constant(-1))
brought = [name for name in ("keras", "keras_hub", "tensorflow_text", "kerasgen") if name in set(sys.modules) - before]
print(json.dumps([[text.decode() for text in answer["texts"].numpy()], brought]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(artefact.path), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts, brought = json.loads(done.stdout.splitlines()[-1])
    assert brought == []
    assert texts == artefact.runtime.generate(list(TEXTS), max_new_tokens=20, return_prompt=False)


@pytest.mark.one_backend
def test_calls_at_the_same_time_do_not_disturb_each_other(artefact, model):
    prompts = model.tokenizer.encode_batch(TEXTS)
    runtime = artefact.runtime

    def call(seed: int) -> list[list[int]]:
        return runtime.generate_ids(prompts, sampler="top_p:p=0.9", max_new_tokens=20, seed=seed)

    alone = [call(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(8))) == alone


@pytest.mark.one_backend
def test_what_is_drawn_is_distributed_as_it_should_be(artefact, model):
    """Seen 2,000 times, the first token's frequencies fit the truncated probabilities of the slow definitions."""
    prompt = model.tokenizer.encode("the")
    logits = artefact.runtime.logits([model.tokenizer.start_token_id, *prompt])[-1].tolist()
    kept = oracle.top_k(logits, 5)
    likely = oracle.probabilities([logit if n in kept else float("-inf") for n, logit in enumerate(logits)])
    call = {"sampler": "top_k:k=5", "max_new_tokens": 1, "seed": 3, "valid_utf8": False}
    drawn = artefact.runtime.generate_ids([prompt] * 2000, **call)
    counts = Counter(ids[0] for ids in drawn)
    assert set(counts) <= kept
    chi_square = sum((counts[token] - 2000 * likely[token]) ** 2 / (2000 * likely[token]) for token in kept)
    assert chi_square < 23.5  # 4 degrees of freedom; beyond it lies one sample in 10,000


def _texts(count: int) -> list[str]:
    rng = random.Random(1)
    parts = [
        "a",
        "the",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "'s",
        "'re",
        "'",
        "1",
        "६",
        "昨夜",
        "雨",
        "\u3000",
        "\u00a0",
        "\x85",
    ]
    parts += ["\x1c", "\0", "😀", "é", "\u0301", "!", "，", "\u200b", "\ufffd", "aaa", "\u2028", "Ⅷ", "²", "\r\n", "ſ"]
    made = ["".join(rng.choices(parts, k=rng.randrange(25))) for _ in range(count * 2 // 3)]
    ranges = [range(0x20, 0x3000), range(0xD800), range(0xE000, 0x110000)]
    made += ["".join(chr(rng.choice(rng.choice(ranges))) for _ in range(12)) for _ in range(count - len(made))]
    return [
        "",
        "\n\n",
        "\0",
        "६",
        "昨夜雨疏风骤，浓睡不消残酒。\n\n" * 20,
        "a" * 99,
        "😀 👩‍👩‍👧",
        "<|endoftext|>",
        *made,
    ]


@pytest.mark.one_backend
@pytest.mark.parametrize("count", [1500, pytest.param(12000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("vocabulary", ["tiny", "starter"])
def test_the_tokenizer_in_the_graph_is_the_exact_one(vocabulary, count):
    from kerasgen.exporters.saved_model.tokenizer import GraphTokenizer

    exact = ByteLevelBPE(*tiny_vocabulary(300)) if vocabulary == "tiny" else ByteLevelBPE.from_directory(STARTER)
    graph = GraphTokenizer(exact)
    encode = tf.function(graph.encode, input_signature=[tf.TensorSpec([None], tf.string)])
    decode = tf.function(lambda ids: graph.decode(ids, ids >= 0, tf.fill(tf.shape(ids)[:1], True)))
    texts = _texts(count)
    for start in range(0, len(texts), 1000):
        some = texts[start : start + 1000]
        ids = encode(tf.constant([text.encode() for text in some]))
        assert ids.to_list() == exact.encode_batch(some)
        assert [text.decode() for text in decode(ids.to_tensor(-1)).numpy()] == some


@pytest.mark.one_backend
def test_half_a_character_at_the_end_is_left_out_as_the_library_leaves_it_out(artefact, model):
    from kerasgen.generation.detokenize import write

    rng = np.random.default_rng(2)
    ids = rng.integers(0, 256, (300, 6), dtype=np.int32)
    graph = _graph_tokenizer(model)
    for ended in (True, False):
        ours = graph.decode(tf.constant(ids), tf.fill(ids.shape, True), tf.fill(ids.shape[:1], ended)).numpy()
        theirs = [write(model.tokenizer, row.tolist(), ended=ended) for row in ids]
        assert [text.decode() for text in ours] == theirs


def _graph_tokenizer(model):
    from kerasgen.exporters.saved_model.tokenizer import GraphTokenizer

    return GraphTokenizer(model.tokenizer)


@pytest.mark.parametrize(
    "settings",
    [{"samplers": ("greedy", "magic")}, {"samplers": ()}, {"num_beams": 0}, {"dtype": "int8"}, {"compiled": 1}],
)
def test_wrong_settings_are_said_at_once(settings):
    with pytest.raises(kg.errors.ExportArgumentError):
        kg.SavedModelExporter(**settings)


@pytest.mark.one_backend
@pytest.mark.slow
@pytest.mark.nightly
def test_a_tokenizer_that_cuts_otherwise_than_gpt2_stays_outside(model, host, tmp_path):
    """The one in the graph would give other ids, such as one for `12` where this one gives two."""
    cut = Pretokenization(GPT2_PATTERN, single_digits=True)
    tokenizer = ByteLevelBPE(model.tokenizer.vocabulary, model.tokenizer.merges, pretokenization=cut)
    other = LanguageModel(causal_lm=model.causal_lm, tokenizer=tokenizer, source="digits")
    artefact = kg.SavedModelExporter(samplers=("greedy",)).export(other, tmp_path / "poet")
    assert artefact.report["tokenizer_in_graph"] is False
    assert set(artefact.report["signatures"]) == {"greedy_ids", "greedy_ids_unmasked", "logits"}
    prompt = tokenizer.encode("the sand")
    wanted = [
        list(several[0].token_ids) for several in generate_ids(host, [prompt], sampler="greedy", max_new_tokens=9)
    ]
    assert artefact.runtime.generate_ids([prompt], max_new_tokens=9) == wanted
    assert artefact.runtime.tokenizer.encode("12 + 345") == tokenizer.encode("12 + 345")


def test_a_graph_holds_a_tokenizer_that_cuts_as_gpt2_does(model):
    digits = Pretokenization(single_digits=True)
    other = ByteLevelBPE(model.tokenizer.vocabulary, model.tokenizer.merges, pretokenization=digits)
    assert held_in_graph(model.tokenizer) is model.tokenizer
    assert held_in_graph(other) is None


def test_what_the_artefact_does_not_hold_is_refused(artefact):
    for sampler in ("contrastive", "beam:num_beams=3", "top_k:repetition_penalty=1.2"):
        with pytest.raises(kg.errors.GenerateArgumentError):
            artefact.runtime.generate_ids([[5]], sampler=sampler, max_new_tokens=2)
    with pytest.raises(kg.errors.GenerateArgumentError, match="positions"):
        artefact.runtime.generate_ids([[5]], max_new_tokens=1000)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_call_that_can_not_be_carried_out_is_told(artefact, wrong):
    with pytest.raises(kg.errors.GenerateArgumentError, match=r"Received|prompt 0|Prompt 0"):
        artefact.runtime.generate_ids(**{"prompts": [[5]], "max_new_tokens": 2} | wrong)
    for text in ([], [-1], [5] * 161):
        with pytest.raises(kg.errors.GenerateArgumentError):
            artefact.runtime.logits(text)


@pytest.mark.parametrize("p", [0.0, -3.0])
def test_a_server_that_asks_for_no_probability_is_told(artefact, p):
    """The signature itself says so, for a server knows no kerasgen."""
    call = artefact.runtime._signatures["top_p_ids"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="above 0"):
        call(
            prompts=tf.constant([[5]]), lengths=tf.constant([1]), max_new_tokens=tf.constant(2),
            end_token_id=tf.constant(-1), temperature=tf.constant(1.0), p=tf.constant(p), seed=tf.constant(1, tf.int64),
        )  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1e-30, float("nan")])
def test_a_server_that_asks_for_next_to_no_temperature_is_told(artefact, temperature):
    """Logits divided by it would be infinite."""
    call = artefact.runtime._signatures["top_p_ids"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 1e-06"):
        call(
            prompts=tf.constant([[5]]), lengths=tf.constant([1]), max_new_tokens=tf.constant(2),
            end_token_id=tf.constant(-1), temperature=tf.constant(temperature), p=tf.constant(0.5),
            seed=tf.constant(1, tf.int64),
        )  # fmt: skip


@pytest.mark.parametrize("name", ["variables/variables.data-00000-of-00001", "saved_model.pb", "tokenizer.json"])
def test_a_directory_with_a_cut_or_lost_file_is_told(artefact, tmp_path, name):
    copy = shutil.copytree(artefact.path, tmp_path / "poet")
    (copy / name).write_bytes((copy / name).read_bytes()[:-50])
    with pytest.raises(kg.errors.ModelFormatError, match="bytes"):
        kg.load_artefact(copy)
    report = copy / "kerasgen.json"
    said = json.loads(report.read_text(encoding="utf-8"))
    for other in (said | {"files": {}}, said | {"files": {"kerasgen.json": said["bytes"]}}):
        report.write_text(json.dumps(other | {"digest": metadata.digest_of(other)}), encoding="utf-8")
        with pytest.raises(kg.errors.ModelFormatError):
            kg.load_artefact(copy)
    (copy / name).unlink()
    report.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(kg.errors.ModelFormatError, match="lost"):
        kg.load_artefact(copy)
    bare = {"exporter": "saved_model", "format": said["format"]}
    report.write_text(json.dumps(bare | {"digest": metadata.digest_of(bare)}), encoding="utf-8")
    with pytest.raises(kg.errors.ModelFormatError, match="missing"):
        kg.load_artefact(copy)


@pytest.mark.parametrize(
    "name", ["variables/variables.data-00000-of-00001", "variables/variables.index", "saved_model.pb"]
)
def test_a_directory_with_one_changed_bit_is_told(artefact, tmp_path, name):
    """TensorFlow itself takes a weight that was changed for another weight."""
    copy = shutil.copytree(artefact.path, tmp_path / "poet")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(kg.errors.ModelFormatError, match="SHA-256"):
        kg.load_artefact(copy)


def test_other_weights_of_the_same_size_are_told(artefact, tmp_path):
    copy = shutil.copytree(artefact.path, tmp_path / "poet")
    weights = copy / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(kg.errors.ModelFormatError, match="Copy the files of one export together"):
        kg.load_artefact(copy)


def test_a_directory_of_a_version_that_noted_no_digests_is_read(artefact, tmp_path):
    copy = shutil.copytree(artefact.path, tmp_path / "poet")
    report = copy / "kerasgen.json"
    said = json.loads(report.read_text(encoding="utf-8"))
    assert set(said.pop("sha256_of_files")) == set(said["files"])
    report.write_text(json.dumps(said | {"digest": metadata.digest_of(said)}), encoding="utf-8")
    settings = {"max_new_tokens": 8, "sampler": "greedy"}
    assert kg.load_artefact(copy).generate_ids([[5, 6]], **settings) == artefact.runtime.generate_ids(
        [[5, 6]], **settings
    )


def test_another_tokenizer_beside_it_is_found(artefact, tmp_path):
    copy = shutil.copytree(artefact.path, tmp_path / "poet")
    (copy / "tokenizer.json").write_text(tiny_opt(num_layers=1).tokenizer.to_tokenizer_json(), encoding="utf-8")
    with pytest.raises(kg.errors.KerasgenError):
        kg.load_artefact(copy)


@pytest.mark.one_backend
@pytest.mark.slow
@pytest.mark.nightly
def test_float16_is_the_model_as_float16_rounds_it(tmp_path):
    model = tiny_gpt2(num_layers=1, max_sequence_length=64)
    artefact = kg.SavedModelExporter(samplers=("greedy",), dtype="float16").export(model, tmp_path / "half")
    assert artefact.report["parity"]["alone_equal"]
    assert isinstance(artefact.report["parity"]["like_the_unrounded_model"], bool)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.essential
def test_the_starter_goes_from_text_to_text(tmp_path):
    """The trained model, through every sampler: verse of the library's own ids, and in-graph text."""
    model = kg.Starter().load()
    artefact = kg.SavedModelExporter().export(model, tmp_path / "starter")
    assert artefact.report["parity"]["greedy_equal"]
    host = NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)
    for sampler in ("greedy", "top_k:k=5", "top_p:p=0.9", "min_p:p=0.1", "beam:num_beams=4"):
        wanted = generate_ids(host, [model.tokenizer.encode("春")], sampler=sampler, max_new_tokens=24, seed=4)
        text = artefact.generate("春", max_new_tokens=24, sampler=sampler, seed=4)
        assert text == "春" + model.tokenizer.decode(list(wanted[0][0].token_ids), skip_special_tokens=True)


@pytest.mark.one_backend
def test_eight_threads_get_the_texts_that_one_gets(artefact, model):
    runtime = artefact.runtime
    prompts = [model.tokenizer.encode(text) for text in ("the sea", "春", "the sand and the sun")]
    calls = [
        {"prompts": [prompt], "sampler": sampler, "seed": 7}
        for prompt in prompts
        for sampler in ("greedy", "top_k:k=5", "top_p:p=0.9")
    ]
    answers_are_those_of_one_thread(lambda one: runtime.generate_ids(**one, max_new_tokens=12), calls)


@pytest.mark.one_backend
def test_a_change_beside_the_graph_whose_digest_was_mended_is_told_or_makes_no_difference(
    artefact, tmp_path, monkeypatch
):
    """Which is compared with what the graph tells of itself."""
    load = functools.cache(tf.saved_model.load)  # it reads nothing of what is changed, and takes two seconds
    monkeypatch.setattr(tf.saved_model, "load", load)

    def write(path):
        runtime = kg.load_artefact(path)
        return [
            runtime.generate("the and", max_new_tokens=9, sampler=sampler) for sampler in ("greedy", "beam:num_beams=4")
        ]

    unread = ["compiled", "decoder", "dtype", "model", "parity", "signatures"]
    refused, accepted = outcomes(artefact.path, tmp_path, write, unread=unread)
    assert len(refused) > 500
    assert accepted
