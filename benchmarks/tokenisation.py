"""Documents a second: the tokenizer of kerasgen against KerasHub's in tf.data, on the same texts, in turns.

    python -m benchmarks.tokenisation --json tokenisation.json
    python -m benchmarks.tokenisation --gigabyte --json gigabyte.json
    python -m benchmarks.tokenisation --libraries --json libraries.json

Both have GPT-2's genuine vocabulary. KerasHub's is given what its own recipe gives it: a `tf.data` pipeline, mapped in
parallel and prefetched. What is timed is text to ids, of the same documents, after each took a few to warm up: making
the tokenizers, the graphs and the pipelines stands apart. `--gigabyte` stores a gigabyte of posts instead, and tells
the most memory that it took. `--libraries` compares tokenizers of other families with the library that each is built
on, `tokenizers` or `sentencepiece`, which may use as many threads; vocabularies but GPT-2's are the tests' small ones.
"""

from __future__ import annotations

import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments_of, bar, report
from benchmarks.vocabulary import QUICK, Size, _gpt2_tokenizer, _poems, _stories

AT_LEAST = 10.0
AT_ONCE = 192  # documents of a turn, at most: theirs is slow
ARCHIVE = Path(__file__).parents[1] / "tests" / "tokens" / "families.tar.xz"
FAMILIES = ("qwen3", "gemma", "llama_model")
WARM_UP = 16  # documents of one batch of theirs, before the clock starts


def compare(*, quick: bool, turns: int = 3) -> dict[str, Any]:
    """Return rows of documents per second and the bar; `benchmarks.training` can take it in."""
    size = QUICK if quick else Size(stories=400, poems=4_000)
    tokenizer = _gpt2_tokenizer()
    theirs = _keras_hub(tokenizer)
    rows, bars = [], []
    for corpus, texts in (("Tang poems", _poems(size, quick)), ("English stories", _stories(size, quick))):
        texts = texts[: size.poems if corpus == "Tang poems" else size.stories]
        # Each turn has texts of its own: KerasHub's remembers words that it has seen.
        share = min(WARM_UP + AT_ONCE, len(texts) // turns)
        ours_seconds, theirs_seconds = [], []
        for turn in range(turns):
            of_turn = texts[turn * share : (turn + 1) * share]
            warming, timed = of_turn[:WARM_UP], of_turn[WARM_UP:]
            _drain(theirs(warming))
            # A pipeline of their own, not begun: one that has given its first batch has worked at those after it.
            theirs_seconds.append(_seconds(_drain, theirs(timed)))
            tokenizer.encode_batch(warming)
            ours_seconds.append(_seconds(tokenizer.encode_batch, timed))
        count = share - WARM_UP
        ours_rate, theirs_rate = count / statistics.median(ours_seconds), count / statistics.median(theirs_seconds)
        rows += [
            {"corpus": corpus, "tokenizer": "KerasHub, tf.data", "documents_per_second": theirs_rate},
            {"corpus": corpus, "tokenizer": "kerasgen", "documents_per_second": ours_rate},
        ]
        ratio = ours_rate / theirs_rate
        bars.append(bar(f"documents/s, {corpus}, over KerasHub's tf.data tokenizer", ratio, at_least=AT_LEAST))
    return {"rows": rows, "bars": bars}


def libraries(*, quick: bool, threads: int, turns: int = 5) -> dict[str, Any]:
    """Return rows of characters per second of each family's tokenizer and of the library that it is built on."""
    from kerasgen.tokens.pretrained import PretrainedTokenizer

    size = QUICK if quick else Size(stories=400, poems=4_000)
    texts = [*_stories(size, quick)[: size.stories], *_poems(size, quick)[: size.poems]]
    characters = sum(map(len, texts))
    rows, bars = [], []
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        ours: dict[str, Any] = {"gpt2": _gpt2_tokenizer()}
        ours |= {family: PretrainedTokenizer.from_directory(Path(folder, family)) for family in FAMILIES}
        for family, tokenizer in ours.items():
            library, theirs = _library(tokenizer, Path(folder, family), threads)
            seconds: dict[str, list[float]] = {"kerasgen": [], library: []}
            assert theirs(texts[:WARM_UP]) == tokenizer.encode_batch(texts[:WARM_UP])
            for _ in range(turns):
                seconds["kerasgen"].append(_seconds(tokenizer.encode_batch, texts))
                seconds[library].append(_seconds(theirs, texts))
            rates = {name: characters / statistics.median(taken) for name, taken in seconds.items()}
            rows += [
                {
                    "family": family,
                    "tokenizer": name,
                    "tokens": tokenizer.vocabulary_size,
                    "characters_per_second": rate,
                }
                for name, rate in rates.items()
            ]
            bars.append(bar(f"characters/s, {family}, x {library}", rates["kerasgen"] / rates[library], at_least=0.7))
    return {"rows": rows, "bars": bars}


def _library(tokenizer: Any, directory: Path, threads: int) -> tuple[str, Callable[[list[str]], list[list[int]]]]:
    """The name of the library that a tokenizer is built on, and what encodes texts by it, names in them as text."""
    if (directory / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
        return "sentencepiece", lambda texts: processor.encode(texts, num_threads=threads)
    from tokenizers import Tokenizer

    rust = Tokenizer.from_str(tokenizer.to_tokenizer_json())
    rust.encode_special_tokens = True
    return "tokenizers", lambda texts: [e.ids for e in rust.encode_batch(texts, add_special_tokens=False)]


def _keras_hub(tokenizer: Any) -> Callable[[list[str]], Any]:
    """KerasHub's tokenizer as a function from texts to a tf.data pipeline that has its graph but has not run."""
    import keras_hub
    import tensorflow as tf

    theirs = keras_hub.tokenizers.GPT2Tokenizer(vocabulary=tokenizer.vocabulary, merges=tokenizer.merges)

    def pipeline(texts: list[str]) -> Any:
        data = tf.data.Dataset.from_tensor_slices(texts).batch(WARM_UP)
        return data.map(theirs, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return pipeline


def _drain(batches: Any) -> None:
    for _ in batches:
        pass


def _seconds(function: Callable[[Any], Any], argument: Any) -> float:
    begin = time.perf_counter()
    function(argument)
    return time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = arguments_of(__doc__)
    parser.add_argument("--gigabyte", action="store_true", help="store a gigabyte of posts, and nothing else")
    parser.add_argument("--libraries", action="store_true", help="compare with the libraries below, and nothing else")
    asked = parser.parse_args(arguments)
    if asked.libraries:
        os.environ["RAYON_NUM_THREADS"] = str(asked.threads)
        found = libraries(quick=asked.quick, threads=asked.threads)
        return report(found["rows"], found["bars"], asked.json)
    if asked.gigabyte:
        from benchmarks.tokenisation_store import measure

        found = measure(quick=asked.quick, threads=asked.threads)
        return report(found["rows"], found["bars"], asked.json)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(asked.threads)
    found = compare(quick=asked.quick, turns=1 if asked.quick else 3)
    return report(found["rows"], found["bars"], asked.json)


if __name__ == "__main__":
    main()
