"""A text that many calls begin with, read once: what `Pipeline.prompt` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from kerasgen.generation import engines, generating
from kerasgen.generation.engine import Engine
from kerasgen.models.base import LanguageModel


@runtime_checkable
class RememberingSession(Protocol):
    """A session whose engine can keep what was read."""

    def remember(self) -> None:
        """Keep what was read of the first row's text, so that one which begins alike is not read again."""


class Prompt:
    """The beginning of many texts. The engine reads it once and remembers it while the weights stay as they are.

    An engine that can't remember gives the same texts and reads the prompt at each call.

    Args:
        model: returns the model or engine; it is asked at each call.
        text: the beginning.
        settings: arguments of each call that are not given there, such as `sampler` and `seed`.
        engine: turns a call's `engine` into what `kerasgen.generation` takes.
    """

    def __init__(
        self,
        model: Callable[[], LanguageModel | Engine],
        text: str,
        settings: dict[str, Any],
        *,
        engine: Callable[[Any], Any] = lambda engine: engine,
    ) -> None:
        self._model = model
        self._settings = settings
        self._engine = engine
        self.text = text
        self._read()

    def __repr__(self) -> str:
        return f"Prompt({self.text!r})"

    def generate(self, prompts: str | Sequence[str] = "", **settings: Any) -> Any:
        """Return what `Pipeline.generate` returns for this text with each of `prompts` after it."""
        settings = self._with(settings)
        several = [prompts] if isinstance(prompts, str) else list(prompts)
        found = generating.generate(self._model(), [self.text + prompt for prompt in several], **settings)
        return found[0] if isinstance(prompts, str) else found

    def stream(self, prompt: str = "", **settings: Any) -> Iterator[str]:
        """Yield what `Pipeline.stream` yields for this text with `prompt` after it."""
        return generating.stream(self._model(), self.text + prompt, **self._with(settings))

    def extend(self, text: str) -> Prompt:
        """Return the prompt with more text after it, such as a question and its answer; only that is read."""
        return Prompt(self._model, self.text + text, self._settings, engine=self._engine)

    def _with(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A call's settings; the prompt is read if Keras, which remembers it, decodes."""
        found = {"engine": "keras", **self._settings, **settings}
        found["engine"] = self._engine(found["engine"])
        if isinstance(found["engine"], str):
            self._read()
        return found

    def _read(self) -> None:
        """Let the engine read what it doesn't remember."""
        engine = engines.resolve(self._model())
        start = engine.tokenizer.start_token_id
        token_ids = ([] if start is None else [start]) + engine.tokenizer.encode(self.text)
        remembers = getattr(engine, "remembers", None)
        if not token_ids or remembers is None or remembers(token_ids):
            return
        longest = engine.max_sequence_length
        if longest is not None and len(token_ids) >= longest:
            return  # the call itself says what is wrong
        session = engine.open([token_ids], [len(token_ids) + 1])
        if isinstance(session, RememberingSession):
            session.remember()
