"""Worker process that loads an artefact and does a job: `python -m kerasgen.runtime JOB.json ANSWER.json`.

An exporter proves with it that what it wrote generates without the process that wrote it. The job holds `path`,
`settings` of the runtime, `calls` (arguments of `Runtime.generate_ids`), `texts` to encode, and `logits` (arguments of
what reads them, whose answers become `0.npy`, `1.npy` and so on in `folder`); the answer holds what each call returned
and took, which packages were loaded, and how much memory the process took.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kerasgen.runtime import job as jobs
from kerasgen.runtime.job import WATCHED

__all__ = ["WATCHED", "main"]


def main() -> None:
    """Do the job."""
    import numpy as np

    from kerasgen.runtime.loading import load_artefact

    job = jobs.read()
    began = time.perf_counter()
    runtime: Any = load_artefact(job["path"], **job.get("settings", {}))
    answer: dict[str, Any] = {"load_seconds": time.perf_counter() - began, "calls": [], "seconds": []}
    for call in job["calls"]:
        began = time.perf_counter()
        answer["calls"].append(runtime.generate_ids(**call))
        answer["seconds"].append(time.perf_counter() - began)
    answer["encoded"] = runtime.encode_batch(job["texts"]) if job.get("texts") else []
    for index, request in enumerate(job.get("logits", [])):
        read = runtime.logits if "token_ids" in request else runtime.branched_logits
        np.save(Path(job["folder"]) / f"{index}.npy", read(**request))
    jobs.answer(answer)


if __name__ == "__main__":
    main()
