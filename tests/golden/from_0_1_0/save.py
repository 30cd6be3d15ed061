"""Save, with kerasgen 0.1.0, what the present version must still load: this made the files beside it.

    PYTHONPATH=<tests of 0.1.0> python save.py DIRECTORY

`base` is a preset of a tiny GPT-2, `pipeline` one that was tuned, `adapters` one whose adapters lie apart from `base`,
and `run` and `adapters_run` are runs that were interrupted after their last checkpoint. `expected.json` has what 0.1.0
generated from each, and the losses of the runs when nothing interrupts them. Needs 0.1.0 installed, and its
`tests/tiny.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import kerasgen as kg

TEXTS = [
    "the rain came down on the tin roof all night",
    "a small cat sat by the warm stove",
    "he ran home before the storm broke",
    "bread and salt were on the table",
    "she wrote a letter to the sea",
    "no one answered the old bell",
    "winter left its boots at the door",
    "two boats crossed in the morning fog",
    "the miller counts his sacks at dusk",
    "under the bridge the river hums",
    "my lamp has less oil than last week",
    "an owl asked the same question twice",
    "they planted beans beside the fence",
    "the clock is slow and so am I",
    "who left this window open to snow",
    "apples roll wherever the hill goes",
    "a tailor sews the evening to the night",
    "bells from the valley arrive late",
    "keep the kettle on for the driver",
    "the road ends where the wheat begins",
]
PROMPTS = ("the rain", "a small", "who")
SETTINGS = "learning_rate=0.003,batch_size=2,sequence_length=32,warmup_steps=2"
LORA_RUN = f"lora:rank=2,epochs=2,checkpoint_every=5,{SETTINGS}"
SAMPLERS = ("greedy", "beam:num_beams=3")  # seeds have other draws since


def generated(pipe: kg.Pipeline) -> dict[str, list[list[int]]]:
    """The ids that a pipeline generates after each prompt, by sampler."""
    from kerasgen.generation import generate_ids

    prompts = pipe.tokenizer.encode_batch(list(PROMPTS))
    ids = {name: generate_ids(pipe.model, prompts, sampler=name, max_new_tokens=24) for name in SAMPLERS}
    return {name: [list(several[0].token_ids) for several in texts] for name, texts in ids.items()}


def main(out: Path) -> None:
    """Write everything into a directory, which becomes the current one: `adapters` names `base` by a relative path."""
    import keras
    from tiny import tiny_gpt2

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if int(self.model.optimizer.iterations) == 7:
                raise KeyboardInterrupt

    os.chdir(out)
    kg.PresetExporter().export(tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=64), Path("base"))
    tuned = kg.Pipeline(TEXTS, "./base", tuner=f"full:epochs=2,{SETTINGS}", sampler="top_k:k=7", seed=3)
    report = tuned.fit(verbose=0)
    tuned.save("pipeline")
    expected = {"pipeline": generated(tuned), "losses": list(report.losses)}
    expected["validations"] = [one.loss for one in report.validations]

    adapted = kg.Pipeline(TEXTS, "./base", tuner=f"lora:rank=2,epochs=2,{SETTINGS}", sampler="greedy", seed=3)
    report = adapted.fit(verbose=0)
    expected["adapters_losses"] = list(report.losses)
    adapted.save("adapters")
    expected["adapters"] = generated(adapted)

    for tuner, directory in ((f"full:epochs=2,checkpoint_every=5,{SETTINGS}", "run"), (LORA_RUN, "adapters_run")):
        broken = kg.Pipeline(TEXTS, "./base", tuner=tuner, seed=3)
        with contextlib.suppress(KeyboardInterrupt):
            broken.fit(directory=directory, verbose=0, callbacks=[Stop()])
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
