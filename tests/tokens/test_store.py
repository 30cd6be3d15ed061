"""Token ids on disk: the same as in memory, or an error; never others."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import SUPPORT
from tiny import GPT2_END, tiny_vocabulary
from toys import texts

from kerasgen import cache
from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.corpora.texts import Texts
from kerasgen.errors import TokenStoreError
from kerasgen.tokens import store as stores
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tokens.packing import block, pack

pytestmark = pytest.mark.one_backend

VOCABULARY, MERGES = tiny_vocabulary(300)
TOKENIZER = ByteLevelBPE(VOCABULARY, MERGES, end_token=GPT2_END)
PATHS = [str(SUPPORT), str(Path(__file__).parent)]  # of a child that takes what stands here
WRITTEN = [*texts(200), "春眠不覺曉", "\ud800 alone", "a b"]


def put(
    directory: Path, written: list[str] = WRITTEN, *, held_out: float = 0.2, tokenizer: ByteLevelBPE = TOKENIZER
) -> stores.StoredCorpus:
    return stores.store(Texts(written).documents, tokenizer, held_out=held_out, directory=directory)


def in_memory(written: list[str], side: str, *, held_out: float = 0.2) -> EncodedDocuments:
    documents = (Document(text, "") for text in written if splits.side(text, held_out=held_out) == side)
    return encode_documents(documents, TOKENIZER)


def assert_same(stored: EncodedDocuments, expected: EncodedDocuments) -> None:
    np.testing.assert_array_equal(stored.token_ids, expected.token_ids)
    np.testing.assert_array_equal(stored.offsets, expected.offsets)
    np.testing.assert_array_equal(stored.characters, expected.characters)
    assert stored.digest() == expected.digest()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(written=st.lists(st.text(min_size=1).filter(str.strip), max_size=20), held_out=st.sampled_from([0.0, 0.3, 0.9]))
def test_what_is_stored_is_what_encoding_in_memory_gives(tmp_path: Path, written: list[str], held_out: float) -> None:
    stored = put(tmp_path, written, held_out=held_out)
    assert_same(stored.train, in_memory(written, "train", held_out=held_out))
    assert_same(stored.held_out, in_memory(written, "held_out", held_out=held_out))
    assert stored.tally.kept == len(written)
    assert put(tmp_path, written, held_out=held_out).reused


def test_rows_are_built_from_the_file_as_from_memory(tmp_path: Path) -> None:
    stored, expected = put(tmp_path).train, in_memory(WRITTEN, "train")
    rows = pack(stored, sequence_length=16)
    ours, theirs = (block(encoded, rows, range(len(rows)), size=len(rows)) for encoded in (stored, expected))
    np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    assert isinstance(stored.token_ids, np.memmap)
    assert type(ours.token_ids) is np.ndarray


def test_a_second_run_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put(tmp_path)
    monkeypatch.setattr(ByteLevelBPE, "encode_batch", lambda *_: pytest.fail("encoded again"))
    again = put(tmp_path)
    assert (first.reused, again.reused) == (False, True)
    assert again.path == first.path
    assert_same(again.train, first.train)
    assert again.tally == first.tally


def test_another_text_tokenizer_or_division_is_another_store(tmp_path: Path) -> None:
    vocabulary, merges = tiny_vocabulary(290)
    other = ByteLevelBPE(vocabulary, merges, end_token=GPT2_END)
    paths = {
        put(tmp_path).path,
        put(tmp_path, [*WRITTEN[:-1], "a c"]).path,
        put(tmp_path, WRITTEN[::-1]).path,
        put(tmp_path, held_out=0.3).path,
        put(tmp_path, tokenizer=other).path,
        put(tmp_path, ["ab", "c"]).path,
        put(tmp_path, ["a", "bc"]).path,
    }
    assert len(paths) == 7


@pytest.mark.parametrize("name", [f"{side}.{what}" for side in stores.SIDES for what in stores.COLUMNS])
@pytest.mark.parametrize("how", ["flip a bit", "truncate", "remove", "lengthen"])
def test_damage_is_found_and_mended(tmp_path: Path, name: str, how: str) -> None:
    path = put(tmp_path).path / name
    data = bytearray(path.read_bytes())
    if how == "flip a bit":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif how == "truncate":
        path.write_bytes(data[:-4])
    elif how == "lengthen":
        path.write_bytes(data + bytes(4))
    else:
        path.unlink()
    again = put(tmp_path)
    assert not again.reused
    assert_same(again.train, in_memory(WRITTEN, "train"))
    assert_same(again.held_out, in_memory(WRITTEN, "held_out"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_of_the_manifest_yields_other_ids(tmp_path: Path, place: float, bit: int) -> None:
    path = put(tmp_path).path / stores.MANIFEST_FILE
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert_same(put(tmp_path).train, in_memory(WRITTEN, "train"))


WRITER = """
    import sys, time
    from pathlib import Path
    sys.path[:0] = {path!r}
    from test_store import put, stores, WRITTEN
    from kerasgen.corpora.texts import Texts

    def slow(tally):
        for n, document in enumerate(Texts(WRITTEN).documents(tally)):
            if n == 100 and calls:
                print("halfway", flush=True)
                time.sleep(60)
            yield document
        calls.append(1)

    calls = []
    stores.TEXTS_AT_ONCE = 10
    stores.store(slow, __import__("test_store").TOKENIZER, held_out=0.2, directory=Path({directory!r}))
