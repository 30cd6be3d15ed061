"""A page has the figures of its report, no part for what is not there, and no text that acts in it."""

from __future__ import annotations

import html.parser
import json
import math
from pathlib import Path
from typing import Any

import pytest
import reported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerasgen as kg
from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import Evaluation, TextScore
from kerasgen.reports import charts, contents, figures, page, surprise
from kerasgen.reports.words import LANGUAGES
from kerasgen.tuners.base import TextSample, TuneReport, Validation

pytestmark = pytest.mark.one_backend

MOST_BYTES = 400_000
"""What the documentation promises of a page's size."""


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, the exact figures, the sections and the words."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[tuple[float, str]] = []
        self.text = ""
        self.json = ""
        self._open: list[str] = []
        self._value: float | None = None
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "data":
            self._value = float(dict(attrs)["value"] or "nan")
            self.figures.append((self._value, ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "data":
            self._value = None

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["style"], ["script"]):
            is_data = self.elements[-1][1].get("type") == "application/json"
            self.json += data if is_data else ""
            return
        self.text += data
        if self._value is not None:
            self.figures[-1] = (self._value, self.figures[-1][1] + data)

    def names(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def sections(self) -> list[str | None]:
        return [attributes.get("id") for attributes in self.names("section")]


def whole(**settings: Any) -> str:
    parts: dict[str, Any] = {
        "report": reported.run(),
        "evaluation": reported.evaluation(),
        "scores": [reported.score()],
        "artefacts": [reported.artefact()],
    }
    return page.render(**parts | settings)


def test_the_figures_are_those_of_the_report():
    report, evaluation = reported.run(), reported.evaluation()
    shown = dict(Page(whole()).figures)
    expected = {
        report.bits_per_character: "5.499 ± 0.049",
        report.loss: f"{report.loss:.3f}",
        report.seconds: "1 min 23 s",
        report.trainable_parameters: "4.9 M",
        evaluation.perplexity: f"{math.exp(4.8):.1f}",
        evaluation.writing.distinct_1: "0.912",
        evaluation.human.distinct_2: "0.991",
        evaluation.writing.self_bleu: "3.1",
        evaluation.writing.mean_longest_copy: "4.0",
        report.corpus["read"]: "1,003",
        5 * 2**20: "5.0 MiB",
    }
    assert {value: shown[value] for value in expected} == expected
    text = Page(whole()).text
    assert "6.188 before" in text
    assert "95 % interval 5.401 – 5.602" in text
    assert "192 greedy tokens equal" in text
    assert "1.25e-05" in text
    assert "it holds 99 % of the documents whole" in text


def test_a_copy_stands_beside_its_source():
    text = Page(whole()).text
    assert "白日依山盡，何處不相逢。" in text
    assert "training document 42" in text  # counted from 1 for people
    assert "…題。白日依山盡，黃河入海流。…" in text
    assert text.index("training document 42") < text.index("training document 8")  # the longest first


def test_the_curves_have_the_report_s_points():
    report = reported.run()
    told = json.loads(Page(whole()).json)
    bits, loss, accuracy, lengths = told["charts"]
    assert bits[-1][1] == ["step 40", *bits[-1][1][1:3], "held out: 5.499 ± 0.049"]
    assert loss[-1][1][1] == f"training: {report.losses[-1]:.3f}"
    assert f"held out: {report.validations[-1].loss:.3f}" in loss[-1][1]
    exact = report.losses[-1] / math.log(2) * report.tokens / report.characters
    assert bits[-1][1][1] == f"training: {exact:.3f}"
    assert accuracy[-1][1][1] == f"training: {report.accuracies[-1]:.3f}"
    assert lengths[0][1] == ["characters: 20 – 27", "training: 500 documents", "held out: 30 documents"]
    assert lengths[-1][1][0] == "characters: 44 …"


def test_the_colours_and_choices_are_the_score_s():
    score = reported.score()
    told = json.loads(Page(whole()).json)
    assert [bits for bits, _, _ in told["pieces"][0]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert told["pieces"][0][0][2] == [["花", 0.25], ["<b>", 0.25]]
    spans = [each for each in Page(whole()).names("span") if "data-piece" in each]
    assert [each["class"] for each in spans] == ["s1", "s2", "s3", "s3", "s4"]
    assert f"{score.bits_per_character:.3f}" in Page(whole()).text


def test_what_is_not_there_is_not_shown():
    assert Page(whole()).sections == [
        "curves", "samples", "surprise", "evaluation", "artefacts", "corpus", "settings",
    ]  # fmt: skip
    bare = reported.run(samples=(), validations=(), losses=(), accuracies=(), corpus={}, machine={}, reasons={})
    assert Page(page.render(report=bare)).sections == ["settings"]
    assert Page(page.render(scores=[reported.score()])).sections == ["surprise"]
    assert Page(page.render(evaluation=Evaluation(1.0, 1.0, 1, 1, 1))).sections == ["evaluation"]
    assert Page(page.render(artefacts=[kg.Artefact(Path("a"), "x")])).sections == ["artefacts"]
    with pytest.raises(ArgumentError, match="nothing to show yet"):
        page.render()


def test_pairs_have_charts_of_their_own():
    validations = [
        Validation(step, 0.69 - step / 100, 5.5, 9, 90, 0.1, pair_accuracy=0.5, reward_accuracy=0.75, margin=0.5)
        for step in (0, 40)
    ]
    content = page.render(report=reported.run(margins=(0.25,) * 40, validations=validations))
    shown = Page(content).text
    for title in (
        "Bits per character",
        "Loss of a pair",
        "Margin of the rewards",
        "Share of pairs the right way round",
    ):
        assert title in shown
    assert "nats a token" not in shown
    assert json.loads(Page(content).json)["charts"][3][-1][1][-1] == "held out: 0.750"


def test_a_page_asks_no_network_and_lets_only_its_own_script_run():
    shown = Page(whole())
    (policy,) = [each["content"] for each in shown.names("meta") if each.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    links = [value for _, attributes in shown.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(str(value).startswith("#") for value in links)
    assert not [attributes for _, attributes in shown.elements if "style" in attributes]
    assert shown.names("html") == [{"lang": "en"}]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_word(language):
    assert LANGUAGES[language].keys() == LANGUAGES["en"].keys()
    shown = Page(whole(language=language))
    assert shown.names("html") == [{"lang": LANGUAGES[language]["lang"]}]
    assert LANGUAGES[language]["surprise_note"] in shown.text
    for name, word in LANGUAGES[language].items():
        assert word.count("{") == LANGUAGES["en"][name].count("{"), name


HOSTILE = st.text(
    st.one_of(
        st.sampled_from("<>&\"'`{}%#/\\\0\x1b\r\n\t\x7f\u2028\u2029\u202e\u2066\ud800\udfff\ufeff\ufffe\x85"),
        st.characters(),
        st.sampled_from("春<明 a"),
    ),
    max_size=30,
) | st.sampled_from(
    ["</script><script>broken=1</script>", "</style>", "<!--", "]]>", "<svg onload=broken=1>", "{{ 7*7 }}", "{% if %}"]
)
PLAIN = [(name, sorted(attributes)) for name, attributes in Page(whole()).elements]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=HOSTILE.filter(bool))
def test_no_text_of_a_corpus_adds_an_element(text):
    """Every place that shows text of others shows it, and the page's elements stay those of harmless text."""

    def build(text: str) -> Page:
        run = reported.run(
            samples=[TextSample(1, text), TextSample(2, text)],
            model=text,
            settings={"corpus": text, "model": "m", text: text},
            warnings=[text],
            corpus=reported.run().corpus | {"dropped": {text: 3}, "changed": {text: 1}},
            machine={"processor": text, "devices": [text], "packages": {text: text}},
        )
        one = reported.score(text[:8], (text, text[::-1]))
        wrote = kg.WrittenText(text, text, text[:2], 1, text, text)
        writing = kg.Writing(1, 1, 1.0, 1.0, 1.0, None, 1, text, 1.0, {text: 1.0}, written=[wrote])
        found = Evaluation(1.0, 1.0, 1, 1, 1, writing, notes=[text], model=text, dropped={text: 2})
        artefact = kg.Artefact(Path("a" + text.replace("\0", "").replace("/", "")), text, {"parity": {text: text}})
        content = page.render(report=run, evaluation=found, scores=[one], artefacts=[artefact], title=text)
        content.encode("utf-8")
        assert not set(content) & set("\0\x1b\x7f\x85\u2028\u202e\u2066")
        return Page(content)

    def skeleton(shown: Page) -> list[str]:
        # How many pieces a text has, whether a language is known, a line break's sign, and where a line may break are
        # the text's own.
        return [name for name, attributes in shown.elements if "data-piece" not in attributes and name != "wbr"]

    shown = build(text)
    harmless = "春" if contents.language_of(text) else "x"  # of which the figures of verse are shown
    assert skeleton(shown) == skeleton(build(harmless * len(text)))
    assert len(shown.names("script")) == 2
    json.loads(shown.json)


def test_a_page_is_small_whatever_the_run():
    steps = 200_000
    losses = [3.0 + math.sin(n / 50) for n in range(steps)]
    texts = ["雨" * 5_000] * 500
    report = reported.run(
        steps=steps,
        losses=losses,
        accuracies=losses,
        samples=[TextSample(n, text) for n, text in enumerate(texts)],
        validations=[Validation(n * 500, 3.0, 4.0 + n / 400, 9, 90, 0.1) for n in range(400)],
        corpus=reported.run().corpus | {"dropped": {f"reason {n} " * 40: n + 1 for n in range(500)}},
    )
    written = [kg.WrittenText(text, text, text[:900], 3, text[:40], text[:40]) for text in texts]
    writing = kg.Writing(500, 9, 0.1, 0.1, 0.1, 1.0, 900, texts[0], 900.0, {"other": 1.0}, written=written)
    found = Evaluation(3.0, 4.0, 9, 9, 9, writing)
    scores = [reported.score(text, ("一", "二", "三", "四", "五")) for text in texts[:20]]
    artefacts = [reported.artefact()] * 12
    content = page.render(report=report, evaluation=found, scores=scores, artefacts=artefacts)
    assert len(content.encode("utf-8")) < MOST_BYTES
    assert "each point is a mean over 834 steps" in content


def test_wrong_arguments_are_told(tmp_path):
    report = reported.run()
    for name, given_settings, message in (
        ("run.pdf", {}, "must end in .html"),
        ("run.html", {"language": "fr"}, "'en' or 'zh'"),
        ("run.html", {"evaluation": 3}, "must be a Evaluation"),
        ("run.html", {"scores": ["text"]}, "list of TextScore"),
        ("run.html", {"artefacts": "poet"}, "list of Artefact"),
        ("run.html", {"title": 3}, "must be text"),
    ):
        with pytest.raises(ArgumentError, match=message):
            report.to_html(tmp_path / name, **given_settings)
    assert not list(tmp_path.iterdir())
    path = report.to_html(tmp_path / "a" / "run.html", title="A <title>")
    assert "<h1>A &lt;title&gt;</h1>" in path.read_text(encoding="utf-8")


def test_a_report_survives_its_json():
    report = reported.run()
    again = TuneReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again == TuneReport.from_dict(report.to_dict())
    assert page.render(report=again) == page.render(report=report)
    with pytest.raises(ArgumentError, match="no report of a run"):
        TuneReport.from_dict({"steps": 3})


def test_a_damaged_report_is_refused_and_never_half_a_page():
    """Each figure of another kind is an error when the report is read; what is read can be written and shown."""
    whole = json.loads(json.dumps(reported.run().to_dict(), allow_nan=False))
    refused = 0
    for name in whole:
        for other in (None, [], {}, "<b>x</b>", 7, [7], {"x": 7}):
            try:
                report = TuneReport.from_dict(whole | {name: other})
            except ArgumentError:
                refused += 1
                continue
            assert page.render(report=report)
            assert report._repr_html_()
            assert str(report)
    assert refused > 150


class TestPieces:
    def test_a_character_of_several_tokens_is_one_piece(self):
        tokens = ("春".encode()[:1], "春".encode()[1:], b"a", "。".encode()[:2])
        score = TextScore("春a。", (1, 2, 3, 4), tokens, (-math.log(2), -math.log(4), -math.log(8), -1.0), (), 0.0)
        found, more = surprise.pieces(score, 10)
        assert [(piece.text, piece.tokens) for piece in found] == [("春", 2), ("a", 1), ("�", 1)]
        assert [piece.bits for piece in found[:2]] == pytest.approx([3.0, 3.0])
        assert not more
        assert surprise.pieces(score, 3)[1]

    def test_a_token_that_nothing_predicts_has_no_bits(self):
        found, _ = surprise.pieces(TextScore("a", (1,), (b"a",), (math.nan,), (), 0.0), 10)
        assert found[0].bits is None
        assert found[0].level == 0

    def test_a_part_of_a_character_is_named_by_its_bytes(self):
        assert surprise.named("春".encode()[:2]) == "\\xe6\\x98"
        assert surprise.named(b" a\n") == "␣a⏎"
        assert surprise.named(b"\x1b") == "\\x1b"


class TestCharts:
    def test_a_long_curve_is_means_of_stretches_and_loses_no_step(self):
        values = [float(n) for n in range(1_001)]
        steps, means = charts.thinned(values, 100)
        assert len(steps) <= 100
        assert steps[-1] == 1_001
        assert means[0] == sum(values[: steps[0]]) / steps[0]
        lengths = [end - begin for begin, end in zip([0, *steps], steps, strict=False)]
        assert sum(mean * length for mean, length in zip(means, lengths, strict=True)) == sum(values)

    @given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6))
    def test_ticks_are_few_and_inside(self, low, span):
        found = charts.ticks(low, low + span)
        assert len(found) <= 12
        assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)

    def test_a_single_step_is_drawn(self):
        content = page.render(report=reported.run(losses=(3.0,), accuracies=(0.5,), validations=(), steps=1))
        assert "Loss" in content

    def test_the_band_is_a_standard_error_on_either_side(self):
        line = charts.Line("held out", "held", [0, 1], [2.0, 1.0], [0.5, 0.5], dots=True)
        chart = charts.lines("t", "step", [line])
        points = [tuple(map(float, point.split())) for point in chart.lines[0]["band"][1:-1].split("L")]
        (_, middle), _ = chart.lines[0]["dots"]
        upper, lower = points[0][1], points[-1][1]
        assert upper < middle < lower
        assert lower - middle == pytest.approx(middle - upper, abs=0.11)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, "50 %"), (0.1234, "12.3 %"), (0.0004, "< 0.1 %"), (0.0, "0 %"), (0.999, "99.9 %"), (1.0, "100 %")],
)
def test_shares_are_not_rounded_to_what_they_are_not(share, expected):
    assert figures.percent(share) == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("白日依山", "zh"),
        ("黃河入海流，長風", "zh-Hant"),
        ("长风破浪会有时", "zh-Hans"),
        ("ひらがな", "ja"),
        ("한글", "ko"),
        ("abc", None),
    ],
)
def test_fonts_are_those_of_the_script(text, language):
    assert contents.language_of(text) == language


@pytest.mark.parametrize(
    ("model", "corpus", "title"),
    [
        ("starter", "chinese_poetry:dynasty=tang", "starter · chinese_poetry"),
        ("hub:preset=./models/roberta-base", "text:path=diary/poems.txt,split=paragraph", "roberta-base · poems.txt"),
        ("hub:preset=hf://Qwen/Qwen3-0.6B", 'text:path="a,b.txt"', "Qwen3-0.6B · a,b.txt"),
        ("hf://Qwen/Qwen3-0.6B", "Texts(<40 texts>)", "Qwen3-0.6B"),
    ],
)
def test_a_page_is_called_by_the_model_and_what_the_corpus_reads(model, corpus, title):
    content = page.render(report=reported.run(settings={"model": model, "corpus": corpus}))
    assert f"<title>{title}</title>" in content
