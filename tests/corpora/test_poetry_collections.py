"""The other folders of the chinese-poetry repository, and entries that are no poems, made up in the real layouts."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kerasgen.corpora import verse, verse_variants
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

pytestmark = pytest.mark.one_backend

# Nonsense in the right shapes.
LINES = ["鐘上一隻貓，鐘下兩隻貓。", "貓看三個碗，碗看四把勺。"]
SIMPLE = ["钟上一只猫，钟下两只猫。", "猫看三个碗，碗看四把勺。"]
LAYOUTS: dict[str, Any] = {
    "宋词/ci.song.1000.json": [{"author": "乙", "paragraphs": ["壶响五六回。"], "rhythmic": "茶壶令"}],
    "宋词/ci.song.0.json": [
        {"author": "甲", "paragraphs": SIMPLE, "rhythmic": "看猫儿", "tags": ["某选"]},
        {"author": "甲", "paragraphs": ["灯七灯八九。"], "rhythmic": "看猫儿", "prologue": "序"},
    ],
    "宋词/author.song.json": [{"name": "甲", "description": "某人", "short_description": None}],
    "诗经/shijing.json": [{"title": "猫鸣", "chapter": "国风", "section": "某南", "content": SIMPLE}],
    "元曲/yuanqu.json": [
        {"dynasty": "yuan", "author": "丙", "title": "猫戏", "paragraphs": ["(正末唱)钟上一只猫，(合)钟下两只猫。"]},
        {
            "dynasty": "yuan",
            "author": "丙",
            "title": "碗戏",
            "paragraphs": ["碗看勺。", "(旦云)你看见碗么？(唱)勺看碗。"],
        },
    ],
    "五代诗词/huajianji/huajianji-0-preface.json": [
        {"title": "某集", "rhythmic": "某集", "author": "丁", "paragraphs": ["某年某月，某人为某集作序。"], "notes": []}
    ],
    "五代诗词/huajianji/huajianji-1-juan.json": [
        {"title": "看灯 其一", "rhythmic": "看灯", "author": "丁", "paragraphs": ["灯七[1]灯八。"], "notes": ["1.灯"]}
    ],
    "五代诗词/nantang/intro.json": {"title": "某词", "desc": ["某书。"]},
    "楚辞/chuci.json": [{"title": "问猫", "section": "问", "author": "戊", "content": ["猫兮猫兮，", "钟下。"]}],
    "纳兰性德/纳兰性德诗集.json": [{"title": "山钟", "author": "己", "para": ["钟一程，猫一程", "碗一更"]}],
    "曹操诗集/caocao.json": [{"title": "短壶行", "paragraphs": ["对钟当歌，（一解）", "猫生几何。"]}],
    "御定全唐詩/json/001.json": [
        {
            "title": "鐘",
            "author": "庚",
            "biography": "庚，某地人。",
            "paragraphs": LINES,
            "notes": ["某注。"],
            "volume": "卷一",
            "no#": 1,
        }
    ],
    "蒙学/mengxue.json": {
        "title": "某规",
        "author": "辛",
        "content": [
            {"chapter": "总叙", "paragraphs": ["猫规者。"]},
            {"title": "卷二", "content": [{"chapter": "入则", "author": "壬", "paragraphs": ["钟鸣起。"]}]},
        ],
    },
    "论语/lunyu.json": [{"chapter": "学猫篇", "paragraphs": ["子曰：「猫。」"]}],
    "幽梦影/youmengying.json": [{"content": "读钟宜夜。", "comment": ["某曰：然。"]}],
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write(tmp_path / "chinese-poetry", LAYOUTS)


def read(path: Path, **settings: Any) -> tuple[list[Document], CorpusTally]:
    tally = CorpusTally()
    return list(ChinesePoetry(path=str(path), **settings).documents(tally)), tally


def entry(*paragraphs: str, title: str = "無題", **settings: Any) -> tuple[list[str], Counter[str]]:
    """Read one entry of 全唐诗."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        poem = {"title": title, "author": "某", "paragraphs": list(paragraphs)}
        write(Path(folder), {"全唐诗/poet.tang.0.json": [poem]})
        documents, tally = read(Path(folder), dynasty="tang", **settings)
    return [document.text for document in documents], tally.dropped


