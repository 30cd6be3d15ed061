"""The exporter and its runtime pass the tests of kerasgen's own."""

import pytest
from kerasgen.testing import ExporterContract, RuntimeContract

from kerasgen_placeholder.exporter import PlaceholderExporter


class TestExporter(ExporterContract):
    file_name = "model.placeholder"

    @pytest.fixture
    def exporter(self) -> PlaceholderExporter:
        return PlaceholderExporter()


class TestRuntime(RuntimeContract):
    file_name = "model.placeholder"
    samplers = ("top_k:k=5,temperature=0.8",)
    beams = ("beam:num_beams=3",)

    @pytest.fixture
    def exporter(self) -> PlaceholderExporter:
        return PlaceholderExporter()
