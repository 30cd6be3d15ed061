"""Lets several threads make and use models of KerasHub at a time.

Keras puts `Functional` among the bases of a model's class when the first model of that class is made. KerasHub takes it
out of every task's bases again whenever a task is made, so that a class can be used both ways; for that moment each
task in the process has lost the methods of `Functional`, and those of other threads fail in the middle of a call.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

_CHANGING_BASES = threading.RLock()


def keep_bases() -> None:
    """Let KerasHub's tasks keep their bases once they have them, and one thread at a time change a class's bases.

    A task without inputs and outputs, which KerasHub has none of for text, is made as KerasHub makes it.
    """
    models: Any = import_module("keras.src.models.model")
    pipelines: Any = import_module("keras_hub.src.utils.pipeline_model")
    functional: type = import_module("keras.src.models.functional").Functional
    with _CHANGING_BASES:
        if not hasattr(models.inject_functional_model_class, "__wrapped__"):
            models.inject_functional_model_class = _once(models.inject_functional_model_class, functional)
            pipelines.PipelineModel.__init__ = _keeping(
                pipelines.PipelineModel.__init__, pipelines.PipelineModel, models
            )


def _once(inject: Callable[[type], type], functional: type) -> Callable[[type], type]:
    """Return `inject`, which puts `functional` among a class's bases, for several threads; it would do so twice."""

    @functools.wraps(inject)
    def inject_once(cls: type) -> type:
        with _CHANGING_BASES:
            return cls if issubclass(cls, functional) else inject(cls)

    return inject_once


def _keeping(make: Callable[..., None], task: Any, models: Any) -> Callable[..., None]:
    """Return `make`, the constructor of `task`, without the change of its bases where there are inputs and outputs."""

    @functools.wraps(make)
    def make_keeping(self: Any, *args: Any, **kwargs: Any) -> None:
        if models.functional_init_arguments(args, kwargs):
            models.inject_functional_model_class(type(self))
            super(task, self).__init__(*args, **kwargs)
            return
        with _CHANGING_BASES:
            make(self, *args, **kwargs)

    return make_keeping
