"""Reports of runs that nobody ran, for the tests of pages: every part that a page can show, with figures of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import kerasgen as kg
from kerasgen.evaluation.base import Evaluation, TextScore, TokenChoice, Writing, WrittenText
from kerasgen.tuners.base import TextSample, TuneReport, Validation


def run(**settings: Any) -> TuneReport:
    """A run of 40 steps on a Chinese corpus, with other values for what is named."""
    losses = tuple(5.4 - 0.03 * n + 0.2 * math.sin(n) for n in range(40))
    values: dict[str, Any] = {
        "steps": 40,
        "epochs": 1.25,
        "losses": losses,
        "validations": (
            Validation(0, 5.61234, 6.187654, 12, 900, 0.0512),
            Validation(20, 5.01234, 5.712345, 12, 900, 0.0498),
            Validation(40, 4.81234, 5.498765, 12, 900, 0.0487),
        ),
        "samples": (TextSample(20, "春江水暖鴨先知。"), TextSample(40, "明月照高樓，\n流光正徘徊。")),
        "tokens": 81_920,
        "characters": 70_123,
        "seconds": 83.4,
        "fill": 0.981,
        "split_documents": 0,
        "documents": 940,
        "sequence_length": 128,
        "packing": "best_fit",
        "parameters": 4_932_096,
        "trainable_parameters": 4_932_096,
        "backend": "jax",
        "precision": "float32",
        "seed": 7,
        "stopped": "max_steps",
        "accuracies": tuple(0.1 + 0.002 * n for n in range(40)),
        "reasons": {"sequence_length": "it holds 99 % of the documents whole"},
        "corpus": {
            "read": 1_003,
            "kept": 1_000,
            "characters": 51_234,
            "dropped": {"empty": 2, "no UTF-8": 1},
            "changed": {},
            "lengths": {
                "first": 20,
                "width": 8,
                "train": [500, 0, 240, 200],
                "held_out": [30, 0, 20, 10],
                "shortest": 20,
                "median": 27.5,
                "mean": 34.25,
                "longest": 140,
                "tokens": 30.5,
            },
            "characters_in_use": {"sampled": 40_000, "different": 3_210, "common": [["不", 0.0123], ["人", 0.0101]]},
        },
        "batch_size": 16,
        "held_out_documents": 60,
        "model": "starter",
        "machine": {"processor": "A processor", "cores": 2, "devices": ["cpu"], "packages": {"keras": "3.15.1"}},
        "settings": {"corpus": "chinese_poetry:dynasty=tang", "model": "starter", "tuner": "full", "sampler": "top_k"},
    }
    return TuneReport(**values | settings)


def evaluation(**settings: Any) -> Evaluation:
    """An evaluation with two written texts, of which one copies a line."""
    written = (
        WrittenText("白日依山盡，何處不相逢。", "", "白日依山盡，", 41, "題。", "黃河入海流。"),
        WrittenText("無人知此意。", "江", "人知", 7, "有", "我"),
    )
    writing = Writing(
        2,
        18,
        0.912345,
        0.987654,
        1.0,
        3.14159,
        6,
        "白日依山盡，",
        4.0,
        {"五言絕句": 0.5, "other": 0.5},
        0.88,
        0.8,
        0.0,
        written,
    )
    human = Writing(2, 18, 0.934567, 0.991234, 1.0, 2.71828, 2, "明月", 1.5, {"五言絕句": 0.75, "other": 0.25})
    return Evaluation(4.8, 5.501234, 60, 4_100, 3_300, writing, human, (5.401, 5.602), 128, "float32", **settings)


def score(text: str = "春眠不覺曉", choices: tuple[str, ...] = ("花", "<b>")) -> TextScore:
    """A text whose characters are tokens of 1, 2, 3 … bits, with the same choices at each place."""
    nats = tuple(-(n + 1) * math.log(2.0) for n in range(len(text)))
    top = tuple(
        TokenChoice(n, token.encode("utf-8", "surrogatepass"), math.log(0.25)) for n, token in enumerate(choices)
    )
    tokens = tuple(character.encode("utf-8", "surrogatepass") for character in text)
    return TextScore(text, tuple(range(len(text))), tokens, nats, nats, -0.5, (top,) * len(text))


def artefact() -> kg.Artefact:
    """An artefact of 5 MiB that was proved equal."""
    parity = {
        "greedy_equal": True,
        "new_tokens": [64, 128],
        "tokens_per_second": 512.4,
        "load_seconds": 0.31,
        "peak_bytes": 90 * 2**20,
        "largest_difference": 1.25e-5,
    }
    return kg.Artefact(Path("poet.tflite"), "tflite", {"files": {"poet.tflite": 5 * 2**20}, "parity": parity})
