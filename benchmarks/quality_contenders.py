"""One way to train a GPT-2 for so many CPU seconds, in a process of its own: see `benchmarks.quality`.

    python -m benchmarks.quality_contenders NAME

It answers a line of JSON on its standard input, a job, with a line of JSON: what it learned.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any

LEARNING_RATE, ROWS, LENGTH = 5e-4, 16, 128
END = "<|endoftext|>"


@dataclass(frozen=True)
class Job:
    """What to train on, and for how long.

    Args:
        texts: a JSON file: the texts, each on the side that a pipeline gives it.
        gpt2: a folder with GPT-2's `vocab.json` and `merges.txt`.
        layers, width, heads: the model's shape; its feed-forward layers are four times as wide.
        seconds: of CPU time, from the texts on: tokenising, compiling, training and what else a contender does.
        threads: that computation may use.
        seed: of the first weights and of the order of the texts.
        tuner: settings of kerasgen's tuner, if others than the default ones are tried.
        most_documents: held-out documents that are scored in the end.
    """

    texts: str
    gpt2: str
    layers: int
    width: int
    heads: int
    seconds: float
    threads: int
    seed: int = 0
    tuner: dict[str, Any] = field(default_factory=dict)
    most_documents: int = 300

    def scored(self, held_out: Sequence[str]) -> Sequence[str]:
        """Those of the held-out texts that are scored in the end."""
        return held_out[: self.most_documents]

    def sides(self) -> tuple[list[str], list[str]]:
        """The texts to train on and those held out."""
        from kerasgen.corpora import resolving, splits
        from kerasgen.corpora.held_out_split import DividedCorpus

        texts = json.loads(Path(self.texts).read_text(encoding="utf-8"))
        corpus = DividedCorpus(resolving.resolve(texts), splits.HELD_OUT)
        return list(corpus.texts("train")), list(corpus.texts("held_out"))

    @property
    def shape(self) -> dict[str, int]:
        """The model's shape in KerasHub's words."""
        return {
            "num_layers": self.layers,
            "num_heads": self.heads,
            "hidden_dim": self.width,
            "intermediate_dim": 4 * self.width,
            "max_sequence_length": 1024,
        }


class Clock:
    """CPU seconds of this process since the texts were there.

    Args:
        seconds: after which it is over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.steps = 0
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def over(self) -> bool:
        """Count a step and say whether it was the last one."""
        self.steps += 1
        return time.process_time() - self._cpu >= self.seconds

    def read(self) -> dict[str, float]:
        """What was counted until now."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return {"steps": self.steps, "cpu_seconds": cpu, "wall_seconds": wall}


def recipe(job: Job) -> dict[str, Any]:
    """Train as KerasNLP's GPT-2 tutorial does: strings, batches, the preprocessor, Adam, `fit`; on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras
    import keras_hub
    import numpy as np
    import tensorflow as tf

    train, held_out = job.sides()
    clock = Clock(job.seconds)
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary=str(Path(job.gpt2) / "vocab.json"), merges=str(Path(job.gpt2) / "merges.txt")
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=LENGTH)
    keras.utils.set_random_seed(job.seed)
    backbone = keras_hub.models.GPT2Backbone(vocabulary_size=tokenizer.vocabulary_size(), **job.shape)
    _as_published(backbone)
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=preprocessor)
    batches = (
        tf.data.Dataset.from_tensor_slices(train).shuffle(len(train), seed=job.seed).batch(ROWS, drop_remainder=True)
    )
    decay = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, decay_steps=10**6, end_learning_rate=0.0)
    model.compile(
        optimizer=keras.optimizers.Adam(decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float((logs or {"loss": 0.0})["loss"])  # the step is done when its loss is there
            self.model.stop_training = clock.over()

    model.fit(batches.cache().prefetch(2), epochs=10**6, callbacks=[Stop()], verbose=0)
    read = clock.read()

    @jax.jit  # type: ignore[untyped-decorator]
    def logprobs(weights: Any, inputs: Any) -> Any:
        logits, _ = model.stateless_call(*weights, inputs, training=False)
        return jax.nn.log_softmax(logits.astype("float32"))

    values = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])

    def of(token_ids: Any) -> Any:
        return np.asarray(logprobs(values, {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}))

    return read | {"bits_per_character": _bits_per_character(job, job.scored(held_out), of), "backend": "jax"}


def transformers(job: Job) -> dict[str, Any]:
    """Train transformers' GPT-2 in a plain loop in bfloat16: AdamW, clipping, no padding.

    The documents, end tokens between them, are one long line that is cut into rows, as transformers' own example
    `run_clm` does it.
    """
    import numpy as np
    import torch
    import transformers as library

    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    train, held_out = job.sides()
    clock = Clock(job.seconds)
    ids = np.concatenate([[*found, 50_256] for found in _gpt2_ids(job, train)])
    rows = torch.from_numpy(ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)).long()
    config = library.GPT2Config(n_layer=job.layers, n_embd=job.width, n_head=job.heads)
    model = library.GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    rng = np.random.default_rng(0)

    def batches() -> Iterator[Any]:
        while True:
            order = rng.permutation(len(rows))
            for first in range(0, len(rows) - ROWS + 1, ROWS):
                yield rows[order[first : first + ROWS]]

    for batch in batches():
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=batch, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if clock.over():
            break
    read = clock.read()
    model.eval()

    def of(token_ids: Any) -> Any:
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(token_ids).long(), use_cache=False).logits
            return torch.log_softmax(logits.float(), -1).numpy()

    return read | {"bits_per_character": _bits_per_character(job, job.scored(held_out), of), "backend": "torch"}


