"""Lets the page's own modules generate in Node.js, and compares with what kerasgen's runtimes generate."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.constraints.base import Constraint
from kerasgen.errors import ExportError

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

SCRIPT: Final = Path(__file__).with_name("check.mjs")
LITERT_LM_SCRIPT: Final = Path(__file__).with_name("check-lm.mjs")
SAMPLERS: Final = ({"sampler": "greedy"}, {"sampler": "top_k", "k": 5}, {"sampler": "top_p", "p": 0.9})
PROMPTS: Final[tuple[str, ...]] = ("春", "The ", "夜 a")
_TOKENS, _SECONDS = 48, 600
_LEAST_EQUAL = 0.5  # of texts by weights in 8 bits: one wrong module would leave fewer
_FIRST = 2  # ids of a text that are compared then; later ones go on from whatever token was chosen otherwise


def requests(prompts: list[str], forms: list[str], seeds: int = 2) -> list[dict[str, Any]]:
    """Return what is generated: each form, and none, by each sampler."""
    return [
        {"prompt": prompts[seed % len(prompts)], "seed": seed, "form": form, "settings": settings}
        for form in (None, *forms)
        for settings in SAMPLERS
        for seed in range(seeds)
    ]


def check(folder: Path, modules: Path, constraints: Mapping[str, Constraint], *, exact: bool) -> dict[str, Any] | None:
    """Generate and compare; None where Node.js is not installed.

    Args:
        folder: the exported one.
        modules: the `node_modules` folder with LiteRT.js.
        constraints: by the names of the forms.
        exact: whether every id must be equal.

    Raises:
        ExportError: the page's modules give other ids, or end with an error.
    """
    node = shutil.which("node")
    if node is None:
        return None
    from kerasgen.runtime import load_artefact

    runtime = load_artefact(folder / "model.tflite", weight_cache=None)
    tokenizer = runtime.tokenizer
    assert tokenizer is not None
    prompts = [*filter(lambda text: tokenizer.decode(tokenizer.encode(text)) == text, PROMPTS)] or [""]
    asked = requests(prompts, list(constraints))
    description = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    needed = _needed(folder, description["forms"])
    for request in asked:
        room = description["max_tokens"] - len(tokenizer.encode(request["prompt"])) - 1
        request["new"] = min(max(_TOKENS, needed.get(request["form"], 0)), room)
    answers = run(node, folder, modules, asked, _TOKENS)
    own = []
    for request in asked:
        settings = dict(request["settings"])
        name = settings.pop("sampler")
        spec = f"{name}:" + ",".join(f"{key}={value}" for key, value in settings.items()) if settings else name
        constraint = None if request["form"] is None else constraints[request["form"]]
        text = runtime.generate(
            "" if constraint is not None and constraint.whole_text else request["prompt"],
            max_new_tokens=request["new"],
            sampler=spec,
            seed=request["seed"],
            constraint=constraint,
            return_logprobs=True,
        )
        own.append([int(token_id) for token_id in text.token_ids])
    pairs = list(zip(answers["ids"], own, strict=True))
    figures = {
        "texts": len(own),
        "equal_texts": sum(one == other for one, other in pairs),
        "equal_beginnings": sum(one[:_FIRST] == other[:_FIRST] for one, other in pairs),
        "tokens": sum(map(len, own)),
        "node": answers["node"],
        "tokens_per_second": answers["tokens_per_second"],
    }
    _require(figures, "generate other ids", exact=exact)
    return figures


def _needed(folder: Path, forms: Mapping[str, str]) -> dict[str | None, int]:
    """Return how many tokens the shortest text of each form has, by the forms' names; their files are given."""
    read = {name: json.loads((folder / file).read_text(encoding="utf-8")) for name, file in forms.items()}
    return {name: form["states"][0]["fewest"] or 0 for name, form in read.items()}


def check_litert_lm(
    folder: Path, modules: Path, model: LanguageModel, *, most: int, exact: bool
) -> dict[str, Any] | None:
    """Write greedily by the page's worker and compare with LiteRT-LM in Python; None where Node.js is not installed.

    Args:
        folder: the exported one.
        modules: the `node_modules` folder with LiteRT-LM.
        model: what was exported; with a chat template, a prompt is the first message of a conversation.
        most: tokens of a whole text.
        exact: whether every text must be equal.

    Raises:
        ExportError: the worker writes other texts, or ends with an error.
    """
    node = shutil.which("node")
    if node is None:
        return None
    from kerasgen.exporters.parity import worker
    from kerasgen.models import chat
    from kerasgen.runtime import load_artefact

    bundle = folder / "model.litertlm"
    tokenizer = model.tokenizer
    prompts = [*filter(lambda text: tokenizer.decode(tokenizer.encode(text)) == text, PROMPTS)]
    answer = _ask(node, LITERT_LM_SCRIPT, folder, modules, {"prompts": prompts, "new": _TOKENS})
    if chat.template_of(model) is None:
        runtime = load_artefact(bundle)
        should = [runtime.generate(text, max_new_tokens=_TOKENS, return_prompt=False) for text in prompts]
    else:
        chats = [{"messages": [{"role": "user", "content": prompt}], "text": prompt} for prompt in prompts]
        job = {"path": str(bundle.absolute()), "max_tokens": most, "chats": chats, "new_tokens": _TOKENS}
        should = worker.run("kerasgen.exporters.litertlm.chat_worker", job)["answers"]
    pairs = list(zip(answer["texts"], should, strict=True))
    figures = {
        "texts": len(should),
        "equal_texts": sum(one == other for one, other in pairs),
        "equal_beginnings": sum(one[:_FIRST] == other[:_FIRST] for one, other in pairs),
        "characters": sum(map(len, should)),
        "node": answer["node"],
        "characters_per_second": sum(map(len, answer["texts"])) / answer["seconds"],
    }
    _require(figures, "writes other texts", exact=exact)
    return figures


def run(node: str, folder: Path, modules: Path, asked: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Return the ids of each request from a fresh process of Node.js.

    Raises:
        ExportError: it ends with an error.
    """
    return _ask(node, SCRIPT, folder, modules, {"asked": asked, "new": tokens})


def _ask(node: str, script: Path, folder: Path, modules: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    places = {"folder": str(folder.resolve()), "modules": str(modules.resolve())}
    text = json.dumps({**places, **job}, allow_nan=False)
    try:
        done = subprocess.run([node, str(script)], input=text, capture_output=True, text=True, timeout=_SECONDS)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as cause:
        what = _last_words(done) if "done" in locals() else str(cause)
        raise ExportError(f"The page's modules could not be run by Node.js: {what} Nothing was kept.") from cause
    if "error" in answer:
        raise ExportError(
            f"The page's modules ended with an error in Node.js: {answer['error'][:500]}. Nothing was kept."
        )
    return answer


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a process that answered nothing said last, or how it ended."""
    lines = [line.strip()[:300] for line in done.stderr.splitlines() if line.strip()]
    return f"it ended with status {done.returncode}. {' '.join(lines[-3:])}".rstrip(".") + "."


def _require(figures: Mapping[str, Any], does: str, *, exact: bool) -> None:
    texts, equal = figures["texts"], figures["equal_texts" if exact else "equal_beginnings"]
    if equal < texts * (1.0 if exact else _LEAST_EQUAL):
        what = "texts are equal" if exact else "texts begin alike"
        raise ExportError(
            f"The page's modules {does} than kerasgen's runtime: {equal} of {texts} {what}. Nothing was kept."
        )
