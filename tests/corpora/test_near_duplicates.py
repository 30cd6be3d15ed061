"""Near-duplicates stay on one side of the split, whatever the corpus's order; and a sample of a corpus."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasgen.corpora import held_out_split, near_duplicates, splits, text_lines, verse, verse_variants
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.held_out_split import DividedCorpus
from kerasgen.corpora.near_duplicates import NearDuplicates
from kerasgen.corpora.splits import Division
from kerasgen.corpora.texts import Texts
from kerasgen.errors import ArgumentError

pytestmark = pytest.mark.one_backend

WORDS = [f"{first}{last}" for first in ("clo", "po", "whee", "lam") for last in ("ck", "t", "l", "p", "n")]


def sentence(source: random.Random) -> str:
    return " ".join(source.choices(WORDS, k=9)).capitalize() + "."


def unrelated(count: int, seed: int = 0, sentences: int = 6) -> list[str]:
    source = random.Random(seed)
    return [" ".join(sentence(source) for _ in range(sentences)) for _ in range(count)]


def groups(texts: list[str]) -> list[set[str]]:
    found = NearDuplicates()
    for text in texts:
        found.add(text)
    by_group: dict[int, set[str]] = {}
    of = found.groups()
    for text in texts:
        if splits.point(text) in of:
            by_group.setdefault(of[splits.point(text)], set()).add(text)
    return list(by_group.values())


def test_texts_that_share_half_of_their_lines_belong_together_and_others_do_not() -> None:
    first, second, third, *others = unrelated(200)
    lines = first.split(". ")
    repost = "EDIT: spelling.\n\n" + first.replace("clock", "CLOCK").replace(",", ";") + "\n\nThanks, all!"
    excerpt = ". ".join(lines[:3]) + "."
    half = ". ".join([*second.split(". ")[:3], *third.split(". ")[:2]])
    little = ". ".join([*lines[3:5], *others[0].split(". ")[:4]])
    found = groups([first, second, third, *others, repost, excerpt, half, little])
    assert {first, repost, excerpt} in found
    assert {second, half} in found
    assert {little, others[0]} in found, "four of its six lines"
    assert len(found) == 3


@pytest.mark.parametrize(
    "other",
    [
        "黄鐘却在峯。一隻貓看碗，兩隻貓看燈。",
        "黃鐘卻在峰，一隻貓看碗；兩隻貓看燈！",
        "黃鐘卻在峰。\n一隻貓看碗。",
        "黃鐘卻在峰。一隻貓看碗，兩隻貓看燈。車輪轉七回，茶壺響六回。",
    ],
)
def test_a_poem_is_known_in_other_editions(other: str) -> None:
    poem = "黃鐘卻在峰，一隻貓看碗。\n兩隻貓看燈。"
    others = ["門前三尺雪，窗外幾聲鐘。", "一隻貓看碗，門上十把鎖。風吹過屋簷，雨打在瓦上。", *unrelated(100)]
    assert groups([poem, other, *others]) == [{poem, other}]


def test_a_long_sentence_that_was_reworded_in_a_place_is_known() -> None:
    source = random.Random(5)
    first = " ".join(source.choices(WORDS, k=40))
    second = first.replace(first.split()[20], "elephant", 1)
    assert groups([first, second, *unrelated(50, sentences=1)]) == [{first, second}]


def test_texts_of_one_pattern_are_not_all_one_text() -> None:
    made = [f"Dear {name}, we thank you for your letter of the {day}. It was a joy to read it. Yours, the {WORDS[day]}."
            for name in WORDS for day in range(1, 20)]  # fmt: skip
    assert max((len(group) for group in groups(made)), default=0) <= len(made) / 10
    assert not groups([f"the {one} and the {other}" for one in WORDS for other in WORDS])
    assert not groups(["Title says it all. " + text for text in unrelated(50)] + ["Title says it all"])


@given(st.lists(st.text(max_size=60), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_groups_do_not_depend_on_the_order(texts: list[str], source: random.Random) -> None:
    many = unrelated(30, seed=len(texts))
    texts = [*texts, *(text + " ".join(texts) for text in texts), *many, *(text + " Thanks!" for text in many[:9])]
    shuffled = source.sample(texts, len(texts))
    first, second = NearDuplicates(), NearDuplicates()
    for text in texts:
        first.add(text)
    for text in shuffled:
        second.add(text)
    assert first.groups() == second.groups()


def test_reposts_in_their_hundreds_are_one_group() -> None:
    text, *others = unrelated(2_000)
    source = random.Random(1)
    lines = text.split(". ")
    reposts = [". ".join([*source.sample(lines, 5), sentence(source)]) for _ in range(150)]
    (found,) = groups([*reposts, *others])
    assert found == set(reposts)


def test_portions_of_the_lines_find_what_all_lines_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a text that comes again counts once, in whatever order the points of texts fill their table."""
    chosen = random.Random(0)
    lines = [" ".join(chosen.choices("abcdefghij", k=6)) for _ in range(600)]
    texts = ["\n".join(chosen.choices(lines, k=chosen.randint(1, 6))) for _ in range(3000)]
    found = []
    for at_once, repeated in ((500_000, 1), (10, 1), (100, 2)):
        monkeypatch.setattr(near_duplicates, "_SORTED_AT_ONCE", at_once)
        near = NearDuplicates()
        for text in texts * repeated:
            near.add(text)
        found.append(near.groups())
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 100
    assert len(near._points) == len(set(texts))


