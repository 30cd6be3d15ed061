"""One prompt under many samplers: names, texts with settings, kerasgen's values and an instance of KerasHub's own.

python examples/samplers.py --model starter --prompt 春江
"""

import argparse

import kerasgen as kg

kg.backend.use()
import keras_hub  # noqa: E402 - Keras reads its backend while it is imported, so the backend is chosen before

parser = argparse.ArgumentParser(description="Generate one text with each of several samplers.")
parser.add_argument("--model", default="gpt2_base_en", help="a KerasHub preset, a directory, or starter")
parser.add_argument("--prompt", default="The night train left the station")
parser.add_argument("--max-new-tokens", type=int, default=40)
arguments = parser.parse_args()

pipe = kg.Pipeline(model=arguments.model, seed=7)
for sampler in (
    "greedy",
    "top_k:k=40,temperature=0.8",
    "min_p:p=0.1,repetition_penalty=1.2",
    kg.TopP(p=0.9, seed=1),
    kg.Beam(num_beams=4, no_repeat_ngram_size=3),
    kg.Contrastive(k=4, alpha=0.6),
    keras_hub.samplers.TopKSampler(k=5, seed=1),
):
    text = pipe.generate(arguments.prompt, max_new_tokens=arguments.max_new_tokens, sampler=sampler)
    print(f"--- {sampler if isinstance(sampler, str | kg.SamplerSpec) else type(sampler)}\n{text}\n")
