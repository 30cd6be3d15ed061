"""Verse of the starter: how much of it is well-formed beside people's own, and what does a constraint cost?

    python -m benchmarks.verse [--part free|constrained|all] [--preset DIR] [--poems ARCHIVE …] [--json FILE] [--quick]

Free texts are written without a constraint, from nothing, and stand beside as many held-out Tang poems: the share that
has a regulated form; of those, the shares with a level rhyme and with a tonal pattern; distinct-2 of a hundred texts;
the shares with mixed scripts and with a line that stands in the training poems, in whichever script. The held-out poems
are those that the tool that trains the starter holds out.

Constrained and unconstrained texts have the same number of tokens at most, in one process, in turns; what is compared
is tokens a second, for a constrained text is as long as its form and a free one is not.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import DATA, arguments_of, bar, report

FORM = "七言絕句"
AT_LEAST = 0.8
HELD_OUT = 0.1  # as tools/train_starter.py
TANG = DATA / "chinese-poetry.tang.tar.xz"
BARS = {"regulated": 0.95, "level_rhyme": 0.88, "tonal_pattern": 0.80, "distinct_2": 0.80}
MOST_BITS = 5.6
DISTINCT_OF = 100  # texts: of more of them, a smaller share of the pairs is new


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return 0 if every bar holds."""
    parser = arguments_of(__doc__)
    parser.add_argument("--part", choices=("free", "constrained", "all"), default="all")
    parser.add_argument("--preset", default="starter", help="the model: any that Pipeline takes (default: starter)")
    parser.add_argument("--poems", type=Path, action="append", help="what copied lines are looked for in, Tang first")
    parser.add_argument("--sampler", default="top_k:k=40", help="of the free texts")
    parser.add_argument("--free-texts", type=int, default=300)
    parser.add_argument("--texts", type=int, default=1000, help="constrained ones")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--held-out", type=int, default=0, help="score so many held-out poems at most (0: all)")
    chosen = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    quick = chosen.quick
    rows: list[dict[str, Any]] = []
    bars: list[dict[str, Any]] = []
    if chosen.part in ("free", "all"):
        found = run_free(
            chosen.preset,
            chosen.poems or [TANG],
            sampler=chosen.sampler,
            texts=8 if quick else chosen.free_texts,
            batch_size=4 if quick else chosen.batch_size,
            most_scored=20 if quick else chosen.held_out,
        )
        rows, bars = found["rows"], found["bars"]
    if chosen.part in ("constrained", "all"):
        found = run(
            texts=8 if quick else chosen.texts, batch_size=4 if quick else chosen.batch_size, preset=chosen.preset
        )
        rows, bars = rows + found["rows"], bars + found["bars"]
    report(rows, bars, chosen.json)
    return 0 if all(bar["holds"] for bar in bars) else 1


