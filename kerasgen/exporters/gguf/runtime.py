"""Runs a GGUF file in llama.cpp: ids in, ids out, chosen by llama.cpp's own samplers."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from kerasgen import fork_safety
from kerasgen.constraints.valid_utf8 import START, Utf8Masks, masks_of
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.exporters.gguf.server import LlamaCpp
from kerasgen.generation.config import GenerationConfig
from kerasgen.models import gguf_tokenizer_fields
from kerasgen.runtime import verifying
from kerasgen.runtime.base import Runtime, check_threads, new_tokens_of
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP
from kerasgen.tokens.base import Tokenizer

_READ_AT_ONCE = 128  # tokens of a prompt, where sums shall be those of the proof
_LONGEST = 4096  # tokens of a text: llama.cpp takes the memory of its keys and values when it begins
_SHORT = 256  # tokens of a text with which flash attention is the faster one on a CPU
_SEEDS = 2**32 - 1  # of llama.cpp; the highest value means a random seed
_STRIDE = 0x9E3779B1  # odd, so that no two places of a text have one seed
_AHEAD = 8  # fewest tokens to request at once, although the first may begin a character
_TRIED, _FARTHER = 4, 4  # tokens that are first taken without a mask, and by how much more each time they all hold
_RAISED = 1000.0  # added to a logit: the others' probabilities become 0, and what float32 loses of it is 6e-5


class GgufRuntime(Runtime):
    """A GGUF file in llama.cpp.

    Greedy ids are the model's, but for near equals that llama.cpp's own arithmetic turns round, which `strict` makes
    rarer. What samplers draw is distributed as elsewhere; llama.cpp has random numbers of its own, so a seed gives
    other texts than other runtimes.

    Args:
        server: the server that runs the file.
        tokenizer: the tokenizer of the file.
        max_sequence_length: tokens of a whole text, at most 4,096.
        longer: starts a server of texts with more than `_SHORT` tokens, when the first of them comes; None where the
            first server takes them too.
    """

    def __init__(
        self,
        server: LlamaCpp,
        tokenizer: Tokenizer,
        max_sequence_length: int,
        longer: Callable[[], LlamaCpp] | None = None,
    ) -> None:
        self._server = server
        self._start_longer, self._longer, self._starting = longer, None if longer else server, threading.Lock()
        self.tokenizer = tokenizer
        self.max_sequence_length = max_sequence_length

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids generated after each prompt; see `Runtime.generate_ids`.

        Raises:
            GenerateArgumentError: the sampler is none of greedy, random, top_k, top_p and min_p, or has a penalty.
        """
        chosen = server_settings(config.sampler)
        start = self.tokenizer.start_token_id
        ends = self.tokenizer.end_token_ids if end_token_id is None else (end_token_id,)
        new_tokens, seed = new_tokens_of(config), cast(int, config.seed)
        before: Counter[tuple[int, ...]] = Counter()
        generated = []
        for prompt in prompts:
            text = [*([] if start is None else [start]), *map(int, prompt)]
            # A repeated prompt gets different draws, and the same ones alone and in a batch.
            settings = chosen | {"seed": (seed + before[tuple(text)]) % _SEEDS}
            masks = masks_of(self.tokenizer) if config.valid_utf8 else None
            server = self._server_of(len(text) + new_tokens)
            if masks is None:
                ids = server.further(text, new_tokens, ends=ends, **settings)
            else:
                ids = utf8_further(server, masks, text, new_tokens, settings, ends=ends)
            before[tuple(text)] += 1
            places = [place for place, token_id in enumerate(ids, start=1) if token_id in ends]
            generated.append(ids[: places[0]] if places else ids)
        return generated

    def _server_of(self, tokens: int) -> LlamaCpp:
        """Return the server of texts with so many tokens."""
        if tokens <= _SHORT:
            return self._server
        with self._starting:
            if self._longer is None:
                assert self._start_longer is not None
                self._longer = self._start_longer()
            return self._longer


def utf8_further(
    server: LlamaCpp,
    masks: Utf8Masks,
    prompt: list[int],
    new_tokens: int,
    settings: Mapping[str, Any],
    *,
    ends: Sequence[int],
) -> list[int]:
    """Generate so many ids that keep the text valid UTF-8; otherwise as `LlamaCpp.further`.

    The server knows one set of logits to change for a whole answer. So it writes on as between two characters, where
    few tokens may not follow, up to a token that begins one. A model that knows its language completes it by itself:
    greedy choice and draws from all tokens then go on without any change, ever farther, and are checked. A token that
    may not follow is drawn again among those that may, which is the same distribution; that one and the rest of its
    character come token by token, and so they do for samplers that cut the distribution first.

    Args:
        server: the server that runs the file.
        masks: the masks of the tokenizer.
        prompt: ids.
        new_tokens: so many.
        settings: the settings of the sampler, its seed with them.
        ends: ids that end the text; what comes after one is of no use.
    """
    draws_from_all = settings.get("samplers", ["temperature"]) == ["temperature"]
    written: list[int] = []
    state, ahead, tried, requests = masks.state_after(prompt), new_tokens, _TRIED, 0
    is_free = was_refused = False
    while len(written) < new_tokens and not set(ends) & set(written):
        count = tried if is_free else ahead if state == START else 1
        # Each answer begins to draw anew, so it is given a seed of its own.
        own: dict[str, Any] = {"seed": (settings["seed"] + _STRIDE * requests) % _SEEDS, "cache_prompt": True}
        own |= {} if is_free else {"logit_bias": masks_as_biases(masks, state)}
        asked = min(count, new_tokens - len(written))
        new = server.further(prompt + written, asked, ends=ends, **{**settings, **own})
        requests += 1
        if not new:
            break
        tried *= _FARTHER if is_free else 1
        for taken, token_id in enumerate(new, start=1):
            if is_free and not masks.allowed(np.array([state]))[0, token_id]:
                is_free, was_refused, tried = False, True, _TRIED
                break
            written.append(token_id)
            state = int(masks.advance(np.array(state), np.array(token_id)))
            if not is_free and state != START:
                is_free, ahead = draws_from_all and not was_refused, max(2 * taken, _AHEAD)
                break
        was_refused = was_refused and state != START
    return written


