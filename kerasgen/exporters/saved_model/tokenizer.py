"""Computes `ByteLevelBPE` in a TensorFlow graph of core operations: UTF-8 strings to ids and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import CHARACTER_OF_BYTE, character_classes

_SEPARATOR = b"\xff"  # no byte of UTF-8, so RE2 never matches it
_NEVER = np.iinfo(np.int32).max


class GraphTokenizer:
    """The ids of a `ByteLevelBPE`, computed inside a graph.

    It is no `tf.Module`: TensorFlow would look for variables among the vocabulary's texts, several times.

    Args:
        tokenizer: to be copied.
    """

    def __init__(self, tokenizer: ByteLevelBPE) -> None:
        self._tail, self._pieces = _patterns()
        ids = tokenizer.vocabulary
        self._size = tokenizer.vocabulary_size
        self._of_byte = np.array([ids.get(CHARACTER_OF_BYTE[byte], -1) for byte in range(256)], np.int32)
        ranks: dict[int, tuple[int, int]] = {}
        for rank, merge in enumerate(tokenizer.merges):
            left, right = merge.split(" ")
            ranks[ids[left] * self._size + ids[right]] = (rank, ids[left + right])
        # An empty list can't be searched, so a pair that no text holds stands in.
        ranked_pairs = sorted((pair, *value) for pair, value in ranks.items()) or [(-1, _NEVER, 0)]
        self._pairs = np.array([pair for pair, _, _ in ranked_pairs], np.int64)
        self._ranks = np.array([rank for _, rank, _ in ranked_pairs], np.int32)
        self._merged = np.array([merged for _, _, merged in ranked_pairs], np.int32)
        special = set(tokenizer.special_tokens.values())
        texts = [b""] * self._size
        for token_id in ids.values():
            texts[token_id] = b"" if token_id in special else tokenizer.token_bytes(token_id)
        self._texts = texts

    def encode(self, texts: Any) -> Any:
        """Return the ids of UTF-8 texts, string `(batch,)`, as a ragged int32 `(batch, …)`.

        A byte that is not UTF-8 is read as U+FFFD; a byte without a token raises `InvalidArgumentError`.
        """
        texts = _valid(texts)
        cut = tf.strings.regex_replace(texts, self._tail, b"\\1" + _SEPARATOR + b"\\2")
        cut = tf.strings.regex_replace(cut, self._pieces, b"\\0" + _SEPARATOR)
        pieces = tf.strings.split(cut, _SEPARATOR)
        rows, flat = pieces.value_rowids(), pieces.flat_values
        data = tf.strings.bytes_split(flat)
        symbols = tf.reshape(tf.io.decode_raw(data.flat_values, tf.uint8), [-1])
        symbols = tf.gather(tf.constant(self._of_byte), tf.cast(symbols, tf.int32))
        tf.debugging.assert_non_negative(symbols, "The vocabulary has no token for a byte of this text.")
        owners = tf.cast(data.value_rowids(), tf.int32)
        symbols, owners = self._merge(symbols, owners, tf.size(flat))
        return tf.RaggedTensor.from_value_rowids(symbols, tf.gather(rows, owners), nrows=pieces.nrows())

    def decode(self, token_ids: Any, counted: Any, ended: Any) -> Any:
        """Return the texts of ids without special tokens.

        Args:
            token_ids: int32 `(batch, length)`.
            counted: bool like `token_ids`, which of them are the text's.
            ended: bool `(batch,)`; where false, bytes that begin a character at the end are left out.
        """
        parts = tf.gather(tf.constant(self._texts), tf.where(counted, token_ids, 0))
        joined = tf.strings.reduce_join(tf.where(counted, parts, b""), axis=1)
        length = tf.strings.length(joined) - tf.where(ended, 0, _unfinished(joined))
        joined = tf.strings.substr(joined, tf.zeros_like(length), length)
        return _valid(joined)

    def _merge(self, symbols: Any, owners: Any, pieces: Any) -> tuple[Any, Any]:
        """Merge in each piece all pairs of its lowest rank, left to right, until no piece has a pair of any rank."""
        pairs, ranks, merged = tf.constant(self._pairs), tf.constant(self._ranks), tf.constant(self._merged)

        def look_up(symbols: Any, owners: Any) -> tuple[Any, Any]:
            """Return the rank of each pair, and its index in the sorted list; the last symbol has no pair."""
            keys = tf.cast(symbols[:-1], tf.int64) * self._size + tf.cast(symbols[1:], tf.int64)
            place = tf.minimum(tf.searchsorted(pairs, keys, out_type=tf.int32), len(self._pairs) - 1)
            known = tf.logical_and(tf.equal(tf.gather(pairs, place), keys), tf.equal(owners[:-1], owners[1:]))
            return tf.where(known, tf.gather(ranks, place), _NEVER), place

        def goes_on(symbols: Any, owners: Any, rank: Any, place: Any) -> Any:
            return tf.reduce_any(rank < _NEVER)

        def step(symbols: Any, owners: Any, rank: Any, place: Any) -> tuple[Any, Any, Any, Any]:
            least = tf.math.unsorted_segment_min(rank, owners[:-1], pieces)
            chosen = tf.logical_and(rank < _NEVER, tf.equal(rank, tf.gather(least, owners[:-1])))
            # In a run such as "aaa" pairs overlap: from its start on, every second one is merged.
            begins = tf.logical_and(chosen, tf.logical_not(tf.concat([[False], chosen[:-1]], 0)))
            starts = tf.concat([[0], tf.cast(tf.where(begins)[:, 0], tf.int32)], 0)
            start = tf.gather(starts, tf.cumsum(tf.cast(begins, tf.int32)))
            chosen = tf.logical_and(chosen, tf.equal((tf.range(tf.size(chosen)) - start) % 2, 0))
            new = tf.where(tf.concat([chosen, [False]], 0), tf.concat([tf.gather(merged, place), [0]], 0), symbols)
            stays = tf.logical_not(tf.concat([[False], chosen], 0))
            symbols, owners = tf.boolean_mask(new, stays), tf.boolean_mask(owners, stays)
            return symbols, owners, *look_up(symbols, owners)

        # One symbol that no pair holds stands at the end, so that there is always one to look at.
        symbols, owners = tf.concat([symbols, [-1]], 0), tf.concat([owners, [-1]], 0)
        vector = tf.TensorShape([None])
        state = (symbols, owners, *look_up(symbols, owners))
        symbols, owners, _, _ = tf.while_loop(goes_on, step, state, shape_invariants=(vector,) * 4)
        return symbols[:-1], owners[:-1]


def _patterns() -> tuple[bytes, bytes]:
    r"""RE2's patterns for GPT-2's pieces: before the last space of several that a word follows, and the pieces.

    RE2 has no `\s+(?!\S)`, so the first pattern sets a separator where that would end. Characters are named one by one,
    for RE2 knows another Unicode than the exact tokenizer.
    """
    letter, number, space = (_ranges(spans) for spans in character_classes())
    tail = f"([{space}]+)([{space}][^{space}])"
    pieces = f"(?:'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^{space}{letter}{number}]+|[{space}]+)"
    return tail.encode(), pieces.encode()


def _valid(texts: Any) -> Any:
    """Return the texts with U+FFFD for bytes that are not UTF-8."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)


