"""A run of which nothing was named: what was chosen is told, stays the same when the run goes on, and is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import weights_of

import kerasgen as kg
from kerasgen.models.base import LanguageModel, ModelSource

POEMS = [f"{a}{b}{c}花落知多少" for a in "春夏秋冬" for b in "風雨雲月" for c in "山水日星木石草竹"]
ENGLISH = [
    f"the {a} and the other {b} ran home then" for a in ("rain", "cat", "mat") for b in ("he", "they", "one")
] * 8
RATE: dict[str, Any] = {"learning_rate": 1e-2, "schedule": "constant"}  # one graph for runs of any length


class Tiny(ModelSource):
    """A GPT-2 that spells English, and Chinese by bytes."""

    def load(self) -> LanguageModel:
        return tiny_gpt2(400, num_layers=1, hidden_dim=16, max_sequence_length=48, dropout=0.1)


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KERASGEN_CACHE", str(tmp_path / "cache"))


def pipeline(corpus: list[str], **settings: Any) -> kg.Pipeline:
    return kg.Pipeline(corpus, Tiny(), tuner=kg.FullTuner(**settings), held_out=0.3, seed=3)


def fingerprint(directory: Path) -> dict[str, Any]:
    newest = max(directory.glob("step-*"))
    return json.loads((newest / "state.json").read_text(encoding="utf-8"))["fingerprint"]


@pytest.mark.essential
def test_a_run_of_which_nothing_was_named_goes_on_to_the_bit_as_it_was_chosen(tmp_path) -> None:
    import keras

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) >= 5:
                raise RuntimeError("killed")

    settings: dict[str, Any] = {
        "epochs": 3,
        **RATE,
        "validate_every": 2,
        "validation_tokens": 60,
        "checkpoint_every": 2,
        "patience": 9,
    }
    whole, stopped, resumed = (pipeline(POEMS, **settings) for _ in range(3))
    expected = whole.fit(directory=tmp_path / "whole", verbose=0)
    with pytest.raises(RuntimeError, match="killed"):
        stopped.fit(directory=tmp_path / "stopped", callbacks=[Stop()], verbose=0)
    report = resumed.fit(directory=tmp_path / "stopped", verbose=0)
    assert report.resumed_from == 4
    assert report.vocabulary["choice"] == "extend"
    assert (report.losses, report.validations) == (expected.losses, expected.validations)
    for one, other in zip(weights_of(resumed.model), weights_of(whole.model), strict=True):
        np.testing.assert_array_equal(one, other)

    assert report.reasons.keys() == {"backend", "precision", "sequence_length", "batch_size"}
    said = fingerprint(tmp_path / "stopped")
    chosen = (said["sequence_length"], said["batch_size"], said["precision"], said["packing"])
    assert chosen == (report.sequence_length, report.batch_size, report.precision, report.packing)
    assert report.batch_size * report.sequence_length <= 320
    for line in (f"sequence_length: {report.sequence_length}, because", f"batch_size: {report.batch_size}, because"):
        assert line in str(report)


@pytest.mark.one_backend
def test_every_validation_scores_the_same_bounded_sample_and_the_report_says_of_how_many(tmp_path) -> None:
    report = pipeline(ENGLISH + POEMS, epochs=2, validation_tokens=200).fit(directory=tmp_path, verbose=0)
    assert len(report.validations) == 3
    sizes = {(found.documents, found.tokens) for found in report.validations}
    assert len(sizes) == 1
    documents, tokens = sizes.pop()
    assert 100 < tokens <= 200
    assert 1 < documents < report.held_out_documents
    last = report.validations[-1]
    assert f"± {last.standard_error:.3f} after, on {documents} of {report.held_out_documents} documents" in str(report)


def test_without_a_bound_a_validation_is_the_evaluation_of_all_that_is_held_out(tmp_path) -> None:
    pipe = pipeline(ENGLISH, validation_tokens=None, sequence_length=48, batch_size=4, precision="float32")
    report = pipe.fit(directory=tmp_path, verbose=0)
    evaluated = pipe.evaluate()
    assert report.validations[-1].documents == report.held_out_documents == evaluated.documents
    assert report.bits_per_character == pytest.approx(evaluated.bits_per_character, rel=1e-5)


@pytest.mark.one_backend
class TestTheVocabulary:
    def test_one_that_spells_the_texts_badly_is_extended(self) -> None:
        pipe = pipeline(POEMS, max_steps=1, **RATE)
        report = pipe.fit(verbose=0)
        assert report.vocabulary["choice"] == "extend"
        assert len(pipe.tokenizer.encode("花")) == 1
        assert "tokens a character before" in str(report)

    @pytest.mark.parametrize(
        ("corpus", "tuner"),
        [
            (ENGLISH, kg.FullTuner(max_steps=1)),
            (POEMS, kg.LoraTuner(max_steps=1, rank=2)),
            (POEMS, kg.FullTuner(max_steps=1, vocabulary="keep")),
        ],
        ids=["it spells them well", "adapters", "asked for"],
    )
    def test_any_other_is_left_alone(self, corpus: list[str], tuner: kg.FineTuner) -> None:
        pipe = kg.Pipeline(corpus, Tiny(), tuner=tuner)
        before = pipe.tokenizer.vocabulary
        pipe.fit(verbose=0)
        assert pipe.tokenizer.vocabulary == before

    def test_a_run_decides_from_one_reading_of_the_corpus(self) -> None:
        class Read(kg.corpora.CorpusSource):
            times = 0

            def documents(self, tally=None):
                Read.times += 1
                for n, text in enumerate(ENGLISH):
                    yield tally.keep(kg.Document(text, str(n)))

        for times in (1, 2):  # a small corpus stays in memory, and nothing else is kept of it
            kg.Pipeline(Read(), Tiny(), tuner=kg.FullTuner(max_steps=1)).fit(verbose=0)
            assert Read.times == times
