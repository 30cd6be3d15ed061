"""A run of a model that is read in parts: `python spread_run.py MODEL DIRECTORY TUNER DISTRIBUTION`.

It prints what the process held of the weights when they were read, the report's losses, and what became of saving and
generating, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run it as the command line says."""
    place, directory, kind, distribution = sys.argv[1:5]
    import kerasgen as kg
    from kerasgen.errors import ModelError

    split = distribution != "none"
    tuner = {"full": kg.FullTuner, "lora": kg.LoraTuner}[kind](
        epochs=2,
        batch_size=4,
        sequence_length=24,
        learning_rate=1e-2,
        precision="float32",
        vocabulary="keep",
        checkpoint_every=2,
        distribution=distribution if split else None,
        sharded_checkpoints=split,
    )
    texts = [f"{'lorem ipsum dolor '[n % 5 :]} {n * n}" for n in range(22)]
    pipe = kg.Pipeline(texts, model=place, tuner=tuner, backend="jax", cache=str(Path(directory).parent / "cache"))
    found: dict[str, Any] = {}

    def held() -> list[int]:
        """Bytes of all weights, and of those that this process holds."""
        values = [variable.value for variable in pipe.model.network.weights]
        here = sum(part.data.nbytes for value in values for part in value.addressable_shards)
        return [sum(value.nbytes for value in values), here]

    pipe._start_backend()
    pipe.tuner.load_base(lambda: pipe.model)
    found["read"] = held()
    report = pipe.fit(directory=directory, resume="--resume" in sys.argv, verbose=0)
    found |= {"losses": list(report.losses), "validations": [v.loss for v in report.validations], "left": held()}
    import jax

    if jax.process_index() == 0:
        for what in ("generate", "save"):
            try:
                made = pipe.generate("lorem", max_new_tokens=3) if what == "generate" else pipe.save(f"{directory}-out")
                found[what] = str(made)
            except ModelError as error:
                found[what] = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
