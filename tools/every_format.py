"""Write SmolLM2, tuned by adapters, in every format, and let each one's own program go on from the same words.

`python tools/every_format.py ADAPTERS FOLDER [--only gguf_q4_0 --only tflite_int8] [--prompt TEXT] [--tokens N]`

ADAPTERS is a folder of peft's, such as `benchmarks/peft_beside.py --keep` leaves. The exporters prove what they write,
and what can't be proved is told. Formats whose text lies in FOLDER/texts.json already are left out, so that a run that
was interrupted goes on. Printed is a table in Markdown, with the place at which a text parts from the model's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The exporter's name, its settings, and the end of the file's name.
FORMATS: dict[str, tuple[str, dict[str, Any], str]] = {
    "transformers": ("Transformers", {}, ""),
    "gguf_f16": ("Gguf", {"dtype": "F16"}, ".gguf"),
    "gguf_q8_0": ("Gguf", {"dtype": "Q8_0"}, ".gguf"),
    "gguf_q4_0": ("Gguf", {"dtype": "Q4_0"}, ".gguf"),
    "saved_model": ("SavedModel", {"max_sequence_length": 256}, ""),
    "tflite": ("TFLite", {"beams": 0}, ".tflite"),
    "tflite_int8": ("TFLite", {"beams": 0, "quantize": "int8"}, ".tflite"),
    "litertlm_int8": ("LiteRtLm", {"quantize": "int8"}, ".litertlm"),
}
PROMPT = "TIFU by telling my boss that"


def model_of(adapters_folder: Path) -> Any:
    """Return SmolLM2 with the adapters merged into its weights."""
    from kerasgen.models.smollm2 import Smollm2
    from kerasgen.tuners import adapters, peft_files

    model = Smollm2().load()
    peft_files.read(model, adapters_folder)
    adapters.merge(model)
    return model


def written(name: str, adapters_folder: Path, path: Path) -> dict[str, Any]:
    """Write one format; return what its proof measured."""
    import kerasgen as kg

    exporter, settings, _ = FORMATS[name]
    artefact = getattr(kg, f"{exporter}Exporter")(**settings).export(model_of(adapters_folder), path, overwrite=True)
    parity = artefact.report["parity"]
    parity = artefact.report.get("tflite", {}).get("parity", {}) | parity
    keys = ("divergence_in_nats", "same_likeliest", "nats_per_token", "nats_per_token_of_the_model", "greedy_equal")
    keys += ("kl_nats_per_token", "standard_error_of_their_difference", "largest_logit_difference_in_deviations")
    found = {key: parity[key] for key in keys if key in parity}
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    return {"bytes": size, "parity": found, "llama_cpp": parity.get("llama_cpp"), "theirs": parity.get("transformers")}


def told(name: str, adapters_folder: Path, path: Path, prompt: str, tokens: int) -> str:
    """Return the greedy text that the format's own program writes after a prompt; that of the model for `model`."""
    import kerasgen as kg

    settings: dict[str, Any] = {"max_new_tokens": tokens, "sampler": "greedy"}
    if name == "model":
        from kerasgen.generation import generate

        return generate(model_of(adapters_folder), [prompt], **settings)[0]
    if name == "transformers":
        import torch
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        found = model.generate(ids, do_sample=False, max_new_tokens=tokens, attention_mask=torch.ones_like(ids))
        text: str = tokenizer.decode(found[0], skip_special_tokens=True)
        return text
    return str(kg.load_artefact(str(path)).generate(prompt, **settings))


def parts_at(text: str, other: str) -> int | None:
    """Return the place of the first character in which texts differ, None if they don't."""
    if text == other:
        return None
    return next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def table(rows: dict[str, Any], prompt: str) -> str:
    """Return a table in Markdown of what each format takes and says."""
    lines = ["| format | MB | parts from the model's text | text |", "|---|---|---|---|"]
    own = rows.get("model", {}).get("text", "")
    for name, row in rows.items():
        size = f"{row['bytes'] / 1e6:.0f}" if "bytes" in row else ""
        if "error" in row:
            lines.append(f"| `{name}` | | | {row['error']} |")
            continue
        place = parts_at(row["text"], own)
        shown = " ".join(row["text"].removeprefix(prompt).split()).replace("|", "\\|")
        parts = "" if name == "model" else "nowhere" if place is None else f"at character {place}"
        lines.append(f"| `{name}` | {size} | {parts} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Write what is asked for, a process for each step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("adapters", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=list(FORMATS))
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        what, name = asked.step
        path = asked.folder / f"{name}{FORMATS[name][2] if name in FORMATS else ''}"
        if what == "write":
            answer: dict[str, Any] = written(name, asked.adapters, path)
        else:
            answer = {"text": told(name, asked.adapters, path, asked.prompt, asked.tokens)}
        (asked.folder / f"{name}.{what}.json").write_text(json.dumps(answer), encoding="utf-8")
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    texts = asked.folder / "texts.json"
    rows: dict[str, Any] = json.loads(texts.read_text(encoding="utf-8")) if texts.exists() else {}
    for name in ("model", *(asked.only or FORMATS)):
        if "text" in rows.get(name, {}):
            continue
        row: dict[str, Any] = {}
        for what in ("tell",) if name == "model" else ("write", "tell"):
            began = time.monotonic()
            command = [sys.executable, __file__, str(asked.adapters), str(asked.folder), "--step", what, name]
            command += ["--prompt", asked.prompt, "--tokens", str(asked.tokens)]
            run = subprocess.run(
                command, env=os.environ | {"KERAS_BACKEND": "jax"}, check=False, stderr=subprocess.PIPE, text=True
            )
            if run.returncode:
                row["error"] = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1][:600]
                break
            row |= json.loads((asked.folder / f"{name}.{what}.json").read_text(encoding="utf-8"))
            row[f"{what}_seconds"] = round(time.monotonic() - began, 1)
        rows[name] = row
        print(name, json.dumps(row, ensure_ascii=False), file=sys.stderr, flush=True)
        texts.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(table(rows, asked.prompt))


if __name__ == "__main__":
    main()
