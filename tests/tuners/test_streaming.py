"""A corpus that is streamed gives the numbers of a stored one, within bounded memory, and goes on to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import encode, smallest_gpt2, texts, weights_of
from tuning_run import stream

import kerasgen as kg
from kerasgen.cli import main
from kerasgen.corpora import splits, windows
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.errors import ArgumentError, CheckpointError, CorpusArgumentError, TuneArgumentError
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset
from kerasgen.tokens.streaming import DocumentStream, Position, first_window
from kerasgen.tuners import stream_plan
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.objective import Objective
from kerasgen.tuners.sharding import Share

SETTINGS: dict[str, Any] = {"batch_size": 2, "sequence_length": 32, "learning_rate": 1e-2, "precision": "float32"}
STORED = kg.FullTuner(**SETTINGS, epochs=2)
WRITTEN = texts(24)
NUMBERED = [f"text {n} of the rain and the cat" for n in range(60)]


def tuned(tuner: kg.FineTuner, train: Any, directory: Path, model: Any = None, **how: Any) -> tuple[TuneReport, Any]:
    model = smallest_gpt2(dropout=0.2) if model is None else model
    documents = train(model.tokenizer)
    held_out = encode(model.tokenizer, texts(4, seed=1))
    return tuner.tune(model, documents, held_out, seed=3, directory=directory, verbose=0, **how), model


def streamed(written: list[str], characters: int) -> Any:
    return lambda tokenizer: stream(tokenizer, written, characters=characters)


def numbered_stream(tokenizer: Any, *, held_out: float = 0.2, characters: int = 300) -> DocumentStream:
    documents = [Document(text, str(n)) for n, text in enumerate(NUMBERED)]

    def read(tally: CorpusTally) -> Iterator[Document]:
        return map(tally.keep, documents)

    return DocumentStream(read, tokenizer, division=splits.Division(held_out), characters=characters)


@pytest.mark.slow
@pytest.mark.parametrize("tuner", [STORED, kg.LoraTuner(**SETTINGS, epochs=2, rank=2)])
def test_a_corpus_of_one_window_gives_the_stored_ones_numbers_to_the_bit(tuner: Any, tmp_path: Path) -> None:
    """Two passes over it, with dropout: losses, validations and weights."""
    stored, stored_model = tuned(tuner, lambda tokenizer: encode(tokenizer, WRITTEN), tmp_path / "stored")
    by_steps = dataclasses.replace(tuner, epochs=1, max_steps=stored.steps)
    report, model = tuned(by_steps, streamed(WRITTEN, 10**6), tmp_path / "streamed")
    assert (report.losses, report.validations) == (stored.losses, stored.validations)
    for found, expected in zip(weights_of(model), weights_of(stored_model), strict=True):
        np.testing.assert_array_equal(found, expected)
    for name in ("tokens", "characters", "fill", "epochs", "documents", "split_documents"):
        assert getattr(report, name) == pytest.approx(getattr(stored, name)), name
    assert (report.stopped, stored.stopped) == ("max_steps", "finished")


@pytest.mark.slow
def test_the_steps_of_the_first_window_are_those_of_its_documents_alone(tmp_path: Path) -> None:
    constant = dataclasses.replace(STORED, epochs=1, schedule="constant")
    first = WRITTEN[:8]
    characters = sum(map(len, first))
    alone, _ = tuned(constant, lambda tokenizer: encode(tokenizer, first), tmp_path / "alone")
    longer = dataclasses.replace(constant, max_steps=alone.steps + 3)
    report, _ = tuned(longer, streamed(WRITTEN, characters), tmp_path / "streamed")
    assert report.losses[: alone.steps] == alone.losses
    assert report.steps == alone.steps + 3


def plan_of(tuner: kg.FullTuner, source: DocumentStream) -> stream_plan.StreamPlan:
    from kerasgen.tuners.base import TuneJob

    train, _ = first_window(source)
    job = TuneJob(smallest_gpt2(), train, seed=3, directory=Path("unused"))
    settings = dataclasses.replace(tuner, packing="best_fit")
    objective = Objective(settings)

    def of(documents: Any) -> Any:
        return objective.plan(dataclasses.replace(job, train=documents), settings, Share())

    return stream_plan.over(train, of(train), of)


def test_a_pass_trains_on_every_training_document_once_and_on_no_held_out_one() -> None:
    """What each segment of each batch holds, read back as text: no document stands beside another in a segment."""
    tokenizer = smallest_gpt2().tokenizer
    source = numbered_stream(tokenizer)
    plan = plan_of(dataclasses.replace(STORED, epochs=1, max_steps=1000), source)
    step, seen = 0, []
    while True:
        number = plan.epoch_of(step)
        if plan.progress.begin.passes:
            break
        batches = plan.batches(number, first_step=step)
        for index in range(len(batches)):
            (batch,) = batches[index]
            for ids, targets, segments in zip(batch["token_ids"], batch["targets"], batch["segment_ids"], strict=True):
                for segment in range(1, segments.max() + 1):
                    inside = segments == segment
                    whole = [ids[inside][0], *targets[inside]]
                    seen.append(
                        tokenizer.decode([int(each) for each in whole if each not in tokenizer_ends(tokenizer)])
                    )
        step += len(batches) // plan.batches_per_step
    expected = [text for text in NUMBERED if splits.side(text, held_out=0.2) == "train"]
    assert plan.progress.number > 3, "there are several windows"
    assert sorted(seen) == sorted(expected)
    assert seen != expected, "they are shuffled"
    assert plan.tally()["kept"] == len(NUMBERED)
    assert plan.passes(step) == 1.0


def tokenizer_ends(tokenizer: Any) -> set[Any]:
    return {tokenizer.start_token_id, tokenizer.end_token_id}


def test_another_pass_and_another_seed_give_another_order() -> None:
    source = numbered_stream(smallest_gpt2().tokenizer, characters=10**6)
    plan = plan_of(dataclasses.replace(STORED, epochs=1, max_steps=1000), source)
    first = plan.epoch_of(0)
    orders = [plan.batches(first, first_step=0)[0][0]["token_ids"].tolist()]
    plan.epoch_of(plan.progress.end)
    orders.append(plan.batches(1, first_step=plan.progress.first_step)[0][0]["token_ids"].tolist())
    assert plan.progress.begin.passes == 1
    assert orders[0] != orders[1]


class StoppedError(RuntimeError):
    """Ends a run as a kill would."""


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 9, 13])
def test_a_run_that_was_stopped_in_any_window_goes_on_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    """Within the first window, in a later one, and in the second pass; checkpoints fall on windows' ends and within."""
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) >= stop_at:
                raise StoppedError

    tuner = kg.FullTuner(**SETTINGS, max_steps=16, checkpoint_every=1)
    read = streamed(WRITTEN, 150)
    whole, whole_model = tuned(tuner, read, tmp_path / "whole")
    assert whole.epochs > 1.0
    with pytest.raises(StoppedError):
        tuned(tuner, read, tmp_path / "broken", callbacks=[Stop()])
    report, model = tuned(tuner, read, tmp_path / "broken", resume=True)
    assert report.resumed_from == stop_at
    assert (report.losses, report.validations) == (whole.losses, whole.validations)
    for name in ("epochs", "documents", "fill", "corpus", "split_documents"):
        assert getattr(report, name) == getattr(whole, name), name
    for found, expected in zip(weights_of(model), weights_of(whole_model), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_run_whose_corpus_changed_before_its_window_does_not_go_on(tmp_path: Path) -> None:
    tuner = kg.FullTuner(**SETTINGS, max_steps=16, checkpoint_every=1)
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) >= 8:
                raise StoppedError

    with pytest.raises(StoppedError):
        tuned(tuner, streamed(WRITTEN, 150), tmp_path, callbacks=[Stop()])
    changed = [*WRITTEN[:8], "another text", *WRITTEN[9:]]
    with pytest.raises(CheckpointError, match="gives other documents than when the run was interrupted"):
        tuned(tuner, streamed(changed, 150), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="another run: documents differ"):
        tuned(tuner, streamed(["new", *WRITTEN[1:]], 150), tmp_path, resume=True)


