"""What is learned in the same CPU time: by kerasgen as it comes, the tutorial's recipe, and a transformers loop.

    python -m benchmarks.quality --json quality.json [--only poems,posts,articles] [--seconds 200] [--seeds 0,1,2]

Each contender trains an untrained GPT-2 with GPT-2's vocabulary, whose weights are drawn as the paper says, on the same
texts, at the same learning rate, in a process of its own that is pinned to one processor, one after another, for so
many seconds of CPU time from when it has the texts. Then the held-out texts are scored, in rows of the length that was
trained on, and bits per character are compared. Seconds on the clock stand beside, which other processes make longer.
The transformers loop is in bfloat16. A seed decides the first weights and the order of the texts; bars are of medians
over the seeds, with the spread beside.

The articles are stories joined to some 3,500 characters or more, since no newspaper is at hand.
"""

from __future__ import annotations

import json
import lzma
import random
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import (
    DATA,
    Contender,
    Figures,
    arguments_of,
    bar,
    gpt2_files,
    report,
    rows_of_other_parts,
    write,
)

PARTS = ("poems", "posts", "articles")
CONTENDERS = ("recipe", "transformers", "kerasgen")
SHAPE = {"layers": 4, "width": 256, "heads": 4}
TINY = {"layers": 1, "width": 16, "heads": 2}
DOCUMENTS = {"poems": 3_000, "posts": 922, "articles": 1_500}
LONG = 3_500
"""Characters of an article at least."""

MOST = {"recipe": 0.65, "transformers": 0.8}
"""Of each contender's bits per character on poems, which kerasgen may have at most. Elsewhere it is 1."""


def bars_of(rows: Iterable[Figures]) -> list[Figures]:
    """The bars that can be told from the rows."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["part"], row["contender"]), []).append(row["bits_per_character"])
    by = {key: median(bits) for key, bits in found.items()}
    bars = []
    for part in PARTS:
        for other, most in MOST.items():
            if {(part, "kerasgen"), (part, other)} <= by.keys():
                name = f"held-out bits per character, {part}, share of the {other}'s"
                at_most = most if part == "poems" else 1.0
                value = bar(name, by[part, "kerasgen"] / by[part, other], at_most=at_most)
                spread = {of: max(found[part, of]) - min(found[part, of]) for of in ("kerasgen", other)}
                bars.append(value | {"seeds": len(found[part, "kerasgen"]), "spread": spread})
    return bars


def prepare(folder: Path, parts: Sequence[str], *, quick: bool) -> dict[str, Path]:
    """Write the texts of each part and GPT-2's vocabulary, and return the paths by name."""
    paths = {"gpt2": folder / "gpt2"}
    paths["gpt2"].mkdir()
    for file, name in zip(gpt2_files(), ("vocab.json", "merges.txt"), strict=True):
        shutil.copy(file, paths["gpt2"] / name)
    for part in parts:
        texts = _sample() if quick else _texts(part)
        random.Random(0).shuffle(texts)
        paths[part] = folder / f"{part}.json"
        paths[part].write_text(json.dumps(texts[: DOCUMENTS[part]], ensure_ascii=False), encoding="utf-8")
    return paths


def _sample() -> list[str]:
    from kerasgen.corpora.sample import Sample

    return [document.text for document in Sample().documents()]


def _texts(part: str) -> list[str]:
    if part == "poems":
        from kerasgen.corpora.chinese_poetry import ChinesePoetry

        path = DATA / "chinese-poetry.tang.tar.xz"
        return [poem.text for poem in ChinesePoetry(path=str(path), dynasty="tang").documents()]
    if part == "posts":
        posts = _lines("tifu_posts_2012_2013.jsonl.xz")
        return [post["selftext"] for post in posts if post["selftext"] and not post.get("nsfw")]
    stories = _lines("reddit_stories_2013_pddl.jsonl.xz")
    told = (story.get("selftext_without_tldr") or story.get("selftext") or "" for story in stories)
    articles: list[str] = []
    article = ""
    for story in told:
        article = f"{article}\n\n{story}".strip()
        if len(article) >= LONG:
            articles.append(article)
            article = ""
    return articles


def _lines(name: str) -> list[dict[str, Any]]:
    with lzma.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def compete(part: str, job: Figures, contenders: Sequence[str]) -> Iterable[Figures]:
    """Let the contenders train, one after another; yields a row each."""
    for name in contenders:
        environment = {"TF_NUM_INTEROP_THREADS": str(job["threads"])}
        if job["threads"] == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        how: Figures = {"threads": job["threads"], "environment": environment}
        contender = Contender(name, "benchmarks.quality_contenders", name, **how)
        try:
            yield {"part": part, "contender": name, "seed": job["seed"]} | contender.ask(job)
        finally:
            contender.end()


def main(arguments: Sequence[str] | None = None) -> Figures:
    """Measure, print the table, write the JSON."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="which of them, separated by commas")
    parser.add_argument("--seconds", type=float, default=200.0, help="of CPU time for each contender (default: 200)")
    parser.add_argument("--seeds", default="0,1,2", help="of weights and order, separated by commas (default: 0,1,2)")
    parser.add_argument("--tuner", default="{}", help="settings of kerasgen's tuner to try, as JSON")
    chosen = parser.parse_args(arguments)
    parts, contenders = tuple(chosen.only.split(",")), tuple(chosen.contenders.split(","))
    for asked, known in ((parts, PARTS), (contenders, CONTENDERS)):
        if set(asked) - set(known):
            parser.error(f"choose from {', '.join(known)}. Received: {', '.join(asked)}.")
    if chosen.quick:
        parts = parts[:1]
    rows = rows_of_other_parts(chosen.json, parts)
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder), parts, quick=chosen.quick)
        seeds = [0] if chosen.quick else [int(seed) for seed in chosen.seeds.split(",")]
        for part, seed in product(parts, seeds):
            job = (TINY if chosen.quick else SHAPE) | {
                "seed": seed,
                "texts": str(paths[part]),
                "gpt2": str(paths["gpt2"]),
                "seconds": 1.0 if chosen.quick else chosen.seconds,
                "threads": chosen.threads,
                "tuner": json.loads(chosen.tuner),
                "most_documents": 10 if chosen.quick else 300,
            }
            for row in compete(part, job, contenders):
                rows.append(row)
                if chosen.json is not None:  # a run that is ended keeps what is done
                    write(rows, [] if chosen.quick else bars_of(rows), chosen.json)
    return report(rows, [] if chosen.quick else bars_of(rows), chosen.json)


if __name__ == "__main__":
    main()
