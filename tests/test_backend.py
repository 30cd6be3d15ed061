"""Who computes is said once: `backend=`, then a running Keras, KERAS_BACKEND, and what suits the work.

Each fact in a process of its own.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from installing import child
from places import ROOT, WITHOUT_TENSORFLOW
from ports import free_port
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import backend, devices
from kerasgen.errors import ArgumentError
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

# What a child begins with: a body that may fail, and what it says.
SAY = """
import json, os, sys
from kerasgen import backend
from kerasgen.errors import ArgumentError, BackendError

def say(act):
    try:
        return act()
    except (ArgumentError, BackendError) as error:
        return [type(error).__name__, str(error)]
"""

# Makes a module impossible to import, as if it were not installed.
WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that a child loads, tunes and compiles sooner than the starter."""
    return str(save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.mark.parametrize(
    ("argument", "variable", "chosen"),
    [
        (None, None, "jax"),
        (None, "", "jax"),
        (None, "tensorflow", "tensorflow"),
        ("tensorflow", None, "tensorflow"),
        ("tensorflow", "jax", "tensorflow"),
        ("torch", "jax", "torch"),
        ("jax", "theano", "jax"),
    ],
)
def test_the_argument_goes_before_the_variable_and_the_variable_before_jax(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, variable: str | None, chosen: str
) -> None:
    monkeypatch.delitem(backend.sys.modules, "keras", raising=False)  # as in a process that has not imported it
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(backend.VARIABLE, variable)
    assert backend.agree(argument) == chosen


@pytest.mark.parametrize(
    ("argument", "variable", "chosen"),
    [(None, None, "tensorflow"), (None, "", "tensorflow"), (None, "jax", "jax"), ("jax", None, "jax")],
)
def test_what_will_train_takes_the_backend_that_trains_faster_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, variable: str | None, chosen: str
) -> None:
    monkeypatch.delitem(backend.sys.modules, "keras", raising=False)
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(backend.deferred_imports, "is_installed", lambda name: True)
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(backend.VARIABLE, variable)
    assert backend.choose(argument, trains=True)[0] == chosen


class Forbidding:
    """Raises where TensorFlow is looked for, as people forbid a module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "tensorflow":
            raise ImportError(f"{name} is not wanted here")


@pytest.mark.parametrize("forbids", ["a finder", "the modules"])
def test_what_will_train_takes_jax_where_tensorflow_may_not_be_imported(
    monkeypatch: pytest.MonkeyPatch, forbids: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("keras", "tensorflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: False)
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    if forbids == "a finder":
        monkeypatch.setattr(sys, "meta_path", [Forbidding(), *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert backend.choose(trains=True)[0] == "jax"


def test_processes_that_train_together_are_those_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(backend.sys.modules, "keras", raising=False)
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(backend.deferred_imports, "is_installed", lambda name: True)
    monkeypatch.setenv(backend.PROCESSES, "2")
    assert backend.choose(trains=True)[0] == "jax"


@pytest.mark.tensorflow
def test_a_pipeline_with_a_corpus_takes_what_trains_faster_and_one_without_never_waits_for_tensorflow(
    preset: str,
) -> None:
    """What was chosen and not begun yet follows what runs by then."""
    code = f"""
import json, sys
import kerasgen as kg
from kerasgen import backend, devices
devices.nvidia_gpu = lambda: False
said = []
pipe = kg.Pipeline("sample", tuner="full:distribution=data"); said.append(pipe.backend)
pipe = kg.Pipeline("sample", {preset!r}); said.append(pipe.backend)
writer = kg.Pipeline(model={preset!r}); said.append(writer.backend)
writer.generate("春", max_new_tokens=2); said.append("tensorflow" in sys.modules)
writer.model; said.append(backend.running())
pipe.model; said.append(pipe.backend)
print(json.dumps(said))
"""
    assert child(code, KERAS_BACKEND=None) == ["jax", "tensorflow", "jax", False, "jax", "jax"]


@pytest.mark.tensorflow
def test_a_saved_pipeline_is_loaded_to_write_until_it_is_tuned_further(tmp_path: Path, preset: str) -> None:
    pipe = kg.Pipeline("sample", preset, tuner="lora:max_steps=1,sequence_length=16,batch_size=1")
    saved = str(pipe.save(tmp_path / "saved"))
    code = f"""
import json
import sys
import kerasgen as kg
from kerasgen import backend, devices
devices.nvidia_gpu = lambda: False
pipe = kg.Pipeline.load({saved!r})
said = [pipe.backend, kg.Pipeline.load({saved!r}, corpus="sample").backend]
pipe.fit(verbose=0)
print(json.dumps([*said, pipe.backend, pipe.report.backend]))
"""
    assert child(code, KERAS_BACKEND=None) == ["jax", "tensorflow", "tensorflow", "tensorflow"]


def test_to_agree_on_a_backend_imports_nothing_and_sets_nothing() -> None:
    loaded, variable = child(
        SAY
        + """
