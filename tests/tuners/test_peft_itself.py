"""transformers with peft computes what the model with its adapters computes, whichever of them wrote the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import CONFIGS, TOKENS, drawn
from letters import LetterTokenizer

from kerasgen import backend
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import adapters, peft_files
from kerasgen.tuners.adapters import AdapterConfig

pytestmark = [pytest.mark.one_backend, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def ours(name: str) -> LanguageModel:
    backend.use()
    from kerasgen.models.container import Container

    container = Container(CONFIGS[name])
    container.assign(drawn(CONFIGS[name]))
    return LanguageModel(None, LetterTokenizer(), "a test", container=container)


def logits(model: LanguageModel) -> Any:
    ids = np.array([TOKENS], np.int32)
    return np.asarray(model.network({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


def theirs(name: str) -> Any:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    from write_transformers_logits import model_of

    return model_of(name)


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits.numpy()


@pytest.mark.parametrize(
    ("name", "settings", "targets"),
    [
        ("llama", {"rank_stabilized": True}, ["q_proj", "v_proj", "down_proj"]),
        ("gpt2", {"use_dora": True}, ["c_attn", "attn.c_proj"]),
        ("phi3", {}, ["qkv_proj", "gate_up_proj"]),
        ("gpt_neox", {"use_dora": True}, ["query_key_value", "dense_4h_to_h"]),
    ],
)
def test_logits_are_the_same_from_the_file_of_either(
    name: str, settings: dict[str, Any], targets: list[str], tmp_path: Path
) -> None:
    base = theirs(name)
    import peft
    import torch

    model = ours(name)
    adapters.enable(model, AdapterConfig(3, 6.0, ("all",), **settings), seed=0)
    rng = np.random.default_rng(0)
    for layer in adapters.carrying(model):
        layer.lora_kernel_b.assign(0.2 * rng.standard_normal(layer.lora_kernel_b.shape))
        if layer.lora_magnitude is not None:
            layer.lora_magnitude.assign(np.asarray(layer.lora_magnitude) * rng.uniform(0.5, 1.5))
    peft_files.write(model, tmp_path / "ours")
    found = logits_of(peft.PeftModel.from_pretrained(base, str(tmp_path / "ours")).eval())
    np.testing.assert_allclose(found, logits(model), atol=1e-4)
    assert np.abs(found - logits(ours(name))).max() > 0.1

    config = peft.LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=targets,
        use_rslora=settings.get("rank_stabilized", False),
        use_dora=settings.get("use_dora", False),
        init_lora_weights=False,  # both matrices drawn
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(theirs(name), config).eval()
    adapted.save_pretrained(str(tmp_path / "theirs"))
    again = ours(name)
    peft_files.read(again, tmp_path / "theirs")
    np.testing.assert_allclose(logits(again), logits_of(adapted), atol=1e-4)
    adapters.merge(again)
    np.testing.assert_allclose(logits(again), logits_of(adapted), atol=1e-4)
