"""A fresh process that loads an artefact and does what a job says: `python -m kerasgen.runtime JOB.json ANSWER.json`.

An exporter proves with it that what it wrote generates without the process that wrote it. The job holds `path`,
`settings` of the runtime, `calls` (arguments of `Runtime.generate_ids`; `end_token_of` names the token that an earlier
call put at a place) and `logits` (arguments of what reads them); the answer holds
what each call returned and took, which packages were loaded, and how much memory the process took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

WATCHED = ("keras", "keras_hub", "tensorflow", "tensorflow_text", "jax", "torch")


def main() -> None:
    """Do the job."""
    import numpy as np

    from kerasgen import devices
    from kerasgen.runtime.loading import load_artefact

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = Path(sys.argv[2])
    began = time.perf_counter()
    runtime: Any = load_artefact(job["path"], **job.get("settings", {}))
    found: dict[str, Any] = {"load_seconds": time.perf_counter() - began, "calls": [], "seconds": []}
    for call in job["calls"]:
        if "end_token_of" in call:
            number, place = call.pop("end_token_of")
            call["end_token_id"] = found["calls"][number][0][place]
        began = time.perf_counter()
        found["calls"].append(runtime.generate_ids(**call))
        found["seconds"].append(time.perf_counter() - began)
    for index, asked in enumerate(job.get("logits", [])):
        read = runtime.logits if "token_ids" in asked else runtime.branched_logits
        np.save(answer.with_suffix(f".{index}.npy"), read(**asked))
    found["modules"] = sorted(name for name in WATCHED if name in sys.modules)
    found["peak_bytes"] = devices.peak_memory_bytes()
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
