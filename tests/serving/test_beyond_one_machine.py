"""What the how-to shows beyond one machine runs as it stands there: its blocks are taken from the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from ports import free_port

import kerasgen as kg

pytestmark = [pytest.mark.one_backend, pytest.mark.nightly]

PAGE = ROOT / "docs" / "how-to" / "serve.md"
# What such a process may do without: importing one of them ends it.
WITHOUT = "import sys\nsys.modules |= dict.fromkeys(('kerasgen', 'keras_hub', 'keras_nlp', 'tensorflow_text'))\n"


def block(first: str) -> str:
    """The one block of Python on the page that begins with this line."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = (each for each in blocks if each.startswith(first))
    return found


def printed(code: str, folder: Path) -> str:
    """What a process prints that runs the code in the folder, without kerasgen and KerasHub."""
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def pipe() -> kg.Pipeline:
    return kg.Pipeline(model="starter", sampler="greedy")


@pytest.mark.tensorflow
def test_tensorflow_alone_writes_kerasgen_s_texts(pipe: kg.Pipeline, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's: kerasgen[tensorflow]")
    pipe.export(tmp_path / "poet_saved_model", samplers=("greedy",))
    code = block("import tensorflow as tf")
    (line,) = printed(code, tmp_path).splitlines()
    prompts = ["春", "夜雨"]
    assert line == repr(pipe.generate(prompts, max_new_tokens=24, return_prompt=False))


def test_llama_cpp_s_server_writes_kerasgen_s_text(pipe: kg.Pipeline, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp is an extra: kerasgen[llamacpp]")
    pytest.importorskip("openai", reason="the client that the page shows")
    pipe.export(tmp_path / "poet.gguf")
    code = block("import xllamacpp")
    assert code.count("8080") == 1
    line = printed(code.replace("8080", str(free_port())), tmp_path).splitlines()[-1]
    assert line == repr(pipe.generate("春", max_new_tokens=24, return_prompt=False))
