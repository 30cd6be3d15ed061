"""Many short prompts: a text takes the slot of one that ended, and is the text that it is alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from described import CONFIGS, SIZES, drawn
from letters import shared_model
from tiny import tiny_gpt2

from kerasgen.decoder.jax_layout import prepare
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.errors import GenerationError
from kerasgen.generation import batches as batching
from kerasgen.generation import engine_registry, generate, generate_ids, jax_queue
from kerasgen.generation.batches import Batch
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

pytestmark = pytest.mark.numerical

COUNT = 40
WORDS = ["", "t", "th", "a man", "春", "the", "in", "he"]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of texts that were decoded in queues."""
    counts: list[int] = []
    run = JaxEngine.queue

    def noting(self: JaxEngine, batch: Batch, *arguments: Any, **more: Any) -> Any:
        counts.append(len(batch.prompts))
        return run(self, batch, *arguments, **more)

    monkeypatch.setattr(JaxEngine, "queue", noting)
    return counts


@pytest.mark.parametrize(
    "spec",
    [Greedy(), Random(seed=3), TopK(4, temperature=0.7, seed=5), TopP(0.9, temperature=1.5, seed=8)],
    ids=lambda spec: type(spec).__name__,
)
def test_each_text_is_the_one_that_it_is_alone(spec: TokenSampler, queued: list[int]) -> None:
    """In the order of the prompts, with log-probabilities, though texts end at all lengths and prompts come twice."""
    model = tiny_gpt2(seed=4)
    prompts = model.tokenizer.encode_batch([WORDS[n % len(WORDS)] for n in range(COUNT)])
    seeds = [n // 3 for n in range(COUNT)]
    several, alone = (
        generate_ids(model, prompts, sampler=spec, max_length=24, seed=seeds, batch_size=size) for size in (8, 1)
    )
    assert queued == [COUNT]
    for (found,), (wanted,) in zip(several, alone, strict=True):
        assert (found.token_ids, found.finished) == (wanted.token_ids, wanted.finished)
        np.testing.assert_allclose(found.score, wanted.score, atol=1e-3)


def test_texts_that_end_early_and_late_leave_room_for_others(queued: list[int]) -> None:
    """Of five tokens one ends a text, so that most do so at once."""
    model = shared_model()
    prompts = [[n % 4, n // 4 % 4][: n % 3] for n in range(70)]
    settings: dict[str, Any] = {"sampler": Random(seed=2), "max_new_tokens": 50}
    found, wanted = (generate_ids(model, prompts, batch_size=size, **settings) for size in (16, 1))
    assert queued == [70]
    lengths = {len(text.token_ids) for (text,) in found}
    assert min(lengths) < 3
    assert max(lengths) > 20
    assert [text.token_ids for (text,) in found] == [text.token_ids for (text,) in wanted]


@pytest.mark.essential
@pytest.mark.slow
def test_a_text_longer_than_the_first_ring_is_the_same(queued: list[int]) -> None:
    """The ring grows when the oldest text needs it, also after its columns were written more than once."""
    model = tiny_gpt2(seed=5, max_sequence_length=256)
    prompts = model.tokenizer.encode_batch([WORDS[n % len(WORDS)] for n in range(32)])
    for more in (100, 200):
        settings: dict[str, Any] = {"sampler": TopK(9, seed=more), "max_new_tokens": more}
        found, wanted = (generate_ids(model, prompts, batch_size=size, **settings) for size in (8, 1))
        assert [text.token_ids for (text,) in found] == [text.token_ids for (text,) in wanted]
    assert queued == [32, 32]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2, 3, 31, 32, 33])
def test_a_text_may_have_few_new_tokens(limit: int, queued: list[int]) -> None:
    model = tiny_gpt2(seed=4)
    prompts = model.tokenizer.encode_batch(["t"] * 16 + ["th"] * 24)
    settings: dict[str, Any] = {"sampler": MinP(0.05, seed=1), "max_new_tokens": limit - 1}
    found, wanted = (generate_ids(model, prompts, batch_size=size, **settings) for size in (8, 1))
    assert queued == [40]
    assert [text.token_ids for (text,) in found] == [text.token_ids for (text,) in wanted]


def test_text_is_valid_utf8(queued: list[int]) -> None:
    model = tiny_gpt2(seed=6)
    settings: dict[str, Any] = {"sampler": Random(temperature=3.0, seed=4), "max_new_tokens": 12}
    found, wanted = (generate(model, ["春", "t", "é"] * 12, batch_size=size, **settings) for size in (8, 1))
    assert queued == [36]
    assert found == wanted
    assert not any("\ufffd" in text for text in found)


@pytest.mark.parametrize(
    ("settings", "prompts"),
    [
        ({"stop": ["z"]}, ["t"] * 40),
        ({"sampler": Random(repetition_penalty=1.5)}, ["t"] * 40),
        ({"sampler": Random(no_repeat_ngram_size=2)}, ["t"] * 40),
        ({}, ["t" * 20] * 40),
        ({}, ["t"] * 31),
        ({"batch_size": 4}, ["t"] * 40),
    ],
    ids=["stop", "penalty", "ngrams", "long prompts", "few", "few at once"],
)
def test_other_calls_are_decoded_in_batches(settings: Any, prompts: list[str], queued: list[int]) -> None:
    settings = {"sampler": Greedy(), "batch_size": 8, "max_new_tokens": 2} | settings
    assert len(generate(tiny_gpt2(), prompts, **settings)) == len(prompts)
    assert not queued


def test_weights_that_diverged_are_an_error(queued: list[int]) -> None:
    model = tiny_gpt2(seed=9)
    variable = model.network.weights[-1]
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, ["t"] * 40, sampler=Greedy(), batch_size=8, max_new_tokens=4)
    assert queued == [40]


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_id = pad_token_id = 0
    end_token_ids = (0,)
    vocabulary_size = SIZES["vocabulary_size"]


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2", "gpt_neox", "bloom", "mistral", "mixtral", "gpt_oss"])
def test_the_likeliest_token_is_that_of_the_whole_text_read_alone(name: str) -> None:
    """With windows, rotary and learned positions, biases by distance, sinks and experts."""
    config = replace(CONFIGS[name], max_sequence_length=64)
    weights = drawn(config)
    engine = JaxEngine(cast(Any, Numbers()), config, prepare(weights))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 37, 1 + n % 8).tolist() for n in range(32)]
    limits = [len(prompt) + 1 + n % 20 for n, prompt in enumerate(prompts)]
    (batch,) = batching.batches(prompts, limits, [0] * 32, 32)
    assert engine.can_queue(batch, Greedy(), 8)
    found = dict(engine.queue(batch, Greedy(), None, 8, logprobs=True))
    assert sorted(found) == list(range(32))
    for row, block in found.items():
        prompt, token_ids = batch.prompts[row], block.token_ids[:, 0].tolist()
        logits = NumpyDecoder(config, weights).read([*prompt, *token_ids[:-1]])[len(prompt) - 1 :]
        chosen = logits[np.arange(len(token_ids)), token_ids]
        np.testing.assert_allclose(chosen, logits.max(axis=-1), atol=1e-4, rtol=0)
        own = chosen - np.log(np.exp(logits).sum(axis=-1))
        np.testing.assert_allclose(block.logprobs[:, 0], own, atol=1e-4, rtol=0)
        assert len(token_ids) == batch.limits[row] - len(prompt) or token_ids[-1] == 0
        assert 0 not in token_ids[:-1]


