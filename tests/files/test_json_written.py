"""JSON that is written holds numbers alone: `NaN` and `Infinity` are no JSON, and another reader stops at them."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

import kerasgen
from kerasgen import tuners
from kerasgen.errors import ArgumentError, ModelFormatError
from kerasgen.runtime import metadata
from kerasgen.tuners.lora import LoraTuner

pytestmark = pytest.mark.one_backend

PACKAGE = Path(kerasgen.__file__).parent

# What a process is asked and answers lives for a moment between two of our own, and an answer may be that it found NaN.
BETWEEN_PROCESSES = ("exporters/parity/worker.py", "runtime/job.py")
# What a model reads or a digest is made of is a text like any other: transformers writes NaN there too.
READ_AS_TEXT = ("chat/environment.py", "corpora/base.py", "corpora/conversations.py")


def lenient_writers() -> list[str]:
    """Calls of `json.dump` and `json.dumps` that would write NaN."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if "testing" in path.parts or path.relative_to(PACKAGE).as_posix() in BETWEEN_PROCESSES + READ_AS_TEXT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("json.dump", "json.dumps"):
                continue
            if not any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in node.keywords):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_every_writer_refuses_what_is_no_json() -> None:
    assert lenient_writers() == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_setting_that_is_no_number_is_no_argument_of_a_manifest(number: float) -> None:
    tuner = LoraTuner()
    object.__setattr__(tuner, "alpha", number)  # which its own check refuses
    with pytest.raises(ArgumentError, match=r"alpha=.*can't be saved"):
        tuners.REGISTRY.to_manifest(tuner)


def test_an_artefact_whose_json_holds_nan_is_damaged(tmp_path: Path) -> None:
    artefact = tmp_path / "poet.tflite"
    artefact.write_bytes(b"bytes")
    metadata.report_path(artefact).write_text(f'{{"exporter": "tflite", "format": {metadata.FORMAT}, "bytes": NaN}}')
    with pytest.raises(ModelFormatError, match="NaN is no number"):
        metadata.read(artefact)
