"""What is learned of a document follows its parts, token by token, through encoding, store and rows."""

from __future__ import annotations

import json
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import tiny_vocabulary

import kerasgen as kg
from kerasgen.corpora.base import CorpusTally, Document, Part
from kerasgen.errors import CorpusArgumentError
from kerasgen.models.transformers_tokenizers import read
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tokens.packing import Packing, block, pack
from kerasgen.tokens.parts import DocumentParts, EncodedParts
from kerasgen.tokens.store import store

pytestmark = pytest.mark.one_backend

# One that writes a space and the first byte of a character as one token is among them (GPT-2's), and SentencePiece.
FAMILIES = ("gpt2", "smollm2", "qwen3", "llama", "gemma", "llama_model", "gemma_model")
TEXT = "the river's song 123\n昨夜 é 🚀 說"
PACKINGS: tuple[Packing, ...] = ("best_fit", "none", "concatenate")


def of_family(families: Path, name: str) -> Tokenizer:
    def absent() -> Any:
        raise ValueError("KerasHub is not asked for")

    return read(str(families / name), None, {}, absent)


def byte_level() -> Tokenizer:
    vocabulary, merges = tiny_vocabulary(300)
    end = "<|endoftext|>"
    return kg.ByteLevelBPE(vocabulary, merges, start_token=end, end_token=end, pad_token=end)


def weights_of(encoded: EncodedDocuments) -> list[float]:
    assert encoded.parts is not None
    return encoded.parts.weights_of(np.arange(len(encoded.token_ids))).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_belongs_to_the_part_in_which_it_ends(family: str, families: Path) -> None:
    """At each edge that a text can have; where a token ends is told by its bytes."""
    tokenizer = of_family(families, family)
    ids = tokenizer.encode(TEXT)
    sizes = [len(tokenizer.shown_bytes(token_id)) for token_id in ids]
    ends = list(accumulate(sizes))
    if tokenizer.strips_first_space:  # of the first token, which has a byte more than the text
        ends = [end - 1 for end in ends]
    assert ends[-1] == len(TEXT.encode())
    character_of_byte = [n for n, character in enumerate(TEXT) for _ in character.encode()]
    last = [character_of_byte[max(end - 1, 0)] for end in ends]
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    for edge in range(1, len(TEXT)):
        document = Document.of((Part(TEXT[:edge], 0), Part(TEXT[edge:], 2)), "a")
        encoded = encode_documents([document], tokenizer)
        assert encoded[0].tolist() == [*start, *ids, tokenizer.end_token_id]
        inside = [2.0 * (place >= edge) for place in last]
        assert weights_of(encoded) == [0.0] * len(start) + inside + [2.0], edge
        assert encoded.characters.tolist() == [len(TEXT) - edge]


def test_plain_documents_beside_them_are_learned_whole_and_empty_parts_have_no_token() -> None:
    tokenizer = byte_level()
    parts = (Part("", 3), Part("ab", 0), Part("", 4), Part("cd"), Part("", 5))
    encoded = encode_documents([Document("xy", "a"), Document.of(parts, "b"), Document("z", "c")], tokenizer)
    size = len(encoded[1])
    read_only = len(tokenizer.encode("ab"))
    before, after = [1.0] * len(encoded[0]), [1.0] * len(encoded[2])
    # The start token stands in the first part, and the end token in the last.
    inside = [3.0] + [0.0] * read_only + [1.0] * (size - read_only - 2) + [5.0]
    assert weights_of(encoded) == before + inside + after
    assert encoded.targets_by_document.tolist() == [len(before) - 1, size - 1 - read_only, len(after) - 1]
    assert encoded.targets == encoded.targets_by_document.sum()
    assert encoded.characters.tolist() == [2, 2, 1]
    whole = encoded.learning_all()
    assert whole.parts is None
    assert whole.characters.tolist() == [2, 4, 1]
    assert encode_documents([Document("xy", "a")], tokenizer).parts is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Part("a", -1), "weight"),
        (lambda: Part("a", float("nan")), "weight"),
        (lambda: Part("a", True), "weight"),
        (lambda: Part(b"a"), "text"),
        (lambda: Part("a", 1, 3), "role"),
        (lambda: Document("ab", "x", parts=(Part("a"), Part("c"))), "'x' are not its text"),
    ],
)
def test_parts_that_make_no_document_are_refused(make: Any, message: str) -> None:
    with pytest.raises(CorpusArgumentError, match=message):
        make()


