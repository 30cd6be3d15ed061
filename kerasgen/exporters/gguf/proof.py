"""Proves a GGUF file: NumPy and llama.cpp read it in fresh processes and must compute what the model does."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ExportError
from kerasgen.exporters import progress
from kerasgen.exporters.gguf import file_format as gguf_file
from kerasgen.exporters.gguf import questions
from kerasgen.exporters.gguf.findings import (
    FAR,
    LLAMA_CPP_TOLERANCE,
    NEAR,
    TOLERANCE,
    NumpyAnswer,
    compare_llama_cpp,
    compare_numpy,
)
from kerasgen.exporters.gguf.questions import Asked, Said, for_llama_cpp, for_numpy
from kerasgen.exporters.gguf.reference import Ending, LlamaCppDecoder, Texts
from kerasgen.exporters.gguf.worker import digests
from kerasgen.exporters.parity import blas, comparison, worker
from kerasgen.files import temporary
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

_T = TypeVar("_T")

LLAMA_CPP = "generate in llama.cpp"


@dataclasses.dataclass(frozen=True)
class _References:
    """What a file is compared with that the model alone says, computed in threads.

    Args:
        rounded: the weights as the file should give them back.
        decoder: what llama.cpp should compute of them.
        digests: of each tensor of the file.
    """

    rounded: Weights
    decoder: LlamaCppDecoder
    digests: Future[dict[str, str]]

    @classmethod
    def begun(
        cls,
        threads: ThreadPoolExecutor,
        architecture: Architecture,
        config: DecoderConfig,
        weights: Weights,
        dtype: str,
    ) -> _References:
        """Begin to compute them."""
        rounded = gguf_file.rounded(architecture, config, weights, dtype)
        hashed = threads.submit(digests, tensors.write(architecture, config, rounded, "gguf"))
        return cls(rounded, LlamaCppDecoder(config, rounded), hashed)


@dataclasses.dataclass(frozen=True)
class Readers:
    """The processes that will read a file, which import while it is not there yet.

    Args:
        in_numpy: reads it by NumPy.
        in_llama_cpp: generate texts alone and all the rest, for one would leave a second core idle most of the time;
            none where llama.cpp isn't installed.
    """

    in_numpy: worker.Worker
    in_llama_cpp: list[worker.Worker]

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[Readers]:
        """Start them, and end them with the block."""
        with contextlib.ExitStack() as stack:
            # Threads of a product wait without resting, and llama.cpp's is beside them.
            alone = worker.ONE_THREAD if questions.runs_llama_cpp() else None
            reading = worker.Worker("kerasgen.exporters.gguf.worker", imports=("gguf",), environment=alone)
            in_numpy = stack.enter_context(reading)
            processes = 2 if questions.runs_llama_cpp() else 0
            module = "kerasgen.exporters.gguf.llama_cpp_worker"
            yield cls(in_numpy, [stack.enter_context(worker.Worker(module)) for _ in range(processes)])


class Proof:
    """What the processes that read a file are compared with; a context manager that ends the threads which compute it.

    It begins before the file is written, with what needs the model alone.

    Args:
        readers: the processes.
        model: what is exported.
        architecture: the architecture of the model.
        config: the config of its decoder, whose ids are the tokenizer's, with a `max_sequence_length`.
        weights: the weights of the model, unrounded.
        tokenizer: the tokenizer of the model.
        dtype: the dtype of its kernels and token embeddings.
    """

    def __init__(
        self,
        readers: Readers,
        model: LanguageModel,
        architecture: Architecture,
        config: DecoderConfig,
        weights: Weights,
        tokenizer: ByteLevelBPE | PretrainedTokenizer,
        *,
        dtype: str,
    ) -> None:
        assert config.max_sequence_length is not None
        self._model, self._architecture, self._config, self._dtype = model, architecture, config, dtype
        self._asked = Asked.of(model, tokenizer, config.max_sequence_length)
        self._in_numpy, self._in_llama_cpp = readers.in_numpy, readers.in_llama_cpp
        with contextlib.ExitStack() as stack:
            stack.enter_context(blas.some_cores())
            self._threads = stack.enter_context(ThreadPoolExecutor())
            self._folder = Path(stack.enter_context(temporary.folder()))
            self._refer = functools.partial(_References.begun, self._threads, architecture, config, weights, dtype)
            # Of what is rounded, writing tells first whether a weight is too large for it.
            self._references = self._refer() if dtype == "F32" else None
            self._stack = stack.pop_all()

    def __enter__(self) -> Proof:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def submit(self, call: Callable[[Path], _T], path: Path) -> Future[_T]:
        """Let a thread beside the proof compute something of a file."""
        return self._threads.submit(call, path)

    def of(self, path: Path, *, most_divergence: float | None = None) -> dict[str, Any]:
        """Read the file in a fresh process, and in two of llama.cpp where that is installed, and compare.

        Args:
            path: the path of the file.
            most_divergence: nats a token that its rounding may cost; None for `TOLERANCE` and `LLAMA_CPP_TOLERANCE`.

        Returns:
            Figures, as JSON could hold them.

        Raises:
            ExportError: something is not the model's, or a process failed; `.figures` holds what was seen.
        """
        asked, model, dtype = self._asked, self._model, self._dtype
        progress.begin(comparison.GENERATE)
        logits = self._folder / "logits.npy"
        for process, alone in zip(self._in_llama_cpp, (True, False), strict=False):
            process.give(for_llama_cpp(path, asked, alone=alone))
        self._in_numpy.give(for_numpy(path, asked, logits))
        references = self._references or self._refer()
        # Rounded weights choose otherwise between near equals, and these are what counts.
        is_rounded = dtype != "F32"
        own = comparison.reader(model, asked.read_length, ahead=None if is_rounded else self._threads)
        read = own
        if is_rounded:
            read = comparison.reader(
                comparison.with_weights(model, references.rounded), asked.read_length, ahead=self._threads
            )
        model_says = log_softmax(np, np.asarray(own(asked.probe), np.float64))
        texts = Texts(read, references.decoder)
        if self._in_llama_cpp:
            progress.begin(LLAMA_CPP)
            ending, by_llama_cpp = self._read_what_comes(texts)
        by_numpy = NumpyAnswer(self._in_numpy.answer(), np.load(logits).astype(np.float64))
        progress.begin(comparison.COMPARE)
        figures = compare_numpy(
            by_numpy,
            references.digests.result(),
            self._architecture,
            self._config,
            asked,
            read,
            texts.likeliest,
            model_says,
        )
        if is_rounded:
            prompts, counts = asked.of_numpy
            ids = by_numpy.answer["ids"]
            figures["like_the_unrounded_model"] = ids == asked.likeliest(own, prompts, ids, counts)
        wrong = [key for key, value in figures.items() if key.endswith("_equal") and not value]
        most = [
            limits_by_dtype[dtype] if most_divergence is None else most_divergence
            for limits_by_dtype in (TOLERANCE, LLAMA_CPP_TOLERANCE)
        ]
        if wrong or not figures["kl_nats_per_token"] <= most[0]:
            raise ExportError(
                f"What was written is not what the model is ({', '.join(wrong) or 'kl_nats_per_token'}): {figures}. "
                "Nothing was kept.",
                figures=figures,
            )
        figures["llama_cpp"] = None
        if self._in_llama_cpp:
            said = Said.of(asked, *by_llama_cpp)
            chosen = texts.choices(said.prompts, said.texts)
            wanted = asked.likeliest(read, said.prompts, said.texts, said.counts, texts.likeliest)
            of_llama_cpp = compare_llama_cpp(
                by_llama_cpp[0],
                by_llama_cpp[1],
                ending,
                said,
                asked,
                wanted,
                chosen,
                model_says,
                most_divergence=most[1],
                near=NEAR[dtype],
                far=FAR[dtype],
            )
            figures |= {**comparison.variety(said.texts), "llama_cpp": of_llama_cpp}
        return figures

    def _read_what_comes(self, texts: Texts) -> tuple[Ending, list[dict[str, Any]]]:
        """Read llama.cpp's texts when they come, while it goes on; return the answers of its two processes.

        Of one batch those are read at once that no text alone begins with, for these are read with it. Where the first
        text is to end, of which llama.cpp is asked, is returned too.
        """
        asked, (alone, together) = self._asked, self._in_llama_cpp
        prompts = asked.alone[0]
        (first,) = alone.part()["ids"]
        ending = Ending.of(texts.add(prompts[0], first), first, asked.tokenizer.end_token_id)
        together.give(questions.to_end(asked, ending))
        for prompt, ids in zip(asked.prompts, together.part()["together"], strict=True):
            if prompt not in prompts:
                texts.add(prompt, ids)
        of_alone = alone.answer()
        texts.choices(prompts, of_alone["ids"])
        return ending, [of_alone, together.answer()]
