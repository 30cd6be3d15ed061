"""How fast training is: the tutorial's recipe on KerasHub, transformers and kerasgen, side by side on one machine.

    python -m benchmarks.training [--only PART,…] [--json FILE] [--threads N] [--quick]

Each contender is a process that holds its model and does a step when it is told to; contenders that fit into memory
together take turns, and the first step of each is kept apart. Figures of several runs that write into one JSON file are
merged, so the parts can be run one after another: `tang`, `transformers`, `by_hand`, `bf16`, `tifu`, `tifu_bf16`,
`small`, `small_by_hand`, `lead` and `cold`. `small_by_hand` has the small shape beside a loop with transformers in
bfloat16 that is given kerasgen's packed rows and vocabulary. `lead` takes the lead over the tutorial apart, on the
small shape: what engine and precision give, what packing gives on top, and what the corpus's vocabulary does; and how
far a tuner gets that chooses rows and length by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    DATA,
    EARLIER,
    Contender,
    Figures,
    GaveUpError,
    arguments_of,
    bar,
    gpt2_files,
    report,
    rows_of_other_parts,
    spread,
    write,
)
from kerasgen.devices import cpu_has_bfloat16

PARTS = ("tang", "transformers", "by_hand", "bf16", "tifu", "tifu_bf16", "small", "small_by_hand", "lead", "cold")
LEAD = ("tutorial", "kerasgen, GPT-2's vocabulary, padded", "kerasgen, GPT-2's vocabulary", "kerasgen")
STEPS_OF_LEAD = ("engine and precision", "packing", "vocabulary")
BASE = {"layers": 12, "width": 768, "heads": 12, "rows": 16, "length": 128}
SMALL = {"layers": 4, "width": 256, "heads": 4, "rows": 16, "length": 128}
TINY = {"layers": 1, "width": 32, "heads": 2, "rows": 4, "length": 32}


@dataclass
class Racer:
    """A contender's process and what it measured."""

    name: str
    job: Path
    threads: int
    step_limit: float = 600.0
    rounds: list[dict[str, float]] = field(default_factory=list)
    first: dict[str, float] | None = None
    gave_up: bool = False
    compiles: bool = False

    def __post_init__(self) -> None:
        environment = {"TF_NUM_INTEROP_THREADS": str(self.threads)}
        if self.threads == 1:
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        if self.compiles:
            environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        how: Figures = {"threads": self.threads, "environment": environment}
        self.process = Contender(self.name, "benchmarks.training_contenders", self.name, str(self.job), **how)

    def ask(self, steps: int = 1) -> None:
        """Let it do some steps and keep what it answers; the first call's are the first step's."""
        if self.gave_up:
            return
        self.process.limit = self.step_limit * steps
        try:
            answer = self.process.ask(steps)
        except GaveUpError:
            self.gave_up = True
            return
        if self.first is None:
            self.first = answer | {"cold_seconds": self.process.seconds()}
        else:
            self.rounds.append(answer)

    def end(self) -> None:
        """End the process."""
        if not self.gave_up:
            self.process.end()

    def row(self, part: str) -> Figures:
        """What was measured, medians over the rounds."""
        if self.gave_up and not self.rounds:
            return {"part": part, "contender": self.name, "gave_up_after_seconds": self.step_limit}
        of = self.rounds
        seconds = [one["seconds"] / one["steps"] for one in of]
        busy = [one["cpu_seconds"] / one["steps"] for one in of if "cpu_seconds" in one]
        return {
            "part": part,
            "contender": self.name,
            "rounds": len(of),
            **spread(seconds, "seconds_per_step"),
            **(spread(busy, "cpu_seconds_per_step") if busy else {}),
            "tokens_per_second": statistics.median(one["tokens"] / one["seconds"] for one in of),
            **({"characters_per_cpu_second": statistics.median(_by_cpu(one) for one in of)} if busy else {}),
            "characters_per_second": statistics.median(one["characters"] / one["seconds"] for one in of),
            "peak_gib": max(one["peak_bytes"] for one in of) / 2**30,
            "first_step_seconds": (self.first or {}).get("seconds"),
            "cold_seconds": (self.first or {}).get("cold_seconds"),
        }


def _by_cpu(answer: dict[str, float]) -> float:
    return answer["characters"] / answer["cpu_seconds"]


def compete(part: str, names: Sequence[str], job: Path, *, threads: int, rounds: int, steps: int, limit: float) -> Any:
    """Let contenders take turns, one at a time; returns a row each. An earlier version's only rival is this one."""
    if "KERASGEN_EARLIER" in os.environ:
        names = ("kerasgen", f"{EARLIER}kerasgen")
    contenders = []
    try:
        for name in names:
            contenders.append(Racer(name, job, threads, limit))
            contenders[-1].ask()
        for _ in range(rounds):
            for contender in contenders:
                contender.ask(steps)
        return [contender.row(part) for contender in contenders]
    finally:
        for contender in contenders:
            contender.end()


