"""Texts that tokenizers disagree about: drawn by a seed from all of Unicode, blanks, digits, marks and token names."""

from __future__ import annotations

import lzma
import random
from collections.abc import Sequence
from pathlib import Path

LATIN = ("the", " the", "it's", "I'LL", "don't", " we", "Once", "upon", "river", "CamelCase", "snake_case", "naïve")
SCRIPTS = ("Привет", " мир", "שלום", "مرحبا", "สวัสดี", "नमस्ते", "昨夜雨疏风骤", "浓睡", "試問", "かな", "カナ", "한국어")
CLUSTERS = ("👩‍👩‍👧", "🚀", "👍🏽", "🇫🇷", "e\u0301", "\u1e9b\u0323", "ﬁ", "½", "\uf900", "٣६", "Å", "\u212b", "ſ")
SYMBOLS = ("http://a.b/c?d=e&f=g", "x**2", "<tag>", "[x]", "{y}", "▁", "▁▁", "\\n", "...", "!?", "\u3002", "–", "—")
RARE = ("\ufeff", "\u200b", "\u00a0", "\u2028", "\u0085", "\x00", "\x07", "\x7f", "\ufffd", "\U0010ffff", "\ufdd0")
NAMES = ("<0x0A>", "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "[INST]", "<bos>")
WORDS = (*LATIN, *SCRIPTS, *CLUSTERS, *SYMBOLS, *RARE, *NAMES)
BLANKS = (" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "        ")


def drawn(count: int, names: Sequence[str] = (), seed: int = 0) -> list[str]:
    """Return this many texts; the names of a tokenizer's own special and added tokens are among their pieces."""
    rng = random.Random(seed)

    def character() -> str:
        while True:
            point = rng.choice((rng.randrange(0x110000), rng.randrange(0x3000), rng.randrange(0x4E00, 0xA000)))
            if not 0xD800 <= point <= 0xDFFF:
                return chr(point)

    def piece() -> str:
        kind = rng.randrange(10)
        if kind < 3:
            return rng.choice(WORDS)
        if kind < 5:
            return rng.choice(BLANKS) * rng.choice((1, 1, 1, 2, 5))
        if kind < 6:
            return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9)))
        if kind < 7:
            return "".join(rng.choice("abcdefgh ABC.,'") for _ in range(rng.randrange(1, 12)))
        if kind < 8 and names:
            return rng.choice(names)
        return "".join(character() for _ in range(rng.randrange(1, 4)))

    return ["".join(piece() for _ in range(rng.randrange(1, 12))) for _ in range(count)]


def posts(shared_data: Path, count: int = 200) -> list[str]:
    """Return lines of real posts."""
    with lzma.open(shared_data / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [line for _, line in zip(range(count), lines, strict=False)]
