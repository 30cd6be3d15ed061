"""Another vocabulary changes the rows of the tables that tokens have, and nothing else, in every architecture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from described import CONFIGS, drawn
from tiny import GPT2_END, tiny_vocabulary

from kerasgen import backend
from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.models import architectures
from kerasgen.models.architectures import tensors
from kerasgen.models.base import LanguageModel
from kerasgen.models.described import config_of, weights_of
from kerasgen.models.vocabulary import adapt, can_adapt
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.vocabulary import extend

pytestmark = pytest.mark.one_backend

AT_ONCE = ("gpt2", "gemma2_held", "gpt_neox_held", "qwen3_held", "olmo2", "starcoder2")
DESCRIBED = [name for name, config in CONFIGS.items() if architectures.named(config.architecture) is not None]
NAMES = [pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.slow) for name in DESCRIBED]
TABLES = ("embedding.tokens", "head.kernel", "head.bias")


def built(config: DecoderConfig) -> LanguageModel:
    """The model of a description over GPT-2's kind of tokenizer: KerasHub's, or a container."""
    backend.use()
    from kerasgen.models import networks

    architecture = architectures.named(config.architecture)
    assert architecture is not None
    held = tensors.write(architecture, config, drawn(config), "transformers")
    network = networks.build(architecture, config, lambda name, shape: held[name], "transformers")
    tokenizer = ByteLevelBPE(*tiny_vocabulary(config.vocabulary_size), end_token=GPT2_END)
    reason = architecture.hub_reason(config)
    return LanguageModel(
        None if reason else network, tokenizer, "built", container=network if reason else None, hub_reason=reason
    )


@pytest.mark.parametrize("name", NAMES)
def test_only_rows_of_tokens_change(name: str) -> None:
    model = built(replace(CONFIGS[name], vocabulary_size=300))
    before, config = decoder_weights.flat(weights_of(model)), config_of(model)
    assert can_adapt(model)
    assert config is not None
    adapted = extend(model.tokenizer, lambda: ["春眠不覺曉" for _ in range(9)])
    adapt(model, adapted, record={})
    size = adapted.tokenizer.vocabulary_size
    assert size != 300
    assert config_of(model) == replace(config, vocabulary_size=size)
    assert model.vocabulary_size == size
    after = decoder_weights.flat(weights_of(model))
    assert after.keys() == before.keys()
    for key, weight in after.items():
        if key not in TABLES:
            np.testing.assert_array_equal(weight, before[key], err_msg=key)
            continue
        rows, old = (weight.T, before[key].T) if key == "head.kernel" else (weight, before[key])
        expected = np.stack([old[list(ids)].mean(axis=0) for ids in adapted.sources])
        np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-7)