def parts_of_lead(rows: list[Figures]) -> list[Figures]:
    """Return the rows, and one for each part of the lead: characters/s by those of the contender before."""
    by = {row["contender"]: row for row in rows}
    found: list[Figures] = []
    for name, (before, after) in zip(STEPS_OF_LEAD, pairwise(LEAD), strict=True):
        if all("characters_per_second" in by.get(one, {}) for one in (before, after)):
            ratio = by[after]["characters_per_second"] / by[before]["characters_per_second"]
            found.append({"part": "lead", "contender": f"of it: {name}", "ratio": ratio})
    return [*rows, *found]


def cold(job: Path, *, threads: int, limit: float, samples: int) -> list[Figures]:
    """From the start of a process to the end of its first step: medians of processes that take turns.

    Each one's caches are warm from a run before, which is not counted; a row of its own compiles all anew.
    """
    found: dict[str, list[float]] = {"tutorial": [], "kerasgen": [], "kerasgen without a cache": []}
    for turn in range(1 + samples):
        for name, seconds in found.items():
            warm = name.removesuffix(" without a cache")
            if warm != name and turn > 1:
                continue  # each is as the one before, and takes long
            contender = Racer(warm, job, threads, limit, compiles=warm != name)
            try:
                contender.ask()
                assert contender.first is not None
                seconds.append(contender.first["cold_seconds"])
            finally:
                contender.end()
    return [
        {"part": "cold", "contender": name, "rounds": samples, **spread(seconds[1:], "cold_seconds")}
        for name, seconds in found.items()
    ]


def bars_of(rows: Iterable[Figures]) -> list[Figures]:
    """The bars that can be told from the rows."""
    by = {(row["part"], row["contender"]): row for row in rows}

    def ratio(part: str, figure: str, other: str) -> float | None:
        ours, theirs = by.get((part, "kerasgen")), by.get((part, other))
        if ours is None or theirs is None or figure not in ours:
            return None
        if "gave_up_after_seconds" in theirs:  # it did not end a step: it is slower than that
            step = ours["seconds_per_step"]
            return float(theirs["gave_up_after_seconds"] / step) if figure != "peak_gib" else None
        return float(ours[figure] / theirs[figure])

    def by_hand() -> float | None:
        names = ("transformers by hand", "transformers by hand bf16")
        ratios = [ratio("by_hand", "characters_per_second", name) for name in names]
        return min((found for found in ratios if found is not None), default=None)

    wanted = [
        ("characters/s, Tang, base, x the tutorial's", ratio("tang", "characters_per_second", "tutorial"), 8.0, True),
        (
            "characters/s, Tang, base, x transformers bf16",
            ratio("bf16", "characters_per_second", "transformers bf16"),
            3.5,
            True,
        ),
        ("characters/s, Tang, base, x transformers by hand", by_hand(), 1.0, True),
        ("tokens/s, TIFU, base, x the tutorial's", ratio("tifu", "tokens_per_second", "tutorial"), 2.0, True),
        (
            "tokens/s, TIFU, base, x transformers bf16",
            ratio("tifu_bf16", "tokens_per_second", "transformers bf16"),
            1.0,
            True,
        ),
        ("characters/s, 4 x 256, x the tutorial's", ratio("small", "characters_per_second", "tutorial"), 15.0, True),
        (
            "characters per CPU second, 4 x 256, x transformers by hand bf16",
            ratio("small_by_hand", "characters_per_cpu_second", "transformers by hand bf16"),
            1.2,
            True,
        ),
        ("peak memory, base, share of the tutorial's", ratio("tang", "peak_gib", "tutorial"), 0.6, False),
        ("cold start to first step, share of the tutorial's", ratio("cold", "cold_seconds", "tutorial"), 0.5, False),
    ]
    return [
        bar(name, value, **({"at_least": bound} if least else {"at_most": bound}))
        for name, value, bound, least in wanted
        if value is not None
    ]


def prepare(folder: Path, *, quick: bool) -> dict[str, Path]:
    """Write the corpora, the vocabularies and the jobs' files; returns the paths by name."""
    from kerasgen.corpora.sample import Sample

    paths = {"gpt2": folder / "gpt2"}
    paths["gpt2"].mkdir()
    for file, name in zip(gpt2_files(), ("vocab.json", "merges.txt"), strict=True):
        shutil.copy(file, paths["gpt2"] / name)
    if quick:
        texts = {"tang": [document.text for document in Sample().documents()]}
    else:
        import lzma

        from kerasgen.corpora.chinese_poetry import ChinesePoetry

        poems = ChinesePoetry(str(DATA / "chinese-poetry.tang.tar.xz"), dynasty="tang").documents()
        with lzma.open(DATA / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
            posts = [json.loads(line) for line in lines]
        texts = {
            "tang": [poem.text for poem in poems],
            "tifu": [post["selftext"] for post in posts if post["selftext"] and not post.get("nsfw")],
        }
    import random

    for name, found in texts.items():
        random.Random(0).shuffle(found)
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(found[:8000], ensure_ascii=False), encoding="utf-8")
    paths["adapted"] = folder / "adapted"
    paths["adapted"].mkdir()
    _adapted(texts["tang"], paths["adapted"])
    return paths


