"""Every exception that kerasgen raises on purpose.

In brackets stands the exception of Python's that it is as well, so that `except ValueError` catches an ArgumentError::

    KerasgenError
    ├── ArgumentError (ValueError)        a setting is wrong; nothing has been done yet
    │   ├── CorpusArgumentError
    │   ├── TokenArgumentError
    │   ├── ModelArgumentError
    │   ├── SamplerArgumentError
    │   ├── ConstraintArgumentError
    │   ├── GenerateArgumentError
    │   ├── TuneArgumentError
    │   ├── ExportArgumentError
    │   ├── HubArgumentError
    │   ├── RecipeError                      a recipe's settings are wrong; `.faults` has all, each with its line
    │   ├── CallError (TypeError)            a call has an argument too many, lacks one, or names one that there isn't
    │   └── UnknownNameError (LookupError)   no plugin has this name; `.near` lists those that come close
    ├── PluginError                       an entry point is at fault; `.distribution` names its package
    │   ├── PluginConflictError           two packages claim one name
    │   └── PluginLoadError               the plugin's own code failed; the cause is chained
    ├── LockedError                       another process or thread writes there; `.path`, `.pid`, `.host`, `.since`
    ├── ForkedError (RuntimeError)        a forked child asks for what ran, with threads of its own, in its parent
    ├── BackendError (RuntimeError)       Keras runs, or would run, on another backend than asked for
    ├── MissingDependencyError (ImportError)  an optional package is needed; `.extra` says which extra brings it
    ├── CorpusError                       `.path`, `.line` and `.byte` say where, if known
    │   ├── CorpusFormatError             a file is not what it should be
    │   └── CorpusUnavailableError        the data are not here and can't be fetched
    ├── ChatTemplateError                 a chat template is missing, can't be read, or refuses a conversation
    ├── TokenizerError                    a vocabulary or merge file can't be used; `.path` and `.line`
    ├── TokenStoreError                   a corpus's token ids can't be written or read; `.path`
    ├── ModelError
    │   ├── ModelUnavailableError         the hub or the directory can't be reached
    │   └── ModelFormatError              files that are there can't be read as a model
    ├── TuneError                         `.step` says where
    │   ├── NonFiniteLossError            the loss became NaN or infinite; `.learning_rate` as it was
    │   └── CheckpointError               a checkpoint is damaged, or of another run
    ├── GenerationError
    ├── HubError                          a hub refused what was to be pushed; `.repository` and `.status`
    └── ExportError                       the artefact could not be written or did not prove equal; `.figures`

    KerasgenWarning (UserWarning)         what was asked for is done, but will hardly give what was meant
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.terminal import visible


class KerasgenError(Exception):
    """Base class of the errors that kerasgen raises on purpose.

    All of them can be pickled and copied with their attributes, so that a worker process can raise one.
    """

    def __str__(self) -> str:
        # A message quotes names and texts of strangers, and is read in a terminal.
        return visible(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own would call the constructor with the message alone, without the keywords that it needs.
        _, arguments, *state = tuple(super().__reduce__())
        return (_restore, (type(self), arguments), *state)


def _restore(kind: type[KerasgenError], arguments: tuple[Any, ...]) -> KerasgenError:
    error = kind.__new__(kind, *arguments)
    super(KerasgenError, error).__init__(*arguments)
    return error


class KerasgenWarning(UserWarning):
    """The call does what was asked for, but that is probably not what was meant; `warnings` can silence it."""


class ArgumentError(KerasgenError, ValueError):
    """A setting is wrong. Raised before any expensive work."""


class CorpusArgumentError(ArgumentError):
    """A corpus was asked for with a setting it doesn't have or can't use."""


class TokenArgumentError(ArgumentError):
    """A tokenizer or a packing function received something it can't use."""


class ModelArgumentError(ArgumentError):
    """A model was asked for with a setting it doesn't have or can't use."""


class SamplerArgumentError(ArgumentError):
    """A sampler was asked for with a setting it doesn't have or can't use."""


class ConstraintArgumentError(ArgumentError):
    """A constraint was asked for with a setting it doesn't have or can't use."""


class GenerateArgumentError(ArgumentError):
    """A call to generate can't be carried out as written."""


class TuneArgumentError(ArgumentError):
    """A tuner was asked for with a setting it doesn't have or can't use."""


class HubArgumentError(ArgumentError):
    """A push to a hub, or the card of a model there, can't be as it is written."""


class ExportArgumentError(ArgumentError):
    """An export can't be carried out as asked."""


@dataclass(frozen=True)
class RecipeFault:
    """One setting of a recipe that is wrong.

    Args:
        key: where it stands, such as `"tuner.rank"`; empty for the whole file.
        message: what is wrong, what was received, and what to do.
        line: 1-based line in the file; None for a setting that no line has, such as one of the command line.
    """

    key: str
    message: str
    line: int | None = None


class RecipeError(ArgumentError):
    """A recipe can't be read, or a pipeline can't be written as one. All faults are told at once.

    Args:
        message: what to tell the person: a line for each fault.
        faults: each of them.
        path: of the file, if it is one.
    """

    def __init__(self, message: str, *, faults: Sequence[RecipeFault] = (), path: str | Path | None = None) -> None:
        super().__init__(message)
        self.faults = tuple(faults)
        self.path = None if path is None else str(path)