before = set(sys.modules)
backend.agree("tensorflow"), backend.agree(), backend.running()
print(json.dumps([sorted(set(sys.modules) - before), os.environ.get("KERAS_BACKEND")]))
""",
        KERAS_BACKEND=None,
    )
    assert loaded == []
    assert variable is None


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"jax, tensorflow, torch\. Received: 'theano'"):
        backend.agree("theano")


def test_an_unknown_backend_in_the_variable_is_laid_at_the_variable_s_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(backend.sys.modules, "keras", raising=False)  # as in a process that has not imported it
    monkeypatch.setenv(backend.VARIABLE, "theano")
    with pytest.raises(ArgumentError, match=r"environment variable KERAS_BACKEND .*jax, tensorflow, torch.*'theano'"):
        backend.agree()


def test_use_starts_keras_on_the_backend_and_tells_processes_that_follow() -> None:
    said = child(
        SAY
        + """
said = [backend.running(), backend.use("jax"), backend.running(), backend.use(), backend.use("jax")]
import keras
said += [keras.config.backend(), os.environ["KERAS_BACKEND"]]
print(json.dumps(said))
""",
        KERAS_BACKEND=None,
    )
    assert said == [None, "jax", "jax", "jax", "jax", "jax", "jax"]


def test_keras_on_another_backend_than_asked_for_is_an_error_whose_remedies_work(preset: str) -> None:
    code = """
import keras
import kerasgen as kg
texts = ["the sea and the stars"] * 3
for _ in range(2):
    said = say(lambda: kg.Pipeline(texts, preset, backend=asked).backend)
    if isinstance(said, str):
        break
    message, asked = said[1], said[1].partition("Pass backend='")[2].partition("'")[0]
pipe = kg.Pipeline(texts, preset, backend=asked, tuner="full:max_steps=1")
pipe.model
os.environ["KERAS_BACKEND"] = "torch"  # of no more weight: Keras read it when it was imported
again = kg.Hub(preset).load()
pipe.generate(["the"], max_new_tokens=1)
print(json.dumps([message, pipe.backend, keras.config.backend(), pipe.score("the sea").bits_per_character]))
"""
    message, followed, running, bits = child(
        SAY + f"asked, preset = 'tensorflow', {preset!r}" + code, KERAS_BACKEND="jax"
    )
    assert (followed, running) == ("jax", "jax")
    assert "runs on 'jax'" in message
    assert "'tensorflow' is asked for" in message
    variable, _, value = message.partition("new process with ")[2].partition(" set before")[0].partition("=")
    assert (variable, value) == ("KERAS_BACKEND", "tensorflow")
    started = child(
        SAY + "import keras, kerasgen as kg\npipe = kg.Pipeline(backend='tensorflow')\npipe.tokenizer\n"
        "print(json.dumps([pipe.backend, keras.config.backend()]))",
        **{variable: value},
    )
    assert started == ["tensorflow", "tensorflow"]
    assert bits > 0


@pytest.mark.essential
@pytest.mark.parametrize("runs_on", ["tensorflow", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_pipeline_that_nobody_told_a_backend_follows_the_keras_that_runs(
    runs_on: str, tmp_path: Path, preset: str
) -> None:
    """Every user of Keras begins so; the backend is the one of their configuration file."""
    if find_spec(runs_on) is None:
        pytest.skip(f"{runs_on} is not installed")
    (tmp_path / "keras.json").write_text(json.dumps({"backend": runs_on, "floatx": "float32", "epsilon": 1e-7}))
    said = child(
        SAY
        + f"preset = {preset!r}"
        + """
import kerasgen as kg
tuner = kg.FullTuner(max_steps=1, sequence_length=16, vocabulary="keep", batch_size=2)
early = kg.Pipeline(["the sea", "the stars", "the hills"] * 3, preset, tuner=tuner)
import keras_hub
late = kg.Pipeline(model=preset)
texts = [late.generate("the", max_new_tokens=2), early.generate("the", max_new_tokens=2)]
report = early.fit(verbose=0)
said = [early.backend, late.backend, report.backend, report.reasons["backend"], say(lambda: backend.use())]
loaded = kg.Hub(preset).load()
print(json.dumps([*said, texts[0] == texts[1], report.steps]))
""",
        KERAS_BACKEND=None,
        KERAS_HOME=str(tmp_path),
    )
    assert said == [*[runs_on] * 3, "Keras was running on it already", runs_on, True, 1]


def test_a_variable_set_after_keras_was_imported_changes_nothing_as_in_keras() -> None:
    said = child(
        SAY
        + """
