"""Runs llama.cpp's server in this process, by the package `xllamacpp`; it answers on this machine alone."""

from __future__ import annotations

import http.client
import json
import math
import secrets
import urllib.parse
from collections.abc import Collection
from typing import Any


class LlamaCpp:
    """A GGUF file in llama.cpp, computed on the CPU.

    Args:
        path: the path of the file.
        longest: tokens of a text.
        texts: the number of texts that can be continued at once.
        threads: the number of threads that it may use.
        chunk: tokens that are read at once; None for llama.cpp's own choice.
        strict: keep keys and values in float32, so that only the file rounds. It is for proofs; float16, llama.cpp's
            default, is faster.
        flash_attention: on a CPU it is faster with texts of up to some 250 tokens. After 900 a token takes twice as
            long with it (see the log).

    Raises:
        RuntimeError: llama.cpp can't load the file.
    """

    def __init__(
        self,
        path: str,
        *,
        longest: int,
        texts: int,
        threads: int,
        chunk: int | None = None,
        strict: bool = False,
        flash_attention: bool = False,
    ) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = path
        settings.n_gpu_layers = 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.n_ctx = longest * texts
        settings.n_parallel = texts
        if chunk is not None:
            settings.n_batch = settings.n_ubatch = max(chunk, texts)
        if strict:
            settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        if not flash_attention:
            settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.cache_ram_mib = 0
        settings.fit_params = settings.warmup = False
        settings.verbosity = 1  # errors
        key = secrets.token_hex()
        settings.api_keys = [key]
        self._server = xllamacpp.Server(settings)
        self._address = urllib.parse.urlsplit(self._server.listening_address)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        # A server that is deleted before its loop began waits for the loop for ever, so its first answer is awaited.
        self.complete([0], 1)

    def ask(self, path: str, request: dict[str, Any]) -> Any:
        """Ask the server, and return its answer.

        Raises:
            RuntimeError: it refuses.
        """
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port)
        try:
            connection.request("POST", path, json.dumps(request, allow_nan=False), self._headers)
            answer = connection.getresponse()
            content = answer.read().decode("utf-8")
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"llama.cpp refuses {path}: {content}")
        return json.loads(content)

    def complete(self, prompt: Any, new_tokens: int, **settings: Any) -> Any:
        """Return the server's completion of a prompt, or of each of several.

        Args:
            prompt: ids, or several lists of them.
            new_tokens: at most so many.
            **settings: what else to ask for; with another temperature it draws.
        """
        request = {"prompt": prompt, "n_predict": new_tokens, "temperature": 0.0, "return_tokens": True}
        return self.ask("/completion", request | {"cache_prompt": False} | settings)

    def further(self, prompt: list[int], new_tokens: int, *, ends: Collection[int] = (), **settings: Any) -> list[int]:
        """Generate so many ids; the text goes on after the model's own end token, unless it is among `ends`.

        See `complete`.
        """
        ids: list[int] = []
        while len(ids) < new_tokens:
            answer = self.complete(prompt + ids, new_tokens - len(ids), **settings)
            ids += answer["tokens"]
            if answer["stop_type"] != "eos" or not answer["tokens"] or answer["tokens"][-1] in ends:
                break
        return ids

    def chat_text(self, messages: list[dict[str, str]]) -> str | None:
        """Return what llama.cpp's own Jinja writes of a conversation that waits for an answer; None if it can't."""
        try:
            return str(self.ask("/apply-template", {"messages": messages})["prompt"])
        except RuntimeError:
            return None

    def chat_length(self, messages: list[dict[str, str]]) -> int | None:
        """Return how many tokens llama.cpp reads of such a conversation before its answer; None if it can't."""
        request = {"messages": messages, "max_tokens": 1, "cache_prompt": False}
        try:
            return int(self.ask("/v1/chat/completions", request)["usage"]["prompt_tokens"])
        except RuntimeError:
            return None

    def tokenize(self, text: str, *, start: bool, special: bool = False) -> list[int]:
        """Return a text's ids; names of special tokens are text, unless `special` makes them tokens."""
        request = {"content": text, "add_special": start, "parse_special": special}
        ids: list[int] = self.ask("/tokenize", request)["tokens"]
        return ids

    def detokenize(self, token_ids: list[int]) -> str:
        """Return the text of ids."""
        return str(self.ask("/detokenize", {"tokens": token_ids})["content"])

    def log_probabilities(self, prefix: list[int], *, count: int, forced: int) -> tuple[list[int], list[float]]:
        """Return the likeliest tokens after a prefix, and the log-probability of each in nats.

        Args:
            prefix: ids.
            count: so many tokens; with the size of the vocabulary all of them.
            forced: an id whose text is whole characters, made to come next: the server keeps back what it would say of
                a token that ends within a character. What is told is known before that.
        """
        # Of a prefix that begins as the last one, only what follows is read.
        answer = self.complete(prefix, 1, n_probs=count, logit_bias=[[forced, 1e4]], cache_prompt=True)
        entries = answer["completion_probabilities"][0]["top_logprobs"]
        # What is no number is null in JSON.
        nats = [math.nan if entry["logprob"] is None else entry["logprob"] for entry in entries]
        return [entry["id"] for entry in entries], nats
