"""What every plugin must do, whatever its kind: `PluginContract`, which the suite of each kind inherits."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from kerasgen import deprecations, specs
from kerasgen.errors import ArgumentError
from kerasgen.plugins import Registry, contract_versions

HEAVY = ("jax", "keras", "keras_hub", "keras_nlp", "numpy", "tensorflow", "tensorflow_datasets", "torch")

FORMER_TESTS = {
    "test_a_corpus_is_a_frozen_value_equal_to_its_like": "test_it_is_a_frozen_value_equal_to_its_like",
    "test_source_is_a_frozen_dataclass_equal_to_its_like": "test_it_is_a_frozen_value_equal_to_its_like",
    "test_tuner_is_a_frozen_dataclass_equal_to_its_like": "test_it_is_a_frozen_value_equal_to_its_like",
    "test_it_is_a_frozen_value": "test_it_is_a_frozen_value_equal_to_its_like",
    "test_a_manifest_brings_the_corpus_back": "test_its_settings_survive_being_saved",
    "test_the_spec_string_is_the_constructors_value": "test_its_text_stands_for_it",
    "test_the_spec_stands_for_the_tuner": "test_its_text_stands_for_it",
    "test_importing_the_corpus_loads_nothing_heavy": "test_importing_its_module_loads_nothing_heavy",
    "test_importing_the_source_loads_nothing_heavy": "test_importing_its_module_loads_nothing_heavy",
    "test_importing_the_tuner_loads_nothing_heavy": "test_importing_its_module_loads_nothing_heavy",
    "test_making_one_imports_nothing_heavy": "test_importing_its_module_loads_nothing_heavy",
}
"""Tests of 0.1.0's suites, and the name that the test of all kinds has now; a suite may have overridden one."""


class PluginContract:
    """The tests that plugins of every kind pass. Inherit the suite of a kind, not this one.

    Attributes:
        registry: of the kind.
        bad_arguments: arguments that the constructor must refuse, each with otherwise those of the plugin under test.
    """

    registry: ClassVar[Registry[Any]]
    bad_arguments: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for old in FORMER_TESTS.keys() & vars(cls).keys():
            renamed(f"{cls.__name__}.{old}()", f"{FORMER_TESTS[old]}(), which has taken its place")

    @pytest.fixture
    def plugin(self) -> Any:
        """The plugin under test, which the suite of a kind takes from the fixture of its kind's name."""
        raise NotImplementedError(f"{type(self).__name__} must inherit the suite of a kind, such as CorpusContract.")

    @pytest.fixture
    def spec(self) -> str | None:
        """Text that stands for the plugin under test, such as `"top_k:k=3"`; override this to test it besides."""
        return None

    def test_it_is_a_frozen_value_equal_to_its_like(self, plugin: Any) -> None:
        """Saved pipelines compare and rebuild it."""
        assert dataclasses.is_dataclass(plugin)
        names = [field.name for field in dataclasses.fields(plugin)] or ["anything"]
        for name in names:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(plugin, name, None)
        assert dataclasses.replace(plugin) == plugin  # type: ignore[type-var]

    def test_its_settings_survive_being_saved(self, plugin: Any) -> None:
        """What a manifest's JSON holds makes an equal one."""
        error, is_registered = self.registry.error, self.registry.name_of(plugin) is not None
        try:
            arguments = json.loads(json.dumps(specs.to_arguments(plugin, error=error)))
        except ArgumentError:
            if is_registered:
                raise
            pytest.skip(f"{type(plugin).__name__} holds what no file can, so no pipeline with it is saved")
        assert specs.restore(type(plugin), arguments, name="it", error=error) == plugin
        if is_registered:
            manifest = json.loads(json.dumps(self.registry.to_manifest(plugin)))
            assert self.registry.from_manifest(manifest) == plugin

    def test_its_text_stands_for_it(self, plugin: Any, spec: str | None) -> None:
        """What is written on a command line and in Python is the same value."""
        assert self.registry.resolve(plugin) is plugin
        if spec is not None:
            assert self.registry.create(spec) == plugin
        if self.registry.name_of(plugin) is None:
            pytest.skip(f"{type(plugin).__name__} is not registered, so no text names it")
        assert self.registry.create(self.registry.to_text(plugin)) == plugin

    def test_an_unknown_argument_is_refused(self, plugin: Any) -> None:
        """A misspelt argument is never passed over."""
        with pytest.raises(self.registry.error, match="no_such_argument"):
            specs.build(type(plugin), {"no_such_argument": "1"}, name="it", error=self.registry.error)

    def test_bad_arguments_are_refused_at_birth(self, plugin: Any) -> None:
        """Before any expensive work, with an error that says which argument."""
        for bad in self.bad_arguments:
            with pytest.raises(self.registry.error) as caught:
                dataclasses.replace(plugin, **bad)
            assert any(name in str(caught.value) for name in bad), f"{caught.value} names none of {list(bad)}"

    def test_importing_its_module_loads_nothing_heavy(self, plugin: Any) -> None:
        """Names and settings can be had where nothing but the standard library is wanted."""
        module = type(plugin).__module__
        code = f"import sys, {module}; print(','.join(m for m in {HEAVY!r} if m in sys.modules))"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == "", f"importing {module} loads {run.stdout.strip()}; import them inside methods"

    def test_it_was_written_for_a_version_of_the_contract_that_works_here(self, plugin: Any) -> None:
        """`contract_version`, where the class declares it."""
        registry, kind = self.registry, type(plugin)
        named, distribution = kind.__qualname__, kind.__module__.partition(".")[0]
        contract_versions.check(kind, registry.version, registry.oldest_version, named=named, distribution=distribution)


def renamed(old: str, new: str) -> None:
    """Warn that a suite, or what a subclass of one defines, has another name now.

    Args:
        old: the former name.
        new: what to write for it.
    """
    deprecations.warn(old, new, stacklevel=3)
