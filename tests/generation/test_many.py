"""A file of many texts is whole or not there, and a killed run goes on as if it had never been."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import POSIX, killed_at

from kerasgen.errors import GenerateArgumentError, GenerationError, LockedError
from kerasgen.generation.json_lines import Chunk, write_lines

pytestmark = pytest.mark.one_backend

PROMPTS = [f"prompt {n % 7}" for n in range(23)]


class KilledError(Exception):
    pass


def runner(*, dies_at: int | None = None):
    """Generates upper case, and dies before the given prompt."""
    seen: list[int] = []

    def run(chunk: Chunk):
        if dies_at is not None and chunk.first + len(chunk.prompts) > dies_at:
            raise KilledError
        seen.append(chunk.first)
        return [{"text": prompt.upper()} for prompt in chunk.prompts]

    return run, seen


def write(path, prompts=PROMPTS, *, dies_at=None, settings="same", **more):
    run, seen = runner(dies_at=dies_at)
    write_lines(path, prompts, run, settings=settings, **({"chunk_size": 4} | more))
    return seen


def test_every_prompt_has_a_line_in_order(tmp_path):
    assert write(tmp_path / "folder" / "texts.jsonl") == [0, 4, 8, 12, 16, 20]
    lines = [json.loads(line) for line in (tmp_path / "folder" / "texts.jsonl").read_text("utf-8").splitlines()]
    assert lines == [{"index": n, "prompt": prompt, "text": prompt.upper()} for n, prompt in enumerate(PROMPTS)]
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["texts.jsonl"]


@settings(max_examples=60, deadline=None)
@given(
    deaths=st.lists(st.integers(0, 23), max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    torn=st.integers(0, 60),
)
def test_however_often_it_is_killed_the_file_is_the_same(tmp_path_factory, deaths, sizes, torn):
    folder = tmp_path_factory.mktemp("killed")
    write(folder / "whole.jsonl")
    for dies_at, size in zip([*deaths, None], sizes, strict=False):
        try:
            write(folder / "texts.jsonl", dies_at=dies_at, chunk_size=size)
        except KilledError:
            with (folder / "texts.jsonl.partial").open("ab") as partial:
                partial.write(b"x" * torn)  # a chunk that was being written
            assert not (folder / "texts.jsonl").exists()
        else:
            break
    else:
        write(folder / "texts.jsonl")
    assert (folder / "texts.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()


@pytest.mark.essential
@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("mark", [pytest.param(None, marks=POSIX)])
def test_killed_at_any_change_of_a_file_the_same_call_gives_the_same_file(tmp_path, old, mark):
    """Also between the file's name and the end of the run, and whether it replaces another or not."""
    write(tmp_path / "whole.jsonl", PROMPTS[:9])
    whole, n, killed = (tmp_path / "whole.jsonl").read_bytes(), 0, True
    while killed:
        n += 1
        path = tmp_path / str(n) / "texts.jsonl"
        path.parent.mkdir()
        if old:
            path.write_text(old)
        killed = killed_at(n, path.parent, lambda path=path: write(path, PROMPTS[:9], overwrite=bool(old)))
        assert not path.exists() or path.read_bytes() in (whole, (old or "").encode())
        if old:
            assert write(path, PROMPTS[:9], overwrite=True) == [0, 4, 8]  # anew, whatever was half done
        elif killed:
            write(path, PROMPTS[:9])
        assert path.read_bytes() == whole
        assert [file.name for file in path.parent.iterdir()] == ["texts.jsonl"]
    assert n > 15


