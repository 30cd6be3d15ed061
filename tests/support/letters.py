"""A model over four letters: small enough to try every text it could write."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tiny import roughen, undrawn

from kerasgen import backend
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.base import IncrementalDecoder, Tokenizer

END = 4


class LetterDecoder(IncrementalDecoder):
    def __init__(self, letters: str) -> None:
        self._letters = letters

    def push(self, token_id: int) -> str:
        return self._letters[token_id] if token_id < len(self._letters) else ""

    def finish(self) -> str:
        return ""


class LetterTokenizer(Tokenizer):
    """A token is a letter; the last id ends a text."""

    def __init__(self, letters: str = "abcd", *, starts: bool = True) -> None:
        self.letters = letters
        self.vocabulary_size = len(letters) + 1
        self.end_token_id = self.pad_token_id = len(letters)
        self.start_token_id = len(letters) if starts else None

    def encode(self, text: str) -> list[int]:
        return [self.letters.index(letter) for letter in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(map(self.decoder(skip_special_tokens=skip_special_tokens).push, token_ids))

    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        return LetterDecoder(self.letters if skip_special_tokens else self.letters + "$")

    def token_bytes(self, token_id: int) -> bytes:
        return (self.letters + "$")[token_id].encode()

    def digest(self) -> str:
        return hashlib.sha256(self.letters.encode()).hexdigest()

    def save(self, directory: str | Path) -> None:
        Path(directory, "letters.txt").write_text(self.letters)


def letter_model(seed: int = 0, *, starts: bool = True, max_sequence_length: int = 64) -> LanguageModel:
    backend.use()
    import keras_hub

    with undrawn():
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=END + 1,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=max_sequence_length,
            dropout=0.0,
            dtype="float32",
        )
    roughen(backbone, seed)
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm=causal_lm, tokenizer=LetterTokenizer(starts=starts), source="letters")


# One for all tests that leave its weights alone, so that what is compiled for it is compiled once.
shared_model = functools.cache(lambda: letter_model(seed=2))


def next_logprobs(model: LanguageModel, prompt: Sequence[int]):
    """The model's log-probabilities after `prompt` and more tokens, by its plain forward pass, kept once computed."""
    from keras import ops

    known: dict[tuple[int, ...], list[float]] = {}

    def after(text: tuple[int, ...]) -> list[float]:
        if text not in known:
            ids = np.zeros((1, 24), dtype="int32")  # one shape, compiled once
            ids[0, : len(prompt) + len(text)] = [*prompt, *text]
            mask = np.arange(24)[None] < len(prompt) + len(text)
            logits = model.causal_lm.predict_on_batch({"token_ids": ids, "padding_mask": mask.astype("int32")})
            row = np.asarray(ops.convert_to_numpy(logits), dtype="float64")[0, len(prompt) + len(text) - 1]
            known[text] = (row - np.log(np.exp(row - row.max()).sum()) - row.max()).tolist()
        return known[text]

    return after
