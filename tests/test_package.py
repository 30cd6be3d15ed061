"""What is shipped, and what `import kerasgen` offers."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.resources
import re
from pathlib import Path

import pytest

import kerasgen

pytestmark = pytest.mark.one_backend

ROOT = Path(kerasgen.__file__).resolve().parent
MODULES = sorted(ROOT.rglob("*.py"))


def test_the_marker_of_a_typed_package_is_shipped() -> None:
    assert importlib.resources.files("kerasgen").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert kerasgen.__version__ == importlib.metadata.version("kerasgen")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_in_one_sentence_what_it_is(module: Path) -> None:
    documentation = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert documentation, "the module has no docstring"
    assert re.search(r"\w [\w`]", documentation.splitlines()[0]), "one word is no sentence"


@pytest.mark.parametrize("name", kerasgen.__all__)
def test_a_public_name_resolves_to_the_thing_of_that_name(name: str) -> None:
    value = getattr(kerasgen, name)
    if name != "__version__":
        assert value.__name__.rpartition(".")[2] == name


def test_public_names_are_listed_once_and_found_by_dir() -> None:
    assert len(set(kerasgen.__all__)) == len(kerasgen.__all__)
    assert set(kerasgen.__all__) <= set(dir(kerasgen))


PACKAGES = sorted(".".join(("kerasgen", *stub.relative_to(ROOT).parent.parts)) for stub in ROOT.rglob("__init__.pyi"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_public_name_is_the_object_that_its_module_in_the_stub_holds(package: str) -> None:
    public = importlib.import_module(package)
    stub = importlib.resources.files(package).joinpath("__init__.pyi")  # which is shipped
    seen = {
        alias.asname: str(statement.module)
        for statement in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen
    assert set(seen) == set(public.__all__) - {"__version__"} <= set(dir(public))
    for name, module in seen.items():
        found = importlib.import_module(f"{package}.{name}" if module == package else module)
        assert (found if module == package else getattr(found, name)) is getattr(public, name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        kerasgen.no_such_name  # noqa: B018


def test_every_entry_point_of_the_package_can_be_loaded() -> None:
    """Built-ins walk in through the plugin door."""
    for point in importlib.metadata.distribution("kerasgen").entry_points:
        assert callable(point.load()), point


def test_a_module_is_not_hidden_by_what_the_package_imports_for_itself() -> None:
    """`from kerasgen import cache` once gave `functools.cache`, and no pipeline could be tuned."""
    folder = Path(kerasgen.__file__).parent
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    imports = [statement for statement in tree.body if isinstance(statement, (ast.Import, ast.ImportFrom))]
    bound = {alias.asname or alias.name for statement in imports for alias in statement.names}
    assert bound & {path.stem for path in folder.iterdir()} == set()
