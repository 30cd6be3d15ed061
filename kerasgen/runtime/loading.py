"""Opens an artefact with its format's runtime, which is imported only then."""

from __future__ import annotations

import glob
import os
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import GenerateArgumentError, KerasgenError, ModelFormatError, ModelUnavailableError
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import checked, did_you_mean
from kerasgen.models import addresses, chat
from kerasgen.runtime import formats, metadata
from kerasgen.runtime.base import Runtime


@checked(GenerateArgumentError)
def load_artefact(
    path: str | os.PathLike[str],
    *,
    isolated: bool = False,
    timeout_seconds: float | None = None,
    memory_bytes: int | None = None,
    **settings: Any,
) -> Runtime:
    """Return the runtime of an artefact that kerasgen exported.

    It needs the format's own runtime, `tokenizers` and NumPy; neither Keras nor, except for a SavedModel, TensorFlow
    is imported.

    Args:
        path: what `Pipeline.export` wrote; the files beside it belong to it. `"hf://name/poet/poet.gguf"` fetches them
            from the Hugging Face hub, once. A SavedModel is not opened from there: it is a program.
        isolated: load and run it in a process of its own, for files of strangers: if they crash the format's runtime,
            it is an error here and no more. The process ends with `runtime.close()`, or with the `with` block.
        timeout_seconds: for each answer of an isolated artefact, loading with it; None waits.
        memory_bytes: address space that an isolated artefact may take, where the system can limit it; None for any.
        **settings: of the runtime, such as `threads=2`.

    Raises:
        ModelUnavailableError: the hub can't be reached, or has no such artefact.
        ModelFormatError: it is no artefact, is damaged, or parts of several exports are mixed.
        GenerateArgumentError: the runtime has no such setting, or can't use its value.
        MissingDependencyError: the format's runtime is not installed.
        PluginError: the package whose exporter wrote it is at fault.
    """
    place = _fetched(str(path)) if addresses.is_hub_address(path) else path_argument(path, GenerateArgumentError)
    if isolated:
        from kerasgen.runtime.isolated import IsolatedRuntime

        return IsolatedRuntime(place, settings, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
    if timeout_seconds is not None or memory_bytes is not None:
        raise GenerateArgumentError("`timeout_seconds` and `memory_bytes` are limits of isolated=True alone.")
    description = metadata.read(place)
    exporter = description["exporter"]
    named = formats.runtime_of(exporter)
    if named is None:
        known = exporter in formats.REGISTRY.names()
        other = "whose files another program runs" if known else "which no package that is installed here declares"
        raise ModelFormatError(
            f"{place} was written by the exporter {exporter!r:.80}, {other}. kerasgen runs: "
            f"{', '.join(formats.runnable())}."
        )
    opener = formats.opener(exporter, named)
    names = [
        name for name, parameter in signature(opener).parameters.items() if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    foreign = sorted(set(settings) - set(names))
    if foreign:
        raise GenerateArgumentError(
            f"The runtime of {exporter!r} has the settings {', '.join(names) or 'none'}. Received: "
            f"{', '.join(foreign)}.{''.join(did_you_mean(setting, names) for setting in foreign)}"
        )
    try:
        runtime: Runtime = opener(place, description, **settings)
    except KerasgenError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, MemoryError) as cause:
        raise ModelFormatError(
            f"{metadata.report_path(place)} lacks what {place.name} needs to be run, or holds another kind of value: "
            f"{cause!r}. Copy or export it again."
        ) from cause
    formats.check_runtime(exporter, runtime)
    if isinstance(description.get(chat.REPORTED), dict):
        runtime.chat_template = chat.described(runtime.tokenizer, description[chat.REPORTED])
    return runtime


# A SavedModel may read and write files as it is run, so a stranger's is not run without having been asked for.
_PROGRAMS = ("saved_model",)


def _fetched(text: str) -> Path:
    """Return where an artefact of the hub lies on this machine, with the files beside it."""
    address = addresses.hub_address(text)
    if not address.path:
        raise GenerateArgumentError(
            f"{text!r} is a whole repository. Name the artefact in it, such as '{text}/poet.gguf', or open it with "
            f"Pipeline({text!r})."
        )
    from kerasgen.models import hugging_face

    name = glob.escape(address.path)
    folder = hugging_face.snapshot(address, (f"{name}{metadata.REPORT_SUFFIX}", f"{name}/{metadata.REPORT_FILE}"))
    place = folder / address.path
    reports = (place.with_name(f"{place.name}{metadata.REPORT_SUFFIX}"), place / metadata.REPORT_FILE)
    report = next((each for each in reports if each.is_file()), None)
    if report is None:
        raise ModelUnavailableError(
            f"There is no artefact of kerasgen at {text!r}: no '{address.path}{metadata.REPORT_SUFFIX}' lies there, "
            "which its export would have written."
        )
    try:
        exporter = limits.read_json(report)["exporter"]
    except (OSError, ValueError, KeyError, TypeError):
        exporter = None  # told by the reader
    if exporter in _PROGRAMS:
        raise ModelFormatError(
            f"{text!r} is a SavedModel, a program that may read and write files here, so it is not run from a hub. If "
            "you trust whoever made it, download it (hf download), and open it by its path."
        )
    hugging_face.snapshot(hugging_face.pinned(address, folder), (name, f"{name}.*", f"{name}/*"))
    return place
