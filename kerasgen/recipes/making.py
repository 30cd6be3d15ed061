"""Makes the values that the tables of a recipe stand for, and notes what is wrong with each setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kerasgen import keywords, specs
from kerasgen.corpora import resolving as corpora_resolving
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.recipes import layout
from kerasgen.recipes.faults import Faults, dotted
from kerasgen.recipes.layout import TYPE
from kerasgen.recipes.lines import Key
from kerasgen.recipes.values import FromText, plain, typed

if TYPE_CHECKING:
    from kerasgen.plugins import Registry


class Making:
    """Makes values of tables. What is wrong is noted as a fault, and None stands in its place.

    Args:
        content: the recipe's tables.
        faults: takes what is wrong.
    """

    def __init__(self, content: Mapping[str, Any], faults: Faults) -> None:
        self.content, self.faults = content, faults

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


def _named(message: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the argument that a message names first, or None."""
    places = {}
    for word in arguments:
        found = re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", message)
        if found:
            places[word] = found.start()
    return min(places, key=lambda word: places[word]) if places else None
