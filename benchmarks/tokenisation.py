"""Documents a second: the tokenizer of kerasgen against KerasHub's in tf.data, on the same texts, in turns.

    python -m benchmarks.tokenisation --json tokenisation.json

Both have GPT-2's genuine vocabulary. KerasHub's is given what its own recipe gives it: a `tf.data` pipeline, mapped in
parallel and prefetched. What is timed is text to ids; making the tokenizers and the graphs stands apart.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import arguments_of, bar, report
from benchmarks.vocabulary import QUICK, Size, _gpt2_tokenizer, _poems, _stories

AT_LEAST = 10.0
THEIRS_AT_ONCE = 64


def compare(*, quick: bool, turns: int = 3) -> dict[str, Any]:
    """Return rows of documents per second and the bar; `benchmarks.training` can take it in."""
    size = QUICK if quick else Size(stories=400, poems=4_000)
    tokenizer = _gpt2_tokenizer()
    theirs = _keras_hub(tokenizer)
    rows, bars = [], []
    for corpus, texts in (("Tang poems", _poems(size, quick)), ("English stories", _stories(size, quick))):
        texts = texts[: size.poems if corpus == "Tang poems" else size.stories]
        # Theirs is slow, so each turn has a few texts of its own: it remembers words that it has seen.
        share = max(1, min(THEIRS_AT_ONCE, len(texts) // (turns + 1)))
        datasets = [theirs(texts[turn * share : (turn + 1) * share]) for turn in range(turns + 1)]
        tokenizer.encode_batch(texts[:share])
        _drain(datasets.pop(0))
        ours_seconds, theirs_seconds = [], []
        for dataset in datasets:
            theirs_seconds.append(_seconds(_drain, dataset) / share)
            ours_seconds.append(_seconds(tokenizer.encode_batch, texts) / len(texts))
        ours_rate, theirs_rate = 1 / statistics.median(ours_seconds), 1 / statistics.median(theirs_seconds)
        rows += [
            {"corpus": corpus, "tokenizer": "KerasHub, tf.data", "documents_per_second": theirs_rate},
            {"corpus": corpus, "tokenizer": "kerasgen", "documents_per_second": ours_rate},
        ]
        ratio = ours_rate / theirs_rate
        bars.append(bar(f"documents/s, {corpus}, over KerasHub's tf.data tokenizer", ratio, at_least=AT_LEAST))
    return {"rows": rows, "bars": bars}


def _keras_hub(tokenizer: Any) -> Callable[[list[str]], Any]:
    """KerasHub's tokenizer as a function from texts to a tf.data pipeline that has its graph but has not run."""
    import keras_hub
    import tensorflow as tf

    theirs = keras_hub.tokenizers.GPT2Tokenizer(vocabulary=tokenizer.vocabulary, merges=tokenizer.merges)

    def pipeline(texts: list[str]) -> Any:
        data = tf.data.Dataset.from_tensor_slices(texts).batch(16)
        return data.map(theirs, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return pipeline


def _drain(dataset: Any) -> None:
    for _ in dataset:
        pass


def _seconds(function: Callable[[Any], Any], argument: Any) -> float:
    begin = time.perf_counter()
    function(argument)
    return time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    asked = arguments_of(__doc__).parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(asked.threads)
    found = compare(quick=asked.quick, turns=1 if asked.quick else 3)
    return report(found["rows"], found["bars"], asked.json)


if __name__ == "__main__":
    main()
