"""Writers: one at a time, whole or absent, whatever ends the process; each kill here is one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import POSIX, in_child, killed_at

from kerasgen.errors import ExportArgumentError, LockedError
from kerasgen.exporters import staging as exports
from kerasgen.files import atomic, locking, staging

pytestmark = [pytest.mark.one_backend, *POSIX]


def export(path: Path, text: str, *, suffixes: tuple[str, ...] = (".json", ".md", ".tokenizer.json")) -> None:
    """Write as exporters do an artefact of several files, all of which say the same."""
    with exports.staged(path, overwrite=True, exporter="tflite", beside=exports.BESIDE) as stage:
        stage.write_text(text)
        if ".tokenizer.json" in suffixes:
            stage.with_name(stage.name + ".tokenizer.json").write_text(text)
        exports.write_report(stage, {"text": text}, exporter="tflite")


def exported(path: Path) -> str | None:
    """What the artefact says once a reader has come, all of whose files must agree; None where there is none."""
    staging.recover(path)
    there = [place for place in path.parent.iterdir() if place.name.startswith(path.name)]
    if not there:
        return None
    text = path.read_text()
    report = json.loads(path.with_name(path.name + ".json").read_text())
    assert report["text"] == text
    tokenizer = path.with_name(path.name + ".tokenizer.json")
    assert tokenizer.exists() == (tokenizer.name in report["files"])
    assert not tokenizer.exists() or tokenizer.read_text() == text
    assert text in path.with_name(path.name + ".md").read_text()
    return text


def put_directory(target: Path, text: str) -> None:
    with staging.staged(target) as stage:
        (stage / target.name).mkdir()
        for name in ("a", "b"):
            (stage / target.name / name).write_text(text)
        staging.place(stage, target)


def directory_says(target: Path) -> str | None:
    staging.recover(target)
    if not target.exists():
        return None
    one, other = ((target / name).read_text() for name in ("a", "b"))
    assert one == other
    return one


@pytest.mark.parametrize("old", [None, "old", "old without tokenizer"])
def test_an_export_killed_anywhere_leaves_all_of_the_old_or_all_of_the_new_files(tmp_path: Path, old: str | None):
    seen, n = set(), 0
    while True:
        n += 1
        folder = tmp_path / str(n)
        folder.mkdir()
        path = folder / "poet.tflite"
        if old is not None:
            export(path, "old", suffixes=() if "without" in old else (".tokenizer.json",))
        killed = killed_at(n, folder, lambda path=path: export(path, "new"))
        said = exported(path)
        assert said in (None if old is None else "old", "new")
        seen.add(said)
        export(path, "newest")  # the next one finds nothing in its way, and sweeps
        assert exported(path) == "newest"
        assert sorted(entry.name for entry in folder.iterdir()) == sorted(
            f"poet.tflite{suffix}" for suffix in ("", ".json", ".md", ".tokenizer.json")
        )
        if not killed:
            break
    assert n > 20
    assert seen == {None if old is None else "old", "new"}


@pytest.mark.slow
def test_a_journal_that_is_finished_by_a_killed_reader_is_finished_by_the_next(tmp_path: Path) -> None:
    """Kill the writer at each place, and then the reader at each of its own."""
    kills = 0
    for n in range(1, 60):
        for m in range(1, 60):
            folder = tmp_path / f"{n} {m}"
            folder.mkdir()
            path = folder / "poet.tflite"
            export(path, "old")
            if not killed_at(n, folder, lambda path=path: export(path, "new")):
                assert kills > 20
                return
            if not staging._journal(path).exists():
                break
            if not killed_at(m, folder, lambda path=path: staging.recover(path)):
                assert exported(path) == "new"
                break
            kills += 1
            assert exported(path) == "new"


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_directory_killed_anywhere_is_the_old_or_the_new_one(
    tmp_path: Path, old: str | None, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(staging, "_renameat2", lambda: None)
    n, seen = 0, set()
    while True:
        n += 1
        target = tmp_path / str(n) / "poet"
        target.parent.mkdir()
        if old:
            put_directory(target, old)
        killed = killed_at(n, target.parent, lambda target=target: put_directory(target, "new"))
        if exchanges and old:
            assert target.is_dir()  # at each moment, before any reader comes
        said = directory_says(target)
        assert said in (old, "new")
        seen.add(said)
        put_directory(target, "newest")
        assert [entry.name for entry in target.parent.iterdir()] == ["poet"]
        if not killed:
            break
    assert seen == {old, "new"}


@pytest.mark.parametrize("at", range(1, 12))
def test_an_error_at_any_rename_of_a_directory_leaves_the_old_one(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_renameat2", lambda: None)
    target, count = tmp_path / "poet", 0
    put_directory(target, "old")
    renames = {"replace": Path.replace, "rename": Path.rename}

    def failing(name: str) -> Callable[[Path, Path], Path]:
        def act(source: Path, place: Path) -> Path:
            nonlocal count
            count += 1
            if count == at:
                raise OSError(errno.EIO, "no luck")
            return renames[name](source, place)

        return act

    for name in renames:
        monkeypatch.setattr(Path, name, failing(name))
    try:
        put_directory(target, "new")
        written = "new"
    except OSError:
        written = "old"
    monkeypatch.undo()
    assert directory_says(target) == written
    assert [entry.name for entry in tmp_path.iterdir()] == ["poet"]


def test_leftovers_of_other_targets_go_too_unless_their_writer_lives(tmp_path: Path) -> None:
    def killed(target: Path) -> None:
        with staging.staged(target) as stage:
            (stage / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(in_child(lambda: killed(tmp_path / "dead")))
    (tmp_path / ".own.0123abcd.partial").write_text("a person's, for no lock says otherwise")
    with staging.staged(tmp_path / "alive") as alive:
        put_directory(tmp_path / "poet", "new")
        left = {entry.name for entry in tmp_path.iterdir()}
        assert left == {"poet", alive.name, ".alive.lock", ".own.0123abcd.partial"}


def test_a_strangers_journal_moves_nothing_of_a_persons(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for moved, removed in (("thesis.txt", []), ("poet.tflite", ["thesis.txt"]), ("poet.tflite", ["../thesis.txt"])):
        journal = tmp_path / ".poet.tflite.journal"
        journal.mkdir(exist_ok=True)
        (journal / moved).write_text("theirs")
        (journal / ".kerasgen-removed.json").write_text(json.dumps(removed))
        with pytest.raises(OSError, match="none of ours"):
            staging.recover(tmp_path / "poet.tflite")
        staging._remove(journal)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


HOLDER = """
    import sys, time
    from pathlib import Path
    from kerasgen.files import locking
    with locking.locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture(params=["locks of the system", "no such locks"])
