"""Two thousand short prompts through the starter, one process a library: `python -m benchmarks.generate_many NAME JOB`.

The job is a JSON file with the folder of the starter's files: a directory that transformers loads, and what CTranslate2
makes of it. A line on standard input asks for texts of prompts; the answer is a line with the seconds and the texts.
Either library gets strings and gives strings.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Generate = Callable[[dict[str, Any]], list[str]]
CHARACTERS = "春江潮水連海平明月共生灩隨波千萬里何處無白日依山盡黃河入流欲窮目更上一層樓床前看光疑是地霜舉頭望低思故鄉"


def task(count: int, more: int) -> dict[str, Any]:
    """Prompts of two to five characters, the same ones each time."""
    rng = np.random.default_rng(0)
    letters = list(CHARACTERS)
    prompts = ["".join(rng.choice(letters, length)) for length in rng.integers(2, 6, count)]
    return {"prompts": prompts, "more": more}


def write_files(job: dict[str, Any]) -> None:
    """Write the starter for transformers, and convert it for CTranslate2."""
    import ctranslate2.converters

    import kerasgen as kg

    kg.Pipeline(model="starter").export(f"{job['folder']}/transformers", exporter="transformers")
    converter = ctranslate2.converters.TransformersConverter(f"{job['folder']}/transformers")
    converter.convert(f"{job['folder']}/ctranslate2")


def kerasgen_writes(job: dict[str, Any]) -> Generate:
    """As a person would write it."""
    import kerasgen as kg

    pipe = kg.Pipeline(model="starter", sampler="greedy")

    def run(task: dict[str, Any]) -> list[str]:
        return pipe.generate(task["prompts"], max_new_tokens=task["more"], return_prompt=False)

    return run


def ctranslate2_writes(job: dict[str, Any]) -> Generate:
    """With the tokenizers library before and after it, 32 texts at once."""
    import ctranslate2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{job['folder']}/transformers/tokenizer.json")
    generator = ctranslate2.Generator(f"{job['folder']}/ctranslate2", device="cpu", intra_threads=job["threads"])
    config = json.loads(Path(job["folder"], "transformers", "config.json").read_text())
    start = tokenizer.id_to_token(config["bos_token_id"])

    def run(task: dict[str, Any]) -> list[str]:
        tokens = [[start, *one.tokens] for one in tokenizer.encode_batch(task["prompts"], add_special_tokens=False)]
        found = generator.generate_batch(
            tokens, max_length=task["more"], include_prompt_in_result=False, max_batch_size=32, beam_size=1
        )
        return list(tokenizer.decode_batch([one.sequences_ids[0] for one in found]))

    return run


CONTENDERS = {"kerasgen": kerasgen_writes, "ctranslate2": ctranslate2_writes}


def main(arguments: Sequence[str]) -> None:
    """Answer tasks until standard input ends."""
    os.environ["KERAS_BACKEND"] = "jax"
    job = json.loads(Path(arguments[1]).read_text())
    if arguments[0] == "write files":
        write_files(job)
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    run = CONTENDERS[arguments[0]](job)
    for line in sys.stdin:
        begun, busy = time.perf_counter(), time.process_time()
        texts = run(json.loads(line))
        answer = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "texts": texts}
        # Of the whole process, with what it took to begin.
        answers.write(json.dumps(answer | {"process_cpu_seconds": time.process_time()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
