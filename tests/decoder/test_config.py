"""A decoder's description names every weight of the published architectures, and refuses what contradicts itself."""

from dataclasses import replace

import numpy as np
import pytest

from kerasgen.decoder import weights
from kerasgen.decoder.config import (
    Attention,
    DecoderConfig,
    Experts,
    FeedForward,
    LearnedPositions,
    NoPositions,
    Norm,
    RotaryPositions,
)
from kerasgen.decoder.rotary_scaling import LongRopeScaling
from kerasgen.errors import ModelArgumentError, ModelFormatError

pytestmark = pytest.mark.one_backend

GPT2 = DecoderConfig(
    architecture="gpt2",
    vocabulary_size=50257,
    num_layers=12,
    hidden_dim=768,
    max_sequence_length=1024,
    attention=Attention(12, 12, 64, query_bias=True, key_bias=True, value_bias=True, output_bias=True),
    feedforward=FeedForward(3072, "gelu_approximate", up_bias=True, down_bias=True),
    norm=Norm(),
    positions=LearnedPositions(),
)
LLAMA = DecoderConfig(
    architecture="llama",
    vocabulary_size=32000,
    num_layers=22,
    hidden_dim=2048,
    max_sequence_length=2048,
    attention=Attention(32, 4, 64),
    feedforward=FeedForward(5632, "silu", gated=True),
    norm=Norm("rms", 1e-5, bias=False),
    positions=RotaryPositions(),
    tied_head=False,
)


@pytest.mark.parametrize(("config", "parameters"), [(GPT2, 124_439_808), (LLAMA, 1_100_048_384)])
def test_the_implied_weights_are_as_many_as_the_published_models_have(config, parameters):
    assert sum(int(np.prod(shape)) for shape in weights.shapes(config).values()) == parameters


def test_names_of_a_gpt2_layer():
    assert list(weights.layer_shapes(GPT2, 0)) == [
        f"{role}.{part}"
        for role, parts in [
            ("attention_norm", ("scale", "bias")),
            *((role, ("kernel", "bias")) for role in ("query", "key", "value", "output")),
            ("feedforward_norm", ("scale", "bias")),
            *((role, ("kernel", "bias")) for role in ("up", "down")),
        ]
        for part in parts
    ]


def test_a_mixture_of_experts_has_a_router_and_kernels_for_each_expert_in_its_layers_alone():
    experts = Experts(8, 2, layers=(False, True))
    config = replace(LLAMA, num_layers=2, feedforward=replace(LLAMA.feedforward, experts=experts))
    assert "router.kernel" not in weights.layer_shapes(config, 0)
    assert weights.layer_shapes(config, 1)["router.kernel"] == (2048, 8)
    assert weights.layer_shapes(config, 1)["down.kernel"] == (8, 5632, 2048)


def test_a_number_of_layers_is_not_taken_on_trust():
    with pytest.raises(ModelArgumentError, match=r"`num_layers` must be at most 10,000\. Received: 1000000000"):
        replace(LLAMA, num_layers=10**9)


def tiny(config=LLAMA):
    attention = replace(config.attention, num_query_heads=4, num_key_value_heads=2, head_dim=4)
    part = replace(config.feedforward, intermediate_dim=12)
    sizes = {"vocabulary_size": 11, "num_layers": 12, "hidden_dim": 8, "max_sequence_length": 16}
    return replace(config, attention=attention, feedforward=part, **sizes)


def test_weights_go_to_full_names_and_back_with_layers_in_order():
    config = tiny()
    built = weights.build(config, lambda name, shape: np.full(shape, hash(name) % 997))
    weights.check(built, config)
    assert len(built["layers"]) == 12  # "10" stands after "9", and not after "1"
    for name, array in weights.flat(built).items():
        assert (array == hash(name) % 997).all(), name
    doubled = weights.map_arrays(lambda array: array * 2, built)
    assert doubled["layers"][11]["gate"]["kernel"][0, 0] == 2 * built["layers"][11]["gate"]["kernel"][0, 0]


def test_weights_that_are_missing_unused_or_misshapen_are_named():
    config = tiny()
    flat = weights.flat(weights.build(config, lambda _, shape: np.zeros(shape)))
    with pytest.raises(ModelFormatError, match=r"lack layers\.3\.key\.kernel\."):
        weights.check(weights.nested({k: v for k, v in flat.items() if k != "layers.3.key.kernel"}), config)
    with pytest.raises(ModelFormatError, match=r"no use for layers\.0\.query\.bias"):
        weights.check(weights.nested(flat | {"layers.0.query.bias": np.zeros(16)}), config)
    with pytest.raises(ModelFormatError, match=r"final_norm\.scale .* \(8,\)\. Received: \(9,\)"):
        weights.check(weights.nested(flat | {"final_norm.scale": np.zeros(9)}), config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Norm("rms"), "has no bias"),
        (lambda: Norm("batch"), "one of 'layer_norm'"),
        (lambda: Attention(12, 5, 64), "divisor of num_query_heads=12"),
        (lambda: Attention(12, 12, 0), "`head_dim` must be a whole number above 0"),
        (lambda: Attention(4, 4, 8, windows=(0,)), "windows"),
        (lambda: FeedForward(8, "tanh"), "one of 'gelu'"),
        (lambda: Experts(4, 5), "from 1 to 4"),
        (lambda: RotaryPositions(fraction=1.5), "at most 1"),
        (lambda: RotaryPositions(scaling="linear"), "LinearScaling"),
        (lambda: replace(LLAMA, positions="rotary"), "must be one of LearnedPositions"),
        (lambda: replace(LLAMA, attention=Attention(32, 4, 64, windows=(8,) * 3)), "each of the 22 layers"),
        (lambda: replace(LLAMA, positions_by_layer=(NoPositions(),)), "each of the 22 layers"),
        (lambda: replace(GPT2, max_sequence_length=None), "has a `max_sequence_length`"),
        (lambda: replace(GPT2, norm_placement="between"), "one of 'before'"),
        (lambda: replace(LLAMA, positions=RotaryPositions(fraction=0.05)), "even dimension"),
        (lambda: replace(LLAMA, positions=RotaryPositions(scaling=LongRopeScaling((1.0,), (2.0,), 8))), "frequencies"),
    ],
)
def test_what_contradicts_itself_is_refused(make, message):
    with pytest.raises(ModelArgumentError, match=message):
        make()
