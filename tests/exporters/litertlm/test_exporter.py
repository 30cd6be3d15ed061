"""A LiteRT-LM bundle generates the model's text in LiteRT-LM itself."""

from __future__ import annotations

import dataclasses

import pytest
from in_threads import answers_are_those_of_one_thread
from metadata_variants import outcomes
from tiny import GPT2_END, tiny_gpt2, tiny_llama, tiny_vocabulary

import kerasgen as kg
from kerasgen.exporters.litertlm import bundle
from kerasgen.exporters.litertlm.exporter import as_litert_lm_tells
from kerasgen.exporters.parity import ids as proving
from kerasgen.generation import generate_ids
from kerasgen.models.base import LanguageModel
from kerasgen.testing.runtimes import RuntimeContract
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import GPT2, LLAMA3_PATTERN, Pretokenization

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize": "int3"},
        {"cache_length": 0},
        {"prefill_lengths": (1,)},
        {"most_divergence": -1},
        {"most_loss_increase": "much"},
        {"held_out_text": 3},
    ],
)
def test_a_wrong_setting_is_said_at_once(settings):
    with pytest.raises(kg.errors.ExportArgumentError, match="Received"):
        kg.LiteRtLmExporter(**settings)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle of a tiny GPT-2, and the model."""
    require_packages()
    model = tiny_gpt2(400, num_layers=1, hidden_dim=32, max_sequence_length=512)
    exporter = kg.LiteRtLmExporter(cache_length=384, prefill_lengths=(16,))
    return model, exporter.export(model, tmp_path_factory.mktemp("bundle") / "poet.litertlm")


@pytest.mark.slow
class TestRuntime(RuntimeContract):
    """LiteRT-LM reads and writes text, ends it at its own end token, and chooses among all tokens."""

    shows_the_end = keeps_utf8 = False
    chunks = (16,)

    @pytest.fixture
    def model(self, exported) -> LanguageModel:
        return exported[0]

    @pytest.fixture
    def runtime(self, exported):
        return exported[1].runtime

    def prompts(self, tokenizer) -> list[list[int]]:
        return tokenizer.encode_batch(["the sea", "the sand and the sun and the sea and a ship", "and", "昨夜雨疏风骤"])

    def told(self, tokenizer, ids) -> list[int]:
        return tokenizer.encode(as_litert_lm_tells(tokenizer, list(ids)))


@pytest.mark.slow
def test_the_cache_and_what_is_read_at_once_can_be_chosen(exported):
    model, artefact = exported
    assert artefact.report["max_tokens"] == 384
    assert artefact.report["tflite"]["signatures"] == ["prefill_16", "decode"]
    assert artefact.report["parity"]["text_equal"]
    runtime = artefact.runtime
    assert runtime.max_sequence_length == 384
    prompts = [model.tokenizer.encode(text) for text in ("the sea", "the sand and the sun", "and")]
    answers_are_those_of_one_thread(lambda prompt: runtime.generate_ids([prompt], max_new_tokens=8), prompts)


def require_packages():
    for package in ("litert_lm", "litert_lm_builder", "ai_edge_litert", "litert_quantizer", "tensorflow"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(400, num_layers=1, hidden_dim=32, max_sequence_length=64)


@pytest.fixture(scope="module")
def proved(model, tmp_path_factory):
    """A TFLite artefact that the tests of bundles take for the one that was proved."""
    require_packages()
    exporter = kg.TFLiteExporter(decode_lengths=(), beams=0, quantize="int8", most_divergence=9)
    return exporter.export(model, tmp_path_factory.mktemp("tflite") / "model.tflite")


@pytest.fixture
def proved_before(proved, monkeypatch):
    monkeypatch.setattr(kg.TFLiteExporter, "export", lambda *arguments, **settings: proved)


@pytest.mark.slow
def test_a_quantised_bundle_holds_what_was_proved_and_generates_what_that_does(model, proved_before, tmp_path):
    """Its text is that of the TFLite model alone, which rounding may have made another one than the model's."""
    parity = kg.LiteRtLmExporter(quantize="int8").export(model, tmp_path / "poet.litertlm").report["parity"]
    for what in ("tflite", "tokenizer", "metadata", "text"):
        assert parity[f"{what}_equal"], what
    assert isinstance(parity["greedy_equal"], bool)


