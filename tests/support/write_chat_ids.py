"""Writes the ids that transformers gives drawn conversations by kerasgen's named templates: `tests/chat/chat_ids.json`.

Run it with transformers installed: `python tests/support/write_chat_ids.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import drawn_chats
from tiny import tiny_vocabulary

from kerasgen import ByteLevelBPE
from kerasgen.chat.named import NAMED

PLACE = Path(__file__).parent.parent / "chat" / "chat_ids.json"
START, END = "<bos>", "</s>"


def tokenizer_of(name: str) -> ByteLevelBPE:
    """A tiny byte-level vocabulary with the special tokens of a named template."""
    special = dict.fromkeys((START, END, *NAMED[name].tokens))
    vocabulary, merges = tiny_vocabulary(310, last=tuple(special))
    return ByteLevelBPE(
        vocabulary, merges, start_token=START, end_token=END, pad_token=END, special_tokens=tuple(special)
    )


def theirs(tokenizer: ByteLevelBPE, template: str, row: dict[str, Any], **settings: Any) -> list[int]:
    """The ids that transformers gives a row."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_tokenizer_json()),
        bos_token=START,
        eos_token=END,
        pad_token=END,
        chat_template=template,
    )
    return list(fast.apply_chat_template(row["messages"], tools=row.get("tools"), return_dict=False, **settings))


def rows_of(name: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    return drawn_chats.chats(count, seed, tools=name != "alpaca")


def main() -> None:
    recorded = {name: [theirs(tokenizer_of(name), NAMED[name].text, row) for row in rows_of(name, 8)] for name in NAMED}
    PLACE.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
