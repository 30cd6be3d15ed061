"""A written artefact is loaded in a fresh process and must generate what the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ExportError
from kerasgen.exporters.parity import comparison, draws, worker
from kerasgen.files import temporary
from kerasgen.models.base import LanguageModel

BEAM_TOKENS = 32


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a fresh process did with an artefact.

    Args:
        calls: of each call, the ids after each prompt.
        seconds: that each call took.
        logits: of each text to read, float32 `(tokens, vocabulary_size)`, or of branches `(rows, tokens,
            vocabulary_size)`.
        modules: packages of those watched that the process had loaded at its end.
        load_seconds: from the path to a runtime.
        peak_bytes: the most memory that the process held, or None where the system doesn't tell.
    """

    calls: list[list[list[int]]]
    seconds: list[float]
    logits: list[npt.NDArray[np.float32]]
    modules: list[str]
    load_seconds: float
    peak_bytes: int | None


def ask(
    path: Path,
    calls: Sequence[Mapping[str, Any]] = (),
    *,
    logits: Sequence[Sequence[int] | Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    timeout: float = 3600.0,
) -> Answer:
    """Load an artefact in a fresh process, let it generate, and return what it did.

    Args:
        path: of the artefact.
        calls: arguments of `Runtime.generate_ids`, as JSON could hold them.
        logits: texts, as ids, whose logits to read; or arguments of `logits` or `branched_logits` of the runtime.
        settings: of the runtime.
        timeout: seconds after which the process is ended.

    Raises:
        ExportError: the process failed, and the message holds the end of what it said; or it took too long.
    """
    with temporary.folder() as folder:
        asked = {
            "path": str(path.absolute()),
            "calls": [dict(call) for call in calls],
            "logits": [dict(one) if isinstance(one, Mapping) else {"token_ids": list(one)} for one in logits],
            "folder": folder,
            "settings": dict(settings or {}),
        }
        found = worker.run("kerasgen.runtime", asked, timeout=timeout)
        read = [np.load(Path(folder) / f"{index}.npy") for index in range(len(logits))]
    return Answer(found["calls"], found["seconds"], read, found["modules"], found["load_seconds"], found["peak_bytes"])


def prove_ids(
    model: LanguageModel,
    path: Path,
    *,
    chunks: Sequence[int],
    longest: int,
    beams: str | None = "beam:num_beams=4",
    seeded: Sequence[str] = ("top_k:k=5",),
    settings: Mapping[str, Any] | None = None,
    allowed_modules: Sequence[str] = (),
    reference: Any = None,
) -> dict[str, Any]:
    """Let a fresh process generate from the artefact, and compare its ids with the model's own.

    Greedy ids over 128 new tokens, or as many as fit, for prompts around the lengths of chunks, alone and together, and
    of texts that end by an end token; ids of beam search; that seeded sampling gives the same twice, and that what each
    sampler draws is distributed as the logits say. All of these are the model's own choice among all tokens; then
    greedy ids after a prompt that ends within a character, kept valid UTF-8.

    Args:
        model: what was exported.
        path: the artefact.
        chunks: tokens that a prefill reads at once, of each size.
        longest: tokens that a text in the artefact can have.
        beams: a beam search, or None if the artefact holds none.
        seeded: samplers that draw, of those that the artefact holds.
        settings: of the runtime.
        allowed_modules: packages, of those watched, that the process may load.
        reference: an engine whose ids to compare with, where the artefact's weights are rounded; then it is told, and
            no failure, if the model's own ids are others.

    Returns:
        Figures, as JSON could hold them.

    Raises:
        ExportError: ids differ, the process failed, or loaded what it should not; `.figures` holds what was seen.
    """
    tokenizer, original = model.tokenizer, model if reference is None else reference
    some = comparison.prompts(tokenizer, chunks=chunks, longest=longest)
    counts = comparison.counts(tokenizer, some, longest)
    asked = _Asked()
    if beams is not None:
        few: dict[str, Any] = {"prompts": some[:2], "max_new_tokens": min(BEAM_TOKENS, *counts)}
        expected = comparison.ids_of(original, few["prompts"], beams, few["max_new_tokens"])
        asked.compare("beams", few | {"sampler": beams} | comparison.RAW, expected)
    expected = comparison.greedy(original, some, counts)
    _ask_greedily(asked, some, counts, expected, comparison.never(tokenizer))
    whole: dict[str, Any] = {"prompts": [comparison.begun(tokenizer)], "max_new_tokens": min(BEAM_TOKENS, *counts)}
    expected_whole = comparison.ids_of(original, whole["prompts"], "greedy", whole["max_new_tokens"], valid_utf8=True)
    asked.compare("valid_utf8", whole, expected_whole)
    for sampler in seeded:
        asked.draw(sampler, tokenizer, {"prompts": some[:2], "max_new_tokens": min(BEAM_TOKENS, *counts)})
    answer = ask(path, asked.calls, logits=asked.logits, settings=settings)

    first = next(place for place, (name, *_) in enumerate(asked.wanted) if name == "alone")
    figures: dict[str, Any] = {
        "new_tokens": list(map(len, expected)),
        "prompt_lengths": [len(one) for one in some],
        **comparison.variety(expected),
        "tokens_per_second": len(expected[0]) / answer.seconds[first],
        "load_seconds": answer.load_seconds,
        "peak_bytes": answer.peak_bytes,
        "modules": answer.modules,
        **asked.figures(answer),
    }
    figures["greedy_equal"] = all(figures.get(f"{what}_equal", True) for what in ("alone", "together", "ended"))
    if reference is not None:
        figures["like_the_unrounded_model"] = expected == comparison.greedy(model, some, counts)
    comparison.require(figures, "What was written does not generate what the model does")
    check_modules(answer, allowed_modules, figures)
    return figures


class _Asked:
    """Calls of a fresh process, and what they should answer."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.logits: list[list[int]] = []
        self.wanted: list[tuple[str, int, list[list[int]]]] = []
        self.drawn: list[tuple[str, int]] = []

    def compare(self, what: str, call: dict[str, Any], expected: list[list[int]]) -> None:
        """Ask for the ids of a call, which should be these."""
        self.wanted.append((what, len(self.calls), expected))
        self.calls.append(call)

    def draw(self, sampler: str, tokenizer: Any, call: dict[str, Any]) -> None:
        """Ask for one seeded text twice, and for many draws of one token and the logits before it."""
        many = draws.draws(tokenizer, sampler)
        self.drawn.append((sampler, len(self.calls)))
        self.calls += [call | {"sampler": sampler, "seed": 11} | comparison.RAW] * 2 + [many]
        start = tokenizer.start_token_id
        self.logits = [([] if start is None else [start]) + many["prompts"][0]]

    def figures(self, answer: Answer) -> dict[str, Any]:
        """Return what was equal, reproduced and distributed, and what else is known of what was not."""
        found: dict[str, Any] = {}
        for what, number, ids in self.wanted:
            same = answer.calls[number] == ids
            found[f"{what}_equal"] = found.get(f"{what}_equal", True) and same
            if not same:
                found[f"{what}_first_difference"] = comparison.first_difference(answer.calls[number], ids)
        if self.drawn:
            found["draws"] = {
                sampler: draws.figures(answer.calls[number + 2], answer.logits[0][-1], sampler)
                for sampler, number in self.drawn
            }
            found["seeded_reproduces"] = all(answer.calls[n] == answer.calls[n + 1] for _, n in self.drawn)
            found["draws_distributed"] = all(one["distributed"] for one in found["draws"].values())
        return found


def _ask_greedily(
    asked: _Asked, some: list[list[int]], counts: list[int], expected: list[list[int]], never: int
) -> None:
    """Ask for each prompt's greedy text, for all together, and for texts that end by a token that one of them holds."""
    for prompt, count, ids in zip(some, counts, expected, strict=True):
        call = {"prompts": [prompt], "max_new_tokens": count, "end_token_id": never}
        asked.compare("alone", call | comparison.RAW, [ids])
    # Together go those after which the most tokens fit, for as many of each are compared.
    most = max(counts) if counts.count(max(counts)) > 1 else min(counts)
    texts = [(prompt, ids[:most]) for prompt, ids in zip(some, expected, strict=True) if len(ids) >= most]
    together = {"prompts": [prompt for prompt, _ in texts], "max_new_tokens": most} | comparison.RAW
    cut = [ids for _, ids in texts]
    asked.compare("together", together | {"end_token_id": never}, cut)
    end = comparison.end_in(cut[0])
    if end is not None:
        asked.compare("ended", together | {"end_token_id": end}, comparison.ended(cut, end))


def check_modules(answer: Answer, allowed: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Raise if a fresh process loaded packages, of those watched, that it may not.

    Raises:
        ExportError: it did.
    """
    foreign = set(answer.modules) - set(allowed)
    if foreign:
        raise ExportError(f"The artefact's runtime loaded {', '.join(sorted(foreign))}.", figures=figures)


def prove_loop(
    model: LanguageModel,
    path: Path,
    sampler: str,
    *,
    chunks: Sequence[int],
    longest: int,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a fresh process generate by the loop in the graph, and compare its ids with those of the loop on the host.

    Args:
        model: what was exported.
        path: the artefact.
        sampler: that the graph holds.
        chunks: as in `prove_ids`.
        longest: tokens that a text in the artefact can have.
        settings: of the runtime.

    Raises:
        ExportError: ids differ, or the process failed; `.figures` holds what was seen.
    """
    some = comparison.prompts(model.tokenizer, chunks=chunks, longest=longest)
    new = min(comparison.counts(model.tokenizer, some, longest))
    never = comparison.never(model.tokenizer)
    call: dict[str, Any] = {"prompts": some, "max_new_tokens": new, "sampler": sampler, "seed": 5}
    call |= {"end_token_id": never} | comparison.RAW
    place = min(5, new - 1)
    looped = call | {"in_graph": True}
    ended = looped | {"end_token_of": [0, place]}  # a token that the first text holds, whatever that is
    answer = ask(path, [call, looped, ended], settings=settings)
    host, end = answer.calls[0], answer.calls[0][0][place]
    wanted = comparison.ended(host, end)
    figures: dict[str, Any] = {
        "loop_equal": answer.calls[1] == host,
        "loop_ended_equal": answer.calls[2] == wanted,
        "loop_new_tokens": list(map(len, host)),
        "loop_tokens_per_second": sum(map(len, host)) / answer.seconds[1],
    }
    if not (figures["loop_equal"] and figures["loop_ended_equal"]):
        different = comparison.first_difference(answer.calls[1] + answer.calls[2], host + wanted)
        raise ExportError(
            f"The loop in the graph generates other ids than the loop around it: {different}. Nothing was kept.",
            figures=figures,
        )
    return figures
