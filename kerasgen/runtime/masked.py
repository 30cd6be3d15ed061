"""Runs artefacts of masked language models: they fill masks, by TensorFlow or LiteRT."""

from __future__ import annotations

import atexit
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasgen import fork_safety, quiet
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.generation.config import GenerationConfig
from kerasgen.keywords import checked
from kerasgen.runtime import metadata, verifying
from kerasgen.runtime.base import Runtime, check_threads
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer


class MaskedRuntime(Runtime):
    """An artefact of a masked language model.

    Args:
        tokenizer: the tokenizer that it was exported with.
        max_sequence_length: tokens of a text at most, start and end tokens among them.

    Raises:
        ModelFormatError: the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: ByteLevelBPE | PretrainedTokenizer, max_sequence_length: int) -> None:
        if getattr(tokenizer, "mask_token", None) is None:
            raise ModelFormatError("The artefact fills masks, and its tokenizer has no mask token. Export it again.")
        self.tokenizer = tokenizer
        self.max_sequence_length = max_sequence_length

    @property
    def mask_token(self) -> str:
        """The token that stands for what is to be predicted, such as `<mask>`."""
        return str(self.tokenizer.mask_token)  # type: ignore[attr-defined]

    @property
    def mask_token_id(self) -> int:
        """Its id."""
        return int(self.tokenizer.mask_token_id)  # type: ignore[attr-defined]

    @checked(GenerateArgumentError)
    def fill(self, text: str | Iterable[str], *, top: int = 5, joint: bool = True) -> list[Any]:
        """Return the likeliest ways to fill the masks of a text; see `Pipeline.fill`.

        Raises:
            GenerateArgumentError: as there.
        """
        from kerasgen.masked import filling

        return filling.fill(self, text, top=top, joint=joint, predictor=self)

    @abstractmethod
    def log_probabilities(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Return for each text log p of every token at each of its places, float32 `(places, ids)`.

        Args:
            texts: ids, start and end tokens with them.
            places: positions in each text, at least one.
        """

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Refuse: an artefact of a masked language model writes no texts.

        Raises:
            GenerateArgumentError: always.
        """
        raise GenerateArgumentError(
            "This artefact predicts masked tokens: call fill(). To write texts, use the pipeline that it was exported "
            "from."
        )


class SavedModelFiller(MaskedRuntime):
    """A SavedModel with the signature `fill`, in TensorFlow."""

    def __init__(self, path: Path, tokenizer: Any, max_sequence_length: int) -> None:
        super().__init__(tokenizer, max_sequence_length)
        try:
            quiet.load("tensorflow")
            import tensorflow as tf
        except ImportError as cause:
            raise MissingDependencyError(
                "A SavedModel runs in TensorFlow: pip install 'kerasgen[tensorflow]'.",
                package="tensorflow",
                extra="tensorflow",
            ) from cause
        fork_safety.begin(fork_safety.TENSORFLOW)
        try:
            with quiet.quietly():
                self._module = tf.saved_model.load(str(path))
            self._fill = self._module.signatures["fill"]
            # Else the loaded module's finalizers call TensorFlow functions that no longer exist at Python's end.
            atexit.register(_let_go, weakref.ref(self))
        except Exception as cause:  # whatever TensorFlow raises of damaged files
            raise ModelFormatError(f"{path} can't be loaded: {cause}. Copy or export it again.") from cause
        self._tf = tf

    def log_probabilities(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Return log p of every token at each place; see `MaskedRuntime.log_probabilities`."""
        fork_safety.check(fork_safety.TENSORFLOW)
        found = []
        for ids, taken in zip(texts, places, strict=True):
            outputs = self._fill(
                token_ids=self._tf.constant([list(ids)], self._tf.int32),
                lengths=self._tf.constant([len(ids)], self._tf.int32),
                places=self._tf.constant([list(taken)], self._tf.int32),
            )
            found.append(outputs["log_probabilities"].numpy()[0])
        return found


class LiteRtFiller(MaskedRuntime):
    """A TFLite file with the signatures `fill_N`, in LiteRT."""

    def __init__(self, path: Path, tokenizer: Any, graph: dict[str, Any], *, threads: int) -> None:
        self._lengths, self._places = list(graph["lengths"]), int(graph["places"])
        super().__init__(tokenizer, max(self._lengths))
        try:
            with quiet.quietly():
                from ai_edge_litert.interpreter import Interpreter
        except ImportError as cause:
            raise MissingDependencyError(
                "A TFLite file runs in LiteRT: pip install 'kerasgen[runtime]'.",
                package="ai_edge_litert",
                extra="runtime",
            ) from cause
        try:
            with quiet.quietly():
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                runners = {length: interpreter.get_signature_runner(f"fill_{length}") for length in self._lengths}
        except (RuntimeError, ValueError) as cause:
            raise ModelFormatError(f"{path} can't be loaded: {cause}. Copy or export it again.") from cause
        self._interpreter, self._runners = interpreter, runners
        self._calls = threading.Lock()  # an interpreter has one set of tensors

    def log_probabilities(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Return log p of every token at each place; see `MaskedRuntime.log_probabilities`."""
        found = []
        for ids, taken in zip(texts, places, strict=True):
            length = next(length for length in self._lengths if length >= len(ids))
            token_ids = np.zeros((1, length), np.int32)
            token_ids[0, : len(ids)] = ids
            lengths = np.asarray([len(ids)], np.int32)
            of_text = []
            for first in range(0, len(taken), self._places):
                some = list(taken[first : first + self._places])
                at = np.zeros((1, self._places), np.int32)
                at[0, : len(some)] = some
                with self._calls:
                    outputs = self._runners[length](token_ids=token_ids, lengths=lengths, places=at)
                    of_text.append(np.array(outputs["log_probabilities"][0, : len(some)]))
            found.append(np.concatenate(of_text))
        return found


def _let_go(runtime: weakref.ref[SavedModelFiller]) -> None:
    alive = runtime()
    if alive is not None:
        alive._module = alive._fill = None


def is_filling(description: dict[str, Any]) -> bool:
    """Return whether an artefact fills masks, by the JSON beside it."""
    graph = description.get("graph")
    return isinstance(graph, dict) and graph.get("task") == "fill"


def open_saved_model(path: Path, description: dict[str, Any]) -> MaskedRuntime:
    """Return the runtime of a SavedModel that fills masks."""
    verifying.begin_to_check_files(path, description)()
    tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
    return SavedModelFiller(path, tokenizer, int(description["graph"]["max_sequence_length"]))


def open_tflite(path: Path, description: dict[str, Any], *, threads: int) -> MaskedRuntime:
    """Return the runtime of a TFLite file that fills masks; its size and digest have been checked."""
    check_threads(threads)
    tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
    return LiteRtFiller(path, tokenizer, description["graph"], threads=threads)
