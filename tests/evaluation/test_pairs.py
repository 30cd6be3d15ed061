"""Evaluation on pairs of a better and a worse answer."""

from __future__ import annotations

import numpy as np
from toys import nats_by_hand, smallest_gpt2

from kerasgen.corpora.base import Document, Part
from kerasgen.evaluation.perplexity import evaluate
from kerasgen.tokens.encoding import encode_documents


def test_the_share_of_pairs_whose_better_answer_is_likelier_is_counted() -> None:
    model = smallest_gpt2()
    documents = []
    for n in range(6):
        ask = Part(f"ask {n} ", 0)
        documents.append(
            Document.of((ask, Part("the cat")), str(n), rejected=(ask, Part("a mat" if n % 2 else "in it")))
        )
    encoded = encode_documents([*documents, Document("alone", "x")], model.tokenizer)
    assert encoded.rejected is not None
    assert encoded.parts is not None
    right = []
    for n in range(6):
        first = int(encoded.parts.of_document(n).ends[0]) - 1
        nats = [nats_by_hand(model, ids)[first:].sum() for ids in (encoded[n], encoded.rejected[n])]
        right.append(nats[0] < nats[1])
    found = evaluate(model, encoded)
    assert found.pair_accuracy == np.mean(right)
    assert "of the pairs" in str(found)
    plain = evaluate(model, encode_documents([Document("alone", "x")], model.tokenizer))
    assert plain.pair_accuracy is None
