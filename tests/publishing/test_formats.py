"""Formats that are pushed lie where their programs look for them, and the card's lines run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import encoders
import pytest

import kerasgen as kg
from kerasgen.errors import (
    ExportArgumentError,
    GenerateArgumentError,
    HubArgumentError,
    HubError,
    ModelFormatError,
    ModelUnavailableError,
)
from kerasgen.publishing import formats, usage

pytest.importorskip("huggingface_hub", reason="the hub's client is an extra: kerasgen[hub]")

import hub_server
from hub_server import HubServer

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


def run(code: str, hub: HubServer, home: Path) -> str:
    """What Python prints of these lines, in a process of its own that talks to the hub."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(home), capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def blocks(card: str, language: str) -> list[str]:
    """The code of a card in one language."""
    return re.findall(rf"```{language}\n(.*?)\n```", card, re.DOTALL)


def test_layout_gives_each_format_its_place() -> None:
    names = ["preset", "transformers", "gguf:dtype=F16", "gguf:dtype=Q8_0", "tflite", "web", "saved_model", "litertlm"]
    placed = formats.layout(names, "poet.v2").formats
    assert [each.place for each in placed] == [
        *("poet.v2_preset", "", "poet.v2-F16.gguf", "poet.v2-Q8_0.gguf", "poet.v2.tflite", "poet.v2_web"),
        *("poet.v2_saved_model", "poet.v2.litertlm"),
    ]
    assert formats.layout("preset", "poet").formats[0].place == ""
    assert formats.layout(["pipeline"], "poet", pipeline=False).has_pipeline
    with pytest.raises(HubArgumentError, match="nothing to push"):
        formats.layout([], "poet", pipeline=False)


def test_a_masked_model_s_lines_fill_a_mask() -> None:
    layout = formats.layout(["transformers"], "poet")
    lines = [line for each in usage.usages(layout, "a/b", is_masked=True, prompt="a <mask>") for line in each.lines]
    assert "print(pipe.fill('a <mask>')[0])" in lines
    assert any('pipeline("fill-mask", model="a/b")' in line for line in lines)


