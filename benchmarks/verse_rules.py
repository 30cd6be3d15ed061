"""How many of people's own poems keep the rules that texts are judged by, and why don't the others?

    python -m benchmarks.verse_rules [--tang ARCHIVE] [--collections ARCHIVE] [--json FILE] [--quick]

Tang poems with four or eight lines of five or seven characters are read by `kerasgen.prosody`; Song lyrics of a tune
are matched by the constraint `VerseForm` of the tune: its lengths and punctuation, and its rhymes too. Their tones are
compared with those of the form that has their lengths, where those are known; `tones` is a share of all, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import DATA, arguments_of, report

NAMES = {("jueju", 5): "五絕", ("jueju", 7): "七絕", ("lüshi", 5): "五律", ("lüshi", 7): "七律"}
SHOWN = 24  # tunes


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; it has no bars."""
    parser = arguments_of(__doc__)
    parser.add_argument("--tang", type=Path, default=DATA / "chinese-poetry.tang.tar.xz")
    parser.add_argument("--collections", type=Path, default=DATA / "chinese-poetry.collections.tar.xz")
    chosen = parser.parse_args(arguments)
    from kerasgen.corpora.chinese_poetry import ChinesePoetry

    most = 300 if chosen.quick else None
    rows: list[dict[str, Any]] = []
    if chosen.tang.exists():
        rows += tang([*ChinesePoetry(str(chosen.tang), dynasty="tang").documents()][:most])
    if chosen.collections.exists():
        rows += song([*ChinesePoetry(str(chosen.collections), collection="宋词").documents()][:most])
    report(rows, [], chosen.json)
    return 0


def tang(poems: Iterable[Any]) -> list[dict[str, Any]]:
    """Return a row for each form: the shares that rhyme, hold a pattern, and have each fault and exception."""
    from kerasgen.corpora import verse
    from kerasgen.evaluation import prosody_figures
    from kerasgen.prosody import regulated

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for poem in poems:
        name = NAMES.get((poem.metadata["form"], poem.metadata["line_length"] or 0))
        if name is None:
            continue
        lines = verse.lines(poem.text)
        reading = regulated.read(lines)
        rhymes = prosody_figures.rhymes(lines)
        for of in (name, "all"):
            counts[of].update(
                ["poems"] + ["level rhyme"] * rhymes + ["tonal pattern"] * reading.holds
                + ["both"] * (rhymes and reading.holds)
                + sorted({fault for _, fault in reading.faults}) + sorted({odd for _, odd in reading.exceptions})
            )  # fmt: skip
    return [_shares(name, counted) for name, counted in sorted(counts.items())]


def song(poems: Iterable[Any]) -> list[dict[str, Any]]:
    """Return a row for each of the most frequent tunes, and one for all: the shares that its constraint accepts."""
    import kerasgen as kg
    from kerasgen.corpora import verse
    from kerasgen.prosody import tunes

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    forms: dict[str, tuple[kg.VerseForm, kg.VerseForm]] = {}
    for poem in poems:
        tune = tunes.tunes_by_name().get(poem.metadata["rhythmic"].rpartition("・")[2])
        if tune is None:
            continue
        plain, rhymed = forms.setdefault(tune.name, (kg.VerseForm(tune.name), kg.VerseForm(tune.name, rhyme=True)))
        lines = verse.lines(poem.text.replace("、", ""))
        lengths = tuple(map(len, lines))
        found = ["poems"] + ["lengths"] * (lengths in plain.lines) + ["punctuation"] * plain.matches(poem.text)
        found += ["rhymes"] * rhymed.matches(poem.text)
        known = [form for form in tune.forms if form[0].tones and tuple(line.length for line in form) == lengths]
        if known:  # whose tones the table has
            found += ["tones known"] + ["tones"] * any(tunes.holds_tones(lines, form) for form in known)
        counts[tune.name].update(found)
        counts["all"].update(found)
    ordered = sorted(counts, key=lambda name: (name != "all", -counts[name]["poems"]))
    return [_shares(name, counts[name]) for name in ordered[: SHOWN + 1]]


def _shares(name: str, counted: Counter[str]) -> dict[str, Any]:
    return {"name": name, "poems": counted["poems"]} | {
        what: count / counted["poems"] for what, count in counted.items() if what != "poems"
    }


if __name__ == "__main__":
    raise SystemExit(main())
