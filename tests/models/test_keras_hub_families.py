"""Each causal language model of KerasHub: which path it takes, and that KerasHub's own path says what it computes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from letters import LetterTokenizer
from tiny import undrawn

from kerasgen import backend
from kerasgen.errors import ModelArgumentError
from kerasgen.models import architectures
from kerasgen.models.base import LanguageModel
from kerasgen.models.live import Live
from kerasgen.tokens.encoding import EncodedDocuments

pytestmark = pytest.mark.one_backend

IDS = LetterTokenizer().vocabulary_size
QWEN3_5: dict[str, Any] = {
    **{"vocabulary_size": IDS, "num_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    **{"num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    **{"hidden_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
EXPERTS = {"moe_intermediate_dim": 12, "shared_expert_intermediate_size": 12, "num_experts": 4, "top_k": 2}
# Whose layers no description says: their cache is a state, and KerasHub's own cached texts of the Qwens are wrong.
BY_KERAS: dict[str, dict[str, Any]] = {
    "RWKV7": {
        **{"hidden_size": 16, "head_size": 8, "num_layers": 1, "vocabulary_size": IDS, "intermediate_dim": 24},
        **{"gate_lora": 8, "mv_lora": 8, "aaa_lora": 8, "decay_lora": 8},
    },
    "Qwen3_5": QWEN3_5 | {"intermediate_dim": 24},
    "Qwen3_5Moe": QWEN3_5 | EXPERTS,
}
MARKS = {"Qwen3_5": pytest.mark.slow, "Qwen3_5Moe": pytest.mark.nightly, "RWKV7": pytest.mark.nightly}
# They read images, sounds or places besides, and are refused by name.
OF_MORE_THAN_TEXT = {"BLIP2", "Gemma3n", "Gemma4", "Gemma4Assistant", "PARSeq", "PaliGemma"}


def family_names() -> list[str]:
    """Of every class that continues a text; those that translate one, or write down a sound, have two inputs."""
    backend.use()
    import keras_hub

    models = {name: getattr(keras_hub.models, name) for name in dir(keras_hub.models) if name.endswith("CausalLM")}
    return [
        name.removesuffix("CausalLM")
        for name, kind in models.items()
        if inspect.isclass(kind) and kind is not keras_hub.models.CausalLM
    ]


def test_each_class_of_keras_hub_has_its_path() -> None:
    """A class that comes with another version of KerasHub is told here."""
    import keras_hub

    for name in family_names():
        kind = getattr(keras_hub.models, f"{name}CausalLM").backbone_cls.__name__
        described = architectures.of_backbone(kind) is not None
        assert described + (name in BY_KERAS) + (name in OF_MORE_THAN_TEXT) == 1, name


def made(name: str) -> LanguageModel:
    """A tiny one all of whose weights are drawn."""
    backend.use()
    import keras_hub

    with undrawn():
        backbone = getattr(keras_hub.models, f"{name}Backbone")(**BY_KERAS[name], dtype="float32")
    rng = np.random.default_rng(1)
    for variable in backbone.trainable_variables:
        variable.assign(rng.normal(0.0, 0.3, variable.shape) + float("scale" in variable.path))
    causal_lm = getattr(keras_hub.models, f"{name}CausalLM")(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm, LetterTokenizer(), f"a test's {name}")


@pytest.mark.numerical
@pytest.mark.filterwarnings("ignore:The 'rwkv_ops' package is not installed")
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in BY_KERAS])
def test_what_stays_with_keras_says_what_the_whole_pass_over_each_text_alone_says(name: str) -> None:
    from kerasgen.generation import generate_ids
    from kerasgen.generation.engine_registry import resolve
    from kerasgen.models.forward import can_pack
    from kerasgen.models.scoring import token_nll

    model = made(name)
    tokenizer = model.tokenizer
    assert resolve(model).name == "keras"
    assert not can_pack(model)

    def logits(ids: list[int]) -> np.ndarray:
        given = np.asarray([ids], "int32")
        found = model.causal_lm({"token_ids": given, "padding_mask": np.ones_like(given)})
        return np.asarray(found)[0, :, :IDS].astype(np.float64)

    given = [tokenizer.encode(text) for text in ("abc", "dcbaab")]
    prompts = [[tokenizer.start_token_id, *ids] for ids in given]
    written = generate_ids(model, given, sampler="greedy", max_new_tokens=4)
    texts = [[*prompt, *found.token_ids] for prompt, (found, *_) in zip(prompts, written, strict=True)]
    sizes = [len(text) for text in texts]
    encoded = EncodedDocuments(
        np.concatenate(texts).astype("int32"), np.cumsum([0, *sizes]), np.array(sizes, dtype=np.int64)
    )
    costs = token_nll(model, encoded, sequence_length=16, batch_size=2)
    at = 0
    for text, prompt in zip(texts, prompts, strict=True):
        rows = logits(text[:-1])
        assert text[len(prompt) :] == rows.argmax(-1).tolist()[len(prompt) - 1 :]
        wanted = np.log(np.exp(rows).sum(-1)) - rows[np.arange(len(rows)), text[1:]]
        np.testing.assert_allclose(costs[at + 1 : at + len(text)], wanted, atol=1e-4)
        at += len(text)


@pytest.mark.parametrize("name", ["Gemma4"])
def test_a_model_that_reads_more_than_a_text_is_refused(name: str) -> None:
    backend.use()
    import keras_hub

    sizes = {"num_layers": 1, "num_query_heads": 2, "num_key_value_heads": 1, "hidden_dim": 8, "intermediate_dim": 8}
    with undrawn():
        backbone = keras_hub.models.Gemma4Backbone(vocabulary_size=IDS, image_size=16, head_dim=4, **sizes)
    with pytest.raises(ModelArgumentError, match=r"reads more than one text .*position_ids"):
        Live(keras_hub.models.Gemma4CausalLM(backbone=backbone, preprocessor=None))
