"""Writes a KerasHub model as a SavedModel in a process on TensorFlow, whatever the caller's backend.

`python -m kerasgen.exporters.saved_model.worker JOB.json ANSWER.json`: the job says where the model lies as Keras
wrote it, where its tokenizer lies if the graph is to hold one, and what `save` takes besides; the answer names the
signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgen import backend
from kerasgen.constraints.valid_utf8 import Utf8Masks, masks_of
from kerasgen.errors import ExportError
from kerasgen.exporters.parity import worker
from kerasgen.files import temporary
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE

_MODEL, _TOKENIZER, _UTF8 = "model.keras", "tokenizer.json", "utf8.npy"
_IDS = ("start_token_id", "end_token_id", "pad_token_id", "vocabulary_size")


def write(
    model: LanguageModel,
    path: Path,
    *,
    samplers: Sequence[str],
    num_beams: int,
    length_penalty: float,
    max_sequence_length: int,
) -> list[str]:
    """Write the SavedModel of a KerasHub model and return the names of its signatures.

    Args:
        model: any causal model; adapters are added in.
        path: the path of the directory.
        samplers: which signatures to write.
        num_beams: the number of beams of `beam`.
        length_penalty: the length penalty of `beam`.
        max_sequence_length: tokens of a text.

    Raises:
        ExportError: TensorFlow can't do it; the message holds the end of what it said.
    """
    with temporary.folder() as folder:
        job = {
            "folder": folder,
            "path": str(path),
            "tokenizer": _keep(model, Path(folder)),
            "ids": {name: getattr(model.tokenizer, name) for name in _IDS},
            "ends": list(model.tokenizer.end_token_ids),
            "utf8": _keep_utf8(model, Path(folder)),
            "samplers": list(samplers),
            "num_beams": num_beams,
            "length_penalty": length_penalty,
            "max_sequence_length": max_sequence_length,
        }
        try:
            answer = worker.run(__name__, job)
        except ExportError as cause:
            raise ExportError(f"A {type(model.causal_lm).__name__} was not written as a SavedModel: {cause}") from cause
        names: list[str] = answer["signatures"]
        return names


def _keep(model: LanguageModel, folder: Path) -> dict[str, Any] | None:
    """Write the model for the other process; return the settings of its tokenizer if a graph can hold it."""
    from kerasgen.exporters.validation import held_in_graph
    from kerasgen.models.saving import bare_task

    bare_task(model).save(folder / _MODEL)
    tokenizer = held_in_graph(model.tokenizer)
    if tokenizer is None:
        return None
    (folder / _TOKENIZER).write_text(tokenizer.to_tokenizer_json(), encoding="utf-8")
    return {name: getattr(tokenizer, name) for name in ("start_token", "end_token", "pad_token")}


def _keep_utf8(model: LanguageModel, folder: Path) -> bool:
    """Write the table that keeps texts valid UTF-8; returns whether there is one."""
    masks = masks_of(model.tokenizer)
    if masks is not None:
        np.save(folder / _UTF8, masks.steps)
    return masks is not None


def main() -> None:
    """Do the job."""
    from kerasgen.runtime import job as jobs

    backend.use("tensorflow")
    job = jobs.read()
    import keras
    import keras_hub  # noqa: F401  the classes that the file names

    from kerasgen.exporters.saved_model.hub import HubDecoder
    from kerasgen.exporters.saved_model.signatures import save

    folder, ids = Path(job["folder"]), job["ids"]
    tokenizer = None
    if job["tokenizer"] is not None:
        tokenizer = ByteLevelBPE.from_tokenizer_json(folder / _TOKENIZER, **job["tokenizer"])
    decoder = HubDecoder(
        keras.saving.load_model(folder / _MODEL, compile=False),
        vocabulary_size=ids["vocabulary_size"],
        max_sequence_length=job["max_sequence_length"],
        pad_token_id=ids["pad_token_id"],
    )
    names = save(
        decoder,
        Path(job["path"]),
        tokenizer=tokenizer,
        utf8=Utf8Masks(np.load(folder / _UTF8)) if job["utf8"] else None,
        start_token_id=ids["start_token_id"],
        end_token_id=ids["end_token_id"],
        end_token_ids=job["ends"],
        samplers=job["samplers"],
        max_sequence_length=job["max_sequence_length"],
        num_beams=job["num_beams"],
        length_penalty=job["length_penalty"],
    )
    jobs.answer({"signatures": names})


if __name__ == "__main__":
    main()
