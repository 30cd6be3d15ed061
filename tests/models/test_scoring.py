"""What a document costs under a model does not depend on what it shares a row or a batch with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt
from toys import documents_of, nats_by_hand, smallest_llama

from kerasgen.errors import ModelArgumentError, TokenArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import cut, pack

pytestmark = pytest.mark.numerical

SEQUENCE_LENGTH = 24
FAMILIES: dict[str, Callable[[], LanguageModel]] = {"gpt2": tiny_gpt2, "opt": tiny_opt, "llama": smallest_llama}


@dataclass
class Scored:
    """A model, its compiled forward pass, and documents of which the last two are longer than a row."""

    model: LanguageModel
    losses: Any
    ids: list[list[int]]

    def score(self, ids: list[list[int]] | EncodedDocuments, **settings: Any) -> Any:
        from kerasgen.models.scoring import score

        encoded = ids if isinstance(ids, EncodedDocuments) else documents_of(ids)
        settings = {"batch_size": 4, "losses": self.losses} | settings
        return score(self.model, encoded, sequence_length=SEQUENCE_LENGTH, **settings)


@pytest.fixture(scope="module", params=list(FAMILIES))
def scored(request: pytest.FixtureRequest) -> Scored:
    model = FAMILIES[request.param]()
    from kerasgen.models.forward import TokenLosses

    rng = np.random.default_rng(1)
    lengths = [9, 9, 25, 9, 9, 9, 9, 9, 57, 33]  # few lengths: the slow computation compiles for each
    ids = [rng.integers(3, 300, size=length).tolist() for length in lengths]
    return Scored(model, TokenLosses(model), ids)


def test_nats_equal_a_slow_computation_from_kerashubs_own_logits(scored: Scored) -> None:
    """One document at a time, unpadded, unpacked, in NumPy; a long one in its pieces."""
    encoded = documents_of(scored.ids)
    pieces = cut(encoded, sequence_length=SEQUENCE_LENGTH)
    expected = np.zeros(len(encoded))
    for start, targets, document in zip(pieces.starts, pieces.targets, pieces.documents, strict=True):
        expected[document] += nats_by_hand(scored.model, encoded.token_ids[start : start + targets + 1]).sum()
    found = scored.score(encoded)
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)
    assert found.loss == pytest.approx(expected.sum() / sum(len(ids) - 1 for ids in scored.ids), rel=1e-5)
    characters = sum(map(len, scored.ids))  # `documents_of` calls each id a character
    assert found.bits_per_character == pytest.approx(expected.sum() / np.log(2) / characters, rel=1e-5)


def test_each_document_costs_what_it_costs_alone(scored: Scored) -> None:
    together = scored.score(scored.ids)
    alone = [scored.score([ids]).nll[0] for ids in scored.ids]
    np.testing.assert_allclose(together.nll, alone, rtol=2e-6)


def test_changing_one_document_leaves_every_other_ones_nats_to_the_bit(scored: Scored) -> None:
    """No information passes between documents, whichever of a row is changed."""
    before = scored.score(scored.ids).nll
    packing = "best_fit" if scored.losses.packs else "none"
    rows = pack(documents_of(scored.ids), sequence_length=SEQUENCE_LENGTH, packing=packing)
    for changed in (5, 4, 1):
        ids = [list(document) for document in scored.ids]
        ids[changed] = [3 + (token_id + 7) % 297 for token_id in ids[changed]]
        after = scored.score(ids).nll
        assert after[changed] != before[changed]
        others = np.arange(len(ids)) != changed
        np.testing.assert_array_equal(after[others], before[others])
    if scored.losses.packs:
        assert any(len(rows.members(row)) > 1 for row in range(len(rows))), "documents did share rows"


def test_batch_size_and_rows_of_padding_change_nothing(scored: Scored) -> None:
    """A batch is filled up with rows of padding, here many."""
    base = scored.score(scored.ids)
    other = scored.score(scored.ids, batch_size=19)
    np.testing.assert_allclose(other.nll, base.nll, rtol=2e-6)
    assert other.tokens.tolist() == base.tokens.tolist() == [len(ids) - 1 for ids in scored.ids]
    assert other.loss == pytest.approx(base.loss, rel=1e-6)


def test_a_model_without_preferences_costs_the_log_of_its_vocabulary(scored: Scored) -> None:
    """Padding would show as less: the mean is over real targets alone."""
    embedding = scored.model.backbone.token_embedding
    table = getattr(embedding, "reverse_embeddings", embedding.embeddings)  # a tied model has one table
    before = np.array(table)
    table.assign(np.zeros_like(before))
    try:
        found = scored.score([[1, 2, 3], [4, 5]])
    finally:
        table.assign(before)
    assert found.loss == pytest.approx(np.log(300), rel=1e-6)
    assert found.bits_per_character == pytest.approx(3 * np.log2(300) / 5, rel=1e-6)


def test_more_positions_than_the_model_has_are_refused() -> None:
    """The backends would read the last position over and over, and say nothing."""
    model = tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=32)
    from kerasgen.models.scoring import score

    with pytest.raises(ModelArgumentError, match=r"at most the model's 32 positions. Received: 33"):
        score(model, documents_of([[1, 2, 3]]), sequence_length=33)
    with pytest.raises(TokenArgumentError, match=r"at least 1. Received: 0"):
        score(model, documents_of([[1, 2, 3]]), sequence_length=0)
