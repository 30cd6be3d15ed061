"""The evaluating half of a pipeline: scores texts, examines what the model writes, and draws a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from kerasgen import cache as caches
from kerasgen import misplaced_settings, specs
from kerasgen.corpora import resolving as corpora_resolving
from kerasgen.corpora import windows
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.held_out_split import DividedCorpus
from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import NEW_TOKENS, PSEUDO_LIKELIHOOD, Evaluation, TextScore, held_out_notes
from kerasgen.exporters.base import Artefact
from kerasgen.generation.config import GenerationConfig
from kerasgen.generator import Generator
from kerasgen.keywords import checked
from kerasgen.models.base import MaskedLanguageModel, ModelSource, WeightsDtype
from kerasgen.reports.of_pipeline import RunReport
from kerasgen.tokens.base import Tokenizer
from kerasgen.tuners.report import TuneReport

if TYPE_CHECKING:
    from kerasgen.tokens.corpus_scan import Survey
    from kerasgen.tokens.store import StoredCorpus


_EVALUATE = (
    "corpus",
    "batch_size",
    "texts",
    "prompt",
    "max_new_tokens",
    "sampler",
    "seed",
    "self_bleu",
    "scores_path",
)


class Evaluator(Generator):
    """A generator with a corpus, part of which is held out, and the ways to measure its model.

    Args:
        corpus: the corpus, or None.
        model_source: as for `Generator`.
        generation_config: as for `Generator`.
        seed: as for `Generator`.
        held_out: the fraction of the texts that is held out.
        max_documents: read at most so many documents, or None for all.
        sample: which documents those are.
        cache: as for `Generator`; the corpus's token ids lie there too.
        weights: as for `Generator`.
        streaming: whether the corpus is read in windows, or of how many characters.
    """

    def __init__(
        self,
        corpus: CorpusSource | None,
        model_source: ModelSource,
        generation_config: GenerationConfig,
        *,
        seed: int,
        held_out: float,
        max_documents: int | None,
        sample: Literal["first", "random"],
        cache: str | os.PathLike[str] | None,
        weights: WeightsDtype | None = None,
        streaming: bool | int = False,
    ) -> None:
        super().__init__(model_source, generation_config, seed, cache, weights)
        self.corpus = corpus
        self.held_out = held_out
        self.max_documents = max_documents
        self.sample = sample
        self.streaming = streaming
        self._report: TuneReport | None = None
        self._evaluation: Evaluation | None = None
        self._artefacts: list[Artefact] = []
        self._stored: StoredCorpus | None = None
        self._divided: DividedCorpus | None = None

    @property
    def report(self) -> RunReport:
        """The last run's `TuneReport`, whose figures it has; called, it writes the page of all that is known so far.

        `pipe.report("run.html")` shows the run, the last evaluation, every artefact that was exported, and some
        held-out texts coloured by surprise; see `kerasgen.reports.RunReport`.
        """
        return RunReport(self)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's exact tokenizer."""
        return self.model.tokenizer

    @checked(elsewhere=misplaced_settings.elsewhere(_EVALUATE))
    def evaluate(
        self,
        corpus: str | CorpusSource | Iterable[str] | None = None,
        *,
        batch_size: int = 16,
        texts: int = 0,
        prompt: str | Sequence[str] = "",
        max_new_tokens: int = NEW_TOKENS,
        sampler: Any = None,
        seed: int | None = None,
        self_bleu: bool = True,
        scores_path: str | os.PathLike[str] | None = None,
    ) -> Evaluation:
        """Return how well the model predicts texts that it was not tuned on, and what it writes if it is asked to.

        A document is scored in pieces of the model's own positions, at most 512, whatever the length of the rows that
        tuned it; `fit` scores in the rows that it trains on. Where the two figures of one held-out part differ, the
        evaluation's `notes` say why.

        Args:
            corpus: any corpus, all of whose documents are scored; None for the held-out part of the pipeline's own.
            batch_size: rows scored at once.
            texts: how many texts to write and examine: how varied they are, how much they copy from the training part
                of the pipeline's corpus, which share of them has a form of verse.
            prompt: what those texts go on from, or several, which take turns; a part of their form of verse, and of
                nothing else that is examined.
            max_new_tokens: tokens of each text, at most.
            sampler: another one than the pipeline's, for those texts.
            seed: another one than the pipeline's, for those texts.
            self_bleu: compare the texts with each other too, which needs the extra `diversity`.
            scores_path: a file to write what each document costs to, `.jsonl` or `.csv`; it is replaced.

        Raises:
            ArgumentError: there is no corpus, or nothing of it is held out, or an argument is wrong.
            MissingDependencyError: `texts` are to be compared and sacrebleu is not installed.
        """
        from kerasgen.evaluation import generated, scores_file

        specs.check_whole("batch_size", batch_size, least=1)
        generated.check(texts, self_bleu=self_bleu)
        prompts = generated.prompts_of(prompt, texts)
        scores_to = scores_file.check_path(scores_path)
        source = self._corpus().source if corpus is None else corpora_resolving.resolve(corpus)
        source.check()
        model = self._whole_model("be evaluated")  # before what imports Keras: here its backend is chosen
        from kerasgen.evaluation.perplexity import evaluate_each
        from kerasgen.generation import room
        from kerasgen.models import chat
        from kerasgen.tokens.encoding import encode_documents

        if texts:
            max_new_tokens = room.new_tokens(model, prompts, max_new_tokens, name="prompt")
        if corpus is None:
            stored = self._documents()
            encoded, tally = stored.held_out, stored.tally
            if not encoded.targets:
                raise ArgumentError(
                    f"None of the corpus's documents is held out (held_out={self.held_out}). Raise held_out, or pass "
                    "the texts to evaluate on."
                )
        else:
            tally = CorpusTally()
            encoded = encode_documents(source.documents(tally), self.tokenizer, chat.template_of(model))

        def documents() -> Iterator[Document]:
            return self._corpus().side("held_out") if corpus is None else source.documents()

        scored, scores = evaluate_each(model, encoded, batch_size=batch_size, seed=self.seed)
        scored = dataclasses.replace(scored, dropped=dict(tally.dropped), model=str(self.model_source))
        if corpus is None and self._report is not None:
            scored = dataclasses.replace(scored, notes=held_out_notes(scored, self._report))
        if isinstance(model, MaskedLanguageModel):
            scored = dataclasses.replace(scored, notes=(*scored.notes, PSEUDO_LIKELIHOOD))
        self._evaluation = scored
        if scores_to is not None:
            scores_file.write(scores_to, scores, documents())
        if not texts:
            return scored
        written = self.generate(
            prompts,
            GenerationConfig(max_new_tokens=max_new_tokens, sampler=sampler, seed=seed, return_prompt=False),
        )

        def training() -> Iterator[str] | None:
            return None if self.corpus is None else self._corpus().texts("train")

        whole = [begun + text for begun, text in zip(prompts, written, strict=True)]
        self._evaluation = dataclasses.replace(
            scored,
            writing=generated.examine(written, whole=whole, training=training(), self_bleu=self_bleu, prompts=prompts),
            human=generated.human(
                (document.text for document in documents()),
                written,
                seed=self.seed,
                training=training(),
                self_bleu=self_bleu,
            ),
        )
        return self._evaluation

    @overload
    def score(self, texts: str, *, batch_size: int = 16, top_logprobs: int = 0) -> TextScore: ...  # type: ignore[overload-overlap]

    @overload
    def score(self, texts: Iterable[str], *, batch_size: int = 16, top_logprobs: int = 0) -> list[TextScore]: ...

    @checked()
    def score(
        self, texts: str | Iterable[str], *, batch_size: int = 16, top_logprobs: int = 0
    ) -> TextScore | list[TextScore]:
        """Return the log-probabilities of each text's tokens and characters: one score for a string, a list for a list.

        Args:
            texts: any texts, scored as they are.
            batch_size: rows scored at once.
            top_logprobs: tokens that each score tells of each place besides, the likeliest ones; 0 for none.

        Raises:
            ArgumentError: `texts` is neither.
        """
        specs.check_whole("batch_size", batch_size, least=1)
        specs.check_whole("top_logprobs", top_logprobs, least=0)
        model = self._whole_model("score")
        from kerasgen.evaluation.perplexity import score_texts

        listed = [texts] if isinstance(texts, str) else texts
        scores = score_texts(model, listed, batch_size=batch_size, top_logprobs=top_logprobs)
        return scores[0] if isinstance(texts, str) else scores

    @checked()
    def plot_training(self, path: str | os.PathLike[str], *, copies: bool = True) -> Path:
        """Draw the last run into a PNG file: losses, held-out figures, and what its text samples were like on the way.

        Set the tuner's `sample_every` to have samples. Needs the extra `plot`.

        Args:
            path: of the file, which is replaced.
            copies: look for each sample's longest passage in the training text, which reads the corpus once more.

        Raises:
            ArgumentError: nothing has been tuned yet, or the file's name does not end in `.png`.
            MissingDependencyError: matplotlib is not installed.
        """
        if self._report is None:
            raise ArgumentError("There is no run to draw yet. Call fit() first.")
        from kerasgen.evaluation.plotting import plot_training

        training = self._corpus().texts("train") if copies and self.corpus is not None else None
        return plot_training(self._report, path, training=training)

    def _corpus(self) -> DividedCorpus:
        """Return the corpus, divided into training and held-out documents."""
        if self.corpus is None:
            raise ArgumentError(
                "This pipeline has no corpus. Give it one: Pipeline(corpus=…), or Pipeline.load(path, corpus=…)."
            )
        divided = DividedCorpus(
            self.corpus,
            self.held_out,
            self.max_documents,
            self.sample,
            self.seed,
            caches.directory(self.cache),
            windows.size(self.streaming),
        )
        if self._divided is None or not self._divided.is_same(divided):
            self._divided = divided
        return self._divided

    def _documents(self, *, show: bool = True, survey: Survey | None = None) -> StoredCorpus:
        """Return the corpus's ids on disk, training and held-out, or those of a streamed corpus's first window.

        Args:
            show: show progress bars.
            survey: of the corpus, if there is one.
        """
        self._corpus()
        with self._loading:
            if self._stored is None:
                corpus = self._corpus()
                corpus.source.check()
                tokenizer = self.tokenizer
                from kerasgen.models import chat
                from kerasgen.tokens import store, streaming

                if self.streaming:
                    stream = streaming.DocumentStream(
                        corpus.everything,
                        tokenizer,
                        division=corpus.division,
                        characters=corpus.window_characters,
                        chat=chat.template_of(self.model),
                    )
                    train, held_out = streaming.first_window(stream)
                    self._stored = store.StoredCorpus(train, held_out, stream.tally)
                    return self._stored
                with caches.in_use(self.cache):
                    self._stored = store.store(
                        corpus.documents,
                        tokenizer,
                        held_out=corpus.division,
                        directory=store.cache_directory(self.cache),
                        show=show,
                        survey=survey,
                        chat=chat.template_of(self.model),
                    )
            return self._stored
