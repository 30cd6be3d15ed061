"""Checks the name of a new package, and makes of it the names that its files use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kerasgen.errors import ArgumentError
from kerasgen.plugin_template.kinds import Kind
from kerasgen.plugins import DISTRIBUTION, Registry

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_RESERVED: Final = ("all", "none")
_LONGEST: Final = 30  # characters; so no line of the template grows too long for its linter
# With a kind behind it, each is a class that the template imports; and pytest takes a class Test… for tests.
TAKEN: Final = ("fine", "gradient", "language", "token")
_TESTS: Final = "test"
_PREFIX: Final = re.compile(rf"{DISTRIBUTION}[-_]")


@dataclass(frozen=True)
class Names:
    """What a new package and the things in it are called.

    Args:
        registered: the name that its plugins are registered under, such as `"two_words"`.
    """

    registered: str

    @property
    def distribution(self) -> str:
        """The package, as pip knows it: `kerasgen-two-words`."""
        return f"{DISTRIBUTION}-{self.registered.replace('_', '-')}"

    @property
    def module(self) -> str:
        """The package, as Python imports it: `kerasgen_two_words`."""
        return f"{DISTRIBUTION}_{self.registered}"

    @property
    def class_prefix(self) -> str:
        """What its classes' names begin with: `TwoWords`, or `MyToken` where `Token…` would be another class's."""
        is_taken = self.registered in TAKEN or self.registered.startswith(_TESTS)
        return ("My" if is_taken else "") + "".join(word.capitalize() for word in self.registered.split("_"))

    def put_into(self, text: str) -> str:
        """Return text of the template with these names in it."""
        return (
            text.replace("kerasgen-placeholder", self.distribution)
            .replace("placeholder", self.registered)
            .replace("Placeholder", self.class_prefix)
        )


def read(text: Any) -> Names:
    """Return the names that a person's name for the package stands for; `kerasgen-` in front is no part of it.

    Raises:
        ArgumentError: it can't be a package's name.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"The name of a package is text. Received: {text!r}.")
    bare = _PREFIX.sub("", text, count=1)
    if bare in _RESERVED:
        raise ArgumentError(
            f"{bare!r} can't be the name of a package: it has a meaning of its own in KERASGEN_PLUGINS. "
            "Choose another name."
        )
    if _NAME.fullmatch(bare) and len(bare) <= _LONGEST and bare != DISTRIBUTION:
        return Names(bare.replace("-", "_"))
    near = re.sub(r"[^a-z0-9]+", "-", bare.lower()).strip("-0123456789")[:_LONGEST].strip("-")
    hint = f" Write {near!r}, for one." if _NAME.fullmatch(near) and near != DISTRIBUTION else ""
    raise ArgumentError(
        "The name of a package is made of small letters of ASCII, digits and hyphens. It begins with a letter, has at "
        f"most {_LONGEST} characters, and is not {DISTRIBUTION!r}. Received: {text!r}.{hint}"
    )


def check_free(names: Names, kinds: Sequence[Kind], registries: Mapping[str, Registry[Any]]) -> None:
    """Raise if what the package would declare is taken by a built-in or by another package that is installed.

    Raises:
        ArgumentError: a name, or the ending of the exporter's files, is taken.
    """
    for kind in kinds:
        registry = registries[kind.group]
        if names.registered in {**registry.declared(), **registry.left_out()}:
            is_built_in = names.registered in registry.built_ins()
            owner = "" if is_built_in else registry.distribution(names.registered)
            whose = "kerasgen itself has" if is_built_in else f"the package {owner or 'of another'!r} has"
            raise ArgumentError(
                f"A {registry.noun} {names.registered!r} is one that {whose}. Two of a name would shut each other out. "
                "Choose another name."
            )
        if kind.group == "exporters":
            _check_ending(names.registered)


def _check_ending(registered: str) -> None:
    from pathlib import Path

    from kerasgen.exporters import registry

    owners = registry.claimants(Path(f"model.{registered}"))
    if owners:
        raise ArgumentError(
            f"Files that end in '.{registered}' are the exporter {owners[0]!r}'s. Choose another name, or leave the "
            "exporter out of --with."
        )
