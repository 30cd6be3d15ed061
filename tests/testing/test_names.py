"""The suites are imported from one place, whatever was imported before."""

from __future__ import annotations

from importlib import import_module

import pytest

from kerasgen import testing

pytestmark = pytest.mark.one_backend


def test_every_name_is_what_its_module_holds() -> None:
    """A function that is called like a module of the package would be taken for it."""
    names = testing.__all__
    assert {"CorpusContract", "RuntimeContract", "small_model"} <= set(names)
    for module in ("constraints", "corpora", "example_model", "exporters", "models", "runtimes", "samplers", "tuners"):
        import_module(f"kerasgen.testing.{module}")
    for name in names:
        assert callable(getattr(testing, name)), name
