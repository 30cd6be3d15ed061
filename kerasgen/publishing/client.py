"""Talks to the Hugging Face hub by its own client: who may push where, and one commit; its refusals become errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import HubError, KerasgenWarning, MissingDependencyError
from kerasgen.models import hugging_face
from kerasgen.models.addresses import is_inside
from kerasgen.publishing.model_card import FILE, ModelCard
from kerasgen.publishing.plan import Push
from kerasgen.runtime import metadata

_LOGIN = "Log in with `hf auth login`, set HF_TOKEN, or pass token=…; the token needs the right to write."


@dataclass(frozen=True)
class Target:
    """A repository that was looked at.

    Args:
        repository: its whole name.
        exists: whether it is there.
        head: the commit of the branch, or None.
        files: the names of the files there.
        is_private: whether it is; None where the hub didn't say.
        has_branch: whether the branch is there.
        was_made: whether this push made it.
    """

    repository: str
    exists: bool
    head: str | None = None
    files: Sequence[str] = ()
    is_private: bool | None = None
    has_branch: bool = False
    was_made: bool = False


class Client:
    """The hub, for one push.

    Args:
        push: what is asked for.

    Raises:
        MissingDependencyError: the hub's client is not installed.
    """

    def __init__(self, push: Push) -> None:
        try:
            import huggingface_hub
        except ImportError as cause:
            raise MissingDependencyError(
                f"push_to_hub needs a package that is not installed: {hugging_face.INSTALL}.",
                package="huggingface_hub",
                extra="hub",
            ) from cause
        self._push = push
        self._hub = huggingface_hub
        self._api = huggingface_hub.HfApi(token=push.token, library_name="kerasgen")
        self._name = push.repo_id

    def look(self) -> Target:
        """Return the repository as it is, after having looked whether this person may write there.

        Raises:
            HubError: the hub can't be reached, or there is no token, or it may not write there.
        """
        with self._telling("log in"):
            me = self._me()
        user = str(me.get("name") or "")
        if "/" not in self._name:
            if not user:
                raise self._error("The hub didn't say who you are. Write the whole name: 'name/poet'.")
            self._name = f"{user}/{self._name}"
        target = self._existing()
        if target.exists:
            self._check_writable()
            if target.is_private is False and self._push.private:
                raise self._error(
                    f"{self._name!r} is there already, and public: everybody would see what you push. Pass "
                    "private=False if that is meant, or choose another name."
                )
            if target.is_private and not self._push.private:
                warnings.warn(
                    f"{self._name!r} is there already and stays private. Make it public in its settings on the hub.",
                    KerasgenWarning,
                    stacklevel=5,
                )
            return target
        owned = {user, *(str(each.get("name")) for each in me.get("orgs") or () if isinstance(each, dict))}
        # Only making it tells whether one may where the hub hasn't said so.
        return target if self._name.partition("/")[0] in owned else self._made()

    def validate(self, card: ModelCard) -> None:
        """Ask the hub whether it takes a card.

        Raises:
            HubError: it doesn't, or can't be reached.
        """
        with self._telling("check the model card"):
            self._hub.ModelCard(card.content, ignore_metadata_errors=True).validate(repo_type="model")

    def outdated(self, target: Target, new: Mapping[str, Path]) -> list[str]:
        """Return the names of files of an earlier push that a new one lacks: a file of another model is no use.

        Args:
            target: the repository.
            new: the files of the new push, by their names.
        """
        if not target.files:
            return []
        reports = [
            name
            for name in target.files
            if name.rpartition("/")[2] == metadata.REPORT_FILE
            or (name.endswith(metadata.REPORT_SUFFIX) and name.removesuffix(metadata.REPORT_SUFFIX) in target.files)
        ]
        owned = set()
        for name in reports:
            owned |= self._of_report(name, target)
        from kerasgen import saved_pipeline

        if saved_pipeline.MANIFEST_FILE in target.files:
            folders = tuple(f"{each}/" for each in (saved_pipeline.MODEL, saved_pipeline.ADAPTERS, saved_pipeline.BASE))
            owned |= {name for name in target.files if name.startswith(folders)}
            owned |= {saved_pipeline.MANIFEST_FILE, f"{saved_pipeline.BASE}.gguf"}
        return sorted((owned & set(target.files)) - new.keys() - {FILE})

    def _of_report(self, name: str, target: Target) -> set[str]:
        """Return the files that an artefact's report in the repository names, itself among them."""
        with self._telling("read what lies there"):
            place = self._hub.hf_hub_download(self._name, name, revision=target.head, token=self._push.token)
        try:
            report: Any = limits.read_json(Path(place))
            inner = [str(each) for each in report["files"] if isinstance(report["exporter"], str)]
        except (OSError, ValueError, KeyError, TypeError):
            return set()  # another program's
        folder, _, own = name.rpartition("/")
        beside = "REPORT.md" if own == metadata.REPORT_FILE else f"{own.removesuffix(metadata.REPORT_SUFFIX)}.md"
        prefix = f"{folder}/" if folder else ""
        return {f"{prefix}{each}" for each in (*filter(is_inside, inner), own, beside)}

    def commit(self, target: Target, files: Mapping[str, Path], removed: Sequence[str]) -> tuple[str, str, Target]:
        """Make one commit of all files, and return its address, its commit and the repository as it was made.

        Args:
            target: what `look` returned.
            files: what to push, by their names in the repository.
            removed: names of files to remove.

        Raises:
            HubError: it was refused; nothing of it is to be seen in the repository.
        """
        made = target if target.exists else self._made()
        branch = self._push.revision
        new_branch = branch is not None and not made.has_branch and branch != "main"
        try:
            if new_branch:
                with self._telling(f"make the branch {branch!r}"):
                    self._api.create_branch(self._name, branch=str(branch), exist_ok=True)
            operations = [
                self._hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
                for name, path in sorted(files.items())
            ]
            with self._telling("upload"):
                self._api.preupload_lfs_files(self._name, operations, revision=branch, free_memory=False)
            ignored = [each.path_in_repo for each in operations if getattr(each, "_should_ignore", False)]
            if ignored:
                raise self._error(
                    f"The repository's '.gitignore' leaves out {', '.join(map(repr, ignored[:3]))}, so not all would "
                    "be there. Change it on the hub first."
                )
            with self._telling("commit"):
                info = self._api.create_commit(
                    self._name,
                    operations=[*operations, *(self._hub.CommitOperationDelete(name) for name in removed)],
                    commit_message=self._push.commit_message or "Upload a pipeline of kerasgen",
                    revision=branch,
                    # A push that came between would be mixed with this one.
                    parent_commit=made.head if not new_branch else None,
                )
        except BaseException:
            self._undo(made, str(branch) if new_branch else None)
            raise
        return str(info.repo_url) if getattr(info, "repo_url", None) else self.url, str(info.oid), made

    @property
    def url(self) -> str:
        """The address of the repository's page."""
        return f"{self._api.endpoint}/{self._name}"

    @property
    def repository(self) -> str:
        """Its whole name."""
        return self._name

    def _me(self) -> dict[str, Any]:
        errors = self._hub.errors
        try:
            me = self._api.whoami()
        except errors.LocalTokenNotFoundError as cause:
            raise self._error(f"Nobody is logged in to the hub, and no token was given. {_LOGIN}", 401) from cause
        except errors.HfHubHTTPError as cause:
            if _status(cause) == 404:  # a mirror that doesn't say
                return {}
            raise
        role = (((me.get("auth") or {}).get("accessToken")) or {}).get("role") if isinstance(me, dict) else None
        if role == "read":
            raise self._error(f"The token may read and not write. {_LOGIN}", 403)
        return me if isinstance(me, dict) else {}

    def _existing(self) -> Target:
        errors = self._hub.errors
        with self._telling("look at the repository"):
            try:
                info = self._api.repo_info(self._name, revision=self._push.revision)
            except errors.RevisionNotFoundError:
                whole = self._api.repo_info(self._name)
                return Target(self._name, True, None, (), getattr(whole, "private", None), has_branch=False)
            except errors.GatedRepoError:
                raise
            except errors.RepositoryNotFoundError as cause:
                if _status(cause) in (401, 403) and "expired" in str(cause).lower():
                    raise
                return Target(self._name, False)
        names = [str(each.rfilename) for each in info.siblings or ()]
        return Target(
            self._name, True, info.sha, tuple(filter(is_inside, names)), getattr(info, "private", None), has_branch=True
        )

    def _check_writable(self) -> None:
        try:
            self._api.auth_check(self._name, write=True)
        except (self._hub.errors.HfHubHTTPError, TypeError) as cause:
            if isinstance(cause, TypeError) or _status(cause) not in (401, 403):
                return  # an older client or a mirror, which doesn't say; the commit will
            raise self._error(f"You may not write to {self._name!r}. {_LOGIN}", _status(cause)) from cause
        except Exception as cause:
            with self._telling("look at the repository"):
                raise cause

    def _made(self) -> Target:
        with self._telling("make the repository"):
            url = self._api.create_repo(self._name, private=self._push.private)
            self._name = getattr(url, "repo_id", None) or self._name
            info = self._api.repo_info(self._name)
        return Target(
            self._name,
            True,
            info.sha,
            tuple(str(each.rfilename) for each in info.siblings or ()),
            getattr(info, "private", None),
            has_branch=self._push.revision in (None, "main"),
            was_made=True,
        )

    def _undo(self, target: Target, branch: str | None) -> None:
        """Remove what this push made and left empty; what can't be removed stays."""
        try:
            if target.was_made and set(target.files) <= {".gitattributes"}:
                self._api.delete_repo(self._name, missing_ok=True)
            elif branch is not None:
                self._api.delete_branch(self._name, branch=branch)
        except Exception:  # the error that is on its way says more
            return

    def drop(self, target: Target) -> None:
        """Remove a repository that `look` made for this push, if it is empty still, because something went wrong."""
        if target.was_made:
            self._undo(target, None)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Turn what the hub's client raises into an error that says what was being done."""
        try:
            with hugging_face.quietly():
                yield
        except HubError:
            raise
        except Exception as cause:
            raise self._explained(doing, cause) from cause

    def _explained(self, doing: str, cause: Exception) -> HubError:
        status = next((found for each in hugging_face.chain(cause) if (found := _status(each)) is not None), None)
        said = " ".join(str(cause).split())[:400]
        if status == 401:
            why = f"The hub knows no such token, or it has expired. {_LOGIN}"
        elif status == 403:
            why = f"The hub says that you have not the right: {said} {_LOGIN}"
        elif status == 404:
            why = f"The hub has no such repository or branch, or shows it to others only: {said}"
        elif status in (409, 412):
            why = f"Something else was pushed there meanwhile, or has this name: {said} Push again."
        elif status == 413:
            why = f"A file is too large for the hub: {said}"
        elif status == 429:
            why = "The hub says that there were too many requests. Wait a while, and push again."
        elif status is not None and status >= 500:
            why = f"The hub is at fault ({status}): {said} Push again later."
        elif hugging_face.is_network_failure(cause):
            deepest = hugging_face.chain(cause)[-1]
            why = (
                f"The hub at {self._api.endpoint} could not be reached ({type(deepest).__name__}: "
                f"{hugging_face.first_line(deepest)[:160]}). Check the connection, and push again."
            )
        else:
            why = f"{type(cause).__name__}: {said}"
        return self._error(f"Trying to {doing}: {why}", status)

    def _error(self, message: str, status: int | None = None) -> HubError:
        return HubError(
            f"{self._name!r} was not pushed. {message} Nothing of it is to be seen on the hub.",
            repository=self._name,
            status=status,
        )


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None
