"""The exported folder generates in Node.js and in Chromium what the package does, and is refused where it can't."""

from __future__ import annotations

import dataclasses
import json
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import SUPPORT
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.web import checking, packages
from kerasgen.exporters.web.exporter import PAGE
from kerasgen.models import chat
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.testing.exporters import ExporterContract

pytestmark = pytest.mark.one_backend

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def node_modules(package: packages.Package = packages.LITERT) -> Path:
    try:
        return packages.find(Path(__file__).parents[3], package)
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
@pytest.mark.nightly
class TestContract(ExporterContract):
    file_name = "poet_web"

    @pytest.fixture
    def exporter(self) -> kg.WebExporter:
        pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
        if shutil.which("node") is None:
            pytest.skip("the page's modules are run by Node.js")
        return kg.WebExporter(cache_length=64, title="Poet", node_modules=str(node_modules()))

    @pytest.fixture
    def model(self) -> LanguageModel:
        return tiny_gpt2()


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


def browse(exported: kg.Artefact, pictures: Path, **job: Any) -> Any:
    """Open the page in Chromium, and return what was seen there."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    if not (node_modules() / "playwright-core").is_dir():
        pytest.skip("playwright-core, which drives Chromium, is not installed: npm install playwright-core")
    job |= {"folder": str(exported.path), "chromium": CHROMIUM, "locale": "zh-TW", "pictures": str(pictures)}
    done = subprocess.run(
        ["node", str(SUPPORT / "browse.mjs")], input=json.dumps(job), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["state"] == "ready"
    assert not seen["errors"]
    return seen


@pytest.mark.essential
@pytest.mark.slow
def test_chromium_has_the_ids_of_python_for_twenty_seeds_and_works_offline(
    exported: kg.Artefact, tmp_path: Path
) -> None:
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
    seen = browse(exported, tmp_path, requests=requests, typed="ab", form=form, files=18)
    assert seen["generated"] == expected
    assert seen["title"] == "A <b>tiny</b> model"
    assert "可離線使用" in seen["ready"]
    assert seen["shown"].startswith("ab")
    assert kg.Regex(r"[a-e]{3,9}\.").matches(seen["shown"])
    assert not seen["overflows"], "nothing is wider than a phone"
    assert seen["offline"] == expected[0]
    for name in ("light", "dark", "phone"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


@pytest.mark.essential
@pytest.mark.slow
def test_litert_lm_chats_in_chromium_as_the_model_does(tmp_path: Path) -> None:
    for package in ("litert_lm", "litert_lm_builder"):
        pytest.importorskip(package, reason="LiteRT-LM is an extra: kerasgen[litertlm]")
    model = tiny_gpt2(400, num_layers=1, max_sequence_length=256)
    table = model.backbone.token_embedding.embeddings
    letters = [model.tokenizer.vocabulary[letter] for letter in string.ascii_letters]
    values = np.array(table)
    values[letters] *= 4  # the weights are random, and a text of other bytes than these is another one when it is read
    table.assign(values)
    chat.give(model, "chatml", seed=0)
    exporter = kg.WebExporter(engine="litertlm", node_modules=str(node_modules(packages.LITERT_LM)))
    exported = exporter.export(model, tmp_path / "chat_web")
    page = exported.report["parity"]["page"]
    assert page["texts"] == page["equal_texts"] > 0
    pipe = kg.Pipeline(model=save_preset(model, tmp_path / "preset"), sampler="greedy")
    talk: list[dict[str, str]] = []
    settings = {"sampler": "greedy", "max_new_tokens": 12}
    expected, requests = [], []
    for said in ("the sea?", "and then"):
        talk.append({"role": "user", "content": said})
        expected.append(pipe.chat(talk, max_new_tokens=12, valid_utf8=False))
        talk.append({"role": "assistant", "content": expected[-1]})
        requests.append([said, settings])
    requests.append([requests[0][0], settings | {"fresh": True}])
    seen = browse(exported, tmp_path, requests=requests, typed="the sea?", form=None, files=30)
    assert seen["generated"] == [*expected, expected[0]]
    assert seen["offline"] == expected[0]
    assert len(expected[0]) == len(expected[1]) == 12
    assert not seen["overflows"], "nothing is wider than a phone"


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
        ({"engine": "litert-lm"}, "engine must be one of litert, litertlm"),
        ({"engine": "litertlm", "forms": ("verse_form:form=五絕",)}, "a page by engine='litertlm' knows no forms"),
        ({"cache_length": 1}, "cache_length must be a whole number of at least 8"),
    ],
)
def test_wrong_settings_are_told_before_any_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportArgumentError, match=message):
        kg.WebExporter(**settings)


def test_an_error_of_the_engine_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Node.js would print the source line of the error: the page's modules as one line of Base64."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    modules = node_modules()
    (tmp_path / "model.tflite").write_bytes(b"no model")
    with pytest.raises(kg.errors.ExportError, match=r"ended with an error in Node\.js: \w+") as caught:
        checking.run(node, tmp_path, modules, [], 1)
    assert len(str(caught.value)) < 700
    assert "base64" not in str(caught.value)


@pytest.mark.slow
def test_a_page_that_is_opened_as_a_file_says_how_to_open_it(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    for file in ("index.html", "opened.js", "page.css", "page.js", "words.js"):
        shutil.copyfile(PAGE / file, tmp_path / file)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    seen = subprocess.run(
        [CHROMIUM, *flags, (tmp_path / "index.html").as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert f'python -m http.server --directory "{tmp_path}"' in seen


@pytest.mark.slow
def test_a_form_that_is_longer_than_what_is_compared_is_written_whole(tmp_path: Path) -> None:
    """A tune such as 滿江紅 has more characters than the tokens that are compared else."""
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    if shutil.which("node") is None:
        pytest.skip("the page's modules are run by Node.js")
    forms = (kg.Regex("[ab]{60}c"),)
    exporter = kg.WebExporter(cache_length=96, forms=forms, node_modules=str(node_modules()))
    page = exporter.export(tiny_gpt2(), tmp_path / "long_web").report["parity"]["page"]
    assert page["texts"] == page["equal_texts"]
    assert page["tokens"] >= 6 * 61
    short = dataclasses.replace(exporter, cache_length=32, forms=())
    assert short.export(tiny_gpt2(), tmp_path / "short_web").report["parity"]["page"]["equal_texts"] == 6
    with pytest.raises(ExportArgumentError, match="Raise cache_length"):
        dataclasses.replace(short, forms=(kg.Regex("[ab]{120}c"),)).export(tiny_gpt2(), tmp_path / "never_web")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("generator.js", "Int32Array.from(places)", "Int32Array.from(places, (place) => place + 1)", "logits are not"),
        ("sampler.js", "values[n] > values[best]", "values[n] < values[best]", "chooses other ids from its logits"),
    ],
    ids=["reading", "choosing"],
)
def test_a_wrong_module_is_found_with_weights_in_8_bits(
    rounded: kg.Artefact, tmp_path: Path, file: str, right: str, wrong: str, message: str
) -> None:
    page = rounded.report["parity"]["page"]
    assert page["compared_places"] >= 90
    assert page["mean_logits_error"] < 0.1
    assert page["wrong_choices"] == []
    folder = tmp_path / "wrong_web"
    shutil.copytree(rounded.path, folder)
    source = (folder / file).read_text(encoding="utf-8")
    assert right in source
    (folder / file).write_text(source.replace(right, wrong), encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        checking.check(folder, node_modules(), {}, exact=False)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> kg.Artefact:
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    if shutil.which("node") is None:
        pytest.skip("the page's modules are run by Node.js")
    exporter = kg.WebExporter(cache_length=64, quantize="int8", node_modules=str(node_modules()))
    return exporter.export(tiny_gpt2(), tmp_path_factory.mktemp("rounded") / "tiny_web")
