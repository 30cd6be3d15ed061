"""Constraints: which texts may be written. `names()`, `get(name)`, `create("verse_form:form=七言絕句")`."""

from __future__ import annotations

from kerasgen.constraints.base import Constraint
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

__all__ = ["REGISTRY", "Constraint", "create", "describe", "get", "names"]
