"""Write the figures and the table of model families into the pages that show them.

`python tools/first_page.py` reads the files that the benchmarks wrote (`benchmarks/results/*.json`) and what
`tools/matrix.py` saw (`docs/reference/matrix.json`), and writes the parts of `README.md`, `README.zh.md` and
`docs/index.md` that stand between `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MATRIX = ROOT / "docs" / "reference" / "matrix.json"

FAMILIES = {
    "gpt2": "GPT-2",
    "opt": "OPT",
    "llama": "Llama 1–3, SmolLM2, TinyLlama",
    "mistral": "Mistral",
    "qwen2": "Qwen 2",
    "qwen3": "Qwen 3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "phi3": "Phi-3",
    "smollm3": "SmolLM3",
    "gpt_neox": "GPT-NeoX",
    "bloom": "Bloom",
    "falcon": "Falcon",
    "olmo2": "OLMo 2",
    "granite": "Granite",
    "starcoder2": "StarCoder2",
    "mixtral": "Mixtral",
    "qwen2_moe": "Qwen 2 MoE",
    "qwen3_moe": "Qwen 3 MoE",
    "gpt_oss": "GPT-OSS",
}
"""The architectures of the matrix by the names that people know."""

COLUMNS = {
    ("tune", "微调"): ("load", "tokenizer", "packed", "lora", "qlora"),
    ("generate", "生成"): ("jax",),
    ("transformers", "transformers"): ("transformers",),
    ("GGUF", "GGUF"): ("gguf_in", "gguf"),
    ("TFLite, LiteRT-LM, SavedModel", "TFLite、LiteRT-LM、SavedModel"): (
        *("tflite", "tflite_int8", "litertlm", "saved_model"),
    ),
}
"""The headings in English and Chinese, and the cells of the matrix that each of them stands for."""

WORDS = {"ok": ("yes", "可以"), "refused": ("refused", "拒绝"), "failed": ("**wrong**", "**有误**"), None: ("", "")}
ENGLISH, CHINESE = 0, 1


def result(row: Mapping[str, Mapping[str, Any]], cells: tuple[str, ...]) -> str | None:
    """Return what the worst of several cells says; None where one was not tried."""
    seen = {row.get(cell, {}).get("result") for cell in cells} - {"absent"}
    return next((worst for worst in ("failed", "refused", None) if worst in seen), "ok")


def families(language: int) -> str:
    """Return the table of model families: a row for those with equal results."""
    known = json.loads(MATRIX.read_text(encoding="utf-8"))
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for name, shown in FAMILIES.items():
        if name in known:
            key = tuple(result(known[name], cells) for cells in COLUMNS.values())
            groups.setdefault(key, []).append(shown)
    head = ("model family", "模型家族")[language]
    lines = [[head, *(heading[language] for heading in COLUMNS)], ["---"] * (1 + len(COLUMNS))]
    separator = (", ", "、")[language]
    for results, names in groups.items():
        shown = [name.replace(", ", separator) for name in names]
        lines.append([separator.join(shown), *(WORDS[found][language] for found in results)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows(file: str, part: str) -> dict[str, dict[str, Any]]:
    """Return the rows of one part that a benchmark wrote, by contender."""
    found = json.loads((RESULTS / file).read_text(encoding="utf-8"))["rows"]
    return {row["contender"]: row for row in found if row["part"] == part}


def faster(file: str, part: str, contender: str, figure: str) -> float:
    """Return how many times as fast kerasgen is, by seconds or by something a second."""
    by = rows(file, part)
    ours, theirs = by["kerasgen"][figure], by[contender][figure]
    return float(theirs / ours if figure.endswith("seconds") else ours / theirs)


def fastest_keras_hub(part: str) -> float:
    """Return the ratio to the faster of KerasHub's two backends."""
    names = [name for name in ("keras_hub jax", "keras_hub tensorflow") if name in rows("generate.json", part)]
    return min(faster("generate.json", part, name, "seconds") for name in names)


