"""Whatever a page names exists: names and their arguments, modules, files, options, and the variables of examples."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

import kerasgen as kg
from kerasgen import cli
from kerasgen.errors import KerasgenError

pytestmark = pytest.mark.one_backend

DOCS = ROOT / "docs"
PLACES = {"kerasgen": Path(kg.__file__).parents[1]}  # a wheel's package doesn't lie in the checkout
# The log tells of what was, and the changelog and the page on upgrading of what is no more.
PAST = {DOCS / "explanation" / "log.md", DOCS / "how-to" / "upgrade.md"}
PAGES = [ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += [page for page in sorted(DOCS.rglob("*.md")) if page not in PAST and "_build" not in page.parts]

# A variable of the pages by this name is a value of this class.
KINDS: dict[str, Any] = {
    "pipe": kg.Pipeline,
    "pipeline": kg.Pipeline,
    "assistant": kg.Pipeline,
    "report": kg.TuneReport,
    "artefact": kg.Artefact,
}
# Fields of these are not told by the class.
OPEN = {"artefact.report", "pipe.model.causal_lm", "pipe.model.network"}
# Whose options they are that no command of kerasgen has.
OTHERS = {
    *("--no-deps", "--no-save", "--editable", "--force-reinstall", "--no-single-branch"),
    *("--model_args", "--tasks", "--include_path", "--rest_api_port", "--model_name", "--model_base_path"),
    *("--served-model-name", "--parallel", "--cont-batching", "--temp", "--rm", "--build-arg", "--json"),
    *("--backend", "--write-durations", "--requeue", "--kill-on-bad-exit", "--ntasks", "--time", "--partition"),
}

# Files of models, and of transformers' and llama.cpp's source.
ELSEWHERE = {"config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "pipeline.json"}
ELSEWHERE |= {"modeling_NAME.py"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fences(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: their language and their lines."""
    return [
        (found[2].strip("{} \n"), inspect.cleandoc(found[3]))
        for found in re.finditer(
            r"^( *)(?:```|:::)([^\n`]*)\n(.*?)^\1(?:```|:::)$", text_of(page), re.DOTALL | re.MULTILINE
        )
    ]


