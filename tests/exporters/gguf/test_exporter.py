"""A GGUF file holds the model under llama.cpp's names, and llama.cpp computes what the model does."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import lzma
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contained import Contained
from described import CONFIGS
from tiny import GPT2_END, roughen, tiny_gpt2, tiny_opt, tiny_vocabulary
from toys import encode, smallest_gpt2, texts

import kerasgen as kg
from kerasgen import backend
from kerasgen.errors import ExportArgumentError
from kerasgen.exporters.gguf import file_format, findings, questions, reference
from kerasgen.exporters.gguf.server import LlamaCpp
from kerasgen.exporters.parity import worker
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE

gguf = pytest.importorskip("gguf")

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="it runs llama.cpp: pip install 'kerasgen[llamacpp]'"
)
LLAMA_CPP = "kerasgen.exporters.gguf.llama_cpp_worker"


@pytest.fixture
def without_llama_cpp(monkeypatch):
    """What a person sees who has not installed it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model that tests export and don't change."""
    return tiny_gpt2()


def is_llama_cpp_right(parity: dict[str, Any]) -> bool:
    """Whether all is equal that has to be equal whatever the weights are; of near equals another one may be taken."""
    found = parity["llama_cpp"]
    return bool(found["ids_equal"] and found["text_equal"] and found["modules"] == parity["modules"] == [])


@pytest.mark.one_backend
def test_the_file_says_what_llama_cpp_asks(model, tmp_path, without_llama_cpp):
    artefact = kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    assert artefact.report["parity"]["llama_cpp"] is None
    assert "tiny.gguf.Modelfile" in artefact.report["files"]
    modelfile = (tmp_path / "tiny.gguf.Modelfile").read_text()
    assert modelfile == 'FROM ./tiny.gguf\nPARAMETER num_ctx 128\nTEMPLATE """{{ .Prompt }}"""\n'
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")

    def value(key):
        return reader.fields[key].contents()

    assert value("general.architecture") == "gpt2"
    assert value("gpt2.context_length") == 128
    assert value("gpt2.block_count") == 2
    assert value("gpt2.attention.head_count") == 2
    assert value("tokenizer.ggml.model") == "gpt2"
    assert value("tokenizer.ggml.pre") == "gpt-2"
    assert value("tokenizer.ggml.add_bos_token") is True
    assert value("tokenizer.ggml.eos_token_id") == model.tokenizer.end_token_id
    assert value("tokenizer.ggml.token_type")[model.tokenizer.end_token_id] == gguf.TokenType.CONTROL
    # GGUF names the fastest axis first: a kernel from 32 to 96 features.
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.attn_qkv.weight"] == [32, 96]
    assert shapes["blk.1.ffn_down.weight"] == [64, 32]
    assert "output.weight" not in shapes


def test_a_fresh_process_without_keras_finds_every_weight_and_generates_the_same(model, tmp_path, without_llama_cpp):
    artefact = kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    _, config, weights, vocabulary = file_format.read(artefact.path)
    np.testing.assert_array_equal(weights["embedding"]["tokens"], np.asarray(model.backbone.token_embedding.embeddings))
    assert {token: token_id for token_id, token in enumerate(vocabulary.tokens)} == model.tokenizer.vocabulary
    assert config.attention.num_query_heads == 2
    parity = artefact.report["parity"]
    assert parity["greedy_equal"]
    assert parity["weights_equal"]
    assert parity["modules"] == []
    lengths = parity["prompt_lengths"]
    assert min(lengths) < 128 // 8 < max(lengths)
    assert max((parity["llama_cpp"] or parity)["new_tokens"]) > 100  # of 128 positions


