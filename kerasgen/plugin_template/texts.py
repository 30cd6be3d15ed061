"""The files of a new package that depend on what it holds: pyproject.toml, the README and the first module."""

from __future__ import annotations

from collections.abc import Sequence

from kerasgen.plugin_template.kinds import Kind

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "kerasgen-placeholder"
version = "0.1.0"
description = "{holds} for kerasgen."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["kerasgen>={version}"{numpy}]

[project.optional-dependencies]
test = ["kerasgen[test]", "mypy", "ruff"]

{groups}
[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
kerasgen_placeholder = ["py.typed"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--import-mode=importlib"
filterwarnings = [
    # Keras's variables predate NumPy 2's `copy` keyword.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
]

[tool.mypy]
strict = true
files = ["src", "tests"]

[[tool.mypy.overrides]]
module = ["jax.*", "keras.*", "keras_hub.*", "tensorflow.*", "torch.*", "transformers.*"]
ignore_missing_imports = true
follow_imports = "skip"

[tool.ruff]
line-length = 120
src = ["src"]

[tool.ruff.lint]
select = ["B", "E", "F", "I", "UP", "W"]
"""

_README = """\
# kerasgen-placeholder

{holds} for [kerasgen](https://pypi.org/project/kerasgen/). After `pip install kerasgen-placeholder`:

```python
import kerasgen as kg

{usage}
```

To work on it:

```sh
pip install -e '.[test]'
pytest
mypy
ruff check && ruff format --check
kerasgen plugins check kerasgen-placeholder
```
"""


def _holds(kinds: Sequence[Kind]) -> str:
    *first, last = [f"a{'n' if kind.name[0] in 'aeiou' else ''} {kind.name}" for kind in kinds]
    listed = f"{', '.join(first)} and {last}" if first else last
    return listed[0].upper() + listed[1:]


def pyproject(kinds: Sequence[Kind], version: str) -> str:
    """Return pyproject.toml, which declares a plugin of each kind.

    Args:
        kinds: what the package holds.
        version: of kerasgen, the least that it needs.
    """
    groups = "".join(
        f'[project.entry-points."kerasgen.{kind.group}"]\n'
        f'placeholder = "kerasgen_placeholder.{kind.name}:{kind.class_name}"\n\n'
        for kind in kinds
    )
    numpy = ', "numpy>=2.1"' if any(kind.name == "exporter" for kind in kinds) else ""
    return _PYPROJECT.format(holds=_holds(kinds), version=version, numpy=numpy, groups=groups.rstrip("\n") + "\n")


def readme(kinds: Sequence[Kind]) -> str:
    """Return README.md, with a line of Python for each kind."""
    return _README.format(holds=_holds(kinds), usage=_usage(kinds))


def _usage(kinds: Sequence[Kind]) -> str:
    """Return the lines that use what the package holds; where one needs a pipeline, the first line makes it."""
    lines = [kind.usage for kind in kinds]
    if any(line.startswith("pipe.") for line in lines):
        made = [number for number, line in enumerate(lines) if line.startswith("kg.Pipeline(")]
        if made:
            lines[made[0]] = f"pipe = {lines[made[0]]}"
            lines.insert(0, lines.pop(made[0]))
        else:
            lines.insert(0, 'pipe = kg.Pipeline(model="starter")')
    return "\n".join(lines)


def package(kinds: Sequence[Kind]) -> str:
    """Return the first module of the package, which imports none of its others."""
    return f'"""{_holds(kinds)} for kerasgen."""\n'
