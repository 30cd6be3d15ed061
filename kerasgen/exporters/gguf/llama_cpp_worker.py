"""Worker process that runs llama.cpp: `python -m kerasgen.exporters.gguf.llama_cpp_worker JOB.json ANSWER.json`.

It knows a GGUF file and the package `xllamacpp`, whose server answers on this machine alone. The job holds `path`,
`chunk` (tokens that are read at once), `longest` (tokens of a text), pairs of a prompt and of new tokens to continue it
by greedily, each `alone` and all `together`, `texts` to encode, `chats` with their `messages` and the `text` that the
chat template writes of them, and `prefixes` with a `count`: of how many tokens that may come next it tells the
log-probability, the likeliest first. Texts that are written are parts of the answer as well, which come at once.

With `ends` another job follows at the end: a `prompt`, how many `new_tokens`, and a `bias` of one token's logit.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def main() -> None:
    """Do the job."""
    import xllamacpp

    from kerasgen.exporters.gguf.server import LlamaCpp
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    # Its threads busy-wait for each other: if another process holds one core, all of them are slow.
    threads = max((os.cpu_count() or 2) // 2, 1)
    began = time.perf_counter()
    texts = max(len(job["together"]), 1)
    model = LlamaCpp(job["path"], chunk=job["chunk"], longest=job["longest"], texts=texts, threads=threads, strict=True)
    loaded = time.perf_counter()
    ids: list[list[int]] = []
    for request in job["alone"]:
        ids.append(model.further(*request))
        jobs.give_part({"ids": ids})
    seconds = time.perf_counter() - loaded
    with ThreadPoolExecutor(texts) as callers:  # the server reads what it is asked at one time in one batch
        together = list(callers.map(model.further, *zip(*job["together"], strict=True))) if job["together"] else []
    if together:
        jobs.give_part({"together": together})
    encoded = [model.tokenize(text, start=False) for text in job["texts"]]
    answer: dict[str, Any] = {
        "version": xllamacpp.__version__,
        "load_seconds": loaded - began,
        "ids": ids,
        "seconds": seconds,
        "together": together,
        "encoded": encoded,
        "started": [model.tokenize(text, start=True) for text in job["texts"]],
        "decoded": [model.detokenize(token_ids) for token_ids in encoded],
        "chat_ids": [model.tokenize(talk["text"], start=False, special=True) for talk in job["chats"]],
        "chat_texts": [model.chat_text(talk["messages"]) for talk in job["chats"]],
        "chat_lengths": [model.chat_length(talk["messages"]) for talk in job["chats"]],
        "log_probabilities": [
            model.log_probabilities(prefix["ids"], count=prefix["count"], forced=job["forced"])
            for prefix in job["prefixes"]
        ],
    }
    if job["ends"]:
        ending = jobs.read_further()
        ended = model.complete(ending["prompt"], ending["new_tokens"], logit_bias=[ending["bias"]])
        answer |= {"ended": ended["tokens"], "ended_by": ended["stop_type"]}
    jobs.answer(answer)


if __name__ == "__main__":
    main()
