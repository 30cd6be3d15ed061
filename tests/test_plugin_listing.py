"""`kerasgen plugins` names every fault and fails for none; `KERASGEN_PLUGINS` limits what loads."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from installing import child, install

from kerasgen import cli
from kerasgen.errors import PluginConflictError, PluginLoadError, SamplerArgumentError, UnknownNameError
from kerasgen.plugins import Registry
from kerasgen.plugins.selection import VARIABLE

pytestmark = pytest.mark.one_backend

GROUP = "kerasgen.samplers"
SAMPLER = """
from dataclasses import dataclass
from typing import ClassVar
from kerasgen.samplers.sampling import TopK

@dataclass(frozen=True)
class Mine(TopK):
    contract_version: ClassVar[int] = {version}
    mood: str = "calm"
"""


def registry(**versions: int) -> Registry[Any]:
    """A registry that has seen nothing yet."""
    return Registry(
        GROUP, contract="kerasgen.samplers.base:SamplerSpec", noun="sampler", error=SamplerArgumentError, **versions
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sys.path to install into; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


# How a plugin can be at fault, and what is said of it.
FAULTS = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "skips": ("import pytest\npytest.skip('no GPU', allow_module_level=True)", "Skipped: no GPU"),
    "leaves": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "foreign": ("class Mine: ...", "must be a subclass of kerasgen.samplers.base.SamplerSpec"),
    "newer": (SAMPLER.format(version=9), "version 9 of its contract, and this kerasgen has version 1. Upgrade it"),
    "wordy": (SAMPLER.format(version="'1'"), "whole number of at least 1 as `contract_version`. Received: '1'"),
    "lacking": (
        "from dataclasses import dataclass\nfrom kerasgen.samplers.base import TokenSampler\n"
        "@dataclass(frozen=True)\nclass Mine(TokenSampler): ...",
        "lacks what kerasgen.samplers.base.SamplerSpec asks for. Define: choose",
    ),
}


def listed(*paths: Path, status: int = 0, arguments: tuple[str, ...] = (), **environment: str) -> Any:
    """What a process of `kerasgen plugins --json` says."""
    code = (
        "import json, sys, io, contextlib\nfrom kerasgen.cli import main\nout = io.StringIO()\n"
        f"with contextlib.redirect_stdout(out):\n    status = main(['plugins', *{arguments!r}, '--json'])\n"
        f"assert status == {status}, status\nprint(json.dumps(json.loads(out.getvalue())))"
    )
    return child(code, *paths, **environment)


@pytest.mark.slow
@pytest.mark.essential
def test_each_fault_is_listed_with_its_cause_and_the_others_load(tmp_path: Path) -> None:
    for name, (source, _) in FAULTS.items():
        install(tmp_path, f"package-{name}", {GROUP: {name: f"plugin_{name}:Mine"}}, {f"plugin_{name}": source})
    noisy = "print('hello from a plugin')\n" + SAMPLER.format(version=1)
    install(tmp_path, "package-fine", {GROUP: {"fine": "plugin_fine:Mine"}}, {"plugin_fine": noisy}, version="2.3")
    silent = SAMPLER.format(version=1).replace("    contract_version: ClassVar[int] = 1\n", "")
    install(tmp_path, "package-silent", {GROUP: {"silent": "plugin_silent:Mine"}}, {"plugin_silent": silent})
    install(tmp_path, "package-usurper", {GROUP: {"top_k": "plugin_fine:Mine"}})
    said = listed(tmp_path)
    by_name = {entry["name"]: entry for entry in said["plugins"] if not entry["built_in"]}
    for name, (_, cause) in FAULTS.items():
        assert cause in by_name[name]["fault"], name
        assert by_name[name]["distribution"] == f"package-{name}"
    fine = by_name["fine"]
    assert (fine["kind"], fine["version"], fine["contract_version"], fine["fault"]) == ("samplers", "2.3", 1, None)
    assert (by_name["silent"]["fault"], by_name["silent"]["contract_version"]) == (None, 1)
    assert "declares no contract version" in by_name["silent"]["note"]
    built_in, usurper = (entry for entry in said["plugins"] if entry["name"] == "top_k")
    assert (built_in["distribution"], built_in["fault"]) == ("kerasgen", None)
    assert usurper["distribution"] == "package-usurper"
    assert "a built-in can't be shadowed: 'plugin_fine:Mine'" in usurper["fault"]
    built_ins = [entry for entry in said["plugins"] if entry["built_in"]]
    assert len(built_ins) > 30
    assert [entry["fault"] for entry in built_ins] == [None] * len(built_ins)
    listed(tmp_path, status=1, arguments=("check",))
    assert len(listed(tmp_path, arguments=("check", "package_FINE"))["plugins"]) == 1


def test_what_is_built_in_has_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "check", "kerasgen"]) == 0
    assert "top_k" in capsys.readouterr().out
    assert cli.main(["plugins"]) == 0
    assert "all of which load" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "no-such-thing"], "No package with plugins and no plugin is called 'no-such-thing'"),
        (["list", "top_k"], "plugins check top_k"),
        (["check", "--with", "corpus"], "--with is of"),
        (["new"], "The name is missing"),
        (["newest"], "is not one of"),
    ],
)
def test_a_wrong_command_says_what_to_write(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main(["plugins", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_runtime_that_can_not_be_imported_is_found_by_check_alone(tmp_path: Path) -> None:
    source = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom kerasgen.exporters.base import Exporter\n"
        "@dataclass(frozen=True)\nclass Mine(Exporter):\n    contract_version: ClassVar[int] = 1\n"
        "    suffixes: ClassVar[tuple[str, ...]] = ('.mine',)\n"
        "    runtime: ClassVar[str | None] = 'no_such_module:Runtime'\n"
        "    def export(self, model, path, *, overwrite=False): ...\n"
    )
    group = "kerasgen.exporters"
    install(tmp_path, "package-mine", {group: {"mine": "plugin_mine:Mine"}}, {"plugin_mine": source})
    plain = [entry["fault"] for entry in listed(tmp_path)["plugins"] if entry["name"] == "mine"]
    (checked,) = listed(tmp_path, status=1, arguments=("check", "mine"))["plugins"]
    assert plain == [None]
    assert "no_such_module:Runtime can't be imported" in checked["fault"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, {"one", "two"}),
        ("all", {"one", "two"}),
        ("", set()),
        ("none", set()),
        (" , ", set()),
        ("package-one", {"one"}),
        ("Package_One, two", {"one", "two"}),
        ("samplers.two", {"two"}),
        ("kerasgen", set()),
    ],
)
def test_the_variable_limits_what_loads(
    value: str | None, names: set[str], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        source = {f"plugin_{name}": SAMPLER.format(version=1)}
        install(site, f"package-{name}", {GROUP: {name: f"plugin_{name}:Mine"}}, source)
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    here = registry()
    assert set(here.names()) & {"one", "two"} == names
    assert {"top_k", "greedy"} <= set(here.names())
    for name in {"one", "two"} - names:
        with pytest.raises(UnknownNameError, match=f"'{name}' of package-{name} is installed, and {VARIABLE} leaves"):
            here.create(name)
    for name in names:
        assert here.create(name).mood == "calm"


def test_a_limit_resolves_a_conflict(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        source = {f"plugin_{name}": SAMPLER.format(version=1)}
        install(site, f"package-{name}", {GROUP: {"mine": f"plugin_{name}:Mine"}}, source)
    with pytest.raises(PluginConflictError, match=VARIABLE):
        registry().get("mine")
    monkeypatch.setenv(VARIABLE, "package-two")
    assert registry().get("mine").__module__ == "plugin_two"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("package-onn", "names 'package-onn', and no package .* Did you mean 'package-one'"),
        ("package-one,samplers.tow", "names 'samplers.tow'"),
        ("none,package-one", "'none' stands alone"),
        ("ALL,none", "'all' stands alone"),
    ],
)
def test_a_limit_that_names_nothing_is_an_error(
    value: str, said: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "package-one", {GROUP: {"one": "plugin_one:Mine"}}, {"plugin_one": SAMPLER.format(version=1)})
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UnknownNameError, match=said):
        registry().names()


def test_a_package_that_is_left_out_is_not_imported_nor_warned_of(
    site: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    install(site, "broken", {GROUP: {"broken": "plugin_broken:Mine"}}, {"plugin_broken": "raise SystemExit"})
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text("[kerasgen.samplers]\nno equals sign\n")
    monkeypatch.setenv(VARIABLE, "none")
    assert "greedy" in registry().names()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("declared", "version", "oldest", "said"),
    [
        (
            3,
            2,
            1,
            "version 3 of its contract, and this kerasgen has version 2. Upgrade it: pip install -U kerasgen",
        ),
        (1, 3, 2, "works with 2 and later, up to 3. Upgrade it: pip install -U package-one"),
        (0, 3, 1, "whole number of at least 1"),
        (True, 3, 1, "whole number of at least 1"),
        (2, 3, 2, None),
        (3, 3, 2, None),
    ],
)
def test_the_declared_version_is_checked(
    declared: int, version: int, oldest: int, said: str | None, site: Path
) -> None:
    source = {"plugin_one": SAMPLER.format(version=declared)}
    install(site, "package-one", {GROUP: {"one": "plugin_one:Mine"}}, source)
    here = registry(version=version, oldest_version=oldest)
    if said is None:
        assert here.create("one").mood == "calm"
        return
    with pytest.raises(PluginLoadError) as caught:
        here.get("one")
    assert said in str(caught.value)
    assert caught.value.distribution == "package-one"


def test_a_plugin_that_declares_nothing_counts_as_version_one(site: Path) -> None:
    silent = SAMPLER.format(version=1).replace("    contract_version: ClassVar[int] = 1\n", "")
    install(site, "package-one", {GROUP: {"one": "plugin_one:Mine"}}, {"plugin_one": silent})
    assert registry(version=2).create("one").mood == "calm"
    with pytest.raises(PluginLoadError, match="written for version 1"):
        registry(version=3, oldest_version=2).get("one")
