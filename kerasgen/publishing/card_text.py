"""Writes a model card of what is known; a section about which nothing is known is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kerasgen.publishing import usage
from kerasgen.publishing.formats import Format, Layout
from kerasgen.publishing.hub_terms import REPOSITORY, languages, licence_settings
from kerasgen.publishing.known import Data, Known
from kerasgen.publishing.model_card import ModelCard

BITS: Final = "bits per character"
_SUMMED: Final = ("dropped", "changed")


def written(
    known: Known,
    layout: Layout,
    *,
    repository: str | None,
    revision: str | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
) -> ModelCard:
    """Return the card.

    Args:
        known: what is known of the pipeline.
        layout: what lies in the repository.
        repository: `"name/poet"`; None leaves out how it is used.
        revision: the branch.
        reports: of the artefacts, by their places in the repository.
    """
    title = repository.rpartition("/")[2] if repository else "A text generator"
    sections = [
        ("", _summary(known)),
        ("How to use it", _use(known, layout, repository, revision) if repository else ""),
        ("Data", _data(known)),
        ("Base model and licence", _base(known)),
        ("Settings", _table(("setting", "value"), _settings(known))),
        ("Figures", _figures(known)),
        ("Files and their proofs", _files(layout, reports or {})),
        ("Samples", _samples(known)),
        ("Limits", _limits(known)),
    ]
    text = "\n\n".join(f"## {name}\n\n{body}" if name else body for name, body in sections if body)
    return ModelCard(f"# {title}\n\n{text}\n", _metadata(known, layout, title))


def _metadata(known: Known, layout: Layout, title: str) -> dict[str, Any]:
    names = [each.name for each in layout.formats]
    root = next((each.name for each in layout.formats if each.is_root), None)
    library = {"transformers": "transformers", "preset": "keras-hub"}.get(root or "", "keras")
    repository = known.base.get("repository")
    settings: dict[str, Any] = licence_settings(dict(known.base))
    spoken = languages(known.base.get("languages"), *(data.languages for data in known.data))
    if spoken:
        settings["language"] = spoken
    if isinstance(repository, str) and REPOSITORY.fullmatch(repository):
        settings["base_model"] = repository
        if known.report:
            settings["base_model_relation"] = "adapter" if known.has_adapters and not names else "finetune"
    datasets = [data.dataset for data in known.data if data.dataset and REPOSITORY.fullmatch(data.dataset)]
    if datasets:
        settings["datasets"] = list(dict.fromkeys(datasets))
    settings["library_name"] = library
    settings["pipeline_tag"] = "fill-mask" if known.is_masked else "text-generation"
    tuner = known.tuner.partition(":")[0]
    tags = ["kerasgen", "keras", tuner if tuner in ("lora", "dpo") else "", *names]
    tags += ["conversational"] if known.has_chat_template else []
    settings["tags"] = [tag for tag in dict.fromkeys(tags) if tag]
    index = _model_index(known, title)
    return settings | ({"model-index": index} if index else {})


def _model_index(known: Known, title: str) -> list[dict[str, Any]]:
    value = known.report.get("bits_per_character")
    if not isinstance(value, (int, float)) or not known.data:
        return []
    data = known.data[0]
    kind = "fill-mask" if known.is_masked else "text-generation"
    result = {
        "task": {"type": kind},
        "dataset": {"name": f"{data.name}, held out", "type": data.dataset or data.spec.partition(":")[0] or "custom"},
        "metrics": [{"type": "bits_per_character", "value": round(float(value), 4), "name": f"held-out {BITS}"}],
    }
    return [{"name": title, "results": [result]}]


def _summary(known: Known) -> str:
    what = "fills masked tokens" if known.is_masked else "continues a text"
    base = known.base.get("name")
    tuned = " tuned" if known.report else ""
    of = f" from {_plain(base)}" if base else ""
    on = f" on {_listed(_plain(data.name) for data in known.data)}" if known.report and known.data else ""
    return (
        f"A {_plain(known.kind)} of {known.parameters:,} weights that {what}"
        + (f",{tuned}{of}{on}" if tuned or of else "")
        + ". It was made with [kerasgen](https://pypi.org/project/kerasgen/)."
    )


def _use(known: Known, layout: Layout, repository: str, revision: str | None) -> str:
    prompt = next((prompt for prompt, _ in known.samples if prompt and len(prompt) <= 80), "")
    spoken = languages(known.base.get("languages"), *(data.languages for data in known.data))
    if not prompt:
        prompt = "春" if "zh" in spoken else "Once upon a time"
        prompt = f"{prompt} {known.mask_token}" if known.is_masked else prompt
    blocks = [
        f"{each.title}:\n\n```{each.language}\n" + "\n".join(each.lines) + "\n```"
        for each in usage.usages(layout, repository, revision=revision, is_masked=known.is_masked, prompt=prompt)
    ]
    commands = usage.llama_cpp(layout, repository)
    if commands:
        blocks.append("With llama.cpp's own programs:\n\n```sh\n" + "\n".join(commands) + "\n```")
    return "\n\n".join(blocks)


def _data(known: Known) -> str:
    lines = [_data_line(data) for data in known.data]
    counts = {name: known.counts.get(name) for name in ("read", "kept", "characters")}
    rows = [(name, f"{value:,}") for name, value in counts.items() if isinstance(value, int)]
    for name in _SUMMED:
        inner = known.counts.get(name)
        if isinstance(inner, Mapping) and inner:
            rows.append((name, ", ".join(f"{count:,} {_plain(reason)}" for reason, count in inner.items())))
    near = known.counts.get("near_duplicates")
    if near:
        rows.append(("with near-duplicates, which are on one side of the split", f"{near:,}"))
    for name, what in (("documents", "learned from"), ("held_out_documents", "held out")):
        if known.report.get(name):
            rows.append((what, f"{known.report[name]:,}"))
    return "\n\n".join(filter(None, ["\n".join(lines), _table(("documents", "count"), rows)]))


def _data_line(data: Data) -> str:
    line = f"- {_plain(data.name)}" if not data.url else f"- [{_plain(data.name)}]({data.url})"
    line += f" (`{data.spec}`)" if data.spec and "`" not in data.spec else ""
    return line + (f"; licence: {_plain(data.license)}" if data.license else "")


def _base(known: Known) -> str:
    base = known.base
    lines = []
    if base.get("name"):
        repository = base.get("repository")
        name = _plain(base["name"])
        lines.append(
            f"The weights were made of {f'[{name}](https://huggingface.co/{repository})' if repository else name}."
        )
    if base.get("license"):
        link = base.get("license.link")
        named = _plain(base.get("license.name") or base["license"])
        lines.append(f"Its licence holds for them: {f'[{named}]({link})' if link else named}.")
        own = {name for data in known.data if data.license for name in [data.license]}
        if own:
            lines.append(f"The data have licences of their own: {_listed(map(_plain, sorted(own)))}.")
    notices = base.get("notices") or {}
    if notices:
        lines.append(f"Its notices are in this repository: {_listed(f'`{name}`' for name in sorted(notices))}.")
    return " ".join(lines)


def _settings(known: Known) -> list[tuple[str, str]]:
    rows = [("tuner", f"`{known.tuner}`")] if known.tuner else []
    rows += [(_words(name), _figure(value)) for name, value in known.settings.items()]
    rows += [("sampler", f"`{known.sampler}`"), ("seed", str(known.seed))]
    choice = (known.report.get("vocabulary") or {}).get("choice")
    rows += [("vocabulary", f"{choice}, for {_plain(known.report['vocabulary'].get('reason', ''))}")] if choice else []
    return rows


def _figures(known: Known) -> str:
    report, rows = known.report, []
    validations = [each for each in report.get("validations") or () if isinstance(each, Mapping)]
    if validations:
        first, last = validations[0], validations[-1]
        for name, what in (
            ("bits_per_character", f"held-out {BITS}"),
            ("loss", "held-out loss"),
            ("pair_accuracy", "held-out pairs, the better answer likelier"),
            ("reward_accuracy", "held-out pairs, the better answer's reward higher"),
            ("margin", "held-out margin"),
        ):
            if isinstance(last.get(name), (int, float)):
                rows.append((what, _figure(first.get(name)), _figure(last[name])))
    if isinstance(report.get("loss"), (int, float)):
        rows.append(("training loss, last tenth of the steps", "", _figure(report["loss"])))
    blocks = [_table(("figure", "before", "after"), rows)]
    if validations:
        last = validations[-1]
        error = last.get("standard_error")
        blocks.append(
            f"Measured on {last.get('documents', 0):,} held-out documents ({last.get('tokens', 0):,} tokens), in rows "
            f"of {report.get('sequence_length')} tokens"
            + (f"; the standard error of the {BITS} is {error:.4f}." if isinstance(error, float) else ".")
        )
    if known.evaluation is not None:
        each = known.evaluation
        own = [
            (f"{BITS}, {each.documents:,} documents", _figure(each.bits_per_character)),
            ("loss, nats per token", _figure(each.loss)),
            *((each.writing.rows()) if each.writing is not None else ()),
        ]
        blocks += ["An evaluation of its own:", _table(("figure", "value"), own)]
    return "\n\n".join(filter(None, blocks))


def _files(layout: Layout, reports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    if layout.has_pipeline:
        rows.append(("`pipeline.json` and what it names", "the saved pipeline, as it is", ""))
    for each in layout.formats:
        report = reports.get(each.place) or {}
        rows.append((_shown(each), _proof(report.get("parity") or {}), _bytes(report)))
    return _table(("files", "compared with the model before they were pushed", "bytes"), rows) if rows else ""


def _shown(each: Format) -> str:
    where = f"`{each.place}`" if each.place else "the root"
    return f"{where} ({each.name})"


def _bytes(report: Mapping[str, Any]) -> str:
    total = report.get("bytes")
    return f"{total:,}" if isinstance(total, int) else ""


def _proof(parity: Mapping[str, Any]) -> str:
    if not parity:
        return ""
    told = []
    tokens = parity.get("new_tokens")
    if isinstance(tokens, Sequence) and "greedy_equal" in parity:
        verdict = "equal" if parity["greedy_equal"] else "as near as its limits ask, not all equal"
        told.append(f"{sum(tokens):,} greedy tokens: {verdict}")
    for name, value in parity.items():
        if name != "greedy_equal" and name.endswith("_equal") and isinstance(value, bool):
            told.append(f"{_words(name.removesuffix('_equal'))}: {'equal' if value else 'not equal'}")
        elif isinstance(value, float) and re.search("difference|divergence|agreement|increase", name):
            told.append(f"{_words(name)}: {value:.3g}")
    speed = parity.get("tokens_per_second")
    told += [f"{speed:,.0f} tokens/s where it was proved"] if isinstance(speed, (int, float)) else []
    return "; ".join(told)


def _samples(known: Known) -> str:
    blocks = []
    for prompt, text in known.samples:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text + prompt)), default=0))
        begun = f"After `{prompt}`:\n\n" if prompt and "`" not in prompt and "\n" not in prompt else ""
        blocks.append(f"{begun}{fence}text\n{text.strip(chr(10))}\n{fence}")
    if not blocks:
        return ""
    return "\n\n".join(["Written by the sampler and the seed above, as they came:", *blocks])


def _limits(known: Known) -> str:
    lines = []
    if known.positions:
        lines.append(f"- A text has {known.positions:,} tokens at most.")
    lines.append(
        "- Besides the figures above nothing was measured: not whether what it writes is true, fair or fit for a use."
        if known.report or known.evaluation is not None
        else "- Nothing was measured: not how well it predicts texts, nor whether what it writes is true or fair."
    )
    if known.report and not known.report.get("validations"):
        lines.append("- No documents were held out, so no figure says how it does on texts that it has not seen.")
    lines += [f"- {_plain(warning)}" for warning in known.report.get("warnings") or () if isinstance(warning, str)]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    given = [[_cell(value) for value in row] for row in rows]
    if not given:
        return ""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in given)])


def _cell(value: str) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _plain(value: Any) -> str:
    """Return a text of strangers as Markdown shows it and nothing else."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(str(value).split()))


def _figure(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _listed(names: Iterable[str]) -> str:
    given = list(names)
    return given[0] if len(given) == 1 else f"{', '.join(given[:-1])} and {given[-1]}" if given else ""
