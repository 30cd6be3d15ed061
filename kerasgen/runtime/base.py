"""The runtime contract: an artefact's file becomes something that generates, in the artefact's own runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, overload

from kerasgen.errors import GenerateArgumentError
from kerasgen.keywords import checked
from kerasgen.samplers.foreign_arguments import as_sampler
from kerasgen.tokens.base import Tokenizer


class Runtime(ABC):
    """An artefact that was loaded.

    Attributes:
        tokenizer: the one that travels with the artefact.
        max_sequence_length: tokens of a whole text that it can hold, or None without limit.
        engine: what decodes step by step, as `kerasgen.generation.engine.Engine` says, or None for a runtime that
            shows a text only when it is complete.
    """

    tokenizer: Tokenizer
    max_sequence_length: int | None
    engine: Any = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "generate_ids" in cls.__dict__:  # a format's own says as the others do what it doesn't take
            cls.generate_ids = checked(GenerateArgumentError, elsewhere=as_sampler)(cls.generate_ids)  # type: ignore[method-assign]

    @abstractmethod
    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampler: Any = "greedy",
        max_new_tokens: int,
        seed: int = 0,
        end_token_id: int | None = None,
        valid_utf8: bool = True,
    ) -> list[list[int]]:
        """Return the ids generated after each prompt, up to its end token, which is among them.

        Args:
            prompts: ids without the start token, which is put before each if the tokenizer has one.
            sampler: a `SamplerSpec` or text such as `"top_k:k=40"`.
            max_new_tokens: at most so many for each prompt.
            seed: for specs that have none of their own.
            end_token_id: another token that ends a text than the tokenizer's.
            valid_utf8: choose only tokens that keep the text valid UTF-8; False leaves the model the choice of all.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked, such as a sampler that it doesn't hold.
        """

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that the artefact reads each text as, without the start token."""
        return self.tokenizer.encode_batch(texts)

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
        valid_utf8: bool = ...,
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
        valid_utf8: bool = ...,
    ) -> list[str]: ...

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int,
        sampler: Any = "greedy",
        seed: int = 0,
        return_prompt: bool = True,
        valid_utf8: bool = True,
    ) -> str | list[str]:
        """Return a text for each prompt: a string for a string, a list for a list.

        Args:
            prompts: what to go on from.
            max_new_tokens: tokens generated after each prompt, at most.
            sampler: as in `generate_ids`.
            seed: as in `generate_ids`.
            return_prompt: begin each text with its prompt.
            valid_utf8: as in `generate_ids`.

        Raises:
            GenerateArgumentError: as in `generate_ids`.
        """
        from kerasgen.generation.detokenize import write

        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        found = self.generate_ids(
            self.tokenizer.encode_batch(texts),
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            seed=seed,
            valid_utf8=valid_utf8,
        )
        end = self.tokenizer.end_token_id
        written = [
            (prompt if return_prompt else "") + write(self.tokenizer, ids, ended=bool(ids) and ids[-1] == end)
            for prompt, ids in zip(texts, found, strict=True)
        ]
        return written[0] if isinstance(prompts, str) else written

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampler: Any = "greedy",
        seed: int = 0,
        return_prompt: bool = True,
        valid_utf8: bool = True,
    ) -> Iterator[str]:
        """Yield a text in pieces of whole characters as it is generated; joined, they are what `generate` returns.

        Arguments are checked at the call, not at the first piece.

        Args:
            prompt: what to go on from.
            max_new_tokens: as in `generate`.
            sampler: as in `generate_ids`; one that knows a text only when it is complete is refused.
            seed: as in `generate_ids`.
            return_prompt: as in `generate`; the prompt is a piece of its own.
            valid_utf8: as in `generate_ids`.

        Raises:
            GenerateArgumentError: as in `generate_ids`; or the artefact's runtime doesn't show a text before it is
                complete.
        """
        if self.engine is None:
            raise GenerateArgumentError(
                f"{type(self).__name__} shows a text only when it is complete. Use generate, or a TFLite artefact that "
                "is not isolated, whose texts can be streamed."
            )
        if not isinstance(prompt, str):
            raise GenerateArgumentError(f"One text is streamed, of one prompt. Received: {prompt!r:.80}.")
        ids = [self.tokenizer.encode(prompt)]
        check_call(self, ids, max_new_tokens=max_new_tokens, seed=seed, end_token_id=None, valid_utf8=valid_utf8)
        from kerasgen.generation import stream  # which imports what decodes

        return stream(
            self.engine,
            prompt,
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            seed=seed,
            return_prompt=return_prompt,
            valid_utf8=valid_utf8,
        )


