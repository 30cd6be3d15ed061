"""Adapters that are merged as a transformers directory is written: transformers computes what peft does with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import CONFIGS, drawn
from tiny import GPT2_END, tiny_vocabulary

import kerasgen as kg
from kerasgen import backend
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import peft_files

pytestmark = [pytest.mark.one_backend, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SIZE = 300
TOKENS = [[7, 3, 250, 299, 16, 31, 4, 100, 60, 9, 9, 2]]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"use_dora": True}),
        ("llama", {"use_dora": True, "use_rslora": True}),
        ("gpt_neox", {"use_rslora": True}),  # whose projections have biases beside what is merged
    ],
)
def test_transformers_alone_computes_what_peft_does_with_the_adapters(
    name: str, settings: dict[str, bool], tmp_path: Path
) -> None:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    import peft
    import torch
    from transformers import AutoModelForCausalLM
    from write_transformers_logits import model_of

    def logits_of(model: Any) -> Any:
        with torch.no_grad():
            return model.eval()(torch.tensor(TOKENS)).logits.numpy()

    config = replace(CONFIGS[name], vocabulary_size=SIZE)
    base = model_of(name, config=config, vocab_size=SIZE)
    plain = logits_of(base)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        base,
        peft.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, **settings),
    )
    wanted = logits_of(adapted)
    adapted.save_pretrained(str(tmp_path / "adapters"))

    backend.use()
    from kerasgen.models.container import Container

    container = Container(config)
    container.assign(drawn(config))
    vocabulary, merges = tiny_vocabulary(SIZE, last=(GPT2_END,))
    model = LanguageModel(None, kg.ByteLevelBPE(vocabulary, merges), "a test", container=container)
    peft_files.read(model, tmp_path / "adapters")
    kg.TransformersExporter().export(model, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), attn_implementation="eager")
    assert not hasattr(merged, "peft_config")
    np.testing.assert_allclose(logits_of(merged), wanted, atol=1e-4)
    assert np.abs(wanted - plain).max() > 0.1
