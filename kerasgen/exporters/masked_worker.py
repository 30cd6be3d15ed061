"""Worker process that computes the logits of masked language models' files by KerasHub, transformers or kerasgen.

`python -m kerasgen.exporters.masked_worker JOB.json ANSWER.json`. The job holds `path`, the Keras `backend`, the
`reader`, `ids` whose logits become `logits.npy` in `folder`, and `texts` to encode, which transformers and kerasgen do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job."""
    import numpy as np

    from kerasgen.runtime import job as jobs

    job = jobs.read()
    ids = np.asarray(job["ids"], np.int32)
    read = {"preset": _by_keras_hub, "transformers": _by_transformers, "kerasgen": _by_kerasgen}[job["reader"]]
    logits, encoded, version = read(job, ids)
    np.save(Path(job["folder"]) / "logits.npy", np.asarray(logits, np.float32))
    jobs.answer({"version": version, "encoded": encoded})


def _by_keras_hub(job: dict[str, Any], ids: Any) -> tuple[Any, Any, str]:
    from kerasgen import backend

    backend.use(job["backend"])
    import keras
    import keras_hub
    import numpy as np

    task = keras_hub.models.MaskedLM.from_preset(job["path"], preprocessor=None, dtype="float32")
    places = np.zeros_like(ids) + np.arange(ids.shape[1], dtype=np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "mask_positions": places}
    if "segment_ids" in task.backbone.input:
        inputs["segment_ids"] = np.zeros_like(ids)
    return keras.ops.convert_to_numpy(task(inputs, training=False)), None, keras_hub.__version__


def _by_transformers(job: dict[str, Any], ids: Any) -> tuple[Any, Any, str]:
    import torch
    import transformers

    model = transformers.AutoModelForMaskedLM.from_pretrained(job["path"], dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["path"])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.ones(ids.shape).long()).logits.numpy()
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job["texts"]]
    return logits, encoded, transformers.__version__


def _by_kerasgen(job: dict[str, Any], ids: Any) -> tuple[Any, Any, str]:
    from kerasgen import __version__, backend

    backend.use(job["backend"])
    import keras
    import numpy as np

    from kerasgen.models.hub import Hub

    model: Any = Hub(job["path"]).load()
    positions = np.zeros_like(ids) + np.arange(ids.shape[1], dtype=np.int32)
    logits = model.network({"token_ids": ids, "positions": positions, "segment_ids": np.ones_like(ids)})
    encoded = [model.tokenizer.encode(text) for text in job["texts"]]
    return keras.ops.convert_to_numpy(logits), encoded, __version__


if __name__ == "__main__":
    main()
