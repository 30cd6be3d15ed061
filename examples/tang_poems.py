"""Fine-tune GPT-2 on Tang poems, and go on from a line by Li Qingzhao.

python examples/tang_poems.py --path chinese-poetry
"""

import argparse

import kerasgen as kg

parser = argparse.ArgumentParser(description="Fine-tune on Tang poems.")
parser.add_argument("--model", default="gpt2_base_en", help="a KerasHub preset, a directory, or starter")
parser.add_argument("--path", help="the chinese-poetry repository or an archive of it; downloaded if not given")
parser.add_argument("--max-steps", type=int, default=500)
parser.add_argument("--max-documents", type=int)
arguments = parser.parse_args()

corpus = kg.ChinesePoetry(path=arguments.path, dynasty="tang")
pipe = kg.Pipeline(
    corpus=corpus,
    model=arguments.model,
    tuner=kg.FullTuner(epochs=1, learning_rate=5e-4, batch_size=16, max_steps=arguments.max_steps),
    sampler=kg.TopK(k=5, seed=1),
    max_documents=arguments.max_documents,
)
first = next(corpus.documents())
print(f"--- the first poem is {first.metadata['title']} by {first.metadata['author']}\n{first.text}")
print(pipe.fit())
print("--- a new one\n" + pipe.generate("昨夜雨疏风骤", max_length=200))
