"""Artefacts that are folders or bundles go to the hub whole, and are read back from there to the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import ROOT

import kerasgen as kg
from kerasgen.errors import MissingDependencyError, ModelFormatError
from kerasgen.exporters.web import packages

pytest.importorskip("huggingface_hub", reason="the hub's client is an extra: kerasgen[hub]")

from hub_server import HubServer

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.slow,
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

PROMPTS = ["a", "the sea"]


def test_a_page_comes_back_as_an_artefact(hub: HubServer, pipe: kg.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    try:
        packages.find(ROOT, packages.LITERT)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(ROOT)
    pushed = pipe.push_to_hub("name/poet", formats=["web:cache_length=64"], pipeline=False)
    artefact = pushed.artefacts["poet_web"]
    files = hub.repositories["name/poet"].files
    there = {name.removeprefix("poet_web/") for name in files if name.startswith("poet_web/")}
    assert {"index.html", "model.tflite", "page.json", "kerasgen.json", "runtime/worker.js"} <= there
    assert any(name.endswith(".wasm") for name in there)
    assert artefact.report["parity"]["page"] is None or artefact.report["parity"]["page"]["equal_texts"] > 0
    assert pushed.card is not None
    assert "`poet_web`" in pushed.card.text
    back = kg.load_artefact("hf://name/poet/poet_web")
    assert back.generate(PROMPTS, max_new_tokens=12) == pipe.generate(PROMPTS, max_new_tokens=12)


def test_a_bundle_comes_back_as_an_artefact(hub: HubServer, pipe: kg.Pipeline, tmp_path: Path) -> None:
    for package in ("litert_lm", "litert_lm_builder"):
        pytest.importorskip(package, reason="LiteRT-LM is an extra: kerasgen[litertlm]")
    artefact = pipe.export(tmp_path / "small.litertlm")
    wanted = artefact.generate(PROMPTS, max_new_tokens=12)
    pushed = pipe.push_to_hub("name/poet", formats=[artefact])
    assert {"small.litertlm", "small.litertlm.json", "pipeline.json"} <= pushed.files.keys()
    assert kg.load_artefact("hf://name/poet/small.litertlm").generate(PROMPTS, max_new_tokens=12) == wanted
    again = kg.Pipeline("hf://name/poet")
    assert again.generate(PROMPTS, max_new_tokens=12) == pipe.generate(PROMPTS, max_new_tokens=12)


@pytest.mark.essential
def test_a_saved_model_comes_back_to_who_downloads_it(hub: HubServer, pipe: kg.Pipeline, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's: kerasgen[tensorflow]")
    import huggingface_hub

    pushed = pipe.push_to_hub("name/poet", formats=["saved_model:samplers=greedy"])
    assert "poet_saved_model/saved_model.pb" in pushed.files
    with pytest.raises(ModelFormatError, match="is not run from a hub"):
        kg.load_artefact("hf://name/poet/poet_saved_model")
    # Whoever trusts it fetches it, as the hub's own client does, and runs it.
    folder = huggingface_hub.snapshot_download("name/poet", local_dir=tmp_path / "there")
    wanted = pipe.generate(PROMPTS, max_new_tokens=12)
    assert kg.load_artefact(Path(folder) / "poet_saved_model").generate(PROMPTS, max_new_tokens=12) == wanted
    poet = tf.saved_model.load(f"{folder}/poet_saved_model")
    answer = poet.signatures["greedy"](
        prompts=tf.constant(PROMPTS), max_new_tokens=tf.constant(12), end_token_id=tf.constant(-1)
    )
    assert [p + text.decode() for p, text in zip(PROMPTS, answer["texts"].numpy(), strict=True)] == wanted
