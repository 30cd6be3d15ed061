"""The chinese_poetry corpus: made-up poems in the repository's real layout, and the real Tang poems where they lie."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasgen import corpora
from kerasgen.corpora import verse
from kerasgen.corpora.base import CorpusTally
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.poetry_repository import verify_archive
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError, MissingDependencyError

pytestmark = pytest.mark.one_backend

# Nonsense in the right shapes: every line counts a clock, a pot or a wheel.
FIVE = ["鐘上一隻貓，鐘下兩隻貓。", "貓看三個碗，碗看四把勺。"]
SEVEN = ["車輪轉了七八回，茶壺響了五六回。", "誰把電話放在桌，桌下無人接電話。"]
LONG = ["鐘一鐘二三，碗四碗五六。", "勺七勺八九，貓十貓百千。", "輪一輪二三，壺四壺五六。", "燈七燈八九，門十門百千。"]


def poem(paragraphs: list[str], title: str = "無題", author: str = "某人", **more: Any) -> dict[str, Any]:
    return {"author": author, "paragraphs": paragraphs, "title": title, **more}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Lay out files under a repository folder; what is bytes stays bytes."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False, indent=2).encode()
        place.write_bytes(data)
    return folder


def read(path: Path, **settings: Any) -> tuple[list[str], CorpusTally]:
    tally = CorpusTally()
    settings = {"dynasty": "tang", "lacunae": "keep"} | settings
    return [d.text for d in ChinesePoetry(path=str(path), **settings).documents(tally)], tally


@pytest.fixture
def one(tmp_path: Path) -> Callable[..., tuple[list[str], CorpusTally]]:
    """Reads poems that stand in one file."""

    def texts(*poems: Any, **settings: Any) -> tuple[list[str], CorpusTally]:
        write(tmp_path, {"全唐诗/poet.tang.0.json": list(poems)})
        return read(tmp_path, **settings)

    return texts


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Files whose names sort otherwise than their numbers, with all that must not be read beside them."""
    trap = [poem(["這是一個陷阱，誰都不許讀。"])]
    return write(
        tmp_path / "repo",
        {
            "全唐诗/poet.song.1000.json": [poem(["宋三。"])],
            "全唐诗/poet.song.0.json": [poem(["宋一。"]), poem(["宋二。"])],
            "全唐诗/poet.tang.10000.json": [poem(["唐四。"])],
            "全唐诗/poet.tang.2000.json": [poem(["唐三。"])],
            "全唐诗/poet.tang.0.json": [poem(["唐一。"], id="a-b-c"), poem(["唐二。"])],
            "全唐诗/error/poet.tang.1000.json": trap,
            "全唐诗/authors.tang.json": [{"name": "某人"}],
            "全唐诗/._poet.tang.0.json": b"\x00",
            "全唐诗/唐诗三百首.json": trap,
            "宋词/ci.song.0.json": trap,
        },
    )


ORDER = ["唐一。", "唐二。", "唐三。", "唐四。", "宋一。", "宋二。", "宋三。"]


def pack_tar(repository: Path, archive: Path, mode: str, top: str = "") -> Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(repository, arcname=top or ".")
    return archive


