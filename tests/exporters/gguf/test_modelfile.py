"""The Modelfile is one by Ollama's documented grammar, whatever the file is called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kerasgen.exporters.gguf import modelfile

pytestmark = pytest.mark.one_backend

# https://docs.ollama.com/modelfile: instructions, and the parameters with the types of their values.
INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}
PARAMETERS = {
    **dict.fromkeys(("num_ctx", "repeat_last_n", "seed", "num_predict", "top_k"), int),
    **dict.fromkeys(("repeat_penalty", "temperature", "top_p", "min_p"), float),
    "stop": str,
}
VARIABLES = {"System", "Prompt", "Response", "Messages", "Tools", "Role", "Content"}


def parsed(text: str) -> list[tuple[str, str]]:
    """The instructions of a Modelfile: a name and its arguments, in triple quotes where they have several lines."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] in "\n\r\t ":
            at += 1
        elif text[at] == "#":
            at = text.find("\n", at) % (len(text) + 1)
        else:
            match = re.compile(r'([A-Za-z]+)[ \t]+(?:(\w+)[ \t]+(?="""))?(?:"""(.*?)"""|([^\n]+))', re.S).match(
                text, at
            )
            assert match is not None, text[at : at + 40]
            found.append((match[1].upper(), match[3] if match[3] is not None else match[4]))
            at = match.end()
    return found


@pytest.mark.parametrize("name", ["poet.gguf", "my poet 1.gguf", "詩人.gguf", "poet.Q8_0.v2.gguf"])
@pytest.mark.parametrize("chat", [True, False])
def test_every_line_is_an_instruction_that_ollama_documents(tmp_path: Path, name: str, chat: bool) -> None:
    path = tmp_path / name
    modelfile.write(path, max_tokens=256, chat_template=chat)
    lines = parsed((tmp_path / f"{name}.Modelfile").read_text(encoding="utf-8"))
    kinds = [kind for kind, _ in lines]
    assert set(kinds) <= INSTRUCTIONS
    assert kinds.count("FROM") == 1
    assert (tmp_path / dict(lines)["FROM"]) == path, "it is found beside the Modelfile"
    for kind, value in lines:
        if kind == "PARAMETER":
            parameter, _, written = value.partition(" ")
            assert isinstance(PARAMETERS[parameter](written), (int, float, str))
    template = dict(lines).get("TEMPLATE")
    assert (template is None) == chat, "a chat template that the file holds is read from there"
    if template is not None:
        assert set(re.findall(r"\.(\w+)", template)) <= VARIABLES
        assert template.count("{{") == template.count("}}") == 1