@pytest.mark.slow
def test_a_change_beside_the_bundle_whose_digest_was_mended_is_told_or_makes_no_difference(
    model, proved_before, tmp_path_factory, tmp_path, monkeypatch
):
    monkeypatch.setattr(kg.LiteRtLmExporter, "_prove", lambda *arguments: {})  # which is not what is tested here
    path = tmp_path_factory.mktemp("bundle") / "poet.litertlm"
    kg.LiteRtLmExporter(quantize="int8").export(model, path)

    def write(path):
        return kg.load_artefact(path).generate("the sand and", max_new_tokens=9)

    refused, accepted = outcomes(path, tmp_path, write, unread=["parity", "tflite"])
    assert len(refused) > 250
    assert len(accepted) > 10


def changed_model(tflite, tokenizer_json, about, target, folder):
    """The last byte that is not zero is a weight's."""
    content = bytearray(tflite.read_bytes())
    place = max(n for n, byte in enumerate(content) if byte)
    content[place] ^= 1
    (folder / "model.tflite").write_bytes(content)
    return folder / "model.tflite", tokenizer_json, about, target


def other_tokenizer(tflite, tokenizer_json, about, target, folder):
    (folder / "tokenizer.json").write_text(tiny_gpt2().tokenizer.to_tokenizer_json(), encoding="utf-8")
    return tflite, folder / "tokenizer.json", about, target


def other_end(tflite, tokenizer_json, about, target, folder):
    return tflite, tokenizer_json, about | {"stop": [5]}, target


@pytest.mark.parametrize(
    ("change", "figure"),
    [(changed_model, "tflite_equal"), (other_tokenizer, "tokenizer_equal"), (other_end, "metadata_equal")],
)
@pytest.mark.slow
def test_a_bundle_of_something_else_is_not_handed_over(
    model, proved_before, tmp_path, tmp_path_factory, monkeypatch, change, figure
):
    """Although LiteRT-LM would run it; the figures are told, and no file is left."""
    write, folder = bundle.write, tmp_path_factory.mktemp("changed")
    monkeypatch.setattr(bundle, "write", lambda *arguments: write(*change(*arguments, folder)))
    with pytest.raises(kg.errors.ExportError, match=figure) as caught:
        kg.LiteRtLmExporter(quantize="int8").export(model, tmp_path / "poet.litertlm")
    assert caught.value.figures[figure] is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_bundle_that_generates_something_else_is_not_handed_over(model, proved_before, tmp_path, monkeypatch):
    """Here the model in it is taken for one that generates other ids."""
    ask = proving.ask

    def ask_and_change(path, *arguments, **settings):
        answer = ask(path, *arguments, **settings)
        if path.suffix != ".tflite":
            return answer
        calls = [[[65 for _ in ids] for ids in call] for call in answer.calls]
        return dataclasses.replace(answer, calls=calls)

    monkeypatch.setattr(proving, "ask", ask_and_change)
    with pytest.raises(kg.errors.ExportError, match="text_equal"):
        kg.LiteRtLmExporter(quantize="int8").export(model, tmp_path / "poet.litertlm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_no_bundle_is_told(proved, tmp_path):
    with pytest.raises(kg.errors.ExportError, match=r"model\.tflite can't be read"):
        bundle.read(proved.path)


@pytest.mark.essential
@pytest.mark.slow
def test_the_starter_from_end_to_end(tmp_path):
    require_packages()
    model = kg.Pipeline(corpus="sample", model="starter").model
    path = tmp_path / "poet.litertlm"
    artefact = kg.LiteRtLmExporter().export(model, path)
    assert artefact.report["parity"]["text_equal"]
    assert not artefact.report["parity"]["is_degenerate"]
    assert artefact.report["parity"]["modules"] == []
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {path.name, f"{path.name}.json", f"{path.name}.md", f"{path.name}.tokenizer.json"}
    tokenizer = tmp_path / f"{path.name}.tokenizer.json"
    whole = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(tiny_gpt2().tokenizer.to_tokenizer_json(), encoding="utf-8")
    with pytest.raises(kg.errors.ModelFormatError, match="not the tokenizer"):
        kg.load_artefact(path)
    tokenizer.write_text(whole, encoding="utf-8")
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(kg.errors.ModelFormatError, match="cut off"):
        kg.load_artefact(path)


@pytest.mark.slow
def test_a_vocabulary_fitted_to_chinese_is_read_by_litert_lm(tmp_path):
    """A fresh process of its own engine writes the model's text, from the adapted vocabulary and merges."""
    require_packages()
    from kerasgen.tuners.vocabulary import adapt

    poems = [f"{a}{b}花落知多少" for a in "春夏秋冬" for b in "風雨雲月"]
    model = tiny_gpt2(400, num_layers=1, hidden_dim=32, max_sequence_length=64)
    adapt(model, lambda: poems, None, asked="extend")
    artefact = kg.LiteRtLmExporter().export(model, tmp_path / "poet.litertlm")
    assert artefact.report["parity"]["text_equal"]
    assert kg.load_artefact(artefact.path).tokenizer.digest() == model.tokenizer.digest()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [GPT2, Pretokenization(LLAMA3_PATTERN, ignore_merges=True)])
