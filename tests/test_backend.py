"""Who computes is said once: `backend=`, then a running Keras, KERAS_BACKEND, and what suits the work.

Each fact in a process of its own.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from installing import child

from kerasgen import backend
from kerasgen.errors import ArgumentError

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
    monkeypatch.setattr(backend, "remembered", lambda: {"jax": 1000.0, "tensorflow": 2000.0})
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(backend.VARIABLE, variable)
    assert backend.choose(argument, trains=True)[0] == chosen


def test_processes_that_train_together_are_those_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(backend.sys.modules, "keras", raising=False)
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(backend, "remembered", lambda: {"jax": 1000.0, "tensorflow": 2000.0})
    monkeypatch.setenv(backend.PROCESSES, "2")
    assert backend.choose(trains=True)[0] == "jax"


@pytest.mark.tensorflow
def test_a_pipeline_with_a_corpus_takes_what_trains_faster_and_one_without_never_waits_for_tensorflow() -> None:
    """What was chosen and not begun yet follows what runs by then."""
    code = """
import json, sys
import kerasgen as kg
from kerasgen import backend
backend.remembered = lambda: {"jax": 1000.0, "tensorflow": 2000.0}
said = []
pipe = kg.Pipeline("sample", tuner="full:distribution=data"); said.append(pipe.backend)
pipe = kg.Pipeline("sample"); said.append(pipe.backend)
writer = kg.Pipeline(); said.append(writer.backend)
writer.generate("春", max_new_tokens=2); said.append("tensorflow" in sys.modules)
writer.model; said.append(backend.running())
pipe.model; said.append(pipe.backend)
print(json.dumps(said))
"""
    assert child(code, KERAS_BACKEND=None) == ["jax", "tensorflow", "jax", False, "jax", "jax"]


@pytest.mark.tensorflow
def test_a_saved_pipeline_is_loaded_to_write_until_it_is_tuned_further(tmp_path: Path) -> None:
    saved = str(tmp_path / "saved")
    code = f"""
import kerasgen as kg
kg.Pipeline("sample", tuner="lora:max_steps=1,sequence_length=16,batch_size=1").save({saved!r})
print('true')
"""
    assert child(code, KERAS_BACKEND="jax")
    code = f"""
import json
import kerasgen as kg
from kerasgen import backend
backend.remembered = lambda: {{"jax": 1000.0, "tensorflow": 2000.0}}
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


def test_keras_on_another_backend_already_is_an_error_that_says_what_to_do() -> None:
    (kind, message), running, follows, stays = child(
        SAY
        + """
import keras
said = [say(lambda: backend.use("tensorflow")), backend.running()]
os.environ["KERAS_BACKEND"] = "tensorflow"  # too late: Keras read it when it was imported
said += [say(backend.agree), say(lambda: backend.use("jax"))]
print(json.dumps(said))
""",
        KERAS_BACKEND="jax",
    )
    assert (kind, running, follows, stays) == ("BackendError", "jax", "jax", "jax")
    assert "runs on 'jax'" in message
    assert "Pass backend='jax'" in message
    assert "KERAS_BACKEND=tensorflow before the first `import keras`" in message


def test_keras_on_a_backend_that_kerasgen_does_not_know_is_no_way_out(tmp_path: Path) -> None:
    """Keras has backends that can't train; its configuration file may name one."""
    (tmp_path / "keras.json").write_text(
        json.dumps({"backend": "numpy", "floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"})
    )
    kind, message = child(
        SAY + "import keras\nprint(json.dumps(say(backend.use)))", KERAS_BACKEND=None, KERAS_HOME=str(tmp_path)
    )
    assert kind == "BackendError"
    assert "runs on 'numpy'" in message
    assert "backend='numpy'" not in message
    assert "Set KERAS_BACKEND=jax before the first `import keras`" in message


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
def test_a_pipelines_backend_has_the_reason_for_which_it_was_taken(backend_of: str | None) -> None:
    """Not that it was asked for: the pipeline resolves `"auto"` before Keras is imported."""
    reason, expected = child(
        SAY
        + f"""
import kerasgen as kg
expected = backend.choose({backend_of!r})[1]
pipe = kg.Pipeline(backend={backend_of!r})
pipe.model
print(json.dumps([backend.reason(), expected]))
""",
        KERAS_BACKEND=None,
    )
    assert reason == expected != "it was asked for"


def test_what_one_process_compiled_another_one_finds(tmp_path: Path) -> None:
    """Without a word: in the user's cache directory. Here everything is kept, however fast it was compiled."""
    code = """
import json
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
