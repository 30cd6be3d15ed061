"""The JSON beside an artefact with one value changed, as damage or an attacker would, and its digest mended or not."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.runtime import metadata

OTHERS: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 2**70, 10**400, 0.5, -0.5, 1e300, math.nan, math.inf, "", "greedy", "../x",
    "0" * 64, "\0", [], [0], [1, 1], [-1], [2**40], ["top_k"], {}, {"": 0}, {"a": -1}, [[[[]]]],
]  # fmt: skip


def changed(said: dict[str, Any], at: tuple[Any, ...], act: Callable[[Any, Any], object]) -> dict[str, Any]:
    """The JSON after `act` was done to the value that these keys lead to, given its container and the last key."""
    found: Any = copy.deepcopy(said)
    inner = found
    for key in at[:-1]:
        inner = inner[key]
    act(inner, at[-1])
    return found  # type: ignore[no-any-return]


def variants(said: dict[str, Any], *, whole: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON with each value replaced by each of `OTHERS` and taken away, and with what it doesn't have.

    Args:
        said: the JSON.
        whole: keys whose values are replaced as a whole alone, not each within them.
    """
    for at in _places(said):
        if at[0] in whole and len(at) > 1:
            continue
        for other in [*OTHERS, *_near(_value(said, at))]:
            yield f"{at} = {other!r:.40}", changed(said, at, lambda inner, key, other=other: _put(inner, key, other))
        yield f"{at} missing", changed(said, at, lambda inner, key: inner.__delitem__(key))
    for at in [(), *(at for at in _places(said) if isinstance(_value(said, at), dict))]:
        yield f"{at} more", changed(said, (*at, "more"), lambda inner, key: _put(inner, key, 1))


def sealed(said: dict[str, Any]) -> dict[str, Any]:
    """What a JSON would be whose digest somebody who changed it had mended."""
    with suppress(ValueError):  # of what JSON can't hold there is no digest, and it is refused with any
        return said | {metadata.DIGEST: metadata.digest_of(said)}
    return said


def outcomes(
    path: Path, folder: Path, write: Callable[[Path], Any], *, unread: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Load a copy of an artefact with each variant of its JSON, whose digest is mended.

    Args:
        path: of the artefact, with its files in a directory of its own, or a directory.
        folder: for the copy.
        write: loads the artefact at a path and returns its texts.
        unread: keys that no runtime reads; they are all changed at once, for loading takes time.

    Returns:
        What was refused with `ModelFormatError`, and what made no difference. Any other error passes through.
    """
    if path.is_dir():
        copied = Path(shutil.copytree(path, folder / path.name))
    else:
        copied = Path(shutil.copytree(path.parent, folder / "artefact")) / path.name
    report = metadata.report_path(copied)
    said: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    kept = {key: said.pop(key) for key in unread if key in said}
    wanted, refused, accepted = write(copied), [], []
    other_values = dict(zip(kept, OTHERS, strict=False))
    for what, other in [*variants(said), (f"{', '.join(kept)} changed", said | other_values)]:
        report.write_text(json.dumps(sealed(kept | other)), encoding="utf-8")
        try:
            found = write(copied)
        except ModelFormatError:
            refused.append(what)
            continue
        assert found == wanted, what
        accepted.append(what)
    return refused, accepted


def _near(value: Any) -> list[Any]:
    """Values of the same kind, which only a comparison with the artefact itself can tell."""
    if type(value) is int:
        return [value - 1, value + 1, value * 2, 1 << 20]
    return [value * 2 + 1] if type(value) is float else []


def _put(inner: Any, key: Any, value: Any) -> None:
    inner[key] = value


def _value(said: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        said = said[key]
    return said


def _places(found: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value of a JSON by the keys that lead to it."""
    if at:
        yield at
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inner:
        yield from _places(value, (*at, key))
