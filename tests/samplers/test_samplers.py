"""Sampler specs as values: checked at birth, written as text, saved, resolved; and their random numbers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from kerasgen import backend, samplers
from kerasgen.errors import SamplerArgumentError, UnknownNameError
from kerasgen.samplers import randomness
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.randomness import streams
from kerasgen.samplers.resolving import resolve
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

EXAMPLES = [
    Greedy(repetition_penalty=1.2),
    Random(temperature=0.7, seed=2**64 - 1),
    TopK(k=40, temperature=0.8, bad_words=("坏", "a, b")),
    TopP(p=0.5, no_repeat_ngram_size=3),
    MinP(p=0.1),
    Beam(num_beams=4, num_return_sequences=2, length_penalty=0, early_stopping=True),
    Contrastive(k=4, alpha=0.5),
]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Greedy, {"temperature": 0}),
        (Random, {"temperature": 1e-38}),
        (Beam, {"temperature": 9e-7}),
        (Greedy, {"temperature": float("nan")}),
        (Greedy, {"temperature": True}),
        (Random, {"temperature": "hot"}),
        (Random, {"seed": -1}),
        (Random, {"seed": 2**64}),
        (Random, {"seed": 1.5}),
        (Random, {"repetition_penalty": 0}),
        (Random, {"no_repeat_ngram_size": -1}),
        (Random, {"bad_words": "one"}),
        (Random, {"bad_words": ("",)}),
        (Random, {"bad_words": ("\ud800",)}),
        (TopK, {"k": 0}),
        (TopK, {"k": 2.0}),
        (TopP, {"p": 0}),
        (TopP, {"p": 1.1}),
        (MinP, {"p": -0.1}),
        (Beam, {"num_beams": 0}),
        (Beam, {"num_beams": 2, "num_return_sequences": 3}),
        (Beam, {"length_penalty": float("inf")}),
        (Beam, {"early_stopping": "never"}),
        (Contrastive, {"k": 0}),
        (Contrastive, {"alpha": 1.5}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(kind: type[SamplerSpec], wrong: dict[str, object]) -> None:
    with pytest.raises(SamplerArgumentError, match=list(wrong)[-1]):
        kind(**wrong)


@pytest.mark.parametrize("spec", EXAMPLES, ids=lambda spec: type(spec).__name__)
def test_a_spec_is_a_value_that_a_manifest_keeps(spec: SamplerSpec) -> None:
    assert samplers.REGISTRY.from_manifest(samplers.REGISTRY.to_manifest(spec)) == spec
    assert len({spec, dataclasses.replace(spec)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.temperature = 2.0  # type: ignore[misc]


def test_text_means_what_the_constructor_means() -> None:
    assert samplers.create("top_k:k=40,temperature=0.8") == TopK(k=40, temperature=0.8) == TopK(40, temperature=0.8)
    assert samplers.create("beam:early_stopping=true,num_beams=2") == Beam(num_beams=2, early_stopping=True)
    assert samplers.create('random:"bad_words=x|y, z",seed=3') == Random(bad_words=("x", "y, z"), seed=3)


def test_a_list_of_bad_words_is_kept_as_a_tuple() -> None:
    assert Random(bad_words=["x"]) == Random(bad_words=("x",))  # type: ignore[arg-type]


def test_resolve_takes_names_specs_and_keras_hubs_own() -> None:
    from kerasgen import backend

    backend.use()
    import keras_hub

    own = keras_hub.samplers.GreedySampler()
    assert resolve("greedy") == Greedy()
    assert resolve(TopK(3)) == TopK(3)
    assert resolve(own) is own
    with pytest.raises(UnknownNameError, match="top_k"):
        resolve("topk")
    with pytest.raises(SamplerArgumentError, match=r"TopK\(\)"):
        resolve(TopK)
    with pytest.raises(SamplerArgumentError, match="3"):
        resolve(3)


def test_making_every_spec_loads_neither_numpy_nor_keras() -> None:
    code = (
        "import sys\n"
        "from kerasgen import samplers\n"
        "for name in samplers.names(): samplers.create(name)\n"
        "from kerasgen.samplers.resolving import resolve\n"
        "resolve('top_k:k=3')\n"
        "print(sorted({'numpy', 'keras', 'keras_hub', 'jax', 'tensorflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def numbers(seed: int, prompt: list[int], repeat: int, count: int) -> np.ndarray:
    key = np.repeat(randomness.keys([seed], [prompt], [repeat]), count, axis=0)
    return randomness.uniforms(np, (key[:, 0], key[:, 1]), np.arange(count, dtype=np.uint32))


def test_a_number_depends_on_seed_prompt_repetition_and_place_alone() -> None:
    """Not on the batch: another prompt beside it, and padding for a longer one, change nothing."""
    long = numbers(7, [1, 2], 0, 100)
    np.testing.assert_array_equal(numbers(7, [1, 2], 0, 10), long[:10])
    for other in ((8, [1, 2], 0), (7 + 2**32, [1, 2], 0), (7, [2, 1], 0), (7, [1, 2, 0], 0), (7, [1, 2], 1)):
        assert not np.isin(numbers(*other, 100), long).any()
    assert ((long >= 0) & (long < 1)).all()
    beside = randomness.keys([7, 3], [[1, 2], [5] * 40], [0, 0])
    np.testing.assert_array_equal(beside[0], randomness.keys([7], [[1, 2]], [0])[0])


def test_the_numbers_of_a_seed_never_change() -> None:
    """A saved seed must give its text again, whatever the machine: Threefry 2x32's published known answer."""
    words = [np.array([word], dtype=np.uint32) for word in (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)]
    x, y = randomness.threefry(np, (words[0], words[1]), (words[2], words[3]))
    assert (int(x[0]), int(y[0])) == (0xC4923A9C, 0x483DF7A0)


def test_a_graph_draws_the_host_s_numbers_to_the_bit() -> None:
    backend.use()
    from keras import ops

    prompts = [[50256, 1, 2], [50256], [3] * 9]
    wanted = randomness.keys([7, 7, 2**40 + 1], prompts, [0, 2, 0])
    padded = np.array([prompt + [0] * (12 - len(prompt)) for prompt in prompts], dtype=np.uint32)
    counted = np.arange(12) < np.array([len(prompt) for prompt in prompts])[:, None]
    seeds = np.array([randomness.seed_words(seed) for seed in (7, 7, 2**40 + 1)], dtype=np.uint32)
    given = [ops.convert_to_tensor(array) for array in (seeds[:, :1], seeds[:, 1:], padded, counted)]
    repeat, place = (ops.convert_to_tensor(np.array(n, dtype=np.uint32)) for n in ([0, 2, 0], [4, 5, 6]))
    key = randomness.prompt_key(ops, (given[0], given[1]), given[2], given[3], repeat)
    np.testing.assert_array_equal(np.stack([ops.convert_to_numpy(word) for word in key], axis=1), wanted)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(randomness.uniforms(ops, key, place)),
        randomness.uniforms(np, (wanted[:, 0], wanted[:, 1]), np.array([4, 5, 6], dtype=np.uint32)),
    )


def test_only_a_prompt_that_came_before_takes_another_stream() -> None:
    assert streams(["a", "b", "a", "a", "b"]) == [0, 0, 1, 2, 1]
