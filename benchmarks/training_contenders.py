"""One way to train a GPT-2, in a process of its own that does as many steps as it is told: see `benchmarks.training`.

    python -m benchmarks.training_contenders NAME JOB.json

It prints a JSON line when it has done what a line on its standard input asked for: a number of optimizer steps.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kerasgen.devices import peak_memory_bytes

Packing = Literal["best_fit", "none"]
LEARNING_RATE, STEPS = 5e-4, 500


@dataclass(frozen=True)
class Job:
    """What to train on, and how.

    Args:
        texts: a JSON list of documents.
        gpt2: a folder with GPT-2's `vocab.json` and `merges.txt`.
        adapted: a folder with a vocabulary made for the corpus, or None to keep GPT-2's.
        layers, width, heads: the model's shape; its feed-forward layers are four times as wide.
        rows, length: of a batch.
        threads: that computation may use.
    """

    texts: str
    gpt2: str
    adapted: str | None
    layers: int
    width: int
    heads: int
    rows: int
    length: int
    threads: int

    def documents(self) -> list[str]:
        """The documents."""
        found: list[str] = json.loads(Path(self.texts).read_text(encoding="utf-8"))
        return found


class Commands:
    """Steps are done when asked for; what they held is counted.

    Args:
        counts: target tokens and characters of each step, from the first on.
        resting: bytes that the process held before the model was made.
    """

    def __init__(self, counts: Iterator[tuple[int, float]], resting: int) -> None:
        self.counts = counts
        self.resting = resting
        self._answer, sys.stdout = sys.stdout, sys.stderr
        self._left = 0
        self._asked = 0
        self._begin = self._busy = 0.0

    def wait(self) -> None:
        """Stand still until some steps are asked for; end the process when nothing will be."""
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)
        self._left = self._asked = int(line)
        self._begin, self._busy = time.perf_counter(), time.process_time()

    def step_done(self) -> None:
        """Count a step; answer when it was the last one asked for, and wait."""
        self._left -= 1
        if self._left:
            return
        seconds, busy = time.perf_counter() - self._begin, time.process_time() - self._busy
        done = list(itertools.islice(self.counts, self._asked))
        answer = {
            "steps": self._asked,
            "seconds": seconds,
            "cpu_seconds": busy,
            "tokens": sum(tokens for tokens, _ in done),
            "characters": sum(characters for _, characters in done),
            "peak_bytes": (peak_memory_bytes() or 0) - self.resting,
        }
        print(json.dumps(answer), file=self._answer, flush=True)
        self.wait()


def tutorial(job: Job) -> None:
    """Train as KerasNLP's GPT-2 tutorial does: strings, batches, the preprocessor, `fit`; on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    import keras_nlp
    import tensorflow as tf

    resting = _resident()
    tokenizer = keras_nlp.models.GPT2Tokenizer(
        vocabulary=str(Path(job.gpt2) / "vocab.json"), merges=str(Path(job.gpt2) / "merges.txt")
    )
    preprocessor = keras_nlp.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=job.length)
    backbone = keras_nlp.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=job.layers,
        num_heads=job.heads,
        hidden_dim=job.width,
        intermediate_dim=4 * job.width,
        max_sequence_length=max(1024, job.length),
    )
    model = keras_nlp.models.GPT2CausalLM(backbone=backbone, preprocessor=preprocessor)
    texts = job.documents()
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(job.rows, drop_remainder=True).cache().prefetch(2)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, decay_steps=STEPS, end_learning_rate=0.0)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    commands = Commands(_cut_counts(job, texts, targets=job.length), resting)
    commands.wait()
    model.fit(batches, epochs=1000, callbacks=[_obeying(commands)], verbose=0)


