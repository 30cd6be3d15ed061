"""A path's ending says which exporter writes it, or the call says that none does."""

from __future__ import annotations

from pathlib import Path

import pytest

import kerasgen as kg
from kerasgen.exporters.registry import by_ending, choose
from kerasgen.exporters.staging import check_target


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("poet.tflite", "tflite"),
        ("POET.TFLITE", "tflite"),
        ("poet.LiteRTLM", "litertlm"),
        ("poet.gguf", "gguf"),
        ("poet_saved_model", "saved_model"),
        ("saved_model", "saved_model"),
        ("a.folder/poet", "preset"),
    ],
)
def test_an_ending_that_is_known_names_its_exporter(name, exporter):
    assert by_ending(Path(name)) == exporter


@pytest.mark.parametrize("name", ["poet.onnx", "poet.tfilte", "poet.savedmodel", "poet.keras"])
def test_an_unknown_ending_is_told_before_a_model_is_loaded(name, tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match=r"\.tflite, \.litertlm, \.gguf"):
        kg.Pipeline(model="starter").export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_settings_in_the_text_and_by_keyword_are_taken_together():
    chosen = choose("tflite:quantize=int8", Path("poet.tflite"), {"beams": 2})
    assert chosen == kg.TFLiteExporter(quantize="int8", beams=2)


def test_a_setting_that_is_given_twice_is_told():
    with pytest.raises(kg.errors.ExportArgumentError, match=r"once.*quantize"):
        choose("tflite:quantize=int8", Path("poet.tflite"), {"quantize": "int4"})


ENDINGS = {"poet.tflite": "tflite", "poet.litertlm": "litertlm", "poet.GGUF": "gguf", "poet_saved_model": "saved_model"}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("exporter", ["tflite", "litertlm", "gguf", "saved_model", "preset", "transformers"])
def test_no_exporter_writes_a_file_that_is_named_like_another_s(name, exporter, tmp_path):
    if ENDINGS[name] == exporter:
        assert kg.exporters.REGISTRY.name_of(choose(exporter, Path(name), {})) == exporter
        return
    for given in (exporter, kg.exporters.create(exporter)):
        with pytest.raises(kg.errors.ExportArgumentError, match=f"exporter '{ENDINGS[name]}', and '{exporter}' is"):
            choose(given, tmp_path / name, {})
    with pytest.raises(kg.errors.ExportArgumentError, match="Choose another name"):
        check_target(tmp_path / name, overwrite=False, exporter=exporter)  # the exporter's own `export` asks here


@pytest.mark.parametrize("name", ["poet.onnx", "poet.safetensors", "poet.Keras"])
def test_none_writes_a_file_that_is_named_like_another_program_s(name, tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match="ends like a file of another format"):
        choose("gguf", tmp_path / name, {})
    with pytest.raises(kg.errors.ExportArgumentError, match="ends like a file of another format"):
        check_target(tmp_path / name, overwrite=False, exporter="saved_model")


def test_a_plugin_s_exporter_may_write_any_ending(tmp_path):
    check_target(tmp_path / "poet.tflite", overwrite=False, exporter="mine")
