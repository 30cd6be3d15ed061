"""A gigabyte of posts becomes a token store in a process of its own, which tells how long it took and its peak memory.

    python -m benchmarks.tokenisation --gigabyte

The posts are put together from those of the shared data, each from the beginning of one and the end of another, so that
no two documents are alike; the tokenizer has GPT-2's genuine vocabulary.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Figures, bar, pinned
from benchmarks.vocabulary import QUICK, Size, _gpt2_tokenizer, _stories

GIGABYTE, QUICK_BYTES = 10**9, 3 * 10**6
PEAK_BYTES = 10**9


def measure(*, quick: bool, threads: int) -> dict[str, Any]:
    """Return a row of what storing the posts took, and the bar of its peak memory."""
    size = QUICK if quick else Size(stories=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posts.jsonl"
        size_bytes = write(path, _stories(size, quick), QUICK_BYTES if quick else GIGABYTE)
        command = [*pinned(threads), sys.executable, "-m", "benchmarks.tokenisation_store", str(path), folder]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: Figures = json.loads(ran.stdout.splitlines()[-1])
    peak = found.pop("peak_bytes")
    row = {"text_mb": size_bytes / 1e6, **found, "mb_per_second": size_bytes / 1e6 / found["seconds"]}
    row["peak_mb"] = peak / 1e6
    name = f"GB of memory, at most, to store {size_bytes / 1e9:.3g} GB of posts"
    return {"rows": [row], "bars": [bar(name, peak / 1e9, at_most=PEAK_BYTES / 1e9)]}


def write(path: Path, posts: Sequence[str], size_bytes: int) -> int:
    """Write so many bytes of text, or a post more, as JSON lines, and return how many there are."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in _mixed(posts):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode("utf-8", "replace"))
            if written >= size_bytes:
                break
    return written


def _mixed(posts: Sequence[str]) -> Iterator[str]:
    """Texts without end, no two alike: the words of one post up to some place, and of another from some place on."""
    words = [post.encode("utf-8", "replace").decode().split(" ") for post in posts]
    rng = random.Random(0)
    seen: set[tuple[int, int, int, int]] = set()
    while True:
        first, second = rng.randrange(len(words)), rng.randrange(len(words))
        end, begin = rng.randint(1, len(words[first])), rng.randrange(len(words[second]))
        if (first, end, second, begin) not in seen:
            seen.add((first, end, second, begin))
            yield " ".join([*words[first][:end], *words[second][begin:]])


def main() -> None:
    """Store the corpus that the command line names, and print what it took."""
    from kerasgen.corpora.files import Jsonl
    from kerasgen.corpora.held_out_split import DividedCorpus
    from kerasgen.devices import peak_memory_bytes
    from kerasgen.tokens import store

    path, folder = map(Path, sys.argv[1:])
    corpus = DividedCorpus(Jsonl(path=str(path), field="text"), 0.05, None)
    tokenizer = _gpt2_tokenizer()
    begin = time.perf_counter()
    stored = store.store(corpus.documents, tokenizer, held_out=0.05, directory=folder / "store")
    found = {
        "seconds": time.perf_counter() - begin,
        "documents": len(stored.train) + len(stored.held_out),
        "tokens": len(stored.train.token_ids) + len(stored.held_out.token_ids),
        "peak_bytes": peak_memory_bytes(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
