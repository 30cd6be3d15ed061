"""The pages of the documentation are built without a warning, and what their examples show is what they print."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from places import ROOT

DOCS = ROOT / "docs"
BUILT = DOCS / "_build"


@pytest.mark.pages
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("builder", ["doctest", "html"])
def test_sphinx_has_nothing_to_complain_of(builder: str) -> None:
    """In a process of its own, on the backend that pages have for a reader who names none."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "KERASGEN_CACHE")}
    options = ["-n", "-W", "-q", "-b", builder, "-d", str(BUILT / "doctrees")]  # which both builders read
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(BUILT / builder)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.pages
def test_the_search_finds_chinese_and_english_words() -> None:
    """In Chromium, on the pages that the test above has built."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or shutil.which("node") is None or not (ROOT / "node_modules" / "playwright-core").is_dir():
        pytest.skip("Chromium, Node.js or playwright-core, which drives the browser, is not installed")
    asked = {"微调": "zh/poet", "每字比特数": "zh/own-texts", "诗": "zh/poet", "checkpoint": "resume", "鸚鵡螺": ""}
    # In the script that the page is not written in, or in both.
    asked |= {"微調": "zh/poet", "網頁": "zh/page-and-phone", "每字比特數": "zh/own-texts", "詩": "zh/poet"}
    asked |= {"不入韵": "verse", "全唐诗": "chinese-poetry", "全唐詩": "chinese-poetry"}
    job = {"folder": str(BUILT / "html"), "chromium": chromium, "queries": list(asked)}
    done = subprocess.run(
        ["node", str(ROOT / "tests" / "support" / "search_pages.mjs")],
        input=json.dumps(job),
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("errors") == []
    for query, page in asked.items():
        assert any(page in link for link in found[query]) if page else found[query] == [], (query, found[query])
    for simplified, traditional in (("微调", "微調"), ("诗", "詩"), ("全唐诗", "全唐詩"), ("每字比特数", "每字比特數")):
        assert {link.partition("#")[0] for link in found[simplified]} == {
            link.partition("#")[0] for link in found[traditional]
        }
