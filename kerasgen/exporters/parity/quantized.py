"""Measures how far a quantised artefact is from its model, and whether its signatures agree with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ExportError
from kerasgen.exporters import progress
from kerasgen.exporters.parity import blas, comparison
from kerasgen.exporters.parity.ids import Answer, Reader, check_modules
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax

_READ = 160  # tokens of the probe text that are read one by one
_MOST_READ = 1024  # of a held-out text
_TEXTS, _OF_TEXT = 8, 64  # texts that the model draws to be compared on, and tokens of each
_ERRORS = 2.0  # standard errors by which a mean may be beyond its limit: it is not known better
_FURTHER = 6  # tokens that are read one by one after a prefill, and by each beam
_BRANCHES = 3
# Signatures of one file add in different orders, so an activation may be rounded to another of its 255 steps. They
# differ a little, more in deep models, but always less than the rounded weights differ from the model.
_SHARE = 0.5
# Logits are compared of so many tokens of each prediction, the likeliest of the model's and of the artefact's.
_CANDIDATES = 64
Logits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Limits on the loss by rounding; an artefact that exceeds one is refused.

    The divergence, the agreement and the loss are means over some hundred tokens, so they may be beyond their limits by
    two of their standard errors.

    Args:
        divergence: mean Kullback-Leibler divergence from the model's predictions, in nats a token.
        agreement: the least share of tokens after which the likeliest token is the model's.
        logit_difference: the largest, in standard deviations of the model's logits, among the 64 likeliest tokens of
            the model's and of the artefact's prediction.
        loss_increase: by how much of the model's bits per character the artefact's may be more.
        disagreement: the largest difference between the logits of two signatures that read the same text, in the same;
            or half of the largest difference of any logit from the model's, if that is more.
    """

    divergence: float
    agreement: float
    logit_difference: float
    loss_increase: float
    disagreement: float


@dataclass(frozen=True)
class _Path:
    """A way to read a text: the call's arguments, and the rows of the token-by-token reading that it must equal."""

    name: str
    asked: dict[str, Any]
    rows: tuple[int, int]


def prove_divergence(
    model: LanguageModel,
    path: Path,
    *,
    reader: Reader | None = None,
    chunks: Sequence[int],
    longest: int,
    beams: int,
    limits: Limits,
    text: str | None = None,
    settings: Mapping[str, Any] | None = None,
    allowed_modules: Sequence[str] = (),
) -> dict[str, Any]:
    """Let a fresh process read texts with a quantised artefact, and compare its predictions.

    Token by token they are compared with the model's, which reads the same texts at once. Then prefill signatures read
    as much as the prompts of `comparison.prompts` have, and the signature of beams goes on in several ways from a
    prompt; what they predict is compared with the same artefact's token by token.

    Without a held-out text, predictions are compared on texts that the model draws from its own, by a fixed seed. There
    the loss that rounding adds is the divergence in the mean. On a text of another language than the model's, or on
    one that repeats itself, it would be neither that nor what rounding costs in use.

    Args:
        model: what was exported.
        path: the artefact.
        reader: a process that was begun before the artefact was written; None begins one.
        chunks: tokens that a prefill reads at once, of each size; none if it holds no such signature.
        longest: tokens that a text in the artefact can have.
        beams: texts that one call continues; 0 if it holds no such signature.
        limits: the most that rounding may cost.
        text: held out from training, to compare on; None for what the model writes.
        settings: the settings of the runtime.
        allowed_modules: packages, of those watched, that the process may load.

    Returns:
        Figures, as JSON could hold them; of an untrained model, or a degenerate text, they say little.

    Raises:
        ExportError: a limit is passed, the tokenizer is another, or the process failed.
    """
    windows = _windows(model, longest, text)
    compared = windows if text is not None else _drawn(model, windows[0], longest)
    ways = list(_prefills(model, windows[0], chunks, longest)) if chunks else []
    branches = _branches(windows[0], longest) if beams else None
    tokenizer, prompt, new = model.tokenizer, windows[0][1:4], min(comparison.NEW_TOKENS, longest - 4)
    call = {"prompts": [prompt], "max_new_tokens": new, "end_token_id": comparison.never(tokenizer)} | comparison.RAW
    read: list[Any] = [{"token_ids": ids} for ids in (*compared, windows[0])]
    read += [way.asked for way in ways]
    if branches is not None:
        read += [branches, *_one_by_one(branches)]
    texts = comparison.encodable(tokenizer, comparison.TEXTS)
    progress.begin(comparison.GENERATE)
    longest_read = max(map(len, compared))
    whole = comparison.reader(model, max(longest_read, comparison.read_length(tokenizer, [prompt], [new])))
    with reader or Reader() as fresh:
        fresh.begin(path, [call], logits=read, texts=texts, settings=settings)
        wanted = [np.asarray(whole(ids)).astype(np.float64) for ids in compared]
        answer = fresh.answer()
    progress.begin(comparison.COMPARE)
    rows = [array.astype(np.float64) for array in answer.logits]
    figures = _distances(model, compared, wanted, rows[: len(compared)])
    scale = float(np.concatenate(wanted).std())
    one_by_one, *agreed = rows[len(compared) :]
    figures["signatures"] = {
        way.name: float(np.abs(agreed_rows - one_by_one[slice(*way.rows)]).max() / scale)
        for way, agreed_rows in zip(ways, agreed, strict=False)
    }
    if branches is not None:
        together, *alone = agreed[len(ways) :]
        figures["signatures"]["beams"] = float(
            np.abs(together - np.stack([token_logits[1:] for token_logits in alone])).max() / scale
        )
    figures |= _call_figures(answer, limits)
    figures["greedy_equal"] = answer.calls[0] == comparison.likeliest(
        whole, tokenizer, [prompt], answer.calls[0], [new]
    )
    figures["prompt_lengths"] = [len(prompt)]
    figures["tokenizer_equal"] = answer.encoded == [tokenizer.encode(text) for text in texts]
    _check(figures, limits)
    check_modules(answer, allowed_modules, figures)
    return figures


