"""Worker process in which LiteRT-LM writes conversations by a bundle's chat template and reads them.

`python -m kerasgen.exporters.litertlm.chat_worker JOB.json ANSWER.json`. The job holds `path`, `max_tokens` and
`chats`, each with its `messages` and the `text` that kerasgen's template writes of them, and the `new_tokens` of an
answer. The answer holds the text that LiteRT-LM's own Jinja writes of each, the ids that it reads the given one as, and
what it answers greedily.
"""

from __future__ import annotations

from typing import Any


def main() -> None:
    """Do the job."""
    from kerasgen.runtime import job as jobs

    job = jobs.read()
    import litert_lm

    litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
    engine = litert_lm.Engine(
        job["path"], backend=litert_lm.Backend.CPU(), max_num_tokens=job["max_tokens"], cache_dir=":nocache"
    )
    texts: list[str] = []
    answers: list[str] = []
    greedy = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)
    for talk in job["chats"]:
        *before, last = talk["messages"]
        try:
            conversation = engine.create_conversation(
                messages=before or None, sampler_config=greedy, max_output_tokens=job["new_tokens"] or None
            )
            texts.append(conversation.render_message_to_string(last))
            if job["new_tokens"]:
                answers.append(_text(conversation.send_message(last)))
            conversation.close()
        except RuntimeError as cause:
            texts.append(f"refused: {cause}")
    ids = [list(map(int, engine.tokenize(talk["text"]))) for talk in job["chats"]]
    jobs.answer({"texts": texts, "ids": ids, "answers": answers})


def _text(message: Any) -> str:
    """Return what a message says."""
    return "".join(piece.get("text", "") for piece in message.get("content", ()))


if __name__ == "__main__":
    main()
