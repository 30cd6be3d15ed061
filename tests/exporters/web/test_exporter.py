"""The exported folder generates in Node.js and in Chromium what the package does, and is refused where it can't."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from places import SUPPORT
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, MissingDependencyError
from kerasgen.exporters.web import packages

pytestmark = pytest.mark.one_backend

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def node_modules() -> Path:
    try:
        return packages.find(Path(__file__).parents[3])
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> kg.Artefact:
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    if shutil.which("node") is None:
        pytest.skip("the page's modules are run by Node.js")
    exporter = kg.WebExporter(
        cache_length=64,
        forms=(kg.Regex(r"[a-e]{3,9}\."),),
        title="A <b>tiny</b> model",
        prompts=("ab", "the"),
        node_modules=str(node_modules()),
    )
    return exporter.export(tiny_gpt2(), tmp_path_factory.mktemp("web") / "tiny_web")


@pytest.mark.slow
def test_the_page_s_modules_have_the_ids_of_the_runtime(exported: kg.Artefact) -> None:
    page = exported.report["parity"]["page"]
    assert page["texts"] == page["equal_texts"] == 12
    assert exported.report["downloaded_bytes"] < exported.report["bytes"]


@pytest.mark.slow
def test_the_folder_is_loaded_as_an_artefact(exported: kg.Artefact) -> None:
    runtime = kg.load_artefact(exported.path)
    inner = kg.load_artefact(exported.path / "model.tflite")
    assert runtime.generate("ab", max_new_tokens=9, seed=3) == inner.generate("ab", max_new_tokens=9, seed=3)


@pytest.mark.slow
def test_chromium_has_the_ids_of_python_for_twenty_seeds_and_works_offline(
    exported: kg.Artefact, tmp_path: Path
) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    if not (node_modules() / "playwright-core").is_dir():
        pytest.skip("playwright-core, which drives Chromium, is not installed: npm install playwright-core")
    runtime = kg.load_artefact(exported.path)
    (form,) = exported.report["forms"]
    requests, expected = [], []
    for seed in range(20):
        for name in (None, form):
            settings = {"sampler": "top_k", "k": 5, "seed": str(seed), "form": name, "max_new_tokens": 24}
            prompt = "" if name else "ab"
            requests.append((prompt, settings))
            text: Any = runtime.generate(
                prompt,
                sampler=kg.TopK(k=5),
                seed=seed,
                max_new_tokens=24,
                constraint=kg.Regex(r"[a-e]{3,9}\.") if name else None,
                return_logprobs=True,
            )
            expected.append([int(token_id) for token_id in text.token_ids])
    job = {
        "folder": str(exported.path),
        "chromium": CHROMIUM,
        "locale": "zh-TW",
        "requests": requests,
        "typed": "ab",
        "form": form,
        "pictures": str(tmp_path),
        "files": 18,
    }
    done = subprocess.run(
        ["node", str(SUPPORT / "browse.mjs")], input=json.dumps(job), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["state"] == "ready"
    assert not seen["errors"]
    assert seen["generated"] == expected
    assert seen["title"] == "A <b>tiny</b> model"
    assert "可離線使用" in seen["ready"]
    assert seen["shown"].startswith("ab")
    assert kg.Regex(r"[a-e]{3,9}\.").matches(seen["shown"])
    assert not seen["overflows"], "nothing is wider than a phone"
    assert seen["offline"] == expected[0]
    for name in ("light", "dark", "phone"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_without_litert_js_the_command_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"Run: npm install @litertjs/core@2\.5\.3, or say"):
        packages.find(tmp_path)
    other = tmp_path / "node_modules" / "@litertjs" / "core"
    other.mkdir(parents=True)
    (other / "package.json").write_text('{"version": "0.1.0"}')
    with pytest.raises(MissingDependencyError, match=r"Found: 0\.1\.0 in "):
        packages.find(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "int9"}, "quantize must be one of"),
        ({"forms": ("sonnet",)}, "forms must be constraints: No constraint is called 'sonnet'"),
        ({"forms": (kg.VerseForm("五絕"), "verse_form:form=五絕")}, "Two forms have the name '五絕'"),
        ({"prompts": (1,)}, "prompts must be texts. Received: 1"),
        ({"prompts": 1}, "prompts must be a list"),
        ({"title": 1}, "title must be text, or None"),
        ({"cache_length": 1}, "cache_length must be a whole number of at least 8"),
    ],
)
def test_wrong_settings_are_told_before_any_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportArgumentError, match=message):
        kg.WebExporter(**settings)
