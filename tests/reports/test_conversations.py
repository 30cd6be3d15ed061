"""A report colours held-out conversations as the model's chat template writes them, and leaves verse out of English."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import reported
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.corpora.base import Document
from kerasgen.corpora.texts import Texts
from kerasgen.evaluation.perplexity import score_documents, score_texts
from kerasgen.models import chat
from kerasgen.models.saving import save_preset
from kerasgen.models.scoring import token_nll
from kerasgen.reports import contents
from kerasgen.reports.words import LANGUAGES
from kerasgen.tokens.encoding import encode_documents

pytestmark = pytest.mark.one_backend

TALKS = [
    {"messages": [{"role": "user", "content": f"春 {n}?"}, {"role": "assistant", "content": f"風 {n}"}]}
    for n in range(20)
]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> kg.Pipeline:
    preset = tmp_path_factory.mktemp("preset") / "tiny"
    save_preset(tiny_gpt2(), preset)
    pipe = kg.Pipeline(TALKS, preset, held_out=0.3, chat_template="chatml")
    assert pipe.model.metadata
    return pipe


@pytest.mark.slow
def test_a_conversation_is_scored_as_its_template_writes_it(pipe):
    documents = list(pipe._corpus().side("held_out"))
    template = chat.template_of(pipe.model)
    scores = score_documents(pipe.model, documents, top_logprobs=2)
    encoded = encode_documents(documents, pipe.tokenizer, template).learning_all()
    nll = token_nll(pipe.model, encoded, sequence_length=pipe.model.default_sequence_length, batch_size=4)
    for place, (score, document) in enumerate(zip(scores, documents, strict=True)):
        written = template.render(document.conversation).removeprefix("<|endoftext|>")  # the start token
        assert score.text.rstrip("\n") == written.rstrip("\n")
        assert "<|im_start|>user\n春" in score.text
        marker = pipe.tokenizer.special_tokens["<|im_start|>"]
        assert marker in score.token_ids
        whole = slice(int(encoded.offsets[place]), int(encoded.offsets[place + 1]))
        assert math.isclose(
            score.log_probability + score.end_log_probability, -float(np.nansum(nll[whole])), abs_tol=1e-3
        )
        assert len(score.character_log_probabilities) == len(score.text)
        assert math.isclose(sum(score.character_log_probabilities), score.log_probability, abs_tol=1e-6)
        assert {len(choices) for choices in score.top_logprobs[1:]} == {2}


@pytest.mark.slow
def test_a_document_without_turns_is_scored_as_its_text_is(pipe):
    (score,) = score_documents(pipe.model, [Document("春眠不覺曉", "a")])
    (plain,) = score_texts(pipe.model, ["春眠不覺曉"])
    assert (score.text, score.token_ids) == (plain.text, plain.token_ids)
    assert np.allclose(score.token_log_probabilities, plain.token_log_probabilities, atol=1e-5)
    assert np.allclose(score.character_log_probabilities, plain.character_log_probabilities, atol=1e-5)
    assert math.isclose(score.end_log_probability, plain.end_log_probability, abs_tol=1e-5)


@pytest.mark.slow
def test_the_page_of_a_pipeline_shows_the_markers(pipe, tmp_path):
    page = pipe.report(tmp_path / "run.html").read_text(encoding="utf-8")
    assert "&lt;|im_start|&gt;" in page


@pytest.mark.slow
def test_nothing_is_scored_where_there_is_nothing(pipe):
    assert score_documents(pipe.model, Texts([]).documents()) == []


@pytest.mark.parametrize(("text", "is_shown"), [("A dog barked.", False), ("春眠不覺曉", True)])
def test_figures_of_verse_are_shown_of_chinese_alone(text, is_shown):
    found = reported.evaluation()
    written = [kg.WrittenText(text)]
    writing = dataclasses.replace(found.writing, written=written, forms={"other": 1.0}, mixed_scripts=0.0)
    names = [name for name, *_ in contents.written(writing, None, LANGUAGES["en"])["table"]]
    assert ("form: other" in names, "texts with mixed scripts" in names) == (is_shown, is_shown)
