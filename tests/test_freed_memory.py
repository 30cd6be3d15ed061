"""Memory that was freed between what lives goes back to the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kerasgen import backend, freed_memory


def resident_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(freed_memory._malloc_trim() is None, reason="the C library has no malloc_trim"),
]


def given_back(act: Callable[[], object]) -> int:
    """Return by how many bytes the process shrinks by an act, after 61 MB of 64 were freed here and there."""
    arrays = [bytearray(b"\1" * 100_000) for _ in range(640)]  # of a size that glibc takes from its heap
    kept = arrays[::40]
    del arrays
    held = resident_bytes()
    act()
    given = held - resident_bytes()
    assert all(array == b"\1" * 100_000 for array in kept)
    return given


def test_what_was_freed_between_what_lives_goes_back_to_the_system() -> None:
    assert given_back(lambda: None) < 1_000_000
    assert given_back(freed_memory.give_back) > 40_000_000


def test_what_a_compiler_freed_goes_back_before_its_graph_runs() -> None:
    """JAX tells of each compilation when it is done; of a short one nothing is given back."""
    backend.use("jax")
    import jax

    heard: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: heard.append(event))
    jax.jit(lambda number: number * 2 + 1, compiler_options={})(3.0).block_until_ready()
    assert backend._COMPILED in heard
    assert given_back(lambda: jax.monitoring.record_event_duration_secs(backend._COMPILED, 0.01)) < 1_000_000
    assert given_back(lambda: jax.monitoring.record_event_duration_secs(backend._COMPILED, 2.0)) > 40_000_000
