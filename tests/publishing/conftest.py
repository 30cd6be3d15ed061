"""A hub to push to, and a small pipeline to push: what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A `hub_server.HubServer` of this test alone, which the hub's client takes for the hub."""
    import hub_server  # it needs the hub's client, which some of the tests do without

    with hub_server.serving() as serving:
        hub_server.use(serving, tmp_path / "hf", monkeypatch)
        # The client waits up to 8 s between two of its tries.
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield serving


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the preset of a small untrained model."""
    return save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def pipe(preset: Path) -> kg.Pipeline:
    """A pipeline with that model and greedy search."""
    return kg.Pipeline(model=preset, sampler="greedy")
