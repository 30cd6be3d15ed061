"""On JAX KerasHub is imported without TensorFlow, and does with it what it does where TensorFlow came first."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from kerasgen import deferred_imports

pytestmark = pytest.mark.one_backend
TEXTS = ["春眠不觉晓", "a b\n\nc"]
PROGRAM = """
import json, sys
if sys.argv[1] == "first":
    import tensorflow
from kerasgen import backend
backend.use("jax")
import kerasgen as kg
from kerasgen.models import hub_import
from kerasgen.models.saving import save_preset
model = kg.models.create("starter").load()
save_preset(model, sys.argv[2])
model = kg.models.create(f"hub:preset={sys.argv[2]}").load()
said = {"early": "tensorflow" in sys.modules}
hub = hub_import.load()
preprocessor = model.causal_lm.preprocessor
said["ids"] = preprocessor.tokenizer(TEXTS[0]).tolist()
said["still early"] = "tensorflow" in sys.modules
import tensorflow as tf
rows = tf.data.Dataset.from_tensor_slices(TEXTS).map(preprocessor.tokenizer)
said["in a graph"] = [row.numpy().tolist() for row in rows]
said["of a tensor"] = [int(id) for id in preprocessor.tokenizer(tf.constant(TEXTS[0]))]
model.causal_lm.compile(sampler="greedy")
said["text"] = model.causal_lm.generate(TEXTS[0], max_length=12)
said["words"] = hub.tokenizers.compute_word_piece_vocabulary(tf.data.Dataset.from_tensor_slices(["the cat sat"]), 12)
from keras_hub.src.utils import preset_utils
said["schemes"] = [scheme in preset_utils.tf_registered_schemes() for scheme in (None, "ram", "hf", "none")]
print(json.dumps(said))
"""


def test_tensorflow_comes_when_it_is_asked_for_and_changes_nothing(tmp_path):
    later, first = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", f"TEXTS = {TEXTS!r}\n{PROGRAM}", when, str(tmp_path / when)],
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            ).stdout
        )
        for when in ("later", "first")
    )
    assert not later.pop("early")
    assert not later.pop("still early")
    assert first.pop("early")
    assert first.pop("still early")
    assert later == first
    assert later["in a graph"][0] == later["ids"] == later["of a tensor"]
    assert later["schemes"] == [False, True, False, False]


def test_a_thread_that_imports_what_is_deferred_waits_for_the_real_module(monkeypatch):
    """And the thread that imports KerasHub finds a module with nothing in it."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    found = []

    def read() -> None:
        import colorsys

        found.append(colorsys.rgb_to_hsv(1, 0, 0))

    thread = threading.Thread(target=read)
    stand_in = deferred_imports.StandIn("colorsys", None)
    stand_in.__spec__ = deferred_imports.spec_of("colorsys")
    with deferred_imports.IMPORTING, deferred_imports.deferring({"colorsys": stand_in}):
        import colorsys

        with pytest.raises(AttributeError, match="not imported yet"):
            colorsys.rgb_to_hsv  # noqa: B018
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert found == [(0.0, 1.0, 1)]
    assert colorsys.hsv_to_rgb(0, 1, 1) == (1, 0, 0)


@pytest.mark.parametrize("how", ["none", "finder"])
def test_where_tensorflow_is_forbidden_keras_and_keras_hub_work(how, tmp_path):
    program = """
import sys

class Forbidding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_text"):
            raise ModuleNotFoundError(f"{name} is forbidden")

if sys.argv[1] == "none":
    sys.modules["tensorflow"] = sys.modules["tensorflow_text"] = None
else:
    sys.meta_path.insert(0, Forbidding())
from kerasgen import backend
backend.use("jax")
import kerasgen as kg
from kerasgen.models.saving import save_preset
save_preset(kg.models.create("starter").load(), sys.argv[2])
model = kg.models.create(f"hub:preset={sys.argv[2]}").load()
import keras
network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
network.save(sys.argv[3])
keras.models.load_model(sys.argv[3])
print(network.to_json()[:1], model.causal_lm.preprocessor.tokenizer("春").tolist())
"""
    command = [sys.executable, "-c", program, how, str(tmp_path / "preset"), str(tmp_path / "m.keras")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert said.startswith("{ [")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_kaggles_client_comes_when_it_is_asked_for_and_its_errors_are_caught(backend):
    pytest.importorskip("kagglehub")
    if backend == "tensorflow":
        pytest.importorskip("tensorflow")
    program = """
import sys
from kerasgen import backend
backend.use(sys.argv[1])
from kerasgen.models import hub_import
keras_hub = hub_import.load()
from keras_hub.src.utils import preset_utils
print([name for name in ("kagglehub", "kagglesdk", "tensorflow_text") if name in sys.modules])
print(preset_utils.kagglehub.model_download.__module__.partition(".")[0])
import kagglehub, kagglehub.exceptions, requests
assert preset_utils.KaggleApiHTTPError is kagglehub.exceptions.KaggleApiHTTPError

def refuse(*_):
    response = requests.Response()
    response.status_code = 404
    raise kagglehub.exceptions.KaggleApiHTTPError("404 Client Error", response=response)

kagglehub.model_download = refuse
try:
    preset_utils.get_file("kaggle://nobody/nothing/keras/none", "config.json")
except FileNotFoundError as cause:
    print(type(cause.__cause__ or cause.__context__).__name__)
"""
    command = [sys.executable, "-c", program, backend]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    assert said == ["[]", "kagglehub", "KaggleApiHTTPError"]
