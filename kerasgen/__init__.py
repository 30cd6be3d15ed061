"""kerasgen: from a corpus to a fine-tuned text generator to an artefact that generates, on Keras 3 and KerasHub.

    import kerasgen as kg

    pipe = kg.Pipeline(corpus="sample", model="starter", sampler="top_k", seed=0)
    report = pipe.fit()
    print(pipe.generate("昨夜雨疏风骤", max_length=200))

Every public name is resolved on first use, so `import kerasgen` loads neither Keras nor a backend nor NumPy. The names
stand in `__init__.pyi`, which type checkers and editors read too.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


@functools.cache  # not by its name, which is that of the submodule `cache`
def _homes() -> dict[str, str]:
    """Return the module that each public name is imported from, as the stub says."""
    import ast
    from importlib.resources import files  # and no path: a package may be imported from an archive

    stub = ast.parse(files(__name__).joinpath("__init__.pyi").read_text(encoding="utf-8"))
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {name.name: str(statement.module) for statement in imports for name in statement.names}


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":  # what Python itself asks a module for
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
    homes = _homes()
    if name == "__all__":
        value: Any = [*homes, "__version__"]
    elif name not in homes:
        from kerasgen.keywords import meant

        hint = "" if name.startswith("_") else meant(name, homes)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}")
    elif homes[name] == __name__:
        value = import_module(f"{__name__}.{name}")
    else:
        value = getattr(import_module(homes[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_homes(), "__version__"])
