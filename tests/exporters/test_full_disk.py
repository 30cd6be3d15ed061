"""A disk without room is said, whatever the format, and neither the artefact nor a part of it is left there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT
from tiny import tiny_gpt2

import kerasgen as kg

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(sys.platform != "linux", reason="it limits the size of files as POSIX does"),
]

PROGRAM = """
import json, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny import tiny_gpt2
import kerasgen as kg

model = tiny_gpt2(num_layers=1, intermediate_dim=128)
folder, exporter, limit = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
(folder / "before.txt").write_text("there before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    ending = ".litertlm" if exporter == "litertlm" else ""
    kg.exporters.REGISTRY.build(exporter, {}).export(model, folder / f"artefact{ending}")
except kg.errors.KerasgenError as error:
    said = [type(error).__name__, str(error)]
else:
    said = ["nothing", ""]
print("\\n" + json.dumps([said, sorted(path.name for path in folder.iterdir())]))
"""
SMALL, LARGE = 1 << 10, 24 << 10  # bytes that a file may have: the tokenizer does not fit, or only the weights don't
CASES = [
    ("preset", SMALL, ()),
    ("preset", LARGE, ()),
    ("transformers", SMALL, ()),
    ("transformers", LARGE, ()),
    ("gguf", LARGE, ("gguf",)),
    ("tflite", LARGE, ("ai_edge_litert", "tensorflow")),
    ("litertlm", LARGE, ("litert_lm", "litert_lm_builder", "tensorflow")),
    ("saved_model", LARGE, ("tensorflow",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("exporter", "limit", "needs"), CASES)
def test_a_full_disk_is_said_and_leaves_what_was_there(
    exporter: str, limit: int, needs: tuple[str, ...], tmp_path: Path
) -> None:
    for package in needs:
        pytest.importorskip(package)
    command = [sys.executable, "-c", PROGRAM, str(SUPPORT), str(tmp_path), exporter, str(limit)]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # it would be full too, which it survives
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (name, message), left = json.loads(done.stdout.splitlines()[-1])
    assert name in ("ExportError", "ModelError", "TokenizerError"), message
    assert left == ["before.txt"]


def test_a_preset_asks_for_room_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 would end the process when the disk becomes full."""
    model = tiny_gpt2(num_layers=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(kg.errors.KerasgenError, match="has room for 1,000"):
        kg.PresetExporter().export(model, tmp_path / "preset")
    assert list(tmp_path.iterdir()) == []