def check_call(
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: Any,
    seed: Any,
    end_token_id: Any,
    valid_utf8: Any,
) -> None:
    """Check the arguments of `generate_ids` before any work.

    Args:
        runtime: that is called.
        prompts: as there.
        max_new_tokens: as there.
        seed: as there.
        end_token_id: as there; an id beyond the vocabulary never comes.
        valid_utf8: as there.

    Raises:
        GenerateArgumentError: one of them is of another kind or out of range, or a text would not fit.
    """
    if not is_whole(max_new_tokens, 1, 2**31):
        raise GenerateArgumentError(
            f"`max_new_tokens` must be a whole number of at least 1. Received: {max_new_tokens!r}."
        )
    if not is_whole(seed, 0, 2**64):
        raise GenerateArgumentError(f"`seed` must be a whole number from 0 to 2**64 - 1. Received: seed={seed!r}.")
    if end_token_id is not None and not is_whole(end_token_id, 0, 2**31):
        raise GenerateArgumentError(f"`end_token_id` must be a token's id, or None. Received: {end_token_id!r}.")
    if not isinstance(valid_utf8, bool):
        raise GenerateArgumentError(f"`valid_utf8` must be True or False. Received: {valid_utf8!r}.")
    start, longest = (0 if runtime.tokenizer.start_token_id is None else 1), runtime.max_sequence_length
    for place, prompt in enumerate(prompts):
        check_ids(prompt, runtime.tokenizer, f"prompt {place}")
        if not start and not len(prompt):
            raise GenerateArgumentError(f"Prompt {place} is empty, and this model has no start token.")
        if longest is not None and start + len(prompt) + max_new_tokens > longest:
            raise GenerateArgumentError(
                f"Prompt {place} has {start + len(prompt)} tokens (its start token with them); {max_new_tokens} new "
                f"ones would be more than the {longest} positions of this artefact."
            )


def check_ids(token_ids: Any, tokenizer: Tokenizer, what: str) -> None:
    """Check that these are ids of a tokenizer's tokens.

    Raises:
        GenerateArgumentError: one is no whole number, or beyond the vocabulary; or they are text.
    """
    size = tokenizer.vocabulary_size
    if isinstance(token_ids, (str, bytes)):
        raise GenerateArgumentError(f"{what} is text where token ids are read. Received: {token_ids!r}.")
    wrong = [token_id for token_id in token_ids if not is_whole(token_id, 0, size)]
    if wrong:
        raise GenerateArgumentError(f"Token ids are whole numbers up to {size - 1}. Received: {wrong[0]!r} in {what}.")


def check_text(token_ids: Any, tokenizer: Tokenizer, longest: int | None) -> None:
    """Check a text whose logits are asked for.

    Raises:
        GenerateArgumentError: it holds no token, other things than ids, or more than the artefact can read.
    """
    check_ids(token_ids, tokenizer, "the text")
    if not len(token_ids) or (longest is not None and len(token_ids) > longest):
        raise GenerateArgumentError(
            f"A text must have from 1 to {longest} tokens for its logits to be read. Received: {len(token_ids)}."
        )


def is_whole(value: Any, least: int, end: int) -> bool:
    """Return whether a value is a whole number, NumPy's too, in `[least, end)`."""
    return not isinstance(value, bool) and hasattr(value, "__index__") and least <= value < end


def check_threads(threads: Any) -> None:
    """Check how many threads a runtime is asked to use.

    Raises:
        GenerateArgumentError: it is no whole number of at least 1.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise GenerateArgumentError(f"`threads` must be a whole number of at least 1. Received: threads={threads!r}.")