def test_a_store_gives_them_back_and_knows_other_parts_of_the_same_texts(tmp_path: Path) -> None:
    tokenizer = byte_level()
    documents = [
        Document.of((Part(f"question {n} ", 0, "user"), Part(f"answer {n}", 1 + n % 2, "assistant")), str(n))
        for n in range(40)
    ] + [Document(f"plain {n}", f"p{n}") for n in range(5)]

    def stored(of: list[Document]) -> Any:
        def draw(tally: CorpusTally) -> Any:
            return (tally.keep(document) for document in of)

        return store(draw, tokenizer, held_out=0.25, directory=tmp_path)

    first, again = stored(documents), stored(documents)
    assert not first.reused
    assert again.reused
    from kerasgen.corpora import splits

    division = splits.division(0.25)
    for side, found in (("train", again.train), ("held_out", again.held_out)):
        of_side = [document for document in documents if division.side(document.text) == side]
        assert len(of_side) > 2
        wanted = encode_documents(of_side, tokenizer)
        assert found.digest() == wanted.digest()
        assert wanted.parts is not None
        for name in ("offsets", "ends", "weights", "turns", "heads", "characters"):
            np.testing.assert_array_equal(getattr(found.parts, name), getattr(wanted.parts, name))
    otherwise = [Document(document.text, document.id) for document in documents]
    other = stored(otherwise)
    assert not other.reused
    assert other.train.parts is None
    # A store without parts has the files and the name that it had before there were any.
    assert {file.name for file in other.path.iterdir()} == {
        "store.json",
        *(f"{side}.{column}" for side in ("train", "held_out") for column in ("ids", "offsets", "characters")),
    }


Drawn = list[list[tuple[int, int, bool]]]
parts_drawn: st.SearchStrategy[Drawn] = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2]), st.booleans()), min_size=1, max_size=6),
    max_size=8,
)


def numbered(documents: Drawn) -> tuple[EncodedDocuments, list[list[tuple[int, float, bool, int]]]]:
    """Documents of parts of so many tokens; each token's id tells its place.

    Returns:
        The documents, and of each token its id, its weight, whether a turn begins with it, and its part.
    """
    made, tokens, place = [], [], 0
    for parts in documents:
        of_document = []
        begins = False  # also where the turn's own part is empty
        for number, (count, weight, turn) in enumerate(parts):
            begins = begins or turn
            for _ in range(count):
                place += 1
                of_document.append((place, float(weight), begins, number))
                begins = False
        lengths = [count for count, _, _ in parts]
        made.append(
            DocumentParts(
                np.cumsum(lengths),
                np.asarray([weight for _, weight, _ in parts], np.float32),
                np.asarray([turn for _, _, turn in parts], np.uint8),
                min(1, sum(lengths)),
                sum(lengths),
            )
        )
        tokens.append(of_document)
    sizes = [len(each) for each in tokens]
    return EncodedDocuments(
        np.arange(1, place + 1, dtype=np.int32),
        np.cumsum([0, *sizes]),
        np.asarray(sizes, np.int64),
        EncodedParts.joined(made),
    ), tokens


@settings(deadline=None)
@example([[(3, 1, False), (3, 0, False), (9, 0, False)]], 13, "best_fit", False)  # what was learned stands at the gap
@given(parts_drawn, st.integers(1, 24), st.sampled_from(PACKINGS), st.booleans())
def test_rows_learn_what_a_slow_definition_says(
    documents: Drawn, sequence_length: int, packing: Packing, scoring: bool
) -> None:
    encoded, tokens = numbered(documents)
    rows = pack(encoded, sequence_length=sequence_length, packing=packing, scoring=scoring)
    packed = block(encoded, rows, range(len(rows)), size=len(rows))
    weight_of = {place: weight for each in tokens for place, weight, _, _ in each}
    learned = [each for each in zip(packed.targets.flat, packed.weights.flat, strict=True) if each[1] > 0]
    assert all(weight_of[target] == weight for target, weight in learned)
    assert len({target for target, _ in learned}) == len(learned)
    np.testing.assert_allclose(rows.sums(rows.pieces.weights(encoded.parts)), packed.weights.sum(axis=1))
    np.testing.assert_array_equal(rows.sums(rows.pieces.learned(encoded.parts)), (packed.weights > 0).sum(axis=1))
    assert (packed.weights.sum(axis=1) > 0).all()  # no row is computed for nothing
    wanted: set[int] = set()
    for each, parts in zip(tokens, documents, strict=True):
        kept = each
        if not scoring and packing != "concatenate" and len(parts) > 1:
            kept, jump = shortened(each, sequence_length)
            segment = [token[0] for token in kept]
            kept = [token for token in kept if token[0] != jump]  # which nothing before it predicts
            assert segment in in_rows(packed) or not any(token[1] for token in kept[1:])
        wanted |= {place for place, weight, _, _ in kept[1:] if weight > 0}
    assert {target for target, _ in learned} == wanted


