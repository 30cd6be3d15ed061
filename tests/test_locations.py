"""A path that is not there, or is something else, is told before Keras loads, with what opens it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from installing import child
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import errors, locations
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """One of each kind, as it is written by what writes it."""
    root = tmp_path_factory.mktemp("places")
    save_preset(tiny_gpt2(), root / "tiny")
    pipeline = kg.Pipeline(
        corpus=[f"the cat sat on mat {n}" for n in range(20)],
        model=root / "tiny",
        tuner=kg.FullTuner(max_steps=2, batch_size=2, sequence_length=16, checkpoint_every=1),
    )
    pipeline.fit(directory=root / "run", verbose=0)
    pipeline.save(root / "poet")
    shutil.copytree(root / "tiny", root / "exported")  # an exporter's report is all that tells one from the other
    (root / "exported" / "kerasgen.json").write_text('{"exporter": "preset", "format": 1}', encoding="utf-8")
    (root / "hf").mkdir()
    (root / "hf" / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    (root / "other").mkdir()
    (root / "other" / "notes.txt").write_text("notes", encoding="utf-8")
    (root / "lonely.tflite").write_bytes(b"TFL3")
    (root / "poet.gguf").write_bytes(b"GGUF")
    (root / "poet.gguf.json").write_text(json.dumps({"exporter": "gguf", "format": 1}), encoding="utf-8")
    return root


KINDS = {
    "tiny": "preset",
    "exported": "preset",
    "hf": "transformers",
    "poet": "pipeline",
    "run": "checkpoints",
    "run/step-00000002": "checkpoints",
    "other": "folder",
    "lonely.tflite": "file",
    "poet.gguf": "artefact",
    "poett": "nothing",
}


@pytest.mark.parametrize("name", KINDS)
def test_what_lies_there_is_known(places, name):
    assert locations.look(places / name).kind == KINDS[name]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind != "pipeline"])
def test_loading_a_pipeline_says_what_it_found_instead(places, name):
    with pytest.raises(errors.ModelFormatError) as caught:
        kg.Pipeline.load(places / name)
    assert str(locations.look(places / name)) in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["tiny", "exported", "hf", "poet", "run", "poett"])
def test_loading_an_artefact_says_what_it_found_instead(places, name):
    with pytest.raises(errors.ModelFormatError) as caught:
        kg.load_artefact(places / name)
    assert str(locations.look(places / name)) in str(caught.value)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind not in ("preset", "transformers")])
@pytest.mark.parametrize("spelled", [str, kg.Hub, lambda path: path], ids=["text", "Hub", "Path"])
def test_asking_for_a_model_says_what_it_found_instead(places, name, spelled):
    given = spelled(str(places / name)) if spelled is not kg.Hub else kg.Hub(str(places / name))
    with pytest.raises((errors.ModelFormatError, errors.ModelUnavailableError)) as caught:
        _ = kg.Pipeline(model=given).model
    is_model = name.endswith(".gguf") and spelled is not kg.Hub  # though here one that was cut
    said = "can't be read: it is cut" if is_model else str(locations.look(places / name))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["tiny", "exported", "poet"])
def test_the_call_that_a_message_names_opens_it(places, name):
    with pytest.raises(errors.ModelFormatError) as caught:
        kg.load_artefact(places / name)
    (opener,) = re.findall(r"Open it with (.*)\.$", str(caught.value))
    assert eval(opener, {"Pipeline": kg.Pipeline, "kerasgen": kg}).generate("the", max_new_tokens=2).startswith("the")


def test_a_neighbour_s_name_is_offered(places, tmp_path):
    for call in (kg.Pipeline.load, kg.load_artefact, lambda path: kg.Pipeline(model=path)):
        with pytest.raises(kg.KerasgenError, match=r"Did you mean .*poet'"):
            call(places / "poett")
    (tmp_path / "poems.txt").write_text("a", encoding="utf-8")
    with pytest.raises(errors.CorpusUnavailableError, match=r"Did you mean .*poems\.txt'"):
        kg.Text(tmp_path / "poem.txt").check()
    with pytest.raises(kg.KerasgenError, match="last folder of it that is there"):
        kg.Pipeline.load(tmp_path / "a" / "b" / "c")


def test_a_link_that_leads_nowhere_is_not_offered_as_its_own_neighbour(tmp_path):
    (tmp_path / "poems.txt").symlink_to("moved.txt")
    with pytest.raises(errors.CorpusUnavailableError, match=r"poems\.txt'\. It is a link to 'moved\.txt'"):
        list(kg.corpora.create(f"text:path={tmp_path / 'poems.txt'}").documents())


def test_none_of_it_loads_keras(places, tmp_path):
    """Not even where the model is there and the corpus is not."""
    manifest = json.loads((places / "poet" / "pipeline.json").read_text(encoding="utf-8"))
    manifest |= {"adapters": True, "model": {"name": "hub", "arguments": {"preset": str(tmp_path / "gone")}}}
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "pipeline.json").write_text(json.dumps(manifest), encoding="utf-8")
    loaded, count = child(
        f"""
import json, sys
import kerasgen as kg
places, tuned = {str(places)!r}, {str(tmp_path / "tuned")!r}
calls = [
    lambda: kg.Pipeline(model=places + "/tinny"),
    lambda: kg.Pipeline(model=kg.Hub(places + "/tinny")).generate("x"),
    lambda: kg.Pipeline(corpus="text:path=" + places + "/no.txt", model=places + "/tiny").fit(),
    lambda: kg.Pipeline(corpus=kg.Jsonl(places + "/no.jsonl"), model=places + "/tiny").evaluate(),
    lambda: kg.Pipeline(model=places + "/tiny").evaluate("csv:path=" + places + "/no.csv"),
    lambda: kg.Pipeline(corpus="chinese_poetry:path=" + places + "/no", model=places + "/tiny").fit(),
    lambda: kg.Pipeline.load(tuned).generate("x"),
    lambda: kg.Pipeline.load(places + "/poett"),
    lambda: kg.load_artefact(places + "/poet.tflite"),
    lambda: kg.Pipeline(model="starter").generate("x", sampler="topk"),
    lambda: kg.Pipeline(model="gpt2_bas_en"),
]
told = 0
for call in calls:
    try:
        call()
    except kg.KerasgenError:
        told += 1
print(json.dumps([[name for name in ("keras", "jax", "tensorflow") if name in sys.modules], told == len(calls)]))
"""
    )
    assert loaded == []
    assert count is True


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", f"{'a' * 300}/b"])
def test_a_path_that_can_not_be_looked_at_is_nothing(path):
    assert locations.look(path).kind == "nothing"
    assert "There is nothing at" in str(locations.look(path))
    for opened, error in (
        (kg.Pipeline.load, errors.ModelFormatError),
        (kg.load_artefact, errors.ModelFormatError),
        (lambda path: kg.Pipeline(model=f"./{path}"), errors.ModelUnavailableError),
        (lambda path: kg.Text(path).check(), errors.KerasgenError),
        (lambda path: kg.ChinesePoetry(path=path).check(), errors.KerasgenError),
    ):
        with pytest.raises(error):
            opened(path)
