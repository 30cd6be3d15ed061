"""`kerasgen report`: the page of a saved pipeline's, or a finished run's, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasgen import limits, locations
from kerasgen.cli import sources
from kerasgen.cli.arguments import Json, option
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show

_RUN_REPORT = "report.json"


def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="a saved pipeline, the directory of a finished run, or a report's JSON file"
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="PAGE", help="where the page is written, such as run.html")],
    text: Annotated[
        list[str] | None,
        option(
            "--text",
            metavar="TEXT",
            help="a text to colour by how much it surprises the model; may be repeated (default: none)",
        ),
    ] = None,
    artefact: Annotated[
        list[Path] | None,
        option(
            "--artefact",
            metavar="PATH",
            help="an exported artefact whose proof is shown; may be repeated (default: none)",
        ),
    ] = None,
    language: Annotated[
        Literal["en", "zh"] | None,
        option("--language", metavar="LANG", help="language of the page's words (default: KERASGEN_LANGUAGE, or en)"),
    ] = None,
    title: Annotated[
        str | None, option("--title", metavar="TEXT", help="title of the page (default: the model and the corpus)")
    ] = None,
    as_json: Json = False,
) -> int:
    """Write the page and say where it lies."""
    from kerasgen.reports import page

    page.check(output, language=language)
    artefacts = [_artefact(path) for path in artefact or ()]
    scores: list[Any] = []
    if locations.look(source).kind == "pipeline":
        from kerasgen.pipeline import Pipeline
        from kerasgen.reports.of_pipeline import CHOICES

        pipeline = Pipeline.load(source)
        report = pipeline._report
        if text:
            scores = pipeline.score(list(map(sources.as_text, text)), batch_size=1, top_logprobs=CHOICES)
    else:
        report = _read(source)
        if text:
            raise ArgumentError(
                f"{str(source)!r} is no saved pipeline, so there is no model to read `text` with. Leave it out, or "
                "give what Pipeline.save wrote."
            )
    if report is None and not scores and not artefacts:
        raise ArgumentError(f"{str(source)!r} was saved before anything was tuned: it has no report.")
    written = page.write(output, report=report, scores=scores, artefacts=artefacts, language=language, title=title)
    if as_json:
        show_json({"page": written, "bytes": written.stat().st_size})
    else:
        show(f"Wrote {written}")
    return 0


def _read(source: Path) -> Any:
    """Return the report of a finished run's directory or of a JSON file.

    Raises:
        ArgumentError: there is none.
    """
    from kerasgen.tuners.report import TuneReport

    if locations.look(source).kind == "artefact":
        raise ArgumentError(
            f"{str(source)!r} is an exported artefact, which has no run. Give the saved pipeline that it was made of, "
            "and name the artefact after --artefact."
        )
    place = source / _RUN_REPORT if source.is_dir() else source
    try:
        figures: Any = limits.read_json(place)
    except (OSError, ValueError) as cause:
        raise ArgumentError(
            f"{str(source)!r} is neither a saved pipeline nor the directory of a finished run, which has a "
            f"{_RUN_REPORT}: {cause}. Give what Pipeline.save wrote, or fit's `directory`."
        ) from cause
    if isinstance(figures, dict) and isinstance(figures.get("report"), dict):  # what `kerasgen fit --json` prints
        figures = figures["report"]
    if not isinstance(figures, dict):
        raise ArgumentError(f"{str(place)!r} holds no report of a run: {figures!r:.80}.")
    return TuneReport.from_dict(figures)


def _artefact(path: Path) -> Any:
    from kerasgen.exporters.base import Artefact

    beside = path / locations.REPORT_FILE if path.is_dir() else path.with_name(path.name + locations.REPORT_SUFFIX)
    try:
        told: Any = limits.read_json(beside)
        return Artefact(path, str(told["exporter"]), told)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ArgumentError(
            f"{str(path)!r} is no artefact that kerasgen exported: {str(beside)!r}, which tells what was proved, "
            f"can't be read ({cause})."
        ) from cause
