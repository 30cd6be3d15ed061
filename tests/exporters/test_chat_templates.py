"""A chat template goes into every artefact that holds one, and its runtime gives the same ids by it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from tiny import tiny_gpt2, tiny_llama

import kerasgen as kg
from kerasgen.exporters.litertlm import bundle
from kerasgen.generation import generate
from kerasgen.models import chat
from kerasgen.models.base import CHAT_TEMPLATE, LanguageModel

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the sea?"}]


def given(model: LanguageModel, template: str) -> LanguageModel:
    assert chat.give(model, template, seed=0) == (template != "alpaca")
    return model


# One that writes no start token, though the model's texts begin with one.
BARE = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' + (m.content if m.content is string else m.content[0].text) + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""


@pytest.fixture(scope="module", params=["chatml", "bare"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    model = given(tiny_gpt2(400, num_layers=1, max_sequence_length=256), "chatml")
    assert model.metadata[CHAT_TEMPLATE].startswith("{{- '<|endoftext|>' }}")
    if request.param == "bare":
        assert not chat.give(model, BARE, seed=0)
    return model


def answer_of(model: LanguageModel, tmp_path: Path) -> str:
    from kerasgen.models.saving import save_preset

    pipe = kg.Pipeline(model=save_preset(model, tmp_path / "preset"), sampler="greedy")
    answer = pipe.chat(ASKED, max_new_tokens=12)
    assert pipe.model.metadata[CHAT_TEMPLATE] == model.metadata[CHAT_TEMPLATE]
    return answer


@pytest.mark.skipif(
    not (importlib.util.find_spec("transformers") and importlib.util.find_spec("torch")),
    reason="transformers and torch are not installed",
)
@pytest.mark.parametrize("template", ["chatml", pytest.param("alpaca", marks=pytest.mark.nightly)])
@pytest.mark.essential
def test_transformers_applies_it(template: str, tmp_path: Path) -> None:
    model = given(tiny_llama(400, num_layers=1), template)
    artefact = kg.TransformersExporter(max_sequence_length=256).export(model, tmp_path / "dir")
    assert artefact.report["parity"]["transformers"]["chat_ids_equal"]
    settings = json.loads((artefact.path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["chat_template"] == model.metadata[CHAT_TEMPLATE]
    again = kg.Pipeline(model=artefact.path, sampler="greedy")
    assert again.chat(ASKED, max_new_tokens=12) == answer_of(model, tmp_path)
    if template == "chatml":
        check_variables(artefact.path)


def check_variables(directory: Path) -> None:
    """A template finds the special tokens that transformers tells it, by the same names, and no others."""
    from transformers import AutoTokenizer

    from kerasgen.corpora.conversations import conversation

    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((directory / file).read_text(encoding="utf-8"))
        settings.pop("pad_token", None)
        if file == "tokenizer_config.json":
            settings["extra_special_tokens"] = {"image_token": "<|im_end|>"}
            names = ("image_token", "pad_token", "bos_token", "eos_token", "sep_token")
            settings["chat_template"] = "|".join(f"{{{{ {name} }}}}" for name in names)
        (directory / file).write_text(json.dumps(settings), encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(directory).apply_chat_template(ASKED, tokenize=False)
    ours = chat.needed(kg.Pipeline(model=directory).model).render(conversation(ASKED, answered=False))
    assert ours == theirs
    assert ours.startswith("<|im_end|>||<")


def test_llama_cpp_applies_it(model: LanguageModel, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    artefact = kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    told = artefact.report["parity"]["llama_cpp"]
    assert told["chat_ids_equal"]
    assert told["chat_text"] == "the template's"
    assert told["chat_lengths_equal"]
    again = kg.Pipeline(model=artefact.path, sampler="greedy")
    assert again.chat(ASKED, max_new_tokens=12) == answer_of(model, tmp_path)
    assert again.model.tokenizer.start_token == model.tokenizer.start_token


@pytest.mark.parametrize("model", ["bare"], indirect=True)
def test_a_file_that_starts_conversations_otherwise_is_not_handed_over(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(chat, "starts", lambda *_: True)
    with pytest.raises(kg.errors.ExportError, match="chat_lengths_equal"):
        kg.GgufExporter().export(model, tmp_path / "tiny.gguf")


def test_litert_lm_applies_it(model: LanguageModel, tmp_path: Path) -> None:
    for package in ("litert_lm", "litert_lm_builder", "ai_edge_litert", "tensorflow"):
        pytest.importorskip(package)
    exporter = kg.LiteRtLmExporter(cache_length=256, prefill_lengths=(16,))
    artefact = exporter.export(model, tmp_path / "tiny.litertlm")
    told = artefact.report["parity"]
    assert told["chat_ids_equal"]
    assert told["chat_text"] == "the template's"
    assert told["answers_equal"]
    assert told["metadata_equal"]  # the template is among it
    assert bundle.read(artefact.path)["about"]["chat_template"] == model.metadata[CHAT_TEMPLATE]
    written = generate(model, ["the sea"], sampler="greedy", max_new_tokens=12, valid_utf8=False)
    assert artefact.runtime.generate("the sea", max_new_tokens=12) == written[0]


def test_an_artefact_chats(model: LanguageModel, tmp_path: Path) -> None:
    for package in ("ai_edge_litert", "tensorflow"):
        pytest.importorskip(package)
    exporter = kg.TFLiteExporter(cache_length=256, prefill_lengths=(16,), decode_lengths=(), beams=0)
    runtime = exporter.export(model, tmp_path / "tiny.tflite").runtime
    answer = answer_of(model, tmp_path)
    assert runtime.chat(ASKED, max_new_tokens=12) == answer
    assert "".join(runtime.chat_stream(ASKED, max_new_tokens=12)) == answer
    plain = tiny_gpt2(400, num_layers=1, max_sequence_length=256)
    with pytest.raises(kg.errors.ChatTemplateError, match="holds no chat template"):
        exporter.export(plain, tmp_path / "plain.tflite").runtime.chat(ASKED, max_new_tokens=2)
