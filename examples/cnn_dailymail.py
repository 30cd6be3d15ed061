"""Fine-tune low-rank adapters on the articles of CNN / Daily Mail, and let the model report.

pip install 'kerasgen[tfds]' && python examples/cnn_dailymail.py
"""

import argparse

import kerasgen as kg

parser = argparse.ArgumentParser(description="Fine-tune on CNN / Daily Mail.")
parser.add_argument("--model", default="gpt2_base_en", help="a KerasHub preset, a directory, or starter")
parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data sets")
parser.add_argument("--max-steps", type=int, default=500)
parser.add_argument("--split", default="train[:5%]", help="in the notation of TensorFlow Datasets")
arguments = parser.parse_args()

pipe = kg.Pipeline(
    corpus=kg.CnnDailymail(split=arguments.split, data_dir=arguments.data_dir),
    model=arguments.model,
    tuner=kg.LoraTuner(rank=8, learning_rate=1e-3, batch_size=8, sequence_length=256, max_steps=arguments.max_steps),
    sampler=kg.TopP(p=0.9, temperature=0.8, seed=1),
)
report = pipe.fit()
print(report)
print(f"{report.trainable_parameters:,} of {report.parameters:,} weights were tuned")
print("--- news\n" + pipe.generate("The mayor announced on Tuesday", max_new_tokens=80))
