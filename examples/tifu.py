"""Fine-tune GPT-2 on the posts of Reddit TIFU, and let it tell a mishap of its own.

pip install 'kerasgen[tfds]' && python examples/tifu.py
"""

import argparse

import kerasgen as kg

parser = argparse.ArgumentParser(description="Fine-tune on Reddit TIFU.")
parser.add_argument("--model", default="gpt2_base_en", help="a KerasHub preset, a directory, or starter")
parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data sets")
parser.add_argument("--max-steps", type=int, default=500)
parser.add_argument("--max-documents", type=int, default=20_000)
arguments = parser.parse_args()

pipe = kg.Pipeline(
    corpus=kg.RedditTifu(data_dir=arguments.data_dir),
    model=arguments.model,
    tuner=kg.FullTuner(learning_rate=5e-5, batch_size=16, sequence_length=128, max_steps=arguments.max_steps),
    sampler="top_k",
    max_documents=arguments.max_documents,
)
prompt = "today i tried to impress my neighbours"
print("--- before\n" + pipe.generate(prompt, max_length=100))
print(pipe.fit())
print("--- after\n" + pipe.generate(prompt, max_length=100))
