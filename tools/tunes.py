"""Derive the forms of tunes (詞牌) from the Song lyrics of the chinese-poetry collection, by majority.

    python tools/tunes.py --poems chinese-poetry.collections.tar.xz

For each tune, the lengths of lines that many of its poems share become a form; the lines that most end with a
full stop are its rhymes, for so the editors mark them; the tone of a rhyme and which rhymes belong together
are what most poems have. A place has a tone where nearly all poems of a form have it there. What is written is
`kerasgen/prosody/data/tunes.json`; `kerasgen.prosody.tunes` reads it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

LEAST_POEMS = 15  # of a tune
LEAST_OF_FORM, LEAST_SHARE, MOST_FORMS = 3, 0.03, 8
LEAST_COVERED = 0.6  # of a tune's poems, by its forms
LEAST_OF_TONES, SAME_TONE = 15, 0.93  # poems of a form whose tones are known; share of those with one tone at a place
LEAST_HEARD = 10  # of them, without characters of two tones
PAUSE = "、"
_LINE = re.compile(r"([^，。？！；：\n]+)([，。？！；：\n]+|$)")
_OUT = Path(__file__).resolve().parents[1] / "kerasgen/prosody/data/tunes.json"


def main() -> None:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--poems", required=True, help="the chinese-poetry repository, or an archive of it")
    parser.add_argument("--output", type=Path, default=_OUT)
    arguments = parser.parse_args()

    import opencc

    from kerasgen.corpora.chinese_poetry import ChinesePoetry

    poems: dict[str, list[list[tuple[str, str]]]] = defaultdict(list)
    names: dict[str, set[str]] = defaultdict(set)
    for document in ChinesePoetry(arguments.poems, collection="宋词").documents():
        alias, _, tune = document.metadata["rhythmic"].rpartition("・")
        poems[tune].append(_LINE.findall(document.text))
        names[tune] |= {tune, alias} - {""}
    traditional = opencc.OpenCC("s2t").convert
    table = {}
    for tune in sorted(poems, key=lambda name: (-len(poems[name]), name)):
        of_tune = poems[tune]
        forms = _forms(of_tune)
        covered = sum(share for _, share, _ in forms)
        if len(of_tune) < LEAST_POEMS or covered < LEAST_COVERED or tune == "失调名":
            continue
        known = sorted(names[tune] - {tune})
        table[tune] = {
            "names": list(dict.fromkeys([tune, *known, *map(traditional, [tune, *known])])),
            "poems": len(of_tune),
            "forms": {spelled: round(share, 3) for spelled, share, _ in forms},
            "tones": {spelled: tones for spelled, _, tones in forms if tones},
        }
    arguments.output.write_text(
        "{\n" + ",\n".join(f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(entry, ensure_ascii=False)}"
                           for name, entry in table.items()) + "\n}\n",
        encoding="utf-8",
    )  # fmt: skip
    print(f"{len(table)} tunes, {sum(len(entry['forms']) for entry in table.values())} forms")


def _forms(poems: Sequence[Sequence[tuple[str, str]]]) -> list[tuple[str, float, str]]:
    """Return the spelled forms that enough of the poems share, with their shares and their tones."""
    by_lengths: dict[tuple[int, ...], list[Sequence[tuple[str, str]]]] = defaultdict(list)
    for poem in poems:
        by_lengths[tuple(len(line.replace(PAUSE, "")) for line, _ in poem)].append(poem)
    ordered = sorted(by_lengths.items(), key=lambda item: -len(item[1]))[:MOST_FORMS]
    return [
        (_spelled(lengths, own), len(own) / len(poems), _tones(lengths, own))
        for lengths, own in ordered
        if len(own) >= max(LEAST_OF_FORM, LEAST_SHARE * len(poems))
    ]


def _spelled(lengths: Sequence[int], poems: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Return a form as `kerasgen.prosody.tunes` reads it."""
    from kerasgen.prosody import tones, tunes

    rhyming = [
        place for place in range(len(lengths)) if sum("。" in poem[place][1] for poem in poems) >= len(poems) / 2
    ]
    level: dict[int, bool] = {}
    parts: dict[int, list[frozenset[int]]] = {}
    for place in rhyming:
        last = [tones.tones_of(poem[place][0][-1])[0] for poem in poems]
        level[place] = sum(tone == tones.LEVEL for tone in last) >= sum(tone == tones.OBLIQUE for tone in last)
        parts[place] = [tunes.parts_of(poem[place][0][-1], level=level[place]) for poem in poems]
    letters: dict[int, str] = {}
    members: dict[str, list[int]] = {}
    for place in rhyming:
        shares = {
            letter: max(
                sum(bool(own & other) for own, other in zip(parts[place], parts[earlier], strict=True)) / len(poems)
                for earlier in places
            )
            for letter, places in members.items()
        }
        best = max(shares, key=lambda letter: shares[letter], default="")
        if not best or shares[best] < 0.5:
            best = chr(ord("a") + len(members))
        letters[place] = best.upper() if level[place] else best
        members.setdefault(best, []).append(place)
    spelled = []
    for place, length in enumerate(lengths):
        pauses = Counter(before for poem in poems for before in _pauses(poem[place][0]))
        cuts = sorted(before for before, count in pauses.items() if count >= max(2, 0.1 * len(poems)))
        pieces = [str(after - before) for before, after in zip([0, *cuts], [*cuts, length], strict=True)]
        spelled.append("-".join(pieces) + letters.get(place, ""))
    return " ".join(spelled)


def _tones(lengths: Sequence[int], poems: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Return the tones of a form as `kerasgen.prosody.tunes` reads them; nothing for too few poems."""
    from kerasgen.prosody import tones

    if len(poems) < LEAST_OF_TONES:
        return ""
    heard = [[tones.tones_of(line.replace(PAUSE, "")) for line, _ in poem] for poem in poems]
    lines = []
    for number, length in enumerate(lengths):
        counts = [Counter(poem[number][place] for poem in heard) for place in range(length)]
        lines.append("".join(map(_tone, counts)))
    return " ".join(lines)


def _tone(counts: Counter[int]) -> str:
    """Return the tone that nearly all poems have at a place, or that either may stand there."""
    from kerasgen.prosody import tones

    level, oblique = counts[tones.LEVEL], counts[tones.OBLIQUE]
    if level + oblique < LEAST_HEARD or max(level, oblique) < SAME_TONE * (level + oblique):
        return "."
    return "P" if level > oblique else "Z"


def _pauses(line: str) -> list[int]:
    """Return after how many characters of the line a pause stands."""
    found, count = [], 0
    for character in line:
        if character == PAUSE:
            found.append(count)
        else:
            count += 1
    return [before for before in found if 0 < before < count]


if __name__ == "__main__":
    main()