def figures(language: int) -> str:
    """Return the table of figures with their conditions."""
    times = "{:.1f} × as fast".format if language == ENGLISH else "{:.1f} 倍速度".format

    def share(part: str, contender: str) -> float:
        by = rows("training.json", part)
        return float(by["kerasgen"]["peak_gib"] / by[contender]["peak_gib"])

    table = [
        (
            ("GPT-2's shape, 124 million weights", "kerasgen by KerasHub alone", "kerasgen by transformers alone"),
            ("GPT-2 的规模，1.24 亿参数", "kerasgen 比只用 KerasHub", "kerasgen 比只用 transformers"),
        ),
        (("---", "---", "---"),) * 2,
        (
            (
                "tuning on Tang poems, characters a second",
                times(faster("training.json", "tang", "tutorial", "characters_per_second")),
                times(faster("training.json", "bf16", "transformers bf16", "characters_per_second")),
            ),
            ("用唐诗微调，每秒字数",),
        ),
        (
            ("its peak memory", f"{share('tang', 'tutorial'):.0%}", f"{share('bf16', 'transformers bf16'):.0%}"),
            ("微调时的内存峰值",),
        ),
        (
            (
                "one text, 32 + 128 tokens",
                times(fastest_keras_hub("batch1")),
                times(faster("generate.json", "batch1", "transformers", "seconds")),
            ),
            ("写一段：32 + 128 个词元",),
        ),
        (
            (
                "eight texts of unequal length at once",
                times(fastest_keras_hub("batch8")),
                times(faster("generate.json", "batch8", "transformers", "seconds")),
            ),
            ("同时写八段长短不一的文字",),
        ),
    ]
    lines = []
    for english, chinese in table:
        told = english if language == ENGLISH else (*chinese, *english[len(chinese) :])
        lines.append(f"| {' | '.join(told)} |\n")
    return "".join(lines)


def conditions(language: int) -> str:
    """Return the sentence that says on what the figures were measured."""
    machine = json.loads((RESULTS / "generate.json").read_text(encoding="utf-8"))["machine"]
    of = machine["versions"]
    names = {"keras-hub": "KerasHub", "jax": "JAX", "tensorflow": "TensorFlow", "torch": "torch"}
    versions = [f"{name} {of[key].partition('+')[0]}" for key, name in names.items() if key in of]
    versions.append(f"transformers {of['transformers']}")
    if language == ENGLISH:
        return (
            f"One thread of an {machine['processor']} with AVX-512, random weights, medians of interleaved runs; "
            f"{', '.join(versions)}.\n"
            "KerasHub tunes by its usual recipe (rows of 128 tokens, JAX, float32) and generates on JAX, its faster "
            "backend here; transformers tunes by its `Trainer` in bfloat16 and generates in float32. kerasgen decides "
            "rows, precision and vocabulary by itself.\n"
        )
    return (
        f"单线程，{machine['processor']}（AVX-512），随机权重，交替运行取中位数；{'、'.join(versions)}。\n"
        "KerasHub 按其常用写法微调（每行 128 个词元，JAX，float32），用 JAX 生成，这里它比 TensorFlow 快；"
        "transformers 用 `Trainer` 以 bfloat16 微调，以 float32 生成。行长、精度和词表由 kerasgen 自己决定。\n"
    )


PARTS: dict[str, Callable[[int], str]] = {
    "figures": lambda language: f"{figures(language)}\n{conditions(language)}",
    "families": families,
}
PAGES = {
    ROOT / "README.md": ENGLISH,
    ROOT / "README.zh.md": CHINESE,
    ROOT / "docs" / "index.md": ENGLISH,
}


def page(path: Path) -> str:
    """Return a page as it should be: each of its marked parts written anew."""
    text = path.read_text(encoding="utf-8")
    for name, written in PARTS.items():
        part = written(PAGES[path])
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda found, part=part: f"{found[1]}\n{part}\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


def main() -> None:
    """Write the pages."""
    for path in PAGES:
        path.write_text(page(path), encoding="utf-8")


if __name__ == "__main__":
    main()
