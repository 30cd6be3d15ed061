"""Arranges what a page shows: figures, charts, texts and tables. What is not there has no place among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from kerasgen.evaluation.base import Evaluation, TextScore, Writing
from kerasgen.exporters.base import Artefact
from kerasgen.reports import curves, surprise
from kerasgen.reports.figures import Cell, Figure, brief, duration, megabytes, named_value, number, percent
from kerasgen.terminal import visible
from kerasgen.tuners.report import TuneReport

SAMPLES: Final = 10
COPIES: Final = 6
WRITTEN: Final = 16
CHARACTERS: Final = 600
"""Of one text, at most, wherever it is shown."""
TOKENS: Final = 700
"""Of all texts that are coloured, together at most."""
REASONS: Final = 12
_WORDS: Final = 60  # characters of a name or a reason that other people's code gives
_KANA, _HANGUL, _HAN = re.compile("[぀-ヿ]"), re.compile("[가-힣]"), re.compile("[㐀-鿿豈-﫿]")
# Frequent characters that only one script has.
_SIMPLIFIED = re.compile(
    "[东丝两严丧个丰临为举么义乌乐乔习乡书买乱争于亏云产亲亿仅从们价众优会伤伦传体书时国来对说这东风门问间云鸟马鱼长]"
)
_TRADITIONAL = re.compile(
    "[東絲兩嚴喪個豐臨為舉麼義烏樂喬習鄉書買亂爭於虧雲產親億僅從們價眾優會傷倫傳體時國來對說這風門問間鳥馬魚長]"
)


def cut(text: str, most: int = CHARACTERS) -> str:
    """Return the beginning of a text, with escapes for what a page must not obey."""
    return visible(text if len(text) <= most else f"{text[:most]}…")


def language_of(text: str) -> str | None:
    """Return the BCP 47 tag that chooses a text's fonts and line breaks, as far as its characters tell, or None."""
    if _KANA.search(text):
        return "ja"
    if _HANGUL.search(text):
        return "ko"
    if not _HAN.search(text):
        return None
    simplified, traditional = len(_SIMPLIFIED.findall(text)), len(_TRADITIONAL.findall(text))
    return "zh-Hans" if simplified > traditional else "zh-Hant" if traditional else "zh"


def headline(report: TuneReport, words: Mapping[str, str]) -> list[Figure]:
    """Return the figures of a run that are read first."""
    figures = []
    first, last = report.bits_per_character_before, report.bits_per_character
    if last is not None:
        error = report.validations[-1].standard_error
        figures.append(
            Figure(
                words["held_out_bits"],
                number(last, 3),
                last,
                error="" if error is None else f"± {number(error, 3)}",
                note="" if len(report.validations) < 2 or first is None else f"{number(first, 3)} {words['before']}",
            )
        )
    if report.losses:
        unit = words["of_pair"] if report.margins else words["nats_token"]
        figures.append(Figure(words["loss_now"], number(report.loss, 3), report.loss, note=unit))
    figures.append(
        Figure(words["steps"], f"{report.steps:,}", report.steps, note=f"{number(report.epochs, 2)} {words['epochs']}")
    )
    figures.append(
        Figure(
            words["time"],
            duration(report.seconds),
            report.seconds,
            note=f"{number(report.tokens_per_second, 0)} {words['tokens_second']}",
        )
    )
    figures.append(
        Figure(
            words["tuned"],
            named_value(report.trainable_parameters),
            report.trainable_parameters,
            note=f"{words['of']} {named_value(report.parameters)}",
        )
    )
    return figures


