"""A fresh process that runs an isolated artefact: `python -m kerasgen.runtime.isolated_worker`, for `isolated`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from kerasgen.errors import KerasgenError, ModelFormatError


def main() -> None:
    """Answer one question after the other, until there are no more."""
    # What libraries print is not to be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    artefact = _Artefact()
    for line in sys.stdin.buffer:
        method, arguments = json.loads(line)
        try:
            reply = ["answer", getattr(artefact, method)(**arguments)]
        except KerasgenError as error:
            reply = ["error", [type(error).__name__, str(error)]]
        except MemoryError as error:
            reply = ["error", ["GenerationError", f"There is not enough memory: {error}."]]
        except Exception as error:  # a damaged artefact may raise anything
            reply = ["error", ["ModelFormatError", f"The artefact can't do this: {error!r:.500}. Export it again."]]
        answers.write(json.dumps(reply, allow_nan=False).encode() + b"\n")
        answers.flush()


class _Artefact:
    """The questions that the worker answers, as methods by their names."""

    def __init__(self) -> None:
        self._runtime: Any = None

    def load(self, path: str, settings: Mapping[str, Any], memory_bytes: int | None) -> dict[str, Any]:
        from kerasgen.runtime.loading import load_artefact

        if memory_bytes is not None:
            try:
                import resource
            except ImportError as cause:
                raise ModelFormatError("`memory_bytes` needs a system with POSIX's limits. Leave it out.") from cause
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        self._runtime = load_artefact(path, **settings)
        tokenizer = self._runtime.tokenizer
        names = ("vocabulary_size", "start_token_id", "end_token_id", "pad_token_id")
        return {
            "max_sequence_length": self._runtime.max_sequence_length,
            "tokenizer": {name: getattr(tokenizer, name) for name in names}
            | {
                "end_token_ids": list(tokenizer.end_token_ids),
                "strips_first_space": tokenizer.strips_first_space,
            },
        }

    def generate_ids(self, sampler: Mapping[str, Any], **asked: Any) -> Any:
        from kerasgen.samplers import REGISTRY

        return self._runtime.generate_ids(sampler=REGISTRY.from_manifest(sampler), **asked)

    def generate(self, prompts: Any, sampler: Mapping[str, Any], **asked: Any) -> Any:
        from kerasgen.samplers import REGISTRY

        return self._runtime.generate(prompts, sampler=REGISTRY.from_manifest(sampler), **asked)

    def logits(self, token_ids: list[int]) -> Any:
        return self._runtime.logits(token_ids).tolist()

    def encode_batch(self, texts: list[str]) -> Any:
        return self._runtime.tokenizer.encode_batch(texts)

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> Any:
        return self._runtime.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> str:
        return str(self._runtime.tokenizer.token_bytes(token_id).hex())

    def encode_with_special(self, text: str, allowed_special: Any) -> list[int]:
        return list(self._runtime.tokenizer.encode_with_special(text, allowed_special))

    def special_tokens(self) -> dict[str, int]:
        return dict(self._runtime.tokenizer.special_tokens)

    def digest(self) -> str:
        return str(self._runtime.tokenizer.digest())


if __name__ == "__main__":
    main()