def _ranges(spans: Iterable[tuple[int, int]]) -> str:
    return "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in spans)


def _unfinished(texts: Any) -> Any:
    """Count the bytes of an unfinished character at each text's end, int32; see `kerasgen.tokens.utf8_decoding`."""
    padded = tf.strings.join(["aaa", texts])
    size = tf.strings.length(padded)

    def byte(back: int) -> Any:
        substring = tf.strings.substr(padded, size - back, tf.ones_like(size))
        return tf.cast(tf.reshape(tf.io.decode_raw(substring, tf.uint8), [-1]), tf.int32)

    last, second, third = byte(1), byte(2), byte(3)
    one = tf.logical_and(last >= 0xC2, last <= 0xF4)
    two = tf.logical_and(_long(second, 3), _may_follow(second, last))
    three = tf.logical_and(_long(third, 4), tf.logical_and(_may_follow(third, second), _continues(last)))
    return tf.where(one, 1, tf.where(two, 2, tf.where(three, 3, 0)))


def _long(first: Any, length: int) -> Any:
    return tf.logical_and(first >= (0xE0 if length == 3 else 0xF0), first <= 0xF4)


def _continues(byte: Any) -> Any:
    return tf.logical_and(byte >= 0x80, byte <= 0xBF)


def _may_follow(first: Any, second: Any) -> Any:
    low = tf.where(tf.equal(first, 0xE0), 0xA0, tf.where(tf.equal(first, 0xF0), 0x90, 0x80))
    high = tf.where(tf.equal(first, 0xF4), 0x8F, 0xBF)
    return tf.logical_and(second >= low, second <= high)
