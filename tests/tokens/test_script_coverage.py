"""A corpus in a script that the model's vocabulary was not made for is told, whatever the script and the model."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
from installing import without_tensorflow

import kerasgen as kg
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.script_coverage import unfamiliar_script

pytestmark = pytest.mark.one_backend

TEXTS = {
    "Latin": "A cat sat on the clock, and two cats sat under it, looking at three bowls.",
    "Han": "鐘上一隻貓，鐘下兩隻貓。貓看三個碗，碗看四把勺。",
    "Cyrillic": "Кошка сидела на часах, и две кошки сидели под ними и смотрели на миски.",
    "Greek": "Μια γάτα καθόταν πάνω στο ρολόι και δύο γάτες από κάτω.",
    "Hebrew": "חתול ישב על השעון ושני חתולים ישבו מתחתיו",
    "Arabic": "جلست قطة على الساعة وجلست قطتان تحتها",
    "Thai": "แมวนั่งอยู่บนนาฬิกาและแมวสองตัวนั่งอยู่ข้างใต้",
    "Korean": "고양이가 시계 위에 앉아 있고 두 마리는 그 아래에 앉아 있었다",
    "Japanese": "ねこがとけいのうえにすわって、にひきのねこがしたにいた",
}


@pytest.fixture(scope="module")
def starter() -> ByteLevelBPE:
    """The starter's tokenizer, read without Keras."""
    from kerasgen.models import starter

    files = Path(starter.__file__).with_name("starter_preset") / "assets" / "tokenizer"
    vocabulary = json.loads((files / "vocabulary.json").read_text(encoding="utf-8"))
    merges = (files / "merges.txt").read_text(encoding="utf-8").splitlines()
    return ByteLevelBPE(vocabulary, [line for line in merges if line and not line.startswith("#")])


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> ByteLevelBPE:
    with tarfile.open(shared_data / "gpt2_vocab.tar.xz") as tar:
        held = {Path(member.name).name: tar.extractfile(member) for member in tar if member.isfile()}
        vocabulary = json.load(held["vocab.json"])  # type: ignore[arg-type]
        merges = held["merges.txt"].read().decode().splitlines()  # type: ignore[union-attr]
    return ByteLevelBPE(vocabulary, [line for line in merges if line and not line.startswith("#")])


@pytest.mark.parametrize("script", TEXTS)
def test_the_starter_knows_han_alone(starter: ByteLevelBPE, script: str) -> None:
    why = unfamiliar_script([TEXTS[script]] * 3, starter)
    if script == "Han":
        assert why is None
    else:
        assert why is not None
        assert f"are {script}, and the model's vocabulary was made for Han text" in why


@pytest.mark.parametrize("script", [script for script in TEXTS if script != "Japanese"])  # it has many kana
def test_gpt2_knows_latin_alone(gpt2: ByteLevelBPE, script: str) -> None:
    why = unfamiliar_script([TEXTS[script]], gpt2)
    assert (why is None) == (script == "Latin")
    assert why is None or f"are {script}, and the model's vocabulary was made for Latin text" in why


def test_mixed_texts_numbers_and_nothing_say_nothing(starter: ByteLevelBPE) -> None:
    for texts in ([], [""], ["123 456"], ["🚀🚀"], [TEXTS["Latin"], TEXTS["Han"] * 3]):
        assert unfamiliar_script(texts, starter) is None


def test_a_vocabulary_of_few_tokens_says_nothing() -> None:
    from tiny import GPT2_END, tiny_vocabulary

    tokenizer = ByteLevelBPE(*tiny_vocabulary(300), end_token=GPT2_END)
    assert all(unfamiliar_script([text], tokenizer) is None for text in TEXTS.values())


def test_fit_warns_with_a_category_of_its_own_and_the_report_says_it(tmp_path: Path) -> None:
    """In another process, since it loads the starter."""
    source = """
        import warnings
        import kerasgen as kg

        def fit(texts):
            tuner = kg.FullTuner(max_steps=1, batch_size=2, sequence_length=32)
            pipe = kg.Pipeline(texts, "starter", tuner=tuner, cache="cache", held_out=0.0)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", kg.errors.KerasgenWarning)
                report = pipe.fit(directory="run", resume=False, verbose=0)
            return [w for w in caught if w.category is kg.errors.KerasgenWarning], report

        caught, report = fit(["A cat sat on the clock.", "Two cats sat under it.", "They looked at three bowls."])
        (warning,) = caught
        assert "'starter' hardly knows the corpus's script: 100% of the corpus's" in str(warning.message)
        assert warning.filename == __file__, warning.filename
        assert report.warnings == (str(warning.message),)
        assert "warning: The model 'starter' hardly knows" in str(report)
        caught, report = fit(["鐘上一隻貓，鐘下兩隻貓。", "貓看三個碗，碗看四把勺。"])
        assert not caught and not report.warnings
    """
    (tmp_path / "fits.py").write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "fits.py"],
        cwd=tmp_path,
        env=without_tensorflow(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_category_can_be_silenced() -> None:
    assert issubclass(kg.errors.KerasgenWarning, UserWarning)
