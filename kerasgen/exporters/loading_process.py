"""A fresh process in which kerasgen loads a directory with a model, reads, and generates, as the job says.

`python -m kerasgen.exporters.loading_process JOB.json ANSWER.json`. The job holds `path`, the Keras `backend`, `read`
(ids whose logits become `logits.npy` in `folder`), whether the model `starts` a text with a token of its own, `prompts`
as ids without it, how many `new_tokens` follow each, and `end`, a token that ends the last call's texts, or None.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasgen.tokens.bpe import ByteLevelBPE


def main() -> None:
    """Do the job."""
    from kerasgen import backend
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    backend.use(job["backend"])
    import numpy as np

    from kerasgen.exporters import comparing
    from kerasgen.models.loading import load_directory

    began = time.perf_counter()
    model = load_directory(job["path"], source="export")
    if not job["starts"]:
        # The format has no place for it: who reads a GPT-2 in it puts a start token before a text, or doesn't.
        model = replace(model, tokenizer=_without_start(model.tokenizer))
    found: dict[str, Any] = {"load_seconds": time.perf_counter() - began, "digest": model.tokenizer.digest()}
    np.save(Path(job["folder"]) / "logits.npy", comparing.logits(model, job["read"]))

    prompts, counts = job["prompts"], job["new_tokens"]
    found["alone"], found["seconds"] = [], []
    for prompt, count in zip(prompts, counts, strict=True):
        began = time.perf_counter()
        found["alone"] += comparing.greedy(model, [prompt], [count])
        found["seconds"].append(time.perf_counter() - began)
    found["together"] = comparing.ids_of(comparing.unending(model), prompts, "greedy", min(counts))
    end = comparing.never(model.tokenizer) if job["end"] is None else job["end"]
    found["ended"] = comparing.ids_of(comparing.unending(model).ending_at(end), prompts, "greedy", min(counts))
    jobs.answer(found)


def _without_start(tokenizer: Any) -> ByteLevelBPE:
    ends = {"end_token": tokenizer.end_token, "pad_token": tokenizer.pad_token}
    return ByteLevelBPE(tokenizer.vocabulary, tokenizer.merges, start_token=None, **ends)


if __name__ == "__main__":
    main()
