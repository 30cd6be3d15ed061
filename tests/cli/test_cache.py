"""`kerasgen cache`: what lies in the cache, and its removal."""

import json
import os
import subprocess
import sys

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import backend, cache
from kerasgen.cli import main
from kerasgen.corpora import document_cache
from kerasgen.errors import LockedError
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    for kind, size in (("tokens", 1000), ("splits", 20)):
        (tmp_path / kind / "inner").mkdir(parents=True)
        (tmp_path / kind / "inner" / "file").write_bytes(b"x" * size)
    (tmp_path / "poems.txt").write_text("春", encoding="utf-8")
    return tmp_path


def test_each_part_of_the_cache_is_told_with_its_size(folder, capsys):
    assert main(["cache", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kinds"] == {"tokens": {"files": 1, "size_bytes": 1000}, "splits": {"files": 1, "size_bytes": 20}}
    assert main(["cache", "list"]) == 0
    assert "tokens: 0.0 MB in 1 files" in capsys.readouterr().out


def test_what_the_cache_holds_is_removed_and_nothing_else(folder, capsys):
    assert main(["cache", "clean", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["kinds"]) == {"tokens", "splits"}
    assert [path.name for path in folder.iterdir()] == ["poems.txt"]
    assert main(["cache"]) == 0
    assert "nothing" in capsys.readouterr().out


def test_one_part_is_removed_alone(folder, capsys):
    assert main(["cache", "clean", "--kind", "tokens"]) == 0
    assert not (folder / "tokens").exists()
    assert (folder / "splits" / "inner" / "file").exists()


def test_a_part_that_there_is_not_is_refused_before_anything_is_removed(folder, capsys):
    assert main(["cache", "clean", "--kind", "token"]) == 2
    assert "Did you mean 'tokens'?" in capsys.readouterr().err
    assert (folder / "tokens" / "inner" / "file").exists()


def test_the_doctor_says_that_the_cache_can_not_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERASGEN_CACHE", str(tmp_path / "new" / "cache"))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"]["is_writable"] is True
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("KERASGEN_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 0
    assert "CAN'T BE WRITTEN, so tuning stops there" in capsys.readouterr().out


@pytest.mark.slow
def test_where_the_cache_can_not_be_written_texts_come_and_tuning_says_so(tmp_path, monkeypatch):
    """What the doctor says of such a cache is what happens, and JAX doesn't warn at each program."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    environment = os.environ | {
        "KERASGEN_CACHE": str(tmp_path / "file" / "cache"),
        "PYTHONWARNINGS": "error::UserWarning",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "kerasgen"]
    preset = str(save_preset(tiny_gpt2(num_layers=1), tmp_path / "preset"))
    arguments = ["generate", preset, "the", "--max-new-tokens", "2", "--backend", "jax"]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the")
    arguments = [
        "fit",
        "sample",
        "--model",
        preset,
        "--max-steps",
        "1",
        "-o",
        str(tmp_path / "new"),
        "--backend",
        "jax",
    ]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "set KERASGEN_CACHE" in done.stderr


def test_a_link_in_the_cache_is_removed_and_what_it_leads_to_stays(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("x", encoding="utf-8")
    folder = tmp_path / "cache"
    (folder / "splits").mkdir(parents=True)
    (folder / "tokens").symlink_to(other)
    (folder / "splits" / "link").symlink_to(other)
    assert set(cache.clean(folder)) == {"tokens", "splits"}
    assert list(folder.iterdir()) == []
    assert (other / "mine").read_text(encoding="utf-8") == "x"


def keras_callback():
    backend.use("auto")
    import keras

    return keras.callbacks.Callback


HOLDS = """
import sys
from kerasgen import cache
with cache.in_use():
    print("in use", flush=True)
    sys.stdin.read()
"""


def test_a_cache_that_a_run_uses_is_not_removed(folder, capsys):
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"in use\n"
        assert main(["cache", "clean"]) == 1
        assert f"is in use by process {run.pid}" in capsys.readouterr().err
        assert (folder / "tokens" / "inner" / "file").exists()
        assert main(["cache"]) == 0
        run.kill()
        run.wait()
        assert main(["cache", "clean"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["poems.txt"]


def test_a_run_keeps_its_cache_until_it_has_ended(folder, tmp_path_factory):
    refused = []

    class Cleans(keras_callback()):
        def on_train_batch_end(self, batch, logs=None):
            try:
                cache.clean(folder)
            except LockedError as error:
                refused.append(error.pid)

    model = tmp_path_factory.mktemp("model") / "tiny"
    save_preset(tiny_gpt2(), model)
    pipe = kg.Pipeline(["the cat sat on the mat"] * 40, model=model, tuner="full:max_steps=2", held_out=0.0)
    pipe.fit(callbacks=[Cleans()], verbose=0)
    assert refused == [os.getpid()] * 2
    assert "tokens" in cache.clean(folder)


def test_a_cache_that_can_not_be_written_is_used_without_a_lock(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with cache.in_use():
        assert cache.clean(cache.directory()) == {}


@pytest.mark.slow
def test_all_that_a_run_and_its_artefact_keep_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv(cache.VARIABLE, str(folder))
    poems = [
        {"author": "", "title": "", "paragraphs": [f"春山{c}日月，秋水{c}風花。"], "id": c} for c in "一二三四五六七八"
    ]
    file = tmp_path / "全唐诗" / "poet.tang.0.json"
    file.parent.mkdir()
    file.write_text(json.dumps(poems), encoding="utf-8")
    corpus = kg.ChinesePoetry(path=str(file.parent), dynasty="tang")
    preset = save_preset(tiny_gpt2(num_layers=1), tmp_path / "preset")
    pipe = kg.Pipeline(model=preset, corpus=corpus, tuner=kg.FullTuner(max_steps=1), held_out=0.3)
    pipe.fit(verbose=0)
    pipe.generate("春", max_new_tokens=2, engine="litert")
    artefact = pipe.export(tmp_path / "poet.tflite", cache_length=32, beams=0)
    kg.load_artefact(artefact.path).generate("春", max_new_tokens=2)
    kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"clean"}
    assert {"tokens", "engines", "litert"} <= kept
    assert {document_cache.FOLDER, *kept} <= set(cache.KINDS)
    assert main(["cache", "clean"]) == 0
    assert not {path.name for path in folder.iterdir()} & kept
