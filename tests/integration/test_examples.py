"""The examples run as a person runs them: a process each, on a tiny model and a few texts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from installing import without_tensorflow
from places import ROOT
from tfds_preparing import needs_tfds, prepare_cnn_dailymail, prepare_reddit_tifu
from tiny import tiny_gpt2

from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

EXAMPLES = ROOT / "examples"

MISHAPS = [
    f"today i {deed} and {end}"
    for deed in ("fed the cat twice", "waved at a mirror", "burnt the soup", "lost my keys", "sat on a cake")
    for end in ("nobody noticed", "my boss saw it all", "now i live in the shed", "had to say sorry")
]

# Made up, in the layout of the real files.
POEMS = [
    {
        "author": author,
        "title": title,
        "id": f"made-up-{title}-{month}",
        "paragraphs": [f"{first}，{second}。", f"{month}月門前雪，窗外幾聲鐘。"],
    }
    for month in "三五七九"
    for author, title, first, second in (
        ("甲", "晨起", "山中無一事", "雲過數峰青"),
        ("乙", "夜坐", "燈影落書冊", "雨聲生竹庭"),
        ("丙", "渡江", "江闊舟如葉", "天高雁似塵"),
        ("丁", "訪友", "路轉逢溪水", "門開見故人"),
    )
]


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    """A tiny untrained GPT-2, saved as any preset is."""
    return save_preset(tiny_gpt2(num_layers=1, max_sequence_length=256), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(preset, tmp_path, request):
    """Run an example with these arguments in an empty folder, and return what it printed."""

    def run(name: str, *arguments: object) -> str:
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONIOENCODING": "utf-8"}
        if request.node.get_closest_marker("tensorflow") is None:
            environment = without_tensorflow(environment)
        found = subprocess.run(
            [sys.executable, EXAMPLES / name, "--model", preset, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert found.returncode == 0, found.stderr[-4000:]
        return found.stdout

    return run


def tuned(output: str) -> tuple[int, float, float]:
    """The steps, and the held-out bits per character before and after, that a printed report tells of."""
    steps = re.search(r"^(\d+) steps, ", output, re.MULTILINE)
    bits = re.search(r"bits per character (\d+\.\d+) before, (\d+\.\d+)(?: ± \d+\.\d+)? after", output)
    assert steps is not None, output
    assert bits is not None, output
    return int(steps[1]), float(bits[1]), float(bits[2])


@pytest.mark.slow
@needs_tfds
@pytest.mark.tensorflow
@pytest.mark.nightly
def test_a_model_tuned_on_tifu_tells_a_story_before_and_after(run, tmp_path):
    posts = [{"documents": text, "id": str(n), "title": "", "tldr": "", "score": 1.0} for n, text in enumerate(MISHAPS)]
    prepare_reddit_tifu(tmp_path / "data", posts)
    output = run("tifu.py", "--data-dir", tmp_path / "data", "--max-steps", 2)
    steps, before, after = tuned(output)
    assert steps >= 1
    assert before != after
    prompt = "today i tried to impress my neighbours"
    first, second = output.split("--- before\n")[1].split("--- after\n")
    for text in (first, second):
        assert text.startswith(prompt)
        assert len(text.strip()) > len(prompt)


@pytest.mark.slow
@needs_tfds
@pytest.mark.tensorflow
@pytest.mark.nightly
def test_adapters_tuned_on_news_are_a_small_part_of_the_weights(run, tmp_path):
    articles = [
        {"article": text, "highlights": "a mishap", "id": str(n), "publisher": "nobody"}
        for n, text in enumerate(MISHAPS)
    ]
    prepare_cnn_dailymail(tmp_path / "data", articles)
    output = run("cnn_dailymail.py", "--data-dir", tmp_path / "data", "--max-steps", 2, "--split", "train")
    steps, before, after = tuned(output)
    assert steps >= 1
    assert before != after
    few, all_of_them = re.search(r"^([\d,]+) of ([\d,]+) weights were tuned$", output, re.MULTILINE).groups()
    assert 0 < int(few.replace(",", "")) < int(all_of_them.replace(",", "")) / 5
    assert output.split("--- news\n")[1].startswith("The mayor announced on Tuesday")


@pytest.mark.nightly
def test_every_sampler_goes_on_from_the_prompt(run):
    """Names, texts with settings, kerasgen's values and KerasHub's own instance stand in one list."""
    output = run("samplers.py", "--prompt", "the rain", "--max-new-tokens", 6)
    parts = output.split("--- ")[1:]
    assert len(parts) == 7
    for part in parts:
        sampler, text = part.split("\n", 1)
        assert text.startswith("the rain"), sampler
    # An untrained model may end a text at once, but not for all of them.
    assert len({part.split("\n", 1)[1] for part in parts}) > 3
    assert "TopP(" in parts[3]
    assert "keras_hub" in parts[6]


@pytest.mark.nightly
def test_a_model_tuned_on_poems_goes_on_from_a_line(run, tmp_path):
    """The poems are made up and lie as they do in the real repository."""
    folder = tmp_path / "chinese-poetry" / "全唐诗"
    folder.mkdir(parents=True)
    (folder / "poet.tang.0.json").write_text(json.dumps(POEMS, ensure_ascii=False), encoding="utf-8")
    output = run("tang_poems.py", "--path", folder.parent, "--max-steps", 2)
    assert "--- the first poem is 晨起 by 甲\n山中無一事，雲過數峰青。" in output
    assert re.search(r"^\d+ steps, ", output, re.MULTILINE)
    assert output.split("--- a new one\n")[1].startswith("昨夜雨疏风骤")


@pytest.mark.slow
def test_tang_poems_are_read_from_the_real_archive(run, shared_data):
    archive = shared_data / "chinese-poetry.tang.tar.xz"
    output = run("tang_poems.py", "--path", archive, "--max-steps", 2, "--max-documents", 40)
    assert tuned(output)[0] == 2
    assert output.split("--- a new one\n")[1].startswith("昨夜雨疏风骤")


@pytest.mark.nightly
def test_a_saved_model_writes_the_same_text_when_it_is_loaded(run, tmp_path):
    output = run("save_and_reload.py", "--output", tmp_path / "poet", "--max-steps", 2)
    assert "the same text after loading: True" in output
    assert re.search(r"and KerasHub alone loads [\d,]+ weights", output)
    assert "\nMy grandmother" in output
    assert (tmp_path / "poet" / "pipeline.json").is_file()
