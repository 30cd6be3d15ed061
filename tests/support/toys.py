"""What the tests of packing, scoring and tuning share: toy texts, toy ids, a family without packing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tiny import roughen, tiny_gpt2, tiny_llama, undrawn

from kerasgen import backend
from kerasgen.corpora.base import Document
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents

WORDS = ("the cat", "sat on", "a mat", "in the rain", "and", "then", "he ran", "home")


def texts(count: int, seed: int = 0, *, words: Sequence[str] = WORDS) -> list[str]:
    """Short texts of one to six words each: few words, so a model learns them in a dozen steps."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=rng.integers(1, 7))) for _ in range(count)]


def encode(tokenizer: Tokenizer, written: Iterable[str]) -> EncodedDocuments:
    """The ids of these texts."""
    return encode_documents((Document(text=text, id=str(n)) for n, text in enumerate(written)), tokenizer)


def documents_of(ids: Sequence[Sequence[int]]) -> EncodedDocuments:
    """Documents that are these ids; each pretends to be one character an id."""
    flat = np.concatenate([np.asarray(document, np.int32) for document in ids]) if ids else np.zeros(0, np.int32)
    lengths = np.asarray([len(document) for document in ids], np.int64)
    return EncodedDocuments(
        token_ids=flat.astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        characters=lengths,
    )


def smallest_gpt2(seed: int = 0, *, dropout: float = 0.0) -> LanguageModel:
    """A GPT-2 of one layer: what a test of training takes, where each compilation counts."""
    return tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=32, seed=seed, dropout=dropout)


def smallest_llama(seed: int = 0) -> LanguageModel:
    """A Llama of one layer: a family that KerasHub's own `call_with_cache` decodes."""
    return tiny_llama(num_layers=1, hidden_dim=16, seed=seed)


def tiny_gemma(vocabulary_size: int = 300) -> LanguageModel:
    """A Gemma on the tokenizer of `tiny_gpt2` that no table describes: norms stand behind feed-forward parts alone."""
    backend.use()
    import keras_hub

    with undrawn():
        backbone = keras_hub.models.GemmaBackbone(
            vocabulary_size=vocabulary_size, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=16,
            intermediate_dim=32, head_dim=8, use_post_ffw_norm=True, dtype="float32",
        )  # fmt: skip
    roughen(backbone, 1)
    causal_lm = keras_hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm, tiny_gpt2().tokenizer, "tiny gemma")


def tiny_qwen() -> LanguageModel:
    """A Qwen on the tokenizer of `tiny_gpt2` that no table describes: a norm of it was changed."""
    backend.use()
    import keras_hub

    with undrawn():
        backbone = keras_hub.models.QwenBackbone(
            vocabulary_size=300, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=16,
            intermediate_dim=32, dtype="float32",
        )  # fmt: skip
    backbone.transformer_layers[0]._self_attention_layernorm.epsilon = 1e-3
    roughen(backbone, 1)
    causal_lm = keras_hub.models.QwenCausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm, tiny_gpt2().tokenizer, "tiny qwen")


def by_keras_hub(model: LanguageModel, prompt: str, length: int) -> list[int]:
    """The new ids of KerasHub's own `generate`, up to the end token."""
    tokenizer = model.tokenizer
    given = [tokenizer.start_token_id, *tokenizer.encode(prompt)]
    token_ids = np.zeros((1, length), dtype="int32")  # KerasHub's GPT-2 pads with 0
    token_ids[0, : len(given)] = given
    mask = np.arange(length)[None] < len(given)
    inputs = {"token_ids": token_ids, "padding_mask": mask}
    found = model.causal_lm.generate(inputs, stop_token_ids=(tokenizer.end_token_id,))["token_ids"]
    new = np.asarray(found)[0, len(given) :].tolist()
    return new[: new.index(tokenizer.end_token_id) + 1] if tokenizer.end_token_id in new else new


def float16_can_be_had() -> bool:
    """Whether the backend, where it runs, can compute attention in float16."""
    backend.use()
    import keras

    if keras.config.backend() != "jax":
        return True
    import jax

    return bool(jax.default_backend() == "gpu")


def logits(model: LanguageModel, token_ids: Sequence[int]) -> Any:
    """KerasHub's own logits of one text without padding, float64 `(sequence_length, vocabulary_size)`."""
    ids = np.asarray([token_ids], np.int32)
    outputs = model.causal_lm.predict_on_batch({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(outputs)[0].astype(np.float64)


def nats_by_hand(model: LanguageModel, token_ids: Sequence[int]) -> Any:
    """-log p of each token but the first, float64 `(tokens - 1,)`, in NumPy from KerasHub's own logits."""
    rows = logits(model, token_ids[:-1])
    rows = rows - rows.max(axis=-1, keepdims=True)
    log_p = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return -log_p[np.arange(len(rows)), np.asarray(token_ids[1:])]


def weights_of(model: LanguageModel) -> list[Any]:
    """Copies of every weight, in the model's order."""
    return [np.array(variable) for variable in model.causal_lm.weights]
