"""A small tuning run on several devices or in several processes: `python distributed_run.py DIRECTORY DISTRIBUTION`.

It prints the report's losses, validations and a digest of the weights as JSON. With `--stop-at STEP` the process ends
itself after that step, as if it had been killed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("distribution")
    parser.add_argument("--family", default="gpt2")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--dpo", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--patience", type=int)
    parser.add_argument("--stop-at", type=int)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    from kerasgen import backend

    backend.use("jax")
    import keras
    import numpy as np
    from contained import Contained
    from tiny import tiny_gpt2, tiny_llama, tiny_opt
    from toys import encode, texts
    from tuning_run import encode_halves, encode_pairs

    from kerasgen.tuners.dpo import DpoTuner
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) == arguments.stop_at:
                os._exit(9)

    if arguments.family == "container":
        model = Contained("olmo2").load()
    else:
        family = {"gpt2": tiny_gpt2, "llama": tiny_llama, "opt": tiny_opt}[arguments.family]
        model = family(num_layers=1, hidden_dim=16, max_sequence_length=32, dropout=0.1)
    kind: Any = DpoTuner if arguments.dpo else LoraTuner if arguments.lora else FullTuner
    encoded = encode_pairs if arguments.dpo else encode_halves if arguments.parts else encode
    tuner = kind(
        epochs=2,
        batch_size=4,
        sequence_length=32,
        learning_rate=1e-2,
        checkpoint_every=2,
        precision="float32",
        sharded_checkpoints=arguments.sharded,
        patience=arguments.patience,
        distribution=None if arguments.distribution == "none" else arguments.distribution,
    )
    train, held_out = encoded(model.tokenizer, texts(22)), encoded(model.tokenizer, texts(5, seed=1))
    report = tuner.tune(
        model,
        train,
        held_out,
        seed=0,
        directory=arguments.directory,
        resume=arguments.resume,
        callbacks=[Stop()] if arguments.stop_at else [],
        verbose=0,
    )
    variables = model.network.weights
    weights = [np.asarray(variable) for variable in variables]
    print(
        json.dumps(
            {
                "losses": list(report.losses),
                "validations": [dataclasses.asdict(found) for found in report.validations],
                "weights": [float(np.abs(weight).sum()) for weight in weights],
                "resumed_from": report.resumed_from,
                "devices": [len(getattr(variable.value, "devices", list)()) for variable in variables],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