def _windows(model: LanguageModel, longest: int, text: str | None) -> list[list[int]]:
    """Return the ids of the text in windows that the artefact can hold, each with a start token."""
    tokenizer = model.tokenizer
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    if text is None:
        return [start + comparison.probe(tokenizer, min(longest - 1, _READ) - len(start))]
    ids, size = tokenizer.encode(text)[:_MOST_READ], longest - 1 - len(start)
    if len(ids) < 8:
        raise ExportError(f"A held-out text of {len(ids)} tokens says nothing. Give it a longer one, or none.")
    return [start + ids[at : at + size] for at in range(0, len(ids), size) if len(ids) - at > 1]


def _drawn(model: LanguageModel, probe: Sequence[int], longest: int) -> list[list[int]]:
    """Return texts that the model draws from its own predictions, each after two tokens of the probe.

    NumPy computes them, as many tokens a second as it reads the weights, and nothing is compiled.
    """
    from kerasgen.decoder.numpy import NumpyEngine
    from kerasgen.generation import generate_ids
    from kerasgen.models import described
    from kerasgen.samplers.sampling import Random

    tokenizer = model.tokenizer
    engine: Any = NumpyEngine(*described.decoder_of(model), tokenizer) if isinstance(model, LanguageModel) else model
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    ids = list(probe[len(start) :])
    prompts = [ids[at : at + 2] for at in np.linspace(0, len(ids) - 2, _TEXTS).astype(int)]
    new = min(_OF_TEXT, longest - 1 - len(start) - 2)
    with blas.some_cores():
        drawn = generate_ids(engine, prompts, sampler=Random(), max_new_tokens=new, valid_utf8=False, seed=0)
    return [[*start, *prompt, *texts[0].token_ids] for prompt, texts in zip(prompts, drawn, strict=True)]


def _prefills(model: LanguageModel, window: list[int], chunks: Sequence[int], longest: int) -> Iterator[_Path]:
    """Yield prefills shorter than a chunk, of one chunk, longer, and of two chunks, as far as the text reaches."""
    start = 0 if model.tokenizer.start_token_id is None else 1
    lengths = [start + len(prompt) for prompt in comparison.prompts(model.tokenizer, chunks=chunks, longest=longest)]
    for length in dict.fromkeys(min(length, len(window)) for length in lengths):
        end = min(length + _FURTHER, len(window))
        yield _Path(f"prefill of {length}", {"token_ids": window[:end], "prefilled": length}, (length - 1, end))


