"""A fresh process that reads a GGUF file: `python -m kerasgen.exporters.gguf.worker JOB.json ANSWER.json`.

It knows the file, the package `gguf` and NumPy. The job holds `path`, `prompts` and `new_tokens` to continue greedily,
`texts` to encode, and a `probe` whose logits it writes to `logits`.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any


def digests(tensors: dict[str, Any]) -> dict[str, str]:
    """Return a SHA-256 of each tensor, its shape included, as float32."""
    import numpy as np

    arrays = {name: np.ascontiguousarray(tensor, dtype="<f4") for name, tensor in tensors.items()}
    return {name: hashlib.sha256(str(one.shape).encode() + one.tobytes()).hexdigest() for name, one in arrays.items()}


def main() -> None:
    """Do the job."""
    import dataclasses

    import numpy as np

    from kerasgen.decoder.numpy import NumpyDecoder, greedy
    from kerasgen.exporters.gguf import file as gguf_file
    from kerasgen.models.families.base import named
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    began = time.perf_counter()
    weights, shape, vocabulary = gguf_file.read(Path(job["path"]))
    config, by_name = shape.config, named(weights)
    loaded = time.perf_counter()
    never = shape.vocabulary_size
    ids = [
        greedy(config, by_name, prompt, new_tokens=count, end=never)
        for prompt, count in zip(job["prompts"], job["new_tokens"], strict=True)
    ]
    seconds = time.perf_counter() - loaded
    np.save(job["logits"], NumpyDecoder(config, by_name).read(job["probe"]))
    tokenizer = vocabulary.tokenizer()
    jobs.answer(
        {
            "load_seconds": loaded - began,
            "shape": dataclasses.asdict(shape),
            "digests": digests(gguf_file.tensors(weights)),
            "vocabulary": dataclasses.asdict(vocabulary),
            "encoded": [tokenizer.encode(text) for text in job["texts"]],
            "ids": ids,
            "seconds": seconds,
        }
    )


if __name__ == "__main__":
    main()
