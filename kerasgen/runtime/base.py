"""The runtime contract: an artefact's file becomes something that generates, in the artefact's own runtime."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, overload

from kerasgen.errors import GenerateArgumentError
from kerasgen.tokens.base import Tokenizer


class Runtime(ABC):
    """An artefact that was loaded.

    Attributes:
        tokenizer: the one that travels with the artefact.
        max_sequence_length: tokens of a whole text that it can hold, or None without limit.
    """

    tokenizer: Tokenizer
    max_sequence_length: int | None

    @abstractmethod
    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampler: Any = "greedy",
        max_new_tokens: int,
        seed: int = 0,
        end_token_id: int | None = None,
    ) -> list[list[int]]:
        """Return the ids generated after each prompt, up to its end token, which is among them.

        Args:
            prompts: ids without the start token, which is put before each if the tokenizer has one.
            sampler: a `SamplerSpec` or text such as `"top_k:k=40"`.
            max_new_tokens: at most so many for each prompt.
            seed: for specs that have none of their own.
            end_token_id: another token that ends a text than the tokenizer's.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked, such as a sampler that it doesn't hold.
        """

    def logits(self, token_ids: Sequence[int]) -> Any:
        """Return the logits after each of these tokens, float32 `(tokens, vocabulary_size)`.

        Raises:
            GenerateArgumentError: the artefact doesn't show them.
        """
        raise GenerateArgumentError(f"{type(self).__name__} doesn't show logits; it only generates.")

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too, and the first match counts
        self,
        prompts: str,
        *,
        max_new_tokens: int,
        sampler: Any = ...,
        seed: int = ...,
        return_prompt: bool = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        sampler: Any = ...,
        seed: int = ...,
        return_prompt: bool = ...,
    ) -> list[str]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int,
        sampler: Any = "greedy",
        seed: int = 0,
        return_prompt: bool = True,
    ) -> str | list[str]:
        """Return a text for each prompt: a string for a string, a list for a list.

        Args:
            prompts: what to go on from.
            max_new_tokens: tokens generated after each prompt, at most.
            sampler: as in `generate_ids`.
            seed: as in `generate_ids`.
            return_prompt: begin each text with its prompt.

        Raises:
            GenerateArgumentError: as in `generate_ids`.
        """
        from kerasgen.generation.writing import write

        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        found = self.generate_ids(
            self.tokenizer.encode_batch(texts), sampler=sampler, max_new_tokens=max_new_tokens, seed=seed
        )
        end = self.tokenizer.end_token_id
        written = [
            (prompt if return_prompt else "") + write(self.tokenizer, ids, ended=bool(ids) and ids[-1] == end)
            for prompt, ids in zip(texts, found, strict=True)
        ]
        return written[0] if isinstance(prompts, str) else written


def check_threads(threads: Any) -> None:
    """Check how many threads a runtime is asked to use.

    Raises:
        GenerateArgumentError: it is no whole number of at least 1.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise GenerateArgumentError(f"`threads` must be a whole number of at least 1. Received: threads={threads!r}.")


class EndingTokenizer:
    """A tokenizer with another end token, to see a text end where it would have gone on; the rest is the original's.

    Args:
        tokenizer: the original.
        end_token_id: the id that ends a text.
    """

    def __init__(self, tokenizer: Tokenizer, end_token_id: int) -> None:
        self._tokenizer = tokenizer
        self.end_token_id = end_token_id

    def digest(self) -> str:
        """Return another digest than the original's: an engine that is kept for it would not end the text here."""
        return hashlib.sha256(f"{self._tokenizer.digest()} ends with {self.end_token_id}".encode()).hexdigest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