def test_windows_hold_so_many_characters_and_no_side_mixes() -> None:
    source = numbered_stream(smallest_gpt2().tokenizer)
    begun: list[Position] = []
    for window in source.windows():
        if window.begin.passes:
            break
        begun.append(window.begin)
        written = int(window.train.characters.sum() + window.held_out.characters.sum())
        assert 300 <= written < 300 + max(map(len, NUMBERED)) or window.begin.documents > 48
    assert [each.documents for each in begun] == sorted({each.documents for each in begun})
    later = next(source.windows(begun[2]))
    assert later.begin == begun[2]
    with pytest.raises(CheckpointError):
        next(source.windows(dataclasses.replace(begun[2], digest="0" * 64)))


def test_memory_stays_with_a_window_however_large_the_corpus_is() -> None:
    """Ten megabytes of text pass in windows of a hundred thousand characters, in less than three megabytes."""
    tokenizer = smallest_gpt2().tokenizer
    line = "the cat sat on a mat in the rain and then he ran home " * 20

    def read(tally: CorpusTally) -> Iterator[Document]:
        return (tally.keep(Document(f"{n} {line}", str(n))) for n in range(10_000_000 // len(line)))

    source = DocumentStream(read, tokenizer, division=splits.Division(0.1), characters=100_000)
    characters = 0
    tracemalloc.start()
    try:
        for number, window in enumerate(source.windows()):
            if number == 1:
                tracemalloc.reset_peak()
            if number == 20 or window.begin.passes:
                break
            characters += int(window.train.characters.sum())
            del window
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert characters > 1_500_000
    assert peak < 3_000_000


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1, hidden_dim=16), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pipeline(preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(corpus: Any, *, streaming: Any = 2_000, **tuner: Any) -> kg.Pipeline:
        settings = {**SETTINGS, "max_steps": 6, **tuner}
        chosen = settings.pop("tuner", None) or kg.FullTuner(**settings)
        return kg.Pipeline(corpus, preset, tuner=chosen, streaming=streaming, cache=tmp_path / "cache")

    return make


def endless() -> Iterable[str]:
    return (f"text {n} of the rain, the cat and the mat" for n in itertools.count())


def test_an_endless_corpus_is_tuned_on_from_a_function_and_leaves_nothing_on_disk(
    pipeline: Any, tmp_path: Path
) -> None:
    pipe = pipeline(endless)
    report = pipe.fit(verbose=0)
    assert (report.steps, report.stopped, report.epochs) == (6, "max_steps", 0.0)
    assert report.corpus["kept"] < 200, "no more was read than was needed"
    assert report.validations[-1].step == 6
    assert "within the first pass" in str(report)
    assert not (tmp_path / "cache" / "tokens").exists()
    assert pipe.evaluate().documents > 0
    assert "streaming=2000" in repr(pipe)
    loaded = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert loaded.streaming == 2000


@pytest.mark.slow
def test_parquet_mixtures_and_lines_are_streamed_too(pipeline: Any, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in NUMBERED), encoding="utf-8")
    found = [f"jsonl:path={lines}"]
    found.append(f"mix:of=3 * jsonl:path={lines} | 1 * sample")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        pass
    else:
        pq.write_table(pa.table({"text": NUMBERED}), tmp_path / "texts.parquet", row_group_size=7)
        found.append(f"parquet:path={tmp_path / 'texts.parquet'},field=text")
    for corpus in found:
        report = pipeline(corpus, streaming=400, max_steps=2).fit(verbose=0)
        assert report.steps == 2, corpus
        assert report.corpus["kept"] > 8, corpus


@pytest.mark.slow
def test_a_masked_model_is_streamed_with_the_stored_ones_numbers(tmp_path: Path) -> None:
    folder = encoders.write("roberta", tmp_path / "roberta")
    written = [" ".join(encoders.letters(5 + n % 7)) for n in range(24)]

    def report(**how: Any) -> TuneReport:
        settings = {"batch_size": 4, "sequence_length": 16, "precision": "float32"} | how.pop("tuner")
        model = Hub(str(folder)).load()
        train = how["train"](model.tokenizer)
        held_out = encode(model.tokenizer, written[:3])
        return kg.FullTuner(**settings).tune(
            model, train, held_out, seed=3, directory=tmp_path / how["name"], verbose=0
        )

    stored = report(train=lambda tokenizer: encode(tokenizer, written), tuner={"epochs": 2}, name="stored")
    found = report(train=streamed(written, 10**6), tuner={"max_steps": stored.steps}, name="streamed")
    assert (found.losses, found.validations) == (stored.losses, stored.validations)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": None}, "max_steps must say how many optimizer steps"),
        ({"epochs": 2}, "Leave epochs out"),
        ({"tuner": kg.DpoTuner(max_steps=2)}, "DpoTuner asks the model about every pair"),
    ],
)
def test_a_run_without_an_end_is_refused_before_anything_is_read(pipeline: Any, settings: Any, said: str) -> None:
    def never() -> Iterable[str]:
        raise AssertionError("the corpus was read")

    with pytest.raises(TuneArgumentError, match=said):
        pipeline(never, **settings).fit(verbose=0)


