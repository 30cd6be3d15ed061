"""Lets the page's own modules generate in Node.js, and compares with what kerasgen's runtimes generate.

Weights in float32 give the same ids. Weights in 8 bits give other ids where two tokens are nearly as likely, since the
engine in the page rounds a product otherwise than the one in Python, and every text goes on from its own ids. So the
logits are compared, after each token of one and the same text; and where a text of the page first differs, its id
must be the one that the sampler chooses from the page's own logits.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.constraints.base import Constraint
from kerasgen.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.base import Tokenizer

SCRIPT: Final = Path(__file__).with_name("check.mjs")
LITERT_LM_SCRIPT: Final = Path(__file__).with_name("check-lm.mjs")
SAMPLERS: Final = ({"sampler": "greedy"}, {"sampler": "top_k", "k": 5}, {"sampler": "top_p", "p": 0.9})
PROMPTS: Final[tuple[str, ...]] = ("春", "The ", "夜 a")
_TOKENS, _SECONDS = 48, 600
_LEAST_EQUAL = 0.5  # of texts by LiteRT-LM with weights in 8 bits, which gives no logits
_FIRST = 2  # characters of such a text that are compared; later ones go on from whatever token was chosen otherwise
_READ = 16  # tokens of a text after which logits are compared
LOGITS_ERROR: Final = 0.25
"""Greatest mean over places of the logits' difference by weights in 8 bits: the root of its mean square, as a share of
the logits' standard deviation. SmolLM2 has 0.12, and logits that have nothing to do with each other 1.4. Both runtimes
round activations to 8 bits, each in its own way: they are as far from the model's float32 logits as from each other."""
PLACE_ERROR: Final = 0.75
"""The same at one place; SmolLM2 has up to 0.49."""


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
    own: list[list[int]] = []
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
    figures = {
        "texts": len(own),
        "equal_texts": sum(one == other for one, other in zip(answers["ids"], own, strict=True)),
        "tokens": sum(map(len, own)),
        "node": answers["node"],
        "tokens_per_second": answers["tokens_per_second"],
    }
    if exact:
        _require_equal(figures, "generate other ids")
        return figures
    free = [place for place, request in enumerate(asked) if request["form"] is None]
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    texts = [
        _Text(asked[place], [*start, *tokenizer.encode(asked[place]["prompt"])], own[place], answers["ids"][place])
        for place in free
    ]
    figures |= _compared(texts, _read(node, folder, modules, texts), runtime)
    require_close(figures)
    return figures


@dataclass(frozen=True)
class _Text:
    """A text that both have written.

    Args:
        request: what was asked for.
        prompt: ids of the prompt, the start token with them.
        own: ids that Python's runtime gave after it.
        page: those of the page.
    """

    request: Mapping[str, Any]
    prompt: list[int]
    own: list[int]
    page: list[int]

    @property
    def read(self) -> list[int]:
        """The ids after which logits are compared: the prompt, and what Python's runtime wrote first."""
        return [*self.prompt, *self.own[: _READ - 1]]


def _read(node: str, folder: Path, modules: Path, texts: list[_Text]) -> list[npt.NDArray[np.float32]]:
    """Return the page's logits after a prompt and after each further token that is read."""
    import numpy as np

    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "logits.bin"
        job = {
            "read": [{"ids": text.read, "prefilled": len(text.prompt)} for text in texts],
            "logits": str(file),
        }
        _ask(node, SCRIPT, folder, modules, {"asked": [], "new": 0, **job})
        flat = np.fromfile(file, np.float32)
    counts = [len(text.read) - len(text.prompt) + 1 for text in texts]
    rows = flat.reshape(sum(counts), -1)
    return np.split(rows, np.cumsum(counts)[:-1])


def _compared(texts: list[_Text], page: list[npt.NDArray[np.float32]], runtime: Any) -> dict[str, Any]:
    """Return how far the page's logits are from those of Python's runtime, and whether its ids are chosen from them."""
    import numpy as np

    errors: list[float] = []
    chosen_otherwise: list[str] = []
    for text, logits in zip(texts, page, strict=True):
        own = runtime.logits(text.read, prefilled=len(text.prompt))
        errors += (np.sqrt(np.mean((logits - own) ** 2, axis=1)) / np.std(own, axis=1)).tolist()
        equal = next((n for n, (one, other) in enumerate(zip(text.page, text.own, strict=False)) if one != other), None)
        place = min(len(text.page), len(text.own)) if equal is None else equal
        if place < min(len(logits), len(text.page)):
            should = _choice(text, logits[place], place, runtime.tokenizer)
            if should != text.page[place]:
                chosen_otherwise.append(f"{text.page[place]} instead of {should}")
    return {
        "compared_places": len(errors),
        "logits_error": max(errors),
        "mean_logits_error": sum(errors) / len(errors),
        "wrong_choices": chosen_otherwise,
    }


def _choice(text: _Text, logits: npt.NDArray[np.float32], place: int, tokenizer: Tokenizer) -> int:
    """Return the id that the sampler of a text chooses from logits at a place, of those that leave it valid UTF-8."""
    import numpy as np

    from kerasgen import samplers
    from kerasgen.constraints import valid_utf8
    from kerasgen.samplers import randomness

    settings = dict(text.request["settings"])
    spec: Any = samplers.REGISTRY.build(settings.pop("sampler"), settings)
    key = randomness.keys([text.request["seed"]], [text.prompt], [0])
    uniform = randomness.uniforms(np, (key[:, 0], key[:, 1]), np.array([place], np.uint32))
    utf8 = valid_utf8.masks_of(tokenizer)
    row = logits[None]
    if utf8 is not None:
        state = utf8.state_after([*text.prompt, *text.own[:place]])
        row = np.where(utf8.allowed(np.array([state])), row, -np.inf)
    return int(spec.choose(np, row / spec.temperature, uniform.astype(np.float64))[0])


def require_close(figures: Mapping[str, Any]) -> None:
    """Raise unless the page's logits are near to those of Python's runtime, and its ids are chosen from them.

    Raises:
        ExportError: they are not.
    """
    mean, most = figures["mean_logits_error"], figures["logits_error"]
    if not (mean <= LOGITS_ERROR and most <= PLACE_ERROR):
        raise ExportError(
            f"The page's logits are not those of kerasgen's runtime: they differ by {mean:.3f} of their standard "
            f"deviation in the mean, where {LOGITS_ERROR} is allowed, and by up to {most:.3f}, where {PLACE_ERROR} is. "
            "Nothing was kept."
        )
    if figures["wrong_choices"]:
        raise ExportError(
            "The page's sampler chooses other ids from its logits than kerasgen's: "
            f"{', '.join(figures['wrong_choices'][:3])}. Nothing was kept."
        )


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
    if exact:
        _require_equal(figures, "writes other texts")
    else:
        _require_beginnings(figures)
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


def _require_equal(figures: Mapping[str, Any], does: str) -> None:
    texts, equal = figures["texts"], figures["equal_texts"]
    if equal < texts:
        raise ExportError(
            f"The page's modules {does} than kerasgen's runtime: {equal} of {texts} texts are equal. Nothing was kept."
        )


def _require_beginnings(figures: Mapping[str, Any]) -> None:
    texts, equal = figures["texts"], figures["equal_beginnings"]
    if equal < texts * _LEAST_EQUAL:
        raise ExportError(
            f"The page's worker writes other texts than LiteRT-LM in Python: {equal} of {texts} texts begin alike. "
            "Nothing was kept."
        )
