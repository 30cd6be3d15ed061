"""Tune, save, load again, and prove that nothing was lost; then load the same weights with KerasHub alone.

python examples/save_and_reload.py --model starter --output poet
"""

import argparse
from pathlib import Path

import kerasgen as kg

parser = argparse.ArgumentParser(description="Save a tuned pipeline and load it again.")
parser.add_argument("--model", default="gpt2_base_en", help="a KerasHub preset, a directory, or starter")
parser.add_argument("--output", type=Path, default=Path("poet"), help="a directory that is not there yet")
parser.add_argument("--max-steps", type=int, default=20)
arguments = parser.parse_args()

prompt = "My grandmother"
pipe = kg.Pipeline(
    corpus="sample:language=en",
    model=arguments.model,
    tuner=kg.FullTuner(max_steps=arguments.max_steps, batch_size=4, sequence_length=64),
    sampler="greedy",
)
pipe.fit()
written = pipe.generate(prompt, max_new_tokens=32)
saved = pipe.save(arguments.output)

again = kg.Pipeline.load(saved)
print("the same text after loading:", again.generate(prompt, max_new_tokens=32) == written)

import keras_hub  # noqa: E402 - the pipeline has chosen Keras's backend by now

causal_lm = keras_hub.models.CausalLM.from_preset(str(saved / "model"))
print("and KerasHub alone loads", f"{causal_lm.count_params():,}", "weights")
print(written)
