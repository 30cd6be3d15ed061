"""A served page is isolated in a real browser: it may share memory with threads."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from listening import listening

from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

PAGE = """<!doctype html><title>poet</title><p id="told">waiting</p><script type="module">
const memory = new WebAssembly.Memory({initial: 1, maximum: 2, shared: true});
const worker = new Worker("thread.js", {type: "module"});
const seen = new Int32Array(memory.buffer);
worker.onmessage = () => {
  document.getElementById("told").textContent = JSON.stringify([crossOriginIsolated, Atomics.load(seen, 0)]);
};
worker.postMessage(memory);
// The browser's virtual time stands still while something is fetched, so that a busy machine has time for the thread.
const told = document.getElementById("told");
for (let turn = 0; turn < 2000 && told.textContent === "waiting"; turn++) await fetch("thread.js?" + turn);
</script>"""
THREAD = "onmessage = ({data}) => { Atomics.store(new Int32Array(data.buffer), 0, 42); postMessage(0); };"


def test_a_browser_gives_a_served_page_threads_that_share_memory(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path / "poet_web"
    folder.mkdir()
    (folder / "kerasgen.json").write_text(json.dumps({"exporter": "web"}))
    (folder / "index.html").write_text(PAGE)
    (folder / "thread.js").write_text(THREAD)
    with listening(application_of(folder, ServerSettings())) as server:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        url = f"http://127.0.0.1:{server.port}/"
        command = [
            chromium,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ]
        found = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=120)
    told = re.search(r'id="told">([^<]*)<', found.stdout)
    assert told is not None, found.stdout[:500]
    assert json.loads(html.unescape(told[1])) == [True, 42]
