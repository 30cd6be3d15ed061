"""Tuners: a model and tokens become a tuned model. `names()`, `get(name)`, `describe(name)`, `create(…)`."""

from __future__ import annotations

from kerasgen.errors import TuneArgumentError
from kerasgen.plugins import Registry
from kerasgen.tuners.base import FineTuner
from kerasgen.tuners.report import TextSample, TuneReport, Validation

REGISTRY: Registry[FineTuner] = Registry(
    "kerasgen.tuners", contract="kerasgen.tuners.base:FineTuner", noun="tuner", error=TuneArgumentError
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = [
    "REGISTRY",
    "FineTuner",
    "TextSample",
    "TuneReport",
    "Validation",
    "create",
    "describe",
    "get",
    "names",
]
