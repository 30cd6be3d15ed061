"""Limits the threads of NumPy's products while a proof computes with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl


@contextmanager
def some_cores() -> Iterator[None]:
    """Let NumPy multiply on half of the cores at most, for the proof's other processes have work for the rest.

    Threads of OpenBLAS wait for each other without resting: on two cores of which another process holds one, GPT-2's
    base shape reads 178 tokens in 6.0 s of CPU time with two threads, and in 0.8 with one.
    """
    pools = threadpoolctl.ThreadpoolController().select(user_api="blas")
    most = min([max((os.cpu_count() or 2) // 2, 1), *(pool["num_threads"] for pool in pools.info())])
    with pools.limit(limits=most):
        yield
