"""The smallest models that can be wrong: seeded, untrained, and loud enough that greedy text does not stand still."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, TypedDict, Unpack
from unittest.mock import patch

import numpy as np

from kerasgen import ByteLevelBPE, LanguageModel, backend

GPT2_END = "<|endoftext|>"
OPT_END = "</s>"
OPT_PAD = "<pad>"

# Byte-level symbols as GPT-2 writes them: Ġ is a space, Ċ a line feed; æĺ and ä½ begin many Chinese characters.
_PAIRS = (
    "t h", "Ġ t", "Ġt he", "h e", "i n", "a n", "Ġ a", "e r", "o n", "r e", "Ġ s", "Ġ w", "Ġa nd", "o u", "i ng",
    "Ġ b", "e n", "Ġt h", "Ġth e", "a t", "o r", "an d", "l l", "Ġ m", "Ġ h", "Ġ f", "e d", "Ċ Ċ", "Ġ Ġ", "Ġ the",
    "æ ĺ", "æĺ ¥", "ä ¸", "æ Ĺ", "ï ¼", "ï¼ Į", "ã Ģ", "ãĢ Ĥ", "è Ĭ", "èĬ ±", "é £", "å ±", "æ °", "ä º", "å ¤",
)  # fmt: skip


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for the bytes 0 to 255 in a byte-level vocabulary, in GPT-2's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(rest))]


def tiny_vocabulary(
    vocabulary_size: int, *, first: tuple[str, ...] = (), last: tuple[str, ...] = (GPT2_END,)
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary of exactly this size, and its merges: `first`, 256 bytes, merged pairs, `last`."""
    tokens = [*first, *byte_symbols()]
    room = vocabulary_size - len(tokens) - len(last)
    if not 0 <= room <= 700:
        raise ValueError(f"vocabulary_size must be between {vocabulary_size - room} and {vocabulary_size - room + 700}")
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    letters = "abcdefghijklmnopqrstuvwxyz"
    candidates = itertools.chain(
        (tuple(pair.split(" ")) for pair in _PAIRS), ((a, b) for a in letters for b in letters)
    )
    for left, right in candidates:
        if len(merges) == room:
            break
        if left in known and right in known and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges.append((left, right))
    tokens += last
    return {token: token_id for token_id, token in enumerate(tokens)}, merges


class Sizes(TypedDict, total=False):
    """What of a tiny model can be otherwise."""

    num_layers: int
    hidden_dim: int
    num_heads: int
    max_sequence_length: int
    dropout: float
    intermediate_dim: int
    tie_word_embeddings: bool
    rope_frequency_adjustment_factor: float
    rope_low_freq_factor: float
    rope_high_freq_factor: float
    rope_pretraining_sequence_length: int


def tiny_gpt2(vocabulary_size: int = 300, seed: int = 0, **sizes: Unpack[Sizes]) -> LanguageModel:
    """A GPT-2 of about 30,000 weights with a byte-level tokenizer; the same weights for the same seed."""
    vocabulary, merges = tiny_vocabulary(vocabulary_size)
    tokenizer = ByteLevelBPE(vocabulary, merges, start_token=GPT2_END, end_token=GPT2_END, pad_token=GPT2_END)
    return _tiny("GPT2", tokenizer, vocabulary_size, seed, sizes)


def tiny_opt(vocabulary_size: int = 300, seed: int = 0, **sizes: Unpack[Sizes]) -> LanguageModel:
    """An OPT of about 30,000 weights with a byte-level tokenizer whose ids begin `<s> <pad> </s>`, as OPT's do."""
    vocabulary, merges = tiny_vocabulary(vocabulary_size, first=("<s>", OPT_PAD, OPT_END), last=())
    tokenizer = ByteLevelBPE(vocabulary, merges, start_token=OPT_END, end_token=OPT_END, pad_token=OPT_PAD)
    return _tiny("OPT", tokenizer, vocabulary_size, seed, sizes)


def tiny_llama(vocabulary_size: int = 300, seed: int = 0, **sizes: Unpack[Sizes]) -> LanguageModel:
    """A Llama of about 30,000 weights, two query heads to a key, with GPT-2's kind of tokenizer."""
    vocabulary, merges = tiny_vocabulary(vocabulary_size)
    tokenizer = ByteLevelBPE(vocabulary, merges, start_token=GPT2_END, end_token=GPT2_END, pad_token=GPT2_END)
    return _tiny("Llama", tokenizer, vocabulary_size, seed, sizes)


def _tiny(family: str, tokenizer: ByteLevelBPE, vocabulary_size: int, seed: int, sizes: Sizes) -> LanguageModel:
    backend.use()
    import keras_hub

    chosen = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "max_sequence_length": 128, "dropout": 0.0} | sizes
    chosen.setdefault("intermediate_dim", 2 * chosen["hidden_dim"])
    if family == "Llama":  # which has no limit of positions
        heads = chosen.pop("num_heads")
        chosen |= {"num_query_heads": 2 * heads, "num_key_value_heads": heads}
        chosen.pop("max_sequence_length")
    kind = getattr(keras_hub.models, f"{family}Backbone")
    with undrawn():
        backbone = kind(vocabulary_size=vocabulary_size, dtype="float32", **chosen)
    roughen(backbone, seed)
    causal_lm = getattr(keras_hub.models, f"{family}CausalLM")(backbone=backbone, preprocessor=None)
    source = f"tiny_{family.lower()} of seed {seed}"
    return LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source=source)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Let Keras begin with zeros where it would draw a weight, for models that `roughen` gives all their weights.

    JAX compiles each draw of each shape, a third of a second of the processor.
    """
    from keras import initializers

    def zeros(_: object, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return np.zeros(shape, dtype or "float32")

    with contextlib.ExitStack() as stack:
        for kind in (initializers.RandomNormal, initializers.TruncatedNormal, initializers.VarianceScaling):
            stack.enter_context(patch.object(kind, "__call__", zeros))
        yield


def roughen(backbone: Any, seed: int) -> None:
    """Give every weight of a model a seeded value, large enough that the next token depends on all before it."""
    rng = np.random.default_rng(seed)
    for variable in backbone.weights:
        noise = rng.standard_normal(variable.shape).astype("float32")
        if variable.path.endswith(("gamma", "scale")):
            noise = 1.0 + 0.1 * noise
        elif "position_embedding" in variable.path:
            noise *= 0.5
        elif variable.path.endswith("embeddings"):
            noise *= 0.3
        elif len(variable.shape) == 1 or variable.path.endswith("bias"):
            noise *= 0.1
        else:
            noise *= 0.5
        variable.assign(noise)
