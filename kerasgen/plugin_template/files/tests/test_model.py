"""The model source passes the tests of kerasgen's own sources."""

import pytest
from kerasgen.testing import ModelContract

from kerasgen_placeholder.model import PlaceholderModel


class TestModel(ModelContract):
    bad_arguments = ({"layers": 0}, {"width": 12}, {"seed": -1})

    @pytest.fixture
    def source(self) -> PlaceholderModel:
        return PlaceholderModel(layers=1, width=16, seed=3)
