"""Registry: names to classes through entry points, loaded on use and never before."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from kerasgen import keywords, specs
from kerasgen.errors import ArgumentError, KerasgenWarning, PluginLoadError, UnknownNameError
from kerasgen.plugins import claims, entry_points, loading, selection
from kerasgen.plugins.entry_points import DISTRIBUTION, distribution_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

_OBJECT = re.compile(r"[\w.]+:[\w.]+(\s*\[.*\])?")


class Registry(Generic[T]):
    """The classes that fulfil one contract, by name.

    Built-ins are entry points of the distribution `kerasgen`, like anyone's. A built-in's name always means the
    built-in: another package that claims it is passed over with a warning.
    Listing the names imports nothing; a plugin is imported when it is asked for.

    Args:
        group: the entry-point group, such as `"kerasgen.samplers"`.
        contract: `"module:Class"` that every plugin must subclass; imported when the first plugin is.
        noun: what a message calls one of them, such as `"sampler"`.
        error: what a wrong argument raises.
        version: the contract's, which a plugin may declare; see `kerasgen.plugins.contract_versions`.
        oldest_version: the oldest one whose plugins still work.
    """

    def __init__(
        self,
        group: str,
        *,
        contract: str,
        noun: str,
        error: type[ArgumentError],
        version: int = 1,
        oldest_version: int = 1,
    ) -> None:
        self.group = group
        self.kind = group.rpartition(".")[2]
        self.version = version
        self.oldest_version = oldest_version
        self.noun = noun
        self.error = error
        self._contract = contract
        self._loaded: dict[str, type[T]] = {}
        self._entry_points: dict[str, list[EntryPoint]] | None = None
        self._left_out: dict[str, list[EntryPoint]] = {}
        self._shadowed: dict[str, list[EntryPoint]] = {}
        self._warned: set[str] = set()
        self._unreadable: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return every registered name in alphabetical order, and import nothing."""
        return tuple(sorted(self._by_name()))

    def built_ins(self) -> tuple[str, ...]:
        """Return the names that kerasgen itself declares, in alphabetical order, and import nothing."""
        return tuple(name for name in self.names() if DISTRIBUTION in map(distribution_of, self._by_name()[name]))

    def distribution(self, name: str) -> str:
        """Return the package that declares a registered name; comma-separated packages where several do."""
        return ", ".join(sorted({distribution_of(point) for point in self._by_name()[name]}))

    def get(self, name: str) -> type[T]:
        """Return the class registered under `name`.

        Raises:
            UnknownNameError: nothing has this name.
            PluginConflictError: two packages claim it, or one does twice, and it is no built-in's.
            PluginLoadError: the plugin's own code failed, or it is not what the contract asks for, or it was written
                for another version of the contract.

        Warns:
            KerasgenWarning: another package claims this name of a built-in, which is returned; said once.
        """
        self._warn_of_shadowed(name)
        if name in self._loaded:
            return self._loaded[name]
        points = self._by_name().get(name, [])
        if not points:
            self._raise_left_out(name)
            close = keywords.near(name, self.names())
            hint = keywords.suggestion(close)
            raise UnknownNameError(
                f"No {self.noun} is called {name!r}.{hint} There are: {', '.join(self.names()) or 'none'}. "
                f"Others come with packages that declare the entry-point group {self.group!r}."
                + (f" Those of {', '.join(self._unreadable)} can't be read." if self._unreadable else ""),
                name=name,
                near=close,
            )
        if len(points) > 1:
            raise claims.conflict(self.noun, name, points)
        self._loaded[name] = loading.load(
            points[0],
            noun=self.noun,
            contract=self._contract,
            version=self.version,
            oldest_version=self.oldest_version,
        )
        return self._loaded[name]

    def describe(self, name: str) -> str:
        """Return the name's arguments and the first paragraph of its documentation, to be printed."""
        kind = self.get(name)
        annotations = specs.fields(kind)
        arguments = []
        for parameter in inspect.signature(kind).parameters.values():
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            # Resolved, so that an alias shows its choices.
            arguments.append(f"{parameter.name}: {inspect.formatannotation(annotations[parameter.name])}{default}")
        summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        return f"{name}({', '.join(arguments)})\n{summary}"

    @keywords.checked()
    def create(self, text: str) -> T:
        """Return the value that `"name"` or `"name:key=value,…"` stands for.

        Raises:
            ArgumentError: (the registry's own kind) the text can't be read, or an argument is unknown or out of range.
            UnknownNameError: nothing has this name.
            PluginError: the plugin is at fault.
        """
        name, arguments = specs.split_text(text, error=self.error, key_of=self._needed)
        return self.build(name, arguments)

    def build(self, name: str, arguments: Mapping[str, Any]) -> T:
        """Return the class called `name`, constructed from arguments that may be text."""
        kind = self.get(name)
        with self._survives(name):
            return specs.build(kind, arguments, name=name, error=self.error)

    def resolve(self, value: object) -> T:
        """Convert text such as `"name:key=value"` to its value; an instance is returned as it is.

        Raises:
            ArgumentError: it is neither, or the text can't be read.
        """
        if isinstance(value, str):
            return self.create(value)
        module, _, attribute = self._contract.partition(":")
        contract = getattr(import_module(module), attribute)
        if isinstance(value, contract):
            return cast(T, value)
        hint = f" Write {value.__name__}(…), with its settings." if isinstance(value, type) else ""
        raise self.error(
            f"A {self.noun} is a name ({', '.join(self.names())}) or an instance. Received: {value!r}.{hint}"
        )

    def name_of(self, spec: object) -> str | None:
        """Return the name under which the class of `spec` is registered, or None if it is not."""
        kind = type(spec)
        for name, points in self._by_name().items():
            if self._loaded.get(name) is kind or any(_is(point, kind) for point in points):
                return name
        return None

    def to_text(self, spec: object) -> str:
        """Return the text from which `create` makes an equal value.

        Raises:
            ArgumentError: the class of `spec` is not registered, or an argument has no text form.
        """
        return specs.to_text(self._name(spec), spec, error=self.error)

    def to_manifest(self, spec: object) -> dict[str, Any]:
        """Return `{"name": …, "arguments": {…}}`, from which `from_manifest` makes an equal value.

        What it holds of its own kind, as a mixture holds corpora, is described likewise.

        Raises:
            ArgumentError: the class of `spec` is not registered, so nobody could load it again, or an argument is
                nothing that JSON can hold.
        """
        return {
            "name": self._name(spec),
            "arguments": specs.to_arguments(spec, error=self.error, convert=self._nested_manifest),
        }

    def _nested_manifest(self, value: Any) -> Any:
        """Return the manifest of a value of this kind that another one holds; anything else as it is."""
        module, _, attribute = self._contract.partition(":")
        return self.to_manifest(value) if isinstance(value, getattr(import_module(module), attribute)) else value

    def _from_nested_manifest(self, value: Any) -> Any:
        if isinstance(value, list):
            return list(map(self._from_nested_manifest, value))
        if isinstance(value, Mapping) and set(value) == {"name", "arguments"}:
            return self.from_manifest(value)
        return value

    def from_manifest(self, manifest: Mapping[str, Any]) -> T:
        """Return the value that `to_manifest` described. Unlike `build`, it converts no text to numbers.

        Raises:
            ArgumentError: the manifest is damaged, or of other arguments than the class has now.
            UnknownNameError: nothing has the manifest's name.
            PluginError: the plugin is at fault.
        """
        name = manifest.get("name") if isinstance(manifest, Mapping) else None
        arguments = manifest.get("arguments") if isinstance(manifest, Mapping) else None
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise self.error(
                f"A saved {self.noun} is {{'name': …, 'arguments': {{…}}}}. Received: {manifest!r}. "
                "The file was changed or cut since it was saved."
            )
        kind = self.get(name)
        with self._survives(name):
            held = {key: self._from_nested_manifest(value) for key, value in arguments.items()}
            return specs.restore(kind, held, name=name, error=self.error)

    @contextlib.contextmanager
    def _survives(self, name: str) -> Iterator[None]:
        """Turn a plugin's sys.exit(), as it is made, into an error that says whose it is."""
        try:
            yield
        except SystemExit as cause:
            distribution = distribution_of(self._by_name()[name][0])
            raise PluginLoadError(
                f"The {self.noun} {name!r} of the package {distribution!r} called sys.exit({cause.code!r}) as it was "
                "made.",
                distribution=distribution,
            ) from cause

    def _needed(self, name: str) -> str | None:
        """Return the first argument that the class called `name` needs, or None."""
        return next(iter(specs.needed(self.get(name))), None)

    def _name(self, spec: object) -> str:
        name = self.name_of(spec)
        if name is None:
            raise self.error(
                f"{type(spec).__name__} is no registered {self.noun}, so a saved pipeline could not name it. "
                f"Declare it under the entry-point group {self.group!r}."
            )
        return name

    def _raise_left_out(self, name: str) -> None:
        """Raise if a package declares the name, and `KERASGEN_PLUGINS` leaves it out."""
        points = self._left_out.get(name)
        if points:
            owners = " and ".join(sorted(set(map(distribution_of, points))))
            raise UnknownNameError(
                f"The {self.noun} {name!r} of {owners} is installed, and {selection.VARIABLE} leaves it out. Add "
                f"{distribution_of(points[0])!r} to it, or unset it.",
                name=name,
            )

    def _by_name(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points that may be loaded, by name."""
        if self._entry_points is None:
            chosen = selection.from_environment()
            declared = entry_points.read(self.group, is_wanted=chosen.allows_package)
            built_in: dict[str, list[EntryPoint]] = {}
            others: dict[str, list[EntryPoint]] = {}
            for name, points in declared.by_name.items():
                own = [point for point in points if distribution_of(point) == DISTRIBUTION]
                if own:
                    built_in[name] = own
                for point in points:
                    if point in own:
                        continue
                    if not chosen.allows(self.kind, name, distribution_of(point)):
                        self._left_out.setdefault(name, []).append(point)
                    elif own:
                        self._shadowed.setdefault(name, []).append(point)
                    else:
                        others.setdefault(name, []).append(point)
            # Built-ins come first, so that a class of ours keeps its name where a package gives it a second one.
            self._entry_points, self._unreadable = built_in | others, declared.unreadable
        return self._entry_points

    def declared(self) -> dict[str, tuple[EntryPoint, ...]]:
        """Return the entry points of each name that may be loaded, and import nothing."""
        return {name: tuple(points) for name, points in sorted(self._by_name().items())}

    def left_out(self) -> dict[str, tuple[EntryPoint, ...]]:
        """Return the entry points of each name that `KERASGEN_PLUGINS` leaves out, and import nothing."""
        self._by_name()
        return {name: tuple(points) for name, points in sorted(self._left_out.items())}

    def shadowed(self) -> dict[str, tuple[EntryPoint, ...]]:
        """Return the entry points of other packages that claim a built-in's name, by name, and import nothing."""
        self._by_name()
        return {name: tuple(points) for name, points in sorted(self._shadowed.items())}

    def _warn_of_shadowed(self, name: str) -> None:
        """Warn, once for each name, that another package claims this name of a built-in."""
        if name in self._warned:
            return
        points = self.shadowed().get(name)
        if points:
            self._warned.add(name)
            for point in points:
                warnings.warn(claims.shadowed(self.noun, point), KerasgenWarning, stacklevel=3)


def _is(point: EntryPoint, kind: type) -> bool:
    """Whether the entry point stands for `kind`, as far as can be told without importing anything."""
    if point.value == f"{kind.__module__}:{kind.__qualname__}":
        return True
    if not _OBJECT.fullmatch(point.value):  # Python has no name for its error about such a value
        return False
    # A package may offer a class from its front door and define it in a back room.
    return getattr(sys.modules.get(point.module), point.attr, None) is kind
