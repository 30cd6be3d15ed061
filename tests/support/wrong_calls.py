"""Arguments of `generate_ids` that the runtime of every artefact refuses."""

from __future__ import annotations

from typing import Any

WRONG: list[dict[str, Any]] = [
    {"seed": -1},
    {"seed": 2**64},
    {"seed": "a"},
    {"end_token_id": "x"},
    {"end_token_id": -2},
    {"max_new_tokens": 2.5},
    {"max_new_tokens": True},
    {"max_new_tokens": 0},
    {"prompts": [[5.0]]},
    {"prompts": [[-1]]},
    {"prompts": [[300]]},
    {"prompts": ["the"]},
    {"prompts": [[5] * 200]},
]