@pytest.mark.nightly
def test_litert_lm_writes_the_text_of_a_llama(tmp_path, cut):
    """With GPT-2's way to cut a text and with Llama 3's own, which the tokenizer in the bundle keeps to."""
    require_packages()
    vocabulary, merges = tiny_vocabulary(400, last=("<|eot|>", GPT2_END))
    special = {"start_token": GPT2_END, "end_token": GPT2_END, "pad_token": GPT2_END, "end_tokens": ("<|eot|>",)}
    tokenizer = ByteLevelBPE(vocabulary, merges, pretokenization=cut, **special)
    plain = tiny_llama(400, num_layers=1, tie_word_embeddings=True)
    model = LanguageModel(plain.causal_lm, tokenizer, "tiny llama")
    artefact = kg.LiteRtLmExporter(cache_length=96, prefill_lengths=(16,)).export(model, tmp_path / "llama.litertlm")
    parity = artefact.report["parity"]
    assert parity["text_equal"]
    assert parity["greedy_equal"]
    assert not parity["is_degenerate"]
    assert bundle.read(artefact.path)["about"]["stop"] == list(tokenizer.end_token_ids)
    assert len(tokenizer.end_token_ids) == 2
    ids = tokenizer.encode("the sand and 1234")
    wanted = generate_ids(model, [ids], sampler="greedy", max_new_tokens=24, valid_utf8=False)[0][0].token_ids
    said = tokenizer.encode(as_litert_lm_tells(tokenizer, list(wanted)))
    assert artefact.runtime.generate_ids([ids], max_new_tokens=24) == [said]


def test_a_tokenizer_of_another_kind_is_refused_before_any_work(tmp_path):
    from letters import LetterTokenizer

    model = LanguageModel(tiny_llama(num_layers=1).causal_lm, LetterTokenizer(), "letters")
    with pytest.raises(kg.errors.ExportArgumentError, match=r"tokenizer\.json.*LetterTokenizer"):
        kg.LiteRtLmExporter().export(model, tmp_path / "llama.litertlm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["poet", "poet.bin", "POET.LITERTLM"])
def test_a_name_that_litert_lm_does_not_open_is_refused_before_any_work(name, tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match=r"end in '\.litertlm'.*Received.*Write"):
        kg.LiteRtLmExporter().export(tiny_gpt2(), tmp_path / name)
    assert not any(tmp_path.iterdir())
