"""`web`: a folder that a static server shows, with the model, LiteRT.js and a page that generates in the browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from kerasgen.constraints.base import Constraint
from kerasgen.errors import ArgumentError, ExportArgumentError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.exporters.tflite.exporter import QUANTIZATIONS, TFLiteExporter
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import meant

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

PAGE: Final = Path(__file__).with_name("page")
MODEL: Final = "model.tflite"
_FILES = (
    "index.html",
    "page.css",
    "page.js",
    "words.js",
    "generator.js",
    "tokenizer.js",
    "sampler.js",
    "form.js",
    "random.js",
)
_OFFLINE, _DESCRIPTION, _UTF8 = "offline.js", "page.json", "utf8.bin"
_WRITE, _CHECK = "write the page", "generate by the page's modules"


@dataclass(frozen=True)
class WebExporter(Exporter):
    """Write a folder that any static server shows: a page writes text in the browser, and works offline once loaded.

    The model is a TFLite file that was proved on its own; `@litertjs/core` runs it. Where Node.js is installed, the
    page's modules generate there before the folder is handed over, and must have the ids of kerasgen's own runtime.

    Args:
        quantize: how weights are stored, as of `TFLiteExporter`. By `"float32"` and `"float16"`, which is half as
            large, ids are Python's. `"int8"` is a quarter as large and faster; a browser rounds activations to 8 bits
            in a slightly other way, so that now and then another token is chosen.
        cache_length: tokens of a whole text, as of `TFLiteExporter`.
        forms: constraints that a person may choose on the page, each a `Constraint` or a text such as
            `"verse_form:form=五言絕句"`. Their automata are written down with all states, of which there must not be
            too many.
        title: what stands above the page; None for the folder's name.
        prompts: beginnings that the page offers.
        node_modules: the folder in which npm installed `@litertjs/core`; None looks in the current directory and the
            ones above it.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("_web",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.web.runtime:open_artefact"

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    cache_length: int | None = None
    forms: tuple[str, ...] | tuple[Constraint, ...] = ()
    title: str | None = None
    prompts: tuple[str, ...] = ()
    node_modules: str | None = None

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise ExportArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
                f"{meant(self.quantize, QUANTIZATIONS)}"
            )
        self._tflite()
        for name in ("forms", "prompts"):
            value = getattr(self, name)
            single = isinstance(value, (str, Constraint))
            if not single and not isinstance(value, (tuple, list)):
                raise ExportArgumentError(f"{name} must be a list. Received: {value!r:.80}.")
            object.__setattr__(self, name, (value,) if single else tuple(value))
        for prompt in self.prompts:
            if not isinstance(prompt, str):
                raise ExportArgumentError(f"prompts must be texts. Received: {prompt!r:.80}.")
        if self.title is not None and not isinstance(self.title, str):
            raise ExportArgumentError(f"title must be text, or None. Received: {self.title!r:.80}.")
        if self.node_modules is not None:
            object.__setattr__(self, "node_modules", str(path_argument(self.node_modules, ExportArgumentError)))
        self.constraints()

    def constraints(self) -> dict[str, Constraint]:
        """Return the forms by the names that the page shows.

        Raises:
            ExportArgumentError: one is no constraint, or two have one name.
        """
        from kerasgen import constraints

        found: dict[str, Constraint] = {}
        for form in self.forms:
            try:
                constraint: Constraint = constraints.REGISTRY.resolve(form)
            except ArgumentError as cause:
                raise ExportArgumentError(f"forms must be constraints: {cause}") from cause
            rhymes = " · 押韻" if getattr(constraint, "rhyme", False) else ""
            name = f"{getattr(constraint, 'form', form)}{rhymes}"
            if name in found:
                raise ExportArgumentError(f"Two forms have the name {name!r}. Leave out one of them.")
            found[name] = constraint
        return found

    def _tflite(self) -> TFLiteExporter:
        return TFLiteExporter(quantize=self.quantize, cache_length=self.cache_length, beams=0, shortlist=0)

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the folder, and let the page's modules generate where Node.js is installed; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        from kerasgen.constraints import valid_utf8
        from kerasgen.exporters import progress, staging
        from kerasgen.exporters.validation import file_tokenizer
        from kerasgen.exporters.web import checking, description, packages
        from kerasgen.files import digests
        from kerasgen.models import licences

        modules = packages.find(self.node_modules)
        tokenizer = file_tokenizer(model, "web")
        model = replace(model, tokenizer=tokenizer)
        described = description.tokenizer(tokenizer)
        constraints = self.constraints()
        forms = {name: description.form(constraint, tokenizer) for name, constraint in constraints.items()}
        with staging.staged(path, overwrite=overwrite, exporter="web") as stage:
            progress.plan(_WRITE, _CHECK)
            stage.mkdir()
            inner = self._tflite().export(model, stage / MODEL)
            progress.begin(_WRITE)
            for name in _FILES:
                shutil.copyfile(PAGE / name, stage / name)
            packages.copy(modules, stage / "runtime")
            shutil.copyfile(PAGE / "worker.js", stage / "runtime" / "worker.js")
            files = {name: f"form-{place}.json" for place, name in enumerate(forms)}
            for name, form in forms.items():
                _write(stage / files[name], form)
            utf8 = valid_utf8.masks_of(tokenizer)
            if utf8 is not None:
                (stage / _UTF8).write_bytes(utf8.steps.tobytes())
            content = {
                "title": path.name if self.title is None else self.title,
                "prompts": list(self.prompts),
                "bytes": (stage / MODEL).stat().st_size,
                "graph": inner.report["graph"],
                "tokenizer": described,
                "utf8": utf8 is not None,
                "forms": files,
            }
            _write(stage / _DESCRIPTION, content)
            _write_offline(stage, digests.sha256_of(stage / MODEL))
            progress.begin(_CHECK)
            figures = checking.check(stage, modules, constraints, exact=self.quantize in ("float32", "float16"))
            report = {
                **licences.said(model),
                "quantize": self.quantize,
                "forms": list(forms),
                "litertjs": packages.VERSION,
                "downloaded_bytes": _downloaded(stage),
                "tflite": {key: inner.report[key] for key in ("graph", "signatures", "parity", "sha256")},
                "parity": {"page": figures},
            }
            written = staging.write_report(stage, report, exporter="web")
        return Artefact(path=path, exporter="web", report=written)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path.write_text(text, encoding="utf-8")


def _write_offline(stage: Path, digest: str) -> None:
    """Write what keeps the page's files, with their names; of LiteRT.js's two builds the browser keeps its own."""
    names = sorted(
        file.relative_to(stage).as_posix()
        for file in stage.rglob("*")
        if file.is_file() and not file.name.startswith(f"{MODEL}.") and "litert_wasm" not in file.name
    )
    script = (PAGE / _OFFLINE).read_text(encoding="utf-8")
    script = script.replace("VERSION", digest[:16]).replace(
        '["./"]', json.dumps(["./", *names], ensure_ascii=False, allow_nan=False)
    )
    (stage / _OFFLINE).write_text(script, encoding="utf-8")


def _downloaded(stage: Path) -> int:
    """Return the bytes that a browser fetches: all but reports and the engine's other build."""
    left_out = ("compat", f"{MODEL}.")
    files = (file for file in stage.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if not any(part in file.name for part in left_out))
