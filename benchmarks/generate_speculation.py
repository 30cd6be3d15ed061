"""One text without proposals, with prompt lookup and with draft models, in turns in one process.

SmolLM2-135M writes on from a prompt that asks for its own words again and from prompts that don't. Its drafts are its
own first layers, as they are: nobody trained them to write, so they show the price of a draft that is often wrong.
The last task is a GPT-2 of the base shape whose layers after the third add nothing, and a draft of these three: what a
draft of a third of the price brings that is always right.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.generate_contenders import Numbers, keras_model
from kerasgen.generation import engine_registry, generate_ids
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.models.base import LanguageModel
from kerasgen.models.resolving import resolve

SAMPLERS = ("greedy", "top_k:k=40,temperature=0.7")
PROMPTS = {
    "repeats": (
        "def area(width, height):\n    return width * height\n\ndef volume(width, height, depth):\n    return width * "
        "height * depth\n\ndef area(width, height):\n    return"
    ),
    "prose": "The history of the city begins with a small village on the river. In the year 1200 the",
    "list": "My ten favourite dishes, and why I like each of them:\n1.",
}


def of_first_layers(engine: JaxEngine, count: int) -> JaxEngine:
    """An engine of a decoder's first layers, whose arrays are the decoder's own."""
    config, layers = engine.decoder.config, engine.weights["layers"][:count]
    attention = replace(config.attention, windows=config.attention.windows[:count])
    fewer = replace(config, num_layers=count, attention=attention, positions_by_layer=config.positions_by_layer[:count])
    return JaxEngine(engine.tokenizer, fewer, engine.weights | {"layers": layers})


def idle_after(model: Any, count: int) -> None:
    """Let a GPT-2's layers after so many add nothing."""
    for layer in model.backbone.transformer_layers[count:]:
        for part in (layer._self_attention_layer._output_dense, layer._feedforward_output_dense):
            for variable in part.variables:
                variable.assign(np.zeros(variable.shape, np.float32))


def compete(
    engine: JaxEngine, task: str, prompt: list[int], sampler: str, more: int, ways: dict[str, Any], rounds: int
) -> list[dict[str, Any]]:
    """Write one text in each way, in turns; a row each, with medians of the rounds after the first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for name, settings in ways.items():
            engine.prompts.clear()
            begun = time.perf_counter()
            ((texts[name],),) = generate_ids(
                engine, [prompt], sampler=sampler, max_new_tokens=more, logprobs=False, valid_utf8=False, **settings
            )
            seconds[name].append(time.perf_counter() - begun)
            counts = f"{texts[name].accepted} of {texts[name].proposed} accepted"
            took = f"{seconds[name][-1]:.3f} s, {counts}"
            print(f"speculation, {task}, {sampler}, turn {turn}, {name}: {took}", file=sys.stderr)
    wanted = texts["without"].token_ids
    return [
        {
            "part": "speculation",
            "task": f"{task}, {sampler.partition(':')[0]}",
            "contender": name,
            "seconds": statistics.median(seconds[name][1:]),
            "tokens": len(text.token_ids),
            "proposed": text.proposed,
            "accepted": text.accepted,
            "same_ids": text.token_ids == wanted,
        }
        for name, text in texts.items()
    ]


def main() -> None:
    """Read the job from standard input, and write the rows to standard output."""
    job = json.load(sys.stdin)
    rows: list[dict[str, Any]] = []
    causal_lm = keras_model(job["shape"])
    idle_after(causal_lm, 3)
    numbers: Any = Numbers(job["shape"]["vocabulary"])
    engine: Any = engine_registry.resolve(LanguageModel(causal_lm, numbers, "benchmark"))
    right: dict[str, Any] = {"without": {}, "draft that is right": {"assistant_model": of_first_layers(engine, 3)}}
    if job["quick"]:
        right["prompt lookup"] = {"prompt_lookup_num_tokens": 8}
    for sampler in SAMPLERS:
        rows += compete(engine, "idle layers", list(range(1, 33)), sampler, job["more"], right, job["rounds"])
    if not job["quick"]:
        engine = engine_registry.resolve(resolve("smollm2").load())
        layers = engine.decoder.config.num_layers
        ways: dict[str, Any] = {"without": {}, "prompt lookup": {"prompt_lookup_num_tokens": 8}}
        for count in job["drafts"]:
            ways[f"draft of {count} of {layers} layers"] = {"assistant_model": of_first_layers(engine, count)}
        for task, prompt in PROMPTS.items():
            for sampler in SAMPLERS:
                ids = engine.tokenizer.encode(prompt)
                rows += compete(engine, task, ids, sampler, job["more"], ways, job["rounds"])
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