def kerasgen(job: Job, *, packing: Packing = "best_fit", adapted: bool = True, as_it_comes: bool = False) -> None:
    """Train as this library does: packed rows, the corpus's vocabulary if there is one, the backend of `auto`.

    Args:
        job: corpus and shape.
        packing: of documents into rows.
        adapted: whether the corpus's vocabulary is taken, where there is one.
        as_it_comes: whether the tuner chooses the rows and their length, as for a person who names neither.
    """
    from kerasgen import backend

    backend.use("auto")
    import keras_hub

    from kerasgen.corpora.base import Document
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tokens.packing import pack
    from kerasgen.tuners import batch_size
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.plan import Plan

    resting = _resident()
    vocabulary = Path((adapted and job.adapted) or job.gpt2)
    end = "<|endoftext|>"
    tokenizer = ByteLevelBPE.from_files(
        vocabulary / "vocab.json", vocabulary / "merges.txt", start_token=end, end_token=end, pad_token=end
    )
    encoded = encode_documents((Document(text, str(n)) for n, text in enumerate(job.documents())), tokenizer)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=job.layers,
        num_heads=job.heads,
        hidden_dim=job.width,
        intermediate_dim=4 * job.width,
        max_sequence_length=max(1024, job.length),
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model = LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="benchmark")
    tuner = FullTuner(
        epochs=1000,
        max_steps=STEPS,
        learning_rate=LEARNING_RATE,
        batch_size=None if as_it_comes else job.rows,
        sequence_length=None if as_it_comes else job.length,
        packing=packing,
        checkpoint_every=10**9,
    )
    tuner, _ = batch_size.sized(tuner, encoded.lengths - 1, longest=512, packs=packing != "none")
    assert tuner.sequence_length is not None
    assert tuner.batch_size is not None
    rows = pack(encoded, sequence_length=tuner.sequence_length, packing=packing)
    plan = Plan(encoded, rows, tuner.batch_size, 1, 1000, STEPS, seed=0)

    def counts() -> Iterator[tuple[int, float]]:
        for step in range(STEPS):
            epoch, within = divmod(step, plan.steps_per_epoch)
            batch = plan.batches(epoch, first_step=step)
            batch.first, batch.stop = within, within + 1
            yield batch.tokens(), batch.characters()

    commands = Commands(counts(), resting)
    commands.wait()
    with tempfile.TemporaryDirectory() as folder:
        tuner.tune(model, encoded, seed=0, directory=Path(folder), callbacks=[_obeying(commands)], verbose=0)


def transformers_trainer(job: Job, *, bf16: bool) -> None:
    """Train by transformers' Trainer, each document cut and padded to the longest of its batch."""
    import torch
    import transformers

    torch.set_num_threads(job.threads)
    resting = _resident()
    model = _torch_gpt2(job, transformers, vocabulary_size=50_257)
    texts = job.documents()
    ids = _gpt2_ids(job, texts)
    features = [{"input_ids": document[: job.length]} for document in ids]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(feature["input_ids"]) for feature in batch)
        inputs = torch.full((len(batch), longest), 50_256)
        labels = torch.full((len(batch), longest), -100)
        for row, feature in enumerate(batch):
            tokens = torch.tensor(feature["input_ids"])
            inputs[row, : len(tokens)] = labels[row, : len(tokens)] = tokens
        return {"input_ids": inputs, "attention_mask": (labels != -100).long(), "labels": labels}

    commands = Commands(_cut_counts(job, texts, targets=job.length - 1), resting)

    class Obeying(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *unused: Any, **more: Any) -> None:
            commands.step_done()

    class InOrder(transformers.Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *unused: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=job.rows,
            max_steps=STEPS,
            learning_rate=LEARNING_RATE,
            bf16=bf16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_drop_last=True,
        )
        trainer = InOrder(
            model=model, args=settings, train_dataset=features, data_collator=collate, callbacks=[Obeying()]
        )
        commands.wait()
        trainer.train()


