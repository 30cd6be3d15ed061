"""What a GGUF file is asked in its proof, by NumPy and by llama.cpp: prompts, texts and conversations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgen.deferred_imports import is_installed
from kerasgen.exporters.gguf.reference import Ending
from kerasgen.exporters.parity import comparison, conversations
from kerasgen.models import chat
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

_PLACES = 8
_TOLD = 1000  # log-probabilities that llama.cpp tells at most places
# Tokens that NumPy generates where llama.cpp generates too, and llama.cpp of a text alone and after most prompts.
_FEW_TOKENS = 16


def runs_llama_cpp() -> bool:
    """Return whether llama.cpp is installed."""
    return is_installed("xllamacpp")


@dataclasses.dataclass(frozen=True)
class Asked:
    """The prompts and texts with which a file is compared, whatever reads it.

    Args:
        tokenizer: the tokenizer of the model.
        chunk: tokens that llama.cpp reads at once.
        longest: tokens of a text.
        start: the start token, or nothing.
        written_start: what llama.cpp puts before a text: the same, or nothing where the chat template writes no start.
        prompts: ids, the start token in front.
        counts: the number of new tokens after each prompt.
        few: the same, but few.
        probe: ids of a text, the start token in front.
        texts: to encode.
        chats: conversations, with what the model's chat template writes of them; none where it has none.
    """

    tokenizer: ByteLevelBPE | PretrainedTokenizer
    chunk: int
    longest: int
    start: list[int]
    written_start: list[int]
    prompts: list[list[int]]
    counts: list[int]
    few: list[int]
    probe: list[int]
    texts: list[str]
    chats: list[dict[str, Any]]

    @classmethod
    def of(cls, model: LanguageModel, tokenizer: ByteLevelBPE | PretrainedTokenizer, positions: int) -> Asked:
        """Return the questions for texts of at most so many positions."""
        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        longest = min(positions, 256)
        chunk = max(longest // 8, 1)
        prompts = comparison.prompts(tokenizer, chunks=(chunk,), longest=longest)
        counts = comparison.counts(tokenizer, prompts, longest)
        few = [min(count, _FEW_TOKENS) for count in counts]
        probe = (start + tokenizer.encode(comparison.PROBE))[: longest - 1]
        texts = comparison.encodable(tokenizer, (*comparison.TEXTS, f"not an end: {tokenizer.end_token}"))
        chats = conversations.asked(dataclasses.replace(model, tokenizer=tokenizer))
        written = start if chat.starts(tokenizer, model.metadata) else []
        return cls(
            tokenizer,
            chunk,
            longest,
            start,
            written,
            [start + ids for ids in prompts],
            counts,
            few,
            probe,
            texts,
            chats,
        )

    @property
    def of_numpy(self) -> tuple[list[list[int]], list[int]]:
        """The prompts that NumPy goes on from, which reads those of all lengths alike, and new tokens after each."""
        places, counts = _first_and_longest(self.prompts), self.few if runs_llama_cpp() else self.counts
        return [self.prompts[place] for place in places], [counts[place] for place in places]

    @property
    def alone(self) -> tuple[list[list[int]], list[int]]:
        """The first prompt and the longest, from which llama.cpp goes on alone, and new tokens: few, and all."""
        *first, longest = sorted(_first_and_longest(self.prompts), key=lambda place: len(self.prompts[place]))
        counts = [*(self.few[place] for place in first), self.counts[longest]]
        return [self.prompts[place] for place in (*first, longest)], counts

    @property
    def read_length(self) -> int:
        """Tokens of the longest text that is read: all but its last, after which nothing comes, or the probe."""
        texts = zip(*(self.alone if runs_llama_cpp() else self.of_numpy), strict=True)
        few = max(len(prompt) + count - 1 for prompt, count in zip(self.prompts, self.few, strict=True))
        return max(len(self.probe), few, *(len(prompt) + count - 1 for prompt, count in texts))

    def likeliest(
        self,
        read: comparison.Read,
        prompts: Sequence[list[int]],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
        known: dict[tuple[int, ...], list[int]] | None = None,
    ) -> list[list[int]]:
        """Return the likeliest id at each place of these texts, which go on from some of the prompts."""
        bare = [prompt[len(self.start) :] for prompt in prompts]
        return comparison.likeliest(read, self.tokenizer, bare, texts, counts, known=known)


@dataclasses.dataclass(frozen=True)
class Said:
    """Greedy texts of llama.cpp.

    Args:
        prompts: ids, the start token in front.
        counts: the number of new tokens that were asked for.
        texts: the new ids, first of the texts that it wrote alone, then of those of one batch.
        alone: how many it wrote alone.
    """

    prompts: list[list[int]]
    counts: list[int]
    texts: list[list[int]]
    alone: int

    @classmethod
    def of(cls, asked: Asked, alone: Mapping[str, Any], together: Mapping[str, Any]) -> Said:
        """Return the texts in the answers of two processes."""
        prompts, counts = asked.alone
        texts = [*alone["ids"], *together["together"]]
        return cls([*prompts, *asked.prompts], [*counts, *asked.few], texts, len(counts))


def for_numpy(path: Path, asked: Asked, logits: Path) -> dict[str, Any]:
    """Return the job of the process that reads the file by NumPy, which saves the probe's logits."""
    prompts, counts = asked.of_numpy
    return {
        "path": str(path.absolute()),
        "prompts": prompts,
        "new_tokens": counts,
        "texts": asked.texts,
        "probe": asked.probe,
        "logits": str(logits),
    }


