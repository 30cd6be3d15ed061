"""Writes files behind the training: one after another, in a thread, and no error of theirs is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class BackgroundWriter:
    """A thread that does what it is told in that order.

    An error of one task is raised by whatever is called next. The interpreter does not end before the last task has.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kerasgen-checkpoint")
        self._tasks: list[Future[object]] = []

    def submit(self, write: Callable[[], object]) -> Future[object]:
        """Let the thread do a task after those before it.

        Raises:
            BaseException: what an earlier task raised.
        """
        self.check()
        self._tasks.append(self._thread.submit(write))
        return self._tasks[-1]

    def check(self) -> None:
        """Raise what a task that has ended raised, once."""
        while self._tasks and self._tasks[0].done():
            self._tasks.pop(0).result()

    def wait(self, task: Future[object] | None = None) -> None:
        """Wait until a task and those before it have ended, or all of them.

        Raises:
            BaseException: what one of them raised.
        """
        wait(self._tasks if task is None else [task])
        self.check()

    def close(self) -> BaseException | None:
        """Wait until all tasks have ended, and the thread; return the first error that nobody has been told of."""
        self._thread.shutdown(wait=True)
        errors = [task.exception() for task in self._tasks]
        self._tasks.clear()
        return next((error for error in errors if error is not None), None)
