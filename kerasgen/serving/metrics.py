"""A server's counters, written in Prometheus's text format, version 0.0.4."""

from __future__ import annotations

import threading
from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counter:
    """A number that grows, for each value of one label.

    Args:
        name: as Prometheus shows it.
        help: what it counts.
        label: the label's name; empty for none.
    """

    kind = "counter"

    def __init__(self, name: str, help: str, label: str = "") -> None:  # noqa: A002  as Prometheus calls it
        self.name, self.help, self._label = name, help, label
        self._values: dict[str, float] = {} if label else {"": 0.0}
        self._lock = threading.Lock()

    def add(self, count: float, label: str = "") -> None:
        """Count so many more."""
        with self._lock:
            self._values[label] = self._values.get(label, 0.0) + count

    def set(self, value: float) -> None:
        """Set it."""
        self._values[""] = value

    def lines(self) -> Iterator[str]:
        """Yield its lines."""
        with self._lock:
            values = sorted(self._values.items())
        for label, value in values:
            labels = f'{{{self._label}="{label}"}}' if self._label else ""
            yield f"{self.name}{labels} {value:.15g}"


class Gauge(Counter):
    """A number that goes up and down."""

    kind = "gauge"


class Histogram:
    """Counts of an event by its duration in seconds.

    Args:
        name: as Prometheus shows it, in seconds.
        help: what it measures.
    """

    kind = "histogram"

    def __init__(self, name: str, help: str) -> None:  # noqa: A002
        self.name, self.help = name, help
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one event."""
        with self._lock:
            self._counts[sum(seconds > edge for edge in _SECONDS)] += 1
            self._sum += seconds

    def lines(self) -> Iterator[str]:
        """Yield its lines."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        below = 0
        for edge, count in zip([*map(str, _SECONDS), "+Inf"], counts, strict=True):
            below += count
            yield f'{self.name}_bucket{{le="{edge}"}} {below}'
        yield f"{self.name}_sum {total:g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """All that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter("kerasgen_requests_total", "Requests answered, by status.", "status")
        self.prompt_tokens = Counter("kerasgen_prompt_tokens_total", "Tokens of prompts that were read.")
        self.generated_tokens = Counter("kerasgen_generated_tokens_total", "Tokens that were written.")
        self.abandoned = Counter("kerasgen_abandoned_requests_total", "Requests whose client went away.")
        self.running = Gauge("kerasgen_running_texts", "Texts that are being written.")
        self.waiting = Gauge("kerasgen_waiting_texts", "Texts that wait for a place.")
        self.steps = Histogram("kerasgen_step_seconds", "Seconds of a step, which writes a token of each text.")
        self.stepped = Counter("kerasgen_stepped_texts_total", "Texts of all steps; by steps, the mean batch.")
        self.first = Histogram("kerasgen_first_token_seconds", "Seconds from a request to its first token.")

    def observe_step(self, seconds: float, texts: int) -> None:
        """Count a step."""
        self.steps.observe(seconds)
        self.stepped.add(texts)

    def text(self) -> str:
        """Return all of it as Prometheus reads it."""
        lines = []
        for metric in vars(self).values():
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(lines) + "\n"
