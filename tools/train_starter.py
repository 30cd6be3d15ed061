"""Train the starter model that ships with kerasgen, from the Tang and Song poems of the chinese-poetry collection.

    python tools/train_starter.py --tang chinese-poetry.tang.tar.xz --song chinese-poetry.song.tar.xz --run runs/starter

A whole-character vocabulary is counted, a small GPT-2 is trained on every poem that is not held out, and the result
is written as a KerasHub preset with its model card. The Tang poems are read in both scripts, each Song poem in one.
Each variant character is written in one form, and a text that still mixes the scripts is left out, so that the model
keeps to one of them. A tenth of the Tang poems is held out; a Song poem that shares a line with one of them is left
out.

A killed run goes on with `--resume`. `--start` goes on from a preset, such as the float32 one that each run leaves in
`RUN/preset`; `--before` says in the card what that was trained for. `--schedule constant` leaves the learning rate
high, for a run that another one goes on from; the last one falls, with `--schedule linear`.

`--others 0.1` trains on regulated verse, with a tenth as many other poems: what has the form, level rhyme and a tonal
pattern. `--own 12288` lets the model of `--start` write so many texts first, and trains on those that hold the rules
beside as many poems. The runs of a model that holds to the rules are all poems, then `--others`, then `--own`, twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerasgen.corpora.base import Document
    from kerasgen.models.base import LanguageModel

HELD_OUT = 0.1
SEQUENCE_LENGTH = 256
OWN_AT_ONCE = 2048


def main() -> None:
    """Read the command line, train, and write the preset and its card."""
    arguments = _arguments()
    if arguments.backend == "tensorflow":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from kerasgen import backend

    backend.use(arguments.backend)
    import keras

    from kerasgen.models.loading import load_directory
    from kerasgen.models.saving import save_preset
    from kerasgen.models.scoring import score
    from kerasgen.models.starter import CARD, DIRECTORY
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tuners.full import FullTuner

    keras.utils.set_random_seed(arguments.seed)
    poems = _poems(arguments.tang, arguments.song)
    if arguments.others is not None:
        poems = _regulated(poems, arguments.others)
    if arguments.start:
        model = load_directory(arguments.start, source="starter")
    else:
        model = _fresh_model(poem.text for poem in poems.training)
    if arguments.own:
        poems = _with_own(poems, model, arguments.own, seed=arguments.seed)
    tokenizer = model.tokenizer
    encoded = encode_documents(poems.training, tokenizer)
    unseen = encode_documents(poems.held_out, tokenizer)
    watched = encode_documents(poems.held_out[:1000], tokenizer)
    tuner = FullTuner(
        epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        learning_rate=arguments.learning_rate,
        schedule=arguments.schedule,
        warmup_steps=arguments.warmup_steps,
        weight_decay=0.1,
        batch_size=16,
        vocabulary="keep",
        sequence_length=SEQUENCE_LENGTH,
        precision=arguments.precision,
        validate_every=500,
        checkpoint_every=250,
    )
    print(f"{len(poems.training):,} texts, {len(encoded.token_ids):,} tokens, {tokenizer.vocabulary_size:,} ids")
    report = tuner.tune(
        model, encoded, watched, seed=arguments.seed, directory=arguments.run, resume=arguments.resume, verbose=2
    )
    print(report)

    final = score(model, unseen, sequence_length=SEQUENCE_LENGTH)
    save_preset(model, arguments.run / "preset", overwrite=True)
    output = arguments.output or DIRECTORY
    save_preset(model, output, overwrite=True, dtype="float16")
    own_steps = max(report.steps - (report.resumed_from or 0), 1)  # those of this process, if a killed run went on
    figures = {
        "held_out_bits_per_character": round(final.bits_per_character, 4),
        "held_out_loss_nats_per_token": round(final.loss, 4),
        "held_out_poems": len(poems.held_out),
        "training_texts": len(poems.training),
        "training_tokens_of_these_steps": report.steps * report.tokens // own_steps,
        "steps": f"{report.steps}, after {arguments.before}" if arguments.before else report.steps,
        "epochs_of_these_steps": round(report.epochs, 2),
        "parameters": report.parameters,
        "backend": report.backend,
        "precision": report.precision,
        "tokens_per_second": round(report.tokens_per_second),
    }
    (output / CARD).write_text(_card(figures, poems.tally), encoding="utf-8")
    print(json.dumps(figures, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the starter model.")
    parser.add_argument(
        "--tang", required=True, help="the chinese-poetry repository, or an archive with its Tang poems"
    )
    parser.add_argument("--song", required=True, help="the same of its Song poems")
    parser.add_argument("--run", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--output", type=Path, help="the preset to write; the package's own if not given")
    parser.add_argument("--start", help="a preset to go on from, with its vocabulary; anew if not given")
    parser.add_argument("--before", default="", help="the steps of the preset to go on from, for the card")
    parser.add_argument("--others", type=float, help="keep the regulated poems and so many others for each of them")
    parser.add_argument("--own", type=int, default=0, help="texts that the model of --start writes to learn from")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--schedule", choices=("linear", "cosine", "constant"), default="linear")
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="another one for each run that goes on from another")
    parser.add_argument("--backend", default="tensorflow", help="on a CPU TensorFlow trains faster than JAX")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--max-steps", type=int, default=5500)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


@dataclass(frozen=True)
class _Poems:
    """What is trained on, in both scripts, and the Tang poems that are held out, as the collection writes them."""

    training: list[Document]
    held_out: list[Document]
    tally: dict[str, object]


def _poems(tang: str, song: str) -> _Poems:
    import opencc

    from kerasgen.corpora.base import CorpusTally, Document
    from kerasgen.corpora.chinese_poetry import ChinesePoetry
    from kerasgen.corpora.held_out_split import DividedCorpus
    from kerasgen.corpora.text_lines import lines_of
    from kerasgen.corpora.verse_variants import unify
    from kerasgen.evaluation.prosody_figures import mixes_scripts

    simplify = opencc.OpenCC("t2s").convert
    tally = CorpusTally()
    divided = DividedCorpus(ChinesePoetry(tang, dynasty="tang"), HELD_OUT)
    training, held_out = list(divided.side("train")), list(divided.side("held_out"))
    for _ in divided.documents(tally):
        pass
    # Unified and converted after the split: each form of a held-out poem must stay unseen too.
    tang_poems = [unify(poem.text) for poem in training]
    texts = tang_poems + [simplify(text) for text in tang_poems]
    unseen = {line for poem in held_out for line in lines_of(poem.text)}
    for number, poem in enumerate(ChinesePoetry(song, dynasty="song").documents(tally)):
        if unseen.isdisjoint(lines_of(poem.text)):
            text = unify(poem.text)
            texts.append(simplify(text) if number % 2 else text)
        else:
            tally.drop("shares a line with a held-out Tang poem")
    kept = [text for text in texts if not mixes_scripts(text)]
    tally.dropped["mixes the scripts, of the texts as they are trained on"] += len(texts) - len(kept)
    return _Poems([Document(text, f"{number}") for number, text in enumerate(kept)], held_out, tally.to_dict())


def _regulated(poems: _Poems, others: float) -> _Poems:
    """Keep the poems that hold form, level rhyme and tonal pattern, and some of the others for each of them."""
    held = [poem for poem in poems.training if _holds(poem.text)]
    names = {poem.id for poem in held}
    rest = [poem for poem in poems.training if poem.id not in names]
    sample = random.Random(0).sample(rest, min(len(rest), round(others * len(held))))
    return replace(poems, training=held + sample)


def _with_own(poems: _Poems, model: LanguageModel, count: int, *, seed: int) -> _Poems:
    """Let the model write, and put what holds the rules beside as many poems, drawn from all.

    This is rejection sampling fine-tuning, as in Yuan et al., "Scaling relationship on learning mathematical reasoning
    with large language models" (2023). A text that has a line of a poem, or stood before, is not taken. All tokens
    can be drawn: texts of the likeliest ones alone would make the model's choice narrower with each round.
    """
    from kerasgen.corpora.base import Document
    from kerasgen.corpora.text_lines import lines_of
    from kerasgen.generation import generate
    from kerasgen.samplers.sampling import Random

    known = {line for poem in poems.training + poems.held_out for line in lines_of(poem.text)}
    texts: dict[str, None] = {}
    for at in range(0, count, OWN_AT_ONCE):
        written = generate(
            model,
            [""] * min(OWN_AT_ONCE, count - at),
            sampler=Random(),
            max_new_tokens=96,
            batch_size=64,
            seed=(seed << 20) + at,
        )
        texts |= dict.fromkeys(text for text in map(str, written) if _holds(text) and known.isdisjoint(lines_of(text)))
    own = [Document(text, f"own {number}") for number, text in enumerate(texts)]
    print(f"{len(own):,} of {count:,} own texts hold the rules")
    beside = random.Random(seed).sample(poems.training, min(len(poems.training), len(own)))
    return replace(poems, training=beside + own)


def _holds(text: str) -> bool:
    """Return whether a text is regulated verse with level rhyme and a tonal pattern, in one script."""
    from kerasgen.corpora import verse
    from kerasgen.evaluation.prosody_figures import mixes_scripts, rhymes
    from kerasgen.prosody import regulated

    lines = verse.lines(text)
    return (
        verse.form(text).form != "other" and rhymes(lines) and regulated.read(lines).holds and not mixes_scripts(text)
    )


def _fresh_model(texts: Iterable[str]) -> LanguageModel:
    """An untrained GPT-2 over the vocabulary of the texts."""
    import keras_hub

    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.characters import whole_character_bpe

    tokenizer = whole_character_bpe(texts, vocabulary_size=8192, minimum_count=8)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=4,
        num_heads=4,
        hidden_dim=256,
        intermediate_dim=1024,
        dropout=0.0,
        max_sequence_length=SEQUENCE_LENGTH,
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="starter")


def _card(figures: dict[str, object], tally: dict[str, object]) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in figures.items())
    return f"""# The starter model