import keras
os.environ["KERAS_BACKEND"] = "tensorflow"
print(json.dumps([say(backend.agree), say(backend.use), say(lambda: backend.use("jax"))]))
""",
        KERAS_BACKEND="jax",
    )
    assert said == ["jax", "jax", "jax"]


def test_keras_on_a_backend_that_cannot_train_is_no_way_out(tmp_path: Path) -> None:
    """Keras has backends that can't train; its configuration file may name one."""
    (tmp_path / "keras.json").write_text(
        json.dumps({"backend": "numpy", "floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"})
    )
    said = child(
        SAY + "import keras\nprint(json.dumps([say(lambda: backend.use(b)) for b in (None, 'auto', 'jax')]))",
        KERAS_BACKEND=None,
        KERAS_HOME=str(tmp_path),
    )
    for kind, message in said:
        assert kind == "BackendError"
        assert "runs on 'numpy'" in message
        assert "backend='numpy'" not in message
        assert "KERAS_BACKEND=jax set before the first `import keras`" in message


def test_after_an_import_of_keras_that_failed_another_backend_can_start() -> None:
    """A person whose Keras is set to a backend that is not installed; what failed remembers it."""
    failed, started = child(
        WITHOUT.format(module="tensorflow")
        + SAY
        + """
try:
    import keras
except ImportError as error:
    failed = error.name
print(json.dumps([failed, say(lambda: backend.use("jax"))]))
""",
        KERAS_BACKEND="tensorflow",
    )
    assert (failed, started) == ("tensorflow", "jax")


@pytest.mark.parametrize(
    ("missing", "variable", "other"),
    [
        ("tensorflow", None, "jax"),
        pytest.param("jax", "tensorflow", "tensorflow", marks=pytest.mark.tensorflow),
    ],
)
def test_a_backend_that_is_not_installed_is_an_error_and_another_can_start_after_it(
    missing: str, variable: str | None, other: str
) -> None:
    """Keras leaves parts of itself behind that remember the backend it could not start: JAX, in Keras 3.15."""
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed, so it can't start after {missing}")
    (kind, message), restored, running, then = child(
        WITHOUT.format(module=missing)
        + SAY
        + f"""
said = [say(lambda: backend.use({missing!r})), os.environ.get("KERAS_BACKEND"), backend.running()]
print(json.dumps([*said, say(lambda: backend.use({other!r}))]))
""",
        KERAS_BACKEND=variable,
    )
    assert kind == "BackendError"
    assert f"can't start on the backend {missing!r}: No module named {missing!r}" in message
    assert "KERAS_BACKEND (jax, tensorflow, torch)" in message
    assert restored == variable
    assert running is None
    assert then == other


def test_without_keras_the_error_names_what_is_missing() -> None:
    kind, message = child(WITHOUT.format(module="keras") + SAY + "print(json.dumps(say(backend.use)))")
    assert kind == "BackendError"
    assert "No module named 'keras'" in message


@pytest.mark.parametrize("backend_of", ["auto", None])
def test_a_pipelines_backend_has_the_reason_for_which_it_was_taken(backend_of: str | None, preset: str) -> None:
    """Not that it was asked for: the pipeline resolves `"auto"` before Keras is imported."""
    reason, expected = child(
        SAY
        + f"""
import kerasgen as kg
expected = backend.choose({backend_of!r})[1]
pipe = kg.Pipeline(model={preset!r}, backend={backend_of!r})
pipe.model
print(json.dumps([backend.reason(), expected]))
""",
        WITHOUT_TENSORFLOW,
        KERAS_BACKEND=None,
    )
    assert reason == expected != "it was asked for"


def test_what_one_process_compiled_another_one_finds(tmp_path: Path) -> None:
    """Without a word: in the user's cache directory. Here everything is kept, however fast it was compiled."""
    code = """
import json
import sys
from kerasgen import backend
backend.use("jax")
import jax
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8))).block_until_ready()
print(json.dumps([len(hits), jax.config.jax_compilation_cache_dir]))
"""
    kept = {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": str(tmp_path), "KERAS_BACKEND": None}
    (first, folder), (second, _) = child(code, **kept), child(code, **kept)
    assert Path(folder).is_dir()
    assert first == 0 < second


@pytest.mark.slow
def test_a_process_of_several_joins_them_though_keras_was_there_first_and_its_children_do_not() -> None:
    """JAX ends the process whose number another one gives as its own, as a worker of an export did."""
    code = """
import json, os, subprocess, sys
import keras
from kerasgen import backend, quiet
backend.use("jax")
backend.use()
import jax
ask = "from kerasgen import backend; backend.use('jax'); import jax; print(jax.distributed.is_initialized())"
child = subprocess.run([sys.executable, "-c", ask], env=os.environ | quiet.CHILD, capture_output=True, text=True)
print(json.dumps([jax.distributed.is_initialized(), child.stdout.strip()]))
"""
    of_run = {backend.PROCESSES: "1", "KERAS_DISTRIBUTION_PROCESS_ID": "0", "KERAS_BACKEND": "jax"}
    of_run |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{free_port()}", "PYTHONPATH": str(ROOT)}
    assert child(code, **of_run) == [True, "False"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "number", "said"),
    [
        ("import jax; jax.numpy.ones(3)", "2", "must be called before any JAX"),
        ("", "2", "coordinator_address should be defined"),
        ("", "two", "invalid literal for int"),
    ],
)
def test_a_process_that_can_not_join_the_others_says_what_it_needs(before: str, number: str, said: str) -> None:
    code = f"{SAY}\n{before}\nprint(json.dumps(say(lambda: backend.use('jax'))))"
    name, message = child(code, **{backend.PROCESSES: number, "KERAS_BACKEND": None})
    assert name == "BackendError"
    assert said in message
    assert "KERAS_DISTRIBUTION_JOB_ADDRESSES" in message