@pytest.mark.one_backend
def test_fewer_bits_take_less_room_and_are_what_rounding_makes_them(tmp_path, without_llama_cpp):
    model = tiny_gpt2(hidden_dim=128)
    artefacts = [
        kg.GgufExporter(dtype=dtype).export(model, tmp_path / f"{dtype}.gguf") for dtype in ("F32", "F16", "Q8_0")
    ]
    sizes = [artefact.path.stat().st_size for artefact in artefacts]
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < 0.65 * sizes[1]
    for artefact in artefacts:
        parity = artefact.report["parity"]
        assert parity["weights_equal"]
        assert parity["greedy_equal"]


@pytest.mark.one_backend
def test_a_divergence_beyond_the_limit_leaves_nothing(tmp_path, without_llama_cpp):
    exporter = kg.GgufExporter(dtype="F16", most_divergence=0.0)
    with pytest.raises(kg.errors.ExportError, match="kl_nats_per_token") as caught:
        exporter.export(smallest_gpt2(), tmp_path / "poet.gguf")
    assert caught.value.figures["kl_nats_per_token"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "Q4"},
        {"dtype": "F16", "most_divergence": -1},
        {"dtype": "F16", "most_divergence": "0.1"},
    ],
)
def test_wrong_settings_are_said_at_once(settings):
    with pytest.raises(kg.errors.ExportArgumentError, match="Received"):
        kg.GgufExporter(**settings)


@pytest.mark.one_backend
def test_what_llama_cpp_can_not_run_is_said_before_any_work(tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match=r"llama\.cpp runs no OPT"):
        kg.GgufExporter().export(tiny_opt(), tmp_path / "opt.gguf")
    with pytest.raises(kg.errors.ExportArgumentError, match="32 divides"):
        kg.GgufExporter(dtype="Q8_0").export(tiny_gpt2(hidden_dim=24), tmp_path / "odd.gguf")
    for dtype in ("Q3_K", "Q4_K_M", "IQ4_XS"):
        with pytest.raises(kg.errors.ExportArgumentError, match=rf"Received: '{dtype}'.*llama-quantize"):
            kg.GgufExporter(dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
def test_a_weight_that_is_too_large_leaves_nothing(dtype, tmp_path):
    model = tiny_gpt2(num_layers=1)
    table = model.backbone.token_embedding.embeddings
    table.assign(np.asarray(table) * 1e8)
    with pytest.raises(kg.errors.ExportError, match=rf"'token_embd.weight' is not finite as {dtype}"):
        kg.GgufExporter(dtype=dtype).export(model, tmp_path / "large.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_cut_file_is_no_model(model, tmp_path, without_llama_cpp):
    path = kg.GgufExporter().export(model, tmp_path / "tiny.gguf").path
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(kg.errors.ExportError, match=r"tiny\.gguf"):
        file_format.read(path)


def change_tensor(path: Path) -> None:
    """One bit of one weight is another one."""
    reader = gguf.GGUFReader(path, "r+")
    tensor = next(one for one in reader.tensors if one.name == "blk.1.ffn_down.weight")
    tensor.data.reshape(-1).view(np.uint8)[17] ^= 1
    reader.data.flush()


def change_field(path: Path, key: str, value: int) -> None:
    """One number is another one."""
    reader = gguf.GGUFReader(path, "r+")
    reader.fields[key].parts[-1][0] = value
    reader.data.flush()


def swap(path: Path, one: str, other: str) -> None:
    """Two strings of the same length change places, where they first stand."""
    content = path.read_bytes()
    marks = [len(text.encode()).to_bytes(8, "little") + text.encode() for text in (one, other)]
    places = [content.index(mark) for mark in marks]
    changed = bytearray(content)
    for place, mark in zip(places, reversed(marks), strict=True):
        changed[place : place + len(mark)] = mark
    path.write_bytes(bytes(changed))


def replace(path: Path, one: bytes, other: bytes) -> None:
    """Bytes are others, wherever they stand."""
    path.write_bytes(path.read_bytes().replace(one, other))


def cut(path: Path) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[:-5000])


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight": (change_tensor, "weights_equal"),
    "tokens": (functools.partial(swap, one="d", other="t"), "vocabulary_equal, ids_equal"),
    "merges": (functools.partial(swap, one="a n", other="e r"), "vocabulary_equal"),
    "the pre-tokenizer": (functools.partial(replace, one=b"gpt-2", other=b"llama"), "pre-tokenizer 'llama'"),
    "the end token": (
        functools.partial(change_field, key="tokenizer.ggml.eos_token_id", value=5),
        r"fresh process|vocabulary_equal",
    ),
    "the start token": (
        functools.partial(change_field, key="tokenizer.ggml.add_bos_token", value=0),
        "vocabulary_equal",
    ),
    "heads": (functools.partial(change_field, key="gpt2.attention.head_count", value=4), "shape_equal"),
    "its end": (cut, "fresh process"),
}


