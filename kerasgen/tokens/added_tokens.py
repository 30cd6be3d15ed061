"""Tokens added to a vocabulary, which are found in a text before it is cut, as in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kerasgen.errors import TokenArgumentError

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


@dataclass(frozen=True)
class AddedToken:
    """A token found in texts as a whole, without merges. Of several that begin at one place the longest counts.

    Args:
        content: the text that it is found as, and that its id becomes again.
        lstrip: take the blanks before it too, which its id does not give back.
        rstrip: take the blanks after it too.
        single_word: find it only where no letter, digit or underscore stands beside it.
        normalized: look for it after those that are not, in what is left; there is no other normalization here.
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = True

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> AddedToken:
        """Return the token that an entry of transformers' files stands for.

        Raises:
            TokenArgumentError: it has no text, or a flag that is neither true nor false.
        """
        content, flags = entry.get("content"), {name: entry[name] for name in FLAGS if name in entry}
        if not isinstance(content, str) or not content or not all(isinstance(flag, bool) for flag in flags.values()):
            raise TokenArgumentError(
                f"An added token has a `content` and flags that are true or false. Received: {entry!r}."
            )
        return cls(content, **flags)

    def to_json(self) -> dict[str, Any]:
        """Return the entry that `read` reads."""
        return asdict(self)
