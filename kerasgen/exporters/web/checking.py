"""Lets the page's own modules generate in Node.js, and compares their ids with those of kerasgen's runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kerasgen.constraints.base import Constraint
from kerasgen.errors import ExportError

SCRIPT: Final = Path(__file__).with_name("check.mjs")
SAMPLERS: Final = ({"sampler": "greedy"}, {"sampler": "top_k", "k": 5}, {"sampler": "top_p", "p": 0.9})
PROMPTS: Final[tuple[str, ...]] = ("春", "The ", "夜 a")
_TOKENS, _SECONDS = 48, 600
_LEAST_EQUAL = 0.5  # of texts by weights in 8 bits: one wrong module would leave none


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
    answers = run(node, folder, modules, asked, _TOKENS)
    own = []
    for request in asked:
        settings = dict(request["settings"])
        name = settings.pop("sampler")
        spec = f"{name}:" + ",".join(f"{key}={value}" for key, value in settings.items()) if settings else name
        constraint = None if request["form"] is None else constraints[request["form"]]
        text = runtime.generate(
            "" if constraint is not None and constraint.whole_text else request["prompt"],
            max_new_tokens=_TOKENS,
            sampler=spec,
            seed=request["seed"],
            constraint=constraint,
            return_logprobs=True,
        )
        own.append([int(token_id) for token_id in text.token_ids])
    equal = sum(one == other for one, other in zip(answers["ids"], own, strict=True))
    figures = {
        "texts": len(own),
        "equal_texts": equal,
        "tokens": sum(map(len, own)),
        "node": answers["node"],
        "tokens_per_second": answers["tokens_per_second"],
    }
    if equal < len(own) * (1.0 if exact else _LEAST_EQUAL):
        raise ExportError(
            f"The page's modules generate other ids than kerasgen's runtime: {equal} of {len(own)} texts are equal. "
            "Nothing was kept."
        )
    return figures


def run(node: str, folder: Path, modules: Path, asked: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Return the ids of each request from a fresh process of Node.js.

    Raises:
        ExportError: it ends with an error.
    """
    places = {"folder": str(folder.resolve()), "modules": str(modules.resolve())}
    job = json.dumps({**places, "asked": asked, "new": tokens}, allow_nan=False)
    try:
        done = subprocess.run([node, str(SCRIPT)], input=job, capture_output=True, text=True, timeout=_SECONDS)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as cause:
        what = done.stderr[-1000:] if "done" in locals() else cause
        raise ExportError(f"The page's modules could not be run by Node.js: {what}. Nothing was kept.") from cause
    return answer
