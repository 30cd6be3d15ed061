"""The licence and the notices of what was loaded stay with the model, and go into what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models import licences
from kerasgen.models.base import BASE_MODEL
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

CARD = """---
license: other
license_name: 'llama3.2'
license_link: LICENSE
language:
- en
- de
---
# A model
license: no
"""
ABOUT = {"license": "other", "license.name": "llama3.2", "license.link": "LICENSE", "languages": ["en", "de"]}
NOTICES = {"LICENSE": "Use it well.\n", "NOTICE": "Built with a model.\n"}


def written(directory: Path) -> Path:
    path = save_preset(tiny_gpt2(300, num_layers=1, hidden_dim=16, max_sequence_length=32), directory)
    (path / "README.md").write_text(CARD, encoding="utf-8")
    for name, text in NOTICES.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def test_a_card_and_its_notices_are_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    (tmp_path / "NOTICE").write_text(NOTICES["NOTICE"], encoding="utf-8")

    def find(name: str) -> Path | None:
        return tmp_path / name if (tmp_path / name).is_file() else None

    assert licences.read(find) == {**ABOUT, "notices": {"NOTICE": NOTICES["NOTICE"]}}
    (tmp_path / "README.md").write_text("license: mit\n", encoding="utf-8")  # no settings before a text
    assert "license" not in licences.read(find)
    (tmp_path / "NOTICE").write_bytes(b"\xff" * 9)
    assert licences.read(find) == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("license: apache-2.0  # see below\n", {"license": "apache-2.0"}),
        ("license: [mit, cc-by-4.0]\nlanguage: [en, 'no']\n", {"license": "mit, cc-by-4.0", "languages": ["en", "no"]}),
        ("language: no\n", {"languages": ["no"]}),
        ("license_name: >-\n  a licence\n  of ours\n", {"license.name": "a licence of ours"}),
        ("model: {license: mit}\n", {}),
        ("- mit\n", {}),
    ],
)
def test_settings_of_a_card_are_yaml(settings: str, said: dict[str, Any], tmp_path: Path) -> None:
    """Whose every scalar is text: `no` is Norwegian here."""
    (tmp_path / "README.md").write_text(f"---\n{settings}---\nA model.\n", encoding="utf-8")
    assert licences.read(lambda name: tmp_path / name) == said


def test_a_card_that_can_t_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\nA model.\n", encoding="utf-8")
    with pytest.warns(kg.errors.KerasgenWarning, match="model card .*README.md.* can't be read"):
        assert licences.read(lambda name: tmp_path / name) == {}


def test_what_was_loaded_is_saved_with_the_model_and_read_again(tmp_path: Path) -> None:
    model = Hub(str(written(tmp_path / "first"))).load()
    assert model.metadata[BASE_MODEL] == {**ABOUT, "notices": NOTICES}
    path = save_preset(model, tmp_path / "second")
    assert {name: (path / name).read_text(encoding="utf-8") for name in NOTICES} == NOTICES
    assert licences.read(lambda name: path / name) == {**ABOUT, "notices": NOTICES}
    assert Hub(str(path)).load().metadata[BASE_MODEL] == model.metadata[BASE_MODEL]


def test_a_pipeline_keeps_it(tmp_path: Path) -> None:
    pipe = kg.Pipeline(corpus=["a b c"] * 20, model=written(tmp_path / "first"), sampler="greedy")
    pipe.save(tmp_path / "pipe")
    again = kg.Pipeline.load(tmp_path / "pipe")
    assert again.model.metadata[BASE_MODEL]["notices"] == NOTICES


@pytest.mark.slow
@pytest.mark.nightly
def test_a_transformers_directory_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasgen.exporters.transformers.exporter._prove_in_transformers", lambda *_: None)
    model = Hub(str(written(tmp_path / "first"))).load()
    artefact = kg.TransformersExporter().export(model, tmp_path / "out")
    assert {name: (artefact.path / name).read_text(encoding="utf-8") for name in NOTICES} == NOTICES
    card = (artefact.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "other"\nlicense_name: "llama3.2"\nlicense_link: "LICENSE"\nlanguage: ["en"')
    assert artefact.report[BASE_MODEL] == {**ABOUT, "notices": NOTICES}
    assert "## NOTICE\n\n    Built with a model." in (artefact.path / "REPORT.md").read_text(encoding="utf-8")
    assert licences.read(lambda name: artefact.path / name) == {**ABOUT, "notices": NOTICES}
    again = Hub(str(artefact.path)).load()
    assert again.metadata[BASE_MODEL] == model.metadata[BASE_MODEL]


@pytest.mark.slow
def test_a_gguf_file_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = pytest.importorskip("gguf")
    monkeypatch.setattr("kerasgen.exporters.gguf.questions.runs_llama_cpp", lambda: False)
    model = Hub(str(written(tmp_path / "first"))).load()
    artefact = kg.GgufExporter().export(model, tmp_path / "x.gguf")
    says = {key: field.contents() for key, field in gguf.GGUFReader(artefact.path).fields.items()}
    assert {key: says[f"general.{key}"] for key in ABOUT} == ABOUT
    assert json.loads((tmp_path / "x.gguf.json").read_text(encoding="utf-8"))[BASE_MODEL]["notices"] == NOTICES


def test_nothing_is_written_where_nothing_is_known(tmp_path: Path) -> None:
    model = replace(tiny_gpt2(300, num_layers=1), metadata={BASE_MODEL: {"name": "x", "types": ["F32"]}})
    licences.write(model.metadata, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert licences.said(model) == {BASE_MODEL: {"name": "x"}}
