"""Writes a report as one HTML file, which needs no network and lets no text of a corpus act in it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from kerasgen import __version__, specs
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.evaluation.base import Evaluation, TextScore
from kerasgen.exporters.base import Artefact
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.reports import charts, contents, curves, figures, surprise
from kerasgen.reports.words import LANGUAGES, language_of_words
from kerasgen.tuners.report import TuneReport

_SUFFIXES = (".html", ".htm")
_PLACES = ("path", "preset", "name")
"""Settings of a corpus or a model source that say what it reads."""


def check(path: str | os.PathLike[str], *, language: str | None) -> Path:
    """Return the path if a page in this language may be written there.

    Raises:
        ArgumentError: its name ends otherwise, or there are no words in the language.
    """
    target = path_argument(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ArgumentError(f"The report is a page, so its name must end in .html. Received: {str(path)!r}.")
    language_of_words(language)
    return target


def write(
    path: str | os.PathLike[str],
    *,
    report: TuneReport | None = None,
    evaluation: Evaluation | None = None,
    scores: Sequence[TextScore] = (),
    artefacts: Sequence[Artefact] = (),
    language: str | None = None,
    title: str | None = None,
) -> Path:
    """Write a page of what is given, and return its path.

    Args:
        path: of the file, which is replaced, whole or not at all.
        report: of a run.
        evaluation: of the model.
        scores: of texts, which are coloured by surprise.
        artefacts: that were exported.
        language: `"en"` or `"zh"`; None for that of `KERASGEN_LANGUAGE`, or English.
        title: of the page; None for the model's and the corpus's names.

    Raises:
        ArgumentError: an argument is wrong, or nothing is given.
        KerasgenError: the file can't be written.
    """
    target = check(path, language=language)
    content = render(
        report=report, evaluation=evaluation, scores=scores, artefacts=artefacts, language=language, title=title
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.replace(target, content.encode("utf-8"))
    except OSError as cause:
        raise KerasgenError(f"The report can't be written to {target}: {cause}. Choose another path.") from cause
    return target


def render(
    *,
    report: TuneReport | None = None,
    evaluation: Evaluation | None = None,
    scores: Sequence[TextScore] = (),
    artefacts: Sequence[Artefact] = (),
    language: str | None = None,
    title: str | None = None,
) -> str:
    """Return the page's HTML; the arguments are those of `write`.

    Raises:
        ArgumentError: nothing is given, or something of another kind.
    """
    _check_kinds(report, evaluation, scores, artefacts, title)
    if report is None and evaluation is None and not scores and not artefacts:
        raise ArgumentError(
            "There is nothing to show yet: no run, no evaluation, no text and no artefact. Call fit(), evaluate() or "
            "export() first, or name texts=…."
        )
    words = LANGUAGES[language_of_words(language)]
    drawn = [] if report is None else curves.of_run(report, words)
    of_corpus = None if report is None else contents.corpus(report, words)
    coloured = contents.coloured(scores)
    shown = {
        "curves": drawn,
        "samples": None if report is None else contents.samples(report, words),
        "surprise": coloured,
        "evaluation": None if evaluation is None else contents.evaluated(evaluation, words, of_corpus),
        "artefacts": [contents.artefact(artefact, words) for artefact in artefacts],
        "corpus": of_corpus,
        "settings": [] if report is None else contents.settings(report, words),
    }
    every_chart = [*drawn, *([of_corpus["lengths"]] if of_corpus and of_corpus["lengths"] else [])]
    css, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    html: str = _template().render(
        **shown,
        w=words,
        version=__version__,
        policy=policy,
        css=_safe(css),
        script=_safe(script),
        title=contents.cut(title or _title(report, evaluation, words), 120),
        lead=contents.cut(_model(report, evaluation), 200),
        headline=[] if report is None else contents.headline(report, words),
        warnings=[] if report is None else [contents.cut(warning) for warning in report.warnings],
        sections=[name for name, value in shown.items() if value],
        coloured=coloured,
        curve_notes=_notes(report, drawn, words),
        scale=_scale(),
        machine=[] if report is None else contents.machine(report, words),
        data=_safe(_json(every_chart, coloured, words)),
        loop_id=_Numbers(),
        han=_han(report, scores),
    )
    return html


def _check_kinds(report: Any, evaluation: Any, scores: Any, artefacts: Any, title: Any) -> None:
    """Raise an `ArgumentError` for what is none of the kinds that a page shows."""
    single: tuple[tuple[str, Any, type], ...] = (
        ("report", report, TuneReport),
        ("evaluation", evaluation, Evaluation),
    )
    for name, value, kind in single:
        if value is not None and not isinstance(value, kind):
            raise ArgumentError(f"`{name}` must be a {kind.__name__}, or None. Received: {value!r:.80}.")
    several: tuple[tuple[str, Any, type], ...] = (("scores", scores, TextScore), ("artefacts", artefacts, Artefact))
    for name, values, kind in several:
        if not isinstance(values, Sequence) or not all(isinstance(value, kind) for value in values):
            raise ArgumentError(f"`{name}` must be a list of {kind.__name__} values. Received: {values!r:.80}.")
    if title is not None and not isinstance(title, str):
        raise ArgumentError(f"`title` must be text, or None. Received: {title!r:.80}.")


def _title(report: TuneReport | None, evaluation: Evaluation | None, words: Mapping[str, str]) -> str:
    if report is not None and report.settings:
        model, corpus = report.settings.get("model", ""), report.settings.get("corpus", "")
        return " · ".join(part for part in (_brief(model), _brief(corpus)) if part)
    return _brief(_model(report, evaluation).partition(",")[0]) or words["report"]


def _model(report: TuneReport | None, evaluation: Evaluation | None) -> str:
    """Return which model was tuned, or evaluated; empty where nobody said."""
    if report is not None:
        return report.model
    return "" if evaluation is None else evaluation.model


def _brief(spelled: str) -> str:
    """Return a part of a pipeline in a word: the file or the directory that it reads, else its name."""
    if spelled.startswith(("[", "Texts(")):
        return ""
    place = spelled
    with suppress(ArgumentError):  # a path that is no name with settings stays what it is
        name, settings = specs.split_text(spelled)
        place = next((settings[key] for key in _PLACES if key in settings), name)
    return place.rstrip("/\\").replace("\\", "/").rpartition("/")[2][:60]


def _han(report: TuneReport | None, scores: Sequence[TextScore]) -> str:
    """Return the language of Chinese texts that could be in either script: that of all texts together."""
    texts = [score.text[:500] for score in scores[:20]]
    if report is not None:
        texts += [sample.text[:500] for sample in report.samples[:20]]
        texts += [character for character, _ in (report.corpus.get("characters_in_use") or {}).get("common", ())]
    found = contents.language_of("".join(texts))
    return found if found in ("zh-Hans", "zh-Hant") else "zh"


def _notes(report: TuneReport | None, drawn: Sequence[charts.Chart], words: Mapping[str, str]) -> list[str]:
    """Return what is said below each chart beside its legend."""
    if report is None:
        return []
    stretch = curves.thinning(report)
    thinned = words["thinned"].format(f"{stretch:,}") if stretch > 1 else ""
    bands = [words["band"] if any(line["band"] for line in chart.lines) else "" for chart in drawn]
    return ["; ".join(filter(None, (band, thinned))) for band in bands]


def _scale() -> list[str]:
    """Return the labels of the colours of surprise."""
    bounds = [f"{bound:g}" for bound in surprise.LEVELS]
    pairs = pairwise(bounds)
    return [f"< {bounds[0]}", *(f"{low} – {high}" for low, high in pairs), f"≥ {bounds[-1]}"]


def _json(drawn: Sequence[charts.Chart], coloured: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    """Return what is shown on hover, as JSON that can stand in a script element."""
    pieces = [
        [
            [
                _bits(piece.bits),
                piece.tokens,
                [[text, round(share, 6) if math.isfinite(share) else None] for text, share in piece.choices],
            ]
            for piece in each["pieces"]
        ]
        for each in coloured
    ]
    told = {
        "charts": [chart.hover for chart in drawn],
        "pieces": pieces,
        "words": {
            "bits": words["bits_scale"],
            "tokens": words["tokens"],
            "likeliest": words["likeliest"],
            "unpredicted": words["unpredicted"],
        },
    }
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _bits(bits: float | None) -> float | str | None:
    """Return the bits of a piece as JSON holds them: a sign for infinity, which is no number there."""
    return bits if bits is None else round(bits, 4) if math.isfinite(bits) else figures.number(bits, 2)


class _Numbers:
    """Numbers for the ids of a page's elements."""

    def __init__(self) -> None:
        self._count = count(1)
        self.now = 0

    def next(self) -> int:
        """Return the next one, which `now` is until the one after it."""
        self.now = next(self._count)
        return self.now


def _asset(name: str) -> str:
    return resources.files("kerasgen.reports").joinpath("page_files", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return how a content security policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _safe(text: str) -> Any:
    """Return our own text as what needs no escapes."""
    from markupsafe import Markup

    return Markup(text)


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["exact"] = figures.exact
    return environment.from_string(_asset("report.html.jinja"))
