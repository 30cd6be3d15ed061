"""Reads a recipe: checks every setting, loads nothing heavy, and tells all faults at once with their lines."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import keywords, limits, specs
from kerasgen.corpora import resolving as corpora_resolving
from kerasgen.errors import ArgumentError, KerasgenError, RecipeError, RecipeFault
from kerasgen.exporters import registry as exporters_choosing
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.recipes import assigning, layout
from kerasgen.recipes.faults import Faults, dotted
from kerasgen.recipes.layout import TYPE
from kerasgen.recipes.lines import Key, located
from kerasgen.recipes.values import FromText, plain, typed
from kerasgen.tuners.base import check_fit

if TYPE_CHECKING:
    from kerasgen.plugins import Registry


@dataclass(frozen=True)
class Export:
    """One artefact that a recipe asks for.

    Args:
        path: where it is written.
        exporter: what writes it.
    """

    path: Path
    exporter: Any


@dataclass(frozen=True)
class Recipe:
    """What a recipe asks for, checked.

    Args:
        pipeline: the pipeline.
        output: where the tuned pipeline is saved, or None.
        fit: arguments of `fit`.
        evaluate: arguments of `evaluate`; None if nothing is evaluated.
        samples: what is written after tuning: `prompts`, `path` and settings of `generate`; None for nothing.
        exports: the artefacts.
        content: the recipe as plain tables.
    """

    pipeline: Any
    output: str | None
    fit: Mapping[str, Any]
    evaluate: Mapping[str, Any] | None
    samples: Mapping[str, Any] | None
    exports: tuple[Export, ...]
    content: Mapping[str, Any]


def read(
    source: str | os.PathLike[str] | Mapping[str, Any],
    pipeline: Callable[..., Any],
    *,
    assignments: Mapping[Key, Any] | None = None,
) -> Recipe:
    """Return what a recipe asks for.

    Args:
        source: the path of a TOML file, a text of several lines, or the tables themselves.
        pipeline: makes the pipeline of its arguments.
        assignments: settings that replace the recipe's own.

    Raises:
        RecipeError: it can't be read, or settings are wrong; has all faults.
        BackendError: Keras already runs on another backend than the recipe asks for.
    """
    path, text, content = _opened(source)
    if assignments:
        content = assigning.assigned(content, assignments)
    faults = Faults(path, located(text), assignments or ())
    return _Reading(content, faults).recipe(pipeline)


def _opened(source: Any) -> tuple[Path | None, str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return None, "", dict(source)
    if isinstance(source, str) and "\n" in source:
        return None, source, _parsed(source, None)
    path = path_argument(source, name="recipe")
    try:
        text = limits.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as cause:
        raise RecipeError(
            f"There is no recipe {path}. A recipe is a TOML file: pipe.to_recipe({str(path)!r}) writes a pipeline's, "
            'or write one with the lines corpus = "text:path=poems.txt" and tuner = "full".',
            faults=[RecipeFault("", str(cause))],
            path=path,
        ) from cause
    except (OSError, ValueError) as cause:
        raise RecipeError(
            f"The recipe {path} can't be read: {cause}.", faults=[RecipeFault("", str(cause))], path=path
        ) from cause
    text = text.replace("\r\n", "\n")
    return path, text, _parsed(text, path)


def _parsed(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as cause:
        found = re.search(r"\(at line (\d+)", str(cause))
        line = int(found[1]) if found else text.count("\n") + 1
        hint = ' Text stands in quotes, as in model = "starter".' if "Invalid value" in str(cause) else ""
        hint = " A setting and a table stand once." if re.search("overwrite|twice", str(cause)) else hint
        message = f"This is no TOML: {cause}.{hint}"
        place = "recipe" if path is None else path
        raise RecipeError(f"{place}:{line}: {message}", faults=[RecipeFault("", message, line)], path=path) from cause


class _Reading:
    """One reading of a recipe.

    Args:
        content: its tables.
        faults: takes what is wrong.
    """

    def __init__(self, content: Mapping[str, Any], faults: Faults) -> None:
        self.content, self.faults = content, faults

    def recipe(self, pipeline: Callable[..., Any]) -> Recipe:
        for name in self.content:
            if name not in layout.TOP:
                self.faults.add((name,), self._unknown_at_top(name))
        arguments = {name: self._part(name) for name in layout.PARTS if name in self.content}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        plain = {name: value for name, value in self.content.items() if name in layout.SETTINGS}
        arguments |= self._typed((), plain, layout.SETTINGS)
        config = self._generation(("generation",), self.content.get("generation", {}))
        if config is not None:
            arguments["generation_config"] = config
        made = self._constructed((), pipeline, arguments, of_pipeline=True)
        output = self._typed((), {k: v for k, v in self.content.items() if k == layout.OUTPUT}, {layout.OUTPUT: str})
        fit = self._table("fit", layout.FIT) or {}
        try:
            check_fit(resume=fit.get("resume", "auto"), verbose=0)
        except ArgumentError as cause:
            self.faults.add(("fit", "resume"), str(cause))
        evaluate = self._table("evaluate", layout.EVALUATE)
        for word, resolve in (("corpus", corpora_resolving.resolve), ("sampler", layout.PARTS["sampler"].resolve)):
            try:
                if evaluate is not None and evaluate.get(word) is not None:
                    resolve(evaluate[word])
            except KerasgenError as cause:
                self.faults.add(("evaluate", word), str(cause))
        samples, exports = self._samples(), self._exports()
        self._check_places(output.get(layout.OUTPUT), samples, exports)
        for name, word, table in (("fit", "directory", fit), ("evaluate", "scores_path", evaluate or {})):
            if table.get(word) is not None:
                self._check_path((name, word), table[word])
        if "corpus" not in self.content and (evaluate is not None or "fit" in self.content):
            self.faults.add(("fit" if "fit" in self.content else "evaluate",), "There is no corpus. Write corpus = …")
        self.faults.check()
        sound = tuple(export for export in exports if export is not None)
        return Recipe(made, output.get(layout.OUTPUT), fit, evaluate, samples, sound, self.content)

    def _part(self, name: str) -> Any:
        """Return a part of the pipeline; None if it is wrong."""
        value, registry = self.content[name], layout.PARTS[name]
        if isinstance(value, str):
            text = str(value)
            if name == "model":  # an address, which the pipeline looks at
                return text
            return self._resolved((name,), text, registry)
        if isinstance(value, Mapping):
            made = self._plugin((name,), value, registry, default=layout.DEFAULT_TYPES.get(name))
            if made is not None and name == "model":
                try:
                    made.check()
                except KerasgenError as cause:
                    self.faults.add((name,), str(cause))
            return made
        if name == "corpus" and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return list(value)
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            self.faults.add((name,), f"takes one table, begun by a line [{name}] with single brackets.")
            return None
        texts = ", or a list of texts" if name == "corpus" else ""
        self.faults.add((name,), f"takes text or a table{texts}. Received: {value!r:.80}.")
        return None

    def _resolved(self, key: Key, text: str, registry: Registry[Any]) -> Any:
        """Return the value that a text stands for; None if it is wrong."""
        try:
            return corpora_resolving.resolve(text) if key == ("corpus",) else registry.resolve(text)
        except KerasgenError as cause:
            self.faults.add(key, str(cause))
            return None

    def _plugin(
        self, key: Key, table: Mapping[str, Any], registry: Registry[Any], *, default: str | None = None
    ) -> Any:
        """Return the value that a table with its `type` stands for; None if it is wrong."""
        name = table.get(TYPE, default)
        if not isinstance(name, str):
            names = ", ".join(registry.names())
            received = "" if name is None else f" Received: {name!r:.80}."
            self.faults.add((*key, TYPE), f"says which {registry.noun} is meant, one of {names}.{received}")
            return None
        try:
            kind = registry.get(str(name))
        except KerasgenError as cause:
            self.faults.add((*key, TYPE), str(cause))
            return None
        known = specs.fields(kind)
        given = {word: value for word, value in table.items() if word != TYPE}
        if registry is layout.PARTS["corpus"]:
            before = len(self.faults)
            given = {word: self._nested((*key, word), value) for word, value in given.items()}
            if len(self.faults) > before:
                return None
        elsewhere = getattr(kind, "_elsewhere", None)
        if TYPE not in table:
            elsewhere = _of_another(registry, str(name), elsewhere)
        arguments = self._typed(key, given, known, of=str(name), elsewhere=elsewhere)
        needed = specs.needed(kind)
        lacking = [word for word in needed if word not in given]
        for word in lacking:
            self.faults.add((*key, word), f"{str(name)!r} needs it. Write {word} = …")
        if lacking or any(word not in arguments for word in needed):
            return None
        with registry._survives(str(name)):
            return self._constructed(key, kind, arguments, needed=needed)

    def _nested(self, key: Key, value: Any) -> Any:
        """Return a corpus's argument with the corpora in it made, as in `of = [[3, {type = "sample"}]]`."""
        if isinstance(value, Mapping) and TYPE in value:
            return self._plugin(key, value, layout.PARTS["corpus"])
        if isinstance(value, list):
            return [self._nested((*key, place), item) for place, item in enumerate(value)]
        return value

    def _typed(
        self,
        key: Key,
        table: Mapping[str, Any],
        known: Mapping[str, Any],
        *,
        of: str = "",
        elsewhere: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> dict[str, Any]:
        """Return the settings of a table as their annotations say, without those that are wrong."""
        taken = {}
        owner = repr(of) if of else f"{dotted(key)!r}"
        for word, value in table.items():
            if word not in known:
                placed = elsewhere({word: value}) if elsewhere is not None else ""
                hint = f" {placed}" if placed else keywords.did_you_mean(word, [*known, *([TYPE] if of else [])])
                listed = "" if hint else f" It takes: {', '.join(known) or 'none'}."
                self.faults.add((*key, word), f"{owner} has no setting {word!r}.{hint}{listed}")
                continue
            try:
                taken[word] = typed(value, known[word])
                if isinstance(value, FromText):
                    self._settle((*key, word), taken[word])
            except ValueError as cause:
                self.faults.add((*key, word), str(cause))
        return taken

    def _settle(self, key: Key, value: Any) -> None:
        """Put what text of the command line says in its place, so that the recipe can be written down."""
        place: Any = self.content
        for word in key[:-1]:
            place = place[word]
        place[key[-1]] = plain(value)

    def _constructed(
        self,
        key: Key,
        make: Callable[..., Any],
        arguments: Mapping[str, Any],
        *,
        needed: Collection[str] = (),
        of_pipeline: bool = False,
    ) -> Any:
        """Return `make(**arguments)`, or None with every fault that it finds: a setting at fault is left out next."""
        left, sound = dict(arguments), True
        while True:
            try:
                made = make(**left)
            except (ArgumentError, ValueError, TypeError) as cause:
                if isinstance(cause, KerasgenError) and not isinstance(cause, ArgumentError):
                    raise
                sound = False
                word = _named(str(cause), left)
                self.faults.add((*key, word) if word else key, str(cause))
            except KerasgenError as cause:
                if not of_pipeline or "model" not in left or type(cause).__name__ == "BackendError":
                    raise
                sound, word = False, "model"
                self.faults.add(("model",), str(cause))
            else:
                return made if sound else None
            if word is None or word in needed:
                return None
            del left[word]

    def _generation(self, key: Key, table: Any, *, besides: Collection[str] = ()) -> GenerationConfig | None:
        """Return the settings of a table as a config; None if there are none, or one is wrong."""
        if not isinstance(table, Mapping):
            self.faults.add(key, f"takes a table. Received: {table!r:.80}.")
            return None
        given = {word: value for word, value in table.items() if word not in besides}
        constraint = given.get("constraint")
        made = None
        if isinstance(constraint, Mapping):
            del given["constraint"]
            made = self._plugin((*key, "constraint"), constraint, layout.constraint_registry())
        elif isinstance(constraint, str) and constraint != "none":
            del given["constraint"]
            made = self._resolved((*key, "constraint"), constraint, layout.constraint_registry())
        settings = self._typed(key, given, layout.generation())
        settings |= {} if made is None else {"constraint": made}
        return self._constructed(key, GenerationConfig, settings) if settings else None

    def _table(self, name: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
        table = self.content.get(name)
        if table is None:
            return None
        if not isinstance(table, Mapping):
            self.faults.add((name,), f"takes a table. Received: {table!r:.80}.")
            return None
        return self._typed((name,), table, known)

    def _samples(self) -> dict[str, Any] | None:
        table = self.content.get("samples")
        if table is None:
            return None
        if not isinstance(table, Mapping) or "prompts" not in table:
            self.faults.add(("samples",), 'takes a table with prompts = ["…"], and settings of generate.')
            return None
        own = {word: value for word, value in table.items() if word in layout.SAMPLES}
        if own["prompts"] == []:
            self.faults.add(("samples", "prompts"), 'takes one prompt at least, as in prompts = [""].')
        config = self._generation(("samples",), table, besides=layout.SAMPLES)
        return self._typed(("samples",), own, layout.SAMPLES) | ({} if config is None else config.changed())

    def _exports(self) -> tuple[Export | None, ...]:
        """Return the artefacts; None in the place of one that is wrong."""
        tables = self.content.get("exports", [])
        if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
            self.faults.add(("exports",), "takes tables, each begun by a line [[exports]].")
            return ()
        return tuple(self._export(("exports", place), table) for place, table in enumerate(tables))

    def _check_places(
        self, output: str | None, samples: Mapping[str, Any] | None, exports: Collection[Export | None]
    ) -> None:
        """Note a place that two steps would write to, which is found out after the run else."""
        path = (samples or {}).get("path")
        places: list[tuple[Key, Any]] = [((layout.OUTPUT,), output), (("samples", "path"), path)]
        places += [(("exports", place, "path"), export.path) for place, export in enumerate(exports) if export]
        seen: dict[Path, Key] = {}
        for key, place in places:
            if place is None or not self._check_path(key, place):
                continue
            first = seen.setdefault(Path(place).absolute(), key)
            if first != key:
                self.faults.add(key, f"{str(place)!r} is what {dotted(first)} writes to. Give each a path of its own.")

    def _check_path(self, key: Key, place: Any) -> bool:
        """Note a fault unless something can be written to the place, such as one that is empty."""
        try:
            path_argument(place, name=str(key[-1]))
        except ArgumentError as cause:
            self.faults.add(key, str(cause))
            return False
        return True

    def _export(self, key: Key, table: Mapping[str, Any]) -> Export | None:
        own = self._typed(key, {k: v for k, v in table.items() if k in layout.EXPORT}, layout.EXPORT)
        if "path" not in own:
            if "path" not in table:
                self.faults.add((*key, "path"), 'is needed: where the artefact is written, as in path = "poet.tflite"')
            return None
        try:
            path = path_argument(own["path"])
            name = own.get("exporter") or exporters_choosing.by_ending(path)
            named = specs.split_text(name)[0]
            known = specs.fields(layout.exporter_registry().get(named))
        except KerasgenError as cause:
            self.faults.add((*key, "exporter" if "exporter" in own else "path"), str(cause))
            return None
        given = {word: value for word, value in table.items() if word not in layout.EXPORT}
        settings = self._typed(key, given, known, of=named)
        chosen = self._constructed(key, _chooser(name, path), settings)
        return None if chosen is None else Export(path, chosen)

    def _unknown_at_top(self, name: str) -> str:
        """Return what is wrong with a setting that no recipe has, and where it may belong."""
        places: list[tuple[str, Mapping[str, Any]]] = [("generation", layout.generation()), *_STEP_SETTINGS.items()]
        places = [*((top, specs.fields(layout.PARTS[top].get(kind))) for top, kind in self._kinds()), *places]
        for where, known in places:
            own = keywords.same(name, known)
            if own is not None:
                return f"A recipe has no setting {name!r}. Write {own} = … under [{where}]."
        hint = keywords.did_you_mean(name, layout.TOP)
        return f"A recipe has no setting {name!r}.{hint}" + ("" if hint else f" It takes: {', '.join(layout.TOP)}.")

    def _kinds(self) -> list[tuple[str, str]]:
        """Return the plugins whose settings may be meant at the top: those named, and of tuners both."""
        kinds = [("tuner", "full"), ("tuner", "lora"), ("sampler", "top_k")]
        for top in ("tuner", "sampler", "corpus"):
            value = self.content.get(top)
            name = value.get(TYPE) if isinstance(value, Mapping) else value
            name = str(name).partition(":")[0]
            if name in layout.PARTS[top].names():
                kinds.insert(0, (top, name))
        return kinds


_STEP_SETTINGS = {"fit": layout.FIT, "evaluate": layout.EVALUATE}


def _of_another(
    registry: Registry[Any], default: str, elsewhere: Callable[[Mapping[str, Any]], str] | None
) -> Callable[[Mapping[str, Any]], str]:
    """Return what says which plugins have a setting, where a table has no `type` and the default plugin lacks it."""

    def placed(settings: Mapping[str, Any]) -> str:
        owners = []
        for name in registry.names():
            with suppress(KerasgenError):  # a plugin that can't be loaded has no settings
                owners += [name] if settings.keys() <= specs.fields(registry.get(name)).keys() else []
        if not owners:
            return "" if elsewhere is None else elsewhere(settings)
        lines = " or ".join(f'type = "{name}"' for name in owners)
        return f"Without {TYPE} the {registry.noun} is {default!r}. Write {lines} beside it."

    return placed


def _chooser(name: str, path: Path) -> Callable[..., Any]:
    def choose(**settings: Any) -> Any:
        return exporters_choosing.choose(name, path, settings)

    return choose


def _named(message: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the argument that a message names first, or None."""
    places = {}
    for word in arguments:
        found = re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", message)
        if found:
            places[word] = found.start()
    return min(places, key=lambda word: places[word]) if places else None
