"""Memory that was freed between what lives goes back to the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from kerasgen import freed_memory


def resident_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.mark.one_backend
@pytest.mark.skipif(freed_memory._malloc_trim() is None, reason="the C library has no malloc_trim")
def test_what_was_freed_between_what_lives_goes_back_to_the_system() -> None:
    arrays = [bytearray(b"\1" * 100_000) for _ in range(640)]  # of a size that glibc takes from its heap
    kept = arrays[::40]
    del arrays
    held = resident_bytes()
    freed_memory.give_back()
    assert held - resident_bytes() > 40_000_000
    assert all(array == b"\1" * 100_000 for array in kept)
