"""Corpora of tables, of the hub's datasets, of several others, and of another without its near duplicates."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any

import pytest

import kerasgen as kg
from kerasgen.corpora.base import CorpusSource, CorpusTally
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError
from kerasgen.testing.corpora import CorpusContract

pa = pytest.importorskip("pyarrow", reason="Parquet is an extra: kerasgen[parquet]")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.one_backend

TALK = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]


def table(path: Path, columns: dict[str, Any], **settings: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    parquet.write_table(pa.table(columns), path, **settings)
    return path


def texts(corpus: CorpusSource, tally: CorpusTally | None = None) -> list[str]:
    return [document.text for document in corpus.documents(tally)]


class TestParquetContract(CorpusContract):
    bad_arguments = ({"path": ""}, {"field": ""}, {"id_field": ""}, {"on_error": "ignore"}, {"prompt": "a"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        table(
            tmp_path / "a.parquet",
            {"body": ["one", None, "two"], "id": [1, 2, 3], "day": [datetime.date(2026, 1, 2)] * 3},
        )
        return kg.Parquet(tmp_path, field="body", id_field="id")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"parquet:path={tmp_path},field=body,id_field=id"


class TestDatasetsContract(CorpusContract):
    bad_arguments = ({"name": ""}, {"split": ""}, {"streaming": 1}, {"field": ""}, {"on_error": "ignore"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        pytest.importorskip("datasets", reason="Hugging Face datasets are an extra: kerasgen[datasets]")
        table(tmp_path / "data" / "train.parquet", {"text": ["one", " ", "two"], "n": [1, 2, 3]})
        return kg.Datasets(str(tmp_path / "data"))

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"datasets:name={tmp_path}/data"


class TestMixContract(CorpusContract):
    bad_arguments = ({"of": []}, {"of": [1]}, {"of": [(0, ["a"])]}, {"of": "sample", "until": "never"}, {"of": "x:y"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
        (tmp_path / "b.txt").write_text("four\nfive")
        return kg.Mix(f"3 * text:path={tmp_path}/a.txt,split=line | text:path={tmp_path}/b.txt,split=line", seed=7)

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        of = f"3 * text:path={tmp_path}/a.txt,split=line | text:path={tmp_path}/b.txt,split=line"
        return f'mix:"of={of}",seed=7'


class TestDeduplicatedContract(CorpusContract):
    bad_arguments = ({"of": "sample", "threshold": 0}, {"of": "sample", "shingle": 0}, {"of": 3})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        pytest.importorskip("datasketch", reason="near duplicates are an extra: kerasgen[dedup]")
        (tmp_path / "a.txt").write_text("one two three four\nOne  two three four\nfive six seven eight")
        return kg.Deduplicated(f"text:path={tmp_path}/a.txt,split=line")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f'dedup:"of=text:path={tmp_path}/a.txt,split=line"'


def test_rows_of_all_row_groups_and_files_are_counted(tmp_path: Path) -> None:
    count = 1000
    table(tmp_path / "in" / "a.parquet", {"text": [f"text {n}" for n in range(count)]}, row_group_size=70)
    table(tmp_path / "in" / "deep" / "b.parquet", {"text": ["", None, "last"], "tags": [["x"], [], None]})
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    tally = CorpusTally()
    found = list(kg.Parquet(tmp_path / "in").documents(tally))
    assert [each.text for each in found] == [*(f"text {n}" for n in range(count)), "last"]
    assert found[-1].id == "deep/b.parquet:3"
    assert found[-1].metadata == {"tags": None}
    assert (tally.read, tally.kept, dict(tally.dropped)) == (count + 3, count + 1, {"empty": 2})


def test_pairs_conversations_and_responses_are_those_of_other_formats(tmp_path: Path) -> None:
    columns = {
        "question": ["a?", "c?"],
        "good": ["b", "d"],
        "bad": ["x", "y"],
        "talk": [TALK, [*TALK[:1], {"role": "assistant", "content": "e"}]],
        "lines": [["one", "two"], ["three"]],
    }
    table(tmp_path / "a.parquet", columns)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for settings in (
        {"prompt": "question", "response": "good", "separator": " "},
        {"prompt": "question", "chosen": "good", "rejected": "bad"},
        {"chosen": "good", "rejected": "bad", "separator": ": "},
        {"messages": "talk"},
        {"field": "lines"},
    ):
        ours = list(kg.Parquet(tmp_path / "a.parquet", **settings).documents())
        theirs = list(kg.Jsonl(tmp_path / "a.jsonl", **settings).documents())
        assert [(each.text, each.parts, each.rejected) for each in ours] == [
            (each.text, each.parts, each.rejected) for each in theirs
        ]
        assert [each.conversation is None for each in ours] == [each.conversation is None for each in theirs]


def test_what_is_wrong_with_a_parquet_file_is_said_with_file_and_row(tmp_path: Path) -> None:
    good = table(tmp_path / "a.parquet", {"text": ["a", "b"], "n": [1, 2]})
    with pytest.raises(CorpusFormatError, match=r"a\.parquet': there is no column 'body'; there are: 'text', 'n'"):
        texts(kg.Parquet(good, field="body"))
    with pytest.raises(CorpusFormatError, match=r"row 1: it has a field 'text' that is no text but 1"):
        texts(kg.Parquet(good, field="n"))
    tally = CorpusTally()
    assert texts(kg.Parquet(good, field="n", on_error="skip"), tally) == []
    assert sum(tally.dropped.values()) == 2
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-9])
    with pytest.raises(CorpusFormatError, match="is cut off"):
        texts(kg.Parquet(cut))
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1" + b"\0" * 40 + b"PAR1")
    with pytest.raises(CorpusFormatError, match="can't be read as Parquet"):
        texts(kg.Parquet(damaged))
    (tmp_path / "no.parquet").write_text('{"text": "a"}')
    with pytest.raises(CorpusFormatError, match="is no Parquet file"):
        texts(kg.Parquet(tmp_path / "no.parquet"))
    with pytest.raises(CorpusUnavailableError):
        kg.Parquet(tmp_path / "none.parquet").check()


def test_a_dataset_in_a_folder_or_saved_is_read_with_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets are an extra: kerasgen[datasets]")
    rows = {"text": [f"text {n}" for n in range(5)], "n": list(range(5))}
    table(tmp_path / "data" / "train.parquet", rows)
    table(tmp_path / "data" / "test.parquet", {"text": ["held out"], "n": [9]})
    for streaming in (True, False):
        found = list(kg.Datasets(str(tmp_path / "data"), streaming=streaming).documents())
        assert [each.text for each in found] == rows["text"]
        assert found[3].metadata == {"n": 3}
    assert texts(kg.Datasets(str(tmp_path / "data"), split="test")) == ["held out"]
    datasets.DatasetDict({"a": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "saved"))
    assert texts(kg.Datasets(tmp_path / "saved", split="a")) == rows["text"]
    with pytest.raises(CorpusArgumentError, match=r"no split 'train'; there are: 'a'"):
        texts(kg.Datasets(tmp_path / "saved"))
    with pytest.raises(CorpusArgumentError, match="no column 'body'; there are: 'text', 'n'"):
        texts(kg.Datasets(str(tmp_path / "data"), field="body"))
    with pytest.raises(CorpusArgumentError, match="can't be opened so"):
        texts(kg.Datasets(str(tmp_path / "data"), split="dev"))
    # One that a program holds is a corpus as it is.
    assert texts(kg.Texts(datasets.Dataset.from_dict(rows))) == rows["text"]


def test_a_dataset_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="Hugging Face datasets are an extra: kerasgen[datasets]")
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(CorpusUnavailableError, match="The dataset 'nobody/nothing' can't be opened"):
        texts(kg.Datasets("nobody/nothing"))


def test_a_mixture_keeps_its_proportions_and_each_corpus_its_order() -> None:
    first, second = [f"a{n}" for n in range(900)], [f"b{n}" for n in range(400)]
    tally = CorpusTally()
    mixed = texts(kg.Mix([(3, first), (1, second)], until="first"), tally)
    ours = [text for text in mixed if text[0] == "a"]
    assert ours == first[: len(ours)]
    assert len(ours) == 900 or len(mixed) - len(ours) == 400
    assert 0.7 < len(ours) / len(mixed) < 0.8
    assert tally.kept == len(mixed)
    whole = list(kg.Mix([(3, first), (1, second)]).documents())
    assert sorted(each.text for each in whole) == sorted([*first, *second])
    assert len({each.id for each in whole}) == len(whole)
    assert {(each.metadata["corpus"], each.text[0]) for each in whole} == {(0, "a"), (1, "b")}
    assert texts(kg.Mix([(3, first), (1, second)])) != texts(kg.Mix([(3, first), (1, second)], seed=1))
    assert (
        texts(kg.Mix("sample:language=en | 0.5*sample:language=en")).count(texts(kg.Mix("sample:language=en"))[0]) == 2
    )


def test_near_duplicates_are_found_and_the_first_is_kept() -> None:
    pytest.importorskip("datasketch", reason="near duplicates are an extra: kerasgen[dedup]")
    draws = random.Random(3)
    words = [f"w{draws.randrange(10**6)}" for _ in range(4000)]
    different = [" ".join(draws.sample(words, 60)) for _ in range(100)]
    alike = [text.replace(text.split()[30], "other").upper() for text in different]  # 1 word of 60 is another one
    tally = CorpusTally()
    found = texts(kg.Deduplicated([*different, *alike]), tally)
    assert found == different
    assert dict(tally.dropped) == {"near duplicate": 100}
    assert (tally.read, tally.kept, tally.characters) == (200, 100, sum(map(len, different)))
    assert texts(kg.Deduplicated([*different, *alike], threshold=1.0)) == [*different, *alike]


def test_a_stream_of_many_rows_takes_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    line = "some text that is no number " * 30
    path = table(tmp_path / "a.parquet", {"text": [f"{line}{n}" for n in range(30_000)]}, row_group_size=500)
    tracemalloc.start()
    count = sum(1 for _ in kg.Parquet(path).documents())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000
    assert most < 8e6  # the texts take 25 MB


def test_a_value_that_python_can_t_hold_takes_no_other_with_it(tmp_path: Path) -> None:
    far = pa.array([2**62, 1, None], pa.timestamp("us"))
    table(tmp_path / "far.parquet", {"text": ["a", "b", "c"], "day": far})
    first, *rest = kg.Parquet(tmp_path / "far.parquet").documents()
    assert [first.text, *(each.text for each in rest)] == ["a", "b", "c"]
    assert str(first.metadata["day"]).startswith("unreadable (date value out of range")
    assert rest[0].metadata["day"] == "1970-01-01T00:00:00.000001"
    json.dumps(first.metadata)
    offsets, content = pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])), pa.py_buffer(b"\xff\xfea")
    table(tmp_path / "bad.parquet", {"text": pa.Array.from_buffers(pa.string(), 2, [None, offsets, content])})
    with pytest.raises(CorpusFormatError, match=r"row 1: .*no text but unreadable"):
        texts(kg.Parquet(tmp_path / "bad.parquet"))
    tally = CorpusTally()
    assert texts(kg.Parquet(tmp_path / "bad.parquet", on_error="skip"), tally) == ["a"]
    assert tally.dropped == {"not what it should hold": 1}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()])
def test_a_text_of_any_kind_of_column_is_read_and_nulls_are_counted(tmp_path: Path, kind: Any) -> None:
    said = ["一 two", None, " ", "\0three"]
    column = pa.array([None if each is None else each.encode() for each in said], pa.binary()).cast(kind)
    table(tmp_path / "a.parquet", {"text": column, "inner": [{"text": [1, {"z": 2}["z"]]}] * 4})
    tally = CorpusTally()
    assert texts(kg.Parquet(tmp_path / "a.parquet"), tally) == ["一 two", "\0three"]
    assert tally.dropped == {"empty": 2}
    table(tmp_path / "b.parquet", {"text": pa.array([b"\xff"], pa.binary())})
    with pytest.raises(CorpusFormatError, match="no text but b"):
        texts(kg.Parquet(tmp_path / "b.parquet"))


def test_a_column_that_comes_twice_is_told(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(CorpusFormatError, match="several columns 'text'"):
        texts(kg.Parquet(tmp_path / "a.parquet"))


def test_one_saved_dataset_is_the_split_that_it_says(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets are an extra: kerasgen[datasets]")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "plain")
    datasets.Dataset.from_dict({"text": ["b"]}, split="test").save_to_disk(tmp_path / "test")
    assert texts(kg.Datasets(tmp_path / "plain")) == ["a"]
    assert texts(kg.Datasets(tmp_path / "test", split="test")) == ["b"]
    for folder, split in (("plain", "test"), ("test", "train")):
        with pytest.raises(CorpusArgumentError, match=f"no split {split!r}; there are: "):
            texts(kg.Datasets(tmp_path / folder, split=split))


@pytest.mark.parametrize(("empty", "why"), [([], "it gives none"), (["", " "], "all 2 that were read were dropped")])
def test_a_mixture_that_would_end_before_it_begins_is_refused(empty, why):
    mixed = kg.Mix([(1, ["a text"] * 9), (1, empty)], until="first")
    with pytest.raises(CorpusArgumentError, match=rf"at place 1 has none: {why}"):
        texts(mixed)
    assert len(texts(kg.Mix([(1, ["a text"] * 9), (1, empty)]))) == 9


@pytest.mark.parametrize(
    "corpus",
    [
        kg.Mix([(3, kg.corpora.create("sample:language=zh")), (0.5, "sample:language=en")], seed=4),
        kg.Deduplicated(kg.corpora.create("sample:language=en"), threshold=0.7),
        kg.Deduplicated(kg.Mix([(1, "sample:language=en"), (2, kg.Mix("sample:language=zh"))], until="first")),
    ],
)
def test_corpora_of_corpora_are_written_down_and_read_back(corpus):
    manifest = json.loads(json.dumps(kg.corpora.REGISTRY.to_manifest(corpus), allow_nan=False))
    assert kg.corpora.REGISTRY.from_manifest(manifest) == corpus


def test_a_pipeline_with_a_mixture_is_saved(tmp_path):
    from kerasgen import saved_pipeline

    named = kg.Mix([(3, kg.corpora.create("sample:language=zh")), (1, "sample:language=en")])
    in_python = kg.Mix([(3, "sample:language=zh"), (1, ["a text that is nowhere else"])])
    assert saved_pipeline._is_saved(named)
    assert not saved_pipeline._is_saved(in_python)
    assert not saved_pipeline._is_saved(kg.Deduplicated(in_python))
    for name, corpus in (("named", named), ("in_python", in_python)):
        kg.Pipeline(corpus, model="starter").save(tmp_path / name)
    assert kg.Pipeline.load(tmp_path / "named").corpus == named
    assert kg.Pipeline.load(tmp_path / "in_python").corpus is None
