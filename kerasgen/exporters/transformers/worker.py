"""Worker process in which kerasgen loads a model's directory, reads texts and generates, as the job says.

`python -m kerasgen.exporters.transformers.worker JOB.json ANSWER.json`. The job holds `path`, the Keras `backend`,
`read` (ids whose logits become `logits.npy` in `folder`), `prompts` as ids without the start token, and how many
`new_tokens` follow each. The `tokenizers` library alone encodes the `texts`, and decodes the ids that are `shown`
without special tokens.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job."""
    from kerasgen import backend
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    backend.use(job["backend"])
    import numpy as np
    from tokenizers import Tokenizer

    from kerasgen.exporters.parity import comparison
    from kerasgen.exporters.validation import byte_level
    from kerasgen.models.loading import load_directory

    began = time.perf_counter()
    model = load_directory(job["path"], source="export")
    loaded = time.perf_counter() - began
    tokenizer = byte_level(model.tokenizer) or model.tokenizer
    answer: dict[str, Any] = {"load_seconds": loaded, "digest": tokenizer.digest()}
    theirs = Tokenizer.from_file(str(Path(job["path"]) / "tokenizer.json"))
    answer["encoded"] = [theirs.encode(text, add_special_tokens=False).ids for text in job["texts"]]
    answer["shown"] = [theirs.decode(ids, skip_special_tokens=True) for ids in job["shown"]]
    np.save(Path(job["folder"]) / "logits.npy", comparison.logits(model, job["read"]))

    prompts, counts = job["prompts"], job["new_tokens"]
    answer["alone"], answer["seconds"] = [], []
    for prompt, count in zip(prompts, counts, strict=True):
        began = time.perf_counter()
        answer["alone"] += comparison.greedy(model, [prompt], count)
        answer["seconds"].append(time.perf_counter() - began)
    answer["together"] = comparison.greedy(model, prompts, min(counts))
    jobs.answer(answer)


if __name__ == "__main__":
    main()
