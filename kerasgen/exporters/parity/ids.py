"""Proves an artefact: a fresh process loads it and must generate the ids that the model does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ExportError
from kerasgen.exporters import progress
from kerasgen.exporters.parity import comparison, worker
from kerasgen.files import temporary
from kerasgen.models import described
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.base import Tokenizer

_ALONE = 32  # new tokens of a text alone that a batch holds as well
_ONE_BY_ONE = 8  # tokens of the probe text that are read after what is prefilled
_MOST_DIFFERENCE, _MOST_OF_ROUNDED = 0.005, 0.05
"""Between logits, in standard deviations of the model's: other orders of sums change them by less, and so does what a
runtime rounds besides the weights of a rounded file (see the log)."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """Ids and figures that a fresh process computed with an artefact.

    Args:
        calls: of each call, the ids after each prompt.
        seconds: that each call took.
        encoded: the ids of each text.
        logits: the logits of each text to read, float32 `(tokens, vocabulary_size)`, or of branches `(rows, tokens,
            vocabulary_size)`.
        modules: packages of those watched that the process had loaded at its end.
        load_seconds: from the path to a runtime.
        peak_bytes: the most memory that the process held, or None where the system doesn't tell.
    """

    calls: list[list[list[int]]]
    seconds: list[float]
    encoded: list[list[int]]
    logits: list[npt.NDArray[np.float32]]
    modules: list[str]
    load_seconds: float
    peak_bytes: int | None


class Reader:
    """A fresh process that loads an artefact and generates with it; a context manager that ends it.

    Args:
        imports: modules of its runtime, which it imports before there is an artefact.
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self._count = 0
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(temporary.folder())
            self._process = stack.enter_context(worker.Worker("kerasgen.runtime", imports=imports))
            self._stack = stack.pop_all()

    def begin(
        self,
        path: Path,
        calls: Sequence[Mapping[str, Any]] = (),
        *,
        logits: Sequence[Sequence[int] | Mapping[str, Any]] = (),
        texts: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        timeout: float = 3600.0,
    ) -> Reader:
        """Let it load an artefact and generate, and return this reader at once.

        Args:
            path: the path of the artefact.
            calls: arguments of `Runtime.generate_ids`, as JSON could hold them.
            logits: texts, as ids, whose logits to read; or arguments of `logits` or `branched_logits` of the runtime.
            texts: to encode.
            settings: the settings of the runtime.
            timeout: seconds from now after which the process is ended.
        """
        self._count = len(logits)
        job = {
            "path": str(path.absolute()),
            "calls": [dict(call) for call in calls],
            "logits": [dict(item) if isinstance(item, Mapping) else {"token_ids": list(item)} for item in logits],
            "folder": self._folder,
            "texts": list(texts),
            "settings": dict(settings or {}),
        }
        self._process.give(job, timeout=timeout)
        return self

    def answer(self) -> Answer:
        """Wait for what it generated, and return it.

        Raises:
            ExportError: the process failed, and the message holds the end of what it said; or it took too long.
        """
        answer = self._process.answer()
        read = [np.load(Path(self._folder) / f"{index}.npy") for index in range(self._count)]
        names = ("modules", "load_seconds", "peak_bytes")
        return Answer(answer["calls"], answer["seconds"], answer["encoded"], read, *(answer[name] for name in names))

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def ask(path: Path, calls: Sequence[Mapping[str, Any]] = (), **further: Any) -> Answer:
    """Load an artefact in a fresh process, let it generate, and return its answer; see `Reader`."""
    with Reader() as reader:
        return reader.begin(path, calls, **further).answer()


