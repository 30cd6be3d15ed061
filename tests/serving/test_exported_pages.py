"""`kerasgen serve` shows an exported folder: Chromium isolates it, a person types, and the ids are Python's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT, SUPPORT
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import MissingDependencyError
from kerasgen.exporters.web import packages
from kerasgen.models.saving import save_preset

pytest.importorskip("outlines_core", reason="a regular expression is an extra: kerasgen[regex]")

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FORM = kg.Regex(r"[a-e]{3,9}\.")


@contextlib.contextmanager
def serving(source: Path, *options: str) -> Iterator[str]:
    """The command, in a process of its own; the address that it says."""
    command = [sys.executable, "-m", "kerasgen", "serve", str(source), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ) as process:
        try:
            assert process.stdout is not None
            yield re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) in (0, -signal.SIGTERM)


def browse(url: str, pictures: Path, typed: list[dict[str, Any]]) -> Any:
    job = {"url": url, "chromium": CHROMIUM, "locale": "en-GB", "pictures": str(pictures), "typed": typed}
    command = ["node", str(SUPPORT / "browse_served.mjs")]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    if CHROMIUM is None or shutil.which("node") is None:
        pytest.skip("Chromium or Node.js is not installed")
    try:
        modules = packages.find(ROOT, packages.LITERT)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    if not (modules / "playwright-core").is_dir():
        pytest.skip("playwright-core, which drives Chromium, is not installed: npm install playwright-core")
    folder = tmp_path_factory.mktemp("web")
    pipe = kg.Pipeline(model=save_preset(tiny_gpt2(), folder / "tiny"), sampler="greedy")
    settings = {"cache_length": 64, "forms": (FORM,), "node_modules": str(modules)}
    return pipe.export(folder / "poet_web", exporter="web", **settings).path


@pytest.mark.essential
def test_chromium_isolates_the_page_and_writes_what_python_writes(page: Path, tmp_path: Path) -> None:
    runtime = kg.load_artefact(page)
    (form,) = json.loads((page / "page.json").read_text(encoding="utf-8"))["forms"]
    asked = [
        ("ab", {"sampler": "greedy", "length": 12, "seed": 0}, None, {"sampler": "greedy"}),
        ("the sea", {"sampler": "top_k", "k": 4, "length": 20, "seed": 11}, None, {"sampler": kg.TopK(k=4)}),
        ("春", {"sampler": "top_p", "p": 0.8, "length": 20, "seed": 3}, None, {"sampler": kg.TopP(p=0.8)}),
        ("", {"sampler": "top_k", "k": 5, "length": 24, "seed": 5}, form, {"sampler": kg.TopK(k=5)}),
    ]
    typed = [{"prompt": prompt, "fields": fields, "form": shape} for prompt, fields, shape, _ in asked]
    with serving(page) as url:
        seen = browse(url, tmp_path, typed)
    assert (seen["state"], seen["isolated"]) == ("ready", True)
    assert (seen["errors"], seen["foreign"]) == ([], [])
    for (prompt, fields, shape, settings), text in zip(asked, seen["texts"], strict=True):
        constraint = {"constraint": FORM} if shape else {}
        wanted: Any = runtime.generate(
            prompt, seed=fields["seed"], max_new_tokens=fields["length"], return_logprobs=True, **settings, **constraint
        )
        assert text["ids"] == [int(token_id) for token_id in wanted.token_ids]
        assert text["shown"] == str(wanted.text)
        assert text["pieces"] == len(text["ids"]), "each token is shown as it comes"
        assert "a second" in text["status"]
    assert (tmp_path / "served.png").stat().st_size > 5_000


def test_the_page_is_shown_with_links_and_bytes_in_part(page: Path, tmp_path: Path) -> None:
    """As a folder of links, which `kerasgen serve` may be given by its name in the current directory."""
    import http.client

    link = tmp_path / "linked_web"
    link.symlink_to(page, target_is_directory=True)
    with serving(link) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/model.tflite", headers={"Range": "bytes=4-7"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, b"TFL3")
        connection.request("HEAD", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        connection.close()
