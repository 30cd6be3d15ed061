"""What every constraint must do: inherit `ConstraintContract`, say which constraint to test, and run pytest."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from kerasgen.constraints import REGISTRY
from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.errors import ConstraintArgumentError, GenerateArgumentError
from kerasgen.testing.example_model import shared_small_model
from kerasgen.testing.values import PluginContract
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.characters import whole_character_bpe

_FEW = 12  # tokens of a text that has no end of its own
_MOST = 1 << 14  # tokens in which a text of any constraint under test can be completed


class ConstraintContract(PluginContract):
    """The tests that every `Constraint` passes.

    ```python
    class TestMine(ConstraintContract):
        texts = ("2024-05-01",)
        foreign = ("2024-5-1", "")

        @pytest.fixture
        def constraint(self):
            return Date()
    ```

    Attributes:
        texts: some that have the form.
        foreign: some that don't.
    """

    registry = REGISTRY
    texts: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @pytest.fixture
    def constraint(self) -> Constraint:
        """The constraint under test, with `whole_text` left as it is; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `constraint`.")

    @pytest.fixture
    def plugin(self, constraint: Constraint) -> Constraint:
        """What the tests of every kind look at."""
        return constraint

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """Whose tokens are bytes, parts of characters and whole ones."""
        return whole_character_bpe(["".join(self.texts) * 2], vocabulary_size=290)

    @pytest.fixture
    def model(self) -> Any:
        """A small model, or an engine, to generate with."""
        return shared_small_model()

    def test_copies_are_equal_and_hash_alike(self, constraint: Constraint) -> None:
        """A saved pipeline and a cache of masks compare constraints."""
        assert constraint.matches("") in (True, False)  # what that made is no part of the value
        copies = copy.deepcopy(constraint), pickle.loads(pickle.dumps(constraint)), dataclasses.replace(constraint)
        for again in copies:
            assert again == constraint
            assert hash(again) == hash(constraint)
        assert dataclasses.replace(constraint, whole_text=False) != constraint

    def test_a_shared_setting_out_of_range_is_refused(self, constraint: Constraint) -> None:
        """A subclass with a `__post_init__` of its own must call its parent's."""
        with pytest.raises(ConstraintArgumentError):
            dataclasses.replace(constraint, whole_text=1)  # type: ignore[arg-type]

    def test_texts_of_the_form_match_and_others_do_not(self, constraint: Constraint) -> None:
        """Every beginning of a text of the form can be read, too."""
        assert self.texts, "the contract needs texts that have the form"
        assert self.foreign, "the contract needs texts that don't"
        automaton = constraint.automaton()
        for text in self.texts:
            assert constraint.matches(text), text
            written = text.encode()
            assert automaton.walk(written)[1] == len(written)
        for text in self.foreign:
            assert not constraint.matches(text), text

    def test_every_walk_through_allowed_tokens_ends_in_a_text_of_the_form(
        self, constraint: Constraint, tokenizer: Tokenizer
    ) -> None:
        """However little room there is beyond the fewest tokens that are needed; without a limit, nowhere is an end."""
        for seed in range(4):
            _walk(constraint.begin(tokenizer, []), tokenizer, 4 * _FEW, seed)
        fewest = _fewest(constraint, tokenizer)
        for seed, more in enumerate((0, 1, 3, _FEW, _FEW)):
            remaining = fewest + more
            ids, state = _walk(constraint.begin(tokenizer, [], remaining), tokenizer, remaining, seed)
            text = tokenizer.decode(ids)
            assert state.is_complete, text
            assert constraint.matches(text), text
        if fewest:
            with pytest.raises(GenerateArgumentError):
                constraint.begin(tokenizer, [], fewest - 1)

    def test_a_token_is_allowed_exactly_where_the_automaton_reads_its_bytes(
        self, constraint: Constraint, tokenizer: Tokenizer
    ) -> None:
        """The masks, which look at all tokens at once, against one token at a time."""
        special = {tokenizer.end_token_id, tokenizer.pad_token_id, tokenizer.start_token_id}
        automaton, state = constraint.automaton(), constraint.begin(tokenizer, [])
        place, rng = automaton.start, np.random.default_rng(1)
        for _ in range(6):
            allowed = _allowed(state, tokenizer)
            for token_id in set(range(tokenizer.vocabulary_size)) - special:
                after: Any = place
                for byte in tokenizer.token_bytes(token_id):
                    after = None if after is None else automaton.steps(after).get(byte)
                assert allowed[token_id] == (after is not None), token_id
            assert allowed[tokenizer.end_token_id] == automaton.accepts(place) == state.is_complete
            allowed[list(special - {None})] = False
            if not allowed.any():
                break
            chosen = int(rng.choice(np.flatnonzero(allowed)))
            for byte in tokenizer.token_bytes(chosen):
                place = automaton.steps(place)[byte]
            state.advance(chosen)

    def test_a_text_goes_on_from_each_of_its_beginnings(self, constraint: Constraint, tokenizer: Tokenizer) -> None:
        """A prompt is the beginning of the text, and what follows it in a text of the form is allowed."""
        for text in self.texts:
            ids = tokenizer.encode(text)
            for length in range(len(ids) + 1):
                try:
                    state = constraint.begin(tokenizer, ids[:length])
                except GenerateArgumentError:
                    # A complete text that nothing can follow is no prompt.
                    assert length == len(ids), text
                    continue
                for token_id in ids[length:]:
                    assert _allowed(state, tokenizer)[token_id], (text, length)
                    state.advance(token_id)
                assert state.is_complete
                assert _allowed(state, tokenizer)[tokenizer.end_token_id]

    def test_where_only_what_is_generated_counts_any_prompt_will_do(
        self, constraint: Constraint, tokenizer: Tokenizer
    ) -> None:
        """Of `whole_text=False` the prompt is no part."""
        apart = dataclasses.replace(constraint, whole_text=False)
        alone = _allowed(constraint.begin(tokenizer, []), tokenizer)
        for prompt in (*self.foreign, *self.texts, "\u2603 first: "):
            state = apart.begin(tokenizer, tokenizer.encode(prompt))
            np.testing.assert_array_equal(_allowed(state, tokenizer), alone)

    def test_a_copy_goes_its_own_way(self, constraint: Constraint, tokenizer: Tokenizer) -> None:
        """Beam search keeps several texts that began as one."""
        fewest = _fewest(constraint, tokenizer) + _FEW
        first = constraint.begin(tokenizer, [], fewest)
        second = first.copy()
        before = _allowed(second, tokenizer)
        _walk(first, tokenizer, fewest, seed=2)
        np.testing.assert_array_equal(_allowed(second, tokenizer), before)
        assert constraint.matches(tokenizer.decode(_walk(second, tokenizer, fewest, seed=3)[0]))

    def test_generated_texts_have_the_form(self, constraint: Constraint, model: Any) -> None:
        """Whatever chooses them, in a list and in pieces."""
        from kerasgen.generation import generate, stream

        remaining = _fewest(constraint, model.tokenizer) + _FEW
        settings: dict[str, Any] = {"constraint": constraint, "max_new_tokens": remaining, "seed": 1}
        for sampler in ("greedy", "random", "beam:num_beams=2"):
            (text,) = generate(model, [""], sampler=sampler, **settings)
            assert constraint.matches(text), (sampler, text)
        (text,) = generate(model, [""], sampler="random", **settings)
        assert "".join(stream(model, "", sampler="random", **settings)) == text


