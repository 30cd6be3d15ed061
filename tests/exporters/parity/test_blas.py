"""NumPy leaves cores to the other processes of a proof."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from kerasgen.exporters.parity import blas

pytestmark = pytest.mark.one_backend


def threads() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize(("cores", "limit", "most"), [(1, 2, 1), (2, 2, 1), (4, 2, 2), (8, 2, 2), (8, 1, 1)])
def test_numpy_multiplies_on_half_of_the_cores_and_no_more_than_it_was_allowed(monkeypatch, cores, limit, most):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    with threadpoolctl.threadpool_limits(limit, user_api="blas"):
        before = threads()
        if not before:
            pytest.skip("NumPy's own linear algebra has no threads here")
        with blas.some_cores():
            assert max(threads()) == most
        assert threads() == before


def test_threads_come_back_after_an_error():
    before = threads()
    with pytest.raises(ZeroDivisionError), blas.some_cores():
        1 / 0  # noqa: B018
    assert threads() == before
