"""The tuner passes the tests of kerasgen's own tuners."""

import pytest
from kerasgen.testing import TunerContract

from kerasgen_placeholder.tuner import PlaceholderTuner


class TestTuner(TunerContract):
    bad_arguments = ({"learning_rate": -1.0},)

    @pytest.fixture
    def tuner(self) -> PlaceholderTuner:
        return PlaceholderTuner(epochs=2, batch_size=3, checkpoint_every=2, learning_rate=0.01)
