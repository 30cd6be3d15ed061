"""A run is repeated from its manifest to equal losses, or it is said what differs."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.cli import main
from kerasgen.errors import ArgumentError, KerasgenError, ModelFormatError
from kerasgen.models.saving import save_preset


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return str(save_preset(tiny_gpt2(num_layers=1, dropout=0.1), tmp_path_factory.mktemp("models") / "tiny"))


def write_texts(file, count=40):
    file.write_text("\n".join(f"the cat sat on mat number {n}" for n in range(count)), encoding="utf-8")


@pytest.fixture
def recipe(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_texts(tmp_path / "texts.txt")
    file = tmp_path / "poet.toml"
    file.write_text(
        f'corpus = "text:path=texts.txt,split=line"\nmodel = "{preset}"\nseed = 5\n'
        '[tuner]\ntype = "full"\nmax_steps = 4\nbatch_size = 4\nsequence_length = 32\n',
        encoding="utf-8",
    )
    return file


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_run_is_repeated_to_the_bit_or_says_what_differs(recipe, tuner, tmp_path, capsys):
    assert main(["fit", str(recipe), "--set", f"tuner.type={tuner}"]) == 0
    manifest = kg.RunManifest.read("poet")  # the recipe's name, for it says no other
    assert len(manifest.losses) == 4
    assert manifest.recipe["tuner"]["type"] == tuner
    assert {"python", "kerasgen", "keras", "numpy"} <= manifest.versions.keys()
    assert (
        manifest.report["losses"] == json.loads((tmp_path / "poet" / "pipeline.json").read_text())["report"]["losses"]
    )
    capsys.readouterr()
    assert main(["fit", "--from", "poet/manifest.json", "--output", "again"]) == 0
    said = capsys.readouterr()
    assert "All 4 losses are the same to the bit." in said.out
    assert "differs" not in said.err
    assert kg.RunManifest.read("again").losses == manifest.losses

    assert main(["fit", "--from", "poet", "--seed", "6", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["repeated"], told["begun"]) == (False, True)
    differences = {one["what"]: one for one in told["differences"]}
    assert (differences["recipe.seed"]["then"], differences["recipe.seed"]["now"]) == (5, 6)
    assert differences["losses"]["step"] == 1
    assert differences["validations.bits_per_character"]["step"] == manifest.report["validations"][-1]["step"]
    assert all(not isinstance(one["then"], dict) for one in differences.values()), "each figure is told by itself"

    write_texts(tmp_path / "texts.txt", 41)
    assert main(["fit", "--from", "poet"]) == 1
    said = capsys.readouterr()
    assert "corpus.digest" in said.err
    assert "nothing was run" in said.out


@pytest.mark.slow
def test_another_version_or_processor_is_told_before_the_run(recipe, tmp_path, capsys):
    assert main(["fit", str(recipe)]) == 0
    file = tmp_path / "poet" / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["versions"]["keras"] = "3.0.0"
    content["machine"]["processor"] = "abacus"
    content["report"]["losses"][2] += 1e-7
    file.write_text(json.dumps(content), encoding="utf-8")
    pipe = kg.Pipeline.from_manifest("poet")
    assert [one.what for one in pipe.differences("poet")] == ["versions.keras", "machine.processor"]
    assert main(["fit", "--from", "poet"]) == 1
    said = capsys.readouterr().err
    assert "differs before the run: versions.keras: '3.0.0' then" in said
    assert "losses at step 3, the first that differs" in said


def test_a_run_in_a_directory_leaves_its_manifest_there(preset, tmp_path):
    texts = [f"the cat sat on mat number {n}" for n in range(30)]
    pipe = kg.Pipeline(texts, preset, tuner=kg.FullTuner(max_steps=1, batch_size=2, sequence_length=16))
    pipe.fit(directory=tmp_path / "run", verbose=0)
    manifest = kg.RunManifest.read(tmp_path / "run")
    assert manifest == kg.RunManifest.read(pipe.manifest.write(tmp_path / "copy.json"))
    assert manifest.recipe["corpus"] == texts
    assert pipe.differences(manifest) == ()
    pipe.fit(verbose=0)
    assert "tuned already" in pipe.manifest.unrepeatable
    with pytest.raises(ArgumentError, match="can't be repeated"):
        kg.Pipeline.from_manifest(pipe.manifest)


@pytest.mark.parametrize(
    "content", ["{}", "[", '{"kind": "kerasgen run", "format": 2}', '{"kind": "kerasgen run", "format": 1}']
)
def test_a_damaged_manifest_is_an_error(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelFormatError):
        kg.RunManifest.read(tmp_path)


def test_a_manifest_that_is_not_there_is_told_with_where_one_is(tmp_path):
    with pytest.raises(ModelFormatError, match=r"There is no manifest.*saved pipeline"):
        kg.Pipeline.from_manifest(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def whole_manifest(preset, tmp_path_factory):
    """The content of a manifest that a run left."""
    tuner = kg.FullTuner(max_steps=1, batch_size=2, sequence_length=16)
    pipe = kg.Pipeline(corpus=[f"the mat number {n}" for n in range(20)], model=preset, tuner=tuner)
    pipe.fit(verbose=0)
    return json.loads(pipe.manifest.write(tmp_path_factory.mktemp("whole") / "manifest.json").read_text("utf-8"))


@pytest.mark.one_backend
def test_a_manifest_that_lacks_anything_is_read_or_refused_by_name(whole_manifest, tmp_path):
    file = tmp_path / "manifest.json"
    parts = [(name,) for name in whole_manifest]
    parts += [(name, key) for name, part in whole_manifest.items() if isinstance(part, dict) for key in part]
    refused = 0
    for path in parts:
        for other in (None, [], {}, 7, "x"):
            content = json.loads(json.dumps(whole_manifest))
            holder = content if len(path) == 1 else content[path[0]]
            if other is None:
                del holder[path[-1]]
            else:
                holder[path[-1]] = other
            file.write_text(json.dumps(content), encoding="utf-8")
            try:
                manifest = kg.RunManifest.read(file)
                assert manifest.differences(manifest) == ()
                manifest.differences_from_here()
                kg.Pipeline.from_manifest(manifest)
            except KerasgenError:
                refused += 1
    assert refused > 30


def test_a_setting_that_one_run_leaves_out_is_said_to_be_the_default(whole_manifest, tmp_path):
    run = kg.RunManifest(**{name: part for name, part in whole_manifest.items() if name not in ("kind", "format")})
    tuner = {name: value for name, value in run.recipe["tuner"].items() if name != "batch_size"}
    (difference,) = run.differences(dataclasses.replace(run, recipe={**run.recipe, "tuner": tuner}))
    assert str(difference) == "recipe.tuner.batch_size: 2 then, the default now"
