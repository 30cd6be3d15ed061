"""A Llama whose output layer is the embedding table comes back from its files: KerasHub's own config omits the tie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_llama

from kerasgen.models.loading import load_directory
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend


def test_a_tied_llama_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = tiny_llama(num_layers=1, tie_word_embeddings=True)
    assert "tie_word_embeddings" not in model.backbone.get_config()
    again = load_directory(save_preset(model, tmp_path / "tied"), source="a test")
    assert again.backbone.tie_word_embeddings is True
    assert again.backbone.count_params() == model.backbone.count_params()
    for variable, before in zip(again.network.weights, model.network.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), np.asarray(before))
