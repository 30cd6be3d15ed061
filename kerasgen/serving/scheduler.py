"""Decides in one thread which texts are written: those that wait take the places of those that ended, at every step."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from kerasgen.errors import KerasgenError
from kerasgen.serving.metrics import Metrics
from kerasgen.serving.texts import Chosen, Event, Text

# Tokens of prompts that are read between two steps, or one prompt of more: running texts wait for it.
_READ_AT_ONCE = 1024
_LOG = logging.getLogger("kerasgen.serving")


class Decoder(Protocol):
    """Writes several texts, one token of each a step.

    Attributes:
        capacity: texts at once.
        shares_steps: whether texts that come together are written together.
        shows_logprobs: whether tokens have log-probabilities.
    """

    capacity: int
    shares_steps: bool
    shows_logprobs: bool

    def check(self, prompt: Sequence[int], limit: int) -> None:
        """Raise a `GenerateArgumentError` if a text of this prompt can't grow to its limit."""

    def admit(self, texts: Sequence[Text]) -> list[Chosen]:
        """Read the prompts of texts that join, and return the first token of each."""

    def step(self) -> list[Chosen]:
        """Return one more token of each text that was admitted and has not left."""

    def leave(self, text: Text) -> None:
        """Let a text go; it may have left already."""

    def fail(self) -> None:
        """Let all texts go, after an error."""


class BusyError(KerasgenError):
    """More texts wait than the server holds."""


class ClosedError(KerasgenError):
    """The server is ending."""


class Scheduler:
    """Hands texts to a decoder, in the order in which they came.

    Args:
        decoder: what writes.
        ends: the ids that end a text.
        queue_size: texts that wait at most.
        metrics: what is counted.
    """

    def __init__(self, decoder: Decoder, ends: tuple[int, ...], queue_size: int, metrics: Metrics) -> None:
        self.decoder, self._ends, self._queue_size, self._metrics = decoder, ends, queue_size, metrics
        self._waiting: deque[Text] = deque()
        self._live: list[Text] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="kerasgen-serving", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, texts: Sequence[Text]) -> None:
        """Let texts be written; each is told of by its own `tell`.

        Raises:
            BusyError: too many wait already.
            ClosedError: the server is ending.
        """
        with self._changed:
            if self._closed:
                raise ClosedError("The server is ending.")
            free = max(0, self.decoder.capacity - len(self._live))
            if len(self._waiting) + len(texts) > self._queue_size + free:
                raise BusyError(f"{len(self._waiting)} texts wait already, and {self._queue_size} may.")
            self._waiting.extend(texts)
            self._count()
            self._changed.notify()

    def cancel(self, texts: Sequence[Text]) -> None:
        """Let these texts end; their places are free at the next step."""
        with self._changed:
            for text in texts:
                text.cancelled = True
            self._changed.notify()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """End all texts, and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether texts are written."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            for text in [text for text in self._live if text.cancelled]:
                self._end(text)
            joining = self._joining()
            try:
                if joining:
                    self._admit(joining)
                if self._live:
                    began = time.perf_counter()
                    chosen = self.decoder.step()
                    self._metrics.observe_step(time.perf_counter() - began, len(chosen))
                    self._take(chosen)
            except Exception as error:
                _LOG.exception("A step of %d texts failed.", len(self._live))
                self.decoder.fail()
                for text in list(self._live):
                    self._end(text, error)
        for text in [*self._live, *self._waiting]:
            self._end(text, ClosedError("The server has ended."))
        self._waiting.clear()

    def _wait(self) -> bool:
        """Wait until there is something to write, and return whether to go on."""
        with self._changed:
            while not (self._closed or self._live or self._waiting):
                self._changed.wait()
            return not self._closed

    def _joining(self) -> list[Text]:
        """Return the texts that join now."""
        joining: list[Text] = []
        with self._changed:
            self._waiting = deque(text for text in self._waiting if not text.cancelled)
            read = 0
            while self._waiting and len(self._live) + len(joining) < self.decoder.capacity:
                read += len(self._waiting[0].prompt)
                if joining and read > _READ_AT_ONCE:
                    break
                joining.append(self._waiting.popleft())
            self._count(len(joining))
        return joining

    def _admit(self, joining: list[Text]) -> None:
        try:
            chosen = self.decoder.admit(joining)
        except KerasgenError as error:  # of these texts; the others go on
            for text in joining:
                self.decoder.leave(text)
                text.tell(text, Event(error=error))
            return
        except Exception:
            self._live += joining  # so that they end with the others
            raise
        self._live += joining
        self._metrics.prompt_tokens.add(sum(len(text.prompt) for text in joining))
        self._take(chosen)

    def _take(self, chosen: Sequence[Chosen]) -> None:
        for one in chosen:
            text = one.text
            if one.error is not None:
                self._end(text, one.error)
                continue
            if one.token is None:
                event = Event(prompt=one.prompt, finish="length")
            else:
                event = text.take(one.token, self._ends)
                self._metrics.generated_tokens.add(1)
                if one.prompt is not None:
                    event = Event(event.piece, event.token, one.prompt, event.finish)
            if event.is_last:
                self._end(text)
            text.tell(text, event)

    def _end(self, text: Text, error: Exception | None = None) -> None:
        self.decoder.leave(text)
        if text in self._live:
            self._live.remove(text)
        self._count()
        if error is not None:
            text.tell(text, Event(error=error))

    def _count(self, joining: int = 0) -> None:
        self._metrics.running.set(len(self._live) + joining)
        self._metrics.waiting.set(len(self._waiting))