def prove_ids(
    model: LanguageModel,
    path: Path,
    *,
    reader: Reader | None = None,
    chunks: Sequence[int],
    longest: int,
    settings: Mapping[str, Any] | None = None,
    allowed_modules: Sequence[str] = (),
    rounded: comparison.Read | None = None,
    texts: Sequence[str] = comparison.TEXTS,
    logits: Literal["whole", "prefilled"] | None = None,
) -> dict[str, Any]:
    """Let a fresh process generate from the artefact, and compare its ids with the model's own choice.

    They are greedy ids over 128 new tokens, or as many as fit, for prompts around the lengths of chunks, in one batch;
    the first prompt's beginning is alone, too, and so are texts after which other numbers of tokens fit. The artefact's
    tokenizer encodes texts as well. Where the runtime shows logits, those of a text as long as the longest of these are
    compared: ids stay the same where a weight is a little wrong, and logits don't. What no model changes (samplers,
    searches, orders of a batch, end tokens) is tested by `kerasgen.testing.runtimes.RuntimeContract`.

    Args:
        model: what was exported.
        path: the artefact.
        reader: a process that was begun before the artefact was written; None begins one.
        chunks: tokens that a prefill reads at once, of each size.
        longest: tokens that a text in the artefact can have.
        settings: the settings of the runtime.
        allowed_modules: packages, of those watched, that the process may load.
        rounded: reads by the model as the artefact rounds it, if it does; then it is told, and no failure, if the
            model's own ids are others.
        texts: to encode; none if the artefact holds no tokenizer.
        logits: how the runtime's `logits` reads a text: `"whole"`, or `"prefilled"`, with an argument of this name for
            what is read at once. None for a runtime that doesn't show them.

    Returns:
        Figures, as JSON could hold them.

    Raises:
        ExportError: ids differ, the process failed, or loaded what it should not; `.figures` holds what was seen.
    """
    tokenizer = model.tokenizer
    prompts = comparison.prompts(tokenizer, chunks=chunks, longest=longest)
    counts = comparison.counts(tokenizer, prompts, longest)
    alone, together, most = divided(counts)
    # A text that goes on to its end in the batch need not do so alone as well.
    alone_counts = [min(counts[place], _ALONE) if place in together else counts[place] for place in alone]
    raw = {"end_token_id": comparison.never(tokenizer)} | comparison.RAW
    calls: list[dict[str, Any]] = [
        {"prompts": [prompts[place]], "max_new_tokens": count} | raw
        for place, count in zip(alone, alone_counts, strict=True)
    ]
    calls.append({"prompts": [prompts[place] for place in together], "max_new_tokens": most} | raw)
    encodable = comparison.encodable(tokenizer, texts)
    progress.begin(comparison.GENERATE)
    length = comparison.read_length(tokenizer, prompts, counts)
    read = comparison.reader(model, length)
    with reader or Reader() as fresh:
        probe, asked = _probe(tokenizer, length, logits)
        fresh.begin(path, calls, texts=encodable, settings=settings, logits=asked)
        wanted = (rounded or read)(probe)  # also where there are no logits: a backend compiles meanwhile
        answer = fresh.answer()

    progress.begin(comparison.COMPARE)
    batches = {
        "alone": ([ids[0] for ids in answer.calls[:-1]], alone, alone_counts),
        "together": (answer.calls[-1], together, [most] * len(together)),
    }
    figures: dict[str, Any] = {
        "new_tokens": counts,
        "alone_new_tokens": alone_counts,
        "prompt_lengths": [len(prompt) for prompt in prompts],
        "tokens_per_second": alone_counts[0] / answer.seconds[0],
        "load_seconds": answer.load_seconds,
        "peak_bytes": answer.peak_bytes,
        "modules": answer.modules,
        "tokenizer_equal": answer.encoded == [tokenizer.encode(text) for text in encodable],
    }
    for what, (ids, places, new_tokens) in batches.items():
        written = [prompts[place] for place in places], ids, new_tokens
        figures |= comparison.compared(what, ids, comparison.likeliest(rounded or read, tokenizer, *written))
        if rounded is not None:
            same = ids == comparison.likeliest(read, tokenizer, *written)
            figures["like_the_unrounded_model"] = figures.get("like_the_unrounded_model", True) and same
    figures["greedy_equal"] = figures["alone_equal"] and figures["together_equal"]
    if answer.logits:
        limit = _MOST_DIFFERENCE if rounded is None else _MOST_OF_ROUNDED
        figures |= _logit_figures(model, np.asarray(wanted), answer.logits[0], limit)
    figures |= comparison.variety([text_ids for ids, *_ in batches.values() for text_ids in ids])
    comparison.require(figures, "What was written does not generate what the model does")
    check_modules(answer, allowed_modules, figures)
    return figures


def _probe(
    tokenizer: Tokenizer, length: int, logits: Literal["whole", "prefilled"] | None
) -> tuple[list[int], list[dict[str, Any]]]:
    """Return a text of so many tokens, and what a fresh process is asked of it."""
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    text = [*start, *comparison.probe(tokenizer, length - len(start))]
    if logits is None:
        return text, []
    at_once = {"prefilled": max(length - _ONE_BY_ONE, 1)} if logits == "prefilled" else {}
    return text, [{"token_ids": text} | at_once]


def _logit_figures(
    model: LanguageModel, wanted: npt.NDArray[Any], found: npt.NDArray[np.float32], limit: float
) -> dict[str, float | bool]:
    """Measure the largest difference between logits after the last tokens of a text.

    Where a token goes through the likeliest of several experts, rounding may choose another one: there a half of the
    tokens may differ by more.
    """
    scale = max(float(wanted.std()), np.finfo(np.float32).tiny)
    by_token = np.abs(wanted[-len(found) :].astype(np.float64) - found).max(-1) / scale
    config = described.config_of(model)
    chooses = config is not None and config.feedforward.experts is not None
    difference = float(np.median(by_token) if chooses else by_token.max())
    return {"logits_difference": difference, "logits_equal": difference <= limit}


def divided(counts: Sequence[int]) -> tuple[list[int], list[int], int]:
    """Return which prompts go on alone, which in one batch, and how many new tokens each text of the batch gets.

    It is as many as fit after most prompts, or after every one if all differ. Those after which more or fewer fit are
    alone, and so is the first.

    Args:
        counts: the number of new tokens after each prompt.
    """
    most = max(counts) if counts.count(max(counts)) > 1 else min(counts)
    alone = [place for place, count in enumerate(counts) if count != most or not place]
    return alone, [place for place, count in enumerate(counts) if count >= most], most


def check_modules(answer: Answer, allowed: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Raise if a fresh process loaded packages, of those watched, that it may not.

    Raises:
        ExportError: it did.
    """
    foreign = set(answer.modules) - set(allowed)
    if foreign:
        raise ExportError(f"The artefact's runtime loaded {', '.join(sorted(foreign))}.", figures=figures)
