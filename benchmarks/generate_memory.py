"""What a decoding step moves, by XLA's own analysis of the compiled graphs; no step is run."""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import keras
import numpy as np

from benchmarks.generate_contenders import Numbers, keras_model
from kerasgen.decoder.jax import JaxDecoder
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_weights
from kerasgen.models.base import LanguageModel

ROWS = 4


def main() -> None:
    """Read the model's shape from standard input, and write two rows to standard output."""
    job = json.load(sys.stdin)
    causal_lm = keras_model(job)
    model = LanguageModel(causal_lm, Numbers(job["vocabulary"]), "benchmark")  # type: ignore[arg-type]
    decoder, weights = JaxDecoder(jax_weights.config_of(model), job["vocabulary"]), jax_weights.prepare(model)
    heads, layers, positions = job["heads"], job["layers"], job["positions"]
    size = job["dim"] // heads

    def array(*dimensions: int, dtype: Any = np.float32) -> Any:
        return jax.ShapeDtypeStruct(dimensions, dtype)

    def cache(*between: int, length: int) -> Any:
        keys = array(ROWS, heads, size, *between, length)
        values = array(ROWS, heads, *between, length, size)
        return Cache((keys,) * layers, (values,) * layers)

    def ours(*given: Any) -> Any:
        weights, token_ids, places, prompt, valid, generated, slot = given
        return decoder.step(weights, token_ids, places, prompt, valid, generated, slot, None)

    def theirs(values: Any, token_ids: Any, cache: Any, index: Any) -> Any:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return causal_lm.call_with_cache(token_ids, cache, index)

    variables = [*causal_lm.trainable_variables, *causal_lm.non_trainable_variables]
    integers = array(ROWS, dtype=np.int32)

    def lowered_for(length: int) -> Any:
        """Our step of texts of so many tokens, half of them the prompt's."""
        half = length // 2
        return jax.jit(ours, donate_argnums=5).lower(
            weights,
            integers,
            integers,
            cache(length=half),
            array(ROWS, half, dtype=np.bool_),
            cache(1, length=half),
            array(dtype=np.int32),
        )

    # Texts of 64 tokens in a model of so many positions, which KerasHub's cache and attention span whole; and texts
    # that fill all of them.
    lowered = {
        "kerasgen": lowered_for(64),
        "kerasgen, all positions filled": lowered_for(positions),
        "keras_hub jax": jax.jit(theirs, donate_argnums=2).lower(
            [variable.value for variable in variables],
            array(ROWS, 1, dtype=np.int32),
            array(ROWS, layers, 2, positions, heads, size),
            array(dtype=np.int32),
        ),
    }
    found = []
    for name, graph in lowered.items():
        compiled = graph.compile()
        costs, buffers = compiled.cost_analysis(), compiled.memory_analysis()
        parameters = sum(variable.value.nbytes for variable in variables)
        found.append(
            {
                "part": "memory",
                "contender": name,
                "bytes_accessed": float(costs["bytes accessed"]),
                # What a step holds beside the weights: caches, results and what is temporary.
                "bytes_of_a_step": buffers.argument_size_in_bytes - parameters + buffers.temp_size_in_bytes,
                "temporary_bytes": buffers.temp_size_in_bytes,
            }
        )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
