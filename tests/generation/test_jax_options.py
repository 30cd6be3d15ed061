"""Options of one graph reach XLA, and change how a product is computed and not what is written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen import devices
from kerasgen.generation import generate_ids, jax_engine, jax_options
from kerasgen.samplers.sampling import Greedy

pytestmark = [pytest.mark.numerical, pytest.mark.one_backend]


def option_of_graph(options: dict[str, str]) -> bool:
    from jax._src import compiler

    made = compiler.get_compile_options(num_replicas=1, num_partitions=1, env_options_overrides=options)
    return b"xla_llvm_dot_tiling_factor" in made.SerializeAsString()


def test_an_extra_option_reaches_the_graph_that_it_is_given_for_and_no_other() -> None:
    if not jax_options._takes_extra_options():
        pytest.skip("this version of JAX has its options elsewhere")
    options = {"xla_backend_extra_options": "xla_llvm_dot_tiling_factor=1", "xla_cpu_enable_fast_math": "false"}
    assert option_of_graph(options)
    assert not option_of_graph({"xla_cpu_enable_fast_math": "false"})
    assert not option_of_graph({})
    rng = np.random.default_rng(0)
    matrix, column = (rng.standard_normal(shape, dtype=np.float32) for shape in ((77, 130), (130, 1)))
    found = jax.jit(jnp.matmul, compiler_options={"xla_backend_extra_options": "xla_llvm_dot_tiling_factor=1"})
    np.testing.assert_allclose(found(matrix, column), matrix @ column, rtol=1e-4, atol=1e-5)


def test_no_processor_but_those_that_gain_reads_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    jax_options.reads_row_by_row.cache_clear()
    try:
        monkeypatch.setattr(devices, "cpu_vendor", lambda: "GenuineIntel")
        assert not jax_options.reads_row_by_row()
        jax_options.reads_row_by_row.cache_clear()
        monkeypatch.setattr(jax_options, "_takes_extra_options", lambda: False)
        monkeypatch.setattr(devices, "cpu_vendor", lambda: "AuthenticAMD")
        assert not jax_options.reads_row_by_row()
    finally:
        jax_options.reads_row_by_row.cache_clear()


@pytest.mark.slow
def test_a_text_is_the_same_whether_rows_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (jax_options._takes_extra_options() and jax.default_backend() == "cpu"):
        pytest.skip("this version of JAX has its options elsewhere, or an accelerator computes")
    texts = []
    for vendor in ("AuthenticAMD", "GenuineIntel"):
        jax_options.reads_row_by_row.cache_clear()
        jax_options.compiler_options.cache_clear()
        monkeypatch.setattr(devices, "cpu_vendor", lambda vendor=vendor: vendor)
        try:
            assert jax_options.reads_row_by_row() == jax_engine.reads_row_by_row() == (vendor == "AuthenticAMD")
            (choice,) = generate_ids(tiny_gpt2(seed=3), [[5, 6, 7]], sampler=Greedy(), max_new_tokens=40)[0]
        finally:
            jax_options.reads_row_by_row.cache_clear()
            jax_options.compiler_options.cache_clear()
        texts.append(choice)
    assert texts[0].token_ids == texts[1].token_ids
    np.testing.assert_allclose(texts[0].score, texts[1].score, rtol=1e-4)