class TestCollections:
    @pytest.mark.parametrize(
        ("collection", "texts"),
        [
            ("宋词", ["\n".join(SIMPLE), "灯七灯八九。", "壶响五六回。"]),
            ("song_ci", ["\n".join(SIMPLE), "灯七灯八九。", "壶响五六回。"]),
            ("诗经", ["\n".join(SIMPLE)]),
            ("元曲", ["钟上一只猫，钟下两只猫。"]),
            ("五代诗词", ["灯七灯八。"]),
            ("楚辞", ["猫兮猫兮，\n钟下。"]),
            ("nalan_xingde", ["钟一程，猫一程\n碗一更"]),
            ("曹操诗集", ["对钟当歌，\n猫生几何。"]),
            ("御定全唐詩", ["\n".join(LINES)]),
            ("蒙学", ["猫规者。", "钟鸣起。"]),
            ("论语", ["子曰：「猫。」"]),
            ("幽梦影", ["读钟宜夜。"]),
        ],
    )
    @pytest.mark.parametrize("archived", [False, True])
    def test_each_folder_is_read_in_its_own_layout(
        self, repository: Path, tmp_path: Path, collection: str, texts: list[str], archived: bool
    ) -> None:
        if archived:
            with tarfile.open(tmp_path / "a.tar", "w") as tar:
                tar.add(repository, "chinese-poetry-1234")
        documents, tally = read(tmp_path / "a.tar" if archived else repository, collection=collection)
        assert [document.text for document in documents] == texts
        assert tally.read == tally.kept + sum(tally.dropped.values())
        assert all(document.metadata["collection"] for document in documents)

    def test_what_is_no_poem_is_counted_with_its_reason(self, repository: Path) -> None:
        _, tally = read(repository, collection="all")
        assert tally.dropped == {
            "no poems in the file 宋词/author.song.json": 1,
            "no poems in the file 五代诗词/nantang/intro.json": 1,
            "partly spoken scene of a play": 1,
            "preface or editor's prose": 1,
            "duplicate text": 1,
        }

    def test_a_document_says_what_its_entry_says(self, repository: Path) -> None:
        (_, second, _), _ = read(repository, collection="宋词")
        assert second.id == "宋词/ci.song.0.json#1"
        assert second.metadata == {
            "title": "看猫儿",
            "author": "甲",
            "dynasty": "song",
            "form": "other",
            "line_length": 5,
            "collection": "宋词",
            "rhythmic": "看猫儿",
        }
        (poem,), _ = read(repository, collection="诗经")
        assert (poem.metadata["chapter"], poem.metadata["section"]) == ("国风", "某南")
        (_, nested), _ = read(repository, collection="蒙学")
        assert (nested.metadata["title"], nested.metadata["author"]) == ("入则", "壬")

    @pytest.mark.parametrize("place", ["宋词", "五代诗词/huajianji", "诗经/shijing.json", "蒙学/mengxue.json"])
    def test_a_folder_of_its_own_and_a_single_file_need_no_name(self, repository: Path, place: str) -> None:
        documents, _ = read(repository / place)
        assert documents
        assert {document.metadata["collection"] for document in documents} == {place.split("/")[0]}

    def test_a_single_compressed_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "poet.song.0.json.gz").write_bytes(
            gzip.compress(json.dumps([{"title": "貓", "author": "某", "paragraphs": LINES}]).encode())
        )
        (poem,), _ = read(tmp_path / "poet.song.0.json.gz")
        assert (poem.text, poem.metadata["dynasty"]) == ("\n".join(LINES), "song")
        with pytest.raises(CorpusArgumentError, match=r"is no file poet\.tang"):
            read(tmp_path / "poet.song.0.json.gz", dynasty="tang")

    def test_where_several_are_and_none_is_chosen_the_error_lists_them(self, repository: Path) -> None:
        with pytest.raises(CorpusUnavailableError, match=r"several collections: .*宋词.*collection='all'"):
            read(repository)

    def test_where_the_poems_of_tang_and_song_are_they_are_what_is_read(self, repository: Path) -> None:
        poem = {"title": "貓", "author": "某", "paragraphs": LINES}
        write(repository, {"全唐诗/poet.tang.0.json": [poem], "全唐诗/poet.song.0.json": [poem]})
        assert len(read(repository, deduplicate=False)[0]) == 2

    def test_a_collection_that_is_not_there_is_named_with_those_that_are(self, repository: Path) -> None:
        with pytest.raises(CorpusUnavailableError, match=r"no collection 水墨唐诗.*It holds: .*宋词"):
            read(repository, collection="水墨唐诗")

    def test_a_name_that_no_collection_has_and_half_of_one_are_refused(self) -> None:
        with pytest.raises(CorpusArgumentError, match=r"'宋词'.*song_ci.*Received: 'haiku'"):
            ChinesePoetry(collection="haiku")
        for given, meant in (("宋辞", "宋词"), ("songci", "song_ci")):
            with pytest.raises(CorpusArgumentError, match=rf"Did you mean .*'{meant}'"):
                ChinesePoetry(collection=given)
        with pytest.raises(CorpusArgumentError, match="chooses a half of 全唐诗"):
            ChinesePoetry(collection="宋词", dynasty="song")

    @pytest.mark.parametrize(
        ("given", "folder"),
        [("宋詞", "宋词"), ("詩經", "诗经"), ("御定全唐诗", "御定全唐詩"), ("全唐詩", "全唐诗")],
    )
    def test_a_collection_is_named_in_either_script(self, given: str, folder: str) -> None:
        assert ChinesePoetry(collection=given) == ChinesePoetry(collection=folder)

    def test_a_lyric_and_its_tune_are_in_the_script_that_is_asked_for(self, tmp_path: Path) -> None:
        pytest.importorskip("opencc")
        lyric = {"rhythmic": "减字木兰花", "author": "丙", "paragraphs": ["云过数山青。", "窗外几声风。"]}
        write(tmp_path, {"宋词/ci.song.0.json": [lyric]})
        (found,), _ = read(tmp_path, collection="宋詞", script="traditional")
        assert found.text == "雲過數山青。\n窗外幾聲風。"
        assert (found.metadata["rhythmic"], found.metadata["title"]) == ("減字木蘭花", "減字木蘭花")
        assert found.metadata["collection"] == "宋词"

    def test_a_single_file_without_poems_is_an_error(self, tmp_path: Path) -> None:
        """A folder's list of poets is passed over; a person who names it alone would train on nothing."""
        write(tmp_path, {"宋词/author.song.json": LAYOUTS["宋词/author.song.json"]})
        with pytest.raises(CorpusFormatError, match=r"author\.song\.json: .* no text under 'paragraphs'.*only 'name'"):
            read(tmp_path / "宋词" / "author.song.json")

    def test_an_entry_without_text_beside_poems_is_malformed(self, tmp_path: Path) -> None:
        write(tmp_path, {"宋词/ci.song.0.json": [{"rhythmic": "令", "paragraphs": ["猫。"]}, {"rhythmic": "令"}]})
        with pytest.raises(CorpusFormatError, match=r"the poem with index 1 has no text under 'paragraphs'"):
            read(tmp_path)
        documents, tally = read(tmp_path, on_error="skip")
        assert ([document.text for document in documents], tally.dropped) == (["猫。"], {"malformed poem": 1})

    def test_what_is_no_json_is_called_what_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "poems.json").write_bytes(b"%PDF-1.7\n")
        with pytest.raises(CorpusFormatError, match="it is a PDF"):
            read(tmp_path / "poems.json")


