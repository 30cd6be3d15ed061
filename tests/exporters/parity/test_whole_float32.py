"""A proof of equal ids multiplies float32 as float32: an accelerator rounds the factors unless it is told not to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import smallest_gpt2

from kerasgen import backend
from kerasgen.exporters.parity import comparison, worker


def precision_of_products() -> Any:
    """What JAX is asked for in a product that is compiled now."""
    import jax

    square = np.zeros((2, 2), np.float32)
    (dot,) = [each for each in jax.make_jaxpr(lambda x: x @ x)(square).eqns if each.primitive.name == "dot_general"]
    return dot.params["precision"]


def test_the_models_own_forward_pass_is_asked_for_whole_products(monkeypatch: pytest.MonkeyPatch) -> None:
    running = backend.use()
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model, asked = smallest_gpt2(), []

    def noting(*inputs: Any, **settings: Any) -> Any:
        asked.append(precision_of_products())
        if running == "tensorflow":
            import tensorflow as tf

            assert not tf.config.experimental.tensor_float_32_execution_enabled()
        return model.causal_lm(*inputs, **settings)

    comparison.logits(dataclasses.replace(model, causal_lm=noting), [1, 2, 3])
    assert asked == [(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)]
    assert precision_of_products() is None, "and nothing else is"
    if running == "tensorflow":
        import tensorflow as tf

        assert tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.one_backend
def test_so_are_the_processes_that_run_an_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import json, os, sys; open(sys.argv[2], 'w').write(json.dumps(dict(os.environ)))"
    (tmp_path / "answering.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert worker.run("answering", {})["NVIDIA_TF32_OVERRIDE"] == "0"
