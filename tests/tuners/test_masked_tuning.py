"""Masked language models learn masked tokens: the masks, the rows, the losses, and runs that go on to the bit."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from places import SUPPORT

import kerasgen as kg
from kerasgen.corpora.base import Document
from kerasgen.errors import TuneArgumentError
from kerasgen.models.hub import Hub
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tokens.masked_packing import masked_block, pack_masked
from kerasgen.tuners.masking import KINDS, Masking


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.write("roberta", tmp_path_factory.mktemp("roberta"))


@pytest.fixture
def model(folder: Path) -> Any:
    return Hub(str(folder)).load()


def documents(model: Any, texts: list[str]) -> EncodedDocuments:
    return encode_documents((Document(text=text, id=str(n)) for n, text in enumerate(texts)), model.tokenizer)


def words(count: int, seed: int = 0) -> list[str]:
    draws = np.random.default_rng(seed)
    letters = np.asarray(encoders.letters(26))
    return [" ".join(letters[draws.integers(0, 26, draws.integers(1, 12))].tolist()) for _ in range(count)]


def test_rows_hold_every_token_once_between_start_and_end(model: Any) -> None:
    encoded = documents(model, [*words(20), "a " * 50])
    rows = pack_masked(encoded, sequence_length=16)
    block = masked_block(encoded, rows, range(len(rows)), size=len(rows) + 1, start=0, end=2)
    assert (block.weights.sum(), rows.pieces.targets.sum()) == ((encoded.lengths - 2).sum(),) * 2
    for row in range(len(rows)):
        for segment in range(1, block.segment_ids[row].max() + 1):
            inside = block.segment_ids[row] == segment
            ids = block.token_ids[row, inside]
            assert (ids[0], ids[-1]) == (0, 2)
            assert block.positions[row, inside].tolist() == list(range(len(ids)))
            assert block.weights[row, inside].tolist() == [0.0, *[1.0] * (len(ids) - 2), 0.0]
    text = np.concatenate([ids[1:-1] for ids in encoded])
    assert np.array_equal(np.sort(block.token_ids[block.weights > 0]), np.sort(text))
    assert not block.segment_ids[-1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_drawn_by_seed_epoch_and_row_alone(model: Any, kind: Any) -> None:
    encoded = documents(model, words(60))
    rows = pack_masked(encoded, sequence_length=32)
    block = masked_block(encoded, rows, range(len(rows)), size=len(rows), start=0, end=2)
    masking = Masking(model.tokenizer, kind)
    first = masking.draw(block, [[7, 0, row] for row in range(len(rows))])
    again = masking.draw(block, [[7, 0, row] for row in range(len(rows))])
    later = masking.draw(block, [[7, 1, row] for row in range(len(rows))])
    assert np.array_equal(first.token_ids, again.token_ids)
    assert not np.array_equal(first.token_ids, later.token_ids)
    chosen = first.weights > 0
    assert (block.weights[chosen] > 0).all()
    assert np.array_equal(first.token_ids[~chosen], block.token_ids[~chosen])
    assert np.array_equal(first.targets, block.token_ids)
    assert chosen.sum() / (block.weights > 0).sum() == pytest.approx(0.15, abs=0.03)


def test_eight_of_ten_are_masks_one_is_random_and_one_stays(model: Any) -> None:
    encoded = documents(model, words(3000))
    rows = pack_masked(encoded, sequence_length=32)
    block = masked_block(encoded, rows, range(len(rows)), size=len(rows), start=0, end=2)
    drawn = Masking(model.tokenizer).draw(block, [[0, 0, row] for row in range(len(rows))])
    chosen = drawn.weights > 0
    read, stood = drawn.token_ids[chosen], drawn.targets[chosen]
    assert (read == model.mask_token_id).mean() == pytest.approx(0.8, abs=0.03)
    assert (read == stood).mean() == pytest.approx(0.1 + 0.1 / 91, abs=0.02)
    assert not np.isin(read[read != model.mask_token_id], list(model.tokenizer.special_tokens.values())).any()


def test_spans_mask_every_place_of_a_piece_as_often_as_another_and_no_more_than_asked_for(model: Any) -> None:
    encoded = documents(model, words(12))
    rows = pack_masked(encoded, sequence_length=32)
    block = masked_block(encoded, rows, range(len(rows)), size=len(rows), start=0, end=2)
    masking = Masking(model.tokenizer, "spans", 0.15)
    places, seen = block.weights > 0, np.zeros(block.weights.shape)
    draws = 3_000
    for n in range(draws):
        drawn = masking.draw(block, [[n, row] for row in range(len(block.weights))]).weights > 0
        assert (drawn.sum(axis=1) == np.maximum(np.round(0.15 * places.sum(axis=1)), places.any(axis=1))).all()
        seen += drawn
    for row in range(len(seen)):
        shares = seen[row][places[row]] / draws
        if len(shares):
            assert np.abs(shares - shares.mean()).max() < 0.04


def test_whole_words_are_masked_together_and_spans_stand_side_by_side(tmp_path: Path) -> None:
    from kerasgen.models import encoders as architectures
    from kerasgen.models import masked_tokenizers

    architecture = architectures.named("bert")
    assert architecture is not None
    tokenizer = masked_tokenizers.of_transformers(str(encoders.tokenizer_folder("bert", tmp_path)), architecture)
    texts = ["the unforgettable riverside neighbours 昨夜雨疏 whispered"] * 40
    encoded = encode_documents((Document(text=text, id="") for text in texts), tokenizer)
    rows = pack_masked(encoded, sequence_length=64, packing="none")
    block = masked_block(
        encoded, rows, range(len(rows)), size=len(rows), start=tokenizer.start_token_id or 0, end=tokenizer.end_token_id
    )
    begins = np.asarray([tokenizer.token_bytes(int(n))[:1] == b" " or n == 0 for n in block.token_ids[0]])
    chinese = np.asarray([tokenizer.token_bytes(int(n))[:1] > b"\x7f" for n in block.token_ids[0]])
    drawn = Masking(tokenizer, "whole_words", 0.3).draw(block, [[row] for row in range(len(rows))])
    word = np.cumsum(begins | chinese)
    for row in range(len(rows)):
        inside = block.weights[row] > 0
        chosen = set(word[drawn.weights[row] > 0].tolist())
        assert all(((drawn.weights[row] > 0)[inside & (word == n)]).all() for n in chosen)
    spans = Masking(tokenizer, "spans", 0.3).draw(block, [[row] for row in range(len(rows))])
    alone = Masking(tokenizer, "tokens", 0.3).draw(block, [[row] for row in range(len(rows))])
    neighbours = [(each.weights[:, 1:] * each.weights[:, :-1]).sum() for each in (spans, alone)]
    assert neighbours[0] > 2 * neighbours[1]


def test_the_loss_is_that_of_transformers_on_the_same_masks(model: Any) -> None:
    from kerasgen.tuners.masked_objective import MaskedTrainer

    ids, labels = encoders.example(model.vocabulary_size)
    _, loss = encoders.logits_and_loss("roberta")
    trainer = MaskedTrainer(model)
    weights = (labels >= 0) / (labels >= 0).sum()
    inputs = {
        "token_ids": ids,
        "targets": np.maximum(labels, 0),
        "positions": np.tile(np.arange(14, dtype=np.int32), (2, 1)),
        "segment_ids": np.ones_like(ids),
        "weights": weights.astype(np.float32),
    }
    assert float(trainer.weighted(inputs).loss) == pytest.approx(loss, abs=1e-4)
    nll = np.asarray(trainer(inputs, training=False))
    assert float((nll * weights).sum()) == pytest.approx(loss, abs=1e-4)


def tuner(**settings: Any) -> Any:
    return kg.FullTuner(**{"batch_size": 4, "sequence_length": 28, "learning_rate": 3e-3, **settings})


def pipeline(folder: Path, **settings: Any) -> Any:
    return kg.Pipeline(words(60), str(folder), tuner=tuner(**settings), held_out=0.2, seed=3)


@pytest.mark.essential
@pytest.mark.slow
def test_a_run_learns_and_goes_on_to_the_bit(folder: Path, tmp_path: Path) -> None:
    whole = pipeline(folder, epochs=3)
    report = whole.fit(directory=tmp_path / "whole", verbose=0)
    assert report.validations[-1].loss < report.validations[0].loss
    assert report.bits_per_character < report.bits_per_character_before
    assert len(report.losses) == report.steps

    class StopError(Exception):
        pass

    import keras

    class Breaking(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise StopError

    broken = pipeline(folder, epochs=3)
    with pytest.raises(StopError):
        broken.fit(directory=tmp_path / "broken", callbacks=[Breaking()], verbose=0)
    resumed = pipeline(folder, epochs=3)
    going_on = resumed.fit(directory=tmp_path / "broken", resume=True, callbacks=[Breaking()][:0], verbose=0)
    assert going_on.resumed_from
    assert going_on.losses == report.losses
    assert [v.loss for v in going_on.validations] == [v.loss for v in report.validations]
    ours, theirs = whole.model.network.read(), resumed.model.network.read()
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


RUN = """
import sys, time
from pathlib import Path
import keras
import test_masked_tuning as here
folder, directory, resume = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume"