@pytest.mark.one_backend
def test_a_ring_grows_from_any_column() -> None:
    """Many short texts turn it round first, and then long ones need a longer one."""
    config = replace(CONFIGS["gpt2"], max_sequence_length=128)
    weights = drawn(config)
    engine = JaxEngine(cast(Any, Numbers()), config, prepare(weights))
    prompts = [[1 + n % 36] for n in range(99)]
    limits = [2 + n % 3 for n in range(83)] + [110] * 16
    (batch,) = batching.batches(prompts, limits, [0] * 99, 99)
    found = dict(engine.queue(batch, Random(temperature=0.5), None, 8, logprobs=True))
    longest = max(found, key=lambda row: len(found[row].token_ids))
    token_ids = found[longest].token_ids[:, 0].tolist()
    assert len(token_ids) > 70
    logits = NumpyDecoder(config, weights).read([*batch.prompts[longest], *token_ids[:-1]])
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    own = logprobs[np.arange(len(token_ids)), token_ids]
    np.testing.assert_allclose(found[longest].logprobs[:, 0], own, atol=1e-4, rtol=0)


@pytest.mark.one_backend
def test_a_model_whose_angles_depend_on_a_texts_length_has_no_queue() -> None:
    config = CONFIGS["llama_dynamic"]
    engine = JaxEngine(cast(Any, Numbers()), config, prepare(drawn(config)))
    (batch,) = batching.batches([[1, 2]] * 40, [9] * 40, [0] * 40, 40)
    assert not engine.can_queue(batch, Greedy(), 8)


def test_a_second_call_compiles_nothing() -> None:
    model = tiny_gpt2(seed=7)
    engine = engine_registry.resolve(model)
    assert isinstance(engine, JaxEngine)
    generate(model, ["t"] * 40, sampler=TopK(5, seed=1), batch_size=8, max_new_tokens=12)
    compiled = engine.compilations
    generate(model, ["t", "th"] * 40, sampler=TopK(3, temperature=0.5, seed=2), batch_size=8, max_new_tokens=11)
    assert engine.compilations == compiled
    assert jax_queue.takes(TopK(3))
    assert not jax_queue.takes(TopK(3, bad_words=["t"]))
