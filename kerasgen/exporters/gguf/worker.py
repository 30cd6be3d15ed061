"""Worker process that reads a GGUF file: `python -m kerasgen.exporters.gguf.worker JOB.json ANSWER.json`.

It knows the file, the package `gguf` and NumPy. The job holds `path`, `prompts` and `new_tokens` to continue greedily,
`texts` to encode, and a `probe` whose logits it writes to `logits`.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any


def digests(by_name: dict[str, Any]) -> dict[str, str]:
    """Return a SHA-256 of each tensor, its shape included, as float32."""
    import numpy as np

    from kerasgen import huge_pages

    def of(tensor: Any) -> str:
        array = huge_pages.contiguous(np.asarray(tensor, dtype="<f4"))
        digest = hashlib.sha256(str(array.shape).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    return {name: of(tensor) for name, tensor in by_name.items()}


def main() -> None:
    """Do the job."""
    import numpy as np

    from kerasgen.decoder.numpy import NumpyDecoder, greedy
    from kerasgen.exporters.gguf import file_format as gguf_file
    from kerasgen.models.architectures import tensors
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    began = time.perf_counter()
    architecture, config, weights, vocabulary = gguf_file.read(Path(job["path"]))
    loaded = time.perf_counter()
    never = config.vocabulary_size
    ids = [
        greedy(config, weights, prompt, new_tokens=count, end=never)
        for prompt, count in zip(job["prompts"], job["new_tokens"], strict=True)
    ]
    seconds = time.perf_counter() - loaded
    np.save(job["logits"], NumpyDecoder(config, weights).read(job["probe"]))
    tokenizer = vocabulary.tokenizer()
    jobs.answer(
        {
            "load_seconds": loaded - began,
            "config": repr(config),
            "digests": digests(tensors.write(architecture, config, weights, "gguf")),
            "vocabulary": vars(vocabulary),
            "encoded": [tokenizer.encode(text) for text in job["texts"]],
            "ids": ids,
            "seconds": seconds,
        }
    )


if __name__ == "__main__":
    main()
