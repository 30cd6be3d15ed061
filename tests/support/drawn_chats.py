"""Draws conversations: with system turns, tools and their calls, blanks, names of special tokens, several scripts."""

from __future__ import annotations

import random
from typing import Any

WORDS = (
    "the", "answer", "is", "春風", "не", "знаю", "é", "🙂🙂", "\n", "  ", "\t", "{{", "{% if %}", "'quoted'", '"so"',
    "<|im_end|>", "<|im_start|>user", "<|eot_id|>", "<end_of_turn>", "</s>", "1 + 1", "don't", "\\n", "&lt;b&gt;", "ﬁ",
)  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Says how the weather is in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def words(random_: random.Random, *, least: int = 0) -> str:
    return " ".join(random_.choice(WORDS) for _ in range(random_.randint(least, 9)))


def chats(count: int, seed: int = 0, *, tools: bool = True, plain: bool = False) -> list[dict[str, Any]]:
    """Rows with `messages`, and some with `tools`.

    Args:
        count: how many.
        seed: the same ones for the same seed.
        tools: whether some call tools.
        plain: no message holds a name of a special token.
    """
    drawn = random.Random(seed)
    rows = []
    for _ in range(count):
        calls = tools and drawn.random() < 0.3
        messages: list[dict[str, Any]] = []
        if drawn.random() < 0.5:
            messages.append({"role": "system", "content": words(drawn, least=1)})
        for _ in range(drawn.randint(1, 4)):
            messages.append({"role": "user", "content": words(drawn, least=1)})
            if calls and drawn.random() < 0.6:
                call = {"name": "weather", "arguments": {"city": words(drawn)}}
                messages.append({"role": "assistant", "tool_calls": [{"type": "function", "function": call}]})
                messages.append({"role": "tool", "content": words(drawn, least=1)})
            messages.append({"role": "assistant", "content": words(drawn) + " so"})
        row: dict[str, Any] = {"messages": messages}
        if calls:
            row["tools"] = TOOLS
        rows.append(row)
    if plain:
        text = str.maketrans("<|>", "[!]")
        for row in rows:
            row["messages"] = [
                {key: value.translate(text) if key == "content" else value for key, value in message.items()}
                for message in row["messages"]
            ]
    return rows
