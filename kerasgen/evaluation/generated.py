"""Examines texts that a model wrote: how varied they are, how much they copy, which have a form of verse."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from kerasgen import specs
from kerasgen.corpora import verse
from kerasgen.errors import ArgumentError
from kerasgen.evaluation import diversity, overlap, prosody_figures
from kerasgen.evaluation.base import Writing, WrittenText

_FORMS = {("jueju", 5): "五言絕句", ("jueju", 7): "七言絕句", ("lüshi", 5): "五言律詩", ("lüshi", 7): "七言律詩"}


def check(texts: int, *, self_bleu: bool) -> None:
    """Raise unless so many texts can be written and examined, which is worth knowing before a long run.

    Raises:
        ArgumentError: `texts` is no number of texts.
        MissingDependencyError: they are to be compared and sacrebleu is not installed.
    """
    if isinstance(texts, bool) or not isinstance(texts, int) or texts < 0:
        raise ArgumentError(f"`texts` must be a whole number of texts to write. Received: texts={texts!r}.")
    if texts and self_bleu:
        diversity.require_sacrebleu()


def examine(
    texts: Sequence[str],
    *,
    whole: Sequence[str] | None = None,
    training: Iterable[str] | None = None,
    self_bleu: bool = True,
    prompts: Sequence[str] | None = None,
) -> Writing:
    """Measure the texts' variety, copying, forms of verse, rhymes and tones.

    Args:
        texts: at least one.
        whole: each with what it goes on from, whose form of verse is judged; None for the texts themselves.
        training: the documents that the model was tuned on, read once; or None.
        self_bleu: compute it, which compares every text with every other and needs sacrebleu.
        prompts: of each text, for the result to hold the texts too; None for people's texts, which it doesn't hold.

    Raises:
        ArgumentError: there is no text.
        MissingDependencyError: sacrebleu is not installed.
    """
    if not texts:
        raise ArgumentError("There is nothing to examine: no text was given.")
    copies = None if training is None else overlap.longest_copies(texts, training)
    longest = None if copies is None else max(copies, key=lambda copy: copy.characters)
    whole = texts if whole is None else whole
    counted = Counter(form_of(text) for text in whole)
    prosody = prosody_figures.measure(whole)
    return Writing(
        texts=len(texts),
        characters=sum(map(len, texts)),
        distinct_1=diversity.distinct(texts, 1),
        distinct_2=diversity.distinct(texts, 2),
        distinct_3=diversity.distinct(texts, 3),
        self_bleu=diversity.self_bleu(texts) if self_bleu else None,
        longest_copy=None if longest is None else longest.characters,
        longest_copy_text=None if longest is None else longest.passage,
        mean_longest_copy=None if copies is None else sum(copy.characters for copy in copies) / len(copies),
        forms={form: counted[form] / len(texts) for form in (*_FORMS.values(), "other")},
        level_rhyme=prosody.level_rhyme,
        tonal_pattern=prosody.tonal_pattern,
        mixed_scripts=prosody.mixed_scripts,
        written=() if prompts is None else _written(texts, prompts, copies),
    )


def _written(
    texts: Sequence[str], prompts: Sequence[str], copies: Sequence[overlap.Copy] | None
) -> tuple[WrittenText, ...]:
    found = [overlap.Copy(0, "")] * len(texts) if copies is None else copies
    return tuple(
        WrittenText(text, prompt, copy.passage, copy.document, copy.before, copy.after)
        for text, prompt, copy in zip(texts, prompts, found, strict=True)
    )


def prompts_of(prompt: str | Sequence[str], texts: int) -> list[str]:
    """Return the prompt of each of so many texts; several prompts take turns.

    Raises:
        ArgumentError: there is no prompt, or something that is none.
    """
    prompts = specs.strings([prompt] if isinstance(prompt, str) else prompt)
    if not prompts:
        raise ArgumentError(f"`prompt` must be a text, or a list of at least one. Received: {prompt!r:.80}.")
    return [prompts[place % len(prompts)] for place in range(texts)]


def human(
    documents: Iterable[str], written: Sequence[str], *, seed: int, training: Iterable[str] | None, self_bleu: bool
) -> Writing | None:
    """Examine as many human documents, each cut to the length of a generated text; None without any.

    Their forms are those of the whole documents.

    Args:
        documents: the documents that people wrote, read once.
        written: what the model wrote.
        seed: the seed of the choice of documents.
        training: as for `examine`.
        self_bleu: as for `examine`.
    """
    source = random.Random(seed)
    chosen: list[str] = []
    for count, text in enumerate(documents, start=1):
        if len(chosen) < len(written):
            chosen.append(text)
        elif (place := source.randrange(count)) < len(chosen):
            chosen[place] = text
    if not chosen:
        return None
    cut = [text[: len(other)] for text, other in zip(chosen, written, strict=False)]
    return examine(cut, whole=chosen, training=training, self_bleu=self_bleu)


def form_of(text: str) -> str:
    """Return the form of verse that a text has by its lines and their lengths, or `"other"`."""
    verse_form = verse.form(text)
    return _FORMS.get((verse_form.form, verse_form.line_length or 0), "other")
