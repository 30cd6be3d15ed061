"""The figures of an evaluation are those of a slow computation by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import nats_by_hand

import kerasgen as kg
from kerasgen.corpora.base import Document
from kerasgen.evaluation import scores_file
from kerasgen.evaluation.perplexity import evaluate, score_texts
from kerasgen.models.scoring import Scores
from kerasgen.tokens.encoding import encode_documents

TEXTS = ["the cat", "春天\n\n明月", "a", "x" * 150]


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(max_sequence_length=64)


def _encode(model, texts):
    return encode_documents([Document(text=text, id=str(n)) for n, text in enumerate(texts)], model.tokenizer)


def test_the_figures_equal_a_slow_computation(model):
    """Each document alone, unpadded, through KerasHub's own forward pass, added up in NumPy."""
    nll, tokens = 0.0, 0
    for text in TEXTS:
        ids = [model.tokenizer.start_token_id, *model.tokenizer.encode(text), model.tokenizer.end_token_id]
        for first in range(0, len(ids) - 1, 64):
            of_tokens = nats_by_hand(model, ids[first : first + 65])
            nll += of_tokens.sum()
            tokens += len(of_tokens)
    found = evaluate(model, _encode(model, TEXTS))
    characters = sum(map(len, TEXTS))
    assert (found.tokens, found.characters, found.documents) == (tokens, characters, len(TEXTS))
    assert found.loss == pytest.approx(nll / tokens, rel=1e-5)
    assert found.bits_per_character == pytest.approx(nll / math.log(2) / characters, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert found.tokens_per_character == tokens / characters


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_batch_size_changes_nothing(model, batch_size):
    encoded = _encode(model, TEXTS)
    assert evaluate(model, encoded, batch_size=batch_size).loss == pytest.approx(
        evaluate(model, encoded).loss, rel=1e-5
    )


def test_an_untrained_model_knows_as_little_as_chance(model):
    """A softmax over 300 ids without knowledge costs about log 300 nats: the padding of a row doesn't dilute it."""
    quiet = tiny_gpt2(max_sequence_length=64)
    for variable in quiet.causal_lm.weights:
        variable.assign(np.asarray(variable) * 0.0)
    assert evaluate(quiet, _encode(quiet, TEXTS)).loss == pytest.approx(math.log(300), rel=1e-5)


def test_nothing_to_evaluate_is_an_error(model):
    with pytest.raises(kg.errors.ArgumentError, match="nothing to evaluate"):
        evaluate(model, _encode(model, []))


def test_a_hopeless_loss_has_an_infinite_perplexity():
    assert kg.Evaluation(1000.0, 1.0, 1, 1, 1).perplexity == math.inf


def test_a_model_that_gives_no_number_is_an_error():
    model = tiny_gpt2(max_sequence_length=64)
    weight = model.causal_lm.trainable_weights[0]
    weight.assign(np.full(weight.shape, np.nan, np.float32))
    with pytest.raises(kg.errors.ModelError, match="NaN or infinite"):
        evaluate(model, _encode(model, TEXTS))
    with pytest.raises(kg.errors.ModelError, match="NaN or infinite"):
        score_texts(model, TEXTS)


def test_a_scores_file_is_utf_8_and_json_whatever_it_holds(tmp_path):
    scores = Scores(np.asarray([1.0, 2.0]), np.asarray([2, 2]), np.asarray([3, 3]))
    documents = [Document(text="春\ud800", id="a"), Document(text="x", id="b")]
    scores_file.write(tmp_path / "scores.jsonl", scores, documents)
    lines = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["text"], first["nats"], second["nats"]) == ("春\ud800", 1.0, 2.0)
