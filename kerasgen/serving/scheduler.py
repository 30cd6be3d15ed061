"""Decides in one thread which texts are written: those that wait take the places of those that ended, at every step."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from kerasgen.errors import KerasgenError
from kerasgen.serving.metrics import Metrics
from kerasgen.serving.texts import Chosen, Event, Text

# Tokens of prompts that are read between two steps, or one prompt of more: running texts wait for it.
_READ_AT_ONCE = 1024
_LOG = logging.getLogger("kerasgen.serving")


Deliver: TypeAlias = Callable[[list[tuple[Text, list[Event]]]], None]


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


def hand_over(told: list[tuple[Text, list[Event]]]) -> None:
    """Tell of each text."""
    for text, events in told:
        text.tell(text, events)


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
        self._told: list[tuple[Text, list[Event]]] = []
        self._deliver: Deliver = hand_over
        self._changed = threading.Condition()
        self._closed = False
        self._first: Text | None = None
        self._is_warm = False
        self._thread = threading.Thread(target=self._run, name="kerasgen-serving", daemon=True)

    def start(self, deliver: Deliver | None = None, first: Text | None = None) -> None:
        """Begin to write.

        Args:
            first: a text that is written before all others and told to nobody, so that what it needs is compiled.
            deliver: hands over what became known in a step, of all texts at once: whenever another thread is woken,
                this one may have to wait for Python's lock. None calls each text's `tell`.
        """
        self._deliver = deliver or hand_over
        self._first = first
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

    @property
    def is_warm(self) -> bool:
        """Whether the first text was written."""
        return self._is_warm

    def _warm_up(self, text: Text) -> None:
        try:
            for chosen in self.decoder.admit([text]):
                if (
                    chosen.error is None
                    and chosen.token is not None
                    and not text.take(chosen.token, self._ends).is_last
                ):
                    self.decoder.step()
            self.decoder.leave(text)
        except Exception:
            _LOG.exception("The server could not write a first text; it takes requests all the same.")
            self.decoder.fail()

    def _run(self) -> None:
        if self._first is not None:
            self._warm_up(self._first)
        self._is_warm = True
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
            self._hand_over()
        for text in [*self._live, *self._waiting]:
            self._end(text, ClosedError("The server has ended."))
        self._waiting.clear()
        self._hand_over()

    def _tell(self, text: Text, event: Event) -> None:
        """Tell of a text when the step is done, or with its last event."""
        text.kept.append(event)
        if text.streams or event.is_last:
            self._told.append((text, text.kept))
            text.kept = []

    def _hand_over(self) -> None:
        told, self._told = self._told, []
        if told:
            self._deliver(told)

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
                self._tell(text, Event(error=error))
            return
        except Exception:
            self._live += joining  # so that they end with the others
            raise
        self._live += joining
        self._metrics.prompt_tokens.add(sum(len(text.prompt) for text in joining))
        self._take(chosen)

    def _take(self, chosen: Sequence[Chosen]) -> None:
        self._metrics.generated_tokens.add(sum(one.token is not None for one in chosen))
        for one in chosen:
            text = one.text
            if one.error is not None:
                self._end(text, one.error)
                continue
            if one.token is None:
                event = Event(prompt=one.prompt, finish=one.finish or "length")
            else:
                event = text.take(one.token, self._ends)
                if one.finish == "stop" and event.is_last:
                    event = dataclasses.replace(event, finish="stop")
                if len(text.token_ids) == 1:
                    self._metrics.first.observe(time.perf_counter() - text.began)
                if one.prompt is not None:
                    event = dataclasses.replace(event, prompt=one.prompt)
            if event.is_last:
                self._end(text)
            self._tell(text, event)

    def _end(self, text: Text, error: Exception | None = None) -> None:
        self.decoder.leave(text)
        if text in self._live:
            self._live.remove(text)
        self._count()
        if error is not None:
            self._tell(text, Event(error=error))

    def _count(self, joining: int = 0) -> None:
        self._metrics.running.set(len(self._live) + joining)
        self._metrics.waiting.set(len(self._waiting))