def _allowed(state: ConstraintState, tokenizer: Tokenizer) -> Any:
    """Return a copy of the mask, bool `(vocabulary_size,)`."""
    allowed = state.allowed()
    return np.ones(tokenizer.vocabulary_size, np.bool_) if allowed is None else np.array(allowed, np.bool_)


def _fewest(constraint: Constraint, tokenizer: Tokenizer) -> int:
    """Return the fewest tokens that a text of the form takes."""

    def fits(remaining: int) -> bool:
        try:
            constraint.begin(tokenizer, [], remaining)
        except GenerateArgumentError:
            return False
        return True

    high = next((1 << n for n in range(_MOST.bit_length()) if fits(1 << n)), None)
    assert high is not None, f"no text of {constraint} has {_MOST} tokens or fewer"
    low = 0
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _walk(state: ConstraintState, tokenizer: Tokenizer, remaining: int, seed: int) -> tuple[list[int], ConstraintState]:
    """Return the ids of a text of random allowed tokens, and the state after them."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for _ in range(remaining):
        allowed = np.flatnonzero(_allowed(state, tokenizer))
        assert len(allowed), f"a dead end after {tokenizer.decode(ids)!r}"
        chosen = int(rng.choice(allowed))
        if chosen == tokenizer.end_token_id:
            break
        state.advance(chosen)
        ids.append(chosen)
    return ids, state