def masks_as_biases(masks: Utf8Masks, state: int) -> list[list[Any]]:
    """Return the logit biases that make llama.cpp's server choose a token allowed in this state.

    Where most may, the others are taken out; where few may, those are raised above all others.
    """
    allowed = masks.allowed(np.array([state]))[0]
    if allowed.sum() * 2 < len(allowed):
        return [[token_id, _RAISED] for token_id in np.flatnonzero(allowed).tolist()]
    return [[token_id, False] for token_id in np.flatnonzero(~allowed).tolist()]


def server_settings(spec: Any) -> dict[str, Any]:
    """Return a sampler's settings for llama.cpp's server; the temperature comes first, as in kerasgen.

    Raises:
        GenerateArgumentError: it has no such sampler.
    """
    kinds = (Greedy, Random, TopK, TopP, MinP)
    draws_from_all = isinstance(spec, SamplerSpec) and spec.repetition_penalty == 1 and not spec.no_repeat_ngram_size
    if type(spec) not in kinds or not draws_from_all or spec.bad_words:
        raise GenerateArgumentError(
            "kerasgen runs a GGUF file with greedy, random, top_k, top_p or min_p, without repetition_penalty, "
            f"no_repeat_ngram_size and bad_words. Received: {spec!r}."
        )
    if isinstance(spec, Greedy):
        return {"temperature": 0.0}
    settings: dict[str, Any] = {"temperature": spec.temperature, "samplers": ["temperature"]}
    if isinstance(spec, TopK):
        return settings | {"samplers": ["temperature", "top_k"], "top_k": spec.k}
    if isinstance(spec, TopP):
        return settings | {"samplers": ["temperature", "top_p"], "top_p": spec.p}
    if isinstance(spec, MinP):
        return settings | {"samplers": ["temperature", "min_p"], "min_p": spec.p}
    return settings


def open_artefact(path: Path, description: dict[str, Any], *, threads: int = 1, strict: bool = False) -> GgufRuntime:
    """Return the runtime of a GGUF file; `description` is what `metadata.read` returned.

    Args:
        path: the file.
        description: what lies beside it.
        threads: that llama.cpp may use. They wait without resting: with more of them than free cores, all are slow.
        strict: compute as the proof of the export does, with keys and values in float32. By default they are float16,
            as llama.cpp has them by itself, which is faster.

    Raises:
        MissingDependencyError: `xllamacpp` is not installed.
        ModelFormatError: the file is damaged, or another one than was exported.
        GenerateArgumentError: `threads` is no whole number of at least 1, or `strict` neither True nor False.
    """
    try:
        import gguf  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError as cause:
        raise MissingDependencyError(
            "Running a GGUF file needs llama.cpp: pip install 'kerasgen[llamacpp]'.",
            package="xllamacpp",
            extra="llamacpp",
        ) from cause
    check_threads(threads)
    if not isinstance(strict, bool):
        raise GenerateArgumentError(f"`strict` must be True or False. Received: strict={strict!r}.")
    verifying.check_sha256(path, description["sha256"])
    longest: int = description["max_tokens"]
    vocabulary, architecture, positions = gguf_tokenizer_fields.read(path)
    if (architecture, positions) != (description["architecture"], longest):
        raise ModelFormatError(
            f"{path} is a {architecture} of {positions} positions, and what lies beside it names a "
            f"{description['architecture']} of {longest}. Copy the files of one export together."
        )
    tokenizer = vocabulary.tokenizer()
    fork_safety.begin(fork_safety.LLAMA_CPP)
    longest = min(longest, _LONGEST)
    start = functools.partial(_started, path, texts=1, threads=threads)
    if strict:
        return GgufRuntime(start(longest=longest, chunk=min(_READ_AT_ONCE, longest), strict=True), tokenizer, longest)
    short = min(longest, _SHORT)

    def longer() -> LlamaCpp:
        verifying.check_sha256(path, description["sha256"])  # another file may lie there by then
        return start(longest=longest)

    server = start(longest=short, flash_attention=True)
    return GgufRuntime(server, tokenizer, longest, longer if longest > short else None)


def _started(path: Path, **settings: Any) -> LlamaCpp:
    try:
        return LlamaCpp(str(path), **settings)
    except RuntimeError as cause:
        raise ModelFormatError(f"llama.cpp can't load {path}: {cause}") from cause
