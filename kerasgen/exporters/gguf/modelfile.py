"""Writes the Modelfile by which Ollama takes a GGUF file: `ollama create NAME -f poet.gguf.Modelfile`."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".Modelfile"
"""After the whole name of the GGUF file, beside which it lies."""


def write(path: Path, *, max_tokens: int, chat_template: bool) -> None:
    """Write the Modelfile of a GGUF file beside it.

    Without a chat template a prompt is read as it is: Ollama would put a template of its own around it. With one,
    Ollama reads the template that stands in the file.

    Args:
        path: of the GGUF file.
        max_tokens: tokens of a text, for which Ollama makes room; it would cut texts at its own number.
        chat_template: whether the file holds one.
    """
    lines = [f"FROM ./{path.name}", f"PARAMETER num_ctx {max_tokens}"]
    if not chat_template:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    path.with_name(path.name + SUFFIX).write_text("\n".join(lines) + "\n", encoding="utf-8")
