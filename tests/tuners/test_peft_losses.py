"""Adapters learn what peft's learn from the same start: fifty losses, within one in a hundred.

`tests/support/write_peft_losses.py` wrote peft's.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from adapter_start import ALPHA, DOCUMENTS, LEARNING_RATE, NAMES, RANK, STEPS, first_matrix
from described import CONFIGS, drawn
from letters import LetterTokenizer
from toys import documents_of

from kerasgen import LoraTuner
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import adapters
from kerasgen.tuners.adapters import AdapterConfig
from kerasgen.tuners.base import TuneJob

pytestmark = pytest.mark.one_backend

RECORDED = json.loads((Path(__file__).parent / "peft_losses.json").read_text(encoding="utf-8"))
RUNS = {
    "attention": ("attention", {}),
    "all": ("all", {}),
    "all_rslora": ("all", {"rank_stabilized": True}),
    "all_dora": ("all", {"use_dora": True}),
}


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("attention", "all")), "all_rslora", "all_dora"]
)
def test_losses_are_those_of_peft(name: str, tmp_path: Path) -> None:
    from kerasgen import backend

    backend.use()
    from kerasgen.models.container import Container

    target, form = RUNS[name]
    container = Container(CONFIGS["llama"])
    container.assign(drawn(CONFIGS["llama"]))
    model = LanguageModel(None, LetterTokenizer(), "a test", container=container)
    adapters.enable(model, AdapterConfig(RANK, ALPHA, (target,), **form), seed=0)
    for index, parts in enumerate(container.decoder.parts["layers"]):
        for role in NAMES:
            if parts[role].lora_enabled:
                parts[role].lora_kernel_a.assign(first_matrix(index, role, parts[role].lora_kernel_a.shape[0]))
    tuner = LoraTuner(
        rank=RANK,
        alpha=ALPHA,
        targets=(target,),
        **form,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        clip_norm=None,
        batch_size=1,
        sequence_length=60,
        epochs=STEPS,
        precision="float32",
        vocabulary="keep",
    )
    report = tuner.tune_job(TuneJob(model, documents_of(DOCUMENTS), seed=0, directory=tmp_path, verbose=0))
    assert report.steps == STEPS
    np.testing.assert_allclose(report.losses, RECORDED[name], rtol=1e-2)
    assert report.losses[-1] < 0.8 * report.losses[0]
