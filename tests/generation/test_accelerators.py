"""What decoding does otherwise on a GPU or a TPU, run here on a processor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import backend
from kerasgen.generation import engine_registry, generate, jax_steps
from kerasgen.generation.jax_session import JaxSession
from kerasgen.models import precision, weights_dtype
from kerasgen.samplers.sampling import TopP

pytestmark = pytest.mark.one_backend


@pytest.mark.slow
def test_calls_of_more_steps_write_the_same_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = tiny_gpt2(), {"sampler": TopP(0.9), "max_new_tokens": 40, "seed": 5}
    prompts = ["the cat", "a", "then he"]
    wanted = generate(model, prompts, **settings)
    asked: list[int] = []
    run = JaxSession.run

    def counted(session: JaxSession, steps: int, *rest: Any, **more: Any) -> Any:
        asked.append(steps)
        return run(session, steps, *rest, **more)

    monkeypatch.setattr(JaxSession, "run", counted)
    monkeypatch.setattr(jax_steps, "most_steps", lambda: jax_steps.ACCELERATOR_STEPS)
    assert generate(model, prompts, **settings) == wanted
    assert max(asked) == 40, "all of them in one call"


def test_a_batch_has_as_many_texts_as_a_quarter_of_the_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    backend.use()
    import jax

    engine: Any = engine_registry.resolve(tiny_gpt2())
    assert engine.texts_at_once(64) == 32, "on a processor"
    config = engine.decoder.config
    of_text = 64 * 2 * 4 * config.num_layers * config.attention.num_key_value_heads * config.attention.head_dim

    def device(texts: float) -> Any:
        stats = {"bytes_limit": 1000 + int(4 * texts * of_text), "bytes_in_use": 1000}
        return SimpleNamespace(platform="gpu", memory_stats=lambda: stats)

    for fitting, wanted in ((3, 32), (64, 64), (127, 64), (200, 128), (5000, 256)):
        monkeypatch.setattr(jax, "local_devices", lambda fitting=fitting: [device(fitting)])
        assert engine.texts_at_once(64) == wanted
    rows: list[int] = []
    opened = type(engine).open

    def counted(engine: Any, texts: Any, limits: Any) -> Any:
        rows.append(len(texts))
        return opened(engine, texts, limits)

    monkeypatch.setattr(type(engine), "open", counted)
    generate(engine, ["a"] * 40, max_new_tokens=1, sampler="greedy")
    assert rows == [40], "a call that says nothing follows the device"
    generate(engine, ["a"] * 40, max_new_tokens=1, sampler="greedy", batch_size=30)
    assert rows[1:] == [30, 10]


def test_products_of_bfloat16_are_of_bfloat16_and_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    backend.use()
    import jax
    import jax.numpy as jnp

    from kerasgen.decoder import jax_hooks

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((40, 512)), jnp.bfloat16)
    hidden = jnp.asarray(rng.standard_normal((512, 3)), jnp.float32)
    (dot,) = [
        each for each in jax.make_jaxpr(jax_hooks.product)(kernel, hidden).eqns if each.primitive.name == "dot_general"
    ]
    assert {str(each.aval.dtype) for each in dot.invars} == {"bfloat16"}
    found = jax_hooks.product(kernel, hidden)
    assert found.dtype == np.float32
    whole = np.asarray(kernel, np.float64) @ np.asarray(hidden.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(found, whole, atol=1e-4)


@pytest.mark.slow
def test_weights_that_suit_the_device_are_float32_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = kg.Pipeline(weights="auto")
    assert weights_dtype.resolved("auto") == "float32"
    assert weights_dtype.held(pipe.model) is None
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
    assert weights_dtype.held(kg.Pipeline(weights="auto").model) == "bfloat16"
    assert "weights='auto'" in repr(pipe)
