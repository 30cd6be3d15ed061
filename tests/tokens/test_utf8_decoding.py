"""Bytes become text as they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasgen.tokens.utf8_decoding import ByteTokenDecoder, Utf8Decoder, decode_utf8, unfinished_bytes

pytestmark = pytest.mark.one_backend

# Bytes at the borders of UTF-8's rules are drawn as often as all others together.
BORDERS = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE]
BORDERS += [0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
any_bytes = st.lists(st.one_of(st.sampled_from(BORDERS), st.integers(0, 255)), max_size=12).map(bytes)
any_text = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=12)


@settings(max_examples=500, deadline=None)
@given(st.lists(any_bytes, max_size=8))
def test_any_bytes_in_any_portions_decode_to_what_they_decode_to_at_once(portions: list[bytes]) -> None:
    decoder = Utf8Decoder()
    assert "".join(map(decoder.push, portions)) + decoder.finish() == decode_utf8(b"".join(portions))


@settings(max_examples=500, deadline=None)
@given(any_bytes)
def test_errors_read_as_pythons_replacement_reads_where_no_surrogate_is_written(data: bytes) -> None:
    """Only the three bytes of a surrogate may be read otherwise than CPython reads them."""
    text = decode_utf8(data)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert text == data.decode("utf-8", "replace")


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_every_str_comes_back_from_its_bytes(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert decode_utf8(data) == text
    decoder = Utf8Decoder()
    assert "".join(decoder.push(data[n : n + 1]) for n in range(len(data))) + decoder.finish() == text


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_a_character_is_shown_with_its_last_byte_and_not_before(text: str) -> None:
    decoder = Utf8Decoder()
    for character in text:
        data = character.encode("utf-8", "surrogatepass")
        answers = [decoder.push(data[n : n + 1]) for n in range(len(data))]
        assert answers == [""] * (len(data) - 1) + [character]


@settings(max_examples=500, deadline=None)
@given(any_bytes)
def test_only_what_later_bytes_could_still_complete_is_held_back(data: bytes) -> None:
    """The bytes held back begin some character; what was shown holds no beginning that could yet become one."""
    held = unfinished_bytes(data)
    tail = data[len(data) - held :]
    endings = [b"", b"\x80", b"\xa0", b"\xbf", b"\x80\x80", b"\xa0\x80", b"\x90\x80\x80", b"\x80\x80\x80"]
    completed = []
    for ending in endings:
        try:
            completed.append((tail + ending).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            continue
    assert any(len(text) == min(held, 1) for text in completed)
    for ending in endings:
        shown = decode_utf8(data[: len(data) - held])
        assert decode_utf8(data + ending).startswith(shown)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\xc0", "\ufffd"),  # begins nothing since UTF-8 forbids overlong forms
        (b"\xf5", "\ufffd"),  # beyond U+10FFFF
        (b"\xe0\x80", "\ufffd\ufffd"),  # overlong
        (b"\xf4\x90", "\ufffd\ufffd"),  # beyond U+10FFFF
        (b"\x80", "\ufffd"),
        (b"\xe6\x98", ""),
        (b"\xed\xa0", ""),  # a surrogate may come
        (b"\xe6\x98A", "\ufffdA"),
    ],
)
def test_an_error_is_shown_as_soon_as_it_is_certain(data: bytes, shown: str) -> None:
    assert Utf8Decoder().push(data) == shown


def test_finishing_leaves_nothing_for_the_next_text() -> None:
    decoder = ByteTokenDecoder([b"\xe6\x98", b"\xa5", b"A"].__getitem__)
    assert decoder.push(0) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.push(2) == "A"
    assert decoder.push(0) + decoder.push(1) == "\u6625"
    assert decoder.finish() == ""
