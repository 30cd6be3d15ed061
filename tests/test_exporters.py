"""What an exporter hands over computes what the model does."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.models.base import LanguageModel
from kerasgen.testing.exporters import ExporterContract


class TestPreset(ExporterContract):
    file_name = "preset"

    @pytest.fixture(params=["float32", "float16"])
    def exporter(self, request: pytest.FixtureRequest) -> kg.PresetExporter:
        return kg.PresetExporter(dtype=request.param)

    @pytest.fixture
    def model(self) -> LanguageModel:
        return tiny_gpt2()


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_kerashub_alone_reads_what_the_preset_exporter_wrote(make, tmp_path):
    """No line of kerasgen is needed to load it, and its logits are the model's own."""
    model = make()
    path = kg.PresetExporter().export(model, tmp_path / "preset").path
    import keras_hub

    loaded = keras_hub.models.CausalLM.from_preset(str(path), preprocessor=None)
    inputs = {"token_ids": np.asarray([[5, 6, 7, 8]]), "padding_mask": np.ones((1, 4), "int32")}
    np.testing.assert_allclose(np.asarray(loaded(inputs)), np.asarray(model.causal_lm(inputs)), atol=1e-5)


def test_a_model_that_does_not_load_back_equal_is_not_handed_over(tmp_path, monkeypatch):
    """A weight that changes between writing and loading is found, the figures are told, and no file is left."""
    model = tiny_gpt2()
    from kerasgen.models.hub import Hub

    load = Hub.load

    def load_damaged(source):
        loaded = load(source)
        embeddings = loaded.backbone.token_embedding.embeddings
        embeddings.assign(np.asarray(embeddings) * 1.5)
        return loaded

    monkeypatch.setattr(Hub, "load", load_damaged)
    with pytest.raises(kg.errors.ExportError) as caught:
        kg.PresetExporter().export(model, tmp_path / "preset")
    assert caught.value.figures["difference_in_nats_per_token"] > 1e-4
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_dtype_is_said_at_once():
    with pytest.raises(kg.errors.ExportArgumentError, match="float8"):
        kg.PresetExporter(dtype="float8")