def pack_zip(repository: Path, archive: Path, top: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(repository.rglob("*"), reverse=True):
            packed.write(file, str(Path(top) / file.relative_to(repository)))
    return archive


class TestLayout:
    def test_files_come_by_number_tang_before_song_and_error_is_never_read(self, repository: Path) -> None:
        assert read(repository, dynasty="both")[0] == ORDER

    def test_the_folder_itself_is_as_good_as_the_repository(self, repository: Path) -> None:
        assert read(repository / "全唐诗", dynasty="both")[0] == ORDER

    @pytest.mark.parametrize(("mode", "suffix"), [("w", "tar"), ("w:gz", "tgz"), ("w:bz2", "tar.bz2"), ("w:xz", "bin")])
    @pytest.mark.parametrize("top", ["", "chinese-poetry-99ebbef7"])
    def test_a_tar_archive_reads_as_its_folder_does(
        self, repository: Path, tmp_path: Path, mode: str, suffix: str, top: str
    ) -> None:
        assert read(pack_tar(repository, tmp_path / f"a.{suffix}", mode, top), dynasty="both")[0] == ORDER

    @pytest.mark.parametrize("top", ["", "chinese-poetry-99ebbef7"])
    def test_a_zip_archive_reads_as_its_folder_does(self, repository: Path, tmp_path: Path, top: str) -> None:
        assert read(pack_zip(repository, tmp_path / "a.zip", top), dynasty="both")[0] == ORDER

    def test_a_zstd_archive_reads_as_its_folder_does(self, repository: Path, tmp_path: Path) -> None:
        zstandard = pytest.importorskip("zstandard")
        plain = pack_tar(repository, tmp_path / "a.tar", "w").read_bytes()
        (tmp_path / "a.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(plain))
        assert read(tmp_path / "a.tar.zst", dynasty="both")[0] == ORDER

    def test_one_dynasty_leaves_the_other_unread(self, repository: Path) -> None:
        (repository / "全唐诗" / "poet.song.0.json").write_bytes(b"not json")
        assert read(repository, dynasty="tang")[0] == ORDER[:4]

    def test_a_directory_into_which_an_archive_was_unpacked_is_read_as_the_archive_is(self, repository: Path) -> None:
        assert read(repository.parent, dynasty="tang")[0] == ORDER[:4]

    def test_half_of_the_repository_is_not_taken_for_the_whole(self, repository: Path) -> None:
        for file in (repository / "全唐诗").glob("poet.song.*"):
            file.unlink()
        with pytest.raises(CorpusUnavailableError, match="pass dynasty='tang'"):
            read(repository, dynasty="both")

    def test_an_archive_with_two_sets_of_poems_is_not_guessed_at(self, tmp_path: Path) -> None:
        write(tmp_path / "two", {f"{f}/poet.tang.0.json": [poem(["唐一。"])] for f in ("one", "other")})
        with pytest.raises(CorpusFormatError, match="one, other"):
            read(pack_tar(tmp_path / "two", tmp_path / "a.tar", "w"))

    @pytest.mark.parametrize("place", ["nowhere", "repo/宋词"])
    def test_a_place_without_poems_is_an_error_that_says_what_to_pass(self, repository: Path, place: str) -> None:
        with pytest.raises(CorpusUnavailableError, match="全唐诗"):
            read(repository.parent / place)

    def test_every_pass_yields_the_same_documents(self, repository: Path) -> None:
        corpus = ChinesePoetry(path=str(repository))
        assert list(corpus.documents()) == list(corpus.documents())

    def test_documents_are_lazy_a_broken_later_file_does_not_spoil_the_first_poem(self, repository: Path) -> None:
        (repository / "全唐诗" / "poet.tang.2000.json").write_bytes(b"[")
        assert next(ChinesePoetry(path=str(repository)).documents()).text == "唐一。"

    def test_an_abandoned_pass_over_an_archive_leaves_nothing_open(self, repository: Path, tmp_path: Path) -> None:
        documents = ChinesePoetry(path=str(pack_tar(repository, tmp_path / "a.tgz", "w:gz"))).documents()
        assert next(documents).text == "唐一。"
        documents.close()  # a ResourceWarning would fail the test


class TestDocuments:
    def test_a_document_knows_its_title_author_dynasty_and_form(self, tmp_path: Path) -> None:
        write(tmp_path, {"poet.tang.7.json": [poem(FIVE, title="貓", id="x-1"), poem(SEVEN, author="我")]})
        first, second = ChinesePoetry(path=str(tmp_path), dynasty="tang").documents()
        assert (first.id, second.id) == ("x-1", "poet.tang.7.json#1")
        assert first.text == "\n".join(FIVE)
        assert first.metadata == {
            "title": "貓",
            "author": "某人",
            "dynasty": "tang",
            "form": "jueju",
            "line_length": 5,
        }

    @pytest.mark.parametrize(
        ("form", "kept"),
        [
            ("any", ["five", "seven", "eight", "two", "mixed"]),
            ("five", ["five", "eight", "two"]),
            ("seven", ["seven"]),
            ("jueju", ["five", "seven"]),
            ("lüshi", ["eight"]),
            ("lushi", ["eight"]),
        ],
    )
    def test_a_form_keeps_the_poems_of_that_form(self, tmp_path: Path, form: Any, kept: list[str]) -> None:
        poems = {"five": FIVE, "seven": SEVEN, "eight": LONG, "two": LONG[:1], "mixed": [FIVE[0], SEVEN[0]]}
        write(tmp_path, {"poet.tang.0.json": [poem(lines, id=name) for name, lines in poems.items()]})
        tally = CorpusTally()
        corpus = ChinesePoetry(path=str(tmp_path), dynasty="tang", form=form)
        assert [d.id for d in corpus.documents(tally)] == kept
        assert tally.dropped["another form"] == len(poems) - len(kept)

    def test_both_spellings_of_a_form_are_one_value(self) -> None:
        assert ChinesePoetry(form="lushi") == ChinesePoetry(form="lüshi")

    def test_no_text_but_punctuation_is_dropped_and_counted(self, one: Any) -> None:
        texts, tally = one(poem([]), poem(["。"]), poem(["「」。", "，。"]), poem(FIVE))
        assert texts == ["\n".join(FIVE)]
        assert tally.dropped == {"no text but punctuation": 3}

    def test_lacunae_are_kept_or_the_poem_is_dropped(self, one: Any) -> None:
        poems = [poem(["鐘上□隻貓，鐘下兩隻貓。"]), poem(FIVE), poem([SEVEN[0] + "（一作「□」）"])]
        assert len(one(*poems, lacunae="keep")[0]) == 3
        texts, tally = one(*poems, lacunae="drop")
        assert texts == ["\n".join(FIVE), SEVEN[0]], "a hole in a note is no hole in the poem"
        assert tally.dropped == {"lacuna": 1}

    def test_duplicates_are_seen_after_notes_are_gone(self, one: Any) -> None:
        poems = [poem(FIVE), poem([FIVE[0], FIVE[1] + "（抄自某書。）"]), poem(SEVEN)]
        texts, tally = one(*poems)
        assert texts == ["\n".join(FIVE), "\n".join(SEVEN)]
        assert tally.dropped == {"duplicate text": 1}
        assert len(one(*poems, deduplicate=False)[0]) == 3

    def test_glyphs_by_their_parts_count_as_one_character_and_can_be_refused(self, one: Any) -> None:
        rare = poem(["鐘上一隻{犭豸/苗}，鐘下兩隻⿰犭苗。", FIVE[1]])
        assert one(rare, form="jueju")[0] == ["\n".join(rare["paragraphs"])]
        assert one(rare, glyphs="drop")[1].dropped == {"character written by its parts": 1}

    def test_the_tally_adds_up(self, one: Any) -> None:
        texts, tally = one(poem(FIVE), poem(FIVE), poem([]), poem(["（甲"]), poem(["（甲）"]), poem(["乙（甲）。"]))
        assert tally.read == 6
        assert tally.kept == len(texts)
        assert tally.read == tally.kept + sum(tally.dropped.values())
        assert tally.characters == sum(map(len, texts))
        assert tally.changed == {"notes stripped": 1}


class TestNotes:
    def test_notes_go_verse_stays(self, one: Any) -> None:
        noted = ["（題下注。）鐘上一（一作「二（或三）」）隻貓，鐘下兩隻(twice)貓。", "貓看三個碗，碗看四把勺。〖1〗"]
        assert one(poem(noted))[0] == ["\n".join(FIVE)]
        assert one(poem(noted), notes="keep")[0] == ["\n".join(noted)]

    def test_a_note_over_several_paragraphs_goes_with_the_full_stop_after_it(self, one: Any) -> None:
        texts, tally = one(poem([*FIVE, "（見某書卷一。", "又見卷二。", "）。"]))
        assert texts == ["\n".join(FIVE)]
        assert tally.changed == {"notes stripped": 1}

    def test_a_note_between_two_lines_does_not_join_them(self) -> None:
        assert verse.strip_notes("甲。（注一。\n注二。）乙，\n丙。") == "甲。\n乙，\n丙。"
        assert verse.strip_notes("甲，（注一。\n注二。）乙。") == "甲，乙。"

    def test_restored_characters_stay_and_footnote_numbers_go(self, one: Any) -> None:
        texts, tally = one(poem(["[鐘]上一隻[貓][一]，鐘下兩隻貓〖12〗。", FIVE[1]]))
        assert texts == ["\n".join(FIVE)]
        assert tally.changed == {"footnote numbers or square brackets stripped": 1}

    def test_a_quotation_mark_on_a_line_of_its_own_is_not_lost(self, one: Any) -> None:
        texts, tally = one(poem(["貓曰：「喵喵喵喵喵。", "」", "。"]))
        assert texts == ["貓曰：「喵喵喵喵喵。」"]
        assert tally.changed == {"stray punctuation closed up": 1}

    @pytest.mark.parametrize("text", ["鐘（甲。", "鐘）甲。", "鐘）甲（。", "鐘（（甲）。"])
    def test_unbalanced_brackets_drop_the_poem_and_are_counted(self, one: Any, text: str) -> None:
        texts, tally = one(poem([text]))
        assert texts == []
        assert tally.dropped == {"unbalanced brackets": 1}
        assert one(poem([text]), notes="keep")[0] == [text]

    @given(st.lists(st.tuples(st.text("甲乙，。\n□", max_size=6), st.text("丙（）丁。\n", max_size=8))))
    def test_stripping_removes_nothing_outside_brackets(self, parts: list[tuple[str, str]]) -> None:
        """Whatever stands outside comes back in order; only line ends may join it."""
        parts = [(outside, note) for outside, note in parts if verse.balanced(note)]
        text = "".join(f"{outside}（{note}）" for outside, note in parts)
        stripped = verse.strip_notes(text)
        outside = "".join(outside for outside, _ in parts)
        assert stripped.replace("\n", "") == outside.replace("\n", "")
        assert stripped.count("\n") >= outside.count("\n")

    @given(st.text("甲乙（）()，。\n"))
    def test_what_has_no_balanced_brackets_is_refused_and_else_none_is_left(self, text: str) -> None:
        if verse.balanced(text):
            assert not set("（）()") & set(verse.strip_notes(text))
        else:
            with pytest.raises(ValueError, match="balanced"):
                verse.strip_notes(text)

    @given(st.text("甲乙[]〖〗一十19{}/，。」\n"))
    def test_words_survive_marks_and_closing_up(self, text: str) -> None:
        kept = Counter(verse.close_up(verse.strip_marks(text)))
        assert all(kept[word] == text.count(word) for word in "甲乙")


class TestVerse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("\n".join(FIVE), ("jueju", 4, 5)),
            ("".join(SEVEN), ("jueju", 4, 7)),
            ("\n".join(LONG), ("lüshi", 8, 5)),
            ("鐘上一。碗下二。勺左三。門右四。", ("other", 4, 3)),
            (FIVE[0] + SEVEN[0], ("other", 4, None)),
            ("「鐘上一隻貓」，《鐘》下兩隻貓！貓看三·個碗？碗看□把\ue829。", ("jueju", 4, 5)),
            ("。", ("other", 0, None)),
        ],
    )
    def test_form_counts_lines_and_characters(self, text: str, expected: tuple[str, int, int | None]) -> None:
        found = verse.form(text)
        assert (found.form, found.line_count, found.line_length) == expected


