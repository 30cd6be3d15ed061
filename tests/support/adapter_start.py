"""Where the same low-rank run begins here and in peft: documents, thin matrices and settings."""

import zlib

import numpy as np

RANK, ALPHA, STEPS, LEARNING_RATE, EPSILON = 4, 8.0, 50, 0.002, 1e-7
NAMES = {
    **{"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"},
    **{"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
}
"""Roles, and what transformers calls them in a Llama."""
_drawn = np.random.RandomState(7)
DOCUMENTS = [[int(token) for token in _drawn.randint(0, 37, 12)] for _ in range(5)]


def first_matrix(layer: int, role: str, rows: int) -> np.ndarray:
    """The first thin matrix of a projection, `(rows, RANK)`; the second one is zero."""
    of_name = np.random.RandomState(zlib.crc32(f"{layer}.{role}".encode()))
    return (of_name.uniform(-1, 1, (rows, RANK)) / rows**0.5).astype(np.float32)
