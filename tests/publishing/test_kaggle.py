"""A preset goes to Kaggle by KerasHub's `upload_preset` and Kaggle's own client, over HTTP, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kerasgen as kg
from kerasgen.errors import HubError

pytest.importorskip("kagglehub", reason="Kaggle's client is a package of its own")

import kaggle_server
from kaggle_server import KaggleServer

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

ADDRESS = "kaggle://user/poet/keras/tang"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KaggleServer]:
    with kaggle_server.serving(monkeypatch, tmp_path / "kaggle") as server:
        yield server


@pytest.mark.essential
def test_what_is_pushed_lies_there_and_comes_back(kaggle: KaggleServer, pipe: kg.Pipeline) -> None:
    pushed = pipe.push_to_hub(ADDRESS)
    assert kaggle.models["user/poet"]["isPrivate"]
    (files,) = kaggle.versions["user/poet/keras/tang"]
    assert {name: len(data) for name, data in files.items()} == pushed.files
    assert files["README.md"].decode() == str(pushed.card)
    assert pushed.artefacts[""].report["parity"]["greedy_equal"]
    wanted = pipe.generate(["a", "the", "春"], max_new_tokens=12)
    back = kg.Pipeline(model=ADDRESS, sampler="greedy")
    assert back.generate(["a", "the", "春"], max_new_tokens=12) == wanted
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone.from_preset(ADDRESS)
    assert backbone.count_params() == pipe.model.network.count_params()
    pipe.push_to_hub(ADDRESS)
    assert len(kaggle.versions["user/poet/keras/tang"]) == 2, "Kaggle keeps versions"


@pytest.mark.parametrize("method", ["CreateModel", "StartBlobUpload", "CreateModelInstance"])
def test_who_has_not_the_right_is_told(kaggle: KaggleServer, pipe: kg.Pipeline, method: str) -> None:
    kaggle.refused = method
    with pytest.raises(HubError, match=r"was not pushed: .*(permission|denied|403)") as caught:
        pipe.push_to_hub(ADDRESS)
    assert caught.value.status == 403
    assert kaggle.versions == {}
