"""Fills masks of texts, and writes texts, by a masked language model."""
