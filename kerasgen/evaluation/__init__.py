"""Evaluation: how well a model predicts texts it has not seen, and what it writes."""

from __future__ import annotations

from kerasgen.evaluation.base import Evaluation, TextScore, Writing

__all__ = ["Evaluation", "TextScore", "Writing"]
