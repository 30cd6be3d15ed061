"""What a notebook shows of a pipeline and of its results: fragments of HTML that take the notebook's own colours.

A fragment brings no script, and its style sheet concerns itself alone. Its lines and bands are shades of the text's
own colour, so it fits a light and a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from kerasgen.masked.filling import FilledText
from kerasgen.reports import charts, contents, curves, surprise
from kerasgen.reports.figures import number, percent
from kerasgen.reports.words import LANGUAGES

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation, TextScore, Writing
    from kerasgen.exporters.base import Artefact
    from kerasgen.generation.api import GeneratedText
    from kerasgen.tuners.base import TuneReport

_WORDS: Final = LANGUAGES["en"]
_TEXTS: Final = 4
_TOKENS: Final = 300
_LISTED: Final = 10
_CHARACTERS: Final = 1_000


def of_pipeline(pipeline: Any) -> str:
    """Return what a notebook shows of a `Pipeline`: its parts, and what was done with it."""
    parts = pipeline._spelled_parts()
    rows = [(name, contents.cut(value, 300)) for name, value in parts.items() if value != "None"]
    rows.append(("seed", str(pipeline.seed)))
    rows.append(("backend", pipeline.backend))
    if pipeline._report is not None:
        rows.append(("last run", contents.cut(repr(pipeline._report), 300)))
    if pipeline._evaluation is not None:
        rows.append(("evaluation", contents.cut(repr(pipeline._evaluation), 300)))
    rows += [("artefact", contents.cut(str(artefact), 300)) for artefact in pipeline._artefacts]
    return _rendered("Pipeline", rows)


def of_run(report: TuneReport) -> str:
    """Return what a notebook shows of a `TuneReport`: its figures, and the first of its curves."""
    rows = [_row(figure) for figure in contents.headline(report, _WORDS)]
    if report.model:
        rows.insert(0, ("model", contents.cut(report.model, 200)))
    drawn = curves.of_run(report, _WORDS)
    notes = [f"{_WORDS['warnings']}: {contents.cut(warning)}" for warning in report.warnings]
    return _rendered("TuneReport", rows, chart=drawn[0] if drawn else None, notes=notes)


def of_evaluation(evaluation: Evaluation) -> str:
    """Return what a notebook shows of an `Evaluation`."""
    shown = contents.evaluated(evaluation, _WORDS)
    rows = [_row(figure) for figure in shown["figures"]]
    if evaluation.model:
        rows.insert(0, ("model", contents.cut(evaluation.model, 200)))
    texts: list[Any] = []
    if shown["writing"] is not None:
        rows += _written_rows(shown["writing"])
        texts = _texts(shown["writing"])
    return _rendered("Evaluation", rows, notes=shown["notes"], texts=texts)


def of_writing(writing: Writing) -> str:
    """Return what a notebook shows of a `Writing`."""
    shown = contents.written(writing, None, _WORDS)
    rows = [("texts", f"{writing.texts:,} with {writing.characters:,} characters"), *_written_rows(shown)]
    return _rendered("Writing", rows, texts=_texts(shown))


def of_artefact(artefact: Artefact) -> str:
    """Return what a notebook shows of an `Artefact`."""
    shown = contents.artefact(artefact, _WORDS)
    rows = [("format", shown["exporter"]), ("path", contents.cut(str(artefact.path), 300))]
    if shown["size"] is not None:
        rows.append(("size", shown["size"].text))
    rows.append(("proof", ("✓ " if shown["equal"] else "") + shown["proof"]))
    told = [shown[name] for name in ("speed", "load", "peak") if shown[name]]
    if told:
        rows.append(("runtime", ", ".join(told)))
    return _rendered("Artefact", rows)


def of_score(score: TextScore) -> str:
    """Return what a notebook shows of a `TextScore`: the text, coloured by surprise."""
    pieces, more = surprise.pieces(score, _TOKENS)
    shown = [(piece.level, piece.text, _tip(piece)) for piece in pieces]
    rows = [("bits per character", number(score.bits_per_character, 3)), ("tokens", f"{len(score.token_ids):,}")]
    notes = [_WORDS["cut"]] if more else []
    return _rendered("TextScore", rows, notes=notes, texts=[(contents.language_of(score.text), shown)])


def of_generated(text: GeneratedText) -> str:
    """Return what a notebook shows of a `GeneratedText`: the text, and what is known about its tokens."""
    rows = [("tokens", f"{len(text.token_ids):,}")]
    if text.logprobs:
        rows.append(("log-probability", f"{number(text.logprob, 3)} nats a token"))
    if text.proposed:
        rows.append(("proposed tokens", f"{text.accepted:,} of {text.proposed:,} taken"))
    rows.append(("ended", "by itself" if text.finished else "at its length"))
    return _rendered("GeneratedText", rows, texts=[_plain(text.text)])


def of_texts(texts: Sequence[GeneratedText | FilledText]) -> str:
    """Return what a notebook shows of a list of texts: each with its figure, the first ones of a long list."""
    first = texts[:_LISTED]
    notes = [f"{len(texts) - len(first):,} more"] if len(texts) > len(first) else []
    filled = [text for text in first if isinstance(text, FilledText)]
    if len(filled) == len(first):
        return _rendered("", [(f"{text.probability:.2%}", _filled(text)) for text in filled], notes=notes)
    return _rendered("", [], notes=notes, texts=[_plain(text.text, _figure(text)) for text in first])


def _plain(text: str, figure: str = "") -> tuple[str | None, list[tuple[int, str, str]]]:
    return contents.language_of(text), [(0, contents.cut(text, _CHARACTERS), figure)]


def _filled(text: FilledText) -> str:
    return f"{contents.cut(text.text, 300)} ({', '.join(map(repr, text.tokens[:8]))})"


def _figure(text: Any) -> str:
    return f"{number(text.logprob, 3)} nats a token" if text.logprobs else f"{len(text.token_ids):,} tokens"


def _tip(piece: surprise.Piece) -> str:
    if piece.bits is None:
        return _WORDS["unpredicted"]
    others = ", ".join(f"{text} {percent(share)}" for text, share in piece.choices)
    return f"{number(piece.bits, 2)} bits" + (f"; likeliest: {others}" if others else "")


def _row(figure: Any) -> tuple[str, str]:
    return figure.name, " ".join(filter(None, [figure.text, figure.error, f"({figure.note})" if figure.note else ""]))


def _written_rows(shown: Any) -> list[tuple[str, str]]:
    return [
        (name, value.text if people is None else f"{value.text} ({people.text} {_WORDS['by_people']})")
        for name, value, people in shown["table"]
    ]


def _texts(shown: Any) -> list[tuple[str | None, list[tuple[int, str, str]]]]:
    return [(each["lang"], [(0, each["prompt"], ""), (0, each["text"], "")]) for each in shown["texts"][:_TEXTS]]


def _rendered(
    title: str,
    rows: Sequence[tuple[str, str]],
    *,
    chart: charts.Chart | None = None,
    notes: Iterable[str] = (),
    texts: Iterable[Any] = (),
) -> str:
    from markupsafe import Markup

    html: str = _template().render(
        style=Markup(_asset("notebook.css")), title=title, rows=rows, chart=chart, notes=notes, texts=texts
    )
    return html


@cache
def _asset(name: str) -> str:
    """Return a file of the package without its line ends, which a fragment has no use for."""
    text = resources.files("kerasgen.reports").joinpath("page_files", name).read_text(encoding="utf-8")
    return text.replace("\n", "")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(_asset("notebook.html.jinja"))
