"""What a notebook shows of a pipeline and of its results: fragments of HTML that take the notebook's own colours.

A fragment brings no script, and its style sheet concerns itself alone. Its lines and bands are shades of the text's
own colour, so it fits a light and a dark page. Its words are English, or those of `KERASGEN_LANGUAGE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from kerasgen.masked.filling import FilledText
from kerasgen.reports import charts, contents, curves, surprise
from kerasgen.reports import words as languages
from kerasgen.reports.figures import number, percent

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation, TextScore, Writing
    from kerasgen.exporters.base import Artefact
    from kerasgen.generation.api import GeneratedText
    from kerasgen.tuners.report import TuneReport

_TEXTS: Final = 4
_TOKENS: Final = 300
_LISTED: Final = 10
_CHARACTERS: Final = 1_000


def of_pipeline(pipeline: Any) -> str:
    """Return what a notebook shows of a `Pipeline`: its parts, and what was done with it."""
    parts = pipeline._spelled_parts()
    words = languages.current()
    spoken = {name: words.get(f"of_{name}") or words.get(name, name) for name in parts}
    rows = [(spoken[name], contents.cut(value, 300)) for name, value in parts.items() if value != "None"]
    rows.append((words["seed"], str(pipeline.seed)))
    rows.append((words["backend"], pipeline.backend))
    if pipeline._report is not None:
        rows.append((words["last_run"], contents.cut(repr(pipeline._report), 300)))
    if pipeline._evaluation is not None:
        rows.append((words["of_evaluation"], contents.cut(repr(pipeline._evaluation), 300)))
    rows += [(words["artefact"], contents.cut(str(artefact), 300)) for artefact in pipeline._artefacts]
    return _rendered("Pipeline", rows)


def of_run(report: TuneReport) -> str:
    """Return what a notebook shows of a `TuneReport`: its figures, and the first of its curves."""
    words = languages.current()
    rows = [_row(figure) for figure in contents.headline(report, words)]
    if report.model:
        rows.insert(0, (words["model"], contents.cut(report.model, 200)))
    drawn = curves.of_run(report, words)
    notes = [f"{words['warnings']}{words['colon']}{contents.cut(warning)}" for warning in report.warnings]
    return _rendered("TuneReport", rows, chart=drawn[0] if drawn else None, notes=notes)


def of_evaluation(evaluation: Evaluation) -> str:
    """Return what a notebook shows of an `Evaluation`."""
    words = languages.current()
    shown = contents.evaluated(evaluation, words)
    rows = [_row(figure) for figure in shown["figures"]]
    if evaluation.model:
        rows.insert(0, (words["model"], contents.cut(evaluation.model, 200)))
    texts: list[Any] = []
    if shown["writing"] is not None:
        rows += _written_rows(shown["writing"])
        texts = _texts(shown["writing"])
    return _rendered("Evaluation", rows, notes=shown["notes"], texts=texts)


def of_writing(writing: Writing) -> str:
    """Return what a notebook shows of a `Writing`."""
    words = languages.current()
    shown = contents.written(writing, None, words)
    rows = [
        (words["texts"], words["texts_of"].format(f"{writing.texts:,}", f"{writing.characters:,}")),
        *_written_rows(shown),
    ]
    return _rendered("Writing", rows, texts=_texts(shown))


def of_artefact(artefact: Artefact) -> str:
    """Return what a notebook shows of an `Artefact`."""
    words = languages.current()
    shown = contents.artefact(artefact, words)
    rows = [(words["format"], shown["exporter"]), (words["path"], contents.cut(str(artefact.path), 300))]
    if shown["size"] is not None:
        rows.append((words["size"], shown["size"].text))
    rows.append((words["proof"], ("✓ " if shown["equal"] else "") + shown["proof"]))
    told = [shown[name] for name in ("speed", "load", "peak") if shown[name]]
    if told:
        rows.append((words["runtime"], ", ".join(told)))
    return _rendered("Artefact", rows)


def of_score(score: TextScore) -> str:
    """Return what a notebook shows of a `TextScore`: the text, coloured by surprise."""
    pieces, more = surprise.pieces(score, _TOKENS)
    shown = [(piece.level, piece.text, _tip(piece)) for piece in pieces]
    words = languages.current()
    rows = [
        (words["bits_per_character"], number(score.bits_per_character, 3)),
        (words["tokens"], f"{len(score.token_ids):,}"),
    ]
    notes = [words["cut"]] if more else []
    return _rendered("TextScore", rows, notes=notes, texts=[(contents.language_of(score.text), shown)])


def of_generated(text: GeneratedText) -> str:
    """Return what a notebook shows of a `GeneratedText`: the text, and what is known about its tokens."""
    words = languages.current()
    rows = [(words["tokens"], f"{len(text.token_ids):,}")]
    if text.logprobs:
        rows.append((words["log_probability"], f"{number(text.logprob, 3)} {words['nats_token']}"))
    if text.proposed:
        rows.append((words["proposed"], words["taken"].format(f"{text.accepted:,}", f"{text.proposed:,}")))
    rows.append((words["ended"], words["by_itself" if text.finished else "at_length"]))
    return _rendered("GeneratedText", rows, texts=[_plain(text.text)])


def of_texts(texts: Sequence[GeneratedText | FilledText]) -> str:
    """Return what a notebook shows of a list of texts: each with its figure, the first ones of a long list."""
    first = texts[:_LISTED]
    notes = [languages.current()["more"].format(f"{len(texts) - len(first):,}")] if len(texts) > len(first) else []
    filled = [text for text in first if isinstance(text, FilledText)]
    if len(filled) == len(first):
        return _rendered("", [(f"{text.probability:.2%}", _filled(text)) for text in filled], notes=notes)
    return _rendered("", [], notes=notes, texts=[_plain(text.text, _figure(text)) for text in first])


def _plain(text: str, figure: str = "") -> tuple[str | None, list[tuple[int, str, str]]]:
    return contents.language_of(text), [(0, contents.cut(text, _CHARACTERS), figure)]


def _filled(text: FilledText) -> str:
    return f"{contents.cut(text.text, 300)} ({', '.join(map(repr, text.tokens[:8]))})"


def _figure(text: Any) -> str:
    words = languages.current()
    if text.logprobs:
        return f"{number(text.logprob, 3)} {words['nats_token']}"
    return f"{len(text.token_ids):,} {words['tokens']}"


def _tip(piece: surprise.Piece) -> str:
    words = languages.current()
    if piece.bits is None:
        return words["unpredicted"]
    others = ", ".join(f"{text} {percent(share)}" for text, share in piece.choices)
    colon, bits = words["colon"], f"{number(piece.bits, 2)} {words['bits_scale']}"
    return f"{bits}; {words['likeliest_short']}{colon}{others}" if others else bits


def _row(figure: Any) -> tuple[str, str]:
    return figure.name, " ".join(filter(None, [figure.text, figure.error, f"({figure.note})" if figure.note else ""]))


def _written_rows(shown: Any) -> list[tuple[str, str]]:
    words = languages.current()
    return [
        (name, value.text if people is None else f"{value.text} ({people.text} {words['by_people']})")
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
