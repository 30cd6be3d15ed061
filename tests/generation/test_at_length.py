"""What must hold over many texts: a stream is the generated text, and a long file the same however often it ended."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen.generation import generate, jobs, stream
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.sampling import Greedy, TopP

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_gpt2(num_layers=1, hidden_dim=16)


def random_prompts(count: int, longest: int) -> list[str]:
    rng = np.random.default_rng(0)
    letters = list("the and other春花秋月。, \n😀é")
    return ["".join(rng.choice(letters, size=rng.integers(1, longest))) for _ in range(count)]


@pytest.mark.nightly
def test_streams_of_a_thousand_random_prompts_are_the_generated_texts(model: LanguageModel) -> None:
    settings = {"sampler": TopP(0.95), "max_new_tokens": 32, "stop": ["an", "花", "ee"], "seed": 3}
    for prompt in random_prompts(1000, 15):
        pieces = list(stream(model, prompt, **settings))
        assert "".join(pieces) == generate(model, [prompt], **settings)[0]
        assert all(pieces)


@pytest.mark.nightly
def test_a_file_of_ten_thousand_prompts_is_what_generate_returns_though_it_was_ended_twice(model, tmp_path) -> None:
    prompts = random_prompts(10_000, 8)
    settings = {"sampler": Greedy(), "max_new_tokens": 4, "seed": 5, "chunk_size": 512, "batch_size": 64}

    def ended_at(count: int):
        for place, prompt in enumerate(prompts):
            if place == count:
                raise KeyboardInterrupt
            yield prompt

    path = tmp_path / "texts.jsonl"
    for count in (3_000, 7_777):
        with pytest.raises(KeyboardInterrupt):
            jobs.generate_to(model, path, ended_at(count), **settings)
        standing = (tmp_path / "texts.jsonl.partial").read_bytes().count(b"\n")
        assert count - 512 <= standing <= count
    jobs.generate_to(model, path, iter(prompts), **settings)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == prompts
    wanted = generate(model, prompts, sampler=Greedy(), max_new_tokens=4, seed=5, batch_size=64)
    assert [line["text"] for line in lines] == wanted
