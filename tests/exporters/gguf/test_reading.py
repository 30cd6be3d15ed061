"""Lists of a GGUF file are read at once, to the values that the package `gguf` reads one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from kerasgen.models import gguf_tokenizer_fields

pytestmark = pytest.mark.one_backend

TEXTS = ["a", "", "ü 雨", "\n\n", "long " * 100]


def contents(reader: Any) -> dict[str, Any]:
    return {str(name): field.contents() for name, field in reader.fields.items()}


@pytest.fixture(params=[gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG], ids=["little", "big"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with a list of each kind."""
    writer = gguf.GGUFWriter(tmp_path / "lists.gguf", "gpt2", endianess=request.param)
    writer.add_token_list(TEXTS)
    writer.add_token_types([1, 3, 1, 6, 1])
    writer.add_token_scores([0.5, -1.0, 2.0, 0.0, 3.5])
    writer.add_array("flags", [True, False])
    writer.add_array("one", ["only"])
    writer.add_array("numbers", [7])
    writer.add_tensor("weights", np.arange(64, dtype=np.float32).reshape(2, 32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return tmp_path / "lists.gguf"


def test_lists_are_read_as_the_package_reads_them(path: Path) -> None:
    read, known = gguf_tokenizer_fields.reader(path), gguf.GGUFReader(path)
    assert contents(read) == contents(known)
    assert contents(read)["tokenizer.ggml.tokens"] == TEXTS
    np.testing.assert_array_equal(read.tensors[0].data, known.tensors[0].data)


def test_a_file_that_ends_within_a_list_is_an_error(path: Path) -> None:
    """Wherever it is cut: no list comes back shorter than it was."""
    content = path.read_bytes()
    for end in range(24, len(content) - 300, 7):
        path.write_bytes(content[:end])
        with pytest.raises((ValueError, IndexError)):
            gguf_tokenizer_fields.reader(path)
