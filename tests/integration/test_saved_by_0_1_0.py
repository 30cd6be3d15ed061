"""What version 0.1.0 saved is loaded, generates what it did then, and a run that it began goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import TESTS

import kerasgen as kg
from kerasgen.errors import CheckpointError, KerasgenWarning

SAVED = TESTS / "golden" / "from_0_1_0"
EXPECTED: dict[str, Any] = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))
RUN = {"epochs": 2, "learning_rate": 0.003, "batch_size": 2, "sequence_length": 32, "warmup_steps": 2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: adapters know their model by a relative path, and a run writes into its directory."""
    return shutil.copytree(SAVED, tmp_path_factory.mktemp("v0_1_0") / "saved")


@pytest.fixture
def settings() -> dict[str, Any]:
    """The pipeline of the run: its own texts and model."""
    source = (SAVED / "save.py").read_text(encoding="utf-8")
    texts = source[source.index("TEXTS = [") + len("TEXTS = ") : source.index("]\n") + 1]
    return {"corpus": json.loads(texts.replace(",\n]", "\n]")), "model": "./base", "seed": 3}


@pytest.mark.parametrize("name", ["pipeline", "adapters"])
def test_a_saved_pipeline_generates_the_same_ids(saved: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    told = pytest.warns(KerasgenWarning, match="don't say which weights") if name == "adapters" else nullcontext()
    with told:
        pipe = kg.Pipeline.load(name)
        _ = pipe.model
    for sampler, ids in EXPECTED[name].items():
        found = pipe.generate(
            ["the rain", "a small", "who"],
            sampler=sampler,
            max_new_tokens=24,
            valid_utf8=False,
            return_logprobs=True,
        )
        assert [list(text.token_ids) for text in found] == ids
    assert pipe.report is None or pipe.report.steps == 18


def test_an_interrupted_run_goes_on_to_the_same_losses(
    saved: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    tuner = kg.FullTuner(**RUN, vocabulary="keep", validation_tokens=None, precision="float32")
    report = kg.Pipeline(**settings, tuner=tuner).fit(directory="run", resume=True, verbose=0)
    assert (report.resumed_from, report.steps) == (5, 18)
    np.testing.assert_allclose(report.losses, EXPECTED["losses"], rtol=1e-4)
    np.testing.assert_allclose([one.loss for one in report.validations], EXPECTED["validations"], rtol=1e-4)
    assert len(report.accuracies) == 18 - 5, "0.1.0 counted none"


def test_an_interrupted_run_of_adapters_goes_on_in_the_form_that_they_have(
    saved: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    kept = {"vocabulary": "keep", "validation_tokens": None, "precision": "float32"}
    tuner = kg.LoraTuner(rank=2, form="keras", **RUN, **kept)
    report = kg.Pipeline(**settings, tuner=tuner).fit(directory="adapters_run", resume=True, verbose=0)
    assert (report.resumed_from, report.steps) == (5, 18)
    np.testing.assert_allclose(report.losses, EXPECTED["adapters_losses"], rtol=1e-4)


def test_other_settings_than_its_run_had_are_named(
    saved: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    shutil.copytree(SAVED / "run", tmp_path / "run")
    tuner = kg.FullTuner(**RUN, vocabulary="keep", packing="none", precision="float32")
    pipe = kg.Pipeline(**settings, tuner=tuner)
    named = r"packing \('best_fit' there, 'none' here\), validation_tokens \(None there, 16384 here\) differ"
    with pytest.raises(CheckpointError, match=named):
        pipe.fit(directory=tmp_path / "run", resume=True, verbose=0)
