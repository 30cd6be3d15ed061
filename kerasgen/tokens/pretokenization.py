"""Cuts text into pieces by a regular expression, and maps bytes to printable characters, as GPT-2 does before merges.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2, and the encoder that
was published with it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""What a `str` can hold and UTF-8 can't: a lone surrogate."""

STAND_IN: Final = "\ufffd"
"""A character in the class of the surrogates (neither space, letter nor number), which UTF-8 can hold."""

# Letters and numbers that Unicode 15 to 18 added. The regular expressions inside the `tokenizers` library still take
# them for punctuation, which would cut words of, for example, CJK extension I or the Seal script otherwise than GPT-2's
# encoder does today. Found by comparing every code point with the `regex` package; a test does so again.
NEWER_LETTERS: Final = (
    "558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D 107BB-107BF 10940-10959 "
    "10EC5-10EC7 10ED9-10EEE 11B0A 11DB0-11DDB 11DF1 16EA0-16EB8 16EBB-16ED3 16FF2-16FF3 187F8-187FF 18CD6-18CDA "
    "18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1D6A6 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 "
    "1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED 1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E "
    "2CEA2-2CEAD 323B0-33479 3D000-3FC3F"
)
NEWER_NUMBERS: Final = "11DE0-11DE9 1246F 12475-1247F 12550-12686 16FF4-16FF6"


GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN: Final = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class Pretokenization:
    """How a byte-level BPE cuts a text into pieces, and when a piece is merged.

    Args:
        pattern: a regular expression of Oniguruma; its matches and what lies between them are the pieces. None is
            GPT-2's, which knows the letters of today.
        single_digits: whether each digit is cut off before (SmolLM2).
        ignore_merges: whether a piece that is a token becomes it, whatever the merges would make (Llama 3).
    """

    pattern: str | None = None
    single_digits: bool = False
    ignore_merges: bool = False

    @classmethod
    def read(cls, value: Any) -> Pretokenization:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        kinds: Mapping[str, Any] = {"pattern": (str, type(None)), "single_digits": bool, "ignore_merges": bool}
        is_written = isinstance(value, dict) and value.keys() == kinds.keys()
        if not is_written or not all(isinstance(value[name], kind) for name, kind in kinds.items()):
            raise ValueError(f"a pre-tokenization is an object of {', '.join(kinds)}. Received: {value!r:.80}")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON could hold it."""
        return asdict(self)


GPT2: Final = Pretokenization()


def _characters_of_bytes() -> dict[int, str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


CHARACTER_OF_BYTE: Final = _characters_of_bytes()
"""A printable character for each byte, in the order of GPT-2's first 256 ids: the space is `Ġ`, the newline `Ċ`."""

BYTE_OF_CHARACTER: Final = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def to_characters(data: bytes) -> str:
    """Return the printable characters that stand for the bytes, one for each."""
    return data.decode("latin-1").translate(CHARACTER_OF_BYTE)


def to_bytes(characters: str) -> bytes:
    """Return the bytes that printable characters stand for.

    Raises:
        KeyError: a character stands for no byte.
    """
    return bytes([BYTE_OF_CHARACTER[character] for character in characters])


def token_bytes(token: str, *, special: bool) -> bytes:
    """Return the bytes that a token of a vocabulary stands for; those of a special one are its name in UTF-8."""
    if not special and all(character in BYTE_OF_CHARACTER for character in token):
        return to_bytes(token)
    return token.encode()


def splitter(kind: Pretokenization = GPT2) -> PreTokenizer:
    """Return the pre-tokenizer that cuts text, by default where GPT-2's encoder does, and leaves the pieces as text."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Digits, Sequence, Split

    cut = Split(Regex(_gpt2_pattern() if kind.pattern is None else kind.pattern), behavior="isolated")
    return Sequence([Digits(individual_digits=True), cut]) if kind.single_digits else cut


def _gpt2_pattern() -> str:
    letter, number = _letter(), _number()
    return rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^\s{letter}{number}]+|\s+(?!\S)|\s+"


@functools.cache
def character_classes(kind: Pretokenization = GPT2) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return first and last code point of each run of letters, of numbers and of spaces, as `splitter` sees them."""
    from tokenizers import NormalizedString, Regex

    text = NormalizedString("".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF))

    def runs(inside: str) -> tuple[tuple[int, int], ...]:
        pieces = (piece.original for piece in text.split(Regex(f"[^{inside}]+"), "removed"))
        return tuple((ord(piece[0]), ord(piece[-1])) for piece in pieces)

    if kind.pattern is not None:
        return runs(r"\p{L}"), runs(r"\p{N}"), runs(r"\s")
    return runs(_letter()), runs(_number()), runs(r"\s")


def pre_tokenizer(kind: Pretokenization = GPT2) -> PreTokenizer:
    """Return the pre-tokenizer that cuts text as `splitter` does and turns the pieces' bytes into characters."""
    from tokenizers.pre_tokenizers import ByteLevel, Sequence

    return Sequence([splitter(kind), ByteLevel(add_prefix_space=False, use_regex=False)])


def _letter() -> str:
    return r"\p{L}" + _ranges(NEWER_LETTERS.split())


def _number() -> str:
    return r"\p{N}" + _ranges(NEWER_NUMBERS.split())


def _ranges(spans: Iterable[str]) -> str:
    """`"58B-58C"` as the inside of a character class of Oniguruma, the library's regular expressions."""
    return "".join("-".join(rf"\x{{{end}}}" for end in span.split("-")) for span in spans)
