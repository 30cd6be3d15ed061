"""Evaluation: how well a model predicts texts it has not seen."""

from __future__ import annotations

from kerasgen.evaluation.base import Evaluation

__all__ = ["Evaluation"]
