"""Tiny decoders of published architectures: their descriptions, and weights that are drawn by name."""

import zlib
from dataclasses import replace

import numpy as np

from kerasgen.decoder import weights
from kerasgen.decoder.config import (
    AlibiPositions,
    Attention,
    ClampedGate,
    DecoderConfig,
    Experts,
    FeedForward,
    LearnedPositions,
    NoPositions,
    Norm,
    RotaryPositions,
)
from kerasgen.decoder.rotary_scaling import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, YarnScaling

# Angles that depend on how long a text is: what was read of a shorter one keeps its own.
BY_LENGTH = ("llama_dynamic", "phi3_held")
TOKENS = [3, 17, 4, 4, 29, 0, 11, 8, 36, 21, 5, 2, 30, 13, 9, 25, 1, 7, 33, 19]
SIZES = {"vocabulary_size": 37, "num_layers": 4, "hidden_dim": 24, "max_sequence_length": 64}
RMS = Norm("rms", 1e-5, bias=False)
BIASES = {"query_bias": True, "key_bias": True, "value_bias": True, "output_bias": True}

LLAMA = DecoderConfig(
    architecture="llama",
    attention=Attention(4, 2, 8),
    feedforward=FeedForward(20, "silu", gated=True),
    norm=RMS,
    positions=RotaryPositions(),
    tied_head=False,
    **SIZES,
)
GPT2 = DecoderConfig(
    architecture="gpt2",
    attention=Attention(3, 3, 8, **BIASES),
    feedforward=FeedForward(20, "gelu_approximate", up_bias=True, down_bias=True),
    norm=Norm(),
    positions=LearnedPositions(),
    **SIZES,
)
GEMMA2 = replace(
    LLAMA,
    architecture="gemma2",
    attention=Attention(4, 2, 8, scale=0.25, soft_cap=2.0, windows=(6, None, 6, None)),
    feedforward=FeedForward(20, "gelu_approximate", gated=True),
    norm=Norm("rms_plus_one", 1e-6, bias=False),
    norm_placement="before_and_after",
    embedding_scale=24**0.5,
    logit_soft_cap=3.0,
    tied_head=True,
)
GPT_NEOX = replace(
    GPT2,
    architecture="gpt_neox",
    feedforward=FeedForward(20, "gelu", up_bias=True, down_bias=True),
    positions=RotaryPositions(fraction=0.25),
    norm_placement="parallel",
    tied_head=False,
)


FALCON = replace(
    GPT2,
    architecture="falcon",
    attention=Attention(4, 1, 6),
    feedforward=FeedForward(20, "gelu"),
    positions=RotaryPositions(),
    norm_placement="parallel_shared",
)
STARCODER2 = replace(
    GPT2, architecture="starcoder2", attention=Attention(4, 2, 6, **BIASES), positions=RotaryPositions()
)
HELD_GEMMA2 = replace(GEMMA2, attention=Attention(4, 2, 8), logit_soft_cap=None)
WIDE = RotaryPositions(1_000_000.0, scaling=LinearScaling(8.0))


def rotary(scaling):
    return replace(LLAMA, positions=RotaryPositions(base=500.0, scaling=scaling))


GPT_OSS = replace(
    LLAMA,
    architecture="gpt_oss",
    attention=Attention(4, 2, 8, **BIASES, windows=(6, None, 6, None), sinks=True),
    feedforward=FeedForward(
        20,
        "silu",
        gated=True,
        up_bias=True,
        down_bias=True,
        experts=Experts(4, 2, router_bias=True, router_loss=0.25),
        clamped_gate=ClampedGate(1.5, 0.75),
    ),
    positions=RotaryPositions(500.0, scaling=YarnScaling(4.0, 16, truncate=False)),
)

