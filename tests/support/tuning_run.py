"""One small tuning run that can be killed, interrupted and taken up again: in a process of its own, or in the test's.

    python tuning_run.py MODE DIRECTORY [--resume] [--wait-at STEP]

With `--wait-at` the run writes the file `waiting` after that optimizer step and goes on when it finds the file `go`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tiny import tiny_gpt2, tiny_opt
from toys import encode, smallest_gpt2, texts

from kerasgen.corpora import conversations, splits
from kerasgen.corpora.base import CorpusTally, Document, Part
from kerasgen.models import chat
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tokens.streaming import DocumentStream, StreamedDocuments, first_window
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.dpo import DpoTuner
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.lora import LoraTuner
from kerasgen.tuners.settings import GradientTuner

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 2,
    "sequence_length": 32,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "precision": "float32",
}
# Every mode makes 7 optimizer steps an epoch: a checkpoint at step 9 is in mid-epoch, and so is what follows it.
MODES: dict[str, GradientTuner] = {
    "full": FullTuner(**SETTINGS),
    "accumulation": FullTuner(**SETTINGS | {"batch_size": 1, "gradient_accumulation_steps": 2}),
    "lora": LoraTuner(**SETTINGS | {"rank": 2}),
    "opt": FullTuner(**SETTINGS),
    "remat": FullTuner(**SETTINGS | {"remat": True}),
    "bfloat16": FullTuner(**SETTINGS | {"precision": "mixed_bfloat16"}),
    "float16": FullTuner(**SETTINGS | {"precision": "mixed_float16"}),
    "parts": FullTuner(**SETTINGS),
    # Several conversations a row, some of which lose turns.
    "conversations": FullTuner(**SETTINGS | {"sequence_length": 96, "packing": "best_fit"}),
    "dpo": DpoTuner(**SETTINGS),
    # Three windows of two or three steps each: the kill is in the second pass, and so is the checkpoint before it.
    "streamed": FullTuner(**SETTINGS | {"epochs": 1, "max_steps": 21}),
    "streamed_lora": LoraTuner(**SETTINGS | {"epochs": 1, "max_steps": 21, "rank": 2}),
    "dpo_lora": DpoTuner(**SETTINGS | {"rank": 2}),
}
STEPS_PER_EPOCH = 7
STREAMED_CHARACTERS = 200
COUNT, TRAINED_ON = 26, ("rain", "the cat sat", "on", "home")


def model_of(mode: str) -> LanguageModel:
    """The model before the run; dropout draws random numbers at every step."""
    if mode == "opt":
        return tiny_opt(num_layers=1, hidden_dim=16, max_sequence_length=32, dropout=0.2)
    if mode == "conversations":
        model = tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=128, dropout=0.2)
        chat.give(model, "chatml", seed=5)
        return model
    return smallest_gpt2(dropout=0.2)


def encode_halves(tokenizer: Tokenizer, written: list[str]) -> EncodedDocuments:
    """The ids of texts of which the first half is only read."""
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in written]
    documents = [Document.of((Part(one, 0), Part(other)), str(n)) for n, (one, other) in enumerate(halves)]
    return encode_documents(documents, tokenizer)


def encode_pairs(tokenizer: Tokenizer, written: list[str]) -> EncodedDocuments:
    """The ids of texts that go on from their first half, and of worse ones that don't."""
    pairs = [(Part(text[: len(text) // 2], 0), Part(text[len(text) // 2 :])) for text in written]
    return encode_documents((Document.of(pair, "", rejected=(pair[0], Part(" no"))) for pair in pairs), tokenizer)


def stream(tokenizer: Tokenizer, written: list[str], *, characters: int) -> StreamedDocuments:
    """Texts as a corpus that is read in windows of so many characters."""
    documents = [Document(text, str(n)) for n, text in enumerate(written)]

    def read(tally: CorpusTally) -> Iterator[Document]:
        return map(tally.keep, documents)

    return first_window(DocumentStream(read, tokenizer, division=splits.Division(0.0), characters=characters))[0]


def encode_conversations(model: LanguageModel, written: list[str]) -> EncodedDocuments:
    """The ids of conversations in which what follows the first word is the answer; one in five goes on."""
    talks = []
    for n, text in enumerate(written):
        ask, _, answer = text.partition(" ")
        messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer or "no"}] * (
            1 + 2 * (n % 5 == 0)
        )
        talks.append(conversations.document(conversations.conversation(messages), id=str(n)))
    return encode_documents(talks, model.tokenizer, chat.needed(model))


def tune(
    mode: str,
    directory: Path,
    *,
    resume: bool | Literal["auto"] = False,
    callbacks: tuple[Any, ...] = (),
    max_steps: int | None = None,
) -> tuple[TuneReport, LanguageModel]:
    """Run the mode from a fresh model; returns the report and the tuned model."""
    model = model_of(mode)
    encode_side = {"parts": encode_halves, "dpo": encode_pairs, "dpo_lora": encode_pairs}.get(mode, encode)
    if mode.startswith("streamed"):
        max_steps = max_steps or MODES[mode].max_steps
        train: EncodedDocuments = stream(
            model.tokenizer, texts(COUNT, words=TRAINED_ON), characters=STREAMED_CHARACTERS
        )
        held_out = encode_side(model.tokenizer, texts(4, seed=1))
    elif mode == "conversations":
        train = encode_conversations(model, texts(COUNT, words=TRAINED_ON))
        held_out = encode_conversations(model, texts(4, seed=1))
    else:
        train = encode_side(model.tokenizer, texts(COUNT, words=TRAINED_ON))
        held_out = encode_side(model.tokenizer, texts(4, seed=1))
    report = dataclasses.replace(MODES[mode], max_steps=max_steps).tune(
        model, train, held_out, seed=5, directory=directory, resume=resume, callbacks=callbacks, verbose=0
    )
    return report, model


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--wait-at", type=int)
    arguments = parser.parse_args()
    from kerasgen import backend

    backend.use()
    import keras

    class Wait(keras.callbacks.Callback):  # type: ignore[misc]
        """Stands still after a step, so that whoever watches can act in mid-epoch."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            step = int(np.asarray(self.model.optimizer.iterations))
            if step == arguments.wait_at and not (arguments.directory / "waiting").exists():
                (arguments.directory / "waiting").touch()
                while not (arguments.directory / "go").exists():
                    time.sleep(0.02)

    tune(arguments.mode, arguments.directory, resume=arguments.resume, callbacks=(Wait(),))


if __name__ == "__main__":
    main()
