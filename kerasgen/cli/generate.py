"""`kerasgen generate`: texts for prompts, with a saved pipeline, a model or an artefact."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import (
    Assignments,
    Backend,
    Engine,
    Json,
    Sampler,
    Seed,
    Stop,
    Weights,
    generation_settings,
    option,
    setting,
)
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.samplers import resolving
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.generation.engine import TextSpace

MAX_NEW_TOKENS = 64
_SETTINGS = (
    "max_new_tokens",
    "max_length",
    "sampler",
    "seed",
    "stop",
    "constraint",
    "valid_utf8",
    "num_return_sequences",
    "batch_size",
    "prompt_lookup_num_tokens",
    "assistant_model",
    "num_assistant_tokens",
    "engine",
    "return_prompt",
    "allowed_special",
)
_ONE_STREAM = "One text can be streamed, of one prompt. Leave `stream` out to write several."


def run(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="a saved pipeline's directory; a model: starter, a KerasHub preset's name, a model's directory; or an "
            "exported artefact: a .tflite, .litertlm or .gguf file, a SavedModel's directory",
        ),
    ],
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT", help="each text's beginning; - reads one from each line of standard input"),
    ],
    whole: Annotated[
        bool,
        option("--whole", help="take all of standard input as one prompt, with its last line end"),
    ] = False,
    max_new_tokens: Annotated[
        int | None, setting("max_new_tokens", default=f"{MAX_NEW_TOKENS}, or as many as the model has room for")
    ] = None,
    max_length: Annotated[int | None, setting("max_length")] = None,
    sampler: Sampler = None,
    seed: Seed = None,
    stop: Stop = None,
    constraint: Annotated[str | None, setting("constraint", such_as="such as verse_form:form=七言絕句")] = None,
    valid_utf8: Annotated[bool | None, setting("valid_utf8")] = None,
    num_return_sequences: Annotated[int | None, setting("num_return_sequences", short="-n", default="1")] = None,
    batch_size: Annotated[int | None, setting("batch_size")] = None,
    prompt_lookup_num_tokens: Annotated[int | None, setting("prompt_lookup_num_tokens", such_as="such as 8")] = None,
    assistant_model: Annotated[str | None, setting("assistant_model", such_as="such as ./small")] = None,
    num_assistant_tokens: Annotated[int | None, setting("num_assistant_tokens", default="5")] = None,
    engine: Engine = None,
    return_prompt: Annotated[bool | None, setting("return_prompt")] = None,
    allowed_special: Annotated[list[str] | None, setting("allowed_special")] = None,
    assignments: Assignments = None,
    stream: Annotated[
        bool | None,
        option("--stream/--no-stream", help="write the one text piece by piece, as it comes (default: in a terminal)"),
    ] = None,
    as_json: Json = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Write the texts, a blank line between two."""
    settings = generation_settings(context, _SETTINGS, assignments, without=("return_logprobs", "progress"))
    if whole and sources.STANDARD_INPUT not in prompts:
        raise ArgumentError("`whole` is about standard input, which no prompt reads. Give the prompt -.")
    if stream and as_json:
        raise ArgumentError("JSON is written when the texts are complete. Leave `stream` or `as_json` out.")
    if stream and (len(prompts) > 1 or settings.get("num_return_sequences") is not None):
        raise ArgumentError(_ONE_STREAM)
    if "sampler" in settings:
        resolving.resolve(settings["sampler"])  # before a model is loaded for it
    texts = _prompts(prompts, whole=whole)
    writer = sources.open_writer(source, backend=backend, weights=weights)
    saved = writer.config
    is_unbounded = saved.max_length is saved.max_new_tokens is None
    if is_unbounded and not settings.keys() & {"max_length", "max_new_tokens"}:
        fitting = _fitting(writer.space, texts)
        settings |= {} if fitting is None else {"max_new_tokens": fitting}
    copies = settings.get("num_return_sequences", saved.num_return_sequences)
    alone = len(texts) == 1 and copies is None
    if stream and not alone:
        raise ArgumentError(_ONE_STREAM)
    if saved.return_logprobs:
        settings["return_logprobs"] = False  # texts alone are shown
    if alone and not as_json and _streams(stream, settings.get("sampler") or writer.sampler):
        settings.pop("batch_size", None)
        _show(writer.stream(texts[0], settings))
        return 0
    written = writer.generate(texts, settings)
    groups = [[text] for text in written] if copies is None else written
    if as_json:
        show_json({"texts": [{"prompt": said, "texts": group} for said, group in zip(texts, groups, strict=True)]})
    else:
        show("\n\n".join(text for group in groups for text in group))
    return 0


def _prompts(arguments: list[str], *, whole: bool) -> list[str]:
    if arguments.count(sources.STANDARD_INPUT) > 1:
        raise ArgumentError("Standard input is read once: - may be one prompt, not several.")
    prompts: list[str] = []
    for prompt in arguments:
        read = prompt == sources.STANDARD_INPUT
        prompts += sources.read_prompts(whole=whole) if read else [sources.as_text(prompt)]
    return prompts


def _fitting(space: TextSpace, prompts: list[str]) -> int | None:
    """Return the default number of new tokens: at most as many as fit after each prompt.

    For a prompt that leaves no room it is one, which generating refuses. A masked language model has a default of its
    own, which depends on the constraint: None.
    """
    if isinstance(space, MaskedLanguageModel):
        return None
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