def _branches(window: list[int], longest: int) -> dict[str, Any]:
    """Return texts that go on from one prompt with different tokens."""
    further = min(_FURTHER, max((longest - 4) // (_BRANCHES + 1), 1))
    at = max(min(len(window), longest - _BRANCHES * further - 1) // 2, 1)
    tokens = (window * 2)[at : at + further + _BRANCHES - 1]
    return {"prompt": window[:at], "texts": [tokens[n : n + further] for n in range(_BRANCHES)]}


def _one_by_one(branches: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the same texts one by one, from a prompt that is read as it was for all."""
    prompt = branches["prompt"]
    return [{"token_ids": [*prompt, *text], "prefilled": len(prompt)} for text in branches["texts"]]


def _distances(
    model: LanguageModel, windows: Sequence[list[int]], wanted: Sequence[Logits], written: Sequence[Logits]
) -> dict[str, Any]:
    ours, theirs = (log_softmax(np, np.concatenate(logits)) for logits in (wanted, written))
    likeliest = [np.concatenate(logits).argmax(axis=-1) for logits in (wanted, written)]
    difference = max(_largest_difference(before, after) for before, after in zip(wanted, written, strict=True))
    anywhere = max(float(np.abs(before - after).max()) for before, after in zip(wanted, written, strict=True))
    places = np.cumsum([0, *map(len, windows)])
    scored = np.concatenate([np.arange(at, at + len(window) - 1) for at, window in zip(places, windows, strict=False)])
    targets = np.concatenate([window[1:] for window in windows])
    nll, written_nll = (-rows[scored, targets] for rows in (ours, theirs))
    divergences, agrees = (np.exp(ours) * (ours - theirs)).sum(axis=-1), likeliest[0] == likeliest[1]
    text = "".join(model.tokenizer.decode(window[1:]) for window in windows)
    bits = len(targets) / math.log(2) / max(len(text), 1)
    return {
        "tokens": sum(map(len, windows)),
        "distinct_tokens_read": len(set(targets.tolist())),
        "is_degenerate": len(set(targets.tolist())) < comparison.LEAST_DISTINCT,
        "divergence_in_nats": float(divergences.mean()),
        "standard_error_of_divergence": _standard_error(divergences),
        "same_likeliest": float(agrees.mean()),
        "standard_error_of_agreement": _standard_error(agrees),
        "largest_logit_difference": difference,
        "largest_logit_difference_in_deviations": difference / float(np.concatenate(wanted).std()),
        "largest_difference_of_any_logit_in_deviations": anywhere / float(np.concatenate(wanted).std()),
        "nats_per_token": float(written_nll.mean()),
        "nats_per_token_of_the_model": float(nll.mean()),
        "standard_error_of_their_difference": _standard_error(written_nll - nll),
        "bits_per_character": float(written_nll.mean()) * bits,
        "bits_per_character_of_the_model": float(nll.mean()) * bits,
    }


def _largest_difference(wanted: Logits, written: Logits) -> float:
    """Return the largest difference between two logits of a token that either prediction could have drawn.

    A maximum over a whole vocabulary grows with it, and would be that of a token that neither would draw. A token whose
    weights are wrong is likely where it shouldn't be, or the other way round, so it is among these.

    Args:
        wanted: the model's logits, (tokens, vocabulary).
        written: the artefact's of the same tokens.
    """
    difference = np.abs(wanted - written)
    count = min(_CANDIDATES, wanted.shape[-1])
    candidates = (np.argpartition(logits, -count, axis=-1)[:, -count:] for logits in (wanted, written))
    return max(float(np.take_along_axis(difference, tokens, axis=-1).max()) for tokens in candidates)


def _standard_error(values: npt.NDArray[Any]) -> float:
    """Return the standard error of the mean of values, one a token."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _call_figures(answer: Answer, limits: Limits) -> dict[str, Any]:
    """Return the figures of the calls and the process."""
    return {
        "limits": asdict(limits),
        "new_tokens": [len(answer.calls[0][0])],
        "distinct_tokens": len(set(answer.calls[0][0])),
        "tokens_per_second": len(answer.calls[0][0]) / answer.seconds[0],
        "load_seconds": answer.load_seconds,
        "peak_bytes": answer.peak_bytes,
        "modules": answer.modules,
    }


def _check(figures: dict[str, Any], limits: Limits) -> None:
    passed = {
        f"it is further from the model than {limits.divergence} nats a token": figures["divergence_in_nats"]
        <= limits.divergence + _ERRORS * figures["standard_error_of_divergence"],
        f"its likeliest token is the model's less often than {limits.agreement}": figures["same_likeliest"]
        >= limits.agreement - _ERRORS * figures["standard_error_of_agreement"],
        f"a logit is further off than {limits.logit_difference} standard deviations": figures[
            "largest_logit_difference_in_deviations"
        ]
        <= limits.logit_difference,
        f"its bits per character are more than the model's by over {limits.loss_increase:g} of them": figures[
            "nats_per_token"
        ]
        <= figures["nats_per_token_of_the_model"] * (1 + limits.loss_increase)
        + _ERRORS * figures["standard_error_of_their_difference"],
        "its tokenizer gives other ids than the model's": figures["tokenizer_equal"],
    }
    apart = max(limits.disagreement, _SHARE * figures["largest_difference_of_any_logit_in_deviations"])
    for name, difference in figures["signatures"].items():
        passed[f"the signatures of {name} predict otherwise than token by token"] = difference <= apart
    wrong = [what for what, holds in passed.items() if not holds]
    if wrong:
        raise ExportError(
            f"What was written can't be relied on: {'; '.join(wrong)}. Received: {figures}. Nothing was kept. Choose "
            "another quantisation, or set limits that you can do with.",
            figures=figures,
        )
