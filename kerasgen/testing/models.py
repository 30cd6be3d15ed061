"""What every model source must do: inherit `ModelContract`, say which source to test, and run pytest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasgen import backend
from kerasgen.models import REGISTRY
from kerasgen.models.base import LanguageModel, ModelSource
from kerasgen.models.resolving import resolve
from kerasgen.models.saving import save_preset
from kerasgen.testing.values import PluginContract
from kerasgen.tokens.base import Tokenizer

_LOADED: dict[ModelSource, LanguageModel] = {}


class ModelContract(PluginContract):
    """The tests that every `ModelSource` passes.

    ```python
    class TestMine(ModelContract):
        @pytest.fixture
        def source(self):
            return MySource(...)
    ```

    Attributes:
        text: what the model reads in the tests; the tokenizer must be able to encode it.
    """

    registry = REGISTRY
    text = "Spring 春 42"

    @pytest.fixture
    def source(self) -> ModelSource:
        """The source under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `source`.")

    @pytest.fixture
    def plugin(self, source: ModelSource) -> ModelSource:
        """What the tests of every kind look at."""
        return source

    @pytest.fixture
    def model(self, source: ModelSource) -> LanguageModel:
        """What the source brings, loaded once for all tests."""
        backend.use()
        if source not in _LOADED:
            _LOADED[source] = source.load()
        return _LOADED[source]

    def logits(self, model: LanguageModel, token_ids: list[int]) -> Any:
        """Float32 `(sequence_length, vocabulary_size)` of one text."""
        import keras

        ids = np.asarray([token_ids], dtype="int32")
        outputs = model.network({"token_ids": ids, "padding_mask": np.ones_like(ids)})
        return keras.ops.convert_to_numpy(outputs)[0]

    def test_resolving_a_source_returns_it(self, source: ModelSource) -> None:
        """A pipeline takes a source wherever it takes a name."""
        assert resolve(source) is source

    def test_weights_and_policy_are_float32(self, model: LanguageModel) -> None:
        """Tuners choose a precision from there."""
        weights = model.network.weights
        assert weights
        assert {str(weight.dtype) for weight in weights} == {"float32"}
        assert model.network.dtype_policy.name == "float32"

    def test_tokenizer_ids_fit_the_model(self, model: LanguageModel) -> None:
        """Every id that the tokenizer can give has a row in the model."""
        tokenizer = model.tokenizer
        assert isinstance(tokenizer, Tokenizer)
        assert 0 < tokenizer.vocabulary_size <= model.vocabulary_size
        for token_id in (tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id):
            assert token_id is None or 0 <= token_id < tokenizer.vocabulary_size
        assert all(0 <= token_id < tokenizer.vocabulary_size for token_id in tokenizer.encode(self.text))

    def test_logits_are_finite_and_depend_on_what_came_before(self, model: LanguageModel) -> None:
        """The last position sees the first, and not the other way round."""
        token_ids = [model.tokenizer.end_token_id, *model.tokenizer.encode(self.text)][:16]
        other = [*token_ids[:-1], (token_ids[-1] + 1) % model.tokenizer.vocabulary_size]
        changed = [(token_ids[0] + 1) % model.tokenizer.vocabulary_size, *token_ids[1:]]
        base = self.logits(model, token_ids)
        assert base.shape == (len(token_ids), model.vocabulary_size)
        assert np.isfinite(base).all()
        np.testing.assert_allclose(self.logits(model, other)[:-1], base[:-1], rtol=1e-4, atol=1e-4)
        assert np.abs(self.logits(model, changed)[-1] - base[-1]).max() > 1e-6

    def test_loading_twice_gives_equal_weights(self, source: ModelSource, model: LanguageModel) -> None:
        """Nothing is left at random."""
        token_ids = model.tokenizer.encode(self.text)[:8]
        again = source.load()
        np.testing.assert_array_equal(self.logits(again, token_ids), self.logits(model, token_ids))
        assert again.tokenizer.digest() == model.tokenizer.digest()

    def test_a_saved_preset_brings_the_same_model(self, model: LanguageModel, tmp_path: Path) -> None:
        """Weights and ids survive the disk."""
        directory = save_preset(model, tmp_path / "preset")
        again = resolve(directory).load()
        token_ids = model.tokenizer.encode(self.text)
        assert again.tokenizer.encode(self.text) == token_ids
        assert again.tokenizer.digest() == model.tokenizer.digest()
        np.testing.assert_array_equal(self.logits(again, token_ids[:8]), self.logits(model, token_ids[:8]))

    def test_the_text_of_the_source_can_be_resolved(self, model: LanguageModel) -> None:
        """`LanguageModel.source` says how to ask for the model again."""
        assert isinstance(resolve(model.source), ModelSource)
