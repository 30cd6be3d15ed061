"""Pairs of a better and a worse text: encoded and stored together, packed side by side, shortened alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GPT2_END, tiny_vocabulary

from kerasgen.corpora.base import CorpusTally, Document, Part
from kerasgen.errors import TokenArgumentError
from kerasgen.tokens import store as stores
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.corpus_scan import Survey
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents, selected
from kerasgen.tokens.pairs import pack_pairs, pair_block

pytestmark = pytest.mark.one_backend

VOCABULARY, MERGES = tiny_vocabulary(300)
TOKENIZERS = [
    ByteLevelBPE(VOCABULARY, MERGES, end_token=GPT2_END),
    ByteLevelBPE(VOCABULARY, MERGES, start_token=GPT2_END, end_token=GPT2_END),
]


def pair(prompt: str, chosen: str, rejected: str, *, name: str = "", system: str = "") -> Document:
    before = (*((Part(system, 0, "system"),) if system else ()), *((Part(prompt, 0, "user"),) if prompt else ()))
    return Document.of((*before, Part(chosen)), name, rejected=(*before, Part(rejected)))


PAIRS = [pair(f"question {n}{' more' * (n % 3)}? ", f"yes {n}", f"no {n * 'o'}", name=str(n)) for n in range(30)]


class _Corpus:
    def __init__(self, documents: list[Document]) -> None:
        self.kept = documents

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        tally = CorpusTally() if tally is None else tally
        return (tally.keep(document) for document in self.kept)


def put(directory: Path, documents: list[Document]) -> stores.StoredCorpus:
    return stores.store(_Corpus(documents).documents, TOKENIZERS[0], held_out=0.3, directory=directory)


def test_a_worse_text_is_encoded_as_the_same_document_by_itself() -> None:
    encoded = encode_documents([*PAIRS, Document("alone", "x")], TOKENIZERS[1])
    worse = encode_documents((Document.of(each.rejected, each.id) for each in PAIRS), TOKENIZERS[1])
    assert encoded.rejected is not None
    for index in range(len(PAIRS)):
        np.testing.assert_array_equal(encoded.rejected[index], worse[index])
    assert len(encoded.rejected[len(PAIRS)]) == 0
    np.testing.assert_array_equal(encoded.rejected.characters[:-1], worse.characters)
    some = selected(encoded, [3, 7])
    assert some.rejected is not None
    np.testing.assert_array_equal(some.rejected[1], worse[7])
    assert encode_documents([Document("a", "")], TOKENIZERS[1]).rejected is None


def test_both_texts_are_stored_checked_and_divided_together(tmp_path: Path) -> None:
    stored = put(tmp_path, PAIRS)
    assert put(tmp_path, PAIRS).reused
    for side in (stored.train, stored.held_out):
        assert side.rejected is not None
        assert isinstance(side.rejected.token_ids, np.memmap)
        assert 0 < len(side) == len(side.rejected) < len(PAIRS)
        begins = [TOKENIZERS[0].decode(ids.tolist()).split("?")[0] for ids in side]
        assert begins == [TOKENIZERS[0].decode(ids.tolist()).split("?")[0] for ids in side.rejected]
    ids = {int(text.split()[1].rstrip("?")) for text in (TOKENIZERS[0].decode(ids.tolist()) for ids in stored.train)}
    expected = encode_documents((each for each in PAIRS if int(each.id) in ids), TOKENIZERS[0])
    assert stored.train.digest() == expected.digest()
    other = [*PAIRS[:-1], pair("question 29 more more? ", "yes 29", "never")]
    assert put(tmp_path, other).path != stored.path
    damaged = stored.path / "train.rejected.ids"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\1\0\0\0")
    assert not put(tmp_path, PAIRS).reused
    np.testing.assert_array_equal(put(tmp_path, PAIRS).train.rejected.token_ids, expected.rejected.token_ids)  # type: ignore[union-attr]


def test_a_corpus_without_pairs_is_stored_as_before(tmp_path: Path) -> None:
    plain = put(tmp_path, [Document(each.text, each.id) for each in PAIRS])
    assert plain.train.rejected is None
    assert not list(plain.path.glob("*rejected*"))


def test_worse_texts_count_where_a_corpus_is_surveyed() -> None:
    survey = Survey(_Corpus(PAIRS).documents, held_out=0.0)
    assert survey.found.has_pairs
    assert set(survey.found.training_sample) >= {PAIRS[3].text, PAIRS[3].rejected_text}
    assert PAIRS[4].rejected_text in list(survey())
    other = Survey(_Corpus([*PAIRS[:-1], pair("question 29 more more? ", "yes 29", "x")]).documents, held_out=0.0)
    assert other.found.digest != survey.found.digest


@st.composite
def corpora(draw: st.DrawFn) -> EncodedDocuments:
    words = st.text("ab ", min_size=0, max_size=40)
    answers = st.text("cde", min_size=1, max_size=40)
    documents = []
    for n in range(draw(st.integers(1, 6))):
        chosen, rejected = draw(answers), draw(answers)
        if chosen != rejected:
            system = draw(st.sampled_from(["", "", "be kind. "]))
            documents.append(pair(draw(words), chosen, rejected, name=str(n), system=system))
    return encode_documents(documents or [pair("a", "b", "c")], draw(st.sampled_from(TOKENIZERS)))


def read(block: Any, row: int, side: int, segment: int) -> tuple[list[int], list[int], list[float]]:
    here = block.segment_ids[row, side] == segment
    inputs, targets = block.token_ids[row, side][here], block.targets[row, side][here]
    return inputs.tolist(), targets.tolist(), block.weights[row, side][here].tolist()


@settings(deadline=None, max_examples=200)
@given(encoded=corpora(), length=st.integers(2, 30), packing=st.sampled_from(["best_fit", "none"]))
def test_every_pair_stands_at_one_place_of_both_rows_and_keeps_its_answers_ends(
    encoded: EncodedDocuments, length: int, packing: Any
) -> None:
    rows = pack_pairs(encoded, sequence_length=length, packing=packing)
    block = pair_block(encoded, rows, range(len(rows)), size=len(rows))
    places = rows.pairs(range(len(rows)))
    assert sorted(places[places >= 0].tolist()) == list(range(len(encoded)))
    shortened = 0
    for row, place in np.argwhere(places >= 0).tolist():
        index, left_out = int(places[row, place]), []
        for side, own in enumerate((encoded, encoded.rejected)):
            assert own is not None
            whole = own[index].tolist()
            inputs, targets, weights = read(block, row, side, place + 1)
            assert 1 <= len(targets) <= length
            assert inputs[1:] == targets[:-1]
            kept = [inputs[0], *targets]
            left_out.append(len(whole) - len(kept))
            head = next((n for n in range(len(kept)) if kept[n] != whole[n]), len(kept))
            assert whole == kept[:head] + whole[head : head + left_out[-1]] + kept[head:]  # one stretch is left out
            ways = own.parts.of_document(index) if own.parts else None  # type: ignore[union-attr]
            learned = np.repeat(ways.weights, np.diff(ways.ends, prepend=0)) if ways else np.ones(len(whole))
            answer = int((learned > 0).sum())
            assert weights[-1] > 0  # the end token is learned
            if own.parts is None or own.parts.heads[index] <= 1:  # all of an answer that has room, but for its prompt
                assert sum(weight > 0 for weight in weights) >= min(answer, length - 1) - 1
        longest = max(len(own[index]) for own in (encoded, encoded.rejected) if own is not None) - 1
        assert (max(left_out) > 0) == (longest > length)
        shortened += longest > length
    assert rows.shortened_documents == shortened


def test_a_prompt_loses_the_same_tokens_on_both_sides() -> None:
    encoded = encode_documents([pair("abcdefghijklmnopqrstuvwxyz " * 2, "YES", "NO")], TOKENIZERS[1])
    rows = pack_pairs(encoded, sequence_length=20)
    block = pair_block(encoded, rows, [0], size=1)
    better, worse = (read(block, 0, side, 1)[1] for side in (0, 1))
    prompts = [TOKENIZERS[1].decode(ids).split("Y")[0].split("N")[0] for ids in (better, worse)]
    assert prompts[0] == prompts[1]
    assert len(better) == 20
    assert TOKENIZERS[1].decode(better[:-1]).endswith("z YES")


def test_what_can_not_be_packed_is_refused() -> None:
    encoded = encode_documents(PAIRS[:2], TOKENIZERS[0])
    with pytest.raises(TokenArgumentError, match="kept whole: packing must be 'best_fit' or 'none'"):
        pack_pairs(encoded, sequence_length=8, packing="concatenate")  # type: ignore[arg-type]
    with pytest.raises(TokenArgumentError, match="at least 1"):
        pack_pairs(encoded, sequence_length=0)
    with pytest.raises(TokenArgumentError, match="needs a worse text"):
        pack_pairs(encode_documents([*PAIRS[:2], Document("a", "")], TOKENIZERS[0]), sequence_length=8)
