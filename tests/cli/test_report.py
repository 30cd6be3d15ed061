"""`kerasgen report` writes the page of a saved pipeline, of a finished run's directory, and of a report's JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reported
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.cli import main
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

TEXTS = [f"the cat sat on mat number {n}" for n in range(40)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[kg.Pipeline, Path]:
    """A pipeline that was tuned, evaluated and saved, and the folder in which everything lies."""
    folder = tmp_path_factory.mktemp("tuned")
    preset = save_preset(tiny_gpt2(num_layers=1), folder / "tiny")
    tuner = kg.FullTuner(max_steps=3, batch_size=4, sequence_length=32, sample_every=2)
    pipe = kg.Pipeline(corpus=TEXTS, model=preset, tuner=tuner, held_out=0.2)
    pipe.fit(directory=folder / "run", verbose=0, sample_prompt="the")
    pipe.evaluate(texts=3, max_new_tokens=6, self_bleu=False)
    pipe.save(folder / "poet")
    return pipe, folder


def test_the_page_of_a_pipeline_has_all_that_it_did(tuned, tmp_path):
    pipe, _ = tuned
    page = pipe.report(tmp_path / "run.html").read_text(encoding="utf-8")
    for section in ("curves", "samples", "surprise", "evaluation", "corpus", "settings"):
        assert f'<section id="{section}">' in page
    assert 'id="artefacts"' not in page
    assert f'value="{pipe.report.bits_per_character}"' in page
    assert "training document" in page
    found = pipe.report.corpus["lengths"]
    assert sum(found["train"]) + sum(found["held_out"]) == len(TEXTS)
    assert pipe.report.machine["packages"]["keras"] in page
    assert 'id="surprise"' not in pipe.report(tmp_path / "run.html", texts=[]).read_text(encoding="utf-8")
    with pytest.raises(kg.errors.ArgumentError, match="`texts` must be"):
        pipe.report(tmp_path / "run.html", texts=[3])


def test_the_copies_of_an_evaluation_are_in_the_training_part(tuned):
    pipe, _ = tuned
    written = pipe._evaluation.writing.written
    training = list(pipe._corpus().texts("train"))
    assert len(written) == 3
    for text in written:
        assert text.copied in text.text
        if text.copied:
            assert text.before + text.copied + text.after in training[text.document]


def test_a_saved_pipeline_a_run_and_a_file_have_the_same_figures(tuned, tmp_path, capsys):
    pipe, folder = tuned
    exact = f'value="{pipe.report.bits_per_character}"'
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"report": pipe.report.to_dict()}), encoding="utf-8")
    for source in (folder / "poet", folder / "run", file):
        page = tmp_path / "run.html"
        assert main(["report", str(source), str(page), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"page": str(page), "bytes": page.stat().st_size}
        content = page.read_text(encoding="utf-8")
        assert exact in content
        assert '<section id="corpus">' in content, "the run's directory knows the corpus too"
        page.unlink()
    assert kg.Pipeline.load(folder / "poet").report == kg.TuneReport.from_dict(pipe.report.to_dict())


def test_texts_and_artefacts_are_shown_in_the_asked_language(tuned, tmp_path, capsys):
    _, folder = tuned
    artefact = reported.artefact()
    path = tmp_path / artefact.path
    path.write_bytes(b"")
    path.with_name(path.name + ".json").write_text(json.dumps(artefact.report | {"exporter": "tflite"}))
    page = tmp_path / "run.html"
    run = ["report", str(folder / "poet"), str(page), "--language", "zh"]
    assert main([*run, "--text", "the cat", "--text", "春", "--artefact", str(path), "--title", "詩人"]) == 0
    assert capsys.readouterr().out == f"Wrote {page}\n"
    content = page.read_text(encoding="utf-8")
    assert content.count('class="surprise"') == 2
    assert "192 个贪心词元全同" in content
    assert "<h1>詩人</h1>" in content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "run.html"], "neither a saved pipeline nor the directory of a finished run"),
        (["nowhere", "run.pdf"], "must end in .html"),
        (["file.json", "run.html"], "no report of a run"),
        (["good.json", "run.html", "--text", "a"], "is no saved pipeline"),
        (["good.json", "run.html", "--artefact", "poet.tflite"], "is no artefact that kerasgen exported"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file.json").write_text('{"steps": 3}', encoding="utf-8")
    Path("good.json").write_text(json.dumps(reported.run().to_dict()), encoding="utf-8")
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("run.*"))


def test_an_artefact_or_another_file_is_told_for_what_it_is(tmp_path, capsys):
    (tmp_path / "poet.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    assert main(["report", str(tmp_path / "poet.tflite"), str(tmp_path / "run.html")]) == 2
    said = capsys.readouterr().err
    assert "report.json: it is no text." in said
    (tmp_path / "poet.tflite.json").write_text('{"exporter": "tflite"}', encoding="utf-8")
    assert main(["report", str(tmp_path / "poet.tflite"), str(tmp_path / "run.html")]) == 2
    assert "is an exported artefact" in capsys.readouterr().err
