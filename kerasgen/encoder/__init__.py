"""Describes encoders that predict masked tokens, and computes them over any array namespace."""
