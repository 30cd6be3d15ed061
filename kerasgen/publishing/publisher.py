"""The publishing half of a pipeline: a model card, and a repository on a hub."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerasgen.errors import HubArgumentError
from kerasgen.evaluation.base import Evaluation
from kerasgen.evaluator import Evaluator
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.keywords import checked
from kerasgen.publishing import pushing
from kerasgen.publishing.model_card import Card, ModelCard
from kerasgen.publishing.plan import Publication, Push
from kerasgen.saved_pipeline import SavedPipeline
from kerasgen.tuners.base import FineTuner


class Publisher(Evaluator):
    """An evaluator that can be saved and exported, and the ways to show it to others.

    Attributes:
        tuner: the tuner.
        chat_template: as a `Pipeline` takes it.
    """

    tuner: FineTuner
    chat_template: str | None
    _saved: SavedPipeline | None

    @abstractmethod
    def save(self, path: Any, *, merge_adapters: bool = False, overwrite: bool = False) -> Path:
        """Write the pipeline into a directory; see `Pipeline.save`."""

    @abstractmethod
    def export(
        self,
        path: Any,
        *,
        exporter: str | Exporter | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> Artefact:
        """Write the model in another format; see `Pipeline.export`."""

    @checked(HubArgumentError)
    def model_card(
        self,
        repo_id: str | None = None,
        *,
        formats: str | Iterable[str | Exporter | Artefact] = (),
        prompts: Iterable[str] | None = None,
        evaluation: Evaluation | None = None,
    ) -> ModelCard:
        """Return a model card made of what is known, to be edited and pushed; what is not known is left out.

        It tells the data and what reading them kept and dropped, the model that was tuned and its licence, the
        settings, figures before and after, what each artefact's proof found, texts that the model wrote, and limits.

        Args:
            repo_id: `"name/poet"` on the Hugging Face hub, for the lines that say how it is used; None leaves them out.
            formats: as of `push_to_hub`; only of an `Artefact` the proof is known.
            prompts: what its texts go on from; None takes those that were written while tuning, else two from nothing.
                `()` for none.
            evaluation: what `evaluate` returned, whose figures are told too.

        Raises:
            HubArgumentError: an argument is wrong.
        """
        return pushing.card(self, repo_id, formats=formats, prompts=prompts, evaluation=evaluation)

    @checked(HubArgumentError)
    def push_to_hub(
        self,
        repo_id: str,
        *,
        formats: str | Iterable[str | Exporter | Artefact] = (),
        pipeline: bool = True,
        card: Card = None,
        private: bool = True,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        evaluation: Evaluation | None = None,
        progress: bool | None = None,
    ) -> Publication:
        """Push the pipeline to a hub, with artefacts that were proved and a model card; return what lies there.

        On the Hugging Face hub all is one commit: everything of it is to be seen, or nothing. Files of an earlier push
        that this one lacks are removed. What can be wrong is looked for before anything is exported.

        Args:
            repo_id: `"name/poet"` on the Hugging Face hub, or `"kaggle://user/model/keras/variation"` on Kaggle, which
                gets KerasHub's preset alone.
            formats: names of exporters, with settings if you like (`"gguf:dtype=Q8_0"`), exporters, or artefacts that
                were exported before, which are copied.
            pipeline: False leaves out the saved pipeline, which `Pipeline("hf://name/poet")` reads back.
            card: a `ModelCard` (or the text of one), which is pushed as it is; or a function that is given the card
                with all that is known and returns the one to push. None pushes what `model_card` makes.
            private: whether a new repository is private. One that is public already is pushed to with False alone.
            revision: the branch; it is made if it isn't there.
            commit_message: of the commit.
            token: of the hub; None for the one that was logged in with.
            evaluation: as for `model_card`.
            progress: as for `export`; files that go to the hub are shown too.

        Raises:
            HubArgumentError: an argument is wrong.
            ExportArgumentError: a format can't be written of this model.
            ExportError: one did not prove equal; nothing was pushed.
            HubError: the hub can't be reached, or refuses; nothing of the push is to be seen there.
            MissingDependencyError: the hub's client is not installed.
        """
        return pushing.push(
            self,
            Push(
                repo_id=repo_id,
                formats=formats,
                pipeline=pipeline,
                card=card,
                private=private,
                revision=revision,
                commit_message=commit_message,
                token=token,
            ),
            evaluation=evaluation,
            progress=progress,
        )
