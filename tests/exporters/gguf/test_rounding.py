"""What a type makes of a tensor is what the package `gguf`, which writes the files, makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from kerasgen.exporters.gguf import rounding
from kerasgen.exporters.gguf.dtypes import DTYPES, kind_of

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize("kind", DTYPES)
def test_a_tensor_is_rounded_as_the_file_has_it(kind: str) -> None:
    rng = np.random.default_rng(0)
    tensor = rng.standard_normal((64, 96), dtype=np.float32) * rng.choice([1e-3, 1.0, 30.0], (64, 1)).astype(np.float32)
    tensor[0] = 0
    tensor[1, :4] = -8, 8, 7.5, -7.5  # two that are as far, and what lies between two steps
    # Weights that came out of few bits lie on the edges between two steps.
    tensor[32:] = rng.integers(-15, 16, (32, 96)) * rng.choice([0.0625, 0.0371, 0.0123], (32, 1)).astype(np.float32)
    number = gguf.GGMLQuantizationType[kind]
    wanted = gguf.quants.dequantize(gguf.quants.quantize(tensor, number), number)
    found = rounding.rounded(tensor, kind)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


def test_what_few_bits_would_spoil_keeps_more() -> None:
    assert kind_of("blk.0.attn_q.weight", 2, "Q4_0") == "Q4_0"
    assert kind_of("token_embd.weight", 2, "Q4_0") == kind_of("output.weight", 2, "Q5_0") == "Q8_0"
    assert kind_of("token_embd.weight", 2, "BF16") == "BF16"
    assert kind_of("blk.0.attn_norm.weight", 1, "Q4_0") == kind_of("position_embd.weight", 2, "F16") == "F32"