class TestScript:
    def test_simplified_converts_text_title_and_author(self, tmp_path: Path) -> None:
        pytest.importorskip("opencc")
        write(tmp_path, {"poet.tang.0.json": [poem(FIVE, title="鐘樓", author="張三")]})
        tally = CorpusTally()
        (document,) = ChinesePoetry(path=str(tmp_path), dynasty="tang", script="simplified").documents(tally)
        assert document.text == "钟上一只猫，钟下两只猫。\n猫看三个碗，碗看四把勺。"
        assert (document.metadata["title"], document.metadata["author"]) == ("钟楼", "张三")
        assert tally.changed == {"script converted": 1}

    def test_traditional_text_is_not_converted_a_second_time(self, one: Any) -> None:
        """后 is the empress in a traditional text and 後 only in a simplified one."""
        pytest.importorskip("opencc")
        texts, tally = one(poem(["后問鐘何在。"]), poem(["猫在门后面。"]), script="traditional")
        assert texts == ["后問鐘何在。", "貓在門後面。"]
        assert tally.changed == {"script converted": 1}

    def test_a_missing_opencc_names_the_extra(self, one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "opencc", None)
        with pytest.raises(MissingDependencyError, match=r"kerasgen\[opencc\]") as caught:
            one(poem(FIVE), script="simplified")
        assert caught.value.extra == "opencc"


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "byte", "line"),
        [
            ('[\n {"paragraphs": ["鐘。"]},\n x]'.encode(), 32, 3),
            (b'[\n"\xff"]', 3, 2),
            (b"", 0, 1),
            (b'{"a": 1}', 0, 1),
        ],
    )
    def test_a_malformed_file_is_named_with_its_byte_and_line(
        self, repository: Path, content: bytes, byte: int, line: int
    ) -> None:
        (repository / "全唐诗" / "poet.tang.2000.json").write_bytes(content)
        with pytest.raises(CorpusFormatError, match=rf"poet\.tang\.2000\.json.* at byte {byte} \(line {line}\)") as got:
            read(repository)
        assert (got.value.byte, got.value.line) == (byte, line)
        assert str(got.value.path).endswith("poet.tang.2000.json")
        texts, tally = read(repository, on_error="skip")
        assert texts == ["唐一。", "唐二。", "唐四。"]
        assert tally.dropped == {"malformed file poet.tang.2000.json": 1}

    @pytest.mark.parametrize(
        "entry", ["text", {"title": "無"}, {"paragraphs": "鐘。"}, {"paragraphs": [1]}, poem(FIVE, id=5)]
    )
    def test_a_malformed_poem_is_named_by_its_index(self, one: Any, entry: Any) -> None:
        with pytest.raises(CorpusFormatError, match=r"poet\.tang\.0\.json: the poem with index 1"):
            one(poem(SEVEN), entry)
        texts, tally = one(poem(SEVEN), entry, on_error="skip")
        assert texts == ["\n".join(SEVEN)]
        assert tally.dropped == {"malformed poem": 1}

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_wherever_a_tar_archive_is_cut_nothing_is_lost_in_silence(
        self, repository: Path, tmp_path: Path, mode: str
    ) -> None:
        """Cut at a member's boundary, Python's tarfile takes the end of the file for the end of the archive."""
        whole = pack_tar(repository, tmp_path / "a", mode).read_bytes()
        with tarfile.open(tmp_path / "a") as tar:
            starts = [member.offset for member in tar]
        # In a bare archive members begin where their headers do; what lies behind the last is the end mark and filling.
        cuts = starts + [start + 700 for start in starts] if mode == "w" else range(0, len(whole) * 9 // 10, 37)
        for size in cuts:
            (tmp_path / "cut").write_bytes(whole[:size])
            with pytest.raises(CorpusFormatError, match=r"cut can't be read .* byte \d+") as caught:
                read(tmp_path / "cut", dynasty="both")
            assert caught.value.byte is not None
            assert caught.value.byte <= size

    def test_a_cut_zip_archive_is_an_error(self, repository: Path, tmp_path: Path) -> None:
        whole = pack_zip(repository, tmp_path / "a.zip").read_bytes()
        (tmp_path / "a.zip").write_bytes(whole[:-40])
        with pytest.raises(CorpusFormatError, match="cut"):
            read(tmp_path / "a.zip")

    def test_a_zip_member_with_a_flipped_bit_is_an_error(self, repository: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.write(repository / "全唐诗" / "poet.tang.0.json", "poet.tang.0.json")
        content = bytearray((tmp_path / "a.zip").read_bytes())
        content[60] ^= 1
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(CorpusFormatError, match="CRC"):
            read(tmp_path / "a.zip")

    def test_a_bad_header_in_mid_archive_is_an_error(self, repository: Path, tmp_path: Path) -> None:
        archive = pack_tar(repository, tmp_path / "a.tar", "w")
        with tarfile.open(archive) as tar:
            offset = tar.getmembers()[4].offset
        content = bytearray(archive.read_bytes())
        content[offset : offset + 512] = b"\x01" * 512
        archive.write_bytes(content)
        with pytest.raises(CorpusFormatError, match="header"):
            read(tmp_path / "a.tar")

    def test_skip_keeps_what_came_before_the_cut_and_counts_it(self, repository: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for number in (0, 2000):
                tar.add(repository / "全唐诗" / f"poet.tang.{number}.json", f"poet.tang.{number}.json")
        with tarfile.open(tmp_path / "a.tar") as tar:
            size = tar.getmembers()[1].offset + 100
        (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:size])
        texts, tally = read(tmp_path / "a.tar", on_error="skip")
        assert texts == ["唐一。", "唐二。"]
        assert tally.dropped == {f"archive damaged at byte {size}": 1}

    def test_a_file_that_is_no_archive_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar.gz").write_text("no archive at all " * 100, encoding="utf-8")
        with pytest.raises(CorpusFormatError, match="zip or tar"):
            read(tmp_path / "a.tar.gz")


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {"dynasty": "ming"},
            {"form": "sonnet"},
            {"script": "latin"},
            {"notes": None},
            {"lacunae": "fill"},
            {"glyphs": "draw"},
            {"on_error": "ignore"},
            {"deduplicate": "no"},
            {"path": ""},
            {"path": 5},
            {"cache_dir": ""},
            {"url": "ftp://somewhere"},
        ],
    )
    def test_a_wrong_setting_is_refused_at_birth_by_name(self, settings: dict[str, Any]) -> None:
        with pytest.raises(CorpusArgumentError, match=rf"{next(iter(settings))}.* Received"):
            ChinesePoetry(**settings)

    def test_the_text_form_gives_the_constructors_value(self) -> None:
        written = "chinese_poetry:path=/poems,dynasty=tang,form=lüshi,notes=keep,deduplicate=false"
        expected = ChinesePoetry(path="/poems", dynasty="tang", form="lüshi", notes="keep", deduplicate=False)
        assert corpora.create(written) == expected

    def test_constructing_reads_nothing_and_loads_nothing_heavy(self) -> None:
        code = (
            "import sys\n"
            "from kerasgen.corpora.chinese_poetry import ChinesePoetry\n"
            "ChinesePoetry(path='/nowhere', script='simplified')\n"
            "heavy = {'keras', 'numpy', 'jax', 'tensorflow', 'opencc', 'tqdm', 'platformdirs', 'urllib.request'}\n"
            "print(*heavy & set(sys.modules))"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == ""


class TestPins:
    def test_an_archive_of_other_poems_is_not_the_pinned_revision(self, repository: Path, tmp_path: Path) -> None:
        with pytest.raises(CorpusFormatError, match="is not the file of revision"):
            verify_archive(pack_tar(repository, tmp_path / "a.tgz", "w:gz"))

    def test_an_archive_without_poems_is_not_the_pinned_revision(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo("README.md"), io.BytesIO(b""))
        with pytest.raises(CorpusFormatError, match="lacks 58 of 58"):
            verify_archive(tmp_path / "a.tar")

    def test_the_real_files_have_the_pinned_digests(self, shared_data: Path) -> None:
        verify_archive(shared_data / "chinese-poetry.tang.tar.xz")


def test_the_real_tang_poems_are_all_accounted_for(shared_data: Path) -> None:
    """Every poem of the 58 files is yielded or counted, and what is yielded is verse."""
    tally = CorpusTally()
    corpus = ChinesePoetry(path=str(shared_data / "chinese-poetry.tang.tar.xz"), dynasty="tang")
    seen: Counter[str] = Counter()
    for document in corpus.documents(tally):
        assert document.text == document.text.strip()
        assert not set("（）()□●囗〔〕") & set(document.text)
        assert all(verse.has_words(line) for line in document.text.split("\n"))
        seen[document.metadata["form"]] += 1
        seen[document.id] += 1
    assert tally.dropped == {
        "no text but punctuation": 180,  # 176 full stops and 4 poems without any text
        "no text but notes": 89,  # 空 and a note in 72 of them
        "unbalanced brackets": 3,
        "fragment (句)": 904,
        "preface or editor's prose": 7,
        "lacuna": 467,
        "duplicate text": 772,
    }
    assert (tally.read, tally.kept) == (57_607, 55_185)
    assert max(count for name, count in seen.items() if "-" in name) == 1, "an id names one poem"
    assert seen["lüshi"] > 23_000
    assert seen["jueju"] > 15_000


def test_unfiltered_the_real_tang_poems_show_what_the_filters_are_for(shared_data: Path) -> None:
    path = str(shared_data / "chinese-poetry.tang.tar.xz")
    corpus = ChinesePoetry(path=path, dynasty="tang", notes="keep", lacunae="keep", fragments="keep", deduplicate=False)
    tally = CorpusTally()
    texts = [document.text for document in corpus.documents(tally)]
    assert (tally.kept, dict(tally.dropped)) == (57_427, {"no text but punctuation": 180})
    assert sum("□" in text for text in texts) == 444
    assert sum("（" in text for text in texts) == 4_591
    assert sum(not verse.balanced(text) for text in texts) == 36
    assert len(texts) - len(set(texts)) == 777  # of 955, which count full stops as texts
