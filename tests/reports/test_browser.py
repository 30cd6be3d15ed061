"""Chromium shows a page without an error, a network or an overflow, readable in light and dark and on a phone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import reported
from places import ROOT, SUPPORT

from kerasgen.reports import page
from kerasgen.reports.words import LANGUAGES

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LEAST_CONTRAST = 4.5
"""Of text with what is behind it, as WCAG 2 asks at level AA."""


def browse(path: Path, **job: Any) -> Any:
    """Open a page in Chromium, in four views, and return what was seen there."""
    if CHROMIUM is None or shutil.which("node") is None:
        pytest.skip("Chromium or Node.js is not installed")
    if not (ROOT / "node_modules" / "playwright-core").is_dir():
        pytest.skip("playwright-core, which drives Chromium, is not installed: npm install playwright-core")
    job |= {"page": str(path), "chromium": CHROMIUM}
    script = str(SUPPORT / "browse_report.mjs")
    done = subprocess.run(["node", script], input=json.dumps(job), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=LANGUAGES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    path = page.write(
        tmp_path_factory.mktemp("page") / "run.html",
        report=reported.run(warnings=("<script>broken = 1</script>",), model="</script><img src=x onerror=broken=1>"),
        evaluation=reported.evaluation(),
        scores=[
            reported.score("春眠<b>不覺曉，\n處處聞啼鳥。" * 3, ("花", "</script><script>broken=1</script>", "\0"))
        ],
        artefacts=[reported.artefact()],
        language=request.param,
    )
    return request.param, browse(path)


def test_nothing_fails_and_nothing_is_asked_for(seen):
    language, answer = seen
    assert answer["errors"] == []
    assert {url.rpartition("/")[2] for url in answer["asked"]} == {"run.html"}
    for view in answer["views"].values():
        assert view["globals"], "no text of the report ran as a script"
        assert view["scripts"] == 2
        assert view["language"] == LANGUAGES[language]["lang"]
        assert "<script>broken = 1</script>" in view["text"]


def test_nothing_is_wider_than_the_screen(seen):
    for name, view in seen[1]["views"].items():
        assert view["overflow"] <= 0, name


def test_every_text_can_be_read(seen):
    for name, view in seen[1]["views"].items():
        for contrast, text, place in (*view["contrast"], *view["tip"]):
            assert contrast >= LEAST_CONTRAST, (name, text, place)


def test_light_and_dark_follow_the_system_and_the_switch(seen):
    views = seen[1]["views"]
    assert views["light"]["background"] != views["dark"]["background"]
    assert views["light"]["switched"] == views["dark"]["background"]
    assert views["dark"]["switched"] == views["light"]["background"]


def test_hover_and_keys_show_the_model_s_choices(seen):
    language, answer = seen
    for view in answer["views"].values():
        first, bits, likeliest, *choices = view["hover"].split("\n")
        assert first == ">"  # the fifth piece
        assert bits.startswith("5.00 ")
        assert likeliest == LANGUAGES[language]["likeliest"]
        assert choices == ["花\t25 %", "</script><script>broken=1</script>\t25 %", "\\x00\t25 %"]
        assert view["key"]
        assert view["closed"]


def test_hover_shows_the_figures_of_a_curve(seen):
    language, answer = seen
    words = LANGUAGES[language]
    for view in answer["views"].values():
        assert len(view["charts"]) == 4
        assert view["charts"][0].startswith(f"{words['step']} ")
        assert f"{words['training']}: " in view["charts"][1]
        assert view["charts"][3].startswith(f"{words['length']}: ")


def test_the_figures_are_the_report_s(seen):
    run, found = reported.run(), reported.evaluation()
    for view in seen[1]["views"].values():
        exact = {value for value, _ in view["values"]}
        assert {run.bits_per_character, run.loss, run.seconds, found.bits_per_character, found.perplexity} <= exact
        assert "5.499" in view["text"]
