"""The statistics of a corpus are those that counting by hand gives."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasgen.tokens import corpus_statistics, encoding

pytestmark = pytest.mark.one_backend


def documents(lengths: list[int]) -> encoding.EncodedDocuments:
    return encoding.of_documents([np.zeros(n + 2, np.int32) for n in lengths], lengths, [None] * len(lengths))


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=300), st.lists(st.integers(0, 40), max_size=50))
def test_every_document_stands_in_its_bin(train, held_out):
    found = corpus_statistics.lengths(documents(train), documents(held_out))
    every = train + held_out
    assert (found["shortest"], found["longest"]) == (min(every), max(every))
    assert found["median"] == statistics.median(every)
    assert found["mean"] == pytest.approx(statistics.fmean(every))
    first, width, bins = found["first"], found["width"], len(found["train"])
    assert bins <= 36
    for lengths, counts in ((train, found["train"]), (held_out, found["held_out"])):
        assert sum(counts) == len(lengths)
        for n, count in enumerate(counts):
            begin, end = first + n * width, first + (n + 1) * width
            assert count == sum(begin <= length and (length < end or n == bins - 1) for length in lengths)
    beyond = sum(length >= first + bins * width for length in every)
    assert beyond <= len(every) * 0.01 + 1, "the last bin holds few that are longer than it"


@given(st.lists(st.text(), max_size=20))
def test_the_most_frequent_characters_are_counted(texts):
    found = corpus_statistics.characters(texts)
    counts = Counter(character for text in texts for character in text if not character.isspace())
    assert found["sampled"] == counts.total()
    assert found["different"] == len(counts)
    assert len(found["common"]) == min(24, sum(character.isalnum() for character in counts))
    for character, share in found["common"]:
        assert share == pytest.approx(counts[character] / counts.total())


def test_halves_of_pairs_are_no_characters():
    assert corpus_statistics.characters(["a\ud800a"])["common"] == [["a", 1.0]]
