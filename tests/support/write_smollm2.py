"""What transformers computes with SmolLM2's real weights, for `tests/models/smollm2.json`: run it where torch is.

    python tests/support/write_smollm2.py SHARED_DATA

Each text is the beginning of a post; for each, transformers' nats of the tokens after the first, and the likeliest
tokens one after another behind its first 16.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import torch
import transformers

from kerasgen.models.smollm2 import Smollm2

TOKENS, PROMPT, MORE = 96, 16, 48


def main() -> None:
    """Write the file."""
    file = Smollm2().file()
    load = {"gguf_file": file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **load).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **load)
    with lzma.open(Path(sys.argv[1]) / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        posts = [json.loads(line)["selftext"] for line, _ in zip(lines, range(40), strict=False)]
    texts = [tokenizer(post)["input_ids"][:TOKENS] for post in posts if len(post) > 1000][:8]
    found = []
    for ids in texts:
        with torch.inference_mode():
            logits = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)
            nll = -logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
            greedy = model.generate(torch.tensor([ids[:PROMPT]]), max_new_tokens=MORE, do_sample=False, pad_token_id=2)
        found.append({"ids": ids, "nll": [round(n, 5) for n in nll.tolist()], "greedy": greedy[0, PROMPT:].tolist()})
    path = Path(__file__).parents[1] / "models" / "smollm2.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
