"""Greedy decoding by a SavedModel beside KerasHub's `generate` on TensorFlow.

`python -m benchmarks.decode_saved_model`: both in one process, in turns.

Batch 1, a prompt of 32 tokens, 128 new ones, GPT-2's base shape with seeded weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, NEW = 32, 128
BAR = 1.5
_BASE = {"vocabulary_size": 50257, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
_QUICK = {"vocabulary_size": 500, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64}


def build(causal_lm: Any, directory: Path) -> Callable[[list[int], int], list[int]]:
    """Write the greedy loop of a model of a known family, load it, and return what generates ids after a prompt."""
    import tensorflow as tf

    from kerasgen.exporters.saved_model_graph import DecoderGraph
    from kerasgen.exporters.tensorflow_namespace import argmax
    from kerasgen.models.families import family_of

    family = family_of(causal_lm)
    assert family is not None
    graph = DecoderGraph(family.weights(causal_lm), family.shape(causal_lm), dtype="float32", pad_token_id=0)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.int32)])  # type: ignore[untyped-decorator, unused-ignore]
    def greedy(prompts: Any, most: Any) -> Any:
        lengths = tf.fill(tf.shape(prompts)[:1], tf.shape(prompts)[1])
        return graph.sample(prompts, lengths, most, tf.constant(-1), lambda logits, step: argmax(logits)).token_ids

    tf.saved_model.save(graph, str(directory), signatures={"greedy": greedy})
    call = tf.saved_model.load(str(directory)).signatures["greedy"]

    def run(prompt: list[int], new_tokens: int) -> list[int]:
        found = call(prompts=tf.constant([prompt], tf.int32), most=tf.constant(new_tokens))
        ids: list[int] = next(iter(found.values())).numpy()[0].tolist()
        return ids

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(given.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    import keras_hub
    import numpy as np

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(**(_QUICK if given.quick else _BASE), max_sequence_length=1024)
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    causal_lm.compile(sampler="greedy")
    new = 8 if given.quick else NEW
    prompt = np.random.default_rng(0).integers(1, backbone.vocabulary_size, PROMPT).tolist()
    padded = np.zeros((1, PROMPT + new), "int32")
    padded[0, :PROMPT] = prompt
    inputs = {"token_ids": padded, "padding_mask": (np.arange(PROMPT + new) < PROMPT)[None].astype("int32")}

    with tempfile.TemporaryDirectory() as folder:
        ours = build(causal_lm, Path(folder) / "greedy")

        def theirs(_: list[int], __: int) -> list[int]:
            found: list[int] = np.asarray(causal_lm.generate(inputs, stop_token_ids=None)["token_ids"])[
                0, PROMPT:
            ].tolist()
            return found

        contenders = {"kerasgen saved_model": ours, "KerasHub generate on TensorFlow": theirs}
        ids = {name: run(prompt, new) for name, run in contenders.items()}  # traced and compiled
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(given.rounds):
            for name, run in contenders.items():
                began = time.perf_counter()
                run(prompt, new)
                seconds[name].append(time.perf_counter() - began)
    speeds = {name: new / statistics.median(times) for name, times in seconds.items()}
    value = speeds["kerasgen saved_model"] / speeds["KerasHub generate on TensorFlow"]
    rows = [{"engine": name, "tokens_per_second": speed} for name, speed in speeds.items()]
    bar = {"name": "saved_model over KerasHub on TensorFlow", "value": value, "at_least": BAR, "holds": value >= BAR}
    answer = {"rows": rows, "bars": [bar], "same_ids": len({tuple(one) for one in ids.values()}) == 1}
    for row in rows:
        print(f"{row['engine']:34} {row['tokens_per_second']:8.1f} tokens/s")
    print(json.dumps(answer["bars"]), "same ids:", answer["same_ids"])
    if given.json:
        given.json.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