"""


def test_a_writer_killed_halfway_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    code = textwrap.dedent(WRITER.format(path=PATHS, directory=str(tmp_path)))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        alive = {path.name for path in tmp_path.iterdir()}
        beside = put(tmp_path, ["another corpus"]).path.name  # a living writer's files are left alone
        assert alive < {path.name for path in tmp_path.iterdir()}
        writer.send_signal(signal.SIGKILL)
    assert any(name.endswith(".partial") for name in alive)
    again = put(tmp_path)
    assert not again.reused
    assert_same(again.train, in_memory(WRITTEN, "train"))
    assert {path.name for path in tmp_path.iterdir()} == {again.path.name, beside}


def test_two_processes_that_write_the_same_store_both_get_it(tmp_path: Path) -> None:
    code = f"""
        import sys
        sys.path[:0] = {PATHS!r}
        from pathlib import Path
        from test_store import put, in_memory, assert_same, WRITTEN
        sys.stdin.readline()
        assert_same(put(Path({str(tmp_path)!r})).train, in_memory(WRITTEN, "train"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(1)
    for writer in writers:
        writer.communicate("go\n", timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
        import resource, signal, sys
        sys.path[:0] = {PATHS!r}
        from pathlib import Path
        from test_store import put
        from kerasgen.errors import TokenStoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        try:
            put(Path({str(tmp_path)!r}))
        except TokenStoreError as error:
            assert "Make room" in str(error), error
        else:
            raise AssertionError("no error")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
    assert_same(put(tmp_path).train, in_memory(WRITTEN, "train"))


def test_a_corpus_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    readings: list[int] = []

    def fickle(tally: CorpusTally) -> Iterator[Document]:
        readings.append(1)
        yield tally.keep(Document(f"reading {len(readings)}", "0"))

    with pytest.raises(TokenStoreError, match="the same documents each time"):
        stores.store(fickle, TOKENIZER, held_out=0.0, directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_directory_is_an_argument_a_variable_or_the_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "variable"))
    assert stores.cache_directory(tmp_path / "argument") == tmp_path / "argument" / "tokens"
    assert stores.cache_directory() == tmp_path / "variable" / "tokens"
    monkeypatch.delenv(cache.VARIABLE)
    assert stores.cache_directory().parts[-2:] == ("kerasgen", "tokens")


_PEAK = """
    import sys
    sys.path[:0] = {paths!r}
    from pathlib import Path
    import numpy as np
    from test_store import TOKENIZER, stores
    from kerasgen.corpora.base import Document
    from kerasgen.tokens.bpe import ByteLevelBPE

    class Quick(ByteLevelBPE):  # a quarter of a token a byte, as English has, without the time that merging takes
        def encode_batch(self, texts):
            return [(np.frombuffer(text.encode(), "<u4") % 300).tolist() for text in texts]

    words = "the cat sat in the rain and he ran home then on a mat "
    tokenizer = Quick(TOKENIZER.vocabulary, TOKENIZER.merges) if {quick} else TOKENIZER

    def read(tally):
        for n in range({megabytes} * 250):
            yield tally.keep(Document((f"{{n:08d}} " + words * 80)[:4000], str(n)))

    stored = stores.store(read, tokenizer, held_out=0.1, directory=Path({directory!r}))
    # The kernel's own mark of this process: `ru_maxrss` begins with what the parent held.
    (peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(peak) // 1000, len(stored.train.token_ids))
"""


def _peak(directory: Path, megabytes: int, *, quick: bool) -> tuple[int, int]:
    """Peak memory in MB, and the ids of the training side, of storing so much text in a process of its own."""
    code = textwrap.dedent(_PEAK).format(paths=PATHS, megabytes=megabytes, directory=str(directory), quick=quick)
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=500)
    peak, ids = map(int, found.stdout.split())
    return peak, ids


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux's unit of peak memory")
@pytest.mark.nightly
def test_memory_stays_flat_however_much_text_there_is(tmp_path: Path) -> None:
    (small, _), (large, _) = (_peak(tmp_path / str(size), size, quick=False) for size in (10, 60))
    assert large - small < 100


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux's unit of peak memory")
def test_a_gigabyte_of_text_takes_less_than_a_gigabyte_of_memory(tmp_path: Path) -> None:
    peak, ids = _peak(tmp_path, 1000, quick=True)
    assert ids > 200_000_000
    assert peak < 1000
