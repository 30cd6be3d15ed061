"""A path's ending says which exporter writes it, or the call says that none does."""

from __future__ import annotations

from pathlib import Path

import pytest

import kerasgen as kg
from kerasgen.exporters.choosing import by_ending, choose


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
