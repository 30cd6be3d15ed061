"""`kerasgen export`: a saved pipeline or a model as an artefact."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import Assignments, Backend, Json, Source, Weights, assigned, once, option
from kerasgen.cli.json_output import show_json
from kerasgen.terminal import show


def run(
    source: Source,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="where: NAME.tflite, NAME.litertlm, NAME.gguf, a name that ends in saved_model or _web, or a preset's "
            "directory",
        ),
    ],
    exporter: Annotated[
        str | None,
        option(
            "--exporter",
            metavar="EXPORTER",
            help="such as tflite:cache_length=512,beams=0 or transformers; kerasgen list exporters NAME says what one "
            "takes (default: by the path's ending)",
        ),
    ] = None,
    quantize: Annotated[
        str | None, option("--quantize", metavar="KIND", help="how weights are stored, such as int8 (default: float32)")
    ] = None,
    forms: Annotated[
        list[str] | None,
        option(
            "--form",
            metavar="CONSTRAINT",
            help="a form that the web page offers, such as verse_form:form=五言絕句; may be repeated (default: none)",
        ),
    ] = None,
    assignments: Assignments = None,
    overwrite: Annotated[bool, option("--overwrite", help="replace what the exporter wrote there before")] = False,
    progress: Annotated[
        bool | None,
        option(
            "--progress/--no-progress",
            help="show on standard error which step of writing and proving is done (default: in a terminal)",
        ),
    ] = None,
    as_json: Json = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Write the artefact and say what it is."""
    from kerasgen.exporters import registry

    target = path.expanduser()
    flags: dict[str, Any] = {} if quantize is None else {"quantize": quantize}
    if forms:
        flags["forms"] = tuple(forms)
    # What is wrong is said before a model is loaded.
    chosen = registry.choose(exporter, target, once(flags, assigned(assignments)))
    pipeline = sources.open_pipeline(source, backend=backend, weights=weights)
    artefact = pipeline.export(target, exporter=chosen, overwrite=overwrite, progress=progress)
    if as_json:
        show_json(artefact)
    else:
        show(artefact)
        if artefact.exporter == "web":
            show(_opened(artefact.path))
    return 0


def _opened(folder: Path) -> str:
    """Return how a person sees the page, which browsers don't load from a file."""
    served = all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn"))
    path = shlex.quote(str(folder))
    command = f"kerasgen serve {path}" if served else f"python -m http.server --directory {path}"
    return f"To see the page: {command}, and open http://localhost:8000"
