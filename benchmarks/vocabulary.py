"""A model of English, with GPT-2's vocabulary, is tuned on Tang poems for the same time with keep, trim and extend.

    python -m benchmarks.vocabulary --json vocabulary.json

The three take turns in slices of equal training time, so that whatever else the machine does hits all alike. What is
compared is bits per character on held-out poems. The first model can be made once and kept: `--pretrained DIRECTORY`.
"""

from __future__ import annotations

import json
import lzma
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import DATA, arguments_of, bar, gpt2_files, report

CHOICES = ("keep", "trim", "extend")
LEAST_STEPS = 100
"""Of `keep`, the slowest. After fewer, what differs is how often each was trained, not what its vocabulary is worth."""


@dataclass(frozen=True)
class Size:
    """How large the model is and how long it is trained."""

    num_layers: int = 4
    hidden_dim: int = 256
    num_heads: int = 4
    sequence_length: int = 128
    batch_size: int = 16
    pretrain_seconds: float = 240.0
    seconds: float = 300.0
    slice_seconds: float = 60.0
    learning_rate: float = 1e-3
    stories: int | None = 2_000
    poems: int | None = None
    held_out: int = 200


QUICK = Size(1, 16, 2, 32, 4, pretrain_seconds=1.0, seconds=1.0, slice_seconds=0.5, stories=40, poems=120, held_out=20)


@dataclass
class Contender:
    """One model on its way."""

    name: str
    model: Any
    report: dict[str, Any]
    batches: Iterator[Any]
    trainer: Any
    held_out: Any
    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    bits_per_character: list[float] = field(default_factory=list)

    def train_until(self, seconds: float) -> None:
        """Take steps until so many seconds were spent on steps in all."""
        while self.seconds < seconds:
            batch = next(self.batches)
            begin = time.perf_counter()
            self.trainer.train_on_batch(batch)
            self.seconds += time.perf_counter() - begin
            self.steps += 1
            self.tokens += int((batch["segment_ids"] > 0).sum())

    def measure(self, size: Size) -> float:
        """Return the bits per character of the held-out texts, which takes none of the training time."""
        from kerasgen.models.scoring import score

        scored = score(
            self.model, self.held_out, sequence_length=size.sequence_length, batch_size=32, losses=self.trainer
        )
        self.bits_per_character.append(scored.bits_per_character)
        return scored.bits_per_character


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = arguments_of(__doc__)
    parser.add_argument("--backend", default="tensorflow", choices=["jax", "tensorflow"])
    parser.add_argument("--pretrained", type=Path, help="the English model's preset: read, or written first")
    parser.add_argument("--seconds", type=float, help="training time of each contender")
    parser.add_argument("--only-pretrain", action="store_true", help="stop when the English model is written")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", asked.backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["OMP_NUM_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"] = str(asked.threads)
    several = "true" if asked.threads > 1 else "false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={several}"
    size = QUICK if asked.quick else Size()
    if asked.seconds:
        size = replace(size, seconds=asked.seconds, slice_seconds=min(size.slice_seconds, asked.seconds))
    with tempfile.TemporaryDirectory() as folder:
        preset = asked.pretrained or Path(folder) / "english"
        if not preset.exists():
            pretrain(preset, size, quick=asked.quick)
        if asked.only_pretrain:
            return {}
        found = compare(preset, size, quick=asked.quick)
    return report(found["rows"], found["bars"], asked.json)