def _adapted(texts: Sequence[str], folder: Path) -> None:
    """A vocabulary made for the corpus: whole characters. At a power of two, rows would share lines of the cache."""
    from kerasgen.tokens.characters import whole_character_bpe

    tokenizer = whole_character_bpe(texts, vocabulary_size=8000, minimum_count=2)
    (folder / "vocab.json").write_text(json.dumps(tokenizer.vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *tokenizer.merges, ""]), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> Figures:
    """Measure, print the table, write the JSON."""
    parser = arguments_of(__doc__)
    parser.add_argument("--only", help="parts, separated by commas (default: all, or `small` with --quick)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=150.0, help="seconds after which a step is given up")
    chosen = parser.parse_args(arguments)
    parts = tuple((chosen.only or ("small" if chosen.quick else ",".join(PARTS))).split(","))
    rows = rows_of_other_parts(chosen.json, parts)
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder), quick=chosen.quick)

        def job(corpus: str, shape: dict[str, int], *, adapt: bool) -> Path:
            path = Path(folder) / f"{corpus}-{shape['layers']}-{adapt}.job.json"
            settings = {"texts": str(paths[corpus]), "gpt2": str(paths["gpt2"]), "threads": chosen.threads}
            path.write_text(json.dumps(shape | settings | {"adapted": str(paths["adapted"]) if adapt else None}))
            return path

        how = {"threads": chosen.threads, "rounds": chosen.rounds, "steps": 1, "limit": chosen.limit}
        # Without instructions for bfloat16 it is emulated: a step of it takes minutes.
        fast_bf16 = cpu_has_bfloat16()
        how_bf16 = how if fast_bf16 else how | {"rounds": 1}
        by_hand = ("transformers by hand", "transformers by hand bf16")[: 1 + fast_bf16]
        base = job("tang", TINY if chosen.quick else BASE, adapt=True)
        for part in parts:
            if part == "tang":
                rows += compete(part, ("kerasgen", "tutorial"), base, **how)
            elif part == "transformers":
                rows += compete(part, ("kerasgen", "transformers fp32"), base, **how)
            elif part == "by_hand":
                rows += compete(part, ("kerasgen", *by_hand), base, **how)
            elif part == "bf16":
                rows += compete(part, ("kerasgen", "transformers bf16"), base, **how_bf16)
            elif part == "tifu":
                rows += compete(part, ("kerasgen", "tutorial"), job("tifu", BASE, adapt=False), **how)
            elif part == "tifu_bf16":
                pair = ("kerasgen", "transformers bf16")
                rows += compete(part, pair, job("tifu", BASE, adapt=False), **how_bf16)
            elif part == "small":
                names = ("kerasgen", "tutorial") if chosen.quick else tuple(_all(bf16=fast_bf16))
                small = base if chosen.quick else job("tang", SMALL, adapt=True)
                rows += compete(part, names, small, **how | {"steps": 2 if chosen.quick else 3})
            elif part == "small_by_hand":
                small = base if chosen.quick else job("tang", SMALL, adapt=True)
                names = ("kerasgen", "kerasgen as it comes", by_hand[-1])
                rows += compete(part, names, small, **how | {"steps": 2 if chosen.quick else 4})
            elif part == "lead":
                small = base if chosen.quick else job("tang", SMALL, adapt=True)
                rows += parts_of_lead(compete(part, (*LEAD, "kerasgen as it comes"), small, **how))
            elif part == "cold":
                rows += cold(base, threads=chosen.threads, limit=600.0, samples=1 if chosen.quick else 3)
            else:
                parser.error(f"--only takes {', '.join(PARTS)}. Received: {part}.")
            if chosen.json is not None:  # a run that is ended keeps the parts that are done
                write(rows, [] if chosen.quick else bars_of(rows), chosen.json)
    return report(rows, [] if chosen.quick else bars_of(rows), chosen.json)


def _all(*, bf16: bool) -> Iterable[str]:
    from benchmarks.training_contenders import CONTENDERS

    plain = (name for name in CONTENDERS if name == "kerasgen" or not name.startswith("kerasgen"))
    return (name for name in plain if bf16 or "bf16" not in name)


if __name__ == "__main__":
    main()
