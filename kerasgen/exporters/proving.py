"""A written artefact is loaded in a fresh process and must generate what the model does."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import kerasgen
from kerasgen.errors import ExportError
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.base import Tokenizer

PROBE = "昨夜雨疏风骤，浓睡不消残酒。Once upon a time there was a small house by the river,\n\nand nobody lived in it."
NEW_TOKENS = 128
BEAM_TOKENS = 32
LEAST_DISTINCT = 20
DRAWS = 200
_DRAWN_AMONG = 5
# Chi-square of 4 degrees of freedom beyond which one sample in a million lies.
_FARTHEST = 33.4


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a fresh process did with an artefact.

    Args:
        calls: of each call, the ids after each prompt.
        seconds: that each call took.
        logits: of each text to read, float32 `(tokens, vocabulary_size)`.
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
    logits: Sequence[Sequence[int]] = (),
    settings: Mapping[str, Any] | None = None,
    timeout: float = 3600.0,
) -> Answer:
    """Load an artefact in a fresh process, let it generate, and return what it did.

    Args:
        path: of the artefact.
        calls: arguments of `Runtime.generate_ids`, as JSON could hold them.
        logits: texts, as ids, whose logits to read.
        settings: of the runtime.
        timeout: seconds after which the process is ended.

    Raises:
        ExportError: the process failed; the message holds the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        asked = {
            "path": str(path.absolute()),
            "calls": [dict(call) for call in calls],
            "logits": [list(map(int, ids)) for ids in logits],
            "settings": dict(settings or {}),
        }
        job.write_text(json.dumps(asked), encoding="utf-8")
        root = str(Path(kerasgen.__file__).parents[1])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-m", "kerasgen.runtime", str(job), str(answer)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ExportError(
                f"A fresh process could not run {path.name} (exit status {done.returncode}): {done.stderr[-1500:]}"
            )
        found = json.loads(answer.read_text(encoding="utf-8"))
        read = [np.load(answer.with_suffix(f".{index}.npy")) for index in range(len(logits))]
    return Answer(found["calls"], found["seconds"], read, found["modules"], found["load_seconds"], found["peak_bytes"])


