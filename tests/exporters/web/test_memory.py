"""A page's model fits into a browser: fewer signatures for a large one, and an error for one that never fits."""

from __future__ import annotations

import pytest

from kerasgen.errors import ExportArgumentError, ExportError
from kerasgen.exporters.web import checking
from kerasgen.exporters.web.memory import signature_lengths

SMOLLM2, GPT2 = 134_515_008, 124_439_808


@pytest.mark.parametrize("quantize", ["float32", "float16"])
@pytest.mark.parametrize("weights", [SMOLLM2, GPT2])
def test_a_model_of_half_a_gigabyte_has_few_signatures(weights: int, quantize: str) -> None:
    """With five, LiteRT.js ended with an error at 3.3 GB."""
    assert signature_lengths(weights, quantize, 5) == {"prefill_lengths": (32,), "decode_lengths": ()}


@pytest.mark.parametrize(("weights", "quantize"), [(5_322_240, "float32"), (SMOLLM2, "int8"), (SMOLLM2, "int4")])
def test_a_smaller_file_keeps_the_usual_ones(weights: int, quantize: str) -> None:
    assert signature_lengths(weights, quantize, 5) == {}


def test_a_model_that_fits_by_smaller_weights_alone_is_told_so() -> None:
    with pytest.raises(ExportArgumentError, match="quantize='int8'"):
        signature_lengths(500_000_000, "float32", 5)


def test_a_model_that_never_fits_is_told_to_be_served() -> None:
    with pytest.raises(ExportArgumentError, match="kerasgen serve"):
        signature_lengths(3_000_000_000, "int4", 5)


def test_logits_by_weights_in_8_bits_are_compared_within_a_bound() -> None:
    """SmolLM2 has another token here and there, after which a whole text differs: 1 of 6 was equal to its end."""
    figures = {"texts": 6, "equal_texts": 1, "logits_error": 0.49, "mean_logits_error": 0.12, "wrong_choices": []}
    checking.require_close(figures)
    with pytest.raises(ExportError, match="1 of 6 texts are equal"):
        checking._require_equal(figures, "generate other ids")
    for wrong in ({"logits_error": 0.8}, {"mean_logits_error": 0.3}, {"mean_logits_error": float("nan")}):
        with pytest.raises(ExportError, match=r"where 0\.25 is allowed, and by up to 0\.\d+, where 0\.75 is"):
            checking.require_close(figures | wrong)
    with pytest.raises(ExportError, match=r"other ids from its logits than kerasgen's: 7 instead of 9\."):
        checking.require_close(figures | {"wrong_choices": ["7 instead of 9"]})


def test_texts_of_litert_lm_by_weights_in_8_bits_are_compared_at_their_beginnings() -> None:
    checking._require_beginnings({"texts": 6, "equal_beginnings": 5})
    with pytest.raises(ExportError, match="2 of 6 texts begin alike"):
        checking._require_beginnings({"texts": 6, "equal_beginnings": 2})
