"""Try each architecture in each cell of the README's matrix, and write what happened.

`python tools/matrix.py [--only qwen3 --only mistral] [--cells transformers gguf] [--file docs/reference/matrix.json]`

A model is tiny and its weights are drawn by name; the exporters prove what they write against the model, in
transformers and llama.cpp themselves where these are installed. Results of architectures that are not tried stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
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
}
LONGEST = 64


def model_of(name: str) -> Any:
    """Return a tiny model of an architecture, and its tokenizer."""
    from described import CONFIGS, drawn
    from tiny import tiny_gpt2

    from kerasgen import LanguageModel
    from kerasgen.decoder.config import LearnedPositions
    from kerasgen.models import architectures, networks
    from kerasgen.models.architectures import tensors
    from kerasgen.models.base import CONTEXT_LENGTH

    tokenizer = tiny_gpt2().tokenizer
    config = replace(CONFIGS[MODELS[name]], vocabulary_size=tokenizer.vocabulary_size)
    if not isinstance(config.positions, LearnedPositions):
        config = replace(config, max_sequence_length=None)
    architecture = architectures.named(name)
    assert architecture is not None
    file = tensors.write(architecture, config, drawn(config), "transformers")
    network = networks.build(
        architecture, config, lambda tensor, shape: file[tensor], "transformers", context_length=LONGEST
    )
    reason = architecture.hub_reason(config)
    held = (None, tokenizer, name, {CONTEXT_LENGTH: LONGEST}, network, reason)
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
    from kerasgen.errors import ExportArgumentError

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = {"result": "ok", "by": CELLS[kind](model_of(name), Path(folder))}
        except ExportArgumentError as cause:
            found = {"result": "refused", "by": str(cause)}
        except Exception as cause:
            found = {"result": "failed", "by": f"{type(cause).__name__}: {cause}"[:300]}
    print(f"{time.monotonic() - began:.1f} s", end=" ")
    return found


def main() -> None:
    """Run the cells that are asked for, and write them into the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MODELS), help="an architecture; all if left out")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--file", type=Path, default=ROOT / "docs" / "reference" / "matrix.json")
    asked = parser.parse_args()
    known = json.loads(asked.file.read_text(encoding="utf-8")) if asked.file.exists() else {}
    for name in asked.only or MODELS:
        for kind in asked.cells:
            known.setdefault(name, {})[kind] = cell(name, kind)
            print(name, kind, known[name][kind], flush=True)
            asked.file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