A small GPT-2 that writes classical Chinese verse, so that kerasgen works without a download. It is made for
demonstrations, tests and first steps, not for scholarship.

| | |
|---|---|
| architecture | GPT-2: 4 layers, 4 heads, 256 hidden, {SEQUENCE_LENGTH} positions, tied embeddings, no dropout |
| weights | float16 on disk, float32 in memory |
| tokenizer | byte-level BPE; each frequent character is one token, everything else falls to bytes |
| licence | Apache-2.0 |

## Data

Tang and Song poems of 全唐诗 in the chinese-poetry collection (MIT; the poems are in the public domain), one couplet a
line, editors' notes stripped, poems with gaps dropped. Each Tang poem is read as it is and in simplified characters
(OpenCC), each Song poem in one of the two. One Tang poem in ten is held out, by a hash of its text, with its
near-duplicates: the tenth that `Pipeline` holds out of the same collection. Song poems that share a line with one of
them are left out. In training each variant character has one form, and texts that still mix the scripts are left out.
The last runs were on regulated verse with level rhyme and a tonal pattern, with some others beside it, and on texts of
the model itself that hold these rules.

What reading kept and dropped: `{json.dumps(tally, ensure_ascii=False)}`

## Figures

Measured by `tools/train_starter.py`, which trained it. Bits per character are over the held-out poems as they stand
in the collection, end token included.

| figure | value |
|---|---|
{rows}

## Limits

It knows regulated verse and little else. English and modern Chinese are spelled out in bytes that it never saw in
training; it learns them when tuned. Its view of the world is the ninth century's.
"""


if __name__ == "__main__":
    main()
