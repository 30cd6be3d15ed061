"""The corpus passes kerasgen's tests, and reads front matter as people write it."""

from pathlib import Path

import pytest
from kerasgen.corpora.base import CorpusTally
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError
from kerasgen.testing import CorpusContract

from kerasgen_field.notes import Notes


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    folder = tmp_path / "vault"
    (folder / "2026").mkdir(parents=True)
    written = {
        "a.md": "---\ntitle: Rain\ndate: 2026-05-01\ntags: [essay, weather]\n---\nIt rains. %% a remark %%\n",
        "2026/b.md": "Without front matter.\n\n---\n\nA rule is no front matter.\n",
        "c.md": "---\ndraft: true\n---\nNot yet.\n",
        "d.md": "---\ntags: '#essay, snow'\n---\nSnow.\n",
        "e.md": "---\ntitle: Empty\n---\n<!-- nothing -->\n",
        "f.txt": "no Markdown",
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


class TestNotes(CorpusContract):
    bad_arguments = ({"path": ""}, {"tag": ""}, {"title": "yes"})

    @pytest.fixture
    def corpus(self, vault: Path) -> Notes:
        return Notes(vault)

    @pytest.fixture
    def spec(self, vault: Path) -> str:
        return f"notes:path={vault}"


def test_front_matter_becomes_metadata_and_drafts_are_dropped(vault: Path) -> None:
    tally = CorpusTally()
    rule, rain, snow = Notes(vault).documents(tally)
    assert rain.text == "# Rain\n\nIt rains."
    assert rain.metadata == {"title": "Rain", "date": "2026-05-01", "tags": ["essay", "weather"]}
    assert rule.text == "Without front matter.\n\n---\n\nA rule is no front matter."
    assert [document.id for document in (rule, rain, snow)] == ["2026/b.md", "a.md", "d.md"]
    assert dict(tally.dropped) == {"draft": 1, "empty": 1}


def test_a_tag_chooses(vault: Path) -> None:
    assert [document.id for document in Notes(vault, tag="essay", title=False)] == ["a.md", "d.md"]


def test_a_file_that_can_not_be_read_is_named(vault: Path, tmp_path: Path) -> None:
    (vault / "g.md").write_text("---\ntitle: [open\n---\ntext\n", encoding="utf-8")
    with pytest.raises(CorpusFormatError, match=r"g\.md is no YAML") as caught:
        list(Notes(vault).documents())
    assert caught.value.path == str(vault / "g.md")
    (vault / "g.md").write_bytes(b"caf\xe9")
    with pytest.raises(CorpusFormatError, match="not UTF-8: byte 3"):
        list(Notes(vault).documents())
    with pytest.raises(CorpusUnavailableError, match="no folder and no file"):
        Notes(tmp_path / "nowhere").check()
