"""`kerasgen demo`: the whole way in a minute, with what changed shown before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from kerasgen.cli.arguments import Backend, Json, option, verbosity
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show

TOKENS = 48
PROMPTS = {"zh": "昨夜雨疏风骤", "en": "The neighbour"}
MARKER = "kerasgen-demo.txt"
_MARKED = "`kerasgen demo` made this directory, and replaces it when it runs again.\n"


def run(
    language: Annotated[
        Literal["zh", "en"],
        option(
            "--language",
            help="language of the sample's texts; the starter was trained on Chinese verse alone (default: zh)",
        ),
    ] = "zh",
    directory: Annotated[
        Path,
        option(
            "--directory",
            metavar="PATH",
            help="where the tuned model is saved; an earlier demo's is replaced (default: kerasgen-demo)",
        ),
    ] = Path("kerasgen-demo"),
    prompt: Annotated[
        str | None,
        option("--prompt", metavar="TEXT", help=f"the text's beginning (default: {PROMPTS['zh']}, or {PROMPTS['en']})"),
    ] = None,
    as_json: Json = False,
    backend: Backend = None,
) -> int:
    """Tune, write with the same prompt and seed before and after, evaluate, save and load again."""
    from kerasgen.pipeline import Pipeline
    from kerasgen.tuners.full import FullTuner

    target = directory.expanduser()
    if target.exists() and not (target / MARKER).is_file():
        raise ArgumentError(
            f"{str(target)!r} is there already, and no demo made it. Say another `directory`, or move it away."
        )
    beginning = PROMPTS[language] if prompt is None else prompt
    tell: Callable[[object], None] = _keep_quiet if as_json else show
    begin = time.perf_counter()
    pipeline = Pipeline(
        corpus=f"sample:language={language}",
        model="starter",
        tuner=FullTuner(epochs=2, learning_rate=1e-3, batch_size=8, warmup_steps=10),
        sampler="top_k:k=8,temperature=0.9",
        seed=0,
        backend=backend,
    )
    tell("Loading the starter, a small model of classical Chinese verse …")
    if language != "zh":
        tell("It has never read English: what it writes before, and its figures, are those of a beginner.")
    before_text = pipeline.generate(beginning, max_new_tokens=TOKENS)
    before = pipeline.evaluate()
    tell(f"{pipeline.model.network.count_params():,} weights on the backend {pipeline.backend}")
    tell("\nTuning it on the sample corpus …")
    report = pipeline.fit(verbose=verbosity(as_json))
    tell(f"\n{report}\n")
    after_text = pipeline.generate(beginning, max_new_tokens=TOKENS)
    after = pipeline.evaluate()
    tell(f"--- before, same prompt and seed\n{before_text}\n")
    tell(f"--- after\n{after_text}\n")
    tell("held-out part of the sample corpus")
    tell(f"  before: {before}")
    tell(f"  after:  {after}\n")
    saved = pipeline.save(target, overwrite=True)
    (saved / MARKER).write_text(_MARKED, encoding="utf-8")
    again = Pipeline.load(saved, backend=backend)
    same = again.generate(beginning, max_new_tokens=TOKENS) == after_text
    tell(f"Saved to {saved.resolve()} and loaded again: it writes {'the same text' if same else 'ANOTHER text'}.")
    tell(f"  {saved / 'model'} is a KerasHub preset; {saved / 'pipeline.json'} says how it came about.")
    tell(f"  kerasgen generate {saved} {beginning!r}")
    tell(f"Done in {time.perf_counter() - begin:.0f} s.")
    if as_json:
        figures = {"text": before_text, "evaluation": before}, {"text": after_text, "evaluation": after}
        show_json({"prompt": beginning, "before": figures[0], "after": figures[1], "report": report, "saved": saved})
    return 0 if same and after.bits_per_character < before.bits_per_character else 1


def _keep_quiet(text: object) -> None:
    """Tell a person nothing, since standard output is for a program."""