@pytest.mark.nightly
def test_gguf_and_transformers_go_and_their_lines_run(hub: HubServer, pipe: kg.Pipeline, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers runs what it is told to load")
    pushed = pipe.push_to_hub("name/poet", formats=["transformers", "gguf"])
    assert {"config.json", "model.safetensors", "poet.gguf", "poet.gguf.json", "pipeline.json"} <= pushed.files.keys()
    assert pushed.artefacts[""].report["parity"]["greedy_equal"]
    assert pushed.card is not None
    assert pushed.card.metadata["library_name"] == "transformers"
    assert re.search(r"\| `poet\.gguf` \(gguf\) \| \d+ greedy tokens: equal", pushed.card.text)
    readme = hub.repositories["name/poet"].files["README.md"].decode()
    assert readme == pushed.card.content
    wanted = pipe.generate("Once upon a time", max_new_tokens=64)
    kinds: dict[str, list[str]] = {"kg.Pipeline": [], "load_artefact": [], "transformers": []}
    for code in blocks(readme, "python"):
        if "load_artefact" in code:
            pytest.importorskip("xllamacpp", reason="llama.cpp is an extra: kerasgen[llamacpp]")
        kinds[next(kind for kind in kinds if kind in code)].append(run(code, hub, tmp_path / "other"))
    assert all(len(ran) == 1 for ran in kinds.values())
    assert kinds["kg.Pipeline"][0].split() == wanted.split()
    assert kinds["load_artefact"][0].startswith("Once upon a time")
    assert "Once upon a time" in kinds["transformers"][0]
    assert blocks(readme, "sh")[-1].splitlines() == ["llama-cli --hf-repo name/poet --hf-file poet.gguf"]
    # What is one commit is one model's: pushed anew without them, they go.
    again = pipe.push_to_hub("name/poet")
    assert {"config.json", "model.safetensors", "poet.gguf", "poet.gguf.json", "kerasgen.json"} <= set(again.removed)
    files = hub.repositories["name/poet"].files
    assert not [name for name in files if name.startswith("poet") or name.endswith(".safetensors")]


@pytest.mark.slow
def test_an_artefact_of_the_hub_opens_by_its_address(
    hub: HubServer, pipe: kg.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is an extra: kerasgen[runtime]")
    pytest.importorskip("tensorflow", reason="an export to TFLite needs it: kerasgen[export]")
    artefact = pipe.export(tmp_path / "small.tflite", cache_length=64, prefill_lengths=(8,), decode_lengths=(), beams=0)
    pushed = pipe.push_to_hub("name/poet", formats=artefact, pipeline=False)
    assert pushed.files.keys() == {"README.md", *(path.name for path in tmp_path.glob("small.tflite*"))}
    wanted = artefact.generate("a", max_new_tokens=12)
    assert kg.load_artefact("hf://name/poet/small.tflite").generate("a", max_new_tokens=12) == wanted
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert kg.load_artefact("hf://name/poet@main/small.tflite").generate("a", max_new_tokens=12) == wanted
    with pytest.raises(ModelFormatError, match=r"load_artefact|no 'config\.json'"):
        kg.Pipeline("hf://name/poet").generate("a", max_new_tokens=2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelUnavailableError, match="no artefact of kerasgen"):
        kg.load_artefact("hf://name/poet/other.tflite")
    with pytest.raises(GenerateArgumentError, match="whole repository"):
        kg.load_artefact("hf://name/poet")


def test_a_saved_model_of_a_stranger_is_not_run(hub: HubServer) -> None:
    hub.repositories["other/poet"] = hub_server.Repository(private=False)
    report = json.dumps({"exporter": "saved_model", "format": 2, "files": {}}).encode()
    files = {"poet_saved_model/kerasgen.json": report, "poet_saved_model/saved_model.pb": b"program"}
    hub.repositories["other/poet"].commit("main", files, "first")
    with pytest.raises(ModelFormatError, match="is not run from a hub"):
        kg.load_artefact("hf://other/poet/poet_saved_model")
    assert not [path for _, path in hub.requests if path.endswith(".pb")]


def test_kaggle_refuses_what_it_has_not(pipe: kg.Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("kagglehub", reason="Kaggle's client is a package of its own")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(HubArgumentError, match="preset alone"):
        pipe.push_to_hub("kaggle://user/poet/keras/tang", formats=["gguf"])
    with pytest.raises(HubArgumentError, match="no `revision`"):
        pipe.push_to_hub("kaggle://user/poet/keras/tang", revision="v2")
    with pytest.raises(HubError, match="Nobody is logged in"):
        pipe.push_to_hub("kaggle://user/poet/keras/tang")


class TestCommandLine:
    @pytest.fixture
    def saved(self, pipe: kg.Pipeline, tmp_path: Path) -> str:
        return str(pipe.save(tmp_path / "poet"))

    def main(self, *arguments: str) -> int:
        from kerasgen.cli import main

        return main(list(arguments))

    def test_a_saved_pipeline_goes_and_writes_from_there(self, hub: HubServer, saved: str, capsys) -> None:
        assert self.main("push", saved, "name/poet", "--json", "-m", "first") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["commit"] == hub.repositories["name/poet"].branches["main"][-1]
        assert hub.repositories["name/poet"].messages[told["commit"]] == "first"
        assert told["is_private"]
        assert self.main("generate", saved, "a", "--max-new-tokens", "8") == 0
        wanted = capsys.readouterr().out
        assert self.main("generate", "hf://name/poet", "a", "--max-new-tokens", "8") == 0
        assert capsys.readouterr().out == wanted

    def test_a_dry_run_writes_the_card_and_nothing_else(self, hub: HubServer, saved: str, tmp_path, capsys) -> None:
        assert (
            self.main("push", saved, "name/poet", "--formats", "gguf:dtype=F16,max_sequence_length=64,web", "--dry-run")
            == 0
        )
        out, err = capsys.readouterr()
        assert not hub.requests
        assert kg.ModelCard.of(out).metadata["tags"] == ["kerasgen", "keras", "gguf", "web"]
        assert "would go: poet.gguf (gguf)" in err
        card = tmp_path / "card.md"
        card.write_text(out + "\nmine\n", encoding="utf-8")
        assert self.main("push", saved, "name/poet", "--card", str(card), "--public") == 0
        assert hub.repositories["name/poet"].files["README.md"].decode() == out + "\nmine\n"
        assert not hub.repositories["name/poet"].private

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["a b"], 2, "'name/poet'"),
            (["name/poet", "--formats", "gguv"], 2, "gguf"),
            (["name/poet", "--card", "nowhere.md"], 2, "can't be read"),
            (["strangers/poet"], 1, "not the right"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, hub: HubServer, saved: str, capsys, arguments, status, said) -> None:
        assert self.main("push", saved, *arguments) == status
        out, err = capsys.readouterr()
        assert not out
        assert len(err.splitlines()) == 1
        assert said in err


@pytest.mark.slow
def test_a_masked_model_comes_back_and_its_card_fills_masks(hub: HubServer, tmp_path: Path) -> None:
    directory = encoders.write("bert", tmp_path / "bert")
    pipe = kg.Pipeline(model=directory)
    text = f"a {pipe.model.mask_token} b"
    wanted = pipe.fill(text, top=2)
    pushed = pipe.push_to_hub("name/filler")
    assert pushed.card is not None
    assert pushed.card.metadata["pipeline_tag"] == "fill-mask"
    assert ".fill(" in pushed.card.text
    for back in (kg.Pipeline("hf://name/filler"), kg.Pipeline(model="hf://name/filler")):
        assert back.fill(text, top=2) == wanted
    with pytest.raises(ExportArgumentError):
        pipe.push_to_hub("name/filler", formats=["gguf"])


@pytest.mark.slow
def test_preferences_stand_in_the_card(hub: HubServer, pipe: kg.Pipeline, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"is {n} so?", "chosen": "yes 是的", "rejected": "no never"} for n in range(12)]
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    tuned = kg.Pipeline(
        f"jsonl:path={pairs},prompt=prompt,chosen=chosen,rejected=rejected",
        pipe.model_source.directory(),
        tuner=kg.DpoTuner(max_steps=2, batch_size=2, rank=2),
        held_out=0.3,
        sampler="greedy",
    )
    tuned.fit(directory=tmp_path / "run", verbose=0)
    pushed = tuned.push_to_hub("name/chooser")
    assert pushed.card is not None
    assert "held-out pairs" in pushed.card.text
    assert "dpo" in pushed.card.metadata["tags"]
    assert "adapters/adapter.safetensors" in pushed.files
    back = kg.Pipeline("hf://name/chooser")
    assert back.generate("is 3 so?", max_new_tokens=12) == tuned.generate("is 3 so?", max_new_tokens=12)
