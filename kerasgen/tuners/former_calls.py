"""Takes calls of `training.run` as 0.1.0 defined it: nine arguments in the place of a `TuneJob`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from kerasgen import deprecations
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.report import TuneReport

P = ParamSpec("P")

_POSITIONAL = ("model", "train", "held_out")


def taken(run: Callable[P, TuneReport]) -> Callable[P, TuneReport]:
    """Return `run`, which takes the arguments of 0.1.0 too, with a warning.

    Args:
        run: takes a `TuneJob` first, the tuner as `settings`, and `prepare`.
    """

    @functools.wraps(run)
    def call(*arguments: P.args, **keywords: P.kwargs) -> TuneReport:
        is_former = "job" not in keywords and not (arguments and isinstance(arguments[0], TuneJob))
        if not is_former or "settings" not in keywords:
            return run(*arguments, **keywords)
        deprecations.warn(
            "training.run(model, train, held_out, settings=…)",
            "training.run(kg.TuneJob(model, train, held_out, seed=seed, directory=directory), self, prepare=prepare)",
        )
        given: dict[str, Any] = {**dict(zip(_POSITIONAL, arguments, strict=False)), **keywords}
        of_run: dict[str, Any] = {name: given.pop(name) for name in ("settings", "prepare") if name in given}
        return run(TuneJob(**given), **of_run)  # type: ignore[arg-type]

    return call
