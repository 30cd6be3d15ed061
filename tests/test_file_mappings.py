"""A copy in huge pages takes a mapped file's place while it is read, and the file stays as it is."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import numpy as np
import pytest

from kerasgen import file_mappings, huge_pages

pytestmark = pytest.mark.one_backend
needs_moving = pytest.mark.skipif(not huge_pages.can_move(), reason="this system moves no memory into huge pages")
needs_maps = pytest.mark.skipif(not file_mappings.MAPS.exists(), reason="this system doesn't list what is mapped")

SIZE = 5 * huge_pages.PAGE + 12345


def written(path: Path) -> bytes:
    content = np.random.default_rng(3).integers(0, 256, SIZE, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return content


def mapped(path: Path) -> tuple[mmap.mmap, file_mappings.Mapping]:
    """Map a file for reading, and return what names its mapping too."""
    before = file_mappings.of_file(path)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (mapping,) = file_mappings.of_file(path) - before
    return memory, mapping


def memory_of(address: int) -> dict[str, int]:
    """Return what the system says of the mapping at an address, in bytes; nothing where there is none."""
    figures: dict[str, int] = {}
    is_it = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            first, last = (int(edge, 16) for edge in name.split("-"))
            is_it = first <= address < last
        elif is_it and rest.endswith("kB"):
            figures[name[:-1]] = int(rest.split()[0]) * 1024
    return figures


@needs_maps
def test_each_mapping_of_a_file_is_found_and_none_of_a_removed_one(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines and 春"
    content = written(path)
    (tmp_path / "link").symlink_to(path)
    first, one = mapped(path)
    second, two = mapped(tmp_path / "link")
    assert one.address != two.address
    assert file_mappings.of_file(path) == {one, two}
    assert (one.offset, one.size) == (0, -(-SIZE // mmap.PAGESIZE) * mmap.PAGESIZE)
    first.close()
    assert file_mappings.of_file(path) == {two}
    path.unlink()
    assert file_mappings.of_file(path) == set()
    path.write_bytes(content)  # another file at the same place
    assert file_mappings.of_file(path) == set()
    second.close()


@needs_moving
def test_a_copy_takes_the_place_of_a_mapping_that_is_read_all_the_while(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = written(path)
    memory, mapping = mapped(path)
    ended = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        while not ended.is_set():
            for at in range(0, SIZE - 4096, 40961):
                if memory[at : at + 4096] != content[at : at + 4096]:
                    wrong.append(at)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        copy = file_mappings.Copy(mapping, path)
        assert copy.lay_over(path)
        copy.close()  # it lies in the mapping's place, and stays there
    finally:
        ended.set()
        reader.join()
    assert not wrong
    assert memory[:] == content
    assert path.read_bytes() == content
    assert file_mappings.of_file(path) == set()
    figures = memory_of(mapping.address)
    # Two huge pages that lie one after another may be listed as mappings of their own.
    assert figures["AnonHugePages"] >= 2 * huge_pages.PAGE
    assert figures["Rss"] == figures["Anonymous"]  # nothing of the file is held any more
    with pytest.raises(TypeError):
        memory[0] = 0
    memory.close()
    assert not memory_of(mapping.address)


@needs_moving
def test_a_part_of_a_file_is_copied_from_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = written(path)
    before = file_mappings.of_file(path)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 3 * huge_pages.PAGE, access=mmap.ACCESS_READ, offset=5 * mmap.PAGESIZE)
    (mapping,) = file_mappings.of_file(path) - before
    copy = file_mappings.Copy(mapping, path)
    assert copy.lay_over(path)
    assert memory[:] == content[5 * mmap.PAGESIZE :][: 3 * huge_pages.PAGE]


@needs_moving
def test_a_copy_that_is_not_laid_over_gives_its_memory_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = written(path)
    memory, mapping = mapped(path)
    copy = file_mappings.Copy(mapping, path)
    path.replace(tmp_path / "elsewhere")
    path.write_bytes(bytes(SIZE))  # another file lies there now
    assert not copy.lay_over(path)
    address = copy._address
    assert memory_of(address)
    copy.close()
    copy.close()
    assert not memory_of(address)
    assert memory[:] == content
    memory.close()
    with pytest.raises(OSError, match="No such file"):
        file_mappings.Copy(mapping, tmp_path / "nothing")


@needs_maps
@pytest.mark.parametrize("lacking", ["mremap", "huge pages"])
def test_nothing_is_copied_where_the_system_lacks_something(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    written(path)
    memory, mapping = mapped(path)
    if lacking == "mremap":
        monkeypatch.setattr(file_mappings, "_calls", lambda: None)
    else:
        monkeypatch.setattr(huge_pages, "can_move", lambda: False)
    with pytest.raises(OSError, match="huge pages"):
        file_mappings.Copy(mapping, path)
    assert file_mappings.of_file(path) == {mapping}
    memory.close()


def test_a_system_that_lists_no_mappings_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_mappings, "MAPS", tmp_path / "nothing")
    assert file_mappings.of_file(tmp_path / "weights") == set()