def corpus(report: TuneReport, words: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what is shown of a corpus, or None where nothing is known about it."""
    counts = report.corpus
    if not counts:
        return None
    read, kept = int(counts.get("read", 0)), int(counts.get("kept", 0))
    lengths = counts.get("lengths") or {}
    figures = [
        Figure(words["read"], f"{read:,}", read),
        Figure(words["kept"], f"{kept:,}", kept, note=percent(kept / read) if read else ""),
        Figure(words["characters"], f"{counts.get('characters', 0):,}", counts.get("characters", 0)),
    ]
    if report.held_out_documents:
        figures.append(Figure(words["held_out_documents"], f"{report.held_out_documents:,}", report.held_out_documents))
    if lengths:
        longest = f"{words['longest']} {lengths['longest']:,}"
        figures.append(Figure(words["median"], number(lengths["median"], 0), lengths["median"], note=longest))
    near = counts.get("near_duplicates")
    in_use = counts.get("characters_in_use") or {}
    common = [(visible(character), share) for character, share in in_use.get("common", ())]
    greatest = max((share for _, share in common), default=1.0)
    return {
        "figures": figures,
        "near": f"{near:,} {words['near']}" if near else "",
        "lengths": curves.lengths(lengths, words) if lengths else None,
        "common": [
            {"text": text, "share": percent(share), "height": round(36 * share / greatest, 1)} for text, share in common
        ],
        "common_lang": language_of("".join(text for text, _ in common)),
        "common_note": words["common_note"].format(f"{in_use.get('different', 0):,}", f"{in_use.get('sampled', 0):,}"),
        "dropped": _reasons(counts.get("dropped") or {}, read),
        "changed": _reasons(counts.get("changed") or {}, read),
    }


def _reasons(counts: Mapping[str, int], read: int) -> list[tuple[str, Cell, str]]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    rows = [
        (cut(str(reason), _WORDS), Cell(f"{count:,}", count), percent(count / read) if read else "")
        for reason, count in ordered[:REASONS]
    ]
    rest = sum(count for _, count in ordered[REASONS:])
    return [*rows, *([("…", Cell(f"{rest:,}", rest), percent(rest / read) if read else "")] if rest else [])]


def samples(report: TuneReport, words: Mapping[str, str]) -> dict[str, Any] | None:
    """Return some of the texts that were written on the way, the first and the last among them; None without any."""
    count = len(report.samples)
    if not count:
        return None
    shown = min(count, SAMPLES)
    places = sorted({round(n * (count - 1) / max(1, shown - 1)) for n in range(shown)})
    return {
        "texts": [
            {
                "step": f"{report.samples[place].step:,}",
                "text": cut(report.samples[place].text),
                "lang": language_of(report.samples[place].text),
            }
            for place in places
        ],
        "note": words["shown_of"].format(len(places), f"{count:,}") if len(places) < count else "",
    }


def coloured(scores: Sequence[TextScore]) -> list[dict[str, Any]]:
    """Return the texts coloured by surprise, as many as fit into the page's bound."""
    found, left = [], TOKENS
    for score in scores:
        if left <= 0:
            break
        pieces, more = surprise.pieces(score, left)
        left -= sum(piece.tokens for piece in pieces) or 1
        found.append(
            {
                "pieces": pieces,
                "more": more,
                "bits": Cell(number(score.bits_per_character, 3), score.bits_per_character),
                "lang": language_of(score.text[:CHARACTERS]),
            }
        )
    return found


def evaluated(
    evaluation: Evaluation, words: Mapping[str, str], of_corpus: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what is shown of an evaluation; not again what was left out of the run's own corpus."""
    dropped = _reasons(evaluation.dropped, 0)
    told = [] if of_corpus is None else [(reason, count) for reason, count, _ in of_corpus["dropped"]]
    interval = evaluation.interval
    figures = [
        Figure(
            words["bits_per_character"],
            number(evaluation.bits_per_character, 3),
            evaluation.bits_per_character,
            note="" if interval is None else f"{words['interval']} {number(interval[0], 3)} – {number(interval[1], 3)}",
        ),
        Figure(words["perplexity"], number(evaluation.perplexity, 1), evaluation.perplexity),
        Figure(
            words["scored"],
            f"{evaluation.documents:,}",
            evaluation.documents,
            note=f"{evaluation.characters:,} {words['characters']}",
        ),
    ]
    if evaluation.pair_accuracy is not None:
        figures.append(Figure(words["pairs_right"], percent(evaluation.pair_accuracy), evaluation.pair_accuracy))
    writing = evaluation.writing
    return {
        "figures": figures,
        "notes": [cut(note) for note in evaluation.notes],
        "dropped": [] if told == [(reason, count) for reason, count, _ in dropped] else dropped,
        "writing": None if writing is None else written(writing, evaluation.human, words),
    }


def written(writing: Writing, human: Writing | None, words: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of the texts that a model wrote, beside people's."""

    def rows(name: str, digits: int) -> list[tuple[str, Cell, Cell | None]]:
        value, other = getattr(writing, name), None if human is None else getattr(human, name)
        if value is None:
            return []
        return [(words[name], Cell(number(value, digits), value), _cell(other, digits))]

    table = [
        row
        for name, digits in (
            ("distinct_1", 3),
            ("distinct_2", 3),
            ("distinct_3", 3),
            ("self_bleu", 1),
            ("longest_copy", 0),
            ("mean_longest_copy", 1),
        )
        for row in rows(name, digits)
    ]
    is_chinese = not writing.written or any(language_of(text.prompt + text.text) for text in writing.written)
    for form, share in writing.forms.items() if is_chinese else ():
        of_people = None if human is None else human.forms.get(form, 0.0)
        if share or of_people:
            name = words["other"] if form == "other" else cut(form, _WORDS)
            people = None if of_people is None else Cell(percent(of_people), of_people)
            table.append((f"{words['form']}{words['colon']}{name}", Cell(percent(share), share), people))
    for name in ("level_rhyme", "tonal_pattern", "mixed_scripts"):
        value, other = getattr(writing, name), None if human is None else getattr(human, name)
        if value is not None and is_chinese:
            people = None if other is None else Cell(percent(other), other)
            table.append((words[name], Cell(percent(value), value), people))
    copies = sorted((text for text in writing.written if text.copied), key=lambda text: -len(text.copied))
    return {
        "note": (words["written_alone"] if human is None else words["written_note"]).format(f"{writing.texts:,}"),
        "table": table,
        "people": human is not None,
        "copies": [_copy(text, words) for text in copies[:COPIES]],
        "texts": [
            {"prompt": cut(text.prompt, 120), "text": cut(text.text), "lang": language_of(text.prompt + text.text)}
            for text in writing.written[:WRITTEN]
        ],
        "shown": words["shown_of"].format(WRITTEN, f"{len(writing.written):,}")
        if len(writing.written) > WRITTEN
        else "",
    }


def _copy(text: Any, words: Mapping[str, str]) -> dict[str, Any]:
    """Return a text and its source, each as what stands before the copied passage, the passage, and what is behind."""
    place = text.text.find(text.copied)
    before, after = text.text[:place], text.text[place + len(text.copied) :]
    return {
        "prompt": cut(text.prompt, 120),
        "before": visible(before if len(before) <= 200 else f"…{before[-200:]}"),
        "copied": cut(text.copied),
        "after": cut(after, 200),
        "source_before": visible(text.before),
        "source_after": visible(text.after),
        "source": "" if text.document is None else words["source"].format(f"{text.document + 1:,}"),
        "length": words["copied"].format(f"{len(text.copied):,}"),
        "lang": language_of(text.text),
    }


def _cell(value: float | None, digits: int) -> Cell | None:
    return None if value is None else Cell(number(value, digits), value)


def artefact(artefact: Artefact, words: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of an artefact and its proof."""
    report = artefact.report
    parity = report.get("parity") or {}
    files = report.get("files") or {}
    size = sum(value for value in files.values() if isinstance(value, (int, float)))
    tokens = parity.get("new_tokens")
    count = sum(tokens) if isinstance(tokens, Sequence) else tokens if isinstance(tokens, int) else None
    equal = parity.get("greedy_equal")
    if equal is None or count is None:
        proof = words["unproved"]
    else:
        proof = words["equal" if equal else "near_equal"].format(f"{count:,}")
    speed, load, peak = (parity.get(name) for name in ("tokens_per_second", "load_seconds", "peak_bytes"))
    return {
        "exporter": cut(artefact.exporter, _WORDS),
        "file": cut(artefact.path.name, _WORDS),
        "size": Cell(megabytes(size), size) if size else None,
        "proof": proof,
        "equal": bool(equal),
        "speed": f"{number(speed, 0)} {words['tokens_second']}" if _is_number(speed) else "",
        "load": f"{words['load']} {number(load, 2)} s" if _is_number(load) else "",
        "peak": f"{words['peak']} {megabytes(peak)}" if _is_number(peak) else "",
        "figures": list(_flat(parity))[:60],
    }


def _flat(values: Mapping[str, Any], path: str = "") -> Any:
    """Yield the names and texts of all single figures."""
    for name, value in values.items():
        place = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}.")
        elif isinstance(value, float):
            yield cut(place, _WORDS), brief(value)
        elif isinstance(value, (list, tuple)):
            yield cut(place, _WORDS), cut(", ".join(map(str, value)), 120)
        else:
            yield cut(place, _WORDS), cut(str(value), 120)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def settings(report: TuneReport, words: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return names, values and, where the library chose, the reasons."""
    rows: list[tuple[str, str, str]] = []
    for name, value in report.settings.items():
        said = words.get(f"of_{name}") or words.get(name) or cut(name, _WORDS)
        rows.append((said, cut(str(value), 200), ""))
    if "model" not in report.settings and report.model:
        rows.append((words["model"], cut(report.model, 200), ""))
    for name in ("seed", "backend", "precision", "batch_size", "sequence_length", "packing"):
        value = getattr(report, name)
        if name != "batch_size" or value:
            rows.append((words[name], _plain(value), cut(report.reasons.get(name, ""), 300)))
    rows.append((words["fill"], percent(report.fill), ""))
    rows.append((words["tokens_trained"], f"{report.tokens:,}", ""))
    if report.read_tokens:
        rows.append((words["only_read"], f"{report.read_tokens:,}", ""))
    if report.vocabulary:
        choice = str(report.vocabulary.get("choice", ""))
        rows.append((words["vocabulary"], cut(choice, 60), cut(str(report.vocabulary.get("reason", "")), 300)))
    if report.resumed_from is not None:
        rows.append((words["resumed"], f"{report.resumed_from:,}", ""))
    rows.append((words["stopped"], words.get(report.stopped, cut(report.stopped, _WORDS)), ""))
    return rows


def machine(report: TuneReport, words: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return what computed, as far as it was noted."""
    told = report.machine
    rows: list[tuple[str, str, str]] = []
    if told.get("processor"):
        cores = f"{told['cores']} {words['cores']}" if told.get("cores") else ""
        rows.append((words["processor"], cut(str(told["processor"]), 120), cores))
    if told.get("devices"):
        rows.append((words["devices"], cut(", ".join(map(str, told["devices"])), 200), ""))
    if told.get("memory_bytes"):
        rows.append((words["memory"], megabytes(told["memory_bytes"]), ""))
    if report.peak_memory_bytes:
        rows.append((words["peak_memory"], megabytes(report.peak_memory_bytes), ""))
    if told.get("system"):
        rows.append(
            (words["system"], cut(str(told["system"]), 120), f"Python {told['python']}" if told.get("python") else "")
        )
    if told.get("packages"):
        versions = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
        rows.append((words["packages"], cut(versions, 300), ""))
    return rows


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 10**7 else cut(str(value), 120)
