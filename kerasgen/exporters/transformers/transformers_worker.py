"""Worker process with transformers and no Keras: loads a directory, encodes and generates.

`python -m kerasgen.exporters.transformers.transformers_worker JOB.json ANSWER.json`. The job holds `path`, `texts` to
encode, `chats` that its chat template writes, `prompts` as ids with the start token, how many `new_tokens` follow each,
and how many `ids` the tokenizer has, of which the texts are: a model may have more rows.
"""

from __future__ import annotations

from typing import Any


def main() -> None:
    """Do the job."""
    import transformers

    from kerasgen.runtime import job as jobs

    job = jobs.read()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["path"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(job["path"])
    model.float().eval()
    prompts, counts, texts = job["prompts"], job["new_tokens"], job["texts"]
    pad, fewest, ids = tokenizer.pad_token_id, min(job["new_tokens"]), job["ids"]
    every = zip(prompts, counts, strict=True)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    jobs.answer(
        {
            "version": transformers.__version__,
            "alone": [generate(model, [prompt], count, pad, ids=ids)[0] for prompt, count in every],
            "together": generate(model, prompts, fewest, pad, ids=ids),
            "encoded": encoded,
            "started": [tokenizer(text)["input_ids"] for text in texts],
            "decoded": [tokenizer.decode(ids) for ids in encoded],
            "chats": [
                tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
                for talk in job["chats"]
            ],
        }
    )


def generate(
    model: Any, prompts: list[list[int]], count: int, pad: int, *, end: int | None = None, ids: int | None = None
) -> list[list[int]]:
    """Return the likeliest ids after each prompt of a batch, padded on the left, up to an end token if there is one.

    Args:
        model: of transformers.
        prompts: with their start token.
        count: how many follow.
        pad: the id that fills a prompt.
        end: the id of the end token, or None to go on behind it.
        ids: how many, the first ones, are chosen from; None for all that the model has.
    """
    import torch

    longest, rows = max(map(len, prompts)), model.config.vocab_size
    model.generation_config.eos_token_id = end
    generated = model.generate(
        torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts]),
        attention_mask=torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
        do_sample=False,
        num_beams=1,
        max_new_tokens=count,
        suppress_tokens=list(range(ids or rows, rows)) or None,
    )
    texts = [row[longest:].tolist() for row in generated]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in texts]


if __name__ == "__main__":
    main()
