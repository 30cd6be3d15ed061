"""Worker process in which LiteRT-LM writes conversations by a bundle's chat template and reads them.

`python -m kerasgen.exporters.litertlm.chat_worker JOB.json ANSWER.json`. The job holds `path`, `max_tokens` and
`chats`, each with its `messages` and the `text` that kerasgen's template writes of them. The answer holds the text that
LiteRT-LM's own Jinja writes of each, and the ids that it reads the given one as.
"""

from __future__ import annotations


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
    for talk in job["chats"]:
        *before, last = talk["messages"]
        try:
            conversation = engine.create_conversation(messages=before or None)
            texts.append(conversation.render_message_to_string(last))
            conversation.close()
        except RuntimeError as cause:
            texts.append(f"refused: {cause}")
    jobs.answer({"texts": texts, "ids": [list(map(int, engine.tokenize(talk["text"]))) for talk in job["chats"]]})


if __name__ == "__main__":
    main()
