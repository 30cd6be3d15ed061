"""The corpus passes the tests of kerasgen's own corpora."""

from pathlib import Path

import pytest
from kerasgen.testing import CorpusContract

from kerasgen_placeholder.corpus import PlaceholderCorpus


class TestCorpus(CorpusContract):
    bad_arguments = ({"path": ""},)

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> PlaceholderCorpus:
        path = tmp_path / "texts.txt"
        path.write_text("Be kind.\n---\n\n---\nBe brief,\nthen stop.\n", encoding="utf-8")
        return PlaceholderCorpus(path)
