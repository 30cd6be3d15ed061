"""A push as values: what a person asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasgen.errors import HubArgumentError
from kerasgen.exporters.base import Artefact
from kerasgen.models.addresses import HUGGING_FACE, KAGGLE
from kerasgen.publishing.hub_terms import REPOSITORY
from kerasgen.publishing.model_card import Card, ModelCard


@dataclass(frozen=True)
class Push:
    """What a person asked to push; checked once, documented at `Pipeline.push_to_hub`.

    Args:
        repo_id: as there, as are the next.
        formats: any iterable of formats, or one.
        pipeline: whether the saved pipeline goes too.
        card: what becomes the card.
        private: whether a new repository is.
        revision: the branch.
        commit_message: of the commit.
        token: of the hub.

    Raises:
        HubArgumentError: one is of another kind, or has not its form.
    """

    repo_id: str
    formats: Any = ()
    pipeline: bool = True
    card: Card = None
    private: bool = True
    revision: str | None = None
    commit_message: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repo_id", repository_of(self.repo_id))
        if not isinstance(self.private, bool):
            raise HubArgumentError(f"`private` must be True or False. Received: {self.private!r:.80}.")
        for name in ("revision", "commit_message", "token"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                shown = "" if name == "token" else f" Received: {value!r:.80}."
                raise HubArgumentError(f"`{name}` must be text that is not empty, or None.{shown}")
        if self.revision is not None:
            _check_branch(self.revision)

    @property
    def is_kaggle(self) -> bool:
        """Whether it goes to Kaggle."""
        return self.repo_id.startswith(KAGGLE)

    @property
    def stem(self) -> str:
        """What its files are called before their endings."""
        return self.repo_id.rpartition("/")[2]


@dataclass(frozen=True)
class Publication:
    """What was pushed to a hub.

    Args:
        repository: its name, such as `"name/poet"`.
        url: of its page.
        commit: the commit that holds all of it, or None where the hub has none, as Kaggle.
        revision: the branch.
        files: the size in bytes of each file that was pushed, by its path.
        removed: paths of an earlier push that this one lacks.
        artefacts: the artefacts, with their proofs, by their path in the repository; `""` is its root.
        card: the card as it was pushed.
        is_private: whether others see it; None where the hub didn't say.
    """

    repository: str
    url: str
    commit: str | None
    revision: str
    files: Mapping[str, int]
    removed: Sequence[str] = ()
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    card: ModelCard | None = field(default=None, repr=False)
    is_private: bool | None = None

    def __str__(self) -> str:
        """Say where it is, and what lies there."""
        total = sum(self.files.values())
        seen = {True: ", private", False: ", public", None: ""}[self.is_private]
        commit = f" at {self.commit[:12]}" if self.commit else ""
        lines = [f"{self.url}{commit}{seen}: {len(self.files)} files, {total / 2**20:.1f} MiB"]
        lines += [f"removed: {name}" for name in self.removed]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, without the card's text."""
        return {
            **{name: getattr(self, name) for name in ("repository", "url", "commit", "revision")},
            "files": dict(self.files),
            "removed": list(self.removed),
            "is_private": self.is_private,
            "artefacts": {place: dict(artefact.report) for place, artefact in self.artefacts.items()},
        }


def repository_of(repo_id: Any) -> str:
    """Return the name of a repository; that on Kaggle with `kaggle://`.

    Raises:
        HubArgumentError: it has not the form that a hub wants.
    """
    if not isinstance(repo_id, str) or not repo_id.strip():
        raise HubArgumentError(f"`repo_id` must be text, such as 'name/poet'. Received: {repo_id!r:.80}.")
    text = repo_id.strip()
    if text.startswith(KAGGLE):
        parts = text.removeprefix(KAGGLE).split("/")
        if len(parts) != 4 or not all(REPOSITORY.fullmatch(part) for part in parts) or parts[2].lower() != "keras":
            raise HubArgumentError(
                "A model on Kaggle is written 'kaggle://user/model/keras/variation', without a version, which Kaggle "
                f"counts itself. Received: {repo_id!r:.120}."
            )
        return text
    name = text.removeprefix(HUGGING_FACE)
    parts = name.split("/")
    is_fit = len(parts) in (1, 2) and len(name) <= 96 and all(_is_name(part) for part in parts)
    if not is_fit:
        raise HubArgumentError(
            "A repository is called 'name/poet': letters of ASCII, digits, '-', '_' and '.', at most 96, neither '--' "
            f"nor '..', no '-' or '.' at an end, and no '.git' at the end. Received: {repo_id!r:.120}."
        )
    return name


def _is_name(part: str) -> bool:
    has_form = REPOSITORY.fullmatch(part) is not None and "/" not in part
    at_ends = part[:1] in "-." or part[-1:] in "-." or part.endswith(".git")
    return has_form and not at_ends and "--" not in part and ".." not in part


def _check_branch(revision: str) -> None:
    foreign = [character for character in revision if not character.isprintable() or character in " ~^:?*[\\"]
    if (
        foreign
        or ".." in revision
        or revision.startswith(("-", "/", "refs/"))
        or revision.endswith(("/", ".", ".lock"))
    ):
        raise HubArgumentError(f"`revision` must be the name of a branch, such as 'v2'. Received: {revision!r:.80}.")