class TestNoPoems:
    @pytest.mark.parametrize(
        "title",
        [
            "句",
            "句  其一二",
            "句 三",
            "逸句",
            "殘句 二",
            "断句",
            "又句",
            "鐘（句）",
            "貓歌（逸句〖1〗） 四",
            "句（見某書）",
        ],
    )
    def test_lines_of_lost_poems_are_dropped_and_counted(self, title: str) -> None:
        assert entry(LINES[0], title=title) == ([], {"fragment (句)": 1})
        assert entry(LINES[0], title=title, fragments="keep")[0] == [LINES[0]]

    @pytest.mark.parametrize("title", ["絕句", "集句 二", "聯句", "四言章句", "詠句讀", "得句", "五絕句寄某"])
    def test_poems_whose_titles_hold_the_word_are_kept(self, title: str) -> None:
        assert entry(*LINES, title=title)[0] == ["\n".join(LINES)]

    def test_titles_of_poems_that_stand_elsewhere_are_dropped_and_counted(self) -> None:
        assert entry("詩題：看貓首句：鐘上一隻貓。", title="存目  其三") == ([], {"title without its poem (存目)": 1})
        assert entry("詩題：看貓首句：鐘上一隻貓。", title="看貓")[0] == []

    @pytest.mark.parametrize("sign", ["□", "●", "囗", "■", "\ufffd", "……"])
    def test_every_sign_for_lost_characters_is_one(self, sign: str) -> None:
        assert entry(f"鐘上{sign}隻貓，鐘下兩隻貓。")[1] == {"lacuna": 1}
        assert entry(f"鐘上{sign}隻貓，鐘下兩隻貓。", lacunae="keep")[1] == {}

    @pytest.mark.parametrize("note", ["（下缺）", "（上闕）", "（缺十字）", "（以下泐）"])
    def test_a_note_that_the_rest_is_lost_is_a_lacuna(self, note: str) -> None:
        assert entry(LINES[0] + note) == ([], {"lacuna": 1})

    def test_a_note_on_a_lost_title_is_none(self) -> None:
        assert entry(*LINES, "（缺題。）")[0] == ["\n".join(LINES)]

    def test_a_word_for_nothing_is_no_poem(self) -> None:
        assert entry("空（某書作某詩。", "）。") == ([], {"no text but notes": 1})

    def test_an_editors_foreword_is_no_poem(self) -> None:
        prose = "某年某月，某人輯錄某書，凡若干卷，皆見《全某詩》卷一、《全某文》卷二。" * 8
        assert entry(prose, title="前言") == ([], {"preface or editor's prose": 1})

    def test_an_editors_remark_after_the_poem_goes(self) -> None:
        assert entry(*LINES, "按：《某書》卷八收此首，缺題。")[0] == ["\n".join(LINES)]
        assert entry(*LINES, "見《某書》卷四引。", "今據以校。")[0] == ["\n".join(LINES)]
        quoting = ["家藏一卷《鐘經》，世世看貓得力。"]
        assert entry(*quoting)[0] == quoting, "a book in a line of verse is no remark"


