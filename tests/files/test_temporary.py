"""Temporary folders: gone at the end, swept after a kill, and nobody else's touched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kerasgen.files import temporary

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's end can't be told from its number"),
]

HOLDING = """
import time
from kerasgen.files import temporary
with temporary.folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_killed_process_s_folder_is_removed_by_the_next_and_a_living_one_s_is_not(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        (held / "weights").write_bytes(b"1")
        with temporary.folder() as own:
            assert list(Path(own).iterdir()) == []
            assert held.is_dir()
            temporary.sweep()
            assert Path(own).is_dir()
        assert not Path(own).exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert held.is_dir()
    with temporary.folder():
        assert not held.parent.exists()
    assert list(place.iterdir()) == []


def test_what_does_not_say_whose_it_is_stays(place: Path) -> None:
    code = "from kerasgen.files.locking import Holder; print(Holder.this_process().to_bytes().decode())"
    gone = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    said = {"holder": gone, "namespace": temporary._namespace()}
    folders = {
        "swept": json.dumps(said),
        "namespace": json.dumps(said | {"namespace": "pid:[1]"}),
        "host": json.dumps(said | {"holder": json.dumps(json.loads(gone) | {"host": "another"})}),
        "list": "[]",
        "broken": "{",
        "number": json.dumps(said | {"holder": 1}),
    }
    for name, text in folders.items():
        (place / f"{temporary.PREFIX}{name}").mkdir()
        (place / f"{temporary.PREFIX}{name}" / temporary.HOLDER_FILE).write_text(text)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / temporary.HOLDER_FILE).write_text(folders["swept"])
    (place / f"{temporary.PREFIX}link").symlink_to(elsewhere)
    (place / f"{temporary.PREFIX}file").write_text("")
    (place / f"{temporary.PREFIX}empty").mkdir()
    before = {path.name for path in place.iterdir()}
    temporary.sweep()
    assert before - {path.name for path in place.iterdir()} == {f"{temporary.PREFIX}swept"}
    assert (elsewhere / temporary.HOLDER_FILE).exists()