def shortened(tokens: list[Any], sequence_length: int) -> tuple[list[Any], int | None]:
    """What stays of a document, and the token behind the gap."""
    if len(tokens) - 1 <= sequence_length:
        return tokens, None
    head = 1 if sequence_length > 1 else 0
    room = sequence_length + 1 - head
    turns = [n for n, token in enumerate(tokens) if token[2] and head < n < len(tokens) - 1]
    turns = [n for n in turns if len(tokens) - n <= room]
    begin = turns[0] if turns else len(tokens) - room
    return tokens[:head] + tokens[begin:], tokens[begin][0] if head else None


def in_rows(packed: Any) -> list[list[int]]:
    """The tokens of each segment, the last target with them."""
    found = []
    for ids, targets, segments in zip(packed.token_ids, packed.targets, packed.segment_ids, strict=True):
        for segment in range(1, segments.max(initial=0) + 1):
            inside = segments == segment
            assert ids[inside][1:].tolist() == targets[inside][:-1].tolist()
            found.append([*ids[inside].tolist(), int(targets[inside][-1])])
    return found


def test_a_conversation_loses_whole_turns_from_the_front_and_never_its_system_turn_or_an_answers_end() -> None:
    tokenizer = byte_level()
    system, turns = Part("sys. ", 0, "system"), []
    for n in range(6):
        turns += [Part(f"Q{n}? ", 0, "user"), Part(f"A{n}! ", 1, "assistant")]
    encoded = encode_documents([Document.of((system, *turns), "talk")], tokenizer)
    for sequence_length in (30, 40, 50):
        rows = pack(encoded, sequence_length=sequence_length)
        packed = block(encoded, rows, range(len(rows)), size=len(rows))
        [ids] = in_rows(packed)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        kept = (len(ids) - 2 - 5) // 8
        assert text == "sys. " + "".join(part.text for part in turns[len(turns) - 2 * kept :])
        assert 0 < kept < 6
        assert len(ids) + 8 > sequence_length + 1  # one turn more would be too long
        learned = packed.targets[packed.weights > 0].tolist()
        assert rows.shortened_documents == 1
        assert pack(encoded, sequence_length=sequence_length, packing="concatenate").shortened_documents == 0
        answers = [tokenizer.encode(part.text) for part in turns[len(turns) - 2 * kept :] if part.weight]
        assert learned == [*chain(*answers), tokenizer.end_token_id]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_files_of_prompts_and_responses(kind: str, tmp_path: Path) -> None:
    rows = [("How?", "So.", "x"), ("Why, then?", "Because.", "y"), ("Nothing?", " ", "z")]
    path = tmp_path / f"pairs.{kind}"
    if kind == "jsonl":
        lines = [json.dumps({"question": ask, "answer": say, "more": more}) for ask, say, more in rows]
    else:
        lines = ["question,answer,more", *(f'"{ask}","{say}",{more}' for ask, say, more in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = kg.corpora.create(f"{kind}:path={path},prompt=question,response=answer")
    tally = CorpusTally()
    found = list(corpus.documents(tally))
    assert [document.text for document in found] == ["How?\nSo.", "Why, then?\nBecause."]
    assert found[0].parts == (Part("How?\n", 0, "user"), Part("So.", 1, "assistant"))
    assert found[1].metadata == {"more": "y"}
    assert tally.dropped == {"empty response": 1}
    other = kg.corpora.create(f"{kind}:path={path},prompt=question,response=answer,separator= -> ")
    assert next(other.documents()).text.startswith("How?")
    with pytest.raises(kg.errors.CorpusFormatError, match=r"no (field|column) 'replies'"):
        list(kg.corpora.create(f"{kind}:path={path},prompt=question,response=replies").documents())
    for wrong in ("prompt=question", "response=answer", "prompt=a,response=a", "prompt=a,response=b,field=c"):
        with pytest.raises(CorpusArgumentError, match="prompt"):
            kg.corpora.create(f"{kind}:path={path},{wrong}")


def test_a_prompt_that_is_no_text_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"q": "a", "a": "b"}\n{"q": 3, "a": "b"}\n', encoding="utf-8")
    with pytest.raises(kg.errors.CorpusFormatError, match=r"line 2: the field 'q' is a number where text is needed"):
        list(kg.corpora.create(f"jsonl:path={path},prompt=q,response=a").documents())
