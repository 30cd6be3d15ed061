"""The families whose tokenizer is GPT-2's byte-level BPE: which tokens are special, and who KerasHub says they are."""

from __future__ import annotations

from dataclasses import dataclass

VOCABULARY_FILE = "assets/tokenizer/vocabulary.json"
MERGES_FILE = "assets/tokenizer/merges.txt"


@dataclass(frozen=True)
class ByteLevelFamily:
    """A KerasHub model family that reads text through GPT-2's byte-level BPE.

    Args:
        backbone: the name of its `keras_hub.models.Backbone` class.
        tokenizer: the name of its `keras_hub.tokenizers.Tokenizer` class.
        start_token: put before a document.
        end_token: put after a document.
        pad_token: fills masked positions, on which nothing depends. (KerasHub fills GPT-2's with id 0, a `!`.)
    """

    backbone: str
    tokenizer: str
    start_token: str
    end_token: str
    pad_token: str

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that a vocabulary of this family must hold."""
        return tuple(dict.fromkeys((self.start_token, self.end_token, self.pad_token)))


GPT2 = ByteLevelFamily("GPT2Backbone", "GPT2Tokenizer", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>")
OPT = ByteLevelFamily("OPTBackbone", "OPTTokenizer", "</s>", "</s>", "<pad>")

BYTE_LEVEL_FAMILIES = {family.backbone: family for family in (GPT2, OPT)}
