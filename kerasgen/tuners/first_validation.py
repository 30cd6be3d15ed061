"""Scores the weights that a run begins with, while the graph of its first step is traced.

Tracing is Python's work and scoring is the processor's, so on two cores they take hardly longer than one of them.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kerasgen.tuners.base import Validation


class FirstValidation:
    """A validation in a thread of its own. No weight may change before `finish` has returned.

    Args:
        measure: scores the held-out documents.
        validations: get the figures in front.
    """

    def __init__(self, measure: Callable[[], Validation], validations: list[Validation]) -> None:
        self._validations = validations
        self._is_finished = False
        self.error: BaseException | None = None
        """What `measure` raised, once `finish` was called: a library may raise another error in its place."""
        self.waited_seconds = 0.0
        thread = ThreadPoolExecutor(1, thread_name_prefix="kerasgen-validation")
        self._future = thread.submit(contextvars.copy_context().run, measure)
        thread.shutdown(wait=False)

    def finish(self) -> None:
        """Wait for the figures and keep them; nothing happens the second time.

        Raises:
            KerasgenError: what `measure` raised.
        """
        if self._is_finished:
            return
        begin = time.perf_counter()
        try:
            found = self._future.result()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.waited_seconds = time.perf_counter() - begin
        self._is_finished = True
        self._validations.insert(0, found)

    def end(self) -> None:
        """Wait until nothing is computed any more, whatever comes of it."""
        self._future.exception()
