"""Texts written on the way are kept, are the same in each run, and change no number of the run."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

TEXTS = [f"the cat sat on mat number {n}" for n in range(40)]


def test_samples_change_no_number_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    preset = save_preset(tiny_gpt2(num_layers=1, dropout=0.1), tmp_path / "tiny")

    def run(**settings: int) -> tuple[kg.TuneReport, list[np.ndarray]]:
        tuner = kg.FullTuner(max_steps=4, batch_size=4, sequence_length=32, validate_every=2, **settings)
        pipe = kg.Pipeline(corpus=TEXTS, model=preset, tuner=tuner, held_out=0.2, seed=3)
        report = pipe.fit(verbose=0, sample_prompt="the")
        return report, [np.asarray(weight) for weight in pipe.model.network.weights]

    plain, weights = run()
    first, others = run(sample_every=1)
    second, _ = run(sample_every=1)
    assert plain.samples == ()
    assert [sample.step for sample in first.samples] == [1, 2, 3, 4]
    assert first.samples == second.samples
    assert first.losses == plain.losses
    assert first.validations == plain.validations
    assert all(np.array_equal(one, other) for one, other in zip(weights, others, strict=True))


def test_texts_of_a_run_and_an_evaluation_fit_into_a_small_model(tmp_path, monkeypatch):
    """They get as many tokens as there is room for; a beginning without room is told before the work."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    preset = save_preset(tiny_gpt2(num_layers=1, max_sequence_length=32), tmp_path / "tiny")
    tuner = kg.FullTuner(max_steps=2, batch_size=4, sample_every=1)
    pipe = kg.Pipeline(corpus=TEXTS, model=preset, tuner=tuner, held_out=0.2)
    with pytest.raises(kg.errors.TuneArgumentError, match=r"sample_prompt.*32 positions"):
        pipe.fit(verbose=0, sample_prompt="the cat sat " * 20)
    assert len(pipe.fit(verbose=0, sample_prompt="the cat").samples) == 2
    assert pipe.evaluate(texts=2, prompt="the cat", self_bleu=False).writing is not None
    with pytest.raises(kg.errors.ArgumentError, match=r"prompt.*32 positions"):
        pipe.evaluate(texts=1, prompt="the cat sat " * 20, self_bleu=False)
