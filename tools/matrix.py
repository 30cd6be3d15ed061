"""Try each architecture in each cell of the matrix, and write what happened.

`python tools/matrix.py [--only qwen3 --only mistral] [--cells transformers gguf] [--again] [--file FILE]`

`matrix_cells.py` says what each cell tries. Cells that have a result are left out, unless asked for `--again`, so that
a run that was interrupted goes on. Each architecture has a process of its own, and a cell in which it dies is a failed
one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SEEN = (ROOT / "docs" / "reference" / "matrix.json").resolve()
PAGE = ROOT / "docs" / "reference" / "architectures.md"
CELLS = Path(__file__).with_name("matrix_cells.py")
# Most of the time is compiling: what was compiled is kept for the next process, and compiled fast rather than well.
QUICKLY = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
LONGEST_SECONDS = 900  # of a cell

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
# The family of `tests/tokens/families.tar.xz` whose tokenizer it has: of its kind, or of the nearest one.
TOKENIZERS = {
    "gpt2": "gpt2",
    "opt": "opt",
    "llama": "llama3",
    "mistral": "mistral",
    "qwen2": "qwen3",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "gpt_neox": "gpt_neox",
    "bloom": "bloom",
    "falcon": "falcon",
    "olmo2": "gpt2",
    "granite": "gpt2",
    "starcoder2": "gpt2",
    "mixtral": "mistral",
    "qwen2_moe": "qwen3",
    "qwen3_moe": "qwen3",
    "gpt_oss": "llama3",
}
HEADINGS = {
    "load": "load",
    "tokenizer": "tokenizer",
    "packed": "packed",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "merged_int8": "merged over int8",
    "jax": "JAX",
    "windows": "windows",
    "positions": "long texts",
    "gguf_in": "GGUF in",
    "transformers": "transformers",
    "gguf": "GGUF",
    "saved_model": "SavedModel",
    "tflite": "TFLite",
    "tflite_float16": "float16",
    "tflite_int8": "int8",
    "tflite_int4": "int4",
    "litertlm": "LiteRT-LM",
}
MARKS = {"ok": "yes", "refused": "refused", "failed": "**wrong**", "absent": "–", None: ""}

Known = Mapping[str, Mapping[str, Mapping[str, Any]]]


def table(known: Known, kinds: Sequence[str] = tuple(HEADINGS)) -> str:
    """Return what happened as a table in Markdown: a row for each architecture, empty where a cell was not tried."""
    rows = [["", *(HEADINGS[kind] for kind in kinds)], ["---"] * (1 + len(kinds))]
    for name in MODELS:
        cells = (known.get(name, {}).get(kind, {}).get("result") for kind in kinds)
        rows.append([f"`{name}`", *(MARKS[result] for result in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def reasons(known: Known) -> str:
    """Return a table of what was refused or is wrong, and why: architectures of one reason share a row."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for name, row in known.items():
        for kind, cell in row.items():
            if cell["result"] in ("refused", "failed"):
                names.setdefault((kind, cell["result"], cell["by"]), []).append(f"`{name}`")
    rows = [["cell", "architectures", "", "why"], ["---"] * 4]
    for kind in HEADINGS:
        for (of, result, by), told in names.items():
            if of == kind:
                why = " ".join(by.replace("|", "\\|").replace("<", "&lt;").split())
                rows.append([HEADINGS[kind], ", ".join(told), MARKS[result], why])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def into(page: str, table: str) -> str:
    """Return a page with a table in the place of the one that has its heading.

    Raises:
        ValueError: the page has no table of this heading.
    """
    head = table[: table.index("\n") + 1]
    before, found, rest = page.partition(head)
    if not found:
        raise ValueError(f"The page has no table that begins with {head!r}.")
    lines = rest.splitlines(keepends=True)
    after = "".join(lines[sum(1 for _ in itertools.takewhile(lambda line: line.startswith("|"), lines)) :])
    return before + table + after


def pages(known: Known) -> dict[Path, str]:
    """Return the pages that show what was seen, as they should be; `first_page.py` writes the README's part."""
    whole = into(PAGE.read_text(encoding="utf-8"), table(known))
    return {PAGE: into(whole, reasons(known))}


def tried(name: str, kinds: Sequence[str], program: Path = CELLS) -> Iterator[dict[str, Any]]:
    """Yield what happens in each cell of an architecture, in a new process of a program where one dies."""
    left = list(kinds)
    environment = {**QUICKLY, **os.environ, "KERAS_BACKEND": "jax"}
    while left:
        command = [sys.executable, str(program), name, *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            for line in _lines(child):
                found = json.loads(line)
                left.remove(found["cell"])
                yield found
        if left:
            by = f"the process ended with {child.returncode}"
            yield {"cell": left.pop(0), "result": "failed", "by": by, "seconds": None}


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what a process writes, line by line, and end it when it writes nothing for too long."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put("")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while line := lines.get(timeout=LONGEST_SECONDS):
            yield line
    except queue.Empty:
        child.kill()
    reader.join()


def main() -> None:
    """Run the cells that are asked for and have no result, and write them into the file and the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MODELS), help="an architecture; all if left out")
    parser.add_argument("--cells", nargs="+", choices=list(HEADINGS), default=list(HEADINGS))
    parser.add_argument("--file", type=Path, default=SEEN)
    parser.add_argument("--again", action="store_true", help="also cells that have a result")
    parser.add_argument("--pages", action="store_true", help="try nothing: write the pages by the file")
    asked = parser.parse_args()
    known = json.loads(asked.file.read_text(encoding="utf-8")) if asked.file.exists() else {}
    for name in [] if asked.pages else asked.only or MODELS:
        row = known.setdefault(name, {})
        for found in tried(name, [kind for kind in asked.cells if asked.again or kind not in row]):
            kind, seconds = found.pop("cell"), found.pop("seconds")
            row[kind] = found
            print(f"{name} {kind}: {found['result']}, {found['by']} ({seconds} s)", flush=True)
            asked.file.write_text(
                json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    if asked.file.resolve() == SEEN:  # whoever tries something writes elsewhere
        for path, text in pages(known).items():
            path.write_text(text, encoding="utf-8")
        subprocess.run([sys.executable, str(Path(__file__).with_name("first_page.py"))], check=True)


if __name__ == "__main__":
    main()
