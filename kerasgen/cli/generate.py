"""`kerasgen generate`: texts for prompts, with a saved pipeline, a model or an artefact."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_weights
from kerasgen.cli.generation_flags import add_setting
from kerasgen.errors import ArgumentError
from kerasgen.samplers import resolving
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.generation.engine import TextSpace

NAME = "generate"
HELP = "write text with a saved pipeline, a model or an exported artefact"

MAX_NEW_TOKENS = 64
# Settings with a flag, with what a help text says besides: an example, and the default where it is the command's own.
_SETTINGS: dict[str, dict[str, str]] = {
    "max_new_tokens": {"default": f"{MAX_NEW_TOKENS}, or as many as the model has room for"},
    "max_length": {},
    "sampler": {
        "such_as": "such as top_p:p=0.9,temperature=0.8",
        "default": "the pipeline's; top_k for a model, greedy for an artefact",
    },
    "seed": {"default": "the pipeline's; 0 otherwise"},
    "stop": {},
    "constraint": {"such_as": "such as verse_form:form=七言絕句"},
    "valid_utf8": {},
    "num_return_sequences": {"short": "-n", "default": "1"},
    "batch_size": {},
    "prompt_lookup_num_tokens": {"such_as": "such as 8"},
    "assistant_model": {"such_as": "such as ./small"},
    "num_assistant_tokens": {"default": "5"},
    "engine": {"such_as": "such as keras or litert:quantize=int8"},
    "return_prompt": {},
    "allowed_special": {"such_as": "such as all"},
}

_ONE_STREAM = "One text can be streamed, of one prompt. Leave `stream` out to write several."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a saved pipeline's directory; a model: starter, a KerasHub preset's name, a model's directory; or an "
        "exported artefact: a .tflite, .litertlm or .gguf file, a SavedModel's directory",
    )
    parser.add_argument(
        "prompts",
        metavar="PROMPT",
        nargs="+",
        help="what to go on from; - reads one from standard input, without one line end at its end",
    )
    length = parser.add_mutually_exclusive_group()
    for name, options in _SETTINGS.items():
        add_setting(length if name in ("max_new_tokens", "max_length") else parser, name, **options)
    parser.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="write the one text piece by piece, as it comes (default: in a terminal)",
    )
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Write the texts, a blank line between two."""
    prompts = _prompts(chosen.prompts)
    settings = {name: getattr(chosen, name) for name in _SETTINGS if getattr(chosen, name) is not None}
    if chosen.stream and (len(prompts) > 1 or chosen.num_return_sequences is not None):
        raise ArgumentError(_ONE_STREAM)
    if chosen.sampler is not None:
        resolving.resolve(chosen.sampler)  # before a model is loaded for it
    writer = sources.open_writer(chosen.source, backend=chosen.backend, weights=chosen.weights)
    saved = writer.config
    if chosen.max_length is saved.max_length is chosen.max_new_tokens is saved.max_new_tokens is None:
        settings["max_new_tokens"] = _fitting(writer.space, prompts)
    copies = settings.get("num_return_sequences", saved.num_return_sequences)
    alone = len(prompts) == 1 and copies is None
    if chosen.stream and not alone:
        raise ArgumentError(_ONE_STREAM)
    if saved.return_logprobs:
        settings["return_logprobs"] = False  # texts alone are shown
    if alone and _streams(chosen.stream, settings.get("sampler") or writer.sampler):
        settings.pop("batch_size", None)
        _show(writer.stream(prompts[0], settings))
        return 0
    written = writer.generate(prompts, settings)
    texts = written if copies is None else [text for copies_of_prompt in written for text in copies_of_prompt]
    show("\n\n".join(texts))
    return 0


def _prompts(arguments: list[str]) -> list[str]:
    if arguments.count(sources.STANDARD_INPUT) > 1:
        raise ArgumentError("Standard input is read once: - may be one prompt, not several.")
    return [
        sources.read_text() if prompt == sources.STANDARD_INPUT else sources.as_text(prompt) for prompt in arguments
    ]


def _fitting(space: TextSpace, prompts: list[str]) -> int:
    """Return the default number of new tokens: at most as many as fit after each prompt.

    For a prompt that leaves no room it is one, which generating refuses.
    """
    if space.max_sequence_length is None:
        return MAX_NEW_TOKENS
    start = 0 if space.tokenizer.start_token_id is None else 1
    longest = start + max(map(len, space.tokenizer.encode_batch(prompts)))
    remaining = space.max_sequence_length - longest
    if 1 <= remaining < MAX_NEW_TOKENS:
        print(
            f"kerasgen: at most {remaining} new tokens: the model has {space.max_sequence_length} positions, of which "
            f"{'the prompt' if len(prompts) == 1 else 'the longest prompt'} takes {longest}.",
            file=sys.stderr,
        )
    return max(1, min(MAX_NEW_TOKENS, remaining))


def _streams(asked: bool | None, sampler: Any) -> bool:
    """Whether the text is written piece by piece. A search knows its texts only when they are complete."""
    if asked is not None or not sys.stdout.isatty():
        return bool(asked)
    from kerasgen.samplers.base import TokenSampler
    from kerasgen.samplers.lookahead import Contrastive

    return isinstance(resolving.resolve(sampler), (TokenSampler, Contrastive))


def _show(pieces: Iterable[str]) -> None:
    for piece in pieces:
        show(piece, end="")
    show("")
