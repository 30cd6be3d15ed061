"""What every artefact's runtime must do: inherit `RuntimeContract`, say which artefact to test, and run pytest."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kerasgen import samplers
from kerasgen.errors import TokenArgumentError
from kerasgen.exporters.base import Exporter
from kerasgen.exporters.parity import comparison
from kerasgen.models.base import LanguageModel
from kerasgen.runtime.base import Runtime
from kerasgen.testing import draws
from kerasgen.testing.example_model import shared_small_model
from kerasgen.testing.exporters import exported_once
from kerasgen.tokens.base import Tokenizer

SEED = 2**32 + 5  # above what a 32-bit integer holds

Ids = list[list[int]]


class RuntimeContract:
    """The tests that every artefact's `Runtime` passes: whatever is asked of it, it generates what its model does.

    An export compares greedy ids of the model that it wrote. What no model changes is tested here, once for a format:
    texts of a batch, in any order; end tokens; seeds and what is drawn with them; beam search; valid UTF-8.

    ```python
    class TestMineRuns(RuntimeContract):
        file_name = "model.mine"
        samplers = ("top_k:k=5,temperature=0.8",)

        @pytest.fixture
        def exporter(self):
            return MyExporter()
    ```

    Its package must be installed, for an artefact's runtime is found by its exporter's entry point; or override the
    fixture `runtime`. A `model` of your own should not write the same token over and over; then there would be little
    to compare.

    Attributes:
        file_name: the name of a file or directory that the exporter can write.
        samplers: the samplers that draw, of those that the artefact holds, as text.
        beams: the beam searches that it holds, as text.
        seeds_are_the_models: whether a seed gives the text that it gives the model; if not, the runtime has random
            numbers of its own, and its draws are held to their distribution alone.
        shows_the_end: whether the end token is among the ids that it returns, and can be another than its own.
        keeps_utf8: whether it can choose only tokens that keep a text valid UTF-8.
        chunks: how many tokens of a prompt it reads at once, of each size.
        new_tokens: the number of tokens that are generated after each prompt.
    """

    file_name = "artefact"
    samplers: tuple[str, ...] = ()
    beams: tuple[str, ...] = ()
    seeds_are_the_models = True
    shows_the_end = True
    keeps_utf8 = True
    chunks: tuple[int, ...] = (8,)
    new_tokens = 20

    @pytest.fixture
    def model(self) -> LanguageModel:
        """The model that is exported: a small GPT-2; override this for another family."""
        return shared_small_model()

    @pytest.fixture
    def exporter(self) -> Exporter:
        """The exporter whose artefact is run; override this, or `runtime`."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `exporter`, or `runtime`.")

    @pytest.fixture
    def runtime(self, exporter: Exporter, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
        """The artefact's runtime, loaded once; one that overrides this should be as well."""
        return exported_once(type(self), exporter, model, tmp_path_factory, self.file_name).runtime

    @pytest.fixture
    def reference(self, model: LanguageModel) -> Any:
        """What generates the expected ids: the model, or an engine that is known to equal it."""
        return model

    def prompts(self, tokenizer: Tokenizer) -> Ids:
        """Return prompts of unequal lengths, without the start token; override this if the runtime reads few ids."""
        longest = max(self.chunks) * 2 + max(self.chunks) // 2 + 8
        return comparison.prompts(tokenizer, chunks=self.chunks, longest=longest)

    def told(self, tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
        """Return a model's ids as the runtime tells them; override this if it tells them in another way."""
        return list(ids)

    def asked(self, sampler: Any = "greedy") -> dict[str, Any]:
        """Return the settings of a call that leaves the choice among all tokens to the sampler."""
        return {"sampler": sampler, "max_new_tokens": self.new_tokens, "seed": SEED, "valid_utf8": False}

    def expected(self, reference: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> Ids:
        """Return what the reference generates after each prompt."""
        from kerasgen.generation import generate_ids

        end = settings.pop("end_token_id", None)
        if end is not None:
            from kerasgen.generation import engine_registry

            engine: Any = engine_registry.resolve(reference)
            reference = engine.ending_at(end)
        generated = generate_ids(reference, prompts, **settings)
        return [self.told(reference.tokenizer, choices[0].token_ids) for choices in generated]

    def test_the_tokenizer_is_the_models(self, runtime: Runtime, model: LanguageModel) -> None:
        """Ids would mean other texts."""
        assert runtime.tokenizer.digest() == model.tokenizer.digest()
        assert runtime.max_sequence_length is None or runtime.max_sequence_length >= 16

    def test_greedy_ids_are_the_models_for_prompts_of_all_lengths(self, runtime: Runtime, reference: Any) -> None:
        """Each prompt alone: below a chunk that is read at once, of one, and above it."""
        prompts = self.prompts(reference.tokenizer)
        wanted = self.expected(reference, prompts, **self.asked())
        assert max(len(set(ids)) for ids in wanted) > 3, "the model's texts stand still; take another one"
        assert [runtime.generate_ids([prompt], **self.asked())[0] for prompt in prompts] == wanted

    def test_a_prompt_gives_the_same_text_alone_and_in_a_batch_of_any_order(
        self, runtime: Runtime, reference: Any
    ) -> None:
        """Whatever chooses: what stands beside a text in its batch changes none of its tokens."""
        prompts = self.prompts(reference.tokenizer)
        order = np.random.default_rng(0).permutation(len(prompts)).tolist()
        for sampler in ("greedy", *self.samplers, *self.beams):
            alone = [runtime.generate_ids([prompt], **self.asked(sampler))[0] for prompt in prompts]
            assert runtime.generate_ids(prompts, **self.asked(sampler)) == alone, sampler
            shuffled = runtime.generate_ids([prompts[place] for place in order], **self.asked(sampler))
            assert shuffled == [alone[place] for place in order], sampler

    def test_a_text_ends_with_its_end_token_and_the_others_go_on(self, runtime: Runtime, reference: Any) -> None:
        """The token is among the ids; nothing comes after it."""
        if not self.shows_the_end:
            pytest.skip("this runtime ends texts at its own end token alone, and leaves it out")
        prompts = self.prompts(reference.tokenizer)
        whole = self.expected(reference, prompts, **self.asked())
        longest = sorted(whole, key=len)[-2:]
        for end in {ids[len(ids) // 2] for ids in longest}:
            wanted = self.expected(reference, prompts, end_token_id=end, **self.asked())
            assert wanted != whole
            assert runtime.generate_ids(prompts, end_token_id=end, **self.asked()) == wanted

    def test_a_seed_gives_the_same_text_again(self, runtime: Runtime, reference: Any) -> None:
        """That of the model, where random numbers are the library's; another one for a prompt that comes again."""
        for sampler in self._drawing():
            prompts = self.prompts(reference.tokenizer)
            prompts += prompts[:1]
            generated = runtime.generate_ids(prompts, **self.asked(sampler))
            assert runtime.generate_ids(prompts, **self.asked(sampler)) == generated, sampler
            assert generated[-1] != generated[0], sampler
            other = self.asked(sampler) | {"seed": 3}
            assert runtime.generate_ids(prompts, **other) != generated, sampler
            own = dataclasses.replace(samplers.REGISTRY.resolve(sampler), seed=3)
            assert runtime.generate_ids(prompts, **self.asked(own)) == generated, "a call's seed comes first"
            if self.seeds_are_the_models:
                assert generated == self.expected(reference, prompts, **self.asked(sampler)), sampler

    def test_what_is_drawn_is_distributed_as_the_models_logits_say(
        self, runtime: Runtime, model: LanguageModel
    ) -> None:
        """By a chi-square test of many draws, against probabilities that follow from the samplers' definitions."""
        start = model.tokenizer.start_token_id
        for sampler in self._drawing():
            call = draws.draws(model.tokenizer, sampler)
            logits = comparison.logits(model, [*([] if start is None else [start]), *call["prompts"][0]])[-1]
            figures = draws.figures(runtime.generate_ids(**call), logits, sampler)
            assert figures["distributed"], (sampler, figures)

    def test_a_beam_search_finds_the_models_texts(self, runtime: Runtime, reference: Any) -> None:
        """Of each prompt alone, and of all in one batch."""
        if not self.beams:
            pytest.skip("this artefact holds no beam search")
        for sampler in self.beams:
            prompts = self.prompts(reference.tokenizer)
            assert runtime.generate_ids(prompts, **self.asked(sampler)) == self.expected(
                reference, prompts, **self.asked(sampler)
            ), sampler

    def test_texts_are_valid_utf8_unless_they_shall_not_be(self, runtime: Runtime, reference: Any) -> None:
        """A prompt of ids may end within a character, which is then completed."""
        if not self.keeps_utf8:
            pytest.skip("this runtime chooses among all tokens, whatever is asked")
        tokenizer = reference.tokenizer
        prompts = [*self.prompts(tokenizer), begun(tokenizer)]
        seeded = self.samplers if self.seeds_are_the_models else ()
        for sampler in ("greedy", *seeded, *self.beams):
            for valid_utf8 in (True, False):
                asked = self.asked(sampler) | {"valid_utf8": valid_utf8}
                assert runtime.generate_ids(prompts, **asked) == self.expected(reference, prompts, **asked), sampler
        for sampler in self.samplers:
            generated = runtime.generate_ids(prompts, **self.asked(sampler) | {"valid_utf8": True})
            text = tokenizer.decode([*prompts[-1], *generated[-1]], skip_special_tokens=True)
            assert "\ufffd" not in text.rstrip("\ufffd"), sampler

    def _drawing(self) -> tuple[str, ...]:
        if not self.samplers:
            pytest.skip("this artefact holds no sampler that draws")
        return self.samplers


def begun(tokenizer: Tokenizer) -> list[int]:
    """Return ids of a prompt that ends within a character, where the vocabulary can spell such a one."""
    for character in ("🐉", "驫", "é"):
        with contextlib.suppress(TokenArgumentError):
            ids = tokenizer.encode(f"a {character}")
            if len(ids) > len(tokenizer.encode("a ")) + 1:
                return ids[:-1]
    return comparison.probe(tokenizer, 2)
