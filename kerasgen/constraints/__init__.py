"""Constraints: which texts may be written. `names()`, `get(name)`, `create("verse_form:form=七言絕句")`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.errors import ConstraintArgumentError
from kerasgen.plugins import Registry

REGISTRY: Registry[Constraint] = Registry(
    "kerasgen.constraints",
    contract="kerasgen.constraints.base:Constraint",
    noun="constraint",
    error=ConstraintArgumentError,
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create


def _begin(*arguments: Any) -> ConstraintState:
    """Implement `Constraint.begin`; looked up by name, so that a spec loads NumPy only where it runs."""
    state: ConstraintState = import_module("kerasgen.constraints.masks").begin(*arguments)
    return state


Constraint._begin = staticmethod(_begin)

__all__ = ["REGISTRY", "Constraint", "create", "describe", "get", "names"]
