"""A path's ending says which exporter writes it, or the call says that none does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from installing import install

import kerasgen as kg
from kerasgen.exporters.registry import by_ending, choose
from kerasgen.exporters.staging import check_target

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("poet.tflite", "tflite"),
        ("POET.TFLITE", "tflite"),
        ("poet.LiteRTLM", "litertlm"),
        ("poet.gguf", "gguf"),
        ("poet_saved_model", "saved_model"),
        ("saved_model", "saved_model"),
        ("a.folder/poet", "preset"),
    ],
)
def test_an_ending_that_is_known_names_its_exporter(name, exporter):
    assert by_ending(Path(name)) == exporter


@pytest.mark.parametrize("name", ["poet.onnx", "poet.tfilte", "poet.savedmodel", "poet.keras"])
def test_an_unknown_ending_is_told_before_a_model_is_loaded(name, tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match=r"\.gguf, \.litertlm, \.tflite"):
        kg.Pipeline(model="starter").export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_settings_in_the_text_and_by_keyword_are_taken_together():
    chosen = choose("tflite:quantize=int8", Path("poet.tflite"), {"beams": 2})
    assert chosen == kg.TFLiteExporter(quantize="int8", beams=2)


def test_a_setting_that_is_given_twice_is_told():
    with pytest.raises(kg.errors.ExportArgumentError, match=r"once.*quantize"):
        choose("tflite:quantize=int8", Path("poet.tflite"), {"quantize": "int4"})


ENDINGS = {"poet.tflite": "tflite", "poet.litertlm": "litertlm", "poet.GGUF": "gguf", "poet_saved_model": "saved_model"}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("exporter", ["tflite", "litertlm", "gguf", "saved_model", "preset", "transformers"])
def test_no_exporter_writes_a_file_that_is_named_like_another_s(name, exporter, tmp_path):
    if ENDINGS[name] == exporter:
        assert kg.exporters.REGISTRY.name_of(choose(exporter, Path(name), {})) == exporter
        return
    for given in (exporter, kg.exporters.create(exporter)):
        with pytest.raises(kg.errors.ExportArgumentError, match=f"exporter '{ENDINGS[name]}', and '{exporter}' is"):
            choose(given, tmp_path / name, {})
    with pytest.raises(kg.errors.ExportArgumentError, match="Choose another name"):
        check_target(tmp_path / name, overwrite=False, exporter=exporter)  # the exporter's own `export` asks here


@pytest.mark.parametrize("name", ["poet.onnx", "poet.safetensors", "poet.Keras"])
def test_none_writes_a_file_that_is_named_like_another_program_s(name, tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match="ends like a file of another format"):
        choose("gguf", tmp_path / name, {})
    with pytest.raises(kg.errors.ExportArgumentError, match="ends like a file of another format"):
        check_target(tmp_path / name, overwrite=False, exporter="saved_model")


def test_a_plugin_s_exporter_may_write_any_ending(tmp_path):
    check_target(tmp_path / "poet.tflite", overwrite=False, exporter="mine")


NUMBERS = itertools.count()
EXPORTER = """
from dataclasses import dataclass
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.runtime import Runtime

@dataclass(frozen=True)
class Mine(Exporter):
    suffixes = (".mine", ".tflite")
    runtime = "{module}:Opened"

    def export(self, model, path, *, overwrite=False):
        return Artefact(path=path, exporter="mine")