CONFIGS = {
    "gpt2": GPT2,
    "opt": replace(
        GPT2,
        architecture="opt",
        feedforward=replace(GPT2.feedforward, activation="relu"),
        positions=LearnedPositions(offset=2),
    ),
    "llama": LLAMA,
    "llama_tied_with_biases": replace(
        LLAMA,
        attention=replace(LLAMA.attention, **BIASES),
        feedforward=replace(LLAMA.feedforward, up_bias=True, down_bias=True),
        tied_head=True,
    ),
    "llama_linear": rotary(LinearScaling(4.0)),
    "llama_dynamic": rotary(DynamicScaling(2.0, 16)),
    "llama_llama3": rotary(Llama3Scaling(8.0, 1.0, 4.0, 32)),
    "llama_yarn": rotary(YarnScaling(4.0, 16)),
    "mistral": replace(LLAMA, architecture="mistral", attention=Attention(4, 2, 8, windows=(5,) * 4)),
    "qwen2": replace(
        LLAMA,
        architecture="qwen2",
        attention=Attention(3, 1, 8, query_bias=True, key_bias=True, value_bias=True),
        tied_head=True,
    ),
    "qwen3": replace(
        LLAMA,
        architecture="qwen3",
        attention=replace(LLAMA.attention, query_key_norm=Norm("rms", 1e-6, bias=False)),
        norm=Norm("rms", 1e-6, bias=False),
    ),
    "gemma2": GEMMA2,
    "gemma3_text": replace(
        GEMMA2,
        architecture="gemma3_text",
        attention=Attention(4, 2, 8, scale=0.25, query_key_norm=GEMMA2.norm, windows=(6, 6, 6, None)),
        positions=RotaryPositions(500.0, scaling=LinearScaling(8.0)),
        positions_by_layer=(RotaryPositions(100.0),) * 3 + (RotaryPositions(500.0, scaling=LinearScaling(8.0)),),
        logit_soft_cap=None,
    ),
    # Those that KerasHub's layers compute, whose epsilons, bases and scales are fixed.
    "gemma": replace(HELD_GEMMA2, architecture="gemma", attention=Attention(4, 1, 8), norm_placement="before"),
    "gemma2_held": replace(
        HELD_GEMMA2,
        attention=Attention(4, 2, 8, soft_cap=2.0, windows=(6, None, 6, None)),
        logit_soft_cap=3.0,
    ),
    "gemma3_held": replace(
        HELD_GEMMA2,
        architecture="gemma3_text",
        num_layers=6,
        attention=Attention(4, 2, 8, query_key_norm=HELD_GEMMA2.norm, windows=(6,) * 5 + (None,)),
        positions=WIDE,
        positions_by_layer=(RotaryPositions(),) * 5 + (WIDE,),
    ),
    "qwen3_held": replace(
        LLAMA,
        architecture="qwen3",
        attention=Attention(4, 2, 10, query_key_norm=RMS),
        positions=RotaryPositions(500.0, scaling=LinearScaling(2.0)),
    ),
    "gpt_neox": GPT_NEOX,
    "gptj": replace(
        GPT_NEOX,
        architecture="gptj",
        attention=Attention(3, 3, 8),
        feedforward=replace(GPT2.feedforward, activation="gelu_approximate"),
        positions=RotaryPositions(fraction=0.5, interleaved=True),
        norm_placement="parallel_shared",
        head_bias=True,
    ),
    "bloom": replace(
        GPT2,
        architecture="bloom",
        feedforward=replace(GPT2.feedforward, intermediate_dim=4 * 24),
        positions=AlibiPositions(),
        embedding_norm=Norm(),
    ),
    "olmo2": replace(
        LLAMA,
        architecture="olmo2",
        attention=Attention(4, 2, 8, query_key_norm=RMS, query_key_norm_axis="all_heads"),
        norm_placement="after",
    ),
    "granite": replace(
        LLAMA,
        architecture="granite",
        attention=replace(LLAMA.attention, scale=0.2),
        embedding_scale=3.0,
        residual_scale=0.5,
        logit_scale=0.25,
    ),
    "gpt_neox_held": replace(
        GPT_NEOX, feedforward=replace(GPT_NEOX.feedforward, activation="gelu_approximate"), tied_head=True
    ),
    "gpt_neox_in_turn": replace(GPT_NEOX, norm_placement="before"),
    "phi3": replace(
        LLAMA,
        architecture="phi3",
        attention=Attention(4, 2, 6, windows=(5,) * 4),
        positions=RotaryPositions(fraction=0.75),
        tied_head=True,
    ),
    "phi3_held": replace(
        LLAMA,
        architecture="phi3",
        attention=Attention(4, 2, 6),
        positions=RotaryPositions(scaling=LongRopeScaling((1.0, 1.1, 1.3), (1.0, 2.0, 4.0), 16, (1 + 2 / 4) ** 0.5)),
    ),
    "falcon": FALCON,
    "falcon_40b": replace(FALCON, attention=Attention(4, 2, 6), norm_placement="parallel"),
    "falcon_held": replace(
        FALCON,
        attention=Attention(4, 4, 6, **BIASES),
        feedforward=FeedForward(20, "gelu", up_bias=True, down_bias=True),
        positions=AlibiPositions(6**-0.5),
        norm_placement="before",
    ),
    "smollm3_held": replace(
        LLAMA,
        architecture="smollm3",
        attention=Attention(4, 2, 6),
        positions=RotaryPositions(500.0),
        positions_by_layer=(RotaryPositions(500.0),) * 3 + (NoPositions(),),
        tied_head=True,
    ),
    "smollm3": replace(
        LLAMA,
        architecture="smollm3",
        positions_by_layer=(RotaryPositions(),) * 3 + (NoPositions(),),
    ),
    "starcoder2": STARCODER2,
    "starcoder2_windowed": replace(
        STARCODER2,
        attention=Attention(4, 2, 6, windows=(5,) * 4),
        feedforward=FeedForward(20, "gelu_approximate"),
        tied_head=False,
    ),
    "mixtral": replace(
        LLAMA,
        architecture="mixtral",
        feedforward=FeedForward(20, "silu", gated=True, experts=Experts(4, 2, router_loss=0.5)),
    ),
    "mixtral_held": replace(
        LLAMA,
        architecture="mixtral",
        attention=Attention(4, 2, 6, windows=(5,) * 4),
        feedforward=FeedForward(20, "silu", gated=True, experts=Experts(4, 2, router_loss=0.5)),
    ),
    "qwen3_moe_held": replace(
        LLAMA,
        architecture="qwen3_moe",
        attention=replace(LLAMA.attention, query_key_norm=Norm("rms", 1e-6, bias=False)),
        norm=Norm("rms", 1e-6, bias=False),
        feedforward=FeedForward(
            20,
            "silu",
            gated=True,
            experts=Experts(
                6,
                3,
                normalize=False,
                layers=(True, False, True, True),
                intermediate_dim=12,
                router_loss=0.001,
            ),
        ),
    ),
    "qwen2_moe_held": replace(
        LLAMA,
        architecture="qwen2_moe",
        attention=Attention(4, 2, 6, query_bias=True, key_bias=True, value_bias=True),
        feedforward=FeedForward(
            20, "silu", gated=True, experts=Experts(4, 2, intermediate_dim=12, shared_dim=16, router_loss=0.001)
        ),
    ),
    "gpt_oss": GPT_OSS,
    "gpt_oss_held": replace(
        GPT_OSS,
        attention=replace(GPT_OSS.attention, windows=(None, 6, None, 6)),
        feedforward=replace(GPT_OSS.feedforward, experts=Experts(4, 2, router_bias=True), clamped_gate=ClampedGate()),
        positions=RotaryPositions(500.0, scaling=YarnScaling(8.0, 4096, truncate=False)),
    ),
}


def drawn(config: DecoderConfig) -> weights.Weights:
    """Return float32 weights that depend on their names and shapes alone, on every machine."""

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        of_name = np.random.RandomState(zlib.crc32(name.encode()))  # whose streams NumPy never changes
        noise = of_name.standard_normal(shape).astype(np.float32)
        if name.endswith(".scale"):
            return (0.2 * noise).astype(np.float32) + np.float32(config.norm.kind != "rms_plus_one")
        return noise * np.float32(0.3)

    return weights.build(config, draw)
