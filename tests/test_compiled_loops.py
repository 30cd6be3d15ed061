"""What XLA compiles for TensorFlow is read by later processes, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerasgen import cache, compiled_loops

pytestmark = pytest.mark.tensorflow

_PROCESS = """
import json, os, sys
from kerasgen import backend, compiled_loops
backend.use("tensorflow")
import tensorflow as tf
function = tf.function(lambda x: tf.reduce_sum(tf.exp(x) * 2.0), jit_compile=True, autograph=False)
found = float(function(tf.ones((64, 64))))
own = compiled_loops._own
files = {} if own is None else {path.name: path.stat().st_mtime_ns for path in own.iterdir()}
compiled_loops.keep()
print(json.dumps({"found": found, "files": files, "flags": os.environ.get("TF_XLA_FLAGS"), "own": str(own)}))
if len(sys.argv) > 1:
    os._exit(0)
"""


def _run(cache: Path, *arguments: str, **environment: str) -> dict[str, object]:
    surroundings = {name: value for name, value in os.environ.items() if name != compiled_loops.VARIABLE}
    surroundings |= {"KERASGEN_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": "-1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, *arguments], env=surroundings, capture_output=True, text=True, check=True
    )
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def _kept(cache: Path) -> list[Path]:
    return sorted((cache / compiled_loops.FOLDER).glob("[!.]*/*.pb"))


@pytest.mark.slow
@pytest.mark.skipif(compiled_loops._processor() is None, reason="the system doesn't tell the processor's features")
def test_a_second_process_reads_what_the_first_compiled_and_mends_what_is_damaged(tmp_path: Path) -> None:
    first = _run(tmp_path)
    assert first["flags"] is None  # no process that it starts reads its folder
    (file,) = _kept(tmp_path)
    assert not Path(str(first["own"])).exists()
    whole = file.read_bytes()
    digest, _, program = whole.partition(b"\n")
    assert hashlib.sha256(program).hexdigest().encode() == digest
    assert not any(compiled_loops._is_whole(program[:end]) for end in range(0, len(program), 97))

    second = _run(tmp_path)
    assert second["found"] == first["found"]
    assert second["files"].keys() == {file.name}  # type: ignore[attr-defined]
    assert file.read_bytes() == whole

    for damaged in (whole[:-100], whole[:2000] + b"?" + whole[2001:], b""):
        file.write_bytes(damaged)
        assert _run(tmp_path, "killed")["found"] == first["found"]
        mended, _, again = file.read_bytes().partition(b"\n")
        assert hashlib.sha256(again).hexdigest().encode() == mended

    _run(tmp_path, XLA_FLAGS="--xla_cpu_enable_fast_math=false")
    assert len(_kept(tmp_path)) == 2


@pytest.mark.slow
def test_a_folder_that_the_environment_names_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own"
    flags = f"{compiled_loops._DIRECTORY}{own}"
    told = _run(tmp_path / "cache", TF_XLA_FLAGS=flags)
    assert told["flags"] == flags
    assert list(own.glob("*.pb"))
    assert _kept(tmp_path / "cache") == []


def test_a_message_is_whole_only_with_key_graph_and_program() -> None:
    fields = [b"\x0a\x01a", b"\x12\x02bc", b"\x1a\x83\x01" + b"d" * 131]
    assert compiled_loops._is_whole(b"".join(fields))
    assert not any(compiled_loops._is_whole(b"".join(fields)[:end]) for end in range(139))
    assert not compiled_loops._is_whole(b"".join(fields[:2]))
    assert not compiled_loops._is_whole(b"\x08\x01" + b"".join(fields))
    assert not compiled_loops._is_whole(b"\xff" * 40)


def test_the_oldest_programs_are_removed(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        (tmp_path / f"{name}.pb").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{name}.pb", (1000 - age, 1000 - age))
    cache.remove_oldest(tmp_path.glob("*.pb"), 250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "b"]
