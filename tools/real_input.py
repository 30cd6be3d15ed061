"""Show what the library does on real input: the starter on Tang poems, and LoRA on real posts.

    python tools/real_input.py --poems chinese-poetry.tang.tar.xz --posts tifu_posts.jsonl.xz

Prints held-out bits per character before and after, one poem and one post.
"""

from __future__ import annotations

import argparse

import kerasgen as kg


def main() -> None:
    """Run both and print what came out."""
    parser = argparse.ArgumentParser(description="Tune the starter on real poems and on real posts.")
    parser.add_argument("--poems", required=True, help="the chinese-poetry repository, or an archive of it")
    parser.add_argument("--posts", required=True, help="JSON lines with the posts")
    parser.add_argument("--field", default="selftext_without_tldr", help="the field that holds a post's text")
    parser.add_argument("--backend")
    arguments = parser.parse_args()

    poems = kg.Pipeline(
        corpus=kg.ChinesePoetry(arguments.poems, dynasty="tang"),
        model="starter",
        tuner=kg.FullTuner(epochs=1, learning_rate=2e-4, batch_size=8),
        sampler=kg.TopK(k=8, temperature=0.8),
        max_documents=2000,
        backend=arguments.backend,
    )
    _show("one pass over 2,000 Tang poems", poems, "昨夜雨疏风骤", 60)

    posts = kg.Pipeline(
        corpus=kg.Jsonl(arguments.posts, field=arguments.field, on_error="skip"),
        model="starter",
        tuner=kg.LoraTuner(
            rank=16,
            alpha=32,
            targets=("query", "key", "value", "attention_output"),
            learning_rate=3e-3,
            batch_size=8,
            max_steps=300,
        ),
        sampler=kg.TopP(p=0.8, temperature=0.7, repetition_penalty=1.05),
        backend=arguments.backend,
    )
    _show("LoRA over real posts", posts, "Today I ", 200)


def _show(title: str, pipeline: kg.Pipeline, prompt: str, max_new_tokens: int) -> None:
    print(f"=== {title}")
    print(pipeline.fit(verbose=2))
    print(f"--- text\n{pipeline.generate(prompt, max_new_tokens=max_new_tokens)}\n")


if __name__ == "__main__":
    main()
