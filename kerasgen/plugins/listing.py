"""Lists what is registered with the package, the version, and what is at fault; loading each, and failing for none."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kerasgen.errors import KerasgenWarning, PluginError
from kerasgen.plugins import claims, contract_versions, entry_points
from kerasgen.plugins.entry_points import DISTRIBUTION, distribution_of, version_of
from kerasgen.plugins.registry import Registry

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Plugin:
    """A name that a package declares, and whether what it stands for can be used.

    Args:
        kind: such as `"samplers"`.
        name: the registered name.
        distribution: the package that declares it.
        version: of the package; empty where its metadata are damaged.
        value: the entry point's `"module:Class"`.
        contract_version: that its class was written for; None where the class can't be loaded, or is left out.
        fault: why it can't be used; None where it can.
        note: what its author could do better; None for nothing.
        left_out: whether `KERASGEN_PLUGINS` leaves it out; then it was not loaded.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    contract_version: int | None = None
    fault: str | None = None
    note: str | None = None
    left_out: bool = False

    @property
    def is_built_in(self) -> bool:
        """Whether kerasgen itself declares it."""
        return self.distribution == DISTRIBUTION

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self) | {"built_in": self.is_built_in}


def plugins(
    registries: Iterable[Registry[Any]],
    *,
    only: Callable[[str, str], bool] = lambda name, distribution: True,
    further: Callable[[str, str], str | None] = lambda kind, name: None,
) -> list[Plugin]:
    """Return what is registered, each name loaded to see whether it can be.

    What a plugin prints while it is imported goes to standard error.

    Args:
        registries: those to go through.
        only: whether a name and its package are asked for; others are not loaded.
        further: returns what else is at fault with a kind's name that could be loaded, or None.

    Raises:
        UnknownNameError: `KERASGEN_PLUGINS` names nothing that is installed.
    """
    listed: list[Plugin] = []
    for registry in registries:
        for name, points in registry.declared().items():
            for point in points:
                if only(name, distribution_of(point)):
                    listed.append(_loaded(registry, name, point, further))
        for name, points in registry.shadowed().items():
            for point in points:
                if only(name, distribution_of(point)):
                    listed.append(Plugin(**_facts(registry, name, point), fault=claims.shadowed(registry.noun, point)))
        for name, points in registry.left_out().items():
            for point in points:
                if only(name, distribution_of(point)):
                    listed.append(Plugin(**_facts(registry, name, point), left_out=True))
    return listed


def _facts(registry: Registry[Any], name: str, point: EntryPoint) -> dict[str, Any]:
    return {
        "kind": registry.kind,
        "name": name,
        "distribution": distribution_of(point),
        "version": version_of(point),
        "value": point.value,
    }


def _loaded(registry: Registry[Any], name: str, point: EntryPoint, further: Callable[[str, str], str | None]) -> Plugin:
    facts = _facts(registry, name, point)
    try:
        with _apart():
            kind = registry.get(name)
            fault = further(registry.kind, name)
    except PluginError as error:
        return Plugin(**facts, fault=str(error))
    declared = contract_versions.declared(kind)
    if facts["distribution"] == DISTRIBUTION:
        return Plugin(**facts, contract_version=registry.version, fault=fault)
    note = None
    if declared is None:
        declared = contract_versions.UNDECLARED
        note = (
            f"It declares no contract version, and counts as written for version {declared}. Its author can write "
            f"{contract_versions.ATTRIBUTE}: ClassVar[int] = {registry.version} in {kind.__name__}."
        )
    return Plugin(**facts, contract_version=declared, fault=fault, note=note)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Keep what a plugin prints off standard output, and its warnings from becoming errors."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", "The .* is kerasgen's own", KerasgenWarning)  # the list says it
        yield


def packages(listed: Iterable[Plugin]) -> dict[str, list[Plugin]]:
    """Return plugins by package, kerasgen's own first and the others in alphabetical order."""
    grouped: dict[str, list[Plugin]] = {}
    for plugin in listed:
        grouped.setdefault(plugin.distribution, []).append(plugin)
    return dict(sorted(grouped.items(), key=lambda item: (item[0] != entry_points.DISTRIBUTION, item[0])))
