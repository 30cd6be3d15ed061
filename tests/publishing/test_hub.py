"""What is pushed to a hub comes back as it was; what can't be pushed says why, and leaves nothing there."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

import kerasgen as kg
from kerasgen import saved_pipeline
from kerasgen.errors import (
    ArgumentError,
    ExportArgumentError,
    ExportError,
    HubArgumentError,
    HubError,
    KerasgenWarning,
    ModelArgumentError,
    ModelFormatError,
    ModelUnavailableError,
    UnknownNameError,
)
from kerasgen.exporters.base import Exporter

pytest.importorskip("huggingface_hub", reason="the hub's client is an extra: kerasgen[hub]")

import hub_server
from hub_server import Fault, HubServer

pytestmark = [
    pytest.mark.one_backend,
    # The hub's client passes files on by a keyword that its own HTTP library calls outdated.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

SAMPLER = "top_k:k=5,seed=7"


@pytest.fixture
def pipe(preset: Path) -> kg.Pipeline:
    return kg.Pipeline(model=preset, sampler=SAMPLER)


@pytest.fixture(scope="module")
def loaded(preset: Path) -> kg.Pipeline:
    """One whose model is there, for what is tried often."""
    pipe = kg.Pipeline(model=preset, sampler=SAMPLER)
    assert pipe.model is not None
    return pipe


def texts(pipeline: kg.Pipeline) -> list[str]:
    return pipeline.generate(["a", "the", "春"], max_new_tokens=24)


class TestReadBack:
    @pytest.mark.essential
    @pytest.mark.slow
    def test_a_pipeline_comes_back_to_the_same_texts_in_every_way_of_asking(
        self, hub: HubServer, loaded: kg.Pipeline
    ) -> None:
        pushed = loaded.push_to_hub("name/poet", revision="v2")
        assert hub.repositories["name/poet"].private
        assert pushed.url == f"{hub.address}/name/poet"
        assert pushed.commit == hub.repositories["name/poet"].branches["v2"][-1]
        files = hub.repositories["name/poet"].commits[pushed.commit]
        assert {name: len(data) for name, data in files.items() if name != ".gitattributes"} == pushed.files
        wanted = texts(loaded)
        address = "hf://name/poet@v2"
        assert texts(kg.Pipeline(address)) == wanted
        assert texts(kg.Pipeline.load(address)) == wanted
        assert texts(kg.Pipeline(model=address, sampler=SAMPLER)) == wanted
        assert texts(kg.Pipeline.load(f"hf://name/poet@{pushed.commit}")) == wanted

    def test_what_was_read_once_is_read_without_the_hub(
        self, hub: HubServer, loaded: kg.Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded.push_to_hub("name/poet")
        wanted = texts(kg.Pipeline("hf://name/poet"))
        hub.faults.append(Fault("*", ".", "cut"))
        assert texts(kg.Pipeline("hf://name/poet")) == wanted
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert texts(kg.Pipeline(model="hf://name/poet", sampler=SAMPLER)) == wanted
        with pytest.raises(ModelUnavailableError, match="could not be reached"):
            kg.Pipeline("hf://name/other")

    def test_a_model_of_others_is_read_as_a_model(self, hub: HubServer, preset: Path, loaded: kg.Pipeline) -> None:
        files = {path.relative_to(preset).as_posix(): path.read_bytes() for path in preset.rglob("*") if path.is_file()}
        hub.repositories["other/model"] = hub_server.Repository(private=False)
        hub.repositories["other/model"].commit("main", files, "model")
        for model in (kg.Pipeline("hf://other/model"), kg.Pipeline(model="hf://other/model")):
            assert model.generate("a", max_new_tokens=8, sampler="greedy") == loaded.generate(
                "a", max_new_tokens=8, sampler="greedy"
            )
        with pytest.raises(ModelFormatError, match="no saved pipeline"):
            kg.Pipeline.load("hf://other/model")
        with pytest.raises(ArgumentError, match=r"Pipeline\(model='hf://other/model'"):
            kg.Pipeline("hf://other/model", tuner="lora")

    @pytest.mark.slow
    def test_adapters_on_a_model_of_this_machine_take_it_with_them(
        self, hub: HubServer, preset: Path, tmp_path: Path
    ) -> None:
        tuner = kg.LoraTuner(rank=2, learning_rate=0.3, max_steps=2, batch_size=2, sequence_length=24)
        pipe = kg.Pipeline(["the cat sat", "he ran home"] * 4, preset, tuner=tuner, sampler=SAMPLER, held_out=0.0)
        pipe.fit(directory=tmp_path / "run", verbose=0)
        pushed = pipe.push_to_hub("name/poet")
        assert {"adapters/adapter.safetensors", "base/config.json"} <= pushed.files.keys()
        for name, data in hub.repositories["name/poet"].files.items():
            assert str(tmp_path.parents[1]).encode() not in data, name
        back = kg.Pipeline("hf://name/poet")
        assert texts(back) == texts(pipe)
        assert back.model_card().metadata["tags"] == ["kerasgen", "keras", "lora"]
        again = back.push_to_hub("name/again")  # of what came from a hub, in a cache here
        assert again.files.keys() == pushed.files.keys()
        assert texts(kg.Pipeline(model="hf://name/again", sampler=SAMPLER)) == texts(pipe)


class TestCard:
    def test_an_edited_card_is_what_is_pushed(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        card = loaded.model_card("name/poet", prompts=["春"])
        card.text += "\n## 作者\n\n我自己。\n"
        card.metadata |= {"license": "mit", "language": ["zh"]}
        loaded.push_to_hub("name/poet", card=card)
        readme = hub.repositories["name/poet"].files["README.md"].decode()
        assert readme == card.content
        assert kg.ModelCard.of(readme) == card

    def test_a_function_edits_the_card_that_knows_all(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        def edit(card: kg.ModelCard) -> None:
            card.metadata["license"] = "cc0-1.0"

        pushed = loaded.push_to_hub("name/poet", card=edit)
        assert pushed.card is not None
        assert pushed.card.metadata["license"] == "cc0-1.0"
        assert 'kg.Pipeline("hf://name/poet")' in hub.repositories["name/poet"].files["README.md"].decode()

    @pytest.mark.parametrize(
        "settings",
        [
            {"license": "mine"},
            {"license": "other"},
            {"language": "Chinese"},
            {"tags": [1]},
            {"base_model": "a b"},
            {"datasets": ["a/b/c"]},
            {"model-index": [{"name": "x"}]},
            {"pipeline_tag": ["text-generation"]},
            {"extra": (1, 2)},
            {3: "x"},
        ],
        ids=str,
    )
    def test_what_the_hub_would_refuse_is_told_before_anything_else(
        self, hub: HubServer, pipe: kg.Pipeline, settings: dict
    ) -> None:
        with pytest.raises(HubArgumentError):
            pipe.push_to_hub("name/poet", card=kg.ModelCard("# poet\n", settings))
        assert not hub.requests

    def test_what_is_not_known_is_left_out(self, loaded: kg.Pipeline) -> None:
        card = loaded.model_card()
        assert card.metadata.keys() == {"library_name", "pipeline_tag", "tags"}
        for word in ("licence", "None", "nan", "## Data", "## How to use it"):
            assert word not in card.text

    def test_a_text_with_lines_of_dashes_and_quotes_comes_back(self) -> None:
        card = kg.ModelCard("# a\n\n---\nb\n", {"tags": ["no", "---", "ä\n---\nb", "null"], "license_name": "'\""})
        assert kg.ModelCard.of(card.content) == card

    def test_the_starter_tells_its_licence(self) -> None:
        card = kg.Pipeline(model="starter").model_card(prompts=())
        assert card.metadata["license"] == "apache-2.0"
        assert card.metadata["language"] == ["zh"]


class TestRefused:
    @pytest.mark.parametrize(
        "repo_id",
        [
            "",
            " ",
            "a/b/c",
            "a b/c",
            "a/-b",
            "a/b.",
            "a/b--c",
            "a/..",
            "../b",
            "a/b.git",
            "诗/集",
            "a/" + "b" * 96,
            None,
            3,
            "kaggle://a/b/keras",
            "kaggle://a/b/torch/c",
            "a/b@c",
        ],
    )
    def test_a_bad_name(self, hub: HubServer, pipe: kg.Pipeline, repo_id: object) -> None:
        with pytest.raises(HubArgumentError, match="Received"):
            pipe.push_to_hub(repo_id)
        assert not hub.requests

    @pytest.mark.parametrize(
        ("formats", "kind"),
        [
            (["gguv"], UnknownNameError),
            (["gguf:dtype=F12"], ExportArgumentError),
            ([""], HubArgumentError),
            ([3], HubArgumentError),
            (3, HubArgumentError),
            (["gguf", "gguf"], HubArgumentError),
        ],
    )
    def test_a_bad_format(self, hub: HubServer, pipe: kg.Pipeline, formats: object, kind: type) -> None:
        with pytest.raises(kind):
            pipe.push_to_hub("name/poet", formats=formats)
        assert not hub.requests

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("commit_message", ""),
            ("revision", "a b"),
            ("revision", "../x"),
            ("token", 3),
            ("private", "yes"),
            ("pipeline", False),
            ("card", 3),
            ("evaluation", {}),
        ],
    )
    def test_a_bad_argument(self, hub: HubServer, pipe: kg.Pipeline, name: str, value: object) -> None:
        with pytest.raises(HubArgumentError):
            pipe.push_to_hub("name/poet", **{name: value})
        assert not hub.requests

    @pytest.mark.parametrize(
        ("token", "repository", "status", "said"),
        [
            (None, "name/poet", 401, "Nobody is logged in"),
            ("hf_wrong", "name/poet", 401, "no such token"),
            ("hf_reader", "name/poet", 403, "may read and not write"),
            ("hf_other", "name/poet", 403, "not the right"),
            ("hf_writer", "strangers/poet", 403, "not the right"),
        ],
    )
    def test_who_may_not_push_learns_it_before_the_model_is_loaded(
        self, hub: HubServer, pipe: kg.Pipeline, monkeypatch, token: str | None, repository: str, status: int, said: str
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(HubError, match=said) as caught:
            pipe.push_to_hub(repository, formats=["gguf"], token=token)
        assert caught.value.status == status
        assert caught.value.repository == repository
        assert pipe._model is None
        assert repository not in hub.repositories

    def test_somebody_else_s_repository(self, hub: HubServer, pipe: kg.Pipeline) -> None:
        hub.repositories["other/poet"] = hub_server.Repository(private=False)
        hub.repositories["other/poet"].commit("main", {}, "first")
        with pytest.raises(HubError, match="may not write") as caught:
            pipe.push_to_hub("other/poet", private=False)
        assert caught.value.status == 403
        assert pipe._model is None

    def test_no_network(self, hub: HubServer, pipe: kg.Pipeline) -> None:
        hub.faults.append(Fault("*", ".", "cut"))
        with pytest.raises(HubError, match="could not be reached") as caught:
            pipe.push_to_hub("name/poet")
        assert caught.value.status is None
        assert pipe._model is None

    @pytest.mark.parametrize(
        ("method", "path", "answer"),
        [
            ("POST", "/api/validate-yaml", 500),
            ("POST", "/api/repos/create", 403),
            ("POST", "/preupload/", 503),
            ("POST", "objects/batch", "cut"),
            ("PUT", "/lfs/", "cut"),
            ("PUT", "/lfs/", 403),
            ("POST", "/commit/", 409),
            ("POST", "/commit/", 500),
            ("POST", "/commit/", "cut"),
        ],
    )
    def test_what_fails_on_the_way_leaves_nothing(
        self, hub: HubServer, loaded: kg.Pipeline, method: str, path: str, answer: int | str
    ) -> None:
        hub.faults.append(Fault(method, path, answer))
        with pytest.raises(HubError) as caught:
            loaded.push_to_hub("name/poet", revision="v2")
        assert caught.value.status == (answer if isinstance(answer, int) else None)
        assert "name/poet" not in hub.repositories  # it was made for this push
        hub.faults.clear()
        assert loaded.push_to_hub("name/poet").commit == hub.repositories["name/poet"].branches["main"][-1]

    def test_a_push_that_comes_between_is_not_mixed_with_this_one(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        loaded.push_to_hub("name/poet")
        repository = hub.repositories["name/poet"]

        def between(method: str, path: str) -> None:
            if "/commit/" in path:
                hub.on_request = None
                repository.commit("main", {"README.md": b"theirs"}, "theirs")

        hub.on_request = between
        with pytest.raises(HubError, match="meanwhile") as caught:
            loaded.push_to_hub("name/poet", commit_message="mine")
        assert caught.value.status == 412
        assert repository.files == {"README.md": b"theirs"}

    def test_what_a_gitignore_would_leave_out(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        hub.ignored = (r"\.h5$",)
        with pytest.raises(HubError, match="gitignore"):
            loaded.push_to_hub("name/poet")
        assert "name/poet" not in hub.repositories

    def test_a_public_repository_is_pushed_to_with_a_word_alone(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        loaded.push_to_hub("name/poet", private=False)
        assert not hub.repositories["name/poet"].private
        with pytest.raises(HubError, match="public"):
            loaded.push_to_hub("name/poet")
        assert loaded.push_to_hub("name/poet", private=False, card="# other\n").is_private is False

    def test_a_private_one_stays_so(self, hub: HubServer, loaded: kg.Pipeline) -> None:
        loaded.push_to_hub("guild/poet")
        with pytest.warns(KerasgenWarning, match="stays private"):
            loaded.push_to_hub("guild/poet", private=False, card="# other\n")
        hub.users.clear()
        with pytest.raises(ModelUnavailableError, match="did not give us"):
            kg.Pipeline("hf://guild/poet")


class TestHostile:
    """What lies on a hub is a stranger's."""

    @pytest.fixture
    def pushed(self, hub: HubServer, loaded: kg.Pipeline) -> dict[str, bytes]:
        loaded.push_to_hub("name/poet", card="# poet\n")
        return hub.repositories["name/poet"].files

    @pytest.mark.parametrize(
        "address",
        [
            "hf://",
            "hf://a/b/../c",
            "hf://../b",
            "hf://a/b@",
            "hf://a/b@../c",
            "hf://a/b@x y",
            "hf://a/b//c",
            "hf://a b/c",
            "hf://a/b/\x00",
            "hf://a/..",
            "hf://a/b@v1/c\\d",
        ],
    )
    def test_an_address_that_leads_elsewhere(self, hub: HubServer, address: str) -> None:
        for read in (kg.Pipeline, kg.Pipeline.load, lambda text: kg.Pipeline(model=text)):
            with pytest.raises(ModelArgumentError):
                read(address)
        assert not hub.requests

    @pytest.mark.parametrize(
        "changed",
        [
            {"adapters": True, "model_beside": "../../elsewhere"},
            {"adapters": True, "model_beside": "/etc"},
            {"adapters": True, "model": {"name": "hub", "arguments": {"preset": "/etc/model"}}},
            {"adapters": True, "model": {"name": "gguf", "arguments": {"file": "./a.gguf"}}},
            {"chat_template": "/etc/passwd"},
            {"format": 99},
        ],
        ids=str,
    )
    def test_a_manifest_that_names_what_lies_here(self, hub: HubServer, pushed: dict[str, bytes], changed) -> None:
        manifest = json.loads(pushed["pipeline.json"]) | changed
        files = pushed | {"pipeline.json": json.dumps(manifest).encode()}
        hub.repositories["name/poet"].commit("main", files, "changed")
        with pytest.raises(ModelFormatError):
            kg.Pipeline("hf://name/poet").generate("a", max_new_tokens=2)

    def test_a_manifest_whose_corpus_lies_here_is_read_without_it(
        self, hub: HubServer, pushed: dict[str, bytes]
    ) -> None:
        manifest = json.loads(pushed["pipeline.json"])
        manifest |= {"corpus": {"name": "text", "arguments": {"path": "/etc/passwd"}}}
        manifest["generation_config"] = {"assistant_model": "/tmp/model", "max_new_tokens": 3}
        files = pushed | {"pipeline.json": json.dumps(manifest).encode()}
        hub.repositories["name/poet"].commit("main", files, "changed")
        with pytest.warns(KerasgenWarning, match="corpus and generation_config"):
            pipe = kg.Pipeline("hf://name/poet")
        assert pipe.corpus is None
        assert pipe.generation_config.assistant_model is None
        assert pipe.generation_config.max_new_tokens == 3

    def test_a_preset_that_asks_for_code(self, hub: HubServer, pushed: dict[str, bytes], tmp_path: Path) -> None:
        config = json.loads(pushed["model/config.json"])
        config |= {"module": "subprocess", "class_name": "Popen", "registered_name": None}
        config["config"] = {"args": ["touch", str(tmp_path / "ran")]}
        for name in ("config.json", "task.json"):
            files = hub.repositories["name/poet"].files
            hub.repositories["name/poet"].commit("main", files | {f"model/{name}": json.dumps(config).encode()}, "evil")
        with pytest.raises(ModelFormatError):
            kg.Pipeline("hf://name/poet").generate("a", max_new_tokens=2)
        assert not (tmp_path / "ran").exists()

    def test_names_that_leave_the_folder(self, hub: HubServer, pushed: dict[str, bytes], tmp_path: Path) -> None:
        for name in ("model/../../../../evil", "/evil", "model\\..\\evil"):
            hub.repositories["name/poet"].commit("main", pushed | {name: b"x"}, "evil")
            with pytest.raises((ModelFormatError, ModelUnavailableError)):
                kg.Pipeline(model="hf://name/poet").generate("a", max_new_tokens=2)
        assert not list(tmp_path.rglob("evil"))

    def test_a_damaged_download_is_noticed(self, hub: HubServer, pushed: dict[str, bytes]) -> None:
        weights = bytearray(pushed["model/model.weights.h5"])
        weights[len(weights) // 2] ^= 1
        files = pushed | {"model/model.weights.h5": bytes(weights)}
        hub.repositories["name/poet"].commit("main", files, "damaged")
        with pytest.raises(ModelFormatError, match="SHA-256"):
            kg.Pipeline("hf://name/poet").generate("a", max_new_tokens=2)


def test_files_of_an_earlier_push_go_and_other_people_s_stay(hub: HubServer, loaded: kg.Pipeline) -> None:
    loaded.push_to_hub("name/poet")
    repository = hub.repositories["name/poet"]
    report = json.dumps({"exporter": "gguf", "format": 2, "files": {"poet.gguf": 3, "../x": 1}}).encode()
    old = {"poet.gguf": b"old", "poet.gguf.json": report, "poet.gguf.md": b"", "model/extra.h5": b"x"}
    repository.commit("main", repository.files | old | {"picture.png": b"p", "x": b"", "data.json": b"{}"}, "older")
    pushed = loaded.push_to_hub("name/poet", card="# new\n")
    assert set(pushed.removed) == set(old)
    assert {"picture.png", "x", "data.json", ".gitattributes"} <= repository.files.keys()
    assert not repository.files.keys() & old.keys()


def test_a_name_alone_is_one_s_own(hub: HubServer, loaded: kg.Pipeline) -> None:
    assert loaded.push_to_hub("hf://poet").repository == "name/poet"
    assert "name/poet" in hub.repositories


@pytest.mark.slow
def test_a_pipeline_that_was_saved_and_loaded_keeps_what_is_known(hub: HubServer, preset: Path, tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("the cat\n\nhe ran\n\na mat\n\nhome again\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: [en]\n---\n", encoding="utf-8")
    tuner = kg.FullTuner(max_steps=1, batch_size=2, sequence_length=24, vocabulary="keep")
    pipe = kg.Pipeline(f"text:path={tmp_path}/poems.txt,split=paragraph", preset, tuner=tuner, held_out=0.3)
    report = pipe.fit(directory=tmp_path / "run", verbose=0)
    pipe.save(tmp_path / "saved")
    loaded = kg.Pipeline.load(tmp_path / "saved")
    pushed = loaded.push_to_hub("name/poet")
    assert pushed.card is not None
    text, metadata = pushed.card.text, pushed.card.metadata
    assert "text files; licence: cc-by-4.0" in text
    assert "| read | 4 |" in text
    assert "| tuner | `full:" in text
    assert metadata["language"] == ["en"]
    assert "license" not in metadata  # that of the data is none of the model
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        report.bits_per_character, abs=1e-4
    )
    assert saved_pipeline.read(tmp_path / "saved").report is not None
    for name, data in hub.repositories["name/poet"].files.items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.slow
def test_threads_push_to_repositories_of_their_own(hub: HubServer, loaded: kg.Pipeline) -> None:
    assert loaded.model is not None
    threads = [threading.Thread(target=loaded.push_to_hub, args=(f"name/poet{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"name/poet{n}" for n in range(3)} <= hub.repositories.keys()


@dataclasses.dataclass(frozen=True)
class Breaking(Exporter):
    """Writes a half, and fails."""

    suffixes = (".half",)

    def export(self, model: object, path: object, *, overwrite: bool = False) -> kg.Artefact:
        Path(str(path)).write_bytes(b"half")
        raise ExportError("The disk is full.")


def test_a_format_that_fails_half_way_leaves_nothing_here_or_there(
    hub: HubServer, loaded: kg.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ExportError, match="disk is full"):
        loaded.push_to_hub("name/poet", formats=["preset", Breaking()])
    assert hub.repositories == {}
    assert list((tmp_path / "temporary").rglob("*.half")) == []
    assert [path.name for path in (tmp_path / "temporary").iterdir() if any(path.rglob("*.weights.h5"))] == []
    loaded.push_to_hub("name/poet")
    before = dict(hub.repositories["name/poet"].branches)
    with pytest.raises(ExportError, match="disk is full"):
        loaded.push_to_hub("name/poet", formats=[Breaking()])
    assert hub.repositories["name/poet"].branches == before
