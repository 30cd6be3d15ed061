"""The exporter and its runtime pass kerasgen's tests, and need neither Keras nor JAX to generate."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import kerasgen as kg
import pytest
from kerasgen.errors import ExportArgumentError, ModelFormatError
from kerasgen.models.saving import save_preset
from kerasgen.testing import ExporterContract, RuntimeContract, small_model

from kerasgen_field.numpy_format import NumpyExporter


class TestExporter(ExporterContract):
    file_name = "model.numpy.safetensors"
    bad_arguments = ({"dtype": "int8"},)

    @pytest.fixture(params=["float32", "float16"])
    def exporter(self, request: pytest.FixtureRequest) -> NumpyExporter:
        dtype: Literal["float32", "float16"] = request.param
        return NumpyExporter(dtype=dtype)


class TestRuntime(RuntimeContract):
    file_name = "model.numpy.safetensors"
    samplers = ("top_k:k=5,temperature=0.8",)
    beams = ("beam:num_beams=3",)

    @pytest.fixture
    def exporter(self) -> NumpyExporter:
        return NumpyExporter()


GENERATE = """
import json, sys
import kerasgen as kg
artefact = kg.load_artefact(sys.argv[1])
texts = [artefact.generate("the cat", max_new_tokens=9, sampler=sampler, seed=3) for sampler in ("greedy", "eta")]
texts.append("".join(artefact.stream("the cat", max_new_tokens=9, sampler="eta", seed=3)))
print(json.dumps([texts, sorted({"jax", "keras", "keras_hub", "tensorflow", "torch"} & set(sys.modules))]))
"""


def test_it_is_written_by_its_ending_and_run_by_numpy_alone(tmp_path: Path) -> None:
    pipe = kg.Pipeline(model=save_preset(small_model(), tmp_path / "preset"))
    artefact = pipe.export(tmp_path / "poet.numpy.safetensors")
    assert artefact.exporter == "numpy"
    run = [sys.executable, "-c", GENERATE, str(artefact.path)]
    texts, heavy = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert heavy == []
    wanted = [pipe.generate("the cat", max_new_tokens=9, sampler=sampler, seed=3) for sampler in ("greedy", "eta")]
    assert texts == [*wanted, wanted[1]]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = NumpyExporter().export(small_model(), tmp_path / "poet.numpy.safetensors").path
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ModelFormatError, match="bytes where"):
        kg.load_artefact(path)
    path.write_bytes(b"\xff" * 8 + content[8:])
    with pytest.raises(ModelFormatError, match="is damaged"):
        kg.load_artefact(path)


def test_a_name_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportArgumentError, match="exporter 'gguf'"):
        NumpyExporter().export(small_model(), tmp_path / "poet.gguf")
