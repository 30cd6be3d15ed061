"""Try each architecture in each cell of the README's matrix, and write what happened.

`python tools/matrix.py [--only qwen3 --only mistral] [--cells transformers gguf] [--file docs/reference/matrix.json]`

A model is tiny and its weights are drawn by name; the exporters prove what they write against the model, in
transformers and llama.cpp themselves where these are installed. Results of architectures that are not tried stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SEEN = (ROOT / "docs" / "reference" / "matrix.json").resolve()
sys.path.insert(0, str(ROOT / "tests" / "support"))

# For each architecture the tiny decoder of `tests/support/described.py` that stands for it.
MODELS = {
    "gpt2": "gpt2",
    "opt": "opt",
    "llama": "llama_llama3",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2_held",
    "gemma3_text": "gemma3_held",
    "phi3": "phi3_held",
    "smollm3": "smollm3_held",
    "gpt_neox": "gpt_neox",
    "bloom": "bloom",
    "falcon": "falcon",
    "olmo2": "olmo2",
    "granite": "granite",
    "starcoder2": "starcoder2",
    "mixtral": "mixtral",
    "qwen2_moe": "qwen2_moe_held",
    "qwen3_moe": "qwen3_moe_held",
    "gpt_oss": "gpt_oss",
}
LONGEST = 64


def model_of(name: str) -> Any:
    """Return a tiny model of an architecture, and its tokenizer."""
    from described import CONFIGS, drawn
    from tiny import tiny_gpt2

    from kerasgen import LanguageModel
    from kerasgen.decoder.config import LearnedPositions, RotaryPositions
    from kerasgen.decoder.rotary_scaling import LongRopeScaling
    from kerasgen.models import architectures, networks
    from kerasgen.models.architectures import tensors
    from kerasgen.models.base import CONTEXT_LENGTH

    tokenizer = tiny_gpt2().tokenizer
    config = replace(CONFIGS[MODELS[name]], vocabulary_size=tokenizer.vocabulary_size)
    if not isinstance(config.positions, LearnedPositions):
        config = replace(config, max_sequence_length=None)
    if name == "phi3":  # short of where LongRoPE changes its factors, as a real one's texts are
        assert isinstance(config.positions, RotaryPositions)
        assert isinstance(config.positions.scaling, LongRopeScaling)
        scaling = replace(config.positions.scaling, original_length=8 * LONGEST)
        config = replace(config, positions=replace(config.positions, scaling=scaling))
    longest = 16 * LONGEST if name == "phi3" else LONGEST
    architecture = architectures.named(name)
    assert architecture is not None
    file = tensors.write(architecture, config, drawn(config), "transformers")
    network = networks.build(
        architecture, config, lambda tensor, shape: file[tensor], "transformers", context_length=longest
    )
    reason = architecture.hub_reason(config)
    held = (None, tokenizer, name, {CONTEXT_LENGTH: longest}, network, reason)
    return LanguageModel(*(held if reason else (network, *held[1:4])))


def _decodes(model: Any, folder: Path) -> str:
    """The JAX engine chooses what the model's own forward pass does, along a text that it writes."""
    import numpy as np

    import kerasgen as kg
    from kerasgen.generation.api import generate_ids

    prompt = model.tokenizer.encode("a house by the river")
    ids = generate_ids(model, [prompt], max_new_tokens=16, sampler=kg.Greedy(), valid_utf8=False)[0][0].token_ids
    prompt = [model.tokenizer.start_token_id, *prompt]
    given = np.asarray([[*prompt, *ids]], "int32")
    logits = np.asarray(model.network({"token_ids": given, "padding_mask": np.ones_like(given)}))[0]
    assert list(logits[len(prompt) - 1 : -1].argmax(-1)) == list(ids)
    return f"{len(ids)} ids"


def _exports(name: str, **settings: Any) -> Callable[[Any, Path], str]:
    def run(model: Any, folder: Path) -> str:
        import kerasgen as kg

        artefact = getattr(kg, f"{name}Exporter")(**settings).export(model, folder / "artefact")
        parity = artefact.report["parity"]
        others = [other for other in ("transformers", "llama_cpp") if parity.get(other)]
        return ", ".join(others) or "proved"

    return run


CELLS: dict[str, Callable[[Any, Path], str]] = {
    "jax": _decodes,
    "transformers": _exports("Transformers"),
    "gguf": _exports("Gguf"),
    "saved_model": _exports("SavedModel"),
    "tflite": _exports("TFLite", beams=0),
    "tflite_int8": _exports("TFLite", beams=0, quantize="int8"),
}


def cell(name: str, kind: str) -> dict[str, Any]:
    """Return what happened: `ok` with what proved it, `refused` with the reason, or `failed`."""
    from kerasgen.errors import ExportArgumentError, GenerateArgumentError

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = {"result": "ok", "by": CELLS[kind](model_of(name), Path(folder))}
        except (ExportArgumentError, GenerateArgumentError) as cause:
            found = {"result": "refused", "by": str(cause)}
        except Exception as cause:
            found = {"result": "failed", "by": f"{type(cause).__name__}: {cause}"[:300]}
    print(f"{time.monotonic() - began:.1f} s", end=" ")
    return found


HEADINGS = {
    "jax": "decoded by JAX",
    "transformers": "transformers",
    "gguf": "GGUF",
    "saved_model": "SavedModel",
    "tflite": "TFLite",
    "tflite_int8": "TFLite int8",
}
MARKS = {"ok": "yes", "refused": "refused", "failed": "**wrong**", None: ""}


def table(known: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Return what happened as a table in Markdown: a row for each architecture, empty where a cell was not tried."""
    rows = [["", *HEADINGS.values()], ["---"] * (1 + len(HEADINGS))]
    for name in MODELS:
        cells = (known.get(name, {}).get(kind, {}).get("result") for kind in HEADINGS)
        rows.append([f"`{name}`", *(MARKS[result] for result in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def into(page: str, known: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Return a page with the table in place of the one that it has.

    Raises:
        ValueError: the page has no table of this heading.
    """
    head = f"| {' | '.join(['', *HEADINGS.values()])} |\n"
    before, found, rest = page.partition(head)
    if not found:
        raise ValueError(f"The page has no table that begins with {head!r}.")
    lines = rest.splitlines(keepends=True)
    after = "".join(lines[sum(1 for _ in itertools.takewhile(lambda line: line.startswith("|"), lines)) :])
    return before + table(known) + after


def main() -> None:
    """Run the cells that are asked for, and write them into the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MODELS), help="an architecture; all if left out")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--file", type=Path, default=SEEN)
    asked = parser.parse_args()
    known = json.loads(asked.file.read_text(encoding="utf-8")) if asked.file.exists() else {}
    for name in asked.only or MODELS:
        for kind in asked.cells:
            known.setdefault(name, {})[kind] = cell(name, kind)
            print(name, kind, known[name][kind], flush=True)
            asked.file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            if asked.file.resolve() == SEEN:  # whoever tries something writes elsewhere
                README.write_text(into(README.read_text(encoding="utf-8"), known), encoding="utf-8")


if __name__ == "__main__":
    main()