def pretrain(preset: Path, size: Size, *, quick: bool) -> None:
    """Train a new model on English stories and write it as a preset."""
    import keras
    import keras_hub

    from kerasgen.models.base import LanguageModel
    from kerasgen.models.saving import save_preset

    tokenizer = _gpt2_tokenizer()
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=4 * size.hidden_dim,
        max_sequence_length=size.sequence_length,
        dropout=0.0,
    )
    model = LanguageModel(keras_hub.models.GPT2CausalLM(backbone, preprocessor=None), tokenizer, source="english")
    stories = _stories(size, quick)
    contender = _contender("english", model, {}, stories[size.held_out // 10 :], stories[: size.held_out // 10], size)
    print(f"english: {contender.measure(size):.3f} bits per character untrained", flush=True)
    contender.train_until(size.pretrain_seconds)
    print(
        f"english: {contender.measure(size):.3f} bits per character after {contender.steps} steps, "
        f"{contender.tokens:,} tokens, {contender.seconds:.0f} s",
        flush=True,
    )
    save_preset(model, preset)


def compare(preset: Path, size: Size, *, quick: bool) -> dict[str, Any]:
    """Tune the preset three times, in turns, and return the rows and the bars."""
    from kerasgen.corpora import splits
    from kerasgen.models.hub import Hub
    from kerasgen.tuners.vocabulary import adapt

    poems = _poems(size, quick)
    train = [poem for poem in poems if splits.side(poem, held_out=0.1) == "train"]
    held_out = [poem for poem in poems if splits.side(poem, held_out=0.1) == "held_out"][: size.held_out]
    contenders = []
    for name in CHOICES:
        model = Hub(str(preset)).load()
        begin = time.perf_counter()
        record = adapt(model, lambda: train, None, asked=name)  # type: ignore[arg-type]
        adapted = dict(record)
        adapted["adapting_seconds"] = time.perf_counter() - begin
        contenders.append(_contender(name, model, adapted, train, held_out, size))
        print(f"{name}: {contenders[-1].measure(size):.3f} bits per character before tuning", flush=True)
    until = size.slice_seconds
    while until <= size.seconds:
        for contender in contenders:
            contender.train_until(until)
            measured = contender.measure(size)
            at = f"{contender.seconds:.0f} s, {contender.steps} steps, {contender.tokens:,} tokens"
            print(f"{contender.name}: {measured:.3f} after {at}", flush=True)
        until += size.slice_seconds
    if contenders[0].steps < LEAST_STEPS:
        print(f"keep made {contenders[0].steps} steps; raise --seconds until there are {LEAST_STEPS}", flush=True)
    rows = [_row(contender) for contender in contenders]
    keep, trim, extend = (contender.bits_per_character[-1] for contender in contenders)
    bars = [
        bar("held-out bits per character, extend over keep", extend / keep, at_most=0.9),
        bar("held-out bits per character, trim over keep", trim / keep, at_most=1.0),
    ]
    if not quick:
        bars.append(bar("optimizer steps of keep", contenders[0].steps, at_least=LEAST_STEPS))
    return {"rows": rows, "bars": bars}


def _row(contender: Contender) -> dict[str, Any]:
    backbone = contender.model.backbone
    return {
        "vocabulary": contender.name,
        "vocabulary_size": contender.model.tokenizer.vocabulary_size,
        "parameters": int(backbone.count_params()),
        "tokens_per_character": contender.report.get("after", {}).get("tokens_per_character"),
        "adapting_seconds": contender.report["adapting_seconds"],
        "training_seconds": contender.seconds,
        "steps": contender.steps,
        "tokens": contender.tokens,
        "precision": contender.model.causal_lm.dtype_policy.name,
        "bits_per_character": contender.bits_per_character,
    }


def _contender(
    name: str, model: Any, report: dict[str, Any], train: list[str], held_out: list[str], size: Size
) -> Contender:
    from kerasgen.models.forward import set_precision
    from kerasgen.models.precision import resolve
    from kerasgen.tokens.packing import pack
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.plan import Plan
    from kerasgen.tuners.trainer import compiled

    encoded = _encode(train, model.tokenizer)
    settings = FullTuner(
        learning_rate=size.learning_rate,
        schedule="constant",
        warmup_steps=20,
        batch_size=size.batch_size,
        sequence_length=size.sequence_length,
        epochs=1000,
    )
    rows = pack(encoded, sequence_length=size.sequence_length)
    plan = Plan(encoded, rows, size.batch_size, 1, settings.epochs, None, seed=0)
    set_precision(model.causal_lm, resolve(settings.precision)[0])  # as the tuner does for a run
    trainer, _ = compiled(model, plan, settings, 0)
    batches = _batches(plan)
    trainer.train_on_batch(next(batches))  # compiles
    return Contender(name, model, report, batches, trainer, _encode(held_out, model.tokenizer))


def _batches(plan: Any) -> Iterator[Any]:
    for epoch in range(plan.epochs):
        batches = plan.batches(epoch, first_step=epoch * plan.steps_per_epoch)
        for index in range(len(batches)):
            yield batches[index][0]


def _encode(texts: list[str], tokenizer: Any) -> Any:
    from kerasgen.corpora.base import Document
    from kerasgen.tokens.encoding import encode_documents

    return encode_documents((Document(text, "") for text in texts), tokenizer)


def _gpt2_tokenizer() -> Any:
    from kerasgen.tokens.bpe import ByteLevelBPE

    return ByteLevelBPE.from_files(*gpt2_files())


def _stories(size: Size, quick: bool) -> list[str]:
    if quick:
        from kerasgen.corpora.sample import Sample

        return [document.text for document in Sample(language="en").documents()][: size.stories]
    path = DATA / "reddit_stories_2013_pddl.jsonl.xz"
    if not path.exists():
        raise SystemExit(f"The English stories are needed: {path}")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        texts = [story.get("selftext_without_tldr") or story.get("selftext") or "" for story in found]
    return [text for text in texts if text.strip()][: size.stories]


def _poems(size: Size, quick: bool) -> list[str]:
    if quick:
        from kerasgen.corpora.sample import Sample

        return [document.text for document in Sample(language="zh").documents()][: size.poems]
    from kerasgen.corpora.chinese_poetry import ChinesePoetry

    path = DATA / "chinese-poetry.tang.tar.xz"
    if not path.exists():
        raise SystemExit(f"The Tang poems are needed: {path}")
    return [document.text for document in ChinesePoetry(path=str(path), dynasty="tang").documents()]


if __name__ == "__main__":
    main()
