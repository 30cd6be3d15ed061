"""Show what the library does on real input: the starter on Tang poems, and LoRA on real posts.

    python tools/real_input.py --poems chinese-poetry.tang.tar.xz --posts tifu_posts.jsonl.xz --stories stories.jsonl.xz

Prints held-out bits per character before and after, one poem and one post. The starter knows no English, and LoRA
leaves the embeddings of its letters as they are: with `--stories` every weight is first tuned on other English texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kerasgen as kg


def main() -> None:
    """Run both and print what came out."""
    parser = argparse.ArgumentParser(description="Tune the starter on real poems and on real posts.")
    parser.add_argument("--poems", help="the chinese-poetry repository, or an archive of it")
    parser.add_argument("--posts", help="JSON lines with the posts")
    parser.add_argument("--stories", help="JSON lines with other English texts, to begin with")
    parser.add_argument("--story-steps", type=int, help="optimizer steps over the stories; one pass if not given")
    parser.add_argument("--post-steps", type=int, help="optimizer steps over the posts; one pass if not given")
    parser.add_argument("--work", type=Path, default=Path("real-input"), help="where the model in between is saved")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--backend")
    arguments = parser.parse_args()
    if arguments.poems:
        _tune_on_poems(arguments)
    if arguments.posts:
        _tune_on_posts(arguments)


def _tune_on_poems(arguments: argparse.Namespace) -> None:
    poems = kg.Pipeline(
        corpus=kg.ChinesePoetry(arguments.poems, dynasty="tang"),
        model="starter",
        tuner=kg.FullTuner(epochs=1, learning_rate=2e-4, batch_size=8, precision=arguments.precision),
        sampler=kg.TopK(k=8, temperature=0.8),
        max_documents=2000,
        backend=arguments.backend,
    )
    _show("one pass over 2,000 Tang poems", poems, "昨夜雨疏风骤", 60)


def _tune_on_posts(arguments: argparse.Namespace) -> None:
    model = "starter" if arguments.stories is None else _taught_english(arguments)
    posts = kg.Pipeline(
        corpus=kg.Jsonl(arguments.posts, field="selftext_without_tldr", on_error="skip"),
        model=model,
        tuner=kg.LoraTuner(
            rank=16,
            alpha=32,
            targets=("query", "key", "value", "attention_output"),
            batch_size=8,
            max_steps=arguments.post_steps,
            precision=arguments.precision,
        ),
        sampler=kg.TopP(p=0.9, temperature=0.7),
        backend=arguments.backend,
    )
    _show("LoRA over real posts", posts, "Today I ", 200)


def _taught_english(arguments: argparse.Namespace) -> Path:
    """The starter after a full tune on English stories, none of them from the posts' own forum."""
    stories = kg.Jsonl(arguments.stories, field="selftext").documents()
    texts = (story.text for story in stories if story.metadata.get("subreddit", "").lower() != "tifu")
    pipeline = kg.Pipeline(
        corpus=texts,
        model="starter",
        tuner=kg.FullTuner(
            learning_rate=1e-3,
            warmup_steps=20,
            batch_size=8,
            max_steps=arguments.story_steps,
            precision=arguments.precision,
        ),
        max_documents=1000,
        backend=arguments.backend,
    )
    print("=== first, every weight on English stories")
    print(pipeline.fit(verbose=2))
    return pipeline.save(arguments.work / "english", overwrite=True) / "model"


def _show(title: str, pipeline: kg.Pipeline, prompt: str, max_new_tokens: int) -> None:
    print(f"=== {title}")
    print(pipeline.fit(verbose=2))
    print(f"--- text\n{pipeline.generate(prompt, max_new_tokens=max_new_tokens)}\n")


if __name__ == "__main__":
    main()