class TestBrackets:
    @pytest.mark.parametrize(
        "last",
        [
            "碗看四把勺）。",
            "碗看四把勺。（《某書》卷二（某人云此詩見某書。",
            "碗看四把勺。（見《某書》卷二十。",
            "碗看四把勺。見《某書》卷三）。",
        ],
    )
    def test_one_stray_bracket_does_not_cost_the_poem(self, last: str) -> None:
        texts, dropped = entry(LINES[0], "貓看三個碗，" + last)
        assert (texts, dropped) == (["\n".join(LINES)], {})

    @pytest.mark.parametrize(
        "line", ["供養（某書）作「甲」）羅漢貓。", "鐘（甲。", "（甲。", "鐘上（一隻貓。", ")甲乙。"]
    )
    def test_where_verse_and_note_can_not_be_told_apart_it_does(self, line: str) -> None:
        assert entry(line)[1] == {"unbalanced brackets": 1}

    @pytest.mark.parametrize(
        ("line", "left"),
        [
            ("〔合唱〕鐘上一隻貓。", "鐘上一隻貓。"),
            ("鐘上一隻貓。〔問答照常〕。", "鐘上一隻貓。"),
            ("［旦］鐘上一隻貓。［合前］鐘下貓。", "鐘上一隻貓。鐘下貓。"),
            ("鐘上〔一〕隻貓〔12〕。", "鐘上隻貓。"),
            ("鐘〔上〕一隻貓。", "鐘上一隻貓。"),
            ("他唱〔看貓兒〕到天明。", "他唱看貓兒到天明。"),
            ("〔看貓兒〕，唱到天明。", "看貓兒，唱到天明。"),
        ],
    )
    def test_directions_go_and_restored_characters_stay(self, line: str, left: str) -> None:
        assert entry(line)[0] == [left]
        assert entry(line, notes="keep")[0] == [line]


