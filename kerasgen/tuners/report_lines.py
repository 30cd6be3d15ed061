"""Says in lines of text what a run of a tuner did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasgen.tuners.report import TuneReport


def lines_of(report: TuneReport) -> list[str]:
    """Return the lines that printing a report shows."""
    of_each = "a pair" if report.margins else "nats a token"
    lines = [
        f"{report.steps} steps, {_passes(report)} {report.documents:,} documents ({report.stopped})",
        f"loss {report.loss:.3f} {of_each}; {report.trainable_parameters:,} of {report.parameters:,} weights tuned",
        f"{report.tokens_per_second:,.0f} tokens/s, {report.characters_per_second:,.0f} characters/s in "
        f"{report.seconds:.1f} s on {report.backend} ({report.precision}), {report.fill:.0%} of the positions used",
    ]
    if report.model:
        lines.insert(1, f"model: {report.model}")
    if report.flops_share:
        lines.append(
            f"{report.steady_tokens_per_second:,.0f} tokens/s after the first {report.first_step_seconds:.1f} s, "
            f"{report.flops_per_second / 1e9:,.0f} GFLOP/s, {report.flops_share:.0%} of a matrix product's; "
            f"{report.peak_memory_bytes / 2**30:.1f} GiB at most"
        )
    lines += [
        f"{name}: {getattr(report, name)}, because {reason}"
        for name, reason in report.reasons.items()
        if hasattr(report, name)
    ]
    if report.validations:
        last = report.validations[-1]
        error = "" if last.standard_error is None else f" ± {last.standard_error:.3f}"
        of = f", on {last.documents:,} of {report.held_out_documents:,} documents" if last.documents else ""
        lines.append(
            f"held-out bits per character {report.bits_per_character_before:.3f} before, "
            f"{report.bits_per_character:.3f}{error} after{of}, in rows of {report.sequence_length} tokens"
        )
    lines += _pair_lines(report)
    if report.split_documents:
        lines.append(f"{report.split_documents:,} documents were split over rows; nothing was cut off")
    if report.read_tokens:
        learned = report.tokens - report.read_tokens
        lines.append(f"{learned:,} tokens were learned, and {report.read_tokens:,} only read, such as prompts")
    if report.shortened_documents:
        lines.append(
            f"{report.shortened_documents:,} documents were longer than a row: their first turns, the beginning of a "
            "prompt, or of an answer that is longer by itreport, were left out"
        )
    lines += _vocabulary_lines(report.vocabulary, of_whole_texts=bool(report.read_tokens))
    lines += [f"warning: {warning}" for warning in report.warnings]
    dropped = report.corpus.get("dropped")
    near = report.corpus.get("near_duplicates")
    if near:
        lines.append(f"{near:,} texts have near-duplicates, which are on the same side of the split")
    if dropped:
        lines.append("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))
    return lines


def _passes(report: TuneReport) -> str:
    return f"{report.epochs:.2f} epochs over" if report.epochs or not report.steps else "within the first pass, on"


def _pair_lines(report: TuneReport) -> list[str]:
    if not report.margins:
        return []
    lines = [f"pairs of the last steps: margin {report.margin:.3f}, {report.accuracy:.0%} the right way round"]
    if report.validations and report.validations[-1].margin is not None:
        first, last = report.validations[0], report.validations[-1]
        lines.append(
            f"held-out pairs: the better answer is the likelier one in {first.pair_accuracy:.0%} before, "
            f"{last.pair_accuracy:.0%} after, and has gained on the other in {last.reward_accuracy:.0%}; margin "
            f"{last.margin:.3f}, loss {first.loss:.3f} before, {last.loss:.3f} after"
        )
        lines.append(f"divergence of the reference from the model: {last.divergence:.4f} nats a token (an estimate)")
    return lines


def _vocabulary_lines(record: Mapping[str, Any], *, of_whole_texts: bool) -> list[str]:
    if not record:
        return []
    lines = [f"vocabulary: {record['choice']} ({record['reason']})"]
    if record["choice"] != "keep":
        before, after = record["before"], record["after"]
        bits = before.get("bits_per_character")
        lines.append(
            f"{before['tokens_per_character']:.2f} tokens a character before, {after['tokens_per_character']:.2f} "
            f"after; {before['vocabulary_size']:,} ids and {before['parameters']:,} weights before, "
            f"{after['vocabulary_size']:,} and {after['parameters']:,} after"
            + (f"; {bits:.3f} held-out bits per character with the old vocabulary" if bits is not None else "")
            + (", prompts with them" if bits is not None and of_whole_texts else "")
        )
    return lines
