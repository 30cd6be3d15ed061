"""Many threads call one thing, and each answer must be the one that a single thread gets."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

THREADS = 8


def answers_are_those_of_one_thread(
    call: Callable[[Any], Any],
    arguments: Sequence[Any],
    *,
    rounds: int = 3,
    anew: Callable[[], Callable[[Any], Any]] | None = None,
) -> None:
    """Assert that eight threads, each with all arguments in an order of its own, get what one thread does.

    Args:
        call: what is called, with one argument.
        arguments: for it; few enough to be asked 8 times `rounds`.
        rounds: how often each thread goes through them.
        anew: makes the `call` of the threads, so that they come first to what is made once; None takes `call` itself.
    """
    wanted = [call(one) for one in arguments]
    assert len({repr(one) for one in wanted}) > 1, "answers that are all alike could be mixed up"
    call = call if anew is None else anew()
    wrong: list[tuple[Any, Any]] = []
    together = threading.Barrier(THREADS)

    def run(first: int) -> None:
        try:
            together.wait()
            for number in range(rounds * len(arguments)):
                place = (first * 3 + number) % len(arguments)
                found = call(arguments[place])
                if found != wanted[place]:
                    wrong.append((arguments[place], found))
        except BaseException as cause:
            wrong.append((first, cause))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong, f"{len(wrong)} of {THREADS * rounds * len(arguments)} answers are others, such as {wrong[0]}"
