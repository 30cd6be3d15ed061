"""The codec of KerasHub's byte-level BPE families, from text to ids."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

from kerasgen.errors import ModelFormatError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import Span, spans_of_pieces
from kerasgen.tokens.bpe_encoder import encode_surrogates
from kerasgen.tokens.bpe_files import Contents
from kerasgen.tokens.pretokenization import (
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    STAND_IN,
    SURROGATE,
    Pretokenization,
    token_bytes,
)

# What the families cut text by before merging, all others as Llama 3 does; a KerasHub preset doesn't say it. Source:
# the `pre_tokenizer` of each family's published tokenizer.
_BLOOM_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_PATTERNS = (("Qwen", QWEN2_PATTERN), ("GPTNeoX", GPT2_PATTERN), ("Bloom", _BLOOM_PATTERN), ("Falcon", GPT2_PATTERN))
_SEVERAL_STEPS = ("Falcon",)  # which cuts punctuation apart before, and three digits at a time after

_NORMALIZED = ("Qwen", "GPTNeoX")  # whose published tokenizers bring a text into the form NFC first


class BytePairs:
    """Byte-level BPE: tokens in printable characters, one for each byte; a byte without a token is left out."""

    file_name = "tokenizer.json"
    strips_first_space = False

    def __init__(
        self,
        kind: str,
        vocabulary: dict[str, int],
        merges: Sequence[str],
        special: dict[str, int],
        added: Sequence[AddedToken],
    ) -> None:
        from tokenizers import AddedToken as RustToken
        from tokenizers import Regex
        from tokenizers import Tokenizer as Rust
        from tokenizers.models import BPE
        from tokenizers.normalizers import NFC
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Split
        from tokenizers.pre_tokenizers import Sequence as Steps

        self._cut = next((pattern for name, pattern in _PATTERNS if kind.startswith(name)), LLAMA3_PATTERN)
        self._vocabulary = {str(token): int(token_id) for token, token_id in vocabulary.items()}
        pairs = (merge.split(" ") for merge in merges if not merge.startswith("#version:"))
        self._merges = [(left, right) for left, right in pairs]
        try:
            model = BPE(self._vocabulary, self._merges)
        except Exception as cause:
            raise ModelFormatError(f"The {kind}'s merges don't fit its vocabulary: {cause}.") from cause
        cut = Split(Regex(self._cut), behavior="isolated")
        self._in_steps = kind.startswith(_SEVERAL_STEPS)
        digits = [Digits(individual_digits=False), Split(Regex("[0-9][0-9][0-9]"), behavior="isolated")]
        self._splitter = Steps([Punctuation("contiguous"), cut, *digits]) if self._in_steps else cut
        self._rust = Rust(model)
        self._rust.pre_tokenizer = Steps([self._splitter, ByteLevel(add_prefix_space=False, use_regex=False)])
        self._normalizes = kind.startswith(_NORMALIZED)
        if self._normalizes:
            self._rust.normalizer = NFC()
        self._rust.add_tokens([RustToken(**token.to_json()) for token in added])
        self.special, self.added = dict(special), tuple(added)
        self.names = {token_id: token for token, token_id in self._vocabulary.items()}
        names = {*special, *(token.content for token in added)}
        self.pieces = {
            token_id: token_bytes(token, special=token in names) for token, token_id in self._vocabulary.items()
        }

    def contents(self) -> Contents | None:
        """Return the vocabulary, merges and cut, or None where a text is normalized before, or cut in several steps."""
        if self._normalizes or self._in_steps:
            return None
        cut = Pretokenization(None if self._cut == GPT2_PATTERN else self._cut)
        return Contents(
            self._vocabulary,
            self._merges,
            usual_special_tokens=False,
            pretokenization=cut,
            drops_missing_bytes=True,
        )

    def to_tokenizer_json(self) -> str:
        """Return the text of a `tokenizer.json` of transformers that gives the same ids, special tokens declared."""
        content = json.loads(self._rust.to_str())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        held = {entry["content"] for entry in content["added_tokens"]}
        content["added_tokens"] += [
            {"id": token_id, "content": token, **flags, "special": True}
            for token, token_id in self.special.items()
            if token not in held
        ]
        content["added_tokens"].sort(key=lambda entry: int(entry["id"]))
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return json.dumps({**content, "decoder": byte_level}, ensure_ascii=False, allow_nan=False)

    def encode_batch(self, texts: Sequence[str], allowed: frozenset[str] = frozenset()) -> list[list[int]]:
        """Return the ids of each text; special tokens are not found in it."""
        if any(SURROGATE.search(text) for text in texts):
            return [self._encode(text) for text in texts]
        return [list(e.ids) for e in self._rust.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_spans(self, text: str, allowed: frozenset[str] = frozenset()) -> tuple[list[int], list[Span]]:
        """Return the ids of a text, and for each the characters that it writes or writes a part of."""
        if allowed:
            return spans_of_pieces(text, allowed, self.special, lambda piece, _: self.encode_with_spans(piece))
        encoding = self._rust.encode(SURROGATE.sub(STAND_IN, text), add_special_tokens=False)
        return list(encoding.ids), [Span(*offset) for offset in encoding.offsets]

    def content(self) -> bytes:
        """Return all that could change an id."""
        parts = [self._cut, sorted(self._vocabulary.items(), key=lambda item: item[1]), self._merges]
        parts += ["NFC"] if self._normalizes else []
        parts += ["punctuation, three digits"] if self._in_steps else []
        return json.dumps(parts, allow_nan=False).encode()

    def _encode(self, text: str) -> list[int]:
        if SURROGATE.search(text):
            text = unicodedata.normalize("NFC", text) if self._normalizes else text
            return encode_surrogates(text, self._rust, self._splitter)
        return list(self._rust.encode(text, add_special_tokens=False).ids)
