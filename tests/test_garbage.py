"""Searches for reference cycles wait while much is made that stays, and go on afterwards as they were."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

import pytest

from kerasgen import garbage

pytestmark = pytest.mark.one_backend


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_no_search_of_all_objects_comes_while_they_are_put_off() -> None:
    searched: list[int] = []

    def seen(phase: str, about: dict[str, int]) -> None:
        searched.append(about["generation"])

    gc.callbacks.append(seen)
    try:
        with garbage.put_off():
            held = [[[]] for _ in range(200_000)]
        assert 2 not in searched
        assert len(searched) < 20
    finally:
        gc.callbacks.remove(seen)
    assert len(held) == 200_000


def test_the_thresholds_come_back_when_the_last_block_ends_even_by_an_error() -> None:
    def in_a_thread() -> None:
        with garbage.put_off():
            entered.set()
            left.wait(10)

    entered, left = threading.Event(), threading.Event()
    thread = threading.Thread(target=in_a_thread)
    with contextlib.suppress(ZeroDivisionError), garbage.put_off():
        thread.start()
        assert entered.wait(10)
        raise ZeroDivisionError
    assert gc.get_threshold() == garbage.RARELY
    left.set()
    thread.join()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [(0, 10, 10), (100_000, 20, 20)])
def test_a_program_keeps_its_own_thresholds(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with garbage.put_off():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own
    gc.set_threshold(700, 10, 10)
    with garbage.put_off():
        gc.set_threshold(*own)
    assert gc.get_threshold() == own
