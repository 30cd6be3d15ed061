"""Figures that are no finite numbers are shown by a sign, wherever they stand, and break no page."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import reported

from kerasgen.reports import figures, page

pytestmark = pytest.mark.one_backend

VALUES = (math.nan, math.inf, -math.inf)


def floats(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a result holds floats: each place as the names and keys that lead to it."""
    if isinstance(value, float):
        return [path]
    return [found for name, part in parts(value) for found in floats(part, (*path, name))]


def parts(value: Any) -> list[tuple[Any, Any]]:
    """What a value consists of: the fields, entries or items, each with its name."""
    if dataclasses.is_dataclass(value):
        return [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
    return list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ())


def changed(value: Any, path: tuple[Any, ...], other: float) -> Any:
    """The result with another number at one place."""
    if path == ():
        return other
    name, rest = path[0], path[1:]
    new = changed(dict(parts(value))[name], rest, other)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: new})
    if isinstance(value, dict):
        return value | {name: new}
    return tuple(new if place == name else part for place, part in enumerate(value))


RESULTS: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
    "report": (reported.run, lambda value: page.render(report=value)),
    "evaluation": (reported.evaluation, lambda value: page.render(evaluation=value)),
    "score": (reported.score, lambda value: page.render(scores=[value])),
    "artefact": (lambda: reported.artefact().report, lambda value: page.render(artefacts=[artefact(value)])),
}


def artefact(report: Any) -> Any:
    """The artefact with this report."""
    made = reported.artefact()
    return type(made)(made.path, made.exporter, report)


@pytest.mark.parametrize("kind", RESULTS)
def test_a_number_that_is_none_breaks_neither_page_nor_notebook(kind: str) -> None:
    build, render = RESULTS[kind]
    result = build()
    named = [(tuple(name for name in place if isinstance(name, str)), place) for place in floats(result)]
    kept = dict(named)  # of the numbers of a list, the last
    assert len(kept) >= 2
    for place in kept.values():
        for value in VALUES:
            broken = changed(result, place, value)
            content = render(broken)
            told = json.loads(content.split('type="application/json">')[1].split("</script>")[0])
            assert told.keys() == {"charts", "pieces", "words"}
            shown = re.sub(r'value="-?(NaN|Infinity)"', "", content.split("<body>")[1].split("<script")[0])
            assert not re.search(r"\b(nan|inf|infinity)\b", shown, re.IGNORECASE), (place, value)
            view = broken if kind != "artefact" else artefact(broken)
            assert not re.search(r"\b(nan|inf)\b", view._repr_html_(), re.IGNORECASE), (place, value)
            assert repr(view)
            assert str(view)


@pytest.mark.parametrize("number", [0.1, -3.0, 1e300, 7, *VALUES])
def test_the_exact_value_is_read_back(number: float) -> None:
    spelled = figures.exact(number)
    back = float(spelled.replace("Infinity", "inf"))
    assert back == number or (math.isnan(back) and math.isnan(number))
    assert not re.search(r"inf\b|nan", spelled)


def test_signs_stand_for_what_is_no_number() -> None:
    assert [figures.number(value, 2) for value in VALUES] == ["–", "∞", "−∞"]
    assert [figures.duration(value) for value in VALUES] == ["– s", "∞ s", "−∞ s"]
    assert [figures.megabytes(value) for value in VALUES] == ["– B", "∞ B", "−∞ B"]
    assert [figures.percent(value) for value in VALUES] == ["–", "∞", "−∞"]
    assert [figures.named_value(value) for value in VALUES] == ["–", "∞", "−∞"]