class TestVariants:
    def test_variants_of_a_character_become_one(self) -> None:
        assert verse_variants.unify("黄貓却在鐘峯，時時長鳴") == "黃貓卻在鐘峰，時時長鳴"
        assert entry("時看黄貓却上峯。", unify_variants=True)[0] == ["時看黃貓卻上峰。"]
        assert entry("時看黄貓却上峯。")[0] == ["時看黄貓却上峯。"]

    def test_in_simplified_text_its_own_forms_stay(self) -> None:
        assert verse_variants.unify("风来时，黄猫却上峯") == "风来时，黄猫却上峰"

    def test_it_is_done_after_one_pass_and_no_variant_is_kept_elsewhere(self) -> None:
        for table in (verse_variants._SHARED, verse_variants._TRADITIONAL):
            assert not set(map(ord, table.values())) & set(table)

    def test_poems_that_two_editions_write_differently_are_duplicates(self, tmp_path: Path) -> None:
        poems = [{"title": "貓", "author": "某", "paragraphs": [f"鐘時{which}貓來。"]} for which in "黃黄"]
        write(tmp_path, {"poet.tang.0.json": poems})
        assert len(read(tmp_path, dynasty="tang")[0]) == 2
        assert len(read(tmp_path, dynasty="tang", unify_variants=True)[0]) == 1


class TestRealCollections:
    """Counts of the real folders, each looked through by eye when it was written down."""

    @pytest.mark.parametrize(
        ("collection", "read_kept", "dropped"),
        [
            ("宋词", (15_284, 14_533), {"lacuna": 574, "duplicate text": 175, "no text but notes": 1}),
            (
                "元曲",
                (11_057, 8_186),
                {
                    "partly spoken scene of a play": 2_652,
                    "lacuna": 52,
                    "no text but punctuation": 144,
                    "no text but notes": 2,
                    "duplicate text": 19,
                    "unbalanced brackets": 2,
                },
            ),
            ("五代诗词", (545, 541), {"preface or editor's prose": 1, "lacuna": 1}),
            ("诗经", (305, 305), {}),
            ("楚辞", (65, 65), {}),
            ("曹操诗集", (26, 26), {}),
            ("纳兰性德", (258, 257), {"duplicate text": 1}),
        ],
    )
    def test_every_entry_is_yielded_or_counted(
        self, shared_data: Path, collection: str, read_kept: tuple[int, int], dropped: dict[str, int]
    ) -> None:
        documents, tally = read(shared_data / "chinese-poetry.collections.tar.xz", collection=collection)
        assert (tally.read, tally.kept) == read_kept
        assert {why: count for why, count in tally.dropped.items() if "in the file" not in why} == dropped
        assert all(verse.has_words(document.text) for document in documents)
        assert not any(set("（）()〔〕［］□●") & set(document.text) for document in documents)


@pytest.mark.slow
@pytest.mark.nightly
def test_of_the_real_song_poems_neither_fragments_nor_titles_are_kept(shared_data: Path) -> None:
    _, tally = read(shared_data / "chinese-poetry.song.tar.xz", dynasty="song")
    assert tally.dropped["fragment (句)"] == 5_119
    assert tally.dropped["title without its poem (存目)"] == 292
    assert tally.dropped["unbalanced brackets"] == 0
    assert (tally.read, tally.kept) == (200_009, 193_289)


def test_folders_of_a_repository_that_are_links_are_followed(tmp_path: Path) -> None:
    """A folder kept elsewhere, and a circle of links; each file is read once."""
    elsewhere, repository = tmp_path / "disk", tmp_path / "repository"
    for name, content in LAYOUTS.items():
        file = elsewhere / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    repository.mkdir()
    for folder in sorted({Path(name).parts[0] for name in LAYOUTS}):
        (repository / folder).symlink_to(elsewhere / folder)
    (elsewhere / "宋词" / "circle").symlink_to(repository)
    linked = [document.text for document in ChinesePoetry(path=str(repository), collection="all").documents()]
    (elsewhere / "宋词" / "circle").unlink()
    plain = [document.text for document in ChinesePoetry(path=str(elsewhere), collection="all").documents()]
    assert linked == plain
    assert plain
