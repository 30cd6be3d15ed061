"""A snapshot of arrays, as training waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from kerasgen.tuners import snapshot

pytestmark = pytest.mark.one_backend


def test_all_arrays_are_asked_for_before_one_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question to TensorFlow waits for threads that copy: a quarter of the time, of 589 variables."""
    monkeypatch.setattr(snapshot, "_BYTES_FOR_THREADS", 0)
    taken = snapshot.Snapshot(dict.fromkeys("ab", ("float32", (4,))))
    empty = bytes(taken.data[-32:])

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        yield "a", np.ones(4, np.float32)
        time.sleep(0.1)
        assert bytes(taken.data[-32:]) == empty
        yield "b", np.ones(4, np.float32)

    assert taken.take(arrays())
    assert bytes(taken.data[-32:]) == np.ones(8, np.float32).tobytes()
