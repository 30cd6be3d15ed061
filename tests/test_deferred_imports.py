"""Keras is imported without what it seldom calls, such as pandas, and works with it as where it came first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.one_backend
PROGRAM = """
import json, sys
if sys.argv[1] == "first":
    import pandas, matplotlib.pyplot, matplotlib.patches
from kerasgen import backend
backend.use("jax")
import keras, numpy as np
said = {"early": sorted({"pandas", "matplotlib"} & {name.partition(".")[0] for name in sys.modules})}
network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
network.compile(loss="mse")
network.fit(np.ones((4, 1)), np.ones(4), verbose=0)
said["still early"] = sorted({"pandas", "matplotlib"} & {name.partition(".")[0] for name in sys.modules})
import pandas as pd
frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
from keras.src.trainers.data_adapters import array_slicing
said["sliced"] = [array_slicing.can_slice_array(value) for value in (frame, frame["a"], "text", {})]
network.fit(frame[["a"]], frame["b"], verbose=0)
said["predicted"] = network.predict(frame[["a"]], verbose=0).shape
import matplotlib
matplotlib.use("Agg")
keras.visualization.plot_image_gallery(np.zeros((1, 4, 4, 3)), value_range=(0, 1), rows=1, cols=1, path=sys.argv[2])
from keras.src.visualization import plot_bounding_box_gallery
said["drawn"] = [open(sys.argv[2], "rb").read(4).hex(), plot_bounding_box_gallery.patches.Patch.__name__]
import matplotlib.pyplot
said["figure"] = type(matplotlib.pyplot.figure()).__name__
print(json.dumps(said))
"""


def test_pandas_and_matplotlib_come_when_they_are_asked_for_and_change_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    later, first = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, when, str(tmp_path / f"{when}.png")],
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            ).stdout
        )
        for when in ("later", "first")
    )
    assert later.pop("early") == later.pop("still early") == []
    assert first.pop("early") == first.pop("still early") == ["matplotlib", "pandas"]
    assert later == first
    assert later["sliced"] == [True, True, False, False]


SELDOM_CALLED = """
import json, sys
if sys.argv[2] == "first":
    import IPython, requests, scipy.sparse.linalg
    if sys.argv[1] == "tensorflow":
        import jax
from kerasgen import backend
backend.use(sys.argv[1])
names = ["requests", "IPython", "scipy.sparse", *(["jax"] if sys.argv[1] == "tensorflow" else [])]
said = {"early": [name for name in names if name in sys.modules]}
import keras, numpy as np
callback = keras.callbacks.RemoteMonitor(root="http://127.0.0.1:9")
callback.set_model(keras.Sequential())
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    callback.on_epoch_end(0, {"loss": 1.0})
said["told"] = [str(one.message).partition(" ")[0] for one in caught]
from keras.src.saving import file_editor
said["in a notebook"] = file_editor.is_ipython_notebook()
said["shows"] = file_editor.ipython.display.HTML("<b>x</b>").data
if sys.argv[1] == "jax":
    import jax.numpy as jnp
    from jax.experimental import sparse
    matrix = sparse.BCSR.fromdense(jnp.eye(3) * 2)
    said["solved"] = sparse.linalg.spsolve(matrix.data, matrix.indices, matrix.indptr, jnp.ones(3)).tolist()
else:
    from tensorflow.lite.python.lite import _jit
    said["jit"] = int(_jit(lambda x: x + 1)(1))
    from keras.src.callbacks import orbax_checkpoint
    said["version"] = orbax_checkpoint.jax.__version__
import scipy.sparse, requests, IPython
said["sparse"] = bool(scipy.sparse.issparse(scipy.sparse.eye(2)))
print(json.dumps(said))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_what_keras_seldom_calls_comes_when_it_is_called_and_does_the_same(backend: str) -> None:
    for name in ("requests", "IPython", "scipy", "jax", "tensorflow"):
        pytest.importorskip(name)
    later, first = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SELDOM_CALLED, backend, when],
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            ).stdout
        )
        for when in ("later", "first")
    )
    assert later.pop("early") == []
    assert "requests" in first.pop("early")
    assert later == first
    assert later["told"] == ["Could"]
