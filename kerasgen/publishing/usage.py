"""The lines by which each format is used once it lies in a repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kerasgen.publishing.formats import Format, Layout


@dataclass(frozen=True)
class Usage:
    """How one format is used.

    Args:
        title: what it is, in a line.
        language: of the lines, as Markdown names it: `python` or `sh`.
        lines: to be run.
    """

    title: str
    language: str
    lines: Sequence[str]


def usages(
    layout: Layout, repository: str, *, revision: str | None = None, is_masked: bool = False, prompt: str
) -> list[Usage]:
    """Return how each format of a repository is used.

    Args:
        layout: what lies in it.
        repository: `"name/poet"`.
        revision: the branch, where it is not the main one.
        is_masked: whether the model fills masks.
        prompt: what the examples go on from; with a mask where the model fills one.
    """
    at = "" if revision in (None, "main") else f"@{revision}"
    address = f"hf://{repository}{at}"
    call = f"pipe.fill({prompt!r})[0]" if is_masked else f"pipe.generate({prompt!r}, max_new_tokens=64)"
    found = []
    if layout.has_pipeline:
        lines = ["import kerasgen as kg", "", f'pipe = kg.Pipeline("{address}")', f"print({call})"]
        found.append(Usage("With kerasgen, as it was saved", "python", lines))
    for each in layout.formats:
        usage = _usage(each, repository, at.removeprefix("@"), is_masked=is_masked, prompt=prompt)
        if usage is not None:
            found.append(usage)
    return found


def _usage(each: Format, repository: str, revision: str, *, is_masked: bool, prompt: str) -> Usage | None:
    address = f"hf://{repository}{'@' if revision else ''}{revision}"
    setting = f', revision="{revision}"' if revision else ""
    if each.name == "transformers" and each.is_root:
        task = "fill-mask" if is_masked else "text-generation"
        amount = "" if is_masked else ", max_new_tokens=64"
        lines = [
            *("from transformers import pipeline", ""),
            f'generator = pipeline("{task}", model="{repository}"{setting})',
            f"print(generator({prompt!r}{amount}))",
        ]
        return Usage("With transformers", "python", lines)
    if each.name == "preset" and each.is_root and not revision:
        kind = "MaskedLM" if is_masked else "CausalLM"
        call = "" if is_masked else f"\nprint(model.generate({prompt!r}, max_length=64))"
        lines = ["import keras_hub", "", f'model = keras_hub.models.{kind}.from_preset("hf://{repository}"){call}']
        return Usage("With KerasHub", "python", lines)
    flag = f" --revision {revision}" if revision else ""
    if each.is_directory:
        lines = [f'hf download {repository} --include "{each.place}/*"{flag} --local-dir .']
        lines += [f"kerasgen serve {each.place}"] if each.name == "web" else []
        title = "As a page in the browser" if each.name == "web" else f"The files of `{each.name}`"
        return Usage(title, "sh", lines)
    if not each.opens_from_hub:
        return Usage(f"The file of `{each.name}`", "sh", [f"hf download {repository} {each.place}{flag} --local-dir ."])
    lines = [
        *("import kerasgen as kg", ""),
        f'poet = kg.load_artefact("{address}/{each.place}")',
        f"print(poet.generate({prompt!r}, max_new_tokens=64))",
    ]
    return Usage(f"`{each.place}`, without Keras", "python", lines)


def llama_cpp(layout: Layout, repository: str) -> list[str]:
    """Return the command lines of llama.cpp's own programs for GGUF files; empty where there are none."""
    return [
        f"llama-cli --hf-repo {repository} --hf-file {each.place}" for each in layout.formats if each.name == "gguf"
    ]