class CallError(ArgumentError, TypeError):
    """A call has an argument too many, lacks one, or names one that there isn't.

    It is what the thing called raises for its other arguments too, such as a `SamplerArgumentError` for a sampler.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        _, (_, arguments), *state = super().__reduce__()
        kind = ArgumentError if type(self) is CallError else type(self).__bases__[0]
        return (_restore_call, (kind, arguments), *state)


def call_error(kind: type[ArgumentError]) -> type[CallError]:
    """Return the class of a `CallError` that is of this kind as well."""
    if kind is ArgumentError:
        return CallError
    if kind not in _CALL_ERRORS:
        _CALL_ERRORS[kind] = type(kind.__name__, (kind, CallError), {"__doc__": CallError.__doc__})
    return _CALL_ERRORS[kind]


_CALL_ERRORS: dict[type[ArgumentError], type[CallError]] = {}


def _restore_call(kind: type[ArgumentError], arguments: tuple[Any, ...]) -> KerasgenError:
    return _restore(call_error(kind), arguments)


class UnknownNameError(ArgumentError, LookupError):
    """No registered plugin has this name.

    Args:
        message: what to tell the person.
        name: the name that was asked for.
        near: registered names that come close to it.
    """

    def __init__(self, message: str, *, name: str, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.near = tuple(near)


class PluginError(KerasgenError):
    """An entry point is at fault.

    Args:
        message: what to tell the person.
        distribution: the package (or packages, comma-separated) that declared the entry point.
    """

    def __init__(self, message: str, *, distribution: str) -> None:
        super().__init__(message)
        self.distribution = distribution


class PluginConflictError(PluginError):
    """Two packages claim one name that is no built-in's, or one package claims a name twice."""


class PluginLoadError(PluginError):
    """A plugin's own code failed while it was loaded; the cause is chained."""


class LockedError(KerasgenError):
    """Another process, or another thread, is writing what was to be written.

    Args:
        message: what to tell the person.
        path: what is being written.
        pid: number of the process that writes it, if it is known.
        host: name of its machine, if it is known.
        since: when it began, if it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path,
        pid: int | None = None,
        host: str | None = None,
        since: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = str(path)
        self.pid = pid
        self.host = host
        self.since = since


class ForkedError(KerasgenError, RuntimeError):
    """A forked child asks for an engine whose threads stayed behind in its parent: it would wait without an end."""


class BackendError(KerasgenError, RuntimeError):
    """Keras runs, or would run, on another backend than asked for."""


class MissingDependencyError(KerasgenError, ImportError):
    """An optional package is needed and not installed.

    Args:
        message: what to tell the person.
        package: the import name that is missing; `.name` too, as with any ImportError.
        extra: the extra of kerasgen that brings it, if one does.
    """

    def __init__(self, message: str, *, package: str, extra: str | None = None) -> None:
        super().__init__(message, name=package)
        self.package = package
        self.extra = extra


class CorpusError(KerasgenError):
    """A corpus can't be read.

    Args:
        message: what to tell the person; name the path, line and byte in it as well.
        path: the file at fault.
        line: 1-based line number.
        byte: 0-based offset in bytes.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        byte: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.line = line
        self.byte = byte


class CorpusFormatError(CorpusError):
    """A file is not what it should be."""


class CorpusUnavailableError(CorpusError):
    """The data are not here and can't be fetched."""


class ChatTemplateError(KerasgenError):
    """A model has no chat template, or its template can't be read, or refuses a conversation."""


class TokenizerError(KerasgenError):
    """A vocabulary or merge file can't be used.

    Args:
        message: what to tell the person; name the path and line in it as well.
        path: the file at fault.
        line: 1-based line number.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.line = line


class TokenStoreError(KerasgenError):
    """A corpus's token ids can't be written or read.

    Args:
        message: what to tell the person; name the path in it as well.
        path: the store's directory.
    """

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)


class ModelError(KerasgenError):
    """A model can't be brought or saved."""


class ModelUnavailableError(ModelError):
    """The hub or the directory can't be reached."""


class ModelFormatError(ModelError):
    """Files that are there can't be read as a model."""


class TuneError(KerasgenError):
    """Fine-tuning stopped.

    Args:
        message: what to tell the person.
        step: optimizer steps finished when it stopped.
    """

    def __init__(self, message: str, *, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class NonFiniteLossError(TuneError):
    """The loss became NaN or infinite.

    Args:
        message: what to tell the person.
        step: the 1-based optimizer step whose loss was not finite.
        learning_rate: the learning rate of that step.
        checkpoint: the last good checkpoint, if one was written.
    """

    def __init__(self, message: str, *, step: int, learning_rate: float, checkpoint: str | None = None) -> None:
        super().__init__(message, step=step)
        self.learning_rate = learning_rate
        self.checkpoint = checkpoint


class CheckpointError(TuneError):
    """A checkpoint is damaged, or belongs to another run."""


class GenerationError(KerasgenError):
    """Text could not be generated."""


class HubError(KerasgenError):
    """A hub refused what was to be pushed, or can't be reached; nothing of it is to be seen there.

    Args:
        message: what to tell the person.
        repository: what was to be pushed to.
        status: the status of HTTP that the hub answered with; None if it did not answer.
    """

    def __init__(self, message: str, *, repository: str, status: int | None = None) -> None:
        super().__init__(message)
        self.repository = repository
        self.status = status


class ExportError(KerasgenError):
    """An artefact could not be written, or did not prove equal to the model.

    Args:
        message: what to tell the person.
        figures: what the parity check measured, by name.
    """

    def __init__(self, message: str, *, figures: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.figures = dict(figures or {})
