"""Writes answers as OpenAI's API has them, whole or in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from kerasgen.serving.requests import Asked, prompt_tokens
from kerasgen.serving.texts import Event, Token
from kerasgen.tokens.base import Tokenizer


class Answer:
    """The fields that all pieces of one answer share.

    Args:
        asked: the request.
        model: the model's name.
        tokenizer: its tokenizer.
    """

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer) -> None:
        self._asked, self._model, self._tokenizer = asked, model, tokenizer
        self._id = f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def whole(self, choices: list[dict[str, Any]], generated: int) -> dict[str, Any]:
        """Return the whole answer."""
        kind = "chat.completion" if self._asked.is_chat else "text_completion"
        return self._around(kind) | {"choices": choices, "usage": self._usage(generated)}

    def choice(self, index: int, text: str, tokens: list[dict[str, Any]] | None, finish: str | None) -> dict[str, Any]:
        """Return one text of a whole answer."""
        chosen = {"index": index, "finish_reason": finish, "logprobs": self._logprobs(tokens)}
        if self._asked.is_chat:
            return chosen | {"message": {"role": "assistant", "content": text, "refusal": None}}
        return chosen | {"text": text}

    def piece(
        self, index: int, text: str, tokens: list[dict[str, Any]] | None, finish: str | None, *, first: bool
    ) -> dict[str, Any]:
        """Return a piece of one text."""
        kind = "chat.completion.chunk" if self._asked.is_chat else "text_completion"
        chosen: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": self._logprobs(tokens)}
        if self._asked.is_chat:
            role = {"role": "assistant"} if first else {}
            chosen["delta"] = role | ({"content": text} if text or first else {})
        else:
            chosen["text"] = text
        usage: dict[str, Any] = {"usage": None} if self._asked.stream_usage else {}
        return self._around(kind) | {"choices": [chosen]} | usage

    def usage_piece(self, generated: int) -> dict[str, Any]:
        """Return the last piece, which tells of the tokens."""
        kind = "chat.completion.chunk" if self._asked.is_chat else "text_completion"
        return self._around(kind) | {"choices": [], "usage": self._usage(generated)}

    def token(self, token: Token, offset: int) -> dict[str, Any]:
        """Return what is told of a token, and the place of its text in characters."""
        return {"token": token, "offset": offset}

    def _around(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _usage(self, generated: int) -> dict[str, int]:
        read = prompt_tokens(self._asked)
        return {"prompt_tokens": read, "completion_tokens": generated, "total_tokens": read + generated}

    def _logprobs(self, tokens: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        if self._asked.logprobs is None or tokens is None:
            return None
        if self._asked.is_chat:
            return {"content": [self._of_chat(one["token"]) for one in tokens], "refusal": None}
        return {
            "tokens": [self._name(one["token"].token_id) for one in tokens],
            "token_logprobs": [one["token"].logprob for one in tokens],
            "top_logprobs": [self._tops(one["token"]) for one in tokens],
            "text_offset": [one["offset"] for one in tokens],
        }

    def _tops(self, token: Token) -> dict[str, float] | None:
        """Return the likeliest tokens and the token itself by name; of equal names the likelier."""
        if token.logprob is None:
            return None
        named: dict[str, float] = {}
        for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
            named.setdefault(self._name(token_id), logprob)
        return named

    def _of_chat(self, token: Token) -> dict[str, Any]:
        own = self._one_of_chat(token.token_id, token.logprob)
        return own | {"top_logprobs": [self._one_of_chat(token_id, logprob) for token_id, logprob in token.top]}

    def _one_of_chat(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        written = self._tokenizer.token_bytes(token_id)
        return {"token": self._name(token_id), "logprob": logprob, "bytes": list(written)}

    def _name(self, token_id: int) -> str:
        """Return the text of a token; of a part of a character, its bytes as OpenAI's API shows them."""
        written = self._tokenizer.token_bytes(token_id)
        try:
            return written.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)


class TextSoFar:
    """One text of an answer while it comes.

    A token is told of once it is certain that its text is shown: a stop string may take it back, and a token that ends
    the text shows nothing. So an answer in pieces tells of the same tokens as a whole one.

    Args:
        before: characters before it, of a prompt that is shown.
    """

    def __init__(self, before: int = 0) -> None:
        self.pieces: list[str] = []
        self.tokens: list[dict[str, Any]] = []
        self.finish: str | None = None
        self.generated = 0
        self._before, self._characters = before, before
        self._waiting: list[dict[str, Any]] = []

    def add(self, event: Event, prompt: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Add what an event tells, and return the tokens that are told of now, each with its place.

        Args:
            event: if it is the last and nothing of the text was told, its first token is.
            prompt: what is told of the prompt's tokens.
        """
        self._waiting += prompt
        if event.token is not None:
            self._waiting.append({"token": event.token, "offset": self._before + event.place})
        self._characters += len(event.piece)
        self.pieces.append(event.piece)
        self.generated += event.token is not None
        told = [one for one in self._waiting if one["offset"] < self._characters]
        if event.is_last and not self.tokens and not told:
            told = self._waiting[:1]
        self._waiting = [one for one in self._waiting if one["offset"] >= self._characters]
        self.tokens += told
        return told


def of_prompt(tokens: Sequence[Token], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return what is told of a prompt's tokens, each with its place in characters."""
    told, place = [], 0
    decoder = tokenizer.decoder()
    for token in tokens:
        told.append({"token": token, "offset": place})
        place += len(decoder.push(token.token_id))
    return told
