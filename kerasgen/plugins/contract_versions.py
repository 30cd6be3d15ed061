"""Checks the contract version that a plugin declares.

Each of the six contracts has a whole number for its version, which rises when plugins of the former one would break. A
plugin's class says which one it was written for::

    class MySampler(TokenSampler):
        contract_version: ClassVar[int] = 1

A class that says nothing counts as written for version 1.
"""

from __future__ import annotations

from typing import Any, Final

from kerasgen.errors import PluginLoadError

ATTRIBUTE: Final = "contract_version"
UNDECLARED: Final = 1


def declared(kind: Any) -> Any:
    """Return the version that a plugin's class declares, or None."""
    return getattr(kind, ATTRIBUTE, None)


def check(kind: Any, version: int, oldest: int, *, named: str, distribution: str) -> None:
    """Raise unless a plugin's class was written for a version of its contract that works here.

    Args:
        kind: what its entry point names.
        version: the version that this kerasgen has.
        oldest: the oldest one whose plugins still work.
        named: what the message calls it, such as `"The sampler 'eta' of the package 'kerasgen-field'"`.
        distribution: its package.

    Raises:
        PluginLoadError: the version is no whole number of at least 1, or is newer or older than what works.
    """
    asked = declared(kind)
    if asked is None:
        asked = UNDECLARED
    if type(asked) is not int or asked < 1:
        raise PluginLoadError(
            f"{named} must declare a whole number of at least 1 as `{ATTRIBUTE}`. Received: {asked!r}.",
            distribution=distribution,
        )
    if asked > version:
        raise PluginLoadError(
            f"{named} was written for version {asked} of its contract, and this kerasgen has version {version}. "
            f"Upgrade it: pip install -U kerasgen. Or install an older {distribution}.",
            distribution=distribution,
        )
    if asked < oldest:
        raise PluginLoadError(
            f"{named} was written for version {asked} of its contract, and this kerasgen works with {oldest} and "
            f"later, up to {version}. Upgrade it: pip install -U {distribution}. Or install an older kerasgen.",
            distribution=distribution,
        )