class Opened(Runtime):
    def __init__(self, path, found, *, loud=False):
        self.loud = loud

    def generate_checked(self, prompts, config, *, end_token_id):
        return self.generate_ids(prompts)

    def generate_ids(self, prompts, **settings):
        return [[len(prompt)] for prompt in prompts]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package with an exporter, as if the process had begun with it."""
    from kerasgen.plugins import Registry
    from kerasgen.runtime import formats

    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    registry: Registry[Any] = Registry(
        "kerasgen.exporters", contract="kerasgen.exporters.base:Exporter", noun="exporter",
        error=kg.errors.ExportArgumentError,
    )  # fmt: skip
    for place in (formats, kg.exporters):
        monkeypatch.setattr(place, "REGISTRY", registry)

    def put(package: str, name: str, source: str = EXPORTER) -> None:
        module = f"endings_{package}_{next(NUMBERS)}"  # a module of this name was never imported
        install(
            site,
            package,
            {"kerasgen.exporters": {name: f"{module}:Mine"}},
            {module: source.replace("{module}", module)},
        )

    return put


def test_a_plugin_s_ending_is_its_exporter_s_and_a_built_in_s_stays_the_built_in_s(plugin):
    plugin("one", "mine")
    assert by_ending(Path("a.MINE")) == "mine"
    assert by_ending(Path("a.tflite")) == "tflite"
    with pytest.raises(kg.errors.ExportArgumentError, match="exporter 'mine', and 'preset' is"):
        choose("preset", Path("a.mine"), {})


def test_an_ending_that_two_packages_claim_is_an_error_when_it_is_asked_for(plugin):
    plugin("two", "mine")
    plugin("three", "yours")
    assert by_ending(Path("a.gguf")) == "gguf"
    with pytest.raises(kg.errors.PluginConflictError, match=r"'mine' and 'yours'.*three, two.*exporter='mine'"):
        by_ending(Path("a.mine"))
    assert kg.exporters.REGISTRY.name_of(choose("yours", Path("a.mine"), {})) == "yours"


def test_a_plugin_that_can_not_be_imported_takes_no_ending_from_others(plugin):
    plugin("four", "broken", "import no_such_package")
    plugin("five", "mine")
    with pytest.warns(RuntimeWarning, match="package 'four' could not be loaded"):
        assert by_ending(Path("a.mine")) == "mine"


def artefact(path: Path, exporter: str, **more: Any) -> Path:
    from kerasgen.exporters.staging import write_report

    path.write_bytes(b"content")
    write_report(path, more, exporter=exporter)
    return path


def test_the_runtime_that_an_exporter_names_opens_its_artefacts(plugin, tmp_path):
    plugin("six", "mine")
    path = artefact(tmp_path / "a.mine", "mine")
    assert kg.load_artefact(path, loud=True).loud
    assert kg.load_artefact(path).generate_ids([[1, 2]], max_new_tokens=1) == [[2]]
    with pytest.raises(kg.errors.GenerateArgumentError, match="settings loud"):
        kg.load_artefact(path, threads=2)
    path.with_name("a.mine.json").write_text(path.with_name("a.mine.json").read_text().replace("7", "8"))
    with pytest.raises(kg.errors.ModelFormatError, match="changed since it was exported"):
        kg.load_artefact(path)


def test_an_artefact_whose_package_is_gone_says_so(tmp_path):
    with pytest.raises(kg.errors.ModelFormatError, match=r"no package.*kerasgen runs: gguf, litertlm"):
        kg.load_artefact(artefact(tmp_path / "a.gone", "gone"))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("3", "must be None or text"),
        ("'no colon'", "must be None or text"),
        ("'no_such_package:Thing'", "can't be imported: ModuleNotFoundError"),
        ("'kerasgen:no_such_thing'", "can't be imported: AttributeError"),
        ("'kerasgen:__version__'", "must be a class or a function"),
        ("'operator:is_'", "must be a kerasgen.runtime.Runtime"),
    ],
)
def test_a_runtime_that_is_none_is_its_package_s_fault(plugin, tmp_path, named, said):
    plugin("seven", "mine", EXPORTER.replace('"{module}:Opened"', named))
    with pytest.raises(kg.errors.PluginLoadError, match=said) as caught:
        kg.load_artefact(artefact(tmp_path / "a.mine", "mine"))
    assert caught.value.distribution == "seven"
