"""Explains wrong arguments of a call (unknown, missing, too many) and suggests the right ones."""

from __future__ import annotations

import difflib
import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kerasgen.errors import ArgumentError, CallError, call_error

F = TypeVar("F", bound=Callable[..., Any])
# Called with the arguments that a call doesn't have; returns a sentence about where they belong, or "".
Elsewhere = Callable[[Mapping[str, Any]], str]

# Other libraries' names of arguments, and the names here; of several, those that the call has are suggested.
_ELSEWHERE_CALLED: dict[str, tuple[str, ...]] = {
    "adapter": ("lora",),
    "beam_search": ("beam",),
    "beam_size": ("num_beams", "beams"),
    "beam_width": ("num_beams", "beams"),
    "best_of": ("num_return_sequences",),
    "bf16": ("mixed_bfloat16", "bfloat16"),
    "block_size": ("sequence_length", "cache_length"),
    "callback": ("callbacks",),
    "checkpoint": ("model", "preset", "directory"),
    "checkpoint_dir": ("directory",),
    "clip": ("clip_norm",),
    "clipnorm": ("clip_norm",),
    "column": ("field",),
    "context_length": ("sequence_length", "max_sequence_length", "cache_length", "max_length"),
    "data": ("corpus", "path", "texts"),
    "dataset": ("corpus", "texts"),
    "dtype": ("precision", "quantize"),
    "early_stopping_patience": ("patience",),
    "echo": ("return_prompt",),
    "exist_ok": ("overwrite",),
    "file": ("path",),
    "filename": ("path",),
    "force": ("overwrite",),
    "format": ("exporter",),
    "global_clipnorm": ("clip_norm",),
    "grad_accum": ("gradient_accumulation_steps",),
    "gradient_checkpointing": ("remat",),
    "grammar": ("constraint",),
    "greedy_search": ("greedy",),
    "guided": ("constraint",),
    "guided_regex": ("constraint",),
    "input": ("prompts", "prompt", "texts", "text"),
    "inputs": ("prompts", "prompt", "texts", "text"),
    "input_text": ("prompts", "prompt", "text"),
    "iters": ("max_steps",),
    "key": ("field",),
    "limit": ("max_documents",),
    "logdir": ("directory",),
    "logit_bias": ("bad_words",),
    "logprobs": ("return_logprobs",),
    "lora_alpha": ("alpha",),
    "lora_r": ("rank",),
    "lora_rank": ("rank",),
    "load_in_4bit": ("quantize",),
    "load_in_8bit": ("quantize",),
    "lr": ("learning_rate",),
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule",),
    "max_examples": ("max_documents",),
    "max_grad_norm": ("clip_norm",),
    "max_iters": ("max_steps",),
    "max_len": ("max_length", "sequence_length", "cache_length"),
    "max_length": ("max_new_tokens", "sequence_length", "cache_length"),
    "max_samples": ("max_documents",),
    "max_seq_length": ("sequence_length", "cache_length", "max_length"),
    "max_tokens": ("max_new_tokens", "cache_length"),
    "maxlen": ("max_length", "sequence_length"),
    "messages": ("prompts", "prompt"),
    "mixed_precision": ("precision",),
    "model_id": ("model", "preset"),
    "model_name": ("model", "preset"),
    "model_path": ("model", "preset"),
    "n": ("num_return_sequences",),
    "n_epochs": ("epochs",),
    "name": ("preset", "model"),
    "name_or_path": ("preset", "model"),
    "nucleus": ("top_p",),
    "num_epochs": ("epochs",),
    "num_samples": ("num_return_sequences", "texts", "max_documents"),
    "num_threads": ("threads",),
    "num_tokens": ("max_new_tokens",),
    "num_train_epochs": ("epochs",),
    "num_warmup_steps": ("warmup_steps",),
    "out": ("path", "directory"),
    "output": ("path", "directory"),
    "output_dir": ("directory", "path"),
    "output_path": ("path",),
    "per_device_train_batch_size": ("batch_size",),
    "presence_penalty": ("repetition_penalty",),
    "fp16": ("mixed_float16", "float16"),
    "fp32": ("float32",),
    "frequency_penalty": ("repetition_penalty",),
    "pretrained_model_name_or_path": ("model", "preset"),
    "qlora": ("lora",),
    "quant": ("quantize",),
    "quantization": ("quantize",),
    "r": ("rank",),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "regex": ("constraint",),
    "replace": ("overwrite",),
    "resume_from_checkpoint": ("resume",),
    "return_full_text": ("return_prompt",),
    "sample": ("random",),
    "sampling": ("random",),
    "save_dir": ("directory", "path"),
    "seq_len": ("sequence_length",),
    "steps": ("max_steps",),
    "stop_sequences": ("stop",),
    "stop_strings": ("stop",),
    "stop_token": ("stop",),
    "stop_token_ids": ("stop",),
    "stop_words": ("stop",),
    "strategy": ("sampler", "distribution"),
    "target_modules": ("targets",),
    "temp": ("temperature",),
    "penalty_alpha": ("alpha",),
    "tf": ("tensorflow",),
    "top_k": ("k",),
    "top_p": ("p",),
    "min_p": ("p",),
    "test_size": ("held_out",),
    "text_column": ("field",),
    "text_field": ("field",),
    "text": ("prompts", "prompt", "texts"),
    "train_data": ("corpus",),
    "train_dataset": ("corpus",),
    "eval_dataset": ("held_out",),
    "validation_data": ("held_out",),
    "validation_set": ("held_out",),
    "val_split": ("held_out",),
    "validation_split": ("held_out",),
    "verbosity": ("verbose",),
    "warmup": ("warmup_steps",),
    "wd": ("weight_decay",),
    "width": ("num_beams",),
    "workers": ("threads",),
}


