"""Documents become rows: nothing is lost, nothing stands twice, little is padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import documents_of

from kerasgen.corpora.base import Document
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.characters import whole_character_bpe
from kerasgen.tokens.chunks import TEXTS_AT_ONCE
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tokens.packing import Packing, block, cut, pack

pytestmark = pytest.mark.one_backend

PACKINGS: tuple[Packing, ...] = ("best_fit", "none", "concatenate")
token_counts = st.lists(st.integers(0, 40), max_size=30)
row_lengths = st.integers(1, 24)


def numbered(counts: list[int]) -> EncodedDocuments:
    """Documents of so many tokens, in which no id occurs twice: each tells its own place."""
    ends = np.cumsum(counts, dtype=np.int64)
    return documents_of([list(range(end - count + 1, end + 1)) for end, count in zip(ends, counts, strict=True)])


@settings(deadline=None)
@given(token_counts, row_lengths, st.sampled_from(PACKINGS))
def test_every_target_stands_in_exactly_one_place_behind_its_own_predecessor(
    counts: list[int], sequence_length: int, packing: Packing
) -> None:
    encoded = numbered(counts)
    rows = pack(encoded, sequence_length=sequence_length, packing=packing)
    packed = block(encoded, rows, range(len(rows)), size=len(rows))
    assert packed.targets.shape == (len(rows), sequence_length)
    real = packed.segment_ids > 0
    firsts = encoded.offsets[:-1][encoded.lengths > 0]
    assert sorted(packed.targets[real]) == sorted(np.delete(encoded.token_ids, firsts))
    np.testing.assert_array_equal(packed.token_ids[real], packed.targets[real] - 1)
    document_of = np.repeat(np.arange(len(encoded)), encoded.lengths)
    np.testing.assert_array_equal(packed.documents[real], document_of[packed.targets[real] - 1])
    for padding in (packed.token_ids, packed.targets, packed.positions):
        assert not padding[~real].any()
    assert (packed.documents[~real] == -1).all()


@settings(deadline=None)
@given(token_counts, row_lengths, st.sampled_from(PACKINGS))
def test_a_segment_is_consecutive_tokens_at_positions_from_0(
    counts: list[int], sequence_length: int, packing: Packing
) -> None:
    encoded = numbered(counts)
    rows = pack(encoded, sequence_length=sequence_length, packing=packing)
    packed = block(encoded, rows, range(len(rows)), size=len(rows))
    for row in range(len(rows)):
        segments = packed.segment_ids[row]
        filled = segments[segments > 0]
        assert (segments[: len(filled)] > 0).all(), "padding stands at the end"
        assert list(dict.fromkeys(filled.tolist())) == list(range(1, len(rows.members(row)) + 1))
        for segment in set(filled.tolist()):
            inside = segments == segment
            count = int(inside.sum())
            np.testing.assert_array_equal(packed.positions[row][inside], np.arange(count))
            np.testing.assert_array_equal(np.diff(packed.targets[row][inside]), np.ones(count - 1))


@settings(deadline=None)
@given(token_counts, row_lengths)
def test_best_fit_never_takes_more_rows_than_one_a_piece(counts: list[int], sequence_length: int) -> None:
    encoded = numbered(counts)
    alone = pack(encoded, sequence_length=sequence_length, packing="none")
    together = pack(encoded, sequence_length=sequence_length, packing="best_fit")
    assert len(together) <= len(alone)
    assert together.fill >= alone.fill
    assert together.fill <= 1.0


@settings(deadline=None)
@given(token_counts, row_lengths)
def test_no_two_rows_of_best_fit_would_fit_into_one(counts: list[int], sequence_length: int) -> None:
    """A row is opened only where no other has room; so all but one are more than half full on average."""
    rows = pack(numbered(counts), sequence_length=sequence_length)
    loads = sorted(rows.targets.tolist())
    assert all(load <= sequence_length for load in loads)
    if len(loads) > 1:
        assert loads[0] + loads[1] > sequence_length


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 100))
def test_best_fit_decreasing_keeps_johnsons_bound(seed: int, perfect: int) -> None:
    """Johnson 1973: at most 11/9 of the fewest rows, plus 4. Full rows cut at random tell what the fewest are."""
    rng = np.random.default_rng(seed)
    counts: list[int] = []
    for _ in range(perfect):
        cuts = np.sort(rng.choice(np.arange(1, 128), size=rng.integers(0, 6), replace=False))
        counts += [int(targets) + 1 for targets in np.diff([0, *cuts, 128])]
    rows = pack(numbered(list(rng.permutation(counts))), sequence_length=128)
    assert perfect <= len(rows) <= 11 * perfect // 9 + 4


@settings(deadline=None)
@given(token_counts, row_lengths)
def test_only_a_document_longer_than_a_row_is_split_and_then_into_as_few_pieces_as_can_be(
    counts: list[int], sequence_length: int
) -> None:
    encoded = numbered(counts)
    pieces = cut(encoded, sequence_length=sequence_length)
    for document, count in enumerate(counts):
        own = pieces.targets[pieces.documents == document]
        assert len(own) == -(-max(count - 1, 0) // sequence_length)
        assert own.sum() == max(count - 1, 0)
    rows = pack(encoded, sequence_length=sequence_length)
    assert rows.split_documents == sum(count - 1 > sequence_length for count in counts)


@settings(deadline=None)
@given(token_counts, row_lengths, st.sampled_from(PACKINGS))
def test_packing_is_the_same_each_time(counts: list[int], sequence_length: int, packing: Packing) -> None:
    first = pack(numbered(counts), sequence_length=sequence_length, packing=packing)
    again = pack(numbered(counts), sequence_length=sequence_length, packing=packing)
    assert first.order.tolist() == again.order.tolist()
    assert first.bounds.tolist() == again.bounds.tolist()


def test_a_block_is_filled_up_with_rows_of_padding() -> None:
    encoded = numbered([5, 4, 3])
    rows = pack(encoded, sequence_length=4, packing="none")
    packed = block(encoded, rows, [2, 0], size=4)
    assert packed.targets.tolist() == [[11, 12, 0, 0], [2, 3, 4, 5], [0] * 4, [0] * 4]
    assert packed.documents.tolist() == [[2, 2, -1, -1], [0] * 4, [-1] * 4, [-1] * 4]


def test_a_block_refuses_more_rows_than_it_holds() -> None:
    encoded = numbered([3, 3, 3])
    rows = pack(encoded, sequence_length=2)
    with pytest.raises(TokenArgumentError, match="2 rows can't hold 3"):
        block(encoded, rows, [0, 1, 2], size=2)


def test_packing_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TokenArgumentError, match=r"'best_fit', 'none' or 'concatenate'.*'worst_fit'"):
        pack(numbered([3]), sequence_length=4, packing="worst_fit")  # type: ignore[arg-type]
    with pytest.raises(TokenArgumentError, match=r"at least 1. Received: 0"):
        pack(numbered([3]), sequence_length=0)


class TestEncoding:
    tokenizer = whole_character_bpe(["春眠不覺曉"] * 2, vocabulary_size=300)

    def test_a_document_is_its_text_between_start_and_end(self) -> None:
        tokenizer = self.tokenizer
        encoded = encode_documents([Document("春眠", "1"), Document("don't", "2")], tokenizer)
        start, end = [tokenizer.start_token_id] * (tokenizer.start_token_id is not None), [tokenizer.end_token_id]
        assert [list(document) for document in encoded] == [
            start + tokenizer.encode(text) + end for text in ("春眠", "don't")
        ]
        assert encoded.characters.tolist() == [2, 5]
        assert encoded.targets == len(encoded.token_ids) - 2

    def test_documents_are_drawn_once_and_none_is_lost_between_two_draws(self) -> None:
        tokenizer = self.tokenizer
        count = 2 * TEXTS_AT_ONCE + 3
        drawn = (Document("春" * (1 + n % 3), str(n)) for n in range(count))
        encoded = encode_documents(drawn, tokenizer)
        assert encoded.characters.tolist() == [1 + n % 3 for n in range(count)]
        for n in (0, TEXTS_AT_ONCE - 1, TEXTS_AT_ONCE, count - 1):
            assert tokenizer.decode(encoded[n].tolist(), skip_special_tokens=True) == "春" * (1 + n % 3)

    def test_no_documents_are_no_rows(self) -> None:
        tokenizer = self.tokenizer
        encoded = encode_documents([], tokenizer)
        assert (len(encoded), encoded.targets, len(pack(encoded, sequence_length=8))) == (0, 0, 0)

    def test_the_digest_tells_ids_and_boundaries_apart(self) -> None:
        digests = {documents_of(ids).digest() for ids in ([[1, 2, 3, 4]], [[1, 2], [3, 4]], [[1, 2, 3, 5]])}
        assert len(digests) == 3
        assert documents_of([[1, 2], [3, 4]]).digest() in digests


@pytest.mark.slow
def test_tang_poems_fill_94_percent_of_128_positions_and_98_of_512_and_1024(shared_data: Path) -> None:
    corpus = ChinesePoetry(path=str(shared_data / "chinese-poetry.tang.tar.xz"), dynasty="tang")
    poems = list(corpus.documents())
    tokenizer = whole_character_bpe((poem.text for poem in poems), vocabulary_size=8192)
    encoded = encode_documents(poems, tokenizer)
    for length, least in ((128, 0.94), (512, 0.98), (1024, 0.98)):
        rows = pack(encoded, sequence_length=length)
        assert rows.pieces.targets.sum() == encoded.targets, "nothing is cut off"
        assert encoded.targets / (length * len(rows)) >= least
        assert rows.split_documents == (encoded.lengths - 1 > length).sum(), "what fits is not split"
    assert pack(encoded, sequence_length=128, packing="none").fill < 0.5