class Waiting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 8 and not resume:
            (directory / "waiting").touch()
            time.sleep(600)

here.killed(folder, sys.argv[4]).fit(directory=directory, resume=resume, callbacks=[Waiting()], verbose=0)
"""


def killed(folder: Path, kind: str) -> Any:
    settings = {"batch_size": 4, "sequence_length": 28, "learning_rate": 3e-3, "epochs": 2, "checkpoint_every": 3}
    made = kg.LoraTuner(rank=2, **settings) if kind == "lora" else kg.FullTuner(masking="spans", **settings)
    return kg.Pipeline(words(60), str(folder), tuner=made, held_out=0.2, seed=3)


@pytest.mark.nightly
@pytest.mark.one_backend
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_killed_run_goes_on_to_the_bit(folder: Path, tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "killed"
    directory.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parent), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", RUN, str(folder), str(directory), "new", kind]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": "jax"})
    try:
        for _ in range(3000):
            if (directory / "waiting").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    (directory / "waiting").unlink()
    resumed, whole = killed(folder, kind), killed(folder, kind)
    going_on = resumed.fit(directory=directory, resume=True, verbose=0)
    report = whole.fit(directory=tmp_path / "whole", verbose=0)
    assert going_on.resumed_from
    assert going_on.losses == report.losses
    assert [each.loss for each in going_on.validations] == [each.loss for each in report.validations]
    ours, theirs = whole.model.network.read(), resumed.model.network.read()
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize(("bound", "least"), [(1, 1), (64, 30)])
def test_a_long_document_is_validated_on_as_many_tokens_as_its_rows_allow(
    model: Any, tmp_path: Path, bound: int, least: int
) -> None:
    """A token costs the positions of its row, and not of its document."""
    tuner = kg.FullTuner(max_steps=1, batch_size=2, sequence_length=16, precision="float32", validation_tokens=bound)
    book = documents(model, [" ".join(words(500))])
    report = tuner.tune(model, documents(model, words(4)), book, seed=0, directory=tmp_path, verbose=0)
    assert least <= report.validations[-1].tokens <= max(bound, 3)
    assert np.isfinite(report.validations[-1].bits_per_character)


def test_adapters_learn_float32_in_layers_that_compute_in_bfloat16(folder: Path) -> None:
    losses = []
    for precision in ("float32", "mixed_bfloat16"):
        tuner = kg.LoraTuner(rank=2, max_steps=3, batch_size=4, sequence_length=28, precision=precision)
        report = kg.Pipeline(words(20), str(folder), tuner=tuner, seed=3).fit(verbose=0)
        losses.append(report.losses)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)  # dropout draws otherwise in bfloat16
    assert losses[1] != losses[0]


@pytest.mark.slow
def test_adapters_are_learned_beside_frozen_weights_saved_and_merged(folder: Path, tmp_path: Path) -> None:
    pipe = kg.Pipeline(
        words(60), str(folder), tuner=kg.LoraTuner(rank=2, batch_size=4, sequence_length=28, learning_rate=1e-2), seed=3
    )
    before = pipe.model.network.read()
    report = pipe.fit(verbose=0)
    after = pipe.model.network.read()
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert changed == {f"layers.{n}.{role}.kernel" for n in range(2) for role in ("query", "value")}
    assert report.trainable_parameters == 2 * 2 * 2 * (16 + 16)
    text = f"a b {pipe.model.mask_token} c"
    ways = pipe.fill(text, top=3)
    pipe.save(tmp_path / "apart")
    assert kg.Pipeline.load(tmp_path / "apart").fill(text, top=3) == ways
    pipe.save(tmp_path / "merged", merge_adapters=True)
    again = kg.Pipeline.load(tmp_path / "merged").fill(text, top=3)
    assert [way.token_ids for way in again] == [way.token_ids for way in ways]
    pipe.merge()
    assert pipe.fill(text, top=1)[0].probability == pytest.approx(ways[0].probability, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"packing": "concatenate"}, "whole"),
        ({"remat": True}, "causal models"),
        ({"vocabulary": "extend"}, "vocabulary of a masked"),
        ({"sequence_length": 2}, "room for a token"),
        ({"sequence_length": 40}, "30 positions"),
    ],
)
def test_settings_without_meaning_are_refused_before_any_work(
    folder: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(TuneArgumentError, match=said):
        pipeline(folder, **settings).fit(directory=tmp_path / "run", verbose=0)


def test_masks_are_refused_for_a_causal_model() -> None:
    poems = ["床前明月光，疑是地上霜。"] * 30
    pipe = kg.Pipeline(poems, "starter", tuner=tuner(masking="spans", sequence_length=32, vocabulary="keep"))
    with pytest.raises(TuneArgumentError, match="masked language models"):
        pipe.fit(verbose=0)


@pytest.mark.parametrize("wrong", [{"masking": "words"}, {"mask_rate": 0.0}, {"mask_rate": 1.5}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TuneArgumentError, match=next(iter(wrong))):
        dataclasses.replace(tuner(), **wrong)
