"""Large arrays lie in huge pages, and hold what they are given."""

from __future__ import annotations

import subprocess
import sys
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
    if huge_pages.can_move():
        assert huge_pages.move(address, array.nbytes)
        assert huge_bytes(address) >= 16 << 20
    assert huge_bytes(address) >= 8 << 20  # the system may run out of them
    part = array[5]
    del array
    assert part.sum() == 1025
    del part
    assert huge_bytes(address) == 0


def test_what_is_not_the_processes_own_is_not_moved() -> None:
    assert not huge_pages.move(1 << 40, 4 * huge_pages.PAGE)


def test_nothing_is_moved_where_the_system_gives_no_huge_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    huge_pages.can_move.cache_clear()
    try:
        monkeypatch.setattr(huge_pages, "SETTING", setting)
        assert not huge_pages.can_move()
        array = huge_pages.copy(np.ones((1024, 1024), np.float32))
        assert not huge_pages.move(array.ctypes.data, array.nbytes)
        np.testing.assert_array_equal(array, 1.0)
    finally:
        huge_pages.can_move.cache_clear()


@needs_huge_pages
def test_weights_of_a_decoder_are_not_copied_once_more_and_move_while_they_are_read() -> None:
    backend.use("jax")
    import jax

    from kerasgen.decoder import jax_layout

    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator has memory of its own")
    kernel = np.arange(1_200_000, dtype=np.float32).reshape(1000, 1200)
    placed, gone = jax_layout.placed(kernel.T), jax_layout.placed(kernel)
    address = placed.unsafe_buffer_pointer()
    assert address % huge_pages.PAGE == 0
    gone.delete()
    thread = jax_layout.move_into_huge_pages([gone, placed])
    np.testing.assert_array_equal(placed, kernel.T)
    if thread is not None:
        thread.join()
        assert huge_bytes(address) >= 4 << 20
    np.testing.assert_array_equal(placed, kernel.T)
    assert placed.unsafe_buffer_pointer() == address


@pytest.mark.slow
def test_a_process_ends_while_its_weights_are_moved() -> None:
    code = (
        "import os; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import numpy as np\n"
        "from kerasgen.decoder import jax_layout\n"
        "arrays = [jax_layout.placed(np.ones((1024, 8192), np.float32)) for _ in range(8)]\n"
        "jax_layout.move_into_huge_pages(arrays)\n"
        "print(float(arrays[-1][0, 0]))\n"
    )
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (0, "1.0\n"), run.stderr[-2000:]
