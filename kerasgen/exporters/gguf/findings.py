"""Compares what NumPy and llama.cpp computed from a GGUF file with what the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ExportError
from kerasgen.exporters.gguf.questions import Asked, Said, places
from kerasgen.exporters.gguf.reference import Ending
from kerasgen.exporters.parity import comparison
from kerasgen.models import chat
from kerasgen.models.architectures import Architecture
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.gguf_tokenizer_fields import GgufVocabulary
from kerasgen.samplers.arithmetic import log_softmax

Rows = npt.NDArray[np.float64]

# Mean Kullback-Leibler divergence, in nats per token of the probe text, of what was written from the model.
TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 5e-2, "Q5_0": 0.5, "Q4_0": 1.0}
# The same of what llama.cpp computes, at some places of that text.
LLAMA_CPP_TOLERANCE = TOLERANCE | {"F32": 1e-3}
# By how many nats a token that llama.cpp takes may be behind the likeliest. What is left for F32 is the order of sums,
# which a step of the table of GELU makes larger; beside the others llama.cpp rounds what it multiplies, too.
NEAR = {"F32": 2e-2, "F16": 2e-1, "BF16": 1.0, "Q8_0": 2.5, "Q5_0": 2.5, "Q4_0": 2.5}
# By how many nats the log-probability of any token may be another one, where all are told, however unlikely it is: a
# mean over what is likely doesn't see those. Types of fewer bits round so much that a fault would not stand out.
FAR: dict[str, float | None] = {"F32": 0.1, "F16": 0.5} | dict.fromkeys(("BF16", "Q8_0", "Q5_0", "Q4_0"))
_IMPOSSIBLE = -80.0  # nats
_NOTHING = 1e-9  # the least probability of all tokens that are not told, which are known to eight digits


@dataclasses.dataclass(frozen=True)
class NumpyAnswer:
    """What a fresh process read from the file by NumPy: its answer, and the logits of the probe."""

    answer: dict[str, Any]
    logits: Rows


def compare_numpy(
    found: NumpyAnswer,
    should: Mapping[str, str],
    architecture: Architecture,
    config: DecoderConfig,
    asked: Asked,
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


def compare_llama_cpp(
    alone: Mapping[str, Any],
    answer: Mapping[str, Any],
    ending: Ending,
    said: Said,
    asked: Asked,
    wanted: list[list[int]],
    chosen: tuple[float, float],
    says: Rows,
    *,
    most_divergence: float,
    near: float,
    far: float | None,
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
    there = says[[length - 1 for length, _ in places(asked)]]
    divergence, apart = _beside(there, answer["log_probabilities"])
    limits = {"kl_nats_per_token": most_divergence, "most_nats_behind_the_likeliest": near}
    if far is not None:
        limits["most_nats_apart"] = far
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
        "kl_nats_per_token": divergence,
        "most_nats_apart": apart,
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


def _chats(asked: Asked, answer: Mapping[str, Any]) -> dict[str, Any]:
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


def _check_modules(answer: Mapping[str, Any]) -> None:
    """Raise if a process that should read a file alone had what wrote it. torch may come with a package of `gguf`'s."""
    foreign = set(answer["modules"]) - {"torch"}
    if foreign:
        raise ExportError(f"The fresh process loaded {', '.join(sorted(foreign))}. Nothing was kept.")


def _divergence(ours: Rows, theirs: Rows) -> float:
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def _beside(says: Rows, told: Sequence[tuple[Sequence[int], Sequence[float]]]) -> tuple[float, float]:
    """Return the mean divergence of what llama.cpp tells of the next token, and how far apart one is at most.

    Where it tells the likeliest tokens alone, all others count as one: the divergence is a lower bound there.

    Args:
        says: the model's log-probabilities in nats, `(places, vocabulary_size)`.
        told: at each place, ids and their log-probabilities.
    """
    divergences, apart = [], 0.0
    for ours, (ids, nats) in zip(says, told, strict=True):
        # The server returns -3e38 where its float32 probability is 0.
        theirs = np.maximum(np.asarray(nats, np.float64), _IMPOSSIBLE)
        if len(set(ids)) < len(ids):
            theirs[:] = np.nan
        likely = ours[list(ids)]
        if len(ids) == len(ours):
            theirs = theirs - np.log(np.exp(theirs).sum())
            differences = np.abs(np.maximum(likely, _IMPOSSIBLE) - theirs)
            apart = max(apart, float(differences.max())) if np.isfinite(differences).all() else np.nan
        else:
            rest = [np.log(max(1 - np.exp(several).sum(), _NOTHING)) for several in (likely, theirs)]
            likely, theirs = (np.append(several, other) for several, other in zip((likely, theirs), rest, strict=True))
        divergences.append((np.exp(likely) * (likely - theirs)).sum())
    return float(np.mean(divergences)), apart