def kerasgen(job: Job) -> dict[str, Any]:
    """Train as this library does with what its README says: a corpus, a model, a learning rate and 16 rows."""
    from kerasgen.models.base import LanguageModel, ModelSource

    @dataclass(frozen=True)
    class Untrained(ModelSource):
        def load(self) -> LanguageModel:
            import keras
            import keras_hub

            from kerasgen.tokens.bpe import ByteLevelBPE

            tokenizer = ByteLevelBPE.from_files(
                Path(job.gpt2) / "vocab.json",
                Path(job.gpt2) / "merges.txt",
                start_token=END,
                end_token=END,
                pad_token=END,
            )
            keras.utils.set_random_seed(job.seed)
            backbone = keras_hub.models.GPT2Backbone(vocabulary_size=tokenizer.vocabulary_size, **job.shape)
            _as_published(backbone)
            return LanguageModel(keras_hub.models.GPT2CausalLM(backbone, preprocessor=None), tokenizer, "untrained")

    import kerasgen as kg

    train, held_out = job.sides()
    given = {"learning_rate": LEARNING_RATE, "batch_size": ROWS} if not job.tuner.get("as_it_comes") else {}
    given |= {name: value for name, value in job.tuner.items() if name not in ("as_it_comes", "backend")}
    settings: dict[str, Any] = {"epochs": 10**4}
    settings |= {name: value for name, value in given.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        pipe = kg.Pipeline(
            [*train, *held_out],
            Untrained(),
            tuner=kg.FullTuner(**settings),
            backend=job.tuner.get("backend"),
            cache=folder,
            seed=job.seed,
        )
        kg.backend.use(pipe.backend)
        import keras

        from kerasgen.corpora.base import Document
        from kerasgen.models.scoring import score
        from kerasgen.tokens.encoding import encode_documents

        pipe.model  # noqa: B018  the other contenders' imports are not counted either
        clock = Clock(job.seconds)

        class Stop(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.model.stop_training = clock.over()

        said = pipe.fit(directory=Path(folder) / "run", callbacks=[Stop()], verbose=0)
        read = clock.read()
        encoded = encode_documents((Document(text, "") for text in job.scored(held_out)), pipe.tokenizer)
        scored = score(pipe.model, encoded, sequence_length=said.sequence_length)
    print(said, file=sys.stderr)
    return read | {
        "bits_per_character": scored.bits_per_character,
        "backend": said.backend,
        "precision": said.precision,
        "sequence_length": said.sequence_length,
        "vocabulary": said.vocabulary.get("choice", "keep"),
        "batch_size": said.batch_size,
    }


def _as_published(backbone: Any) -> None:
    """Draw a KerasHub GPT-2's weights as transformers does, and as the paper says: KerasHub's own learn more slowly.

    The kernels that end in a residual sum are scaled by the root of how many there are.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    sums = 2 * len(backbone.transformer_layers)
    for variable in backbone.weights:
        if variable.path.endswith(("embeddings", "kernel")):
            is_last = any(name in variable.path for name in ("attention_output", "feedforward_output"))
            variable.assign(rng.normal(0.0, 0.02 / sums**0.5 if is_last else 0.02, variable.shape))


CONTENDERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "recipe": recipe,
    "transformers": transformers,
    "kerasgen": kerasgen,
}


def _gpt2_ids(job: Job, texts: Sequence[str]) -> list[list[int]]:
    from tokenizers import Tokenizer, models, pre_tokenizers

    bpe = Tokenizer(models.BPE.from_file(f"{job.gpt2}/vocab.json", f"{job.gpt2}/merges.txt"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [found.ids for found in bpe.encode_batch(list(texts))]


def _bits_per_character(job: Job, texts: Sequence[str], logprobs: Callable[[Any], Any]) -> float:
    """Bits per character of each text's tokens and its end token, in pieces of the length that was trained on.

    Args:
        job: with the vocabulary.
        texts: to be scored.
        logprobs: of all tokens after each one, float32 `(rows, LENGTH, vocabulary)` of int32 `(rows, LENGTH)`.
    """
    import numpy as np

    pieces = []
    for found in _gpt2_ids(job, texts):
        framed = [50_256, *found, 50_256]
        pieces += [framed[first : first + LENGTH + 1] for first in range(0, len(framed) - 1, LENGTH)]
    nats = 0.0
    for chunk in (pieces[first : first + ROWS] for first in range(0, len(pieces), ROWS)):
        token_ids = np.full((ROWS, LENGTH), 50_256, np.int32)
        for row, piece in enumerate(chunk):
            token_ids[row, : len(piece) - 1] = piece[:-1]
        found = logprobs(token_ids)
        for row, piece in enumerate(chunk):
            nats -= float(found[row, np.arange(len(piece) - 1), piece[1:]].sum())
    return nats / log(2) / sum(map(len, texts))


def main() -> None:
    """Answer one job."""
    answer, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        job = Job(**json.loads(line))
        random.seed(job.seed)
        print(json.dumps(CONTENDERS[sys.argv[1]](job)), file=answer, flush=True)


if __name__ == "__main__":
    main()
