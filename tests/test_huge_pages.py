"""Large arrays lie in huge pages, and hold what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kerasgen import backend, huge_pages

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ALLOWED = _SETTING.is_file() and "[never]" not in _SETTING.read_text()

pytestmark = pytest.mark.one_backend
needs_huge_pages = pytest.mark.skipif(not _ALLOWED, reason="this system has no transparent huge pages")


def huge_bytes(address: int) -> int:
    """Return how many bytes of the mapping that holds an address lie in huge pages."""
    holds = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            first, last = (int(edge, 16) for edge in name.split("-"))
            holds = first <= address < last
        elif holds and name == "AnonHugePages:":
            return int(rest.split()[0]) * 1024
    return 0


@pytest.mark.parametrize("shape", [(7, 3), (1024, 513), (3, 600, 400), (0, 5), ()])
@pytest.mark.parametrize("dtype", ["float32", "int8", "float16"])
def test_a_copy_of_a_view_is_equal_and_lies_row_by_row(shape: tuple[int, ...], dtype: str) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 100).astype(dtype).reshape(shape)
    copied = huge_pages.copy(array.T)
    np.testing.assert_array_equal(copied, array.T)
    assert copied.flags.c_contiguous
    assert copied.dtype == array.dtype
    assert not np.shares_memory(copied, array)


@needs_huge_pages
def test_a_large_array_lies_in_huge_pages_and_goes_with_its_last_view() -> None:
    array = huge_pages.copy(np.ones((4096, 1025), np.float32))  # 16 MB and a part
    address = array.ctypes.data
    assert address % huge_pages.PAGE == 0
    assert huge_bytes(address) >= 8 << 20  # the system may run out of them
    part = array[5]
    del array
    assert part.sum() == 1025
    del part
    assert huge_bytes(address) == 0


@needs_huge_pages
def test_weights_of_a_decoder_are_not_copied_once_more() -> None:
    backend.use("jax")
    import jax

    from kerasgen.decoder import jax_layout

    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator has memory of its own")
    kernel = np.arange(1_200_000, dtype=np.float32).reshape(1000, 1200)
    placed = jax_layout.placed(kernel.T)
    np.testing.assert_array_equal(placed, kernel.T)
    assert placed.unsafe_buffer_pointer() % huge_pages.PAGE == 0
