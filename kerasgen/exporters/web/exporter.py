"""`web`: a folder that a static server shows, with the model, LiteRT.js and a page that generates in the browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from kerasgen.constraints.base import Constraint
from kerasgen.errors import ArgumentError, ExportArgumentError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.exporters.litertlm.exporter import LiteRtLmExporter
from kerasgen.exporters.tflite.exporter import QUANTIZATIONS, CacheLength, TFLiteExporter
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import meant

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

PAGE: Final = Path(__file__).with_name("page")
MODELS: Final = {"litert": "model.tflite", "litertlm": "model.litertlm"}
"""What the model is called in the folder, by the engine that runs it."""

_SHOWN = ("index.html", "opened.js", "page.css", "page.js", "words.js")
_GENERATING = ("generator.js", "tokenizer.js", "sampler.js", "form.js", "random.js")
_WORKERS = {"litert": "worker.js", "litertlm": "worker-lm.js"}
_OFFLINE, _DESCRIPTION, _UTF8 = "offline.js", "page.json", "utf8.bin"
_SAMPLERS = {
    "litert": ("greedy", "random", "top_k", "top_p", "min_p"),
    "litertlm": ("greedy", "random", "top_k", "top_p"),
}
_WRITE, _CHECK = "write the page", "generate by the page's modules"


@dataclass(frozen=True)
class WebExporter(Exporter):
    """Write a folder that any static server shows: a page writes text in the browser, and works offline once loaded.

    The model is a file that was proved on its own, and a package of npm runs it. With the engine `"litert"` the page
    has tokenizer, samplers and forms of its own. Where Node.js is installed, these generate there before the folder is
    handed over, and must have the ids of kerasgen's runtime. With `"litertlm"` LiteRT-LM does all that, for models with
    other tokenizers than a byte-level BPE, and for conversations with a model that has a chat template.

    Args:
        engine: `"litert"` runs a TFLite file by `@litertjs/core`, `"litertlm"` a LiteRT-LM bundle by
            `@litert-lm/core`, which is larger, takes no `forms`, and draws other texts from a seed than kerasgen does.
        quantize: how weights are stored, as of `TFLiteExporter`. With `engine="litert"`, `"float32"` and `"float16"`,
            which is half as large, give the same ids as in Python. `"int8"` is a quarter as large and faster; a browser
            rounds activations to 8 bits in a slightly other way, so that now and then another token is chosen.
        cache_length: tokens of a whole text, as of `TFLiteExporter`.
        forms: constraints that a person may choose on the page, each a `Constraint` or a text such as
            `"verse_form:form=五言絕句"`. Their automata are written down with all states, of which there must not be
            too many.
        title: what stands above the page; None for the folder's name.
        prompts: beginnings that the page offers.
        node_modules: the folder in which npm installed the engine's package; None looks in the current directory and
            the ones above it.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("_web",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.web.runtime:open_artefact"

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    cache_length: CacheLength | None = None
    forms: tuple[str, ...] | tuple[Constraint, ...] = ()
    title: str | None = None
    prompts: tuple[str, ...] = ()
    node_modules: str | None = None
    engine: Literal["litert", "litertlm"] = "litert"

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise ExportArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
                f"{meant(self.quantize, QUANTIZATIONS)}"
            )
        if self.engine not in MODELS:
            raise ExportArgumentError(
                f"engine must be one of {', '.join(MODELS)}. Received: {self.engine!r}.{meant(self.engine, MODELS)}"
            )
        if self.engine == "litertlm" and self.forms:
            raise ExportArgumentError(
                "LiteRT-LM chooses among all tokens, so a page by engine='litertlm' knows no forms. Received: "
                f"forms={self.forms!r:.80}. Leave them out, or take engine='litert'."
            )
        self._inner()
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
            name = _shown(constraint, form)
            if name in found:
                raise ExportArgumentError(f"Two forms have the name {name!r}. Leave out one of them.")
            found[name] = constraint
        return found

    def _inner(self, lengths: Mapping[str, Any] = MappingProxyType({})) -> TFLiteExporter | LiteRtLmExporter:
        """Return the exporter of the file that the page runs; `lengths` are those of a TFLite file's signatures."""
        if self.engine == "litertlm":
            return LiteRtLmExporter(quantize=self.quantize, cache_length=self.cache_length)
        inner = TFLiteExporter(quantize=self.quantize, cache_length=self.cache_length, beams=0, shortlist=0)
        return replace(inner, **lengths)

    def _length(self, model: LanguageModel) -> int:
        """Return how many tokens a text of the page may have."""
        return self.cache_length or min(model.max_sequence_length or 256, 256)

    def _lengths(self, model: LanguageModel) -> dict[str, tuple[int, ...]]:
        """Return the signatures' lengths by which the model fits into a browser; nothing for the usual ones.

        Raises:
            ExportArgumentError: it never does.
        """
        from kerasgen.exporters.web import memory
        from kerasgen.models import quantized_base

        if self.engine == "litertlm":
            return {}
        usual = len(TFLiteExporter().prefill_lengths) + 1 + sum(64 << n < self._length(model) for n in range(20))
        return memory.signature_lengths(quantized_base.count_params(model.network), self.quantize, usual)

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the folder, and let the page's modules generate where Node.js is installed; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import progress, staging
        from kerasgen.exporters.validation import file_tokenizer
        from kerasgen.exporters.web import checking, packages
        from kerasgen.files import digests
        from kerasgen.models import chat, licences

        package = packages.LITERT_LM if self.engine == "litertlm" else packages.LITERT
        modules = packages.find(self.node_modules, package)
        model = replace(model, tokenizer=file_tokenizer(model, "web"))
        constraints = self.constraints()
        lengths = self._lengths(model)
        own, files = self._modules(model, constraints) if self.engine == "litert" else ({}, {})
        with staging.staged(path, overwrite=overwrite, exporter="web") as stage:
            progress.plan(_WRITE, _CHECK)
            stage.mkdir()
            name = MODELS[self.engine]
            inner = self._inner(lengths).export(model, stage / name)
            progress.begin(_WRITE)
            for file, content in files.items():
                (stage / file).write_bytes(content)
            for file in (*_SHOWN, *(_GENERATING if self.engine == "litert" else ())):
                shutil.copyfile(PAGE / file, stage / file)
            packages.copy(modules, stage / "runtime", package)
            shutil.copyfile(PAGE / _WORKERS[self.engine], stage / "runtime" / "worker.js")
            described: dict[str, Any] = {
                "title": path.name if self.title is None else self.title,
                "prompts": list(self.prompts),
                "model": name,
                "bytes": (stage / name).stat().st_size,
                "engine": self.engine,
                "samplers": _SAMPLERS[self.engine],
            }
            if self.engine == "litert":
                graph = inner.report["graph"]
                described |= {"max_tokens": graph["cache_length"], "graph": graph, **own}
            else:
                described |= {"max_tokens": inner.report["max_tokens"], "chat": bool(chat.said(model))}
                described["vocabulary_size"] = model.tokenizer.vocabulary_size
            (stage / _DESCRIPTION).write_bytes(_json(described))
            _write_offline(stage, name, package.builds, digests.sha256_of(stage / name))
            progress.begin(_CHECK)
            is_exact = self.quantize in ("float32", "float16")
            if self.engine == "litert":
                figures = checking.check(stage, modules, constraints, exact=is_exact)
            else:
                figures = checking.check_litert_lm(stage, modules, model, most=described["max_tokens"], exact=is_exact)
            report = {
                **licences.said(model),
                **chat.said(model),
                "engine": self.engine,
                "quantize": self.quantize,
                "forms": list(constraints),
                "package": f"{package.name}@{package.version}",
                "downloaded_bytes": _downloaded(stage, name, package.builds),
                "model": inner.report,
                "parity": {**inner.report.get("parity", {}), "page": figures},
            }
            written = staging.write_report(stage, report, exporter="web")
        return Artefact(path=path, exporter="web", report=written)

    def _modules(
        self, model: LanguageModel, constraints: Mapping[str, Constraint]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return what the page's own modules need: tokenizer, forms, and which bytes are UTF-8.

        Returns:
            What stands in the description, and files by their names.

        Raises:
            ExportArgumentError: the page can't hold the tokenizer, or a form.
        """
        from kerasgen.constraints import valid_utf8
        from kerasgen.exporters.web import description

        tokenizer = description.tokenizer(model.tokenizer)
        names = {form: f"form-{place}.json" for place, form in enumerate(constraints)}
        described = {form: description.form(kept, model.tokenizer) for form, kept in constraints.items()}
        for form, content in described.items():
            fewest = content["states"][0]["fewest"]
            if fewest is not None and fewest >= self._length(model):
                raise ExportArgumentError(
                    f"A text of the form {form} has at least {fewest} tokens of this model, and texts of the page have "
                    f"{self._length(model)} with what they begin with. Raise cache_length, or leave the form out."
                )
        files = {names[form]: _json(content) for form, content in described.items()}
        utf8 = valid_utf8.masks_of(model.tokenizer)
        if utf8 is not None:
            files[_UTF8] = utf8.steps.tobytes()
        return {"tokenizer": tokenizer, "forms": names, "utf8": utf8 is not None}, files


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _write_offline(stage: Path, model: str, builds: Sequence[str], digest: str) -> None:
    """Write what keeps the page's files, with their names; of the engine's builds the browser keeps its own."""
    names = sorted(
        file.relative_to(stage).as_posix()
        for file in stage.rglob("*")
        if file.is_file() and not file.name.startswith((f"{model}.", *(f"{build}." for build in builds)))
    )
    script = (PAGE / _OFFLINE).read_text(encoding="utf-8")
    script = script.replace("VERSION", digest[:16]).replace(
        '["./"]', json.dumps(["./", *names], ensure_ascii=False, allow_nan=False)
    )
    (stage / _OFFLINE).write_text(script, encoding="utf-8")


def _downloaded(stage: Path, model: str, builds: Sequence[str]) -> int:
    """Return the bytes that a browser of today fetches: all but reports and the engine's other builds."""
    left_out = (f"{model}.", *(f"{build}." for build in builds[1:]))
    files = (file for file in stage.rglob("*") if file.is_file() and not file.name.startswith(left_out))
    return sum(file.stat().st_size for file in files)


def _shown(constraint: Constraint, form: str | Constraint) -> str:
    """Return the name that the page shows for a form of verse, with what is asked of it, or for another constraint."""
    rhyme, first = getattr(constraint, "rhyme", False), getattr(constraint, "first", "")
    heads = getattr(constraint, "acrostic", "") or getattr(constraint, "heads", "")
    asked = [
        f"韻{rhyme}" if isinstance(rhyme, str) and rhyme else "押韻" if rhyme else "",
        "平仄" if getattr(constraint, "tones", False) and not first else "",
        f"藏頭{heads}" if heads else "",
        f"對{first}" if first else "",
    ]
    return " · ".join(filter(None, [str(getattr(constraint, "form", "" if first else form)), *asked]))
