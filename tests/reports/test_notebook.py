"""Notebooks show results as fragments that are their own, take the page's colours, and let no text act."""

from __future__ import annotations

import html.parser
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import reported
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.generation import GeneratedText
from kerasgen.generation.shown_lists import ShownList
from kerasgen.models.saving import save_preset
from kerasgen.reports.of_pipeline import RunReport

pytestmark = pytest.mark.one_backend

SCRIPT = "<script>broken=1</script>"


def values(text: str = "春") -> list[Any]:
    """Everything that a notebook shows, with a text in every place that others fill."""
    run = reported.run(model=text, warnings=[text])
    found = reported.evaluation(model=text)
    writing = kg.Writing(
        1, 1, 1.0, 1.0, 1.0, 1.0, 1, text, 1.0, {text: 1.0}, written=[kg.WrittenText(text, text, text)]
    )
    pipe = kg.Pipeline(corpus=[text, text + text], model="starter")
    pipe._report, pipe._evaluation = run, found
    pipe._artefacts.append(kg.Artefact(Path("a"), text))
    artefact = kg.Artefact(Path("a" + text[:40].replace("/", "")), text, {"parity": {text: text}})
    return [run, found, writing, reported.score(text, (text,)), artefact, pipe, pipe.report]


class Fragment(html.parser.HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.closed: list[str] = []
        self.text = ""
        self.texts: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.closed.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
        self.texts.append(data)


@pytest.mark.parametrize("place", range(7))
def test_a_fragment_is_whole_and_lets_no_text_act(place):
    shown = values(SCRIPT)[place]._repr_html_()
    fragment = Fragment(shown)
    assert "script" not in fragment.tags
    assert "<script" not in shown
    assert sorted(tag for tag in fragment.tags if tag not in ("path", "line", "circle")) == sorted(
        tag for tag in fragment.closed if tag not in ("path", "line", "circle")
    )
    assert fragment.tags[:2] == ["div", "style"]
    assert not {"src", "href", "onclick", "id"} & set(fragment.attributes)
    assert SCRIPT in fragment.text or place == 5
    assert len(shown) < 40_000


@pytest.mark.parametrize("place", [0, 1, 2, 3, 5, 6])  # an artefact's path is as long as it is
def test_a_representation_is_a_line(place):
    shown = repr(values("春\n" * 300)[place])
    assert "\n" not in shown
    assert len(shown) < 420


def test_the_figures_are_the_values():
    run, found, _, score, _, pipe, report = values()
    text = Fragment(run._repr_html_()).text
    assert "5.499 ± 0.049 (6.188 before)" in text
    assert f"{run.loss:.3f} (nats a token)" in text
    assert "5.501" in Fragment(found._repr_html_()).text
    assert f"{score.bits_per_character:.3f}" in Fragment(score._repr_html_()).text
    shown = Fragment(reported.artefact()._repr_html_()).text
    assert "5.0 MiB" in shown
    assert "✓ 192 greedy tokens equal" in shown
    shown = Fragment(pipe._repr_html_()).text
    assert repr(run)[:60] in shown
    assert repr(found)[:60] in shown
    assert report._repr_html_() == run._repr_html_()


def test_a_coloured_text_tells_bits_and_choices():
    shown = reported.score()._repr_html_()
    assert 'title="3.00 bits; likeliest: 花 25 %, &lt;b&gt; 25 %"' in shown


class TestRunReport:
    def test_it_has_the_figures_of_the_last_run_and_prints_as_it(self):
        pipe = kg.Pipeline(corpus=["a", "b"])
        run = reported.run()
        pipe._report = run
        assert isinstance(pipe.report, RunReport)
        assert pipe.report.losses == run.losses
        assert pipe.report.bits_per_character == run.bits_per_character
        assert str(pipe.report) == str(run)
        assert repr(pipe.report) == repr(run)
        assert pipe.report == run
        assert bool(pipe.report)
        assert "to_html" in dir(pipe.report)

    def test_before_the_first_run_it_is_false_and_says_so(self):
        report = kg.Pipeline().report
        assert not report
        assert report._repr_html_() is None
        assert repr(report) == "RunReport(nothing tuned yet)"
        with pytest.raises(AttributeError, match="nothing has been tuned yet"):
            _ = report.losses
        with pytest.raises(kg.errors.ArgumentError, match="nothing to show yet"):
            report("run.html")


def test_a_run_is_plotted_as_a_figure_that_a_notebook_shows():
    matplotlib = pytest.importorskip("matplotlib", reason="a plot is drawn by the extra plot")
    run = reported.run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no font of this machine may have Han characters
        figure = run.plot()
        assert isinstance(figure, matplotlib.figure.Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")
    axis = figure.axes[0]
    exact = [loss / math.log(2) * run.tokens / run.characters for loss in run.losses]
    assert axis.lines[0].get_ydata() == pytest.approx(exact)
    held_out = {line.get_label(): line for line in axis.lines}["held out"]
    assert held_out.get_ydata() == pytest.approx([each.bits_per_character for each in run.validations])
    (band,) = axis.collections
    first = run.validations[0]
    at_first = {y for x, y in band.get_paths()[0].vertices.tolist() if x == 0}
    assert min(at_first) == pytest.approx(first.bits_per_character - first.standard_error)
    assert max(at_first) == pytest.approx(first.bits_per_character + first.standard_error)
    pairs = reported.run(margins=(0.1,) * 40).plot().axes[0]
    assert pairs.get_ylabel() == "loss of a pair"
    assert list(pairs.lines[0].get_ydata()) == pytest.approx(list(run.losses))


def generated(text: str, *, finished: bool = True) -> GeneratedText:
    return GeneratedText(text, (1, 2, 3), (-1.0, -2.0, -0.5), -3.5, finished)


def filled(text: str, token: str, probability: float) -> kg.FilledText:
    return kg.FilledText(text, (token,), (7,), (probability,), probability)


def test_a_generated_text_is_shown_with_its_figures_and_prints_as_a_line():
    text = generated(f"春風\n{SCRIPT}")
    shown = Fragment(text._repr_html_())
    assert "script" not in shown.tags
    assert f"春風\n{SCRIPT}" in shown.text
    assert "-1.167 nats a token" in shown.text
    assert "by itself" in shown.text
    assert "at its length" in Fragment(generated("a", finished=False)._repr_html_()).text
    assert repr(generated("春\n風")) == r"GeneratedText('春\n風', 3 tokens, -1.167 nats a token, finished)"
    assert len(repr(generated("春" * 5_000))) < 200
    assert "nan" not in repr(GeneratedText("a", (1,), (), -3.5, False)).lower()


def test_a_list_of_texts_is_a_list_that_a_notebook_shows():
    several = ShownList([generated(SCRIPT), generated("春")])
    assert several == [generated(SCRIPT), generated("春")]
    shown = Fragment(several._repr_html_())
    assert "script" not in shown.tags
    assert {SCRIPT, "春"} <= set(shown.texts)
    many = Fragment(ShownList([generated("a")] * 25)._repr_html_()).text
    assert "15 more" in many


def test_filled_texts_are_shown_by_their_probabilities():
    ways = ShownList([filled("the cat", "cat", 0.5), filled(SCRIPT, "dog", 0.25)])
    shown = Fragment(ways._repr_html_())
    assert "script" not in shown.tags
    assert shown.tags.count("tr") == 2
    assert "50.00%" in shown.text
    assert "the cat ('cat')" in shown.text
    assert repr(ways[0]) == "FilledText('the cat', 'cat', 50.00%)"
    assert "the cat" in Fragment(ways[0]._repr_html_()).text


@pytest.mark.nightly
def test_a_real_notebook_keeps_the_end_of_the_bar_alone(tmp_path, monkeypatch):
    """What a kernel shows of a run: one bar that is written over, and no line for each step."""
    client = pytest.importorskip("nbclient", reason="a notebook is run by nbclient: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="a notebook is run by nbclient: pip install nbclient ipykernel")
    import nbformat

    save_preset(tiny_gpt2(num_layers=1), tmp_path / "tiny")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cells = [
        "import kerasgen as kg\n"
        "tuner = kg.FullTuner(max_steps=40, batch_size=2, sequence_length=32)\n"
        "pipe = kg.Pipeline(corpus=['the cat and the sea ' * n for n in range(1, 99)], model='./tiny', tuner=tuner)\n"
        "report = pipe.fit()\n"
        "report",
        "pipe.score('the cat', top_logprobs=2)",
        "pipe.generate(['the', 'a'], return_logprobs=True, max_new_tokens=8)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.outputs]
    streams = "".join(output.get("text", "") for output in shown)
    assert len(streams) < 2_000, "the notebook keeps no line for each step"
    bars = [output for output in shown if "<progress" in output.get("data", {}).get("text/html", "")]
    assert [output["data"]["text/plain"].split(" · ")[0] for output in bars] == ["step 40 of 40"]
    assert "held out" in bars[0]["data"]["text/plain"]
    tables = [output["data"]["text/html"] for output in shown if 'class="kerasgen"' in str(output.get("data"))]
    assert len(tables) == 3
    assert "TuneReport" in tables[0]
    assert "TextScore" in tables[1]
    assert "nats a token" in tables[2]


def test_a_fragment_speaks_the_language_of_the_environment(monkeypatch):
    english = [value._repr_html_() for value in values()]
    monkeypatch.setenv("KERASGEN_LANGUAGE", "zh")
    chinese = [Fragment(value._repr_html_()) for value in values()]
    for shown, before in zip(chinese, map(Fragment, english), strict=True):
        assert shown.tags == before.tags
        assert shown.text != before.text
    assert "每字比特" in chinese[0].text
    assert "种子" in chinese[5].text
    text = GeneratedText("春", (1, 2), (-1.0, -2.0), -3.0, True)
    assert "奈特/词元" in text._repr_html_()
    assert "自行结束" in text._repr_html_()
    assert ShownList([text] * 12)._repr_html_().count("另有 2 篇") == 1
    monkeypatch.setenv("KERASGEN_LANGUAGE", "en")
    assert [value._repr_html_() for value in values()] == english
    monkeypatch.setenv("KERASGEN_LANGUAGE", "fr")
    with pytest.raises(kg.errors.ArgumentError, match=r"KERASGEN_LANGUAGE must be 'en' or 'zh'.*'fr'"):
        values()[0]._repr_html_()


def test_every_row_of_a_chinese_fragment_is_named_in_chinese(monkeypatch):
    """But for the names of measures that Chinese papers write in English, too."""
    monkeypatch.setenv("KERASGEN_LANGUAGE", "zh")
    for value in values():
        for name in re.findall(r"<th>(.*?)</th>", value._repr_html_()):
            assert any("\u4e00" <= sign <= "\u9fff" for sign in name) or name in {
                "distinct-1",
                "distinct-2",
                "distinct-3",
                "self-BLEU",
                "春",
            }, name


def test_a_page_takes_the_language_of_the_environment_unless_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASGEN_LANGUAGE", "zh")
    run = reported.run()
    assert 'lang="zh-Hans"' in run.to_html(tmp_path / "zh.html").read_text(encoding="utf-8")
    assert 'lang="en"' in run.to_html(tmp_path / "en.html", language="en").read_text(encoding="utf-8")