def prompts(tokenizer: Tokenizer, *, chunk: int, longest: int, new_tokens: int) -> list[list[int]]:
    """Return ids of prompts shorter than, equal to and longer than a chunk of the prefill, as far as they fit.

    Args:
        tokenizer: whose ids.
        chunk: tokens that a prefill reads at once, the start token counted.
        longest: tokens of a whole text.
        new_tokens: how many must still fit after each prompt.
    """
    start = 0 if tokenizer.start_token_id is None else 1
    ids = tokenizer.encode(PROBE * (1 + 2 * chunk // len(PROBE)))
    lengths = dict.fromkeys(min(n, longest - new_tokens) - start for n in (max(chunk // 2, 2), chunk, chunk + 5, 3))
    return [ids[place : place + length] for place, length in enumerate(lengths) if length > 0]


def prove_ids(
    model: LanguageModel,
    path: Path,
    *,
    chunk: int,
    longest: int,
    beams: int | None = 4,
    seeded: str | None = "top_k:k=5",
    settings: Mapping[str, Any] | None = None,
    allowed_modules: Sequence[str] = (),
    reference: Any = None,
) -> dict[str, Any]:
    """Let a fresh process generate from the artefact, and compare its ids with the model's own.

    Greedy ids over up to 128 new tokens, for prompts around the length of a chunk, alone and together, and for one that
    ends by an end token; ids of beam search; that seeded sampling gives the same twice, and that what it draws is
    distributed as the logits say.

    Args:
        model: what was exported.
        path: the artefact.
        chunk: tokens that a prefill reads at once.
        longest: tokens that a text in the artefact can have.
        beams: for beam search, or None if the artefact holds none.
        seeded: a sampler that draws, or None if the artefact holds none.
        settings: of the runtime.
        allowed_modules: packages, of those watched, that the process may load.
        reference: an engine whose ids to compare with, where the artefact's weights are rounded; then it is told, and
            no failure, if the model's own ids are others.

    Returns:
        Figures, as JSON could hold them.

    Raises:
        ExportError: ids differ, the process failed, or loaded what it should not; `.figures` holds what was seen.
    """
    new = min(NEW_TOKENS, longest // 2)
    some = prompts(model.tokenizer, chunk=chunk, longest=longest, new_tokens=new)
    original = model if reference is None else reference
    expected = [_ids(original, [one], "greedy", new)[0] for one in some]
    end = next((n for n, token in enumerate(expected[0]) if n > 3 and token not in expected[0][:n]), None)
    few = min(BEAM_TOKENS, new)
    calls: list[dict[str, Any]] = [{"prompts": [one], "max_new_tokens": new} for one in some]
    wanted: list[tuple[str, list[list[int]]]] = [("alone", [ids]) for ids in expected]
    calls.append({"prompts": some, "max_new_tokens": new})
    wanted.append(("together", expected))
    if end is not None and not any(model.tokenizer.end_token_id in ids for ids in expected):
        last = expected[0][end]
        calls.append({"prompts": some, "max_new_tokens": new, "end_token_id": last})
        wanted.append(("ended", [ids[: ids.index(last) + 1] if last in ids else ids for ids in expected]))
    if beams is not None:
        spec = f"beam:num_beams={beams}"
        calls.append({"prompts": some[:2], "max_new_tokens": few, "sampler": spec})
        wanted.append(("beams", _ids(original, some[:2], spec, few)))
    seeded_at = len(calls)
    if seeded is not None:
        calls += [{"prompts": some[:2], "max_new_tokens": few, "sampler": seeded, "seed": 11}] * 2
    draw = draws(model.tokenizer) if seeded is not None and seeded.startswith("top_k") else None
    start = model.tokenizer.start_token_id
    read = [] if draw is None else [([] if start is None else [start]) + draw["prompts"][0]]
    answer = ask(path, calls if draw is None else [*calls, draw], logits=read, settings=settings)

    distinct = max(len(set(ids)) for ids in expected)
    figures: dict[str, Any] = {
        "new_tokens": new,
        "prompt_lengths": [len(one) for one in some],
        "distinct_tokens": distinct,
        "is_degenerate": distinct < LEAST_DISTINCT,
        "tokens_per_second": len(expected[0]) / answer.seconds[0],
        "load_seconds": answer.load_seconds,
        "peak_bytes": answer.peak_bytes,
        "modules": answer.modules,
    }
    for number, (what, ids) in enumerate(wanted):
        same = answer.calls[number] == ids
        figures[f"{what}_equal"] = figures.get(f"{what}_equal", True) and same
        if not same:
            figures[f"{what}_first_difference"] = _first_difference(answer.calls[number], ids)
    if reference is not None:
        figures["like_the_unrounded_model"] = expected == [_ids(model, [one], "greedy", new)[0] for one in some]
    if seeded is not None:
        figures["seeded_reproduces"] = answer.calls[seeded_at] == answer.calls[seeded_at + 1]
    if draw is not None:
        figures["draws"] = DRAWS
        figures["draws_chi_square"] = distance(answer.calls[-1], answer.logits[0][-1])
        figures["draws_distributed"] = figures["draws_chi_square"] < _FARTHEST
    wrong = [
        key for key, value in figures.items() if key.endswith(("_equal", "_reproduces", "_distributed")) and not value
    ]
    if wrong:
        raise ExportError(
            f"What was written does not generate what the model does ({', '.join(wrong)}): {figures}. Nothing was "
            "kept.",
            figures=figures,
        )
    foreign = set(answer.modules) - set(allowed_modules)
    if foreign:
        raise ExportError(f"The artefact's runtime loaded {', '.join(sorted(foreign))}.", figures=figures)
    return figures


def draws(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the call that draws the token after one prompt many times, each with numbers of its own."""
    prompt = tokenizer.encode(PROBE)[:2]
    return {"prompts": [prompt] * DRAWS, "max_new_tokens": 1, "sampler": f"top_k:k={_DRAWN_AMONG}", "seed": 3}


def distance(drawn: Sequence[Sequence[int]], logits: npt.NDArray[Any]) -> float:
    """Return how far drawn tokens are from the truncated probabilities of these logits, as chi-square.

    Args:
        drawn: one id each, as `draws` asks for them.
        logits: float `(vocabulary_size,)`, before the token that was drawn.

    Returns:
        Of 4 degrees of freedom; infinite where a token was drawn that should not be.
    """
    places = np.argsort(-logits, kind="stable")[:_DRAWN_AMONG]
    powers = np.exp(logits[places].astype(np.float64) - float(logits[places[0]]))
    wanted = len(drawn) * powers / powers.sum()
    counts = np.array([sum(ids[0] == place for ids in drawn) for place in places])
    if counts.sum() != len(drawn):
        return float("inf")
    return float(((counts - wanted) ** 2 / wanted).sum())


def prove_loop(
    model: LanguageModel,
    path: Path,
    sampler: str,
    *,
    longest: int,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a fresh process generate by the loop in the graph, and compare its ids with those of the loop on the host.

    Args:
        model: what was exported.
        path: the artefact.
        sampler: that the graph holds.
        longest: tokens that a text in the artefact can have.
        settings: of the runtime.

    Raises:
        ExportError: ids differ, or the process failed; `.figures` holds what was seen.
    """
    new = min(NEW_TOKENS, longest // 2)
    some = prompts(model.tokenizer, chunk=min(32, longest // 4), longest=longest, new_tokens=new)
    call = {"prompts": some, "max_new_tokens": new, "sampler": sampler, "seed": 5}
    answer = ask(path, [call, call | {"in_graph": True}], settings=settings)
    figures = {
        "loop_equal": answer.calls[0] == answer.calls[1],
        "loop_tokens_per_second": sum(map(len, answer.calls[1])) / answer.seconds[1],
    }
    if not figures["loop_equal"]:
        different = _first_difference(answer.calls[1], answer.calls[0])
        raise ExportError(
            f"The loop in the graph generates other ids than the loop around it: {different}. Nothing was kept.",
            figures=figures,
        )
    return figures


def prove_closeness(
    model: LanguageModel,
    path: Path,
    *,
    longest: int,
    most_divergence: float,
    settings: Mapping[str, Any] | None = None,
    allowed_modules: Sequence[str] = (),
) -> dict[str, Any]:
    """Let a fresh process read a text token by token with a quantised artefact, and compare its predictions.

    Args:
        model: what was exported.
        path: the artefact.
        longest: tokens that a text in the artefact can have.
        most_divergence: the mean divergence in nats a token that it may have.
        settings: of the runtime.
        allowed_modules: packages, of those watched, that the process may load.

    Returns:
        Figures, as JSON could hold them; of an untrained model they say nothing.

    Raises:
        ExportError: it diverges more, its seeded texts differ from run to run, or the process failed.
    """
    start = model.tokenizer.start_token_id
    text = ([] if start is None else [start]) + model.tokenizer.encode(PROBE * 4)
    text = text[: min(longest - 1, 160)]
    new = min(32, longest // 2)
    draw = {"prompts": [text[1:4]], "max_new_tokens": new, "sampler": "top_k:k=5", "seed": 11}
    many = draws(model.tokenizer)
    before = ([] if start is None else [start]) + many["prompts"][0]
    calls = [{"prompts": [text[1:4]], "max_new_tokens": new}, draw, draw, many]
    answer = ask(path, calls, logits=[text, before], settings=settings)
    ids = np.asarray([text], np.int32)
    outputs = model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}, training=False)
    wanted = np.asarray(outputs, np.float64)[0, :, : model.tokenizer.vocabulary_size]
    found = answer.logits[0].astype(np.float64)
    ours, theirs = log_softmax(np, wanted), log_softmax(np, found)
    targets = np.arange(len(text) - 1), np.asarray(text[1:])
    figures: dict[str, Any] = {
        "tokens": len(text),
        "divergence_in_nats": float((np.exp(ours) * (ours - theirs)).sum(axis=-1).mean()),
        "same_likeliest": float((wanted.argmax(axis=-1) == found.argmax(axis=-1)).mean()),
        "largest_logit_difference": float(np.abs(wanted - found).max()),
        "nats_per_token": float(-theirs[:-1][targets].mean()),
        "nats_per_token_of_the_model": float(-ours[:-1][targets].mean()),
        "seeded_reproduces": answer.calls[1] == answer.calls[2],
        "draws": DRAWS,
        "draws_chi_square": distance(answer.calls[3], answer.logits[1][-1]),
        "tokens_per_second": len(answer.calls[0][0]) / answer.seconds[0],
        "load_seconds": answer.load_seconds,
        "peak_bytes": answer.peak_bytes,
        "modules": answer.modules,
    }
    foreign = set(answer.modules) - set(allowed_modules)
    distributed = figures["draws_chi_square"] < _FARTHEST
    close = figures["divergence_in_nats"] <= most_divergence
    if not (close and distributed and figures["seeded_reproduces"]) or foreign:
        raise ExportError(
            f"What was written is further from the model than {most_divergence} nats a token, or can't be relied on: "
            f"{figures}. Nothing was kept.",
            figures=figures,
        )
    return figures


def _ids(model: Any, some: Sequence[Sequence[int]], sampler: str, new_tokens: int) -> list[list[int]]:
    from kerasgen.generation import generate_ids

    found = generate_ids(model, some, sampler=sampler, max_new_tokens=new_tokens)
    return [list(several[0].token_ids) for several in found]


def _first_difference(found: list[list[int]], wanted: list[list[int]]) -> dict[str, int]:
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                return {"row": row, "place": place, "found": one, "wanted": other}
        if len(ours) != len(theirs):
            return {"row": row, "place": min(len(ours), len(theirs)), "found_tokens": len(ours)}
    return {}
