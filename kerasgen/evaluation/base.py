"""The results of an evaluation: figures, scores and what a model wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasgen.tuners.report import TuneReport

NEW_TOKENS = 96  # of a text that is written to be examined, at most
PSEUDO_LIKELIHOOD = (
    "a masked model predicts each token from those on both sides of it (pseudo-log-likelihood), so these figures can't "
    "be compared with a causal model's"
)
"""A note of an evaluation of a masked language model."""


@dataclass(frozen=True)
class TokenChoice:
    """A token that a model could have chosen at a place.

    Args:
        token_id: its id.
        token: its bytes; it may be a part of a character.
        log_probability: log p in nats at that place.
    """

    token_id: int
    token: bytes
    log_probability: float


@dataclass(frozen=True)
class TextScore:
    """Log-probabilities of a text under a model, by token and by character.

    Args:
        text: the text.
        token_ids: its tokens.
        tokens: the bytes of each; a token may be a part of a character.
        token_log_probabilities: log p in nats of each token, given those before it; NaN for the first one where the
            tokenizer has no start token to come before it. Under a masked language model, given all others: their sum
            is the pseudo-log-likelihood.
        character_log_probabilities: for each code point the sum of the tokens that begin in it. A token of several
            characters counts where it begins, and the others are 0, so that the sum is the text's.
        end_log_probability: log p in nats that the text ends where it does; 0 under a masked language model; NaN for
            an empty text where the tokenizer has no start token.
        top_logprobs: for each token, the tokens that the model holds likeliest at its place, in order; empty unless
            asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[bytes, ...]
    token_log_probabilities: tuple[float, ...]
    character_log_probabilities: tuple[float, ...]
    end_log_probability: float
    top_logprobs: tuple[tuple[TokenChoice, ...], ...] = ()

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 40 else f"{self.text[:39]}…"
        return f"TextScore({text!r}, {len(self.token_ids)} tokens, {self.bits_per_character:.3f} bits per character)"

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the text's probability, without the end token; a token that can't be scored counts 0."""
        return sum(nll for nll in self.token_log_probabilities if not math.isnan(nll))

    @property
    def bits_per_character(self) -> float:
        """Bits per code point, including those of the end token, as in `Evaluation`.

        An empty text counts as one character, so that it has the bits of its end alone; they are 0 where nothing
        predicts the end of an empty text: without a start token.
        """
        end = 0.0 if math.isnan(self.end_log_probability) else self.end_log_probability
        return max(0.0, -(self.log_probability + end)) / math.log(2.0) / max(len(self.text), 1)

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_score(self)  # found by name: it stands above this
        return html


@dataclass(frozen=True)
class WrittenText:
    """A text that a model wrote, and its longest passage that is also in the training text.

    Args:
        text: what was written, without its prompt.
        prompt: what it goes on from.
        copied: that passage; empty where there is none, or no training text to look in.
        document: which training document it stands in, counted from 0; None without a passage.
        before: what stands before it there, a few words.
        after: what stands behind it there, a few words.
    """

    text: str
    prompt: str = ""
    copied: str = ""
    document: int | None = None
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Writing:
    """Figures of texts that a model wrote.

    Args:
        texts: how many were written.
        characters: code points of them all.
        distinct_1: different words or Han characters as a share of all, 0 to 1.
        distinct_2: the same of pairs.
        distinct_3: the same of triples.
        self_bleu: the mean BLEU-4 of each text against the others, 0 to 100; None where it was not asked for, or there
            is one text.
        longest_copy: code points of the longest passage that stands in the training text too, or None without one.
        longest_copy_text: that passage.
        mean_longest_copy: the mean over texts of the longest passage of each.
        forms: the share of texts that have the lines and line lengths of each form of verse, and of the `"other"`
            ones; a text's prompt is a part of its form.
        level_rhyme: of the texts with a regulated form, the share whose couplets end in one rhyme group of the 平水韻
            in a level tone; None without such texts or without the extra `rhyme`.
        tonal_pattern: of the texts with a regulated form, the share whose tones (平仄) hold one of the four patterns
            of the form, as `kerasgen.prosody.regulated` reads them; None as for `level_rhyme`.
        mixed_scripts: the share of texts with characters of simplified and of traditional script alone; None without
            the extra `opencc`.
        written: the texts themselves, each with what it copied; empty for human ones.
    """

    texts: int
    characters: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    self_bleu: float | None
    longest_copy: int | None
    longest_copy_text: str | None
    mean_longest_copy: float | None
    forms: Mapping[str, float] = field(default_factory=dict)
    level_rhyme: float | None = None
    tonal_pattern: float | None = None
    mixed_scripts: float | None = None
    written: Sequence[WrittenText] = ()

    def __repr__(self) -> str:
        copy = "" if self.longest_copy is None else f", longest copy {self.longest_copy} characters"
        return f"Writing({self.texts:,} texts, distinct-2 {self.distinct_2:.3f}{copy})"

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_writing(self)
        return html

    def rows(self) -> list[tuple[str, str]]:
        """Return names and figures, to be printed as a table."""
        figures = [
            ("texts written", f"{self.texts:,} with {self.characters:,} characters"),
            ("distinct-1 / -2 / -3", f"{self.distinct_1:.3f} / {self.distinct_2:.3f} / {self.distinct_3:.3f}"),
        ]
        if self.self_bleu is not None:
            figures.append(("self-BLEU", f"{self.self_bleu:.1f}"))
        if self.longest_copy is not None:
            shown = (self.longest_copy_text or "").replace("\n", "⏎")
            shown = shown if len(shown) <= 40 else shown[:39] + "…"
            figures.append(("longest copy", f"{self.longest_copy} characters: {shown}"))
            figures.append(("longest copy, mean", f"{self.mean_longest_copy:.1f} characters a text"))
        verse = ", ".join(f"{form} {share:.0%}" for form, share in self.forms.items() if share)
        figures.append(("forms of verse", verse))
        if self.level_rhyme is not None:
            figures.append(("level rhyme", f"{self.level_rhyme:.0%} of the regulated ones"))
        if self.tonal_pattern is not None:
            figures.append(("tonal pattern", f"{self.tonal_pattern:.0%} of the regulated ones"))
        if self.mixed_scripts:
            figures.append(("mixed scripts", f"{self.mixed_scripts:.0%}"))
        return figures

    def __str__(self) -> str:
        return _table(self.rows())


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model: how well it predicts documents, and of texts that it wrote, if asked.

    Args:
        loss: mean nats per target token; each document's text and its end token are targets.
        bits_per_character: bits per code point of text: the figure to compare models with different vocabularies by.
        documents: how many were scored.
        tokens: target tokens.
        characters: code points of text.
        writing: figures of the texts that the model wrote, or None if it wrote none.
        human: the same figures of as many documents, cut to the lengths of the written texts; None without.
        interval: 95 % confidence interval of the bits per character, by a bootstrap over documents; None for a single
            document.
        sequence_length: tokens that the model saw at once.
        precision: the dtype policy of the computation.
        dropped: how many documents of the corpus were left out, by reason, such as `"empty"`.
        notes: what to mind about the figures: why they differ from those of the last `fit`, and with what they can't be
            compared.
        model: which one, in words; empty if nobody said.
        pair_accuracy: share of the pairs in which the better answer as a whole is the likelier one; equal ones count
            half. None without pairs. The other figures of pairs are those of the better answers.
    """

    loss: float
    bits_per_character: float
    documents: int
    tokens: int
    characters: int
    writing: Writing | None = None
    human: Writing | None = None
    interval: tuple[float, float] | None = None
    sequence_length: int = 0
    precision: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    model: str = ""
    pair_accuracy: float | None = None

    @property
    def perplexity(self) -> float:
        """The exponential of the loss. It is per token, so it can't be compared between vocabularies."""
        return math.exp(self.loss) if self.loss < 709.0 else math.inf

    @property
    def tokens_per_character(self) -> float:
        """Target tokens for each code point of text."""
        return self.tokens / self.characters

    def __repr__(self) -> str:
        of = f" of {' '.join(self.model.split()):.80}" if self.model else ""
        return f"Evaluation({self.bits_per_character:.3f} bits per character{of}, {self.documents:,} documents)"

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_evaluation(self)
        return html

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON can hold it."""
        return asdict(self) | {"perplexity": self.perplexity, "tokens_per_character": self.tokens_per_character}

    def __str__(self) -> str:
        between = "" if self.interval is None else f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})"
        if self.writing is None:
            phrases = [
                f"{self.bits_per_character:.3f}{between} bits per character, loss {self.loss:.3f} nats a token, "
                f"perplexity {self.perplexity:.1f}, over {self.documents:,} documents with {self.characters:,} "
                "characters"
            ]
            if self.pair_accuracy is not None:
                phrases.append(f"the better answer is the likelier one in {self.pair_accuracy:.0%} of the pairs")
            if self.dropped:
                phrases.append(f"left out: {self._left_out()}")
            if self.model:
                phrases.append(f"model: {self.model}")
            return "; ".join([*phrases, *self.notes])
        scored = [
            ("bits per character", f"{self.bits_per_character:.3f}{between}"),
            ("loss", f"{self.loss:.3f} nats a token"),
            ("perplexity", f"{self.perplexity:.1f} a token of this vocabulary"),
            ("scored", f"{self.documents:,} documents with {self.characters:,} characters"),
        ]
        if self.pair_accuracy is not None:
            scored.append(("pairs", f"the better answer is the likelier one in {self.pair_accuracy:.0%}"))
        if self.dropped:
            scored.append(("left out", self._left_out()))
        if self.model:
            scored.append(("model", self.model))
        written = self.writing.rows()
        if self.human is not None:
            written += [(f"{name}, human", figure) for name, figure in self.human.rows()[1:]]
        return "\n".join([_table([*scored, *written]), *self.notes])

    def _left_out(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())


def held_out_notes(evaluation: Evaluation, report: TuneReport) -> tuple[str, ...]:
    """Explain why this evaluation's figure differs from the one that the last `fit` reported, if it does."""
    if not report.validations:
        return ()
    last = report.validations[-1]
    if math.isclose(last.bits_per_character, evaluation.bits_per_character, rel_tol=1e-4):
        return ()
    ways = []
    if last.documents and last.documents != evaluation.documents:
        ways.append(f"on {last.documents:,} of the {evaluation.documents:,} documents")
    elif last.tokens and last.tokens != evaluation.tokens:
        ways.append(f"on {last.tokens:,} of the {evaluation.tokens:,} tokens")
    if report.sequence_length != evaluation.sequence_length:
        ways.append(f"in rows of {report.sequence_length} tokens, where evaluate took {evaluation.sequence_length}")
    if report.precision != evaluation.precision:
        ways.append(f"in {report.precision}, where evaluate took {evaluation.precision}")
    why = "; ".join(ways) or "before its weights were changed again"
    return (f"fit reported {last.bits_per_character:.3f} bits per character after tuning: {why}",)


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {figure}" for name, figure in rows)