def broken(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    """Let every file be changed after it was written."""
    write = file_format.write

    def write_and_change(path: Path, *arguments: Any, **more: Any) -> None:
        write(path, *arguments, **more)
        change(path)

    monkeypatch.setattr(file_format, "write", write_and_change)


@pytest.mark.one_backend
@pytest.mark.parametrize("what", BREAKS)
def test_a_file_that_is_not_the_model_s_is_not_handed_over(model, what, tmp_path, monkeypatch, without_llama_cpp):
    change, message = BREAKS[what]
    broken(monkeypatch, change)
    with pytest.raises(kg.errors.ExportError, match=message):
        kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
def test_a_rounded_weight_must_be_the_rounded_one(model, dtype, tmp_path, monkeypatch, without_llama_cpp):
    broken(monkeypatch, change_tensor)
    with pytest.raises(kg.errors.ExportError, match="weights_equal") as caught:
        kg.GgufExporter(dtype=dtype).export(model, tmp_path / "tiny.gguf")
    assert caught.value.figures["different_weights"] == ["blk.1.ffn_down.weight"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_fresh_process_that_can_not_start_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(kg.errors.ExportError, match="exit status 1"):
        kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_fresh_process_that_has_keras_proves_nothing(model, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    program = "import sys, types\nsys.modules['keras'] = types.ModuleType('keras')\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(kg.errors.ExportError, match="loaded keras"):
        kg.GgufExporter().export(model, tmp_path / "out" / "tiny.gguf")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.one_backend
def test_a_fresh_process_is_not_waited_for_for_ever():
    with pytest.raises(kg.errors.ExportError, match=r"did not finish in 0\.01 seconds"):
        worker.run("kerasgen.exporters.gguf.worker", {}, timeout=0.01)


@pytest.mark.one_backend
def test_the_vocabulary_of_a_file_has_a_token_for_each_row_and_no_row_more(tmp_path, without_llama_cpp):
    """Rows that a model pads its table with are left out, and holes have names of their own."""
    vocabulary, merges = tiny_vocabulary(290)
    vocabulary["[PAD290]"] = 291  # 290 is a hole
    del vocabulary[GPT2_END]
    vocabulary[GPT2_END] = 292
    tokenizer = ByteLevelBPE(vocabulary, merges, special_tokens=["[PAD290]"])
    model = LanguageModel(causal_lm=tiny_gpt2(300).causal_lm, tokenizer=tokenizer, source="padded")
    path = kg.GgufExporter().export(model, tmp_path / "padded.gguf").path
    _, config, weights, found = file_format.read(path)
    assert len(weights["embedding"]["tokens"]) == config.vocabulary_size == len(found.tokens) == 293
    assert found.tokens[290] == "[[PAD290]]"
    assert found.types[290] == gguf.TokenType.UNUSED
    assert len(set(found.tokens)) == 293


@pytest.mark.one_backend
@needs_llama_cpp
@pytest.mark.parametrize("dtype", ["F32", "F16", "Q8_0"])
def test_llama_cpp_computes_what_the_model_does(model, dtype, tmp_path):
    parity = kg.GgufExporter(dtype=dtype).export(model, tmp_path / "tiny.gguf").report["parity"]
    found = parity["llama_cpp"]
    assert is_llama_cpp_right(parity)
    assert found["version"]
    chunk, lengths = 128 // 8, found["prompt_lengths"]
    assert min(lengths) < chunk < max(lengths)
    assert chunk in lengths
    if dtype == "F32":  # its GELU taken into account, no id is another one
        assert found["same_likeliest"] == 1
        assert found["ended_equal"]


@needs_llama_cpp
@pytest.mark.one_backend
@pytest.mark.parametrize("start", [GPT2_END, None])
def test_llama_cpp_goes_on_after_an_end_token_and_starts_as_the_model_does(start, tmp_path, monkeypatch):
    """A text of llama.cpp stops at its end token. To be compared over its length, it goes on from there."""
    model = tiny_gpt2(seed=1)
    table = model.backbone.token_embedding.embeddings
    values = np.array(table)
    values[299] = 1.02 * values[int(np.argmax(np.bincount(_greedy(model))))]
    table.assign(values)
    vocabulary, merges = tiny_vocabulary(300)
    tokenizer = ByteLevelBPE(vocabulary, merges, start_token=start)
    answers = _answers(monkeypatch)
    model = LanguageModel(causal_lm=model.causal_lm, tokenizer=tokenizer, source="ending")
    parity = kg.GgufExporter().export(model, tmp_path / "tiny.gguf").report["parity"]
    assert is_llama_cpp_right(parity)
    of_llama_cpp = next(answer for answer in answers if "together" in answer)
    assert any(299 in ids[:-1] for ids in of_llama_cpp["ids"] + of_llama_cpp["together"])


def _greedy(model: LanguageModel) -> list[int]:
    from kerasgen.exporters.parity import comparison

    return comparison.greedy(model, [[5, 6, 7]], 64)[0]


def _answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What fresh processes answer from now on."""
    answer, found = worker.Worker.answer, []

    def listening(process: worker.Worker) -> dict[str, Any]:
        found.append(answer(process))
        return found[-1]

    monkeypatch.setattr(worker.Worker, "answer", listening)
    return found


@needs_llama_cpp
@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (functools.partial(change_field, key="gpt2.attention.head_count", value=4), "most_nats_behind"),
        (functools.partial(change_field, key="tokenizer.ggml.add_bos_token", value=0), "ids_equal"),
        (functools.partial(swap, one="d", other="t"), "ids_equal"),
        (cut, "fresh process .*llama_cpp_worker"),
    ],
    ids=["heads", "start", "tokens", "cut"],
)
def test_llama_cpp_sees_what_numpy_did_not(model, change, message, tmp_path, tmp_path_factory, monkeypatch):
    """Whatever llama.cpp does otherwise than the model is found."""
    changed_for_llama_cpp(monkeypatch, tmp_path_factory, change)
    with pytest.raises(kg.errors.ExportError, match=message):
        kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


def changed_for_llama_cpp(
    monkeypatch: pytest.MonkeyPatch, folders: pytest.TempPathFactory, change: Callable[[Path], Any]
) -> None:
    """Give llama.cpp a changed copy of the file."""
    give = worker.Worker.give

    def give_changed(process: worker.Worker, job: Any, **more: Any) -> worker.Worker:
        if process.module == LLAMA_CPP and "path" in job:
            # Two processes run at a time: a copy that was written again would shrink in the hands of the first.
            copy = folders.mktemp("changed") / "changed.gguf"
            change(Path(shutil.copy(job["path"], copy)))
            job = job | {"path": str(copy)}
        return give(process, job, **more)

    monkeypatch.setattr(worker.Worker, "give", give_changed)


@needs_llama_cpp
@pytest.mark.one_backend
def test_a_fault_in_the_logit_of_an_unlikely_token_is_found(model, tmp_path, tmp_path_factory, monkeypatch):
    """Where llama.cpp tells the likeliest tokens alone, and what it generates, it is not seen."""
    from kerasgen.exporters.parity import comparison

    monkeypatch.setattr(questions, "_TOLD", 20)
    probe = [model.tokenizer.start_token_id, *model.tokenizer.encode(comparison.PROBE)]
    probe += list(range(model.tokenizer.vocabulary_size))  # no token of a prompt
    nats = comparison.reader(model, 100)(probe[:100]).max(axis=0)
    nats[probe[:100]] = np.inf
    unlikely = int(nats.argmin())

    def change(path: Path) -> None:
        reader = gguf.GGUFReader(path, "r+")
        (table,) = (tensor.data for tensor in reader.tensors if tensor.name == "token_embd.weight")
        table[unlikely] *= 1.5
        table.flush()

    changed_for_llama_cpp(monkeypatch, tmp_path_factory, change)
    with pytest.raises(kg.errors.ExportError, match=r"does otherwise than the model \(most_nats_apart\)") as caught:
        kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    assert caught.value.figures["kl_nats_per_token"] < 1e-3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_an_end_is_where_the_end_token_comes_nearer_than_before():
    rows = np.asarray([[0.0, -9.0], [0.0, -8.0], [0.0, -3.0], [0.0, -5.0], [0.0, -2.5]])
    assert reference._ending(rows, 1) == (2, 5.5)
    assert reference._ending(rows[:1], 1) == (0, 10.0)
    assert reference._ending(rows[::-1], 1) == (0, 3.5)


@pytest.mark.one_backend
def test_the_likeliest_tokens_tell_no_more_divergence_than_all_do():
    rng = np.random.default_rng(0)
    says, told = (rows - np.log(np.exp(rows).sum(-1, keepdims=True)) for rows in rng.normal(0, 3, (2, 4, 50)))

    def beside(count):
        places = [np.argsort(-row)[:count] for row in told]
        return findings._beside(
            says, [(ids.tolist(), row[ids].tolist()) for ids, row in zip(places, told, strict=True)]
        )

    whole, apart = beside(50)
    assert whole == pytest.approx((np.exp(says) * (says - told)).sum(-1).mean())
    assert apart == pytest.approx(np.abs(says - told).max())
    few, fewer = beside(20)[0], beside(5)[0]
    assert 0 < fewer < few < whole
    assert findings._beside(told, [(list(range(20)), row[:20].tolist()) for row in told])[0] == pytest.approx(0)
    # No number, and one id twice, are no answer.
    assert np.isnan(findings._beside(says[:1], [([0, 1], [np.nan, -1.0])])[0])
    assert np.isnan(findings._beside(says[:1], [([0, 0], [-1.0, -1.0])])[0])
    assert np.isnan(findings._beside(says[:1], [(list(range(50)), [np.nan] * 50)])[1])


@pytest.mark.one_backend
@needs_llama_cpp
def test_adapters_are_in_what_llama_cpp_computes(tmp_path):
    from kerasgen.models.architectures import keras_weights
    from kerasgen.tuners.lora import LoraTuner

    model = smallest_gpt2()
    before = keras_weights.decoder_of(model.causal_lm)[1]["layers"][0]["query"]["kernel"]
    tuner = LoraTuner(max_steps=3, batch_size=2, sequence_length=16, learning_rate=0.05, precision="float32")
    tuner.tune(model, encode(model.tokenizer, texts(8)), seed=1, directory=tmp_path / "run", verbose=0)
    artefact = kg.GgufExporter().export(model, tmp_path / "lora.gguf")
    after = file_format.read(artefact.path)[2]["layers"][0]["query"]["kernel"]
    assert np.abs(after - before).max() > 1e-3
    assert is_llama_cpp_right(artefact.report["parity"])


@pytest.mark.one_backend
@pytest.mark.parametrize("asked", ["extend", "trim"])
def test_a_vocabulary_fitted_to_texts_is_read_back(asked, tmp_path):
    from kerasgen.tuners.vocabulary import adapt

    poems = [f"{a}{b}花落知多少" for a in "春夏秋冬" for b in "風雨雲月"]
    model = tiny_gpt2(400, num_layers=1, hidden_dim=16)
    adapt(model, lambda: poems, None, asked=asked)
    assert model.tokenizer.vocabulary_size != 400
    artefact = kg.GgufExporter().export(model, tmp_path / "poet.gguf")
    assert artefact.report["parity"]["greedy_equal"]
    _, _, weights, vocabulary = file_format.read(artefact.path)
    assert len(weights["embedding"]["tokens"]) == len(vocabulary.tokens) == model.tokenizer.vocabulary_size
    again = vocabulary.tokenizer()
    for text in (*poems, "the rain, 六 🚀\n\n"):
        assert again.encode(text) == model.tokenizer.encode(text)
    if asked == "extend":
        assert len(again.encode("花")) == 1
    if artefact.report["parity"]["llama_cpp"] is not None:
        assert is_llama_cpp_right(artefact.report["parity"])


@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.one_backend
def test_llama_cpp_gives_real_texts_gpt2_s_ids(shared_data, tmp_path):
    """With GPT-2's own vocabulary, where every merge stands."""
    with tarfile.open(shared_data / "gpt2_vocab.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = {path.parent for path in tmp_path.rglob("vocab.json")}
    tokenizer = ByteLevelBPE.from_directory(folder)
    backend.use()
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=128,
    )
    roughen(backbone, 0)
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model = LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="GPT-2's vocabulary")
    artefact = kg.GgufExporter().export(model, tmp_path / "gpt2.gguf")
    assert is_llama_cpp_right(artefact.report["parity"])
    llama_cpp = LlamaCpp(str(artefact.path), longest=128, texts=1, threads=1)
    with lzma.open(shared_data / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        posts = [json.loads(line)["selftext"] for _, line in zip(range(200), lines, strict=False)]
    for post in posts:
        assert llama_cpp.tokenize(post, start=False) == tokenizer.encode(post)


@pytest.mark.one_backend
@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.parametrize("dtype", ["F32", "F16", "Q8_0"])
@pytest.mark.nightly
def test_llama_cpp_runs_the_starter(dtype, tmp_path):
    pipe = kg.Pipeline(corpus="sample", model="starter")
    artefact = pipe.export(tmp_path / "starter.gguf", exporter="gguf", dtype=dtype)
    parity = artefact.report["parity"]
    found = parity["llama_cpp"]
    assert not parity["is_degenerate"]
    assert parity["greedy_equal"]
    assert set(parity["new_tokens"]) == {16}
    assert set(found["new_tokens"]) == {16, 128}
    assert is_llama_cpp_right(parity)
    assert found["same_likeliest"] > 0.95
    if dtype == "F32":
        assert found["greedy_equal"]
        assert found["together_equal"]
        assert found["ended_equal"]
    written = json.loads((tmp_path / "starter.gguf.json").read_text(encoding="utf-8"))
    assert written["parity"]["llama_cpp"] == found


@pytest.mark.slow
def test_a_window_as_long_as_the_texts_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp has none for a Mistral, and none is needed there."""
    mistral = CONFIGS["mistral"]
    windows = dataclasses.replace(mistral.attention, windows=(48,) * mistral.num_layers)
    monkeypatch.setitem(CONFIGS, "mistral", dataclasses.replace(mistral, attention=windows))
    model = Contained("mistral").load()
    with pytest.raises(ExportArgumentError, match="max_sequence_length=48"):
        kg.GgufExporter().export(model, tmp_path / "poet.gguf")
    path = kg.GgufExporter(max_sequence_length=48).export(model, tmp_path / "poet.gguf").path
    assert "llama.attention.sliding_window" not in gguf.GGUFReader(path).fields
