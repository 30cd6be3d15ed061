"""Loads the class that an entry point names, and checks it against its contract."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kerasgen import specs
from kerasgen.errors import PluginLoadError
from kerasgen.plugins import contract_versions
from kerasgen.plugins.entry_points import distribution_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_WRITABLE = re.compile(r"[^\s:,=]+")


def load(point: EntryPoint, *, noun: str, contract: str, version: int, oldest_version: int) -> Any:
    """Return the class that an entry point names.

    Args:
        point: the entry point.
        noun: what a message calls a plugin of this kind, such as `"sampler"`.
        contract: `"module:Class"` that the class must subclass.
        version: of the contract.
        oldest_version: the oldest version of the contract whose plugins still work.

    Raises:
        PluginLoadError: the name can't be written as text, the package's code failed, or the class is not what the
            contract asks for.
    """
    distribution = distribution_of(point)
    named = f"The {noun} {point.name!r} of the package {distribution!r}"
    if not _WRITABLE.fullmatch(point.name):
        raise PluginLoadError(
            f"{named} can't be written as text: a name has no spaces and none of ':,='. Rename it in the package's "
            "pyproject.toml.",
            distribution=distribution,
        )
    try:
        loaded = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as cause:  # sys.exit() in a module would end the program; pytest's skip is no Exception
        raise PluginLoadError(
            f"{named} could not be loaded from {point.value!r}: {type(cause).__name__}: {cause}",
            distribution=distribution,
        ) from cause
    contract_versions.check(loaded, version, oldest_version, named=named, distribution=distribution)
    module, _, attribute = contract.partition(":")
    kind = getattr(import_module(module), attribute)
    if not (isinstance(loaded, type) and issubclass(loaded, kind)):
        raise PluginLoadError(
            f"{named} must be a subclass of {contract.replace(':', '.')}. Received: {loaded!r}.",
            distribution=distribution,
        )
    try:
        specs.fields(loaded)
        if not loaded.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError("it can be changed. Write @dataclass(frozen=True)")
    except (Exception, SystemExit) as cause:
        raise PluginLoadError(
            f"{named} must be a frozen dataclass whose annotations can be resolved: {type(cause).__name__}: {cause}",
            distribution=distribution,
        ) from cause
    missing = sorted(getattr(loaded, "__abstractmethods__", ()))
    if missing:
        raise PluginLoadError(
            f"{named} lacks what {contract.replace(':', '.')} asks for. Define: {', '.join(missing)}.",
            distribution=distribution,
        )
    return loaded