def transformers_by_hand(job: Job, *, bf16: bool) -> None:
    """Train transformers' GPT-2 in a plain loop, given this library's packed rows and vocabulary."""
    import torch
    import transformers

    from kerasgen.corpora.base import Document
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tokens.packing import block, pack

    torch.set_num_threads(job.threads)
    resting = _resident()
    vocabulary = Path(job.adapted or job.gpt2)
    end = "<|endoftext|>"
    tokenizer = ByteLevelBPE.from_files(
        vocabulary / "vocab.json", vocabulary / "merges.txt", start_token=end, end_token=end, pad_token=end
    )
    encoded = encode_documents((Document(text, str(n)) for n, text in enumerate(job.documents())), tokenizer)
    rows = pack(encoded, sequence_length=job.length)
    model = _torch_gpt2(job, transformers, vocabulary_size=tokenizer.vocabulary_size).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    per_token = encoded.characters.sum() / encoded.targets
    blocks = [
        block(encoded, rows, range(first, first + job.rows), size=job.rows)
        for first in range(0, len(rows) - job.rows + 1, job.rows)
    ]
    tokens = [int((found.segment_ids > 0).sum()) for found in blocks]
    commands = Commands(itertools.cycle((count, count * per_token) for count in tokens), resting)
    causal = torch.tril(torch.ones(job.length, job.length, dtype=torch.bool))
    commands.wait()
    for found in itertools.cycle(blocks):
        segments = torch.from_numpy(found.segment_ids)
        allowed = (segments[:, :, None] == segments[:, None, :]) & causal
        mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]
        labels = torch.where(segments > 0, torch.from_numpy(found.targets).long(), -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(
                input_ids=torch.from_numpy(found.token_ids).long(),
                position_ids=torch.from_numpy(found.positions).long(),
                attention_mask=mask,
                use_cache=False,
            ).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        commands.step_done()


CONTENDERS: dict[str, Callable[[Job], None]] = {
    "tutorial": tutorial,
    "kerasgen": kerasgen,
    "kerasgen as it comes": lambda job: kerasgen(job, as_it_comes=True),
    "kerasgen, GPT-2's vocabulary": lambda job: kerasgen(job, adapted=False),
    "kerasgen, GPT-2's vocabulary, padded": lambda job: kerasgen(job, adapted=False, packing="none"),
    "transformers fp32": lambda job: transformers_trainer(job, bf16=False),
    "transformers bf16": lambda job: transformers_trainer(job, bf16=True),
    "transformers by hand": lambda job: transformers_by_hand(job, bf16=False),
    "transformers by hand bf16": lambda job: transformers_by_hand(job, bf16=True),
}


def _obeying(commands: Commands) -> Any:
    import keras

    class Obeying(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(next(iter((logs or {"loss": 0.0}).values())))  # the step is done when its loss is there
            commands.step_done()

    return Obeying()


def _torch_gpt2(job: Job, transformers: Any, *, vocabulary_size: int) -> Any:
    config = transformers.GPT2Config(
        vocab_size=vocabulary_size,
        n_layer=job.layers,
        n_embd=job.width,
        n_head=job.heads,
        n_positions=max(1024, job.length),
        bos_token_id=vocabulary_size - 1,
        eos_token_id=vocabulary_size - 1,
    )
    return transformers.GPT2LMHeadModel(config)


def _gpt2_ids(job: Job, texts: list[str]) -> list[list[int]]:
    """Each text's GPT-2 tokens between two end tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    bpe = Tokenizer(models.BPE.from_file(f"{job.gpt2}/vocab.json", f"{job.gpt2}/merges.txt"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = bpe.token_to_id("<|endoftext|>")
    assert end is not None
    return [[end, *found.ids, end] for found in bpe.encode_batch(texts)]


def _cut_counts(job: Job, texts: list[str], *, targets: int) -> Iterator[tuple[int, float]]:
    """Targets and characters of each batch of documents cut to so many targets, over and over."""
    lengths = [len(ids) - 1 for ids in _gpt2_ids(job, texts)]
    counts = []
    for first in range(0, len(texts) - job.rows + 1, job.rows):
        batch = range(first, first + job.rows)
        kept = [min(lengths[n], targets) for n in batch]
        counts.append(
            (sum(kept), sum(len(texts[n]) * count / lengths[n] for n, count in zip(batch, kept, strict=True)))
        )
    return itertools.cycle(counts)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the contender that the command line names."""
    name, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    CONTENDERS[name](job)


if __name__ == "__main__":
    main()