@pytest.mark.parametrize("value", [0, -1, 1.5, "yes", None])
def test_streaming_takes_a_truth_or_a_size(value: Any) -> None:
    with pytest.raises(CorpusArgumentError, match="streaming must be True, False, or how many characters"):
        kg.Pipeline("sample", streaming=value)


def test_what_would_be_kept_in_memory_or_read_whole_is_refused() -> None:
    with pytest.raises(CorpusArgumentError, match="An iterator can be drawn once"):
        kg.Pipeline(iter(NUMBERED), streaming=True)
    with pytest.raises(CorpusArgumentError, match="An iterator can be drawn once"):
        windows.require_restartable(kg.corpora.mix.Mix([(1, iter(NUMBERED)), (2, "sample")]))
    with pytest.raises(ArgumentError, match="A random sample is of a corpus that was read once"):
        kg.Pipeline("sample", streaming=True, sample="random", max_documents=3)
    with pytest.raises(CorpusArgumentError, match="must return an iterable of texts"):
        list(windows.Restarted(lambda: 7))  # type: ignore[arg-type, return-value]


@pytest.mark.slow
def test_the_command_line_streams(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    command = ["fit", "sample", "--model", str(preset), "--streaming", "-o", str(tmp_path / "tuned"), "--json"]
    assert main(command) == 2
    assert "--max-steps must say" in capsys.readouterr().err
    assert main([*command, "--max-steps", "1", "--set", "batch_size=1", "--set", "sequence_length=32"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["steps"] == 1