def locks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The code that a program begins with so as to be on such a file system; this process is too."""
    if request.param == "locks of the system":
        return ""
    import fcntl

    def refused(file: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "not here")

    monkeypatch.setattr(fcntl, "flock", refused)
    return """
    import errno, fcntl
    def refused(file, operation):
        raise OSError(errno.ENOTSUP, "not here")
    fcntl.flock = refused
"""


def held_by_another(target: Path, locks: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(locks + HOLDER)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path, locks: str) -> None:
    target = tmp_path / "poems.jsonl"
    with held_by_another(target, locks) as process:
        with pytest.raises(LockedError, match=rf"poems\.jsonl is being written by process {process.pid}") as caught:
            locking.locked(target).__enter__()
        assert caught.value.pid == process.pid
        assert caught.value.host
        assert caught.value.since
        process.communicate("end\n")
    with locking.locked(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, locks: str) -> None:
    target = tmp_path / "poems.jsonl"
    with held_by_another(target, locks) as process:
        process.kill()
        process.wait()
        with locking.locked(target):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_that_another_has_now_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locking.Holder.this_process().started:
        pytest.skip("the system does not tell when a process began")
    import fcntl

    def refused(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "not here")

    monkeypatch.setattr(fcntl, "flock", refused)
    target = tmp_path / "poems.jsonl"
    this = locking.Holder.this_process()
    place = locking.place_of(target).with_suffix(".holder")
    boot, _, start = this.started.partition(":")
    for started in (f"{boot}:{int(start) - 1}", f"another boot:{start}"):
        place.write_bytes(locking.Holder(os.getpid(), this.host, this.since, started).to_bytes() + b" x")
        with locking.locked(target):
            pass
        assert not place.exists()
    for holder in (this, locking.Holder(1, "another-host", this.since, "x:1")):  # it lives; nobody can tell
        place.write_bytes(holder.to_bytes() + b" x")
        with pytest.raises(LockedError, match=holder.host):
            locking.locked(target).__enter__()
        place.unlink()


def test_of_many_threads_and_processes_one_writes_at_a_time(tmp_path: Path, locks: str) -> None:
    target, counter = tmp_path / "n", tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(5):
            with locking.locked(target, wait=True):
                number = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(number + 1))

    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            count()
            os._exit(0)
        children.append(child)
    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert counter.read_text() == "25"
    assert [entry.name for entry in tmp_path.iterdir()] == ["counter"]


def test_another_thread_is_told_that_it_is_this_process(tmp_path: Path) -> None:
    with locking.locked(tmp_path / "a"), pytest.raises(LockedError, match=rf"process {os.getpid()} \(this one\)"):
        locking.locked(tmp_path / "a").__enter__()


@pytest.mark.filterwarnings("error")
def test_on_a_full_disk_a_lock_ends_with_its_block(tmp_path: Path, locks: str) -> None:
    """The system refuses every byte, as on a full disk, so the lock's file can't name its holder."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        for _ in range(2):
            if locks:  # there the file's content is the lock
                with pytest.raises(OSError, match="File too large"):
                    locking.locked(tmp_path / "a", wait=True).__enter__()
                continue
            with locking.locked(tmp_path / "a", wait=True), pytest.raises(LockedError, match="by another process"):
                locking.locked(tmp_path / "a").__enter__()
            with pytest.raises(OSError, match="File too large"):
                staging.replace(tmp_path / "a", "text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    staging.replace(tmp_path / "a", "text")


def test_a_forked_child_neither_keeps_nor_ends_its_parents_lock(tmp_path: Path) -> None:
    """A worker that was forked in the middle of a run outlives it, or ends before it."""
    target = tmp_path / "a"
    read, write = os.pipe()
    lock = locking.locked(target)
    lock.__enter__()
    ends = os.fork()
    if ends == 0:
        lock.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(ends, 0)
    with pytest.raises(LockedError):
        locking.locked(target).__enter__()
    lives = os.fork()
    if lives == 0:
        os.read(read, 1)
        os._exit(0)
    lock.__exit__(None, None, None)
    with locking.locked(target):
        pass
    os.write(write, b"x")
    os.waitpid(lives, 0)


def test_two_exports_to_one_path_are_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "poet.tflite"
    with (
        exports.staged(path, overwrite=False, exporter="tflite", beside=exports.BESIDE),
        pytest.raises(LockedError, match="poet"),
    ):
        export(path, "second")
    assert list(tmp_path.iterdir()) == []


def test_what_came_into_the_way_while_a_writer_was_waited_for_is_said(tmp_path: Path) -> None:
    path = tmp_path / "poet.tflite"
    with staging.staged(path):
        pass
    export(path, "first")
    with (
        pytest.raises(ExportArgumentError, match="there already"),
        exports.staged(path, overwrite=False, exporter="tflite", beside=exports.BESIDE),
    ):
        pass


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(file: int) -> None:
        acts.append("sync " + Path(f"/proc/self/fd/{file}").readlink().name.rpartition(".")[2])
        fsync(file)

    def replaced(source: Path, target: Path) -> Path:
        acts.append("name")
        return replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files have no names here")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    atomic.write(tmp_path / "a.json", "{}")
    assert acts == ["sync partial", "name", f"sync {tmp_path.name}"]