def spans(page: Path) -> list[str]:
    """What stands in backticks, outside of fenced blocks; roles such as {doc}`x` are Sphinx's to check."""
    text = re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<![`}\w])`([^`\n]+)`(?!`)", text)


def source_of(language: str, block: str) -> str | None:
    """The Python of a block, whether it is shown as a program or as a session."""
    if language in ("python", "testsetup"):
        return block
    if language == "doctest":
        return "\n".join(line[4:] for line in block.splitlines() if line.startswith((">>> ", "... ")))
    return None


def programs(page: Path) -> list[ast.Module]:
    return [ast.parse(source) for language, block in fences(page) if (source := source_of(language, block))]


WITH_PROGRAMS = [page for page in PAGES if programs(page)]


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def resolves(path: str) -> bool:
    """Whether a dotted path leads to a module, or to an attribute of one or of a class in it."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if found is None:
            continue
        try:
            value: Any = importlib.import_module(name)
        except KerasgenError:
            return length == len(parts)  # an extra is missing here
        return all(has(value, part) and ((value := getattr(value, part, None)) or True) for part in parts[length:])
    return False


def has(value: Any, name: str) -> bool:
    if value is None:
        return True  # what a class does not hold as a value, such as a field, can't be followed
    if value is kg.Pipeline and name in vars(kg.Pipeline()):
        return True
    if hasattr(value, name):
        return True
    kind = value if isinstance(value, type) else type(value)
    names = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    for base in kind.__mro__:
        names |= set(getattr(base, "__annotations__", {})) | set(getattr(base, "__slots__", ()))
    return name in names


def test_a_dotted_name_leads_somewhere() -> None:
    """In code and in prose: kerasgen.a.b, kg.a, kg.errors.X."""
    missing = []
    for page in PAGES:
        for text in [*spans(page), *(block for language, block in fences(page) if language != "text")]:
            for path in re.findall(r"(?<![\w./+-])(?:kerasgen|kg)(?:\.\w+)+(?![\w/]*\.(?:json|toml|txt))", text):
                whole = path.replace("kg.", "kerasgen.", 1) if path.startswith("kg.") else path
                if whole.endswith((".json", ".pipeline", ".generate")) or not whole.removeprefix("kerasgen."):
                    continue
                with warnings.catch_warnings():
                    if page.name == "stability.md":  # which lists the deprecated names
                        warnings.simplefilter("ignore", DeprecationWarning)
                    is_there = resolves(whole) or is_group(whole)
                if not is_there:
                    missing.append(f"{of_page(page)}: {path}")
    assert sorted(set(missing)) == []


def is_group(path: str) -> bool:
    """Whether it is a group of entry points, or a folder of the package that is no module."""
    return path in {f"kerasgen.{surface}" for surface in ("corpora", "models", "tuners", "samplers", "constraints")}


def test_a_file_that_a_page_names_is_in_the_repository() -> None:
    missing = []
    for page in PAGES:
        for span in spans(page):
            for path in re.findall(r"(?<![\w./-])(?:kerasgen|tests|tools|benchmarks|docs|examples)/[\w./{}-]*\w", span):
                if "{" in path or path.startswith("docs/_build"):
                    continue
                if not (PLACES.get(path.partition("/")[0], ROOT) / path).exists():
                    missing.append(f"{of_page(page)}: {path}")
    assert missing == []


def test_a_file_that_a_page_names_by_its_name_alone_is_somewhere() -> None:
    """As in a table whose heading names the folder."""
    there = {path.name for folder in ("kerasgen", "tests", "tools", "benchmarks", "docs", "examples", ".ci")
             for path in (PLACES.get(folder, ROOT) / folder).rglob("*") if "__pycache__" not in path.parts}  # fmt: skip
    missing = [
        f"{of_page(page)}: {span}"
        for page in (ROOT / "CONTRIBUTING.md", DOCS / "explanation" / "architecture.md")
        for span in spans(page)
        if re.fullmatch(r"\w+\.(py|mjs|js|json)", span) and span not in there | ELSEWHERE
    ]
    assert missing == []


def options() -> set[str]:
    """Every option of kerasgen's commands, of its benchmarks and of its tools."""
    found = {"--help", "--version", "--install-completion", "--show-completion"}
    for name in cli.COMMANDS:
        for parameter in cli.load(name).params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    for path in [
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "tools").glob("*.py"),
        *(ROOT / "examples").glob("*.py"),
    ]:
        found |= set(re.findall(r'"(--[\w-]+)"', text_of(path)))
    return found


def test_an_option_that_a_page_names_is_one() -> None:
    known = options() | OTHERS
    missing = [
        f"{of_page(page)}: {option}"
        for page in PAGES
        for span in spans(page)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
        if option not in known
    ]
    assert missing == []


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=of_page)
def test_a_name_of_an_example_is_defined_on_its_page(page: Path) -> None:
    """Before it is used: whoever copies a page's code has all that it needs."""
    known = {*dir(builtins), "kg"}  # the home page imports it by this name
    undefined = []
    for program in programs(page):
        known |= set(bound(program))
        undefined += [name for name in used(program) if name not in known]
    assert sorted(set(undefined)) == []


def bound(program: ast.AST) -> Iterator[str]:
    """The names that a program gives a value, anywhere."""
    for node in ast.walk(program):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def used(program: ast.AST) -> Iterator[str]:
    for node in ast.walk(program):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=of_page)
def test_what_an_example_takes_of_a_pipeline_is_there(page: Path) -> None:
    missing = []
    for program in programs(page):
        for node in ast.walk(program):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            kind = KINDS.get(node.value.id)
            if kind is not None and f"{node.value.id}.{node.attr}" not in OPEN and not has(kind, node.attr):
                missing.append(f"{node.value.id}.{node.attr}")
    for span in spans(page):
        for name, attribute in re.findall(r"(?<![\w.\"'/])(pipe|artefact|Pipeline)\.([a-z_]+)\b(?!/)", span):
            kind = KINDS.get(name, kg.Pipeline)
            if attribute not in ("json", "pipe") and not has(kind, attribute):
                missing.append(f"{name}.{attribute}")
    assert sorted(set(missing)) == []


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=of_page)
def test_an_argument_by_name_is_one_of_the_call(page: Path) -> None:
    """Of constructors kg.X(…), and of generate and its like, whose settings GenerationConfig lists."""
    wrong = []
    for program in programs(page):
        for node in ast.walk(program):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if not isinstance(node.func.value, ast.Name):
                continue
            owner, name = node.func.value.id, node.func.attr
            holder = kg if owner == "kg" else KINDS.get(owner)
            if holder is None or not hasattr(holder, name) or not callable(getattr(holder, name)):
                continue
            parameters = inspect.signature(getattr(holder, name)).parameters
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                continue
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            wrong += [f"{owner}.{name}({argument}=)" for argument in given - set(parameters)]
    assert wrong == []


def test_the_page_on_architecture_names_modules_that_there_are() -> None:
    """Of a paragraph with "In `kerasgen.x`", each word in backticks is a module or a name in that package."""
    page = DOCS / "explanation" / "architecture.md"
    missing = []
    for paragraph in re.split(r"\n\s*\n", text_of(page)):
        if not re.search(r"In\s`kerasgen\.\w+`", paragraph):
            continue
        names: set[str] = set()
        for package in re.findall(r"In\s`(kerasgen\.\w+)`", paragraph):
            module = importlib.import_module(package)
            names |= set(dir(module)) | {package.rpartition(".")[2]}
            names |= {path.name for path in Path(module.__path__[0]).iterdir()}  # folders of data too
            for _, name, _ in pkgutil.walk_packages(module.__path__, f"{package}."):
                names.add(name.rpartition(".")[2])
                names |= defined(name)
        for word in re.findall(r"(?<!\})`([a-z_]+)`", paragraph):
            if word not in names:
                missing.append(word)
    assert missing == []


def defined(module: str) -> set[str]:
    """The functions, classes, methods and variables of a module, without importing it."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return set()
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    return set(bound(tree))


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.parts], ids=of_page)
def test_a_link_within_the_documentation_leads_to_a_heading(page: Path) -> None:
    """Sphinx checks {doc} roles; this checks plain links, with their anchors."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", text_of(page)):
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(other), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_an_address_elsewhere_is_well_formed(page: Path) -> None:
    """Nothing is fetched: https but on this machine, a host with a name, no blank, no trailing dot."""
    for address in re.findall(r"\bhttps?://[^\s)>\"'`]+", text_of(page)):
        here = re.match(r"http://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?(/|\.?$)", address)
        assert here or re.match(r"https://[\w-]+(\.[\w-]+)+(/[\w./~%+#?=&@:…-]*)?$", address.rstrip(".,;:")), address
