"""Reads a recipe: checks every setting, loads nothing heavy, and tells all faults at once with their lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from kerasgen import specs
from kerasgen.corpora import resolving as corpora_resolving
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.exporters import registry as exporters_choosing
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.recipes import assigning, layout, misplaced
from kerasgen.recipes.faults import Faults, dotted
from kerasgen.recipes.lines import Key, located
from kerasgen.recipes.making import Making
from kerasgen.recipes.opening import opened
from kerasgen.recipes.recipe import Export, Recipe
from kerasgen.tuners.base import check_fit

__all__ = ["Export", "Recipe", "read"]


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
    path, text, content = opened(source)
    if assignments:
        content = assigning.assigned(content, assignments)
    faults = Faults(path, located(text), assignments or ())
    return _Reading(content, faults).recipe(pipeline)


class _Reading(Making):
    """One reading of a recipe; see `Making`."""

    def recipe(self, pipeline: Callable[..., Any]) -> Recipe:
        for name in self.content:
            if name not in layout.TOP:
                self.faults.add((name,), misplaced.unknown_at_top(name, self.content))
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


def _chooser(name: str, path: Path) -> Callable[..., Any]:
    def choose(**settings: Any) -> Any:
        return exporters_choosing.choose(name, path, settings)

    return choose
