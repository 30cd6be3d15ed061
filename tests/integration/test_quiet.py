"""Nothing comes out on standard output or standard error that nobody asked for."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest
from tiny import tiny_gpt2

from kerasgen import quiet
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend

NOISE = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795757021.348765   13935 port.cc:153] oneDNN custom operations are on.\n"
    b"E0000 00:00:1795759203.914033    7803 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error\n"
    b"INFO: [environment.cc:36] Creating LiteRT environment with options\n"
)


def output_of(program: str, folder, **variables: str) -> tuple[bytes, bytes]:
    """What a child process writes, descriptors 1 and 2, with no setting of logs in its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "ABSL_", "GLOG_"))}
    environment |= {"KERASGEN_CACHE": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state"), **variables}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    save_preset(tiny_gpt2(num_layers=1, max_sequence_length=64, intermediate_dim=128), folder / "tiny")
    return folder


TINY = """
import kerasgen as kg
texts = [f"the cat sat on mat {n}" for n in range(40)]
tuner = kg.FullTuner(max_steps=2, batch_size=2, sequence_length=16)
pipe = kg.Pipeline(corpus=texts, model="./tiny", tuner=tuner, backend=BACKEND)
"""


@pytest.mark.parametrize("backend", ["jax", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_tuning_says_nothing_and_its_bar_shows_the_loss_alone(folder, backend):
    """Of the insides of a step there is nothing in the bar."""
    program = (
        TINY.replace("BACKEND", repr(backend))
        + """
import os
pipe.fit(verbose=0, callbacks=None)
pipe.generate("the", max_new_tokens=3)
os.write(1, b"AND NOW")
os.write(2, b"AND NOW")
pipe.fit(verbose=2)
"""
    )
    (before, _, after), (told, _, bars) = (one.decode().partition("AND NOW") for one in output_of(program, folder))
    assert (before, told) == ("", "")
    assert set(re.findall(r"(\w+): [\d.]", after)) == {"loss", "val_loss", "val_bits_per_character"}
    assert set(re.findall(r"[a-z]{3,}", bars)) <= {"reading", "documents", "tokenising"}


# What rounding costs a model that was never trained says nothing.
PERMISSIVE = {"most_divergence": 9.0, "least_agreement": 0.0, "most_logit_difference": 9.0, "most_loss_increase": 9.0}


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.tflite", {"quantize": "int8", "cache_length": 64} | PERMISSIVE),
        ("b.tflite", {"cache_length": 64}),
        ("c_saved_model", {}),
        ("d.gguf", {}),
        ("e.litertlm", {"cache_length": 64}),
        ("f", {}),
    ],
)
def test_exporting_and_loading_say_nothing(folder, name, settings):
    for needed in {"tflite": ["litert_quantizer"], "gguf": ["gguf"], "litertlm": ["litert_lm"]}.get(name[2:], []):
        pytest.importorskip(needed)
    exporting = f"""
import kerasgen as kg
kg.Pipeline(model="./tiny", backend="jax").export({name!r}, **{settings!r})
"""
    assert output_of(exporting, folder) == (b"", b"")
    if name == "f" or (name == "d.gguf" and not _has("xllamacpp")):
        return
    loading = f"import kerasgen as kg\nkg.load_artefact({name!r}).generate('春', max_new_tokens=3)\n"
    assert output_of(loading, folder) == (b"", b"")


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_what_is_no_noise_comes_out(folder):
    program = f"""
import os, sys
from kerasgen.quiet import quietly
with quietly():
    os.write(2, {NOISE!r})
    print("from Python", file=sys.stderr)
    os.write(2, b"E0000 00:00:1.5 7 disk.cc:3] the disk is full\\n")
os.write(2, b"after\\n")
"""
    assert output_of(program, folder)[1] == b"from Python\nE0000 00:00:1.5 7 disk.cc:3] the disk is full\nafter\n"


def test_who_asks_for_the_logs_gets_them(folder):
    program = f"import os\nfrom kerasgen.quiet import quietly\nwith quietly():\n    os.write(2, {NOISE!r})\n"
    assert output_of(program, folder, TF_CPP_MIN_LOG_LEVEL="0")[1] == NOISE
    assert output_of(program, folder)[1] == b""


def test_a_failure_keeps_what_was_dropped(folder):
    program = f"""
import os
from kerasgen.quiet import quietly
try:
    with quietly():
        os.write(2, {NOISE!r})
        raise ValueError("no")
except ValueError as error:
    assert "cuInit" in error.__notes__[0], error.__notes__
"""
    assert output_of(program, folder) == (b"", b"")


def test_a_level_that_was_chosen_stays(monkeypatch):
    monkeypatch.setenv(quiet.LEVEL, "1")
    quiet.set_level()
    assert os.environ[quiet.LEVEL] == "1"


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.nightly
def test_several_models_are_scored_and_tuned_without_advice_on_tracing(folder):
    """TensorFlow counts the traces of Keras's functions over all models, and takes the fifth for a mistake."""
    program = """
import kerasgen as kg
texts = [f"the cat sat on mat {n}" for n in range(4)]
tuner = kg.FullTuner(max_steps=1, batch_size=2, sequence_length=16)
for _ in range(6):
    pipe = kg.Pipeline(corpus=texts, model="./tiny", tuner=tuner, backend="tensorflow", held_out=0)
    pipe.score(texts)
    pipe.fit(verbose=0)
"""
    assert output_of(program, folder) == (b"", b"")


def test_advice_on_tracing_that_is_not_ours_comes_out(caplog):
    advice = "5 out of the last 5 calls to <function f> triggered tf.function retracing."
    logger = logging.getLogger("tensorflow")
    with quiet.several_models(), quiet.several_models():
        logger.warning(advice)
        logger.warning("another")
    logger.warning(advice)
    assert [record.getMessage() for record in caplog.records] == ["another", advice]
