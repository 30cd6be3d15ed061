"""Registry: names to classes through entry points, loaded on use and never before."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from kerasgen import specs
from kerasgen.errors import ArgumentError, PluginConflictError, PluginLoadError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

DISTRIBUTION = "kerasgen"


class Registry(Generic[T]):
    """The classes that fulfil one contract, by name.

    Built-ins are entry points of the distribution `kerasgen`, like anyone's; nobody can take a built-in's name.
    Listing the names imports nothing; a plugin is imported when it is asked for.

    Args:
        group: the entry-point group, such as `"kerasgen.samplers"`.
        contract: `"module:Class"` that every plugin must subclass; imported when the first plugin is.
        noun: what a message calls one of them, such as `"sampler"`.
        error: what a wrong argument raises.
    """

    def __init__(self, group: str, *, contract: str, noun: str, error: type[ArgumentError]) -> None:
        self.group = group
        self.noun = noun
        self.error = error
        self._contract = contract
        self._loaded: dict[str, type[T]] = {}
        self._entry_points: dict[str, list[EntryPoint]] | None = None

    def names(self) -> tuple[str, ...]:
        """Return every registered name in alphabetical order, and import nothing."""
        return tuple(sorted(self._by_name()))

    def get(self, name: str) -> type[T]:
        """Return the class registered under `name`.

        Raises:
            UnknownNameError: nothing has this name.
            PluginConflictError: two packages claim it.
            PluginLoadError: the plugin's own code failed, or it is not what the contract asks for.
        """
        if name in self._loaded:
            return self._loaded[name]
        entry_points = self._by_name().get(name, [])
        if not entry_points:
            close = specs.near(name, self.names())
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UnknownNameError(
                f"No {self.noun} is called {name!r}.{hint} There are: {', '.join(self.names()) or 'none'}. "
                f"Others come with packages that declare the entry-point group {self.group!r}.",
                name=name,
                near=close,
            )
        owners = sorted({_distribution(point) for point in entry_points})
        if len(owners) > 1:
            raise PluginConflictError(
                f"The {self.noun} {name!r} is claimed by {' and '.join(owners)}. "
                + (
                    "A built-in can't be shadowed: rename or uninstall the other."
                    if DISTRIBUTION in owners
                    else "Uninstall one of them."
                ),
                distribution=", ".join(owners),
            )
        self._loaded[name] = self._load(entry_points[0])
        return self._loaded[name]

    def describe(self, name: str) -> str:
        """Return the name's arguments and the first paragraph of its documentation, to be printed."""
        kind = self.get(name)
        parameters = inspect.signature(kind).parameters.values()
        summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        return f"{name}({', '.join(map(_say, parameters))})\n{summary}"

    def create(self, text: str) -> T:
        """Return the value that `"name"` or `"name:key=value,…"` stands for.

        Raises:
            ArgumentError: the text can't be read, or an argument is unknown or out of range.
        """
        name, arguments = specs.split_text(text)
        return self.build(name, arguments)

    def build(self, name: str, arguments: dict[str, Any]) -> T:
        """Return the class called `name`, constructed from arguments that may be text."""
        return specs.build(self.get(name), arguments, name=name, error=self.error)

    def resolve(self, value: object) -> T:
        """Return the value that a person wrote: text such as `"name:key=value"`, or an instance already.

        Raises:
            ArgumentError: it is neither, or the text can't be read.
        """
        if isinstance(value, str):
            return self.create(value)
        module, _, attribute = self._contract.partition(":")
        contract = getattr(__import__(module, fromlist=[attribute]), attribute)
        if isinstance(value, contract):
            return cast(T, value)
        hint = f" Write {value.__name__}(…), with its settings." if isinstance(value, type) else ""
        raise self.error(
            f"A {self.noun} is a name such as {self.names()[0]!r}, or an instance. Received: {value!r}.{hint}"
        )

    def name_of(self, spec: object) -> str | None:
        """Return the name under which the class of `spec` is registered, or None if it is not."""
        for name, points in self._by_name().items():
            if any(point.value == f"{type(spec).__module__}:{type(spec).__qualname__}" for point in points):
                return name
        return next((name for name, kind in self._loaded.items() if kind is type(spec)), None)

    def to_manifest(self, spec: object) -> dict[str, Any]:
        """Return `{"name": …, "arguments": {…}}`, from which `from_manifest` makes an equal value.

        Raises:
            ArgumentError: the class of `spec` is not registered, so nobody could load it again.
        """
        name = self.name_of(spec)
        if name is None:
            raise self.error(
                f"{type(spec).__name__} is no registered {self.noun}, so a saved pipeline could not name it. "
                f"Declare it under the entry-point group {self.group!r}."
            )
        return {"name": name, "arguments": specs.to_arguments(spec)}

    def from_manifest(self, manifest: dict[str, Any]) -> T:
        """Return the value that `to_manifest` described."""
        return self.build(manifest["name"], manifest["arguments"])

    def _by_name(self) -> dict[str, list[EntryPoint]]:
        if self._entry_points is None:
            # Imported here: importlib.metadata takes 15 ms that `import kerasgen` need not spend.
            from importlib.metadata import entry_points

            self._entry_points = _group(entry_points(group=self.group))
        return self._entry_points

    def _load(self, point: EntryPoint) -> type[T]:
        distribution = _distribution(point)
        try:
            loaded = point.load()
        except Exception as cause:
            raise PluginLoadError(
                f"The {self.noun} {point.name!r} of the package {distribution!r} could not be loaded from "
                f"{point.value!r}: {type(cause).__name__}: {cause}",
                distribution=distribution,
            ) from cause
        module, _, attribute = self._contract.partition(":")
        contract = getattr(__import__(module, fromlist=[attribute]), attribute)
        if not (isinstance(loaded, type) and issubclass(loaded, contract)):
            raise PluginLoadError(
                f"The {self.noun} {point.name!r} of the package {distribution!r} must be a subclass of "
                f"{self._contract.replace(':', '.')}. Received: {loaded!r}.",
                distribution=distribution,
            )
        return loaded


def _group(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Entry points by name; one that is seen twice from one package (an editable install) counts once."""
    grouped: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in points:
        grouped.setdefault(point.name, {})[(_distribution(point), point.value)] = point
    return {name: list(found.values()) for name, found in grouped.items()}


def _say(parameter: inspect.Parameter) -> str:
    """A parameter as a person would write it: annotations that are text stand without quotes, defaults with theirs."""
    annotation = parameter.annotation
    said = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {said}{default}"


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"