def test_a_file_that_was_finished_by_a_killed_run_is_of_the_same_call_alone(tmp_path):
    path = tmp_path / "texts.jsonl"
    write(path)
    state = {"settings": _digest("same"), "lines": 23, "bytes": path.stat().st_size, "prompts": _said(PROMPTS)}
    for prompts, asked in (
        (PROMPTS[:20], "same"),
        ([*PROMPTS, "more"], "same"),
        (PROMPTS[1:], "same"),
        (PROMPTS, "x"),
    ):
        (tmp_path / "texts.jsonl.partial.json").write_text(json.dumps(state))
        with pytest.raises(GenerateArgumentError, match="there already"):
            write(path, prompts, settings=asked)
    (tmp_path / "texts.jsonl.partial.json").write_text(json.dumps(state))
    assert write(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["texts.jsonl"]
    (tmp_path / "texts.jsonl.partial.json").write_text(json.dumps(state))
    path.unlink()  # by a person: the run begins anew
    assert write(path)[0] == 0


def _digest(settings):
    return hashlib.sha256(json.dumps([1, settings]).encode()).hexdigest()


def _said(prompts):
    return hashlib.sha256(b"".join(len(one.encode()).to_bytes(8, "big") + one.encode() for one in prompts)).hexdigest()


def test_two_writers_of_one_file_are_one_after_the_other(tmp_path):
    path = tmp_path / "texts.jsonl"

    def run(chunk: Chunk):
        with pytest.raises(LockedError, match=r"texts\.jsonl is being written by process"):
            write(path)
        return [{"text": prompt} for prompt in chunk.prompts]

    write_lines(path, PROMPTS, run, settings=None)
    assert len(path.read_bytes().splitlines()) == 23


def test_a_directory_is_told_before_any_text_is_generated(tmp_path):
    with pytest.raises(GenerateArgumentError, match="is a directory"):
        write(tmp_path, overwrite=True, dies_at=0)


def test_what_stands_is_not_generated_again(tmp_path):
    with pytest.raises(KilledError):
        write(tmp_path / "texts.jsonl", dies_at=10)
    skipped: list[int] = []
    seen = write(tmp_path / "texts.jsonl", skip=lambda chunk: skipped.append(len(chunk.prompts)))
    assert (skipped, seen) == ([4, 4], [8, 12, 16, 20])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"settings": "others"}, "other settings"),
        ({"prompts": ["another", *PROMPTS[1:]]}, "other prompts"),
        ({"prompts": PROMPTS[:5]}, "other prompts"),
    ],
)
def test_another_run_does_not_go_on_with_it(tmp_path, change, what):
    with pytest.raises(KilledError):
        write(tmp_path / "texts.jsonl", dies_at=10)
    with pytest.raises(GenerateArgumentError, match=what):
        write(tmp_path / "texts.jsonl", **change)
    assert write(tmp_path / "texts.jsonl")[0] == 8


def test_overwriting_begins_anew(tmp_path):
    write(tmp_path / "texts.jsonl")
    with pytest.raises(GenerateArgumentError, match="overwrite=True"):
        write(tmp_path / "texts.jsonl")
    with pytest.raises(KilledError):
        write(tmp_path / "texts.jsonl", dies_at=10, overwrite=True)
    assert (tmp_path / "texts.jsonl").exists()
    assert write(tmp_path / "texts.jsonl", overwrite=True, settings="others")[0] == 0


def test_prompts_are_drawn_a_chunk_at_a_time(tmp_path):
    """Memory holds a chunk, however many prompts come."""
    drawn = 0

    def prompts():
        nonlocal drawn
        for n in range(100):
            drawn = n + 1
            yield str(n)

    def run(chunk: Chunk):
        assert drawn <= chunk.first + 10
        return [{} for _ in chunk.prompts]

    write_lines(tmp_path / "texts.jsonl", prompts(), run, settings=None, chunk_size=10)
    assert len((tmp_path / "texts.jsonl").read_text().splitlines()) == 100


def test_any_text_survives(tmp_path):
    write(tmp_path / "texts.jsonl", ["春天\n", "a\ud800b", "\u2028"])
    lines = (tmp_path / "texts.jsonl").read_bytes().decode("utf-8").split("\n")[:-1]
    assert [json.loads(line)["prompt"] for line in lines] == ["春天\n", "a\ud800b", "\u2028"]


@pytest.mark.parametrize(
    ("more", "what"),
    [({"chunk_size": 0}, "chunk_size"), ({"prompts": "one"}, "list of strings"), ({"prompts": ["a", 3]}, "prompt 1")],
)
def test_what_makes_no_sense_is_refused(tmp_path, more, what):
    with pytest.raises(GenerateArgumentError, match=what):
        write(tmp_path / "texts.jsonl", **more)


def test_a_file_that_was_tampered_with_is_not_gone_on_with(tmp_path):
    with pytest.raises(KilledError):
        write(tmp_path / "texts.jsonl", dies_at=10)
    (tmp_path / "texts.jsonl.partial").write_bytes(b"")
    with pytest.raises(GenerateArgumentError, match="shorter"):
        write(tmp_path / "texts.jsonl")
    (tmp_path / "texts.jsonl.partial.json").write_text("{")
    with pytest.raises(GenerateArgumentError, match="can't be read"):
        write(tmp_path / "texts.jsonl")


def test_a_place_that_can_not_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenerationError, match="can't be written"):
        write(tmp_path / "file" / "texts.jsonl")