def test_beyond_the_limit_nothing_is_found_and_no_further_portion_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_PORTION_TEXTS", 2)
    found = NearDuplicates(most_lines=100)
    for text in unrelated(1_000):
        found.add(text)
        found.add(text + " Thanks!")
    assert found.gave_up
    assert len(found._lines) < 120
    assert found.groups() == {}


class TestDivision:
    def test_a_group_is_on_one_side_and_all_others_where_they_were(self) -> None:
        texts = unrelated(600)
        pairs = [(text, text + " Thanks!") for text in texts[:200]]
        corpus = DividedCorpus(Texts([*texts, *(second for _, second in pairs)]), 0.3)
        division = corpus.division
        assert all(division.side(first) == division.side(second) for first, second in pairs)
        assert any(splits.side(first, held_out=0.3) != splits.side(second, held_out=0.3) for first, second in pairs)
        assert all(division.side(text) == splits.side(text, held_out=0.3) for text in texts[200:])
        held_out = sum(division.side(first) == "held_out" for first, _ in pairs)
        assert 40 < held_out < 80, "a pair is held out as often as one alone"

    def test_both_sides_together_are_the_corpus(self) -> None:
        texts = [*unrelated(100), *(text + " Thanks!" for text in unrelated(50))]
        corpus = DividedCorpus(Texts(texts), 0.3)
        assert sorted([*corpus.texts("train"), *corpus.texts("held_out")]) == sorted(texts)

    def test_a_greater_share_moves_texts_one_way_only(self) -> None:
        texts = [*unrelated(300), *(text + " Thanks!" for text in unrelated(300))]
        found = DividedCorpus(Texts(texts), 0.1).division.groups
        less, more = Division(0.1, found), Division(0.2, found)
        assert {text for text in texts if less.side(text) == "held_out"} < {
            text for text in texts if more.side(text) == "held_out"
        }

    def test_without_near_duplicates_the_division_is_what_it_was(self) -> None:
        assert Division(0.25).key == 0.25
        assert DividedCorpus(Texts(unrelated(50)), 0.25).division == Division(0.25, {})

    def test_nothing_is_read_where_nothing_is_held_out(self) -> None:
        assert DividedCorpus(Unreadable(), 0.0).division == Division(0.0)

    def test_what_was_found_is_kept_and_a_damaged_file_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        texts = [*unrelated(20), *(text + " Thanks!" for text in unrelated(20))]
        first = DividedCorpus(Texts(texts), 0.3, cache=tmp_path).division
        (file,) = (tmp_path / "splits").glob("*.json")
        with monkeypatch.context() as changed:
            changed.setattr(NearDuplicates, "groups", lambda self: pytest.fail("not taken from the cache"))
            assert DividedCorpus(Texts(texts), 0.3, cache=tmp_path).division == first
        other = json.loads(file.read_text(encoding="utf-8"))
        other["content"]["groups"] = {}
        for damaged in ("", "[]", '{"content": 5}', json.dumps(other)):
            file.write_text(damaged, encoding="utf-8")
            assert DividedCorpus(Texts(texts), 0.3, cache=tmp_path).division == first

    @pytest.mark.parametrize("most", [0, 10**9])
    def test_a_large_corpus_is_not_held_in_memory(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:

        monkeypatch.setattr(held_out_split, "MOST_CHARACTERS", most)
        texts = [*unrelated(20), *(text + " Thanks!" for text in unrelated(20)), " "]
        corpus = DividedCorpus(Texts(texts), 0.3)
        assert len(set(corpus.division.groups.values())) == 20
        assert (corpus._read is None) == (most == 0)
        tally = CorpusTally()
        assert len(list(corpus.documents(tally))) == 40
        assert (tally.read, tally.kept, tally.dropped) == (41, 40, {"empty": 1})

    def test_the_store_of_a_corpus_follows_its_division(self, tmp_path: Path) -> None:
        from tiny import GPT2_END, tiny_vocabulary

        from kerasgen.tokens.bpe import ByteLevelBPE
        from kerasgen.tokens.store import store

        tokenizer = ByteLevelBPE(*tiny_vocabulary(300), end_token=GPT2_END)
        texts = [*unrelated(40), *(text + " Thanks!" for text in unrelated(40))]
        corpus = DividedCorpus(Texts(texts), 0.3)
        divided = store(corpus.documents, tokenizer, held_out=corpus.division, directory=tmp_path)
        apart = store(corpus.documents, tokenizer, held_out=0.3, directory=tmp_path)
        assert divided.path != apart.path
        assert len(divided.held_out) == len(list(corpus.texts("held_out")))
        assert len(divided.train) == len(list(corpus.texts("train")))


class TestSample:
    def test_a_random_sample_has_its_size_its_seed_and_no_order(self) -> None:
        texts = [f"text {number}" for number in range(1_000)]

        def taken(texts: list[str], seed: int, count: int = 100) -> list[str]:
            corpus = DividedCorpus(Texts(texts), 0.1, count, "random", seed)
            return [document.text for document in corpus.documents()]

        first = taken(texts, 1)
        assert len(first) == 100
        assert first == sorted(first, key=texts.index), "in the corpus's order"
        assert set(taken(texts[::-1], 1)) == set(first)
        assert set(taken(texts, 2)) != set(first)
        assert set(first) < set(taken(texts, 1, 200))
        assert 30 < sum(texts.index(text) < 500 for text in first) < 70
        assert taken(texts, 1, 5_000) == texts
        assert taken([], 1) == []

    def test_equal_texts_count_each(self) -> None:
        corpus = DividedCorpus(Texts(["same"] * 10), 0.1, 4, "random")
        tally = CorpusTally()
        assert len(list(corpus.documents(tally))) == 4
        assert (tally.read, tally.kept, tally.dropped) == (10, 4, {"not in the sample": 6})

    def test_the_pipeline_takes_it_and_saves_it(self, tmp_path: Path) -> None:
        import kerasgen as kg

        pipe = kg.Pipeline(corpus=["a", "b"], max_documents=1, sample="random", seed=3)
        assert pipe._corpus().sample == "random"
        with pytest.raises(ArgumentError, match="sample must be 'first' or 'random'"):
            kg.Pipeline(sample="last")  # type: ignore[arg-type]


class Unreadable(CorpusSource):
    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        raise AssertionError("was read")


def share_copied(texts: list[str], division: Division) -> float:
    """Which share of the held-out poems has three quarters of its lines in the training poems."""
    lines = {text: verse.lines(verse_variants.fold(text)) for text in texts}
    sides = {text: division.side(text) for text in texts}
    train = {line for text in texts if sides[text] == "train" for line in lines[text]}
    held_out = [lines[text] for text in texts if sides[text] == "held_out" and lines[text]]
    return sum(sum(line in train for line in poem) >= 0.75 * len(poem) for poem in held_out) / len(held_out)


@pytest.mark.nightly
def test_of_the_real_tang_poems_hardly_one_that_is_held_out_stands_in_the_training_part(shared_data: Path) -> None:
    source = ChinesePoetry(path=str(shared_data / "chinese-poetry.tang.tar.xz"), dynasty="tang")
    corpus = DividedCorpus(source, 0.1)
    division = corpus.division
    texts = [document.text for document in corpus.documents()]
    assert share_copied(texts, Division(0.1)) > 0.05, "what it was"
    assert share_copied(texts, division) < 0.001
    held_out = sum(division.side(text) == "held_out" for text in texts) / len(texts)
    assert 0.098 < held_out < 0.104
    assert len(set(division.groups.values())) > 2_000


def test_real_posts_that_were_posted_twice_stay_together(shared_data: Path) -> None:
    with lzma.open(shared_data / "reddit_stories_2013_pddl.jsonl.xz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    texts = [record.get("text") or record["selftext"] for record in records]
    found = groups(texts)
    assert 20 < len(found) < 60
    assert all(len(group) < 4 for group in found), "no greeting or edit ties posts together"
    assert text_lines.lines_of("One. Two three? 「四。」\n5.") == ["one", "twothree"]
