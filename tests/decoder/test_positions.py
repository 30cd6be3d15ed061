"""Angles of rotary positions where a graph alone knows how long a text is."""

import numpy as np
import pytest

from kerasgen.decoder.config import RotaryPositions
from kerasgen.decoder.numpy import XP
from kerasgen.decoder.positions import angles, frequencies, text_angles
from kerasgen.decoder.rotary_scaling import DynamicScaling, LinearScaling, LongRopeScaling

pytestmark = pytest.mark.one_backend

LONG = LongRopeScaling((1.0, 1.5, 2.0, 3.0), (2.0, 4.0, 6.0, 8.0), 10, attention_factor=1.2)


@pytest.mark.parametrize("scaling", [None, LinearScaling(4.0), DynamicScaling(2.0, 10), LONG])
@pytest.mark.parametrize("axis", [0, -1])
def test_each_text_of_a_batch_has_the_angles_of_its_own_length(scaling, axis):
    rotary = RotaryPositions(base=100.0, scaling=scaling)
    lengths = np.array([[7], [10], [11], [25]], np.int32)
    places = np.minimum(np.arange(25), lengths - 1).astype(np.float32)
    found = text_angles(XP, rotary, 8, places, lengths, axis=axis)
    for row, length in enumerate(lengths[:, 0]):
        wanted = angles(XP, places[row], frequencies(rotary, 8, int(length)), axis=axis)
        for got, of_one in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got.take(row, axis=1 if axis == 0 else 0), of_one, atol=1e-5)
