"""Models that KerasHub has quantized: right, or refused in words of ours, wherever a pipeline takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ModelArgumentError, ModelError, TuneArgumentError
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.models.preprocessing import attach_preprocessor

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`:UserWarning"),  # Keras's, of each such layer
    pytest.mark.filterwarnings("ignore:Invalid quantization mode:UserWarning"),
]
TEXT = "the spring and the sea"


def quantized(make: Any, mode: str) -> LanguageModel:
    model: LanguageModel = make(num_layers=1)
    attach_preprocessor(model)
    model.causal_lm.quantize(mode)
    return model


def logits(causal_lm: Any, token_ids: list[int]) -> np.ndarray:
    import keras

    ids = np.asarray([token_ids], "int32")
    # As one graph: alone, each of the many small operations of a quantized layer is compiled.
    graph = keras.Model(causal_lm.inputs, causal_lm.outputs[0])
    outputs = graph.predict_on_batch({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(keras.ops.convert_to_numpy(outputs), np.float64)[0]


@pytest.fixture(scope="module")
def int8() -> LanguageModel:
    """For all tests that leave it as it is: to quantize takes longer than what most of them do."""
    return quantized(tiny_gpt2, "int8")


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        pytest.param(None, None, id="tiny_gpt2-int8"),
        pytest.param(tiny_opt, "int8", marks=pytest.mark.slow),
        pytest.param(tiny_gpt2, "int4", marks=pytest.mark.slow),
        pytest.param(tiny_gpt2, "float8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.nightly
def test_scores_are_those_of_keras_hub_s_own_pass(make: Any, mode: str, int8: LanguageModel) -> None:
    model = int8 if make is None else quantized(make, mode)
    score = kg.Pipeline(model=model.causal_lm).score([TEXT])[0]
    ids = [model.tokenizer.start_token_id, *model.tokenizer.encode(TEXT)]
    rows = logits(model.causal_lm, ids)
    expected = (
        rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(-1, keepdims=True)
    )
    found = [expected[place, token] for place, token in enumerate(ids[1:])]
    # A layer rounds its inputs too, so that a difference in the last bit may become one of a step.
    np.testing.assert_allclose(score.token_log_probabilities, found, atol=0.05)


@pytest.mark.one_backend
@pytest.mark.parametrize("mode", ["int8", pytest.param("float8", marks=pytest.mark.slow)])
def test_saved_it_comes_back_as_it_was(mode: str, int8: LanguageModel, tmp_path: Path) -> None:
    model = int8 if mode == "int8" else quantized(tiny_gpt2, mode)
    saved = kg.Pipeline(model=model.causal_lm).save(tmp_path / "poet")
    again = kg.Pipeline.load(saved).model
    ids = model.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(logits(again.causal_lm, ids), logits(model.causal_lm, ids))
    assert again.tokenizer == model.tokenizer


@pytest.mark.one_backend
def test_a_preset_that_keras_hub_has_written_is_read(tmp_path: Path) -> None:
    model = quantized(tiny_opt, "int8")
    model.causal_lm.save_to_preset(str(tmp_path / "preset"))
    again = kg.Pipeline(model=str(tmp_path / "preset")).model
    ids = model.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(logits(again.causal_lm, ids), logits(model.causal_lm, ids))


@pytest.mark.one_backend
def test_what_can_t_be_done_with_it_is_refused(int8: LanguageModel, tmp_path: Path) -> None:
    model = quantized(tiny_gpt2, "int4")
    with pytest.raises(ModelError, match=r"int4.*another model"):
        kg.Pipeline(model=model.causal_lm).save(tmp_path / "poet")
    assert not list(tmp_path.iterdir())
    exporters = (kg.TransformersExporter(), kg.GgufExporter(), kg.TFLiteExporter(), kg.SavedModelExporter())
    for exporter in (*exporters, kg.PresetExporter(), kg.LiteRtLmExporter()):
        with pytest.raises(ExportArgumentError, match=r"quantized \(int4\).*before"):
            exporter.export(model, tmp_path / f"out{''.join(exporter.suffixes[:1])}")
    with pytest.raises(ModelError, match="quantized"):
        keras_weights.decoder_of(model.causal_lm)
    from kerasgen.models.saving import save_preset
    from kerasgen.models.vocabulary import adapt
    from kerasgen.tokens.vocabulary import trim, use_of

    with pytest.raises(ModelArgumentError, match="quantized"):
        adapt(model, trim(model.tokenizer, use_of([TEXT], model.tokenizer)), record={})
    with pytest.raises(ModelArgumentError, match="float16"):
        save_preset(int8, tmp_path / "half", dtype="float16")


@pytest.mark.one_backend
def test_adapters_beside_codes_are_not_merged() -> None:
    from kerasgen.tuners import adapters

    model = quantized(tiny_gpt2, "int8")
    model.backbone.enable_lora(2)
    with pytest.raises(TuneArgumentError, match=r"quantized \(int8\)"):
        adapters.merge(model)
