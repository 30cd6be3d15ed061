"""Texts one after another, for engines and runtimes whose steps can't be shared by texts that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.engine import Engine, Session
from kerasgen.serving import host_choice
from kerasgen.serving.texts import Chosen, Finish, Text, Token


class EngineSlot:
    """A decoder of one text at a time by an engine's sessions.

    Args:
        engine: such as that of a TFLite file.
    """

    capacity = 1
    shares_steps = False
    shows_logprobs = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._text: Text | None = None
        self._session: Session | None = None

    def check(self, prompt: Sequence[int], limit: int) -> None:
        """Accept any text."""

    def leave(self, text: Text) -> None:
        """Forget the text."""
        self._text = self._session = None

    def fail(self) -> None:
        """Forget the text."""
        self._text = self._session = None

    def admit(self, texts: Sequence[Text]) -> list[Chosen]:
        """Read the prompt of a text, and return its first token."""
        (text,) = texts
        scored = self._scores(text.prompt, text.logprobs or 0) if text.scores_prompt else None
        if text.is_only_read:
            return [Chosen(text, prompt=scored)]
        self._text, self._session = text, self.engine.open([text.prompt], [text.limit])
        (chosen,) = self.step()
        return [Chosen(text, chosen.token, scored, chosen.error)]

    def step(self) -> list[Chosen]:
        """Return one more token of the text."""
        text, session = self._text, self._session
        assert text is not None
        assert session is not None
        if text.token_ids:
            session.append(np.array(text.token_ids[-1:]))
        return [Chosen(text, host_choice.choose(text, session.logits()[0], self.engine.tokenizer))]

    def _scores(self, prompt: tuple[int, ...], count: int) -> tuple[Token, ...]:
        """Return the tokens of a prompt with what the model gave each, read one after another."""
        tokens = [Token(prompt[0], None)]
        if len(prompt) > 1:
            session = self.engine.open([prompt[:1]], [len(prompt) + 1])
            for place, token_id in enumerate(prompt[1:], start=1):
                if place > 1:
                    session.append(np.array(prompt[place - 1 : place]))
                tokens.append(host_choice.token_of(session.logits(), token_id, count))
        return tuple(tokens)


class RuntimeSlot:
    """A decoder of one text at a time by a runtime that shows a text only when it is complete.

    Args:
        runtime: of an artefact, such as a GGUF file's.
    """

    capacity = 1
    shares_steps = False
    shows_logprobs = False

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._waiting: list[Chosen] = []

    def check(self, prompt: Sequence[int], limit: int) -> None:
        """Accept any text."""

    def leave(self, text: Text) -> None:
        """Forget what is left of the text."""
        self._waiting = []

    def fail(self) -> None:
        """Forget what is left of the text."""
        self._waiting = []

    def admit(self, texts: Sequence[Text]) -> list[Chosen]:
        """Write a whole text, and return its first token, if it has one.

        Raises:
            GenerateArgumentError: the runtime can't write it.
        """
        (text,) = texts
        if text.is_only_read:
            return [Chosen(text)]
        start = self._runtime.tokenizer.start_token_id
        if start is not None and text.prompt[:1] != (start,):
            raise GenerateArgumentError(
                f"{type(self._runtime).__name__} puts a start token before what it reads, and this prompt has none."
            )
        (ids,) = self._runtime.generate_ids(
            [list(text.prompt if start is None else text.prompt[1:])],
            max_new_tokens=text.limit - len(text.prompt),
            sampler=text.sampler,
            seed=(text.seed + text.copy) % 2**64,  # a runtime knows nothing of the other copies
            valid_utf8=text.utf8 is not None,
        )
        # A runtime that gives text has other ids than it chose, fewer or more: the text ends where they end.
        finish: Finish | None = None if len(ids) >= text.limit - len(text.prompt) else "stop"
        text.limit = len(text.prompt) + len(ids)
        if not len(ids):
            return [Chosen(text, finish="stop")]
        *before, last = (Token(int(token_id), None) for token_id in ids)
        self._waiting = [*(Chosen(text, token) for token in before), Chosen(text, last, finish=finish)]
        return self.step()

    def step(self) -> list[Chosen]:
        """Return one more token of the text."""
        return [self._waiting.pop(0)]