# Refuses Keras and says which backend it would have started on, so that one process can try every call first.
FIRST_CALLS = """
import os, sys, tempfile
import kerasgen as kg

asked = []

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name in ("keras", "keras_hub", "tensorflow", "jax"):
            asked.append((name, os.environ.get("KERAS_BACKEND")))
            raise ImportError(f"{name} is not wanted here")

sys.meta_path.insert(0, Refusing())
for name in kg.__all__:
    getattr(kg, name)
assert not asked, asked
os.chdir(tempfile.mkdtemp())
pipe = kg.Pipeline("sample:language=zh", backend="torch", cache="cache", max_documents=20)
CALLS = {
    "model": lambda: pipe.model,
    "tokenizer": lambda: pipe.tokenizer,
    "fit": lambda: pipe.fit(verbose=0),
    "fit with a callback": lambda: pipe.fit(verbose=0, callbacks=[object()]),
    "evaluate": lambda: pipe.evaluate(),
    "evaluate on texts": lambda: pipe.evaluate(["one", "another"], texts=2, self_bleu=False),
    "score": lambda: pipe.score(["one"]),
    "prompt": lambda: pipe.prompt("one").extend("two").generate(engine="keras", max_new_tokens=2, bad_words=["a"]),
    "generate": lambda: pipe.generate("one", sampler="contrastive", max_new_tokens=2),
    "generate in a form": lambda: pipe.generate("one", constraint="verse_form:form=七言絕句", max_new_tokens=2),
    "generate by LiteRT": lambda: pipe.generate("one", engine="litert", max_new_tokens=2),
    "stream": lambda: list(pipe.stream("one", max_new_tokens=2)),
    "save": lambda: pipe.save("saved"),
    "merge": lambda: pipe.merge(),
    **{name: lambda name=name: pipe.export(name) for name in
       ("a.tflite", "a.gguf", "a.litertlm", "a_saved_model", "a_preset")},
    "transformers": lambda: pipe.export("a_folder", exporter="transformers"),
}
started = {}
for name, call in CALLS.items():
    asked.clear()
    try:
        call()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        reason = "it needed no Keras"
    of_keras = [backend for asked_for, backend in asked if asked_for in ("keras", "keras_hub")]
    started[name] = [of_keras[0] if of_keras else None, reason]
"""


def test_whatever_is_called_first_starts_keras_on_the_pipelines_backend():
    """Keras takes a default of its own where it is imported before the pipeline's backend was said to it."""
    started = child(FIRST_CALLS + "import json; print(json.dumps(started))")
    wrong = {name: said for name, said in started.items() if said[0] not in ("torch", None)}
    assert not wrong, wrong
    assert started["evaluate"][0] == started["evaluate on texts"][0] == started["a_preset"][0] == "torch"


LOADED_AHEAD = """
import json, os, sys, threading
from kerasgen import backend
backend.load_ahead()
for thread in threading.enumerate():
    if thread.name == "kerasgen-libraries":
        thread.join()
mapped = "libtensorflow_cc.so.2" in open("/proc/self/maps").read()
imported = "tensorflow" in sys.modules
backend.use("tensorflow")
backend.load_ahead()
import keras
print(json.dumps([mapped, imported, float(keras.ops.sum(keras.ops.ones(3))), os.environ.get(backend.ONEDNN)]))
"""


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.skipif(sys.platform != "linux", reason="libraries are loaded ahead on Linux alone")
def test_tensorflow_s_libraries_are_loaded_before_it_is_imported():
    mapped, imported, total, onednn = child(LOADED_AHEAD, TF_ENABLE_ONEDNN_OPTS="0")
    assert (mapped, imported, total, onednn) == (True, False, 3.0, "0")
