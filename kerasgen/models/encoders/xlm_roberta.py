"""XLM-RoBERTa: RoBERTa with a SentencePiece vocabulary of a hundred languages."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kerasgen.models.encoders import roberta

ARCHITECTURE: Final = replace(
    roberta.ARCHITECTURE, name="xlm-roberta", model_class="XLMRobertaForMaskedLM", task="XLMRobertaMaskedLM"
)