def near(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that `word` may stand for, the likeliest first.

    They are what other libraries' word is called here; words of which it is a part, or whose initials it is; and those
    that are spelled like it.
    """
    known = list(dict.fromkeys(known))
    asked = word.lower().replace("-", "_")
    called = [name for name in _ELSEWHERE_CALLED.get(asked, ()) if name in known]
    if called and word not in known:
        return called[:3]
    parts = [name for name in known if _is_part(asked, name.lower())]
    spelled = difflib.get_close_matches(asked, known, n=3, cutoff=0.5)
    return list(dict.fromkeys([*([word] if word in known else []), *parts, *spelled]))[:3]


def same(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` stands for with little doubt, or None."""
    known = list(known)
    if word in known:
        return word
    called = [name for name in _ELSEWHERE_CALLED.get(word.lower(), ()) if name in known]
    parts = [name for name in known if _is_part(word.lower(), name.lower())]
    if len(parts) == 1 and not called:
        return parts[0]
    close = called or (difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.8) if len(word) > 3 else [])
    return close[0] if close else None


def _is_part(word: str, name: str) -> bool:
    """Whether the name begins with the word, or has it as one of its words, or as its initials."""
    words = name.split("_")
    return len(word) > 1 and (
        (len(word) > 2 and name.startswith(word))
        or word in words
        or (len(words) > 1 and word == "".join(w[0] for w in words if w))
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'learning_rate'?` with its space, or nothing where nothing comes close."""
    return suggestion(near(word, known))


def suggestion(close: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?` with its space, or nothing where there is nothing to suggest."""
    choices = " or ".join(map(repr, close))
    return f" Did you mean {choices}?" if choices else ""


def meant(value: object, choices: Iterable[object]) -> str:
    """Return ` Did you mean 'cosine'?` with its space for a value that is none of the choices, or nothing."""
    words = [choice for choice in choices if isinstance(choice, str)]
    return did_you_mean(value, words) if isinstance(value, str) else ""


def checked(
    error: type[ArgumentError] = ArgumentError, *, elsewhere: Elsewhere | None = None, by_name: str = ""
) -> Callable[[F], F]:
    """Return a decorator that raises helpful errors for a function's wrong arguments.

    Args:
        error: what a call with other ones raises; it is a TypeError too, as Python's own is.
        elsewhere: says where arguments belong that the function doesn't have.
        by_name: what to add where an argument needs its name.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return function(*arguments, **keywords)
            except TypeError:
                message = _wrong(function, arguments, keywords, elsewhere, by_name)
                if message is None:  # the function was begun, and is itself at fault
                    raise
            raise call_error(error)(message)

        return cast(F, call)

    return decorate


class Checked(ABCMeta):
    """Metaclass of public classes: explains a constructor's wrong arguments as `checked` does a function's.

    The class's attribute `_argument_error` says what is raised; a contract sets it for all that fulfil it. `_elsewhere`
    says where other arguments belong.
    """

    _argument_error: type[ArgumentError] = ArgumentError
    _elsewhere: Elsewhere | None = None

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which `inspect` would take for that of `__call__`."""
        whole = inspect.signature(cast(Any, cls).__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:], return_annotation=inspect.Signature.empty)

    if not TYPE_CHECKING:  # a type checker reads the constructor

        def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
            """Construct, or say what is wrong with the arguments."""
            try:
                return super().__call__(*arguments, **keywords)
            except TypeError as cause:
                if isinstance(cause, CallError):
                    raise
                message = _wrong(cls, arguments, keywords, cls._elsewhere)
                if message is None:
                    raise
            raise call_error(cls._argument_error)(message)


def _wrong(
    called: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    elsewhere: Elsewhere | None,
    by_name: str = "",
) -> str | None:
    """Return what is wrong with the arguments of a call, or None if they can be bound."""
    signature = inspect.signature(called)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as cause:
        parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in ("self", "cls")]
        known = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        name = called.__name__ + ("" if isinstance(called, type) else "()")
        foreign = {key: value for key, value in keywords.items() if key not in known}
        if foreign:
            return _foreign(name, foreign, known, elsewhere)
        positional = [
            parameter.name
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        values = arguments[1:] if len(parameters) < len(signature.parameters) else arguments
        if len(values) > len(positional):
            return " ".join(filter(None, [_too_many(name, values, positional, known), by_name]))
        missing = [
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and parameter.name not in keywords
            and parameter.name not in positional[: len(values)]
        ]
        if missing and "multiple values" not in str(cause):
            written = ", ".join(f"{argument}=…" for argument in missing)
            return f"{name} needs {' and '.join(map(repr, missing))}. Write {name.removesuffix('()')}({written})."
        return f"{name} can't be called so: {cause}."
    return None


def _foreign(name: str, foreign: Mapping[str, Any], known: list[str], elsewhere: Elsewhere | None) -> str:
    message = f"{name} has no argument{'s' * (len(foreign) > 1)} {' and '.join(map(repr, foreign))}."
    placed = {key: value for key, value in foreign.items() if elsewhere is not None and elsewhere({key: value})}
    if elsewhere is not None and placed:
        message += f" {elsewhere(placed)}"
    others = [key for key in foreign if key not in placed]
    message += "".join(did_you_mean(key, known) for key in others)
    return f"{message} It takes: {', '.join(known) or 'none'}." if others else message


def _too_many(name: str, values: tuple[Any, ...], positional: list[str], known: list[str]) -> str:
    extra = ", ".join(f"{value!r:.40}" for value in values[len(positional) :])
    if not known:
        return f"{name} takes no arguments. Received: {extra}."
    named = [argument for argument in known if argument not in positional]
    without = f"{len(positional)} without a name ({', '.join(positional)})" if positional else "none without a name"
    return f"{name} takes {without}. Received besides: {extra}. By name it takes: {', '.join(named) or 'none'}."
