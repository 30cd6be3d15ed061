"""A pipeline, a model's engines and a constraint are called by eight threads at once."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from in_threads import answers_are_those_of_one_thread
from tiny import tiny_gpt2
from toys import tiny_qwen

import kerasgen as kg
from kerasgen.constraints import masks
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import api
from kerasgen.generation.jax_prompts import Prompts, Remembered
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset

PROMPTS = ["the", "the sea and the sand", "春"]
CALLS = [
    {"prompts": prompt, "sampler": sampler, "seed": seed}
    for seed, prompt in enumerate(PROMPTS)
    for sampler in ("greedy", "top_k:k=5", "beam:num_beams=2")
]


def generated(model: LanguageModel) -> Any:
    def of(settings: dict[str, Any]) -> Any:
        settings = dict(settings)
        prompts = [settings.pop("prompts")]
        return api.generate(model, prompts, max_new_tokens=8, **settings)

    return of


@pytest.mark.one_backend
def test_a_decoder_on_jax() -> None:
    """Prompts that are remembered, graphs that are compiled and weights that are turned are shared."""
    answers_are_those_of_one_thread(
        generated(tiny_gpt2(num_layers=1)), CALLS, rounds=1, anew=lambda: generated(tiny_gpt2(num_layers=1))
    )


def test_any_other_model_through_keras() -> None:
    calls = [call for call in CALLS if call["sampler"] != "beam:num_beams=2"][::2]
    answers_are_those_of_one_thread(generated(tiny_qwen()), calls, rounds=1, anew=lambda: generated(tiny_qwen()))


@dataclass(frozen=True)
class Slow(kg.ModelSource):
    """Brings a model, slowly, and counts how often."""

    loads: list[int]

    def load(self) -> LanguageModel:
        self.loads.append(1)
        time.sleep(0.2)
        return tiny_gpt2(num_layers=1)


def test_eight_threads_that_first_ask_for_the_model_load_one() -> None:
    loads: list[int] = []
    pipe = kg.Pipeline(["the sea", "the hill"] * 4, Slow(loads), held_out=0.0)
    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> tuple[int, int]:
            together.wait()
            return id(pipe.model), id(pipe._documents(show=False))

        found = set(pool.map(ask, range(8)))
    assert len(loads) == len(found) == 1
    assert copy.deepcopy(kg.Pipeline(model="starter")).generate("春", max_new_tokens=1).startswith("春")


@pytest.mark.one_backend
def test_a_pipeline_of_files_whose_model_another_thread_loads(tmp_path: Path) -> None:
    preset = save_preset(tiny_gpt2(num_layers=1), tmp_path / "preset")
    pipe, fresh = kg.Pipeline(model=str(preset)), kg.Pipeline(model=str(preset))
    wanted = {repr(one): fresh.generate(**one, max_new_tokens=6) for one in CALLS}
    loading = threading.Lock()

    def call(settings: dict[str, Any]) -> Any:
        if settings["seed"] == 1 and loading.acquire(blocking=False):
            assert pipe.model.tokenizer.vocabulary_size
        return pipe.generate(**settings, max_new_tokens=6)

    answers_are_those_of_one_thread(lambda one: wanted[repr(one)], CALLS, rounds=1, anew=lambda: call)


@pytest.mark.one_backend
def test_prompts_that_are_kept_while_others_are_looked_for() -> None:
    """What is found must begin as what was looked for, however many texts come and go meanwhile."""
    prompts = Prompts(most=3)
    texts = [tuple(range(n, n + 10)) for n in range(20)]

    def call(text: tuple[int, ...]) -> bool | int:
        prompts.keep(Remembered(text, Cache((), ())))
        found = prompts.find([(*text, 99)])
        return (
            texts.index(text)
            if found is None
            else found[0].token_ids[: found[1]] == text[: found[1]] and texts.index(text)
        )

    answers_are_those_of_one_thread(call, texts, rounds=200)


@pytest.mark.one_backend
@pytest.mark.parametrize("form", ["regex:pattern=[a-z ]+[.!]", "verse_form:form=七言絕句"])
def test_a_constraint_whose_states_are_numbered_when_they_are_first_seen(form: str) -> None:
    if form.startswith("regex"):
        pytest.importorskip("outlines_core")
    pipe = kg.Pipeline(model="starter")
    calls = [
        (prompt, seed) for seed, prompt in enumerate(["", "a", "b", "c"] if "regex" in form else ["", "春", "明月"])
    ]

    def call(one: tuple[str, int]) -> str:
        return pipe.generate(one[0], constraint=form, seed=one[1], sampler="top_k:k=9", max_new_tokens=40)

    def anew() -> Any:
        masks.masks_of.cache_clear()
        return call

    answers_are_those_of_one_thread(call, calls, rounds=1, anew=anew)


@pytest.mark.one_backend
@pytest.mark.nightly
def test_samplers_of_keras_hub_take_turns() -> None:
    pytest.importorskip("keras_hub")
    import keras_hub

    model = tiny_gpt2(num_layers=1)

    def call(prompt: str) -> Any:
        return api.generate(model, [prompt], sampler=keras_hub.samplers.GreedySampler(), max_new_tokens=5)

    answers_are_those_of_one_thread(call, PROMPTS[:3], rounds=1)