def for_llama_cpp(path: Path, asked: Asked, *, alone: bool) -> dict[str, Any]:
    """Return the job of a process of llama.cpp.

    Args:
        path: the file.
        asked: the questions.
        alone: ask for the texts that are written alone; else for all the rest, with a text that ends to come.
    """
    return {
        "path": str(path.absolute()),
        "chunk": asked.chunk,
        "longest": asked.longest,
        "alone": list(zip(*asked.alone, strict=True)) if alone else [],
        "together": [] if alone else list(zip(asked.prompts, asked.few, strict=True)),
        "texts": [] if alone else asked.texts,
        "prefixes": [] if alone else [{"ids": asked.probe[:length], "count": told} for length, told in places(asked)],
        "forced": _whole_character(asked.tokenizer),
        "chats": [] if alone else asked.chats,
        "ends": not alone,
    }


def to_end(asked: Asked, ending: Ending) -> dict[str, Any]:
    """Return the further job of a process of llama.cpp: the text that it is to end."""
    bias = [asked.tokenizer.end_token_id, ending.bias]
    return {"prompt": asked.prompts[0], "new_tokens": asked.counts[0], "bias": bias}


def places(asked: Asked) -> list[tuple[int, int]]:
    """Return how many tokens of the probe are before each place where log-probabilities are compared, and how many.

    At the first place and the last they are those of all tokens. Elsewhere they are the highest ones, for llama.cpp's
    server takes a third of a second to tell 50,000.
    """
    size = asked.tokenizer.vocabulary_size
    lengths: list[int] = np.unique(
        np.linspace(1, len(asked.probe), min(_PLACES, len(asked.probe))).astype(int)
    ).tolist()
    return [(length, size if length in (lengths[0], lengths[-1]) else min(_TOLD, size)) for length in lengths]


def _first_and_longest(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of the first and the longest prompt, each once."""
    return sorted({0, max(range(len(prompts)), key=lambda place: len(prompts[place]))})


def _whole_character(tokenizer: ByteLevelBPE | PretrainedTokenizer) -> int:
    """Return the first token whose bytes are whole characters."""
    usual = set(tokenizer.vocabulary.values()) - set(tokenizer.special_tokens.values())
    return next(token_id for token_id in sorted(usual) if "\ufffd" not in tokenizer.decode([token_id]))
