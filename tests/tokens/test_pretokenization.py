"""A byte-level BPE that cuts texts as Llama 3, SmolLM2 or Qwen 2 do has the ids of its `tokenizer.json`."""

from __future__ import annotations

import lzma
import pickle
from pathlib import Path

import byte_level
import pytest
from tokenizers import Tokenizer

from kerasgen.errors import TokenizerError
from kerasgen.models.transformers_tokenizers import PROBES
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import GPT2_PATTERN, LLAMA3_PATTERN, Pretokenization

pytestmark = pytest.mark.one_backend


def both(path: Path, kind: str) -> tuple[ByteLevelBPE, Tokenizer]:
    return ByteLevelBPE.from_directory(byte_level.directory(path, kind)), Tokenizer.from_str(
        byte_level.tokenizer_json(kind)
    )


@pytest.mark.parametrize("kind", byte_level.KINDS)
def test_ids_are_the_librarys_and_texts_come_back(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, kind)
    for text in (*PROBES, *byte_level.TEXTS):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False).ids
        start = [] if ours.start_token_id is None else [ours.start_token_id]
        assert [*start, *ids] == theirs.encode(text).ids
        assert ours.decode(ids) == text
    assert ours.end_token == byte_level.END
    broken = "12345 it's \ud83d 678"
    assert ours.decode(ours.encode(broken)) == broken


@pytest.mark.parametrize("kind", byte_level.KINDS)
def test_real_posts_have_the_librarys_ids(kind: str, tmp_path: Path, shared_data: Path) -> None:
    ours, theirs = both(tmp_path, kind)
    with lzma.open(shared_data / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        posts = [line for _, line in zip(range(200), lines, strict=False)]
    assert ours.encode_batch(posts) == [found.ids for found in theirs.encode_batch(posts, add_special_tokens=False)]


@pytest.mark.parametrize("kind", byte_level.KINDS)
def test_what_is_saved_cuts_as_before(kind: str, tmp_path: Path) -> None:
    ours, _ = both(tmp_path / "theirs", kind)
    ours.save(tmp_path)
    (tmp_path / "written.json").write_text(ours.to_tokenizer_json(), encoding="utf-8")
    written = ByteLevelBPE.from_tokenizer_json(tmp_path / "written.json", end_token=byte_level.END)
    for again in (ByteLevelBPE.from_directory(tmp_path), pickle.loads(pickle.dumps(ours))):
        assert again == ours
        assert again.pretokenization == written.pretokenization == ours.pretokenization
        assert again.encode_batch(PROBES) == written.encode_batch(PROBES) == ours.encode_batch(PROBES)


def test_kinds_cut_otherwise_and_are_told_apart(tmp_path: Path) -> None:
    """Each trait changes an id of some text, so that reading one as another would be seen."""
    text = "1234567 sailor's\r\n\r\n  I'LL"
    merged, whole = (both(tmp_path / kind, kind)[0] for kind in ("llama3_merged", "llama3"))
    assert whole.pretokenization == Pretokenization(LLAMA3_PATTERN, ignore_merges=True)
    kept = whole.vocabulary.keys() - {"".join(merge.split(" ")) for merge in whole.merges}
    word = next(token for token in kept if len(token) > 4 and token.startswith("Ġ"))
    assert whole.encode(whole.decode([whole.vocabulary[word]])) == [whole.vocabulary[word]]
    without = ByteLevelBPE(whole.vocabulary, whole.merges, end_token=byte_level.END)
    assert len(without.encode(without.decode([whole.vocabulary[word]]))) > 1
    digits, gpt2 = (both(tmp_path / kind, kind)[0] for kind in ("smollm2", "gpt2"))
    assert digits.pretokenization == Pretokenization(GPT2_PATTERN, single_digits=True)
    assert gpt2.pretokenization == Pretokenization()
    as_gpt2 = ByteLevelBPE(merged.vocabulary, merged.merges, end_token=byte_level.END)
    assert as_gpt2.encode(text) != merged.encode(text)
    assert as_gpt2.digest() != merged.digest()


@pytest.mark.parametrize("name", [byte_level.END, byte_level.START])
def test_a_special_tokens_name_is_text_though_merges_are_ignored(name: str, tmp_path: Path) -> None:
    ours, _ = both(tmp_path, "llama3")
    assert not set(ours.encode(f"a {name}b")) & set(ours.special_tokens.values())


def test_settings_that_are_damaged_are_told(tmp_path: Path) -> None:
    ours, _ = both(tmp_path / "theirs", "llama3")
    ours.save(tmp_path)
    place = tmp_path / "tokenizer_config.json"
    place.write_text(place.read_text(encoding="utf-8").replace('"single_digits": false', '"single_digits": 3'))
    with pytest.raises(TokenizerError, match="pretokenization"):
        ByteLevelBPE.from_directory(tmp_path)
