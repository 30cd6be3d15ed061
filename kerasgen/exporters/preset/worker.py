"""Worker process in which KerasHub alone loads a preset, reads texts and generates, as the job says.

`python -m kerasgen.exporters.preset.worker JOB.json ANSWER.json`. The job holds `path`, the Keras `backend`, `texts`
to encode, `read` (ids whose logits become `logits.npy` in `folder`), `prompts` as ids without the start token, the
last of which is generated from alone too, and `max_length` of a text. Tokenizer, packer and `generate` are KerasHub's
own.
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
    import keras
    import keras_hub
    import numpy as np

    began = time.perf_counter()
    causal_lm = keras_hub.models.CausalLM.from_preset(job["path"])
    causal_lm.compile(sampler="greedy")
    answer: dict[str, Any] = {"load_seconds": time.perf_counter() - began, "version": keras_hub.__version__}
    tokenizer = causal_lm.preprocessor.tokenizer
    answer["encoded"] = [np.asarray(tokenizer(text)).tolist() for text in job["texts"]]

    ids = np.asarray([job["read"]], np.int32)
    logits = causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}, training=False)
    np.save(Path(job["folder"]) / "logits.npy", np.asarray(keras.ops.convert_to_numpy(logits)[0], np.float32))

    generator = Generator(causal_lm, job["max_length"])
    answer["packed"] = generator.packed(job["prompts"])
    answer["together"] = generator.generate(job["prompts"])
    answer["alone"] = generator.generate(job["prompts"][-1:])
    began = time.perf_counter()
    generator.generate(job["prompts"][-1:])  # what KerasHub compiles, it has compiled by now
    answer["seconds"] = time.perf_counter() - began
    jobs.answer(answer)


class Generator:
    """Generates by KerasHub from ids: does the work of KerasHub's preprocessor, apart from the text."""

    def __init__(self, causal_lm: Any, max_length: int) -> None:
        self._causal_lm, self._max_length = causal_lm, max_length
        self._preprocessor = causal_lm.preprocessor
        self._preprocessor.build(None)
        causal_lm.preprocessor = None

    def _inputs(self, prompts: list[list[int]]) -> dict[str, Any]:
        ids, mask = self._preprocessor.packer(
            prompts,
            sequence_length=self._max_length,
            add_start_value=self._preprocessor.add_start_token,
            add_end_value=False,
        )
        return {"token_ids": ids, "padding_mask": mask}

    def packed(self, prompts: list[list[int]]) -> list[list[int]]:
        """Return the ids of each prompt as the packer makes them, without the padding."""
        return _unpadded(self._inputs(prompts))

    def generate(self, prompts: list[list[int]], *, end: int | None = None) -> list[list[int]]:
        """Return the ids after each prompt of a batch, up to the end token, which is among them."""
        stop = None if end is None else [end]
        texts = _unpadded(self._causal_lm.generate(self._inputs(prompts), stop_token_ids=stop))
        return [text[len(prompt) :] for text, prompt in zip(texts, self.packed(prompts), strict=True)]


def _unpadded(packed: dict[str, Any]) -> list[list[int]]:
    import numpy as np

    rows = zip(np.asarray(packed["token_ids"]), np.asarray(packed["padding_mask"]).astype(bool), strict=True)
    return [ids[mask].tolist() for ids, mask in rows]


if __name__ == "__main__":
    main()
