"""What every exporter must do: inherit `ExporterContract`, say which exporter to test, and run pytest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kerasgen.errors import ArgumentError
from kerasgen.exporters import REGISTRY, progress
from kerasgen.exporters.base import PARITY, Artefact, Exporter
from kerasgen.models.base import LanguageModel
from kerasgen.testing.example_model import shared_small_model
from kerasgen.testing.values import PluginContract

_EXPORTED: list[tuple[type, Exporter, Artefact]] = []


def exported_once(
    suite: type, exporter: Exporter, model: LanguageModel, folders: pytest.TempPathFactory, file_name: str
) -> Artefact:
    """Return what an exporter writes of a suite's model into an empty folder, written once for the suite."""
    for known, asked, artefact in _EXPORTED:
        if known is suite and asked == exporter:
            return artefact
    artefact = exporter.export(model, folders.mktemp("exported") / file_name)
    _EXPORTED.append((suite, exporter, artefact))
    return artefact


class ExporterContract(PluginContract):
    """The tests that every `Exporter` passes.

    ```python
    class TestMine(ExporterContract):
        file_name = "model.mine"

        @pytest.fixture
        def exporter(self):
            return MyExporter()
    ```

    Attributes:
        file_name: the name of a file or directory that the exporter can write.
        generates: whether its artefacts generate text; then the report tells what was compared, at least what
            `kerasgen.exporters.base.PARITY` names.
    """

    registry = REGISTRY
    file_name = "artefact"
    generates = True

    @pytest.fixture
    def exporter(self) -> Exporter:
        """The exporter under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `exporter`.")

    @pytest.fixture
    def model(self) -> LanguageModel:
        """A small model that the exporter can write: a GPT-2; override this for another family."""
        return shared_small_model()

    @pytest.fixture
    def plugin(self, exporter: Exporter) -> Exporter:
        """What the tests of every kind look at."""
        return exporter

    @pytest.fixture
    def exported(self, exporter: Exporter, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
        """What the exporter writes into an empty folder, once for all tests."""
        return exported_once(type(self), exporter, model, tmp_path_factory, self.file_name)

    def test_the_artefact_lies_where_it_was_asked_for(self, exported: Artefact) -> None:
        """And nothing else lies beside it but its own files; the report is JSON, with each file's size and a proof."""
        path = exported.path
        assert path.name == self.file_name
        assert path.exists()
        assert all(entry.name.startswith(self.file_name) for entry in path.parent.iterdir())
        report = json.loads(json.dumps(exported.report))
        base = path if path.is_dir() else path.parent
        assert report["files"] == {name: (base / name).stat().st_size for name in report["files"]}
        assert sum(report["files"].values()) > 0
        if not self.generates:
            return
        parity = report.get("parity", {})
        assert set(PARITY) <= set(parity), (
            f"The report's `parity` lacks {', '.join(sorted(set(PARITY) - set(parity)))}. If the artefact generates no "
            "text, say `generates = False` in the suite."
        )
        assert len(parity["new_tokens"]) == len(parity["prompt_lengths"]) > 0
        assert isinstance(parity["greedy_equal"], bool)
        assert isinstance(parity["is_degenerate"], bool)
        assert parity["tokens_per_second"] > 0

    def test_nothing_is_overwritten_unless_told(
        self, exporter: Exporter, model: LanguageModel, exported: Artefact, tmp_path: Path
    ) -> None:
        """What lay there before is untouched after the error, and replaced when asked."""
        shutil.copytree(exported.path.parent, tmp_path, dirs_exist_ok=True)
        path = tmp_path / self.file_name
        before = {file: file.stat().st_mtime_ns for file in [path, *path.rglob("*")]}
        with pytest.raises(ArgumentError, match="overwrite"):
            exporter.export(model, path)
        assert before == {file: file.stat().st_mtime_ns for file in [path, *path.rglob("*")]}
        with progress.shown(True):  # as `Pipeline.export` does in a terminal
            exporter.export(model, path, overwrite=True)
