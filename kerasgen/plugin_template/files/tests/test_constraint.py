"""The constraint passes the tests of kerasgen's own constraints."""

import pytest
from kerasgen.testing import ConstraintContract

from kerasgen_placeholder.constraint import PlaceholderConstraint


class TestConstraint(ConstraintContract):
    bad_arguments = ({"digits": 0},)
    texts = ("1024", "9999")
    foreign = ("", "0123", "12", "12345", "12a4")

    @pytest.fixture
    def constraint(self) -> PlaceholderConstraint:
        return PlaceholderConstraint(digits=4)
