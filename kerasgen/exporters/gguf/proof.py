"""Proves a GGUF file: NumPy and llama.cpp read it in fresh processes and must compute what the model does."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportError
from kerasgen.exporters import progress
from kerasgen.exporters.gguf import file_format as gguf_file
from kerasgen.exporters.gguf.reference import Behind, Ending, LlamaCppDecoder, choices
from kerasgen.exporters.gguf.worker import digests
from kerasgen.exporters.parity import blas, comparison, conversations, worker
from kerasgen.files import temporary
from kerasgen.models import chat
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.base import LanguageModel
from kerasgen.models.gguf_tokenizer_fields import GgufVocabulary
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

Rows = npt.NDArray[np.float64]
_T = TypeVar("_T")

# Mean Kullback-Leibler divergence, in nats per token of the probe text, of what was written from the model.
TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 5e-2, "Q5_0": 0.5, "Q4_0": 1.0}
# The same of what llama.cpp computes, at some places of that text.
LLAMA_CPP_TOLERANCE = TOLERANCE | {"F32": 1e-3}
# By how many nats a token that llama.cpp takes may be behind the likeliest. What is left for F32 is the order of sums,
# which a step of the table of GELU makes larger; beside the others llama.cpp rounds what it multiplies, too.
NEAR = {"F32": 2e-2, "F16": 2e-1, "BF16": 1.0, "Q8_0": 2.5, "Q5_0": 2.5, "Q4_0": 2.5}
LLAMA_CPP = "generate in llama.cpp"
_PLACES = 8
# Tokens that NumPy generates where llama.cpp generates too, and llama.cpp of a text alone and after most prompts.
_FEW_TOKENS = 16
_IMPOSSIBLE = -80.0  # nats


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The prompts and texts with which a file is compared, whatever reads it.

    Args:
        tokenizer: the tokenizer of the model.
        chunk: tokens that llama.cpp reads at once.
        longest: tokens of a text.
        start: the start token, or nothing.
        written_start: what llama.cpp puts before a text: the same, or nothing where the chat template writes no start.
        prompts: ids, the start token in front.
        counts: the number of new tokens after each prompt.
        few: the same, but few.
        probe: ids of a text, the start token in front.
        texts: to encode.
        chats: conversations, with what the model's chat template writes of them; none where it has none.
    """

    tokenizer: ByteLevelBPE | PretrainedTokenizer
    chunk: int
    longest: int
    start: list[int]
    written_start: list[int]
    prompts: list[list[int]]
    counts: list[int]
    few: list[int]
    probe: list[int]
    texts: list[str]
    chats: list[dict[str, Any]]

    @classmethod
    def of(cls, model: LanguageModel, tokenizer: ByteLevelBPE | PretrainedTokenizer, positions: int) -> _Asked:
        """Return the questions for texts of at most so many positions."""
        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        longest = min(positions, 256)
        chunk = max(longest // 8, 1)
        prompts = comparison.prompts(tokenizer, chunks=(chunk,), longest=longest)
        counts = comparison.counts(tokenizer, prompts, longest)
        few = [min(count, _FEW_TOKENS) for count in counts]
        probe = (start + tokenizer.encode(comparison.PROBE))[: longest - 1]
        texts = comparison.encodable(tokenizer, (*comparison.TEXTS, f"not an end: {tokenizer.end_token}"))
        chats = conversations.asked(dataclasses.replace(model, tokenizer=tokenizer))
        written = start if chat.starts(tokenizer, model.metadata) else []
        return cls(
            tokenizer,
            chunk,
            longest,
            start,
            written,
            [start + ids for ids in prompts],
            counts,
            few,
            probe,
            texts,
            chats,
        )

    @property
    def of_numpy(self) -> tuple[list[list[int]], list[int]]:
        """The prompts that NumPy goes on from, which reads those of all lengths alike, and new tokens after each."""
        places, counts = _first_and_longest(self.prompts), self.few if runs_llama_cpp() else self.counts
        return [self.prompts[place] for place in places], [counts[place] for place in places]

    @property
    def alone(self) -> tuple[list[list[int]], list[int]]:
        """The first prompt and the longest, from which llama.cpp goes on alone, and new tokens: few, and all."""
        *first, longest = sorted(_first_and_longest(self.prompts), key=lambda place: len(self.prompts[place]))
        counts = [*(self.few[place] for place in first), self.counts[longest]]
        return [self.prompts[place] for place in (*first, longest)], counts

    @property
    def read_length(self) -> int:
        """Tokens of the longest text that is read: all but its last, after which nothing comes, or the probe."""
        texts = zip(*(self.alone if runs_llama_cpp() else self.of_numpy), strict=True)
        few = max(len(prompt) + count - 1 for prompt, count in zip(self.prompts, self.few, strict=True))
        return max(len(self.probe), few, *(len(prompt) + count - 1 for prompt, count in texts))

    def likeliest(
        self,
        read: comparison.Read,
        prompts: Sequence[list[int]],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
        known: dict[tuple[int, ...], list[int]] | None = None,
    ) -> list[list[int]]:
        """Return the likeliest id at each place of these texts, which go on from some of the prompts."""
        bare = [prompt[len(self.start) :] for prompt in prompts]
        return comparison.likeliest(read, self.tokenizer, bare, texts, counts, known=known)


def _chats(asked: _Asked, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether llama.cpp reads conversations as the model's template writes them, and writes them so itself.

    Its own Jinja leaves out a start token, which it puts before a text anyway, and knows not all that Jinja does; so
    what it writes is told, and the ids must be equal.
    """
    if not asked.chats:
        return {}
    start = chat.start_of(asked.tokenizer)
    texts = [talk["text"] for talk in asked.chats]
    own = answer["chat_texts"]
    same = [text in (its, its.removeprefix(start)) for text, its in zip(own, texts, strict=True)]
    ids = [talk["ids"] for talk in asked.chats]
    # Of a conversation that llama.cpp puts together itself it tells the number of tokens: none more is before it.
    counted = zip(answer["chat_lengths"], same, ids, strict=True)
    return {
        "chat_ids_equal": answer["chat_ids"] == ids,
        "chat_lengths_equal": all(length == len(own_ids) for length, is_same, own_ids in counted if is_same),
        "chat_text": "refused" if None in own else "the template's" if all(same) else "another one",
    }


@dataclasses.dataclass(frozen=True)
class _Said:
    """Greedy texts of llama.cpp.

    Args:
        prompts: ids, the start token in front.
        counts: the number of new tokens that were asked for.
        texts: the new ids, first of the texts that it wrote alone, then of those of one batch.
        alone: how many it wrote alone.
    """

    prompts: list[list[int]]
    counts: list[int]
    texts: list[list[int]]
    alone: int

    @classmethod
    def of(cls, asked: _Asked, alone: Mapping[str, Any], together: Mapping[str, Any]) -> _Said:
        """Return the texts in the answers of two processes."""
        prompts, counts = asked.alone
        texts = [*alone["ids"], *together["together"]]
        return cls([*prompts, *asked.prompts], [*counts, *asked.few], texts, len(counts))


def _first_and_longest(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of the first and the longest prompt, each once."""
    return sorted({0, max(range(len(prompts)), key=lambda place: len(prompts[place]))})


def runs_llama_cpp() -> bool:
    """Return whether llama.cpp is installed."""
    return is_installed("xllamacpp")


@dataclasses.dataclass(frozen=True)
class _References:
    """What a file is compared with that the model alone says, computed in threads.

    Args:
        rounded: the weights as the file should give them back.
        decoder: what llama.cpp should compute of them.
        ending: a text that llama.cpp should end; None where it isn't installed.
        digests: of each tensor of the file.
    """

    rounded: Weights
    decoder: LlamaCppDecoder
    ending: Future[Ending] | None
    digests: Future[dict[str, str]]

    @classmethod
    def begun(
        cls,
        threads: ThreadPoolExecutor,
        asked: _Asked,
        architecture: Architecture,
        config: DecoderConfig,
        weights: Weights,
        dtype: str,
    ) -> _References:
        """Begin to compute them."""
        rounded = gguf_file.rounded(architecture, config, weights, dtype)
        decoder = LlamaCppDecoder(config, rounded)
        ending = None
        if runs_llama_cpp():
            end, new_tokens = asked.tokenizer.end_token_id, asked.few[0]
            ending = threads.submit(Ending.of, decoder.copy(), asked.prompts[0], new_tokens, end)
        hashed = threads.submit(digests, tensors.write(architecture, config, rounded, "gguf"))
        return cls(rounded, decoder, ending, hashed)


class Proof:
    """The processes that will read a file, and what they are compared with; a context manager that ends them.

    It begins before the file is written: the processes import, and what needs the model alone is computed.

    Args:
        model: what is exported.
        architecture: the architecture of the model.
        config: the config of its decoder, whose ids are the tokenizer's, with a `max_sequence_length`.
        weights: the weights of the model, unrounded.
        tokenizer: the tokenizer of the model.
        dtype: the dtype of its kernels and token embeddings.
    """

    def __init__(
        self,
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
        self._asked = asked = _Asked.of(model, tokenizer, config.max_sequence_length)
        with contextlib.ExitStack() as stack:
            # Threads of a product wait without resting, and llama.cpp's is beside them.
            alone = worker.ONE_THREAD if runs_llama_cpp() else None
            # What ends first lies innermost: the threads compute, or wait for a process that has been ended.
            stack.enter_context(blas.some_cores())
            self._threads = stack.enter_context(ThreadPoolExecutor())
            self._folder = Path(stack.enter_context(temporary.folder()))
            reading = worker.Worker("kerasgen.exporters.gguf.worker", imports=("gguf",), environment=alone)
            self._in_numpy = stack.enter_context(reading)
            # Two processes, for the one would leave a second core idle most of the time.
            processes = 2 if runs_llama_cpp() else 0
            module = "kerasgen.exporters.gguf.llama_cpp_worker"
            self._in_llama_cpp = [stack.enter_context(worker.Worker(module)) for _ in range(processes)]
            self._refer = functools.partial(
                _References.begun, self._threads, asked, architecture, config, weights, dtype
            )
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
        if self._in_llama_cpp:
            self._in_llama_cpp[0].give(_for_llama_cpp(path, asked))
        self._in_numpy.give(_for_numpy(path, asked, logits))
        references = self._references or self._refer()
        if references.ending is not None:
            ending = references.ending.result()
            self._in_llama_cpp[1].give(_for_llama_cpp(path, asked, ending))
        own = comparison.reader(model, asked.read_length)
        # Rounded weights choose otherwise between near equals, and these are what counts.
        is_rounded = dtype != "F32"
        read = own
        if is_rounded:
            read = comparison.reader(comparison.with_weights(model, references.rounded), asked.read_length)
        model_says = log_softmax(np, np.asarray(own(asked.probe), np.float64))
        known: dict[tuple[int, ...], list[int]] = {}
        by_numpy = _NumpyAnswer(self._in_numpy.answer(), np.load(logits).astype(np.float64))
        if self._in_llama_cpp:
            progress.begin(LLAMA_CPP)
            alone, together = self._in_llama_cpp
            behind: Behind = {}
            by_llama_cpp = [alone.answer()]
            # While the other process goes on. NumPy's texts are beginnings of these.
            first = self._threads.submit(choices, references.decoder, asked.alone[0], by_llama_cpp[0]["ids"], behind)
            asked.likeliest(read, asked.alone[0], by_llama_cpp[0]["ids"], asked.alone[1], known)
            by_llama_cpp.append(together.answer())
            first.result()
        progress.begin(comparison.COMPARE)
        if self._in_llama_cpp:
            said = _Said.of(asked, *by_llama_cpp)
            choosing = self._threads.submit(choices, references.decoder, said.prompts, said.texts, behind)
            asked.likeliest(read, said.prompts, said.texts, said.counts, known)
        figures = _compare_numpy(
            by_numpy, references.digests.result(), self._architecture, self._config, asked, read, known, model_says
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
            wanted = asked.likeliest(read, said.prompts, said.texts, said.counts, known)
            of_llama_cpp = _compare_llama_cpp(
                by_llama_cpp[0],
                by_llama_cpp[1],
                ending,
                said,
                asked,
                wanted,
                choosing.result(),
                model_says,
                most_divergence=most[1],
                near=NEAR[dtype],
            )
            figures |= {**comparison.variety(said.texts), "llama_cpp": of_llama_cpp}
        return figures


@dataclasses.dataclass(frozen=True)
class _NumpyAnswer:
    """What a fresh process read from the file by NumPy: its answer, and the logits of the probe."""

    answer: dict[str, Any]
    logits: Rows


def _for_numpy(path: Path, asked: _Asked, logits: Path) -> dict[str, Any]:
    """Return the job of the process that reads the file by NumPy, which saves the probe's logits."""
    prompts, counts = asked.of_numpy
    return {
        "path": str(path.absolute()),
        "prompts": prompts,
        "new_tokens": counts,
        "texts": asked.texts,
        "probe": asked.probe,
        "logits": str(logits),
    }


def _compare_numpy(
    found: _NumpyAnswer,
    should: Mapping[str, str],
    architecture: Architecture,
    config: DecoderConfig,
    asked: _Asked,
    read: comparison.Read,
    known: dict[tuple[int, ...], list[int]],
    says: Rows,
) -> dict[str, Any]:
    """Return what the file, read by NumPy, is beside the model."""
    answer, tokenizer = found.answer, asked.tokenizer
    prompts, counts = asked.of_numpy
    _check_modules(answer)
    file_says = log_softmax(np, found.logits)
    stored_digests = answer["digests"]
    different = [name for name in {**should, **stored_digests} if should.get(name) != stored_digests.get(name)]
    figures = {
        "tokens_per_second": sum(counts) / answer["seconds"],  # of NumPy
        "load_seconds": answer["load_seconds"],
        "peak_bytes": answer["peak_bytes"],
        "modules": answer["modules"],
        "new_tokens": counts,
        "prompt_lengths": [len(prompt) - len(asked.start) for prompt in prompts],
        **comparison.variety(answer["ids"]),
        "kl_nats_per_token": _divergence(says, file_says),
        "top_1_agreement": float((says.argmax(-1) == file_says.argmax(-1)).mean()),
        "shape_equal": answer["config"] == repr(settings.stored(architecture, config)),
        "vocabulary_equal": answer["vocabulary"]
        == vars(GgufVocabulary.of(tokenizer, starts_all=asked.start == asked.written_start)),
        "ids_equal": answer["encoded"] == [tokenizer.encode(text) for text in asked.texts],
        "weights_equal": not different,
        **comparison.compared("greedy", answer["ids"], asked.likeliest(read, prompts, answer["ids"], counts, known)),
    }
    if different:
        figures["different_weights"] = different[:5]
    return figures


def _for_llama_cpp(path: Path, asked: _Asked, ending: Ending | None = None) -> dict[str, Any]:
    """Return the job of a process of llama.cpp.

    Args:
        path: the file.
        asked: the questions.
        ending: of a text, where all but the texts that are alone is asked; None for those.
    """
    end, alone = asked.tokenizer.end_token_id, ending is None
    return {
        "path": str(path.absolute()),
        "chunk": asked.chunk,
        "longest": asked.longest,
        "alone": list(zip(*asked.alone, strict=True)) if alone else [],
        "together": [] if alone else list(zip(asked.prompts, asked.few, strict=True)),
        "ending": None
        if ending is None
        else {"prompt": asked.prompts[0], "new_tokens": asked.counts[0], "bias": [end, ending.bias]},
        "texts": [] if alone else asked.texts,
        "prefixes": [] if alone else [asked.probe[:length] for length in _places(asked)],
        "vocabulary_size": asked.tokenizer.vocabulary_size,
        "forced": _whole_character(asked.tokenizer),
        "chats": [] if alone else asked.chats,
    }


def _places(asked: _Asked) -> list[int]:
    """Return how many tokens of the probe are before each place where all log-probabilities are compared."""
    lengths: list[int] = np.unique(
        np.linspace(1, len(asked.probe), min(_PLACES, len(asked.probe))).astype(int)
    ).tolist()
    return lengths


def _compare_llama_cpp(
    alone: Mapping[str, Any],
    answer: Mapping[str, Any],
    ending: Ending,
    said: _Said,
    asked: _Asked,
    wanted: list[list[int]],
    chosen: tuple[float, float],
    says: Rows,
    *,
    most_divergence: float,
    near: float,
) -> dict[str, Any]:
    """Return what llama.cpp does with the file beside what the model does."""
    tokenizer = asked.tokenizer
    for of_process in (alone, answer):
        _check_modules(of_process)
    encoded = [tokenizer.encode(text) for text in asked.texts]
    # llama.cpp's server returns the space that encoding put before a text.
    before = " " if tokenizer.strips_first_space else ""
    prompts, counts, texts, count = said.prompts, said.counts, said.texts, said.alone
    likeliest, behind = chosen
    there = says[[length - 1 for length in _places(asked)]]
    # The server returns -3e38 where its float32 probability is 0.
    llama_cpp_says = log_softmax(np, np.maximum(np.asarray(answer["log_probabilities"]), _IMPOSSIBLE))
    limits = {"kl_nats_per_token": most_divergence, "most_nats_behind_the_likeliest": near}
    figures = {
        "version": answer["version"],
        "tokens_per_second": sum(counts[:count]) / alone["seconds"],
        "load_seconds": alone["load_seconds"],
        "peak_bytes": alone["peak_bytes"],
        "modules": alone["modules"],
        "ids_equal": answer["encoded"] == encoded
        and answer["started"] == [asked.written_start + ids for ids in encoded],
        "text_equal": [decoded.removeprefix(before) for decoded in answer["decoded"]] == asked.texts,
        **_chats(asked, answer),
        "prompt_lengths": [len(prompt) - len(asked.start) for prompt in prompts],
        "new_tokens": counts,
        **comparison.compared("greedy", texts[:count], wanted[:count]),
        **comparison.compared("together", texts[count:], wanted[count:]),
        "ended_equal": answer["ended"] == ending.ids and answer["ended_by"] == "eos",
        "same_likeliest": likeliest,
        "most_nats_behind_the_likeliest": behind,
        "kl_nats_per_token": _divergence(there, llama_cpp_says),
        "limits": limits,
    }
    holds = {
        "ids_equal": figures["ids_equal"],
        **{name: held for name, held in figures.items() if name in ("chat_ids_equal", "chat_lengths_equal")},
        "text_equal": figures["text_equal"],
        "new_tokens": list(map(len, texts)) == counts,
        # If a near tie was resolved differently, the text to be ended is a different one.
        "ended_equal": figures["ended_equal"] or not figures["greedy_equal"],
        **{name: figures[name] <= limit for name, limit in limits.items()},
    }
    wrong = [key for key, held in holds.items() if not held]
    if wrong:
        raise ExportError(
            f"llama.cpp does otherwise than the model ({', '.join(wrong)}): {figures}. Nothing was kept.",
            figures=figures,
        )
    return figures


def _check_modules(answer: Mapping[str, Any]) -> None:
    """Raise if a process that should read a file alone had what wrote it. torch may come with a package of `gguf`'s."""
    foreign = set(answer["modules"]) - {"torch"}
    if foreign:
        raise ExportError(f"The fresh process loaded {', '.join(sorted(foreign))}. Nothing was kept.")


def _divergence(ours: Rows, theirs: Rows) -> float:
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def _whole_character(tokenizer: ByteLevelBPE | PretrainedTokenizer) -> int:
    """Return the first token whose bytes are whole characters."""
    usual = set(tokenizer.vocabulary.values()) - set(tokenizer.special_tokens.values())
    return next(token_id for token_id in sorted(usual) if "\ufffd" not in tokenizer.decode([token_id]))
