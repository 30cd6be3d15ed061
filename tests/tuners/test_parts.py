"""Parts of texts in training: the loss is the mean over what is learned, and held-out figures are of it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import nats_by_hand, weights_of

from kerasgen.corpora.base import Document, Part
from kerasgen.errors import TuneArgumentError
from kerasgen.tokens.encoding import encode_documents
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner

SETTINGS: dict[str, Any] = {
    **{"learning_rate": 3e-3, "sequence_length": 96, "packing": "best_fit", "precision": "float32"},
    "schedule": "constant",
}


def small() -> Any:
    return tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=128)


def pairs(count: int, first: int = 0) -> list[Document]:
    """Questions of unequal lengths with answers, of which every third counts twice."""
    return [
        Document.of(
            (
                Part(f"question {n}{' and more' * (n % 4)}? ", 0, "user"),
                Part(f"answer {n * 7} {'so it is ' * (n % 3)}", 2 if n % 3 == 0 else 1, "assistant"),
            ),
            str(n),
        )
        for n in range(first, first + count)
    ]


def tuned(directory: Path, documents: list[Document], *, steps: int = 1, **settings: Any) -> tuple[Any, TuneReport]:
    model = small()
    tuner = FullTuner(**SETTINGS | {"max_steps": steps} | settings)
    held_out = encode_documents(pairs(4, 100), model.tokenizer)
    train = encode_documents(documents, model.tokenizer)
    report = tuner.tune(model, train, held_out, seed=3, directory=directory)
    return model, report


def by_hand(model: Any, documents: list[Document], *, weigh: bool = True) -> tuple[float, float, int]:
    """Weighted nats, weights and learned tokens, from KerasHub's own logits of each document alone, unpadded."""
    nats = weights = 0.0
    count = 0
    for document in documents:
        ids = encode_documents([document], model.tokenizer)[0]
        read = 1 + len(model.tokenizer.encode(document.parts[0].text))
        assert ids[1:read].tolist() == model.tokenizer.encode(document.parts[0].text)  # no token stands on the edge
        weight = document.parts[1].weight if weigh else 1.0
        learned = nats_by_hand(model, ids)[read - 1 :]
        nats, weights, count = (
            nats + weight * float(learned.sum()),
            weights + weight * len(learned),
            count + len(learned),
        )
    return nats, weights, count


def test_a_loss_is_the_mean_over_learned_tokens_by_their_weights(tmp_path: Path) -> None:
    documents = pairs(9)
    before = small()
    _, report = tuned(tmp_path, documents, batch_size=20)
    nats, weights, count = by_hand(before, documents)
    assert report.losses[0] == pytest.approx(nats / weights, rel=1e-5)
    assert report.tokens - report.read_tokens == count
    nats, _, count = by_hand(before, pairs(4, 100), weigh=False)
    first = report.validations[0]
    assert first.tokens == count
    assert first.loss == pytest.approx(nats / count, rel=1e-5)
    characters = sum(len(document.parts[1].text) for document in pairs(4, 100))
    assert first.bits_per_character == pytest.approx(nats / np.log(2) / characters, rel=1e-5)
    assert "only read" in str(report)


@pytest.mark.slow
def test_accumulated_batches_make_the_step_of_one_batch(tmp_path: Path) -> None:
    """However unevenly what is learned falls on them."""
    documents = pairs(16)
    whole, one = tuned(tmp_path / "a", documents, steps=2, batch_size=8, packing="none")
    apart, two = tuned(tmp_path / "b", documents, steps=2, batch_size=2, packing="none", gradient_accumulation_steps=4)
    np.testing.assert_allclose(two.losses, one.losses, rtol=1e-5)
    for left, right in zip(weights_of(apart), weights_of(whole), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


@pytest.mark.slow
def test_what_is_only_read_changes_no_weight_by_itself_and_learning_all_is_learning_plain_texts(tmp_path: Path) -> None:
    documents = pairs(9)
    plain = [Document(document.text, document.id) for document in documents]
    _, everything = tuned(tmp_path / "a", documents, steps=3, batch_size=4, learn="all")
    _, texts = tuned(tmp_path / "b", plain, steps=3, batch_size=4)
    assert everything.losses == texts.losses
    assert everything.read_tokens == 0
    assert everything.characters == texts.characters
    assert everything.validations[0] == texts.validations[0]  # of the same parts
    nothing = [Document.of((Part(document.text, 0),), document.id) for document in documents]
    with pytest.raises(TuneArgumentError, match=r"is only read \(weight 0\).*learn='all'"):
        tuned(tmp_path / "c", nothing)
    _, all_the_same = tuned(tmp_path / "d", nothing, steps=3, batch_size=4, learn="all")  # as the error says
    assert all_the_same.losses == texts.losses
