"""Worker process that fills masks with an artefact: `JOB.json ANSWER.json`.

The job holds the `path` of the artefact, `texts` to fill, `ids` of texts with the `places` of their masks, and a
`folder` for the log-probabilities there. The answer holds the `fills` of the texts, and the ids of the texts without
masks as `encoded`.
"""

from __future__ import annotations

from pathlib import Path


def main() -> None:
    """Do the job."""
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    import numpy as np

    from kerasgen.exporters.masked_graphs import _TEXTS
    from kerasgen.runtime import load_artefact

    runtime = load_artefact(job["path"])
    for n, (ids, places) in enumerate(zip(job["ids"], job["places"], strict=True)):
        (found,) = runtime.log_probabilities([ids], [places])  # type: ignore[attr-defined]
        np.save(Path(job["folder"]) / f"{n}.npy", found)
    fills = [runtime.fill(text, top=3) for text in job["texts"]]  # type: ignore[attr-defined]
    jobs.answer(
        {
            "fills": [[{"token_ids": way.token_ids, "probability": way.probability} for way in ways] for ways in fills],
            "encoded": [runtime.tokenizer.encode(text) for text in _TEXTS],
        }
    )


if __name__ == "__main__":
    main()
