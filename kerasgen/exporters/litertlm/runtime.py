"""Runs a LiteRT-LM bundle on `litert-lm-api`: text in, text out."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgen import fork_safety
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.generation.config import GenerationConfig
from kerasgen.quiet import LEVEL, quietly
from kerasgen.runtime import metadata, verifying
from kerasgen.runtime.base import Runtime, check_threads, new_tokens_of
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer


class LiteRtLmRuntime(Runtime):
    """A LiteRT-LM bundle. Its engine takes and gives text, so ids are those of its text; it decodes greedily.

    Args:
        engine: a `litert_lm.Engine`.
        tokenizer: the tokenizer that it was exported with.
        max_sequence_length: tokens of a whole text.
    """

    def __init__(self, engine: Any, tokenizer: ByteLevelBPE | PretrainedTokenizer, max_sequence_length: int) -> None:
        self._engine, self._pid = engine, os.getpid()
        self._session = threading.Lock()  # LiteRT-LM's engine has one at a time
        self.tokenizer = tokenizer
        self.max_sequence_length = self._longest = max_sequence_length
        # Where the bundle names no start token, the engine puts none before a text.
        self._start = "" if engine.bos_token_id is not None else tokenizer.start_token or ""

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids of the text after each prompt, without the end token; see `Runtime.generate_ids`.

        A character of which only some bytes were generated at the end is left out. LiteRT-LM chooses among all tokens,
        so `valid_utf8` changes nothing: of a young model there may be U+FFFD where the bytes are no character.
        """
        from kerasgen.samplers.sampling import Greedy

        if config.sampler != Greedy() or end_token_id not in (None, self.tokenizer.end_token_id):
            raise GenerateArgumentError(
                "kerasgen runs a LiteRT-LM bundle with the plain sampler 'greedy' and its own end token. Received: "
                f"sampler={config.sampler!r}, end_token_id={end_token_id!r}."
            )
        fork_safety.check_owner(fork_safety.LITERT_LM, self._pid)
        return [self._generate_one(list(prompt), new_tokens_of(config)) for prompt in prompts]

    def _generate_one(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        import litert_lm

        text = self.tokenizer.decode(prompt)
        if not text or self.tokenizer.encode(text) != prompt:
            raise GenerateArgumentError("A LiteRT-LM bundle reads text; these ids are not those of a text.")
        remaining = self._longest - len(prompt) - 1
        if not 0 < max_new_tokens <= remaining:
            raise GenerateArgumentError(
                f"max_new_tokens must be between 1 and {remaining} after this prompt. Received: {max_new_tokens}."
            )
        with self._session:
            session = self._engine.create_session(
                apply_prompt_template=False,
                sampler_config=litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0),
                max_output_tokens=max_new_tokens,
            )
            try:
                session.run_prefill([self._start + text])
                written = session.run_decode().texts[0]
            finally:
                session.close()
        return self.tokenizer.encode(written.rstrip("\ufffd"))


def open_artefact(path: Path, description: dict[str, Any], *, threads: int = 1) -> LiteRtLmRuntime:
    """Return the runtime of a bundle.

    Raises:
        MissingDependencyError: `litert-lm-api` is not installed.
        ModelFormatError: the bundle is damaged, or the files of several exports are mixed.
        GenerateArgumentError: `threads` is no whole number of at least 1.
    """
    try:
        with quietly():
            import litert_lm
    except ImportError as cause:
        raise MissingDependencyError(
            "Running a LiteRT-LM bundle needs litert-lm-api: pip install 'kerasgen[litertlm]'.",
            package="litert-lm-api",
            extra="litertlm",
        ) from cause
    check_threads(threads)
    tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
    if path.stat().st_size != description["bundle_bytes"]:
        raise ModelFormatError(
            f"{path} is damaged or cut off: {path.stat().st_size} of {description['bundle_bytes']} bytes."
        )
    verifying.check_sha256(path, description["sha256"])
    try:
        with quietly():
            if os.environ.get(LEVEL) != "0":
                litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
            with litert_lm.ModelInfo(str(path)) as model_info:
                positions = model_info.max_context_tokens
            if positions != description["max_tokens"]:
                raise ModelFormatError(
                    f"{path} holds texts of {positions} tokens, and what lies beside it says "
                    f"{description['max_tokens']}. Copy the files of one export together."
                )
            engine = litert_lm.Engine(
                str(path),
                backend=litert_lm.Backend.CPU(thread_count=threads),
                max_num_tokens=description["max_tokens"],
                cache_dir=":nocache",  # it would leave its multiplied weights beside the bundle
            )
    except RuntimeError as cause:
        raise ModelFormatError(f"LiteRT-LM can't load {path}: {cause}") from cause
    return LiteRtLmRuntime(engine, tokenizer, description["max_tokens"])