def run_free(
    preset: str, archives: Sequence[Path], *, sampler: str, texts: int, batch_size: int, most_scored: int
) -> dict[str, Any]:
    """Return rows and bars of free texts, of one script each and of people; no rows where the poems are not there."""
    missing = [str(archive) for archive in archives if not archive.exists()]
    if missing:
        print(f"No poems to compare with: {', '.join(missing)} is not there. Name the archive with --poems.")
        return {"rows": [], "bars": []}
    import kerasgen as kg

    training, held_out = _divided(archives)
    known = _lines(training)
    pipe = kg.Pipeline(model=preset, sampler=sampler)
    written = pipe.generate([""] * texts, batch_size=batch_size, max_new_tokens=96, seed=0)
    people = held_out[:: max(1, len(held_out) // texts)][:texts]
    rows = [{"name": name, **_figures(of, known)} for name, of in (("free", written), ("human", people))]
    bits = pipe.evaluate(held_out[:most_scored] if most_scored else held_out).bits_per_character
    rows[0]["bits_per_character"] = bits
    free = rows[0]
    bars = [bar("held-out Tang bits per character", bits, at_most=MOST_BITS)]
    bars += [bar(f"free texts: {name.replace('_', ' ')}", free[name], at_least=least) for name, least in BARS.items()]
    bars += [bar(f"free texts: {name}", free[name], at_most=0.0) for name in ("mixed_scripts", "copied_lines")]
    return {"rows": rows, "bars": bars}


def _divided(archives: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the training poems of all archives, and the held-out ones of the first."""
    from kerasgen.corpora.chinese_poetry import ChinesePoetry
    from kerasgen.corpora.held_out_split import DividedCorpus

    training: list[str] = []
    held_out: list[str] = []
    for archive in archives:
        dynasty = "tang" if archive == archives[0] else "song"
        corpus = DividedCorpus(ChinesePoetry(str(archive), dynasty=dynasty), HELD_OUT)
        training += corpus.texts("train")
        held_out = held_out or list(corpus.texts("held_out"))
    return training, held_out


def _figures(texts: Sequence[str], known: frozenset[str]) -> dict[str, Any]:
    from kerasgen.evaluation import diversity, generated

    found = generated.examine(texts, self_bleu=False)
    return {
        "texts": found.texts,
        "regulated": 1.0 - found.forms["other"],
        "level_rhyme": found.level_rhyme or 0.0,
        "tonal_pattern": found.tonal_pattern or 0.0,
        "distinct_2": diversity.distinct(texts[:DISTINCT_OF], 2),
        "mixed_scripts": found.mixed_scripts or 0.0,
        "copied_lines": sum(bool(_lines([text]) & known) for text in texts) / len(texts),
    }


def _lines(texts: Iterable[str]) -> frozenset[str]:
    """Return the lines of verse, simplified and with one form of each variant, so that scripts don't matter."""
    from kerasgen.corpora import verse, verse_variants

    lines = [line for text in texts for line in verse.lines(text) if len(line) > 3]
    return frozenset(_simplify()(verse_variants.fold("\n".join(lines))).split("\n")) if lines else frozenset()


@functools.cache
def _simplify() -> Any:
    import opencc

    return opencc.OpenCC("t2s").convert


def run(*, texts: int, batch_size: int, preset: str = "starter") -> dict[str, Any]:
    """Return rows and bars, as every benchmark module does."""
    import kerasgen as kg
    from kerasgen.generation import generate

    pipe = kg.Pipeline(model=preset, sampler=kg.TopK(k=40))
    form = kg.VerseForm(FORM)
    prompt = [""] * batch_size

    def write(constraint: kg.Constraint | None, seed: int) -> tuple[list[Any], float]:
        begin = time.perf_counter()
        written = generate(
            pipe.model,
            prompt,
            sampler=pipe.sampler,
            constraint=constraint,
            max_new_tokens=40,
            seed=seed,
            batch_size=batch_size,
            return_logprobs=True,
        )
        return written, time.perf_counter() - begin

    contenders = {"unconstrained": None, "constrained": form}
    for constraint in contenders.values():
        write(constraint, 0)  # compile, and fill the masks
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    right = dict.fromkeys(contenders, 0)
    turns = -(-texts // batch_size)
    for turn in range(1, turns + 1):
        for name, constraint in contenders.items():
            written, seconds = write(constraint, turn)
            speeds[name].append(sum(len(one.token_ids) for one in written) / seconds)
            right[name] += sum(form.matches(one.text) for one in written)
    count = turns * batch_size
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "tokens_per_second": statistics.median(speeds[name]),
            "texts": count,
            "well_formed": right[name] / count,
        }
        for name in contenders
    ]
    ratio = statistics.median(a / b for a, b in zip(speeds["constrained"], speeds["unconstrained"], strict=True))
    bars = [
        bar(f"share of {count} constrained texts that are well-formed", rows[1]["well_formed"], at_least=1.0),
        bar("constrained tokens/s against unconstrained", ratio, at_least=AT_LEAST),
    ]
    return {"rows": rows, "bars": bars}


if __name__ == "__main__":
    raise SystemExit(main())
