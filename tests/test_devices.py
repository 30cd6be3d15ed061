"""What is taken by itself: the backend and the precision, from what the machine has."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toys import encode, smallest_gpt2, texts

from kerasgen import backend, cache, deferred_imports, devices
from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.full import FullTuner

pytestmark = pytest.mark.one_backend


class TestTheProcessor:
    @pytest.fixture(autouse=True)
    def _asked_anew(self) -> Any:
        for known in (devices.cpu_flags, devices.cpu_vendor):
            known.cache_clear()
        yield
        for known in (devices.cpu_flags, devices.cpu_vendor):
            known.cache_clear()

    @pytest.mark.parametrize(
        ("line", "flags"),
        [
            ("flags\t\t: fpu avx2 fma amx_bf16", {"fpu", "avx2", "fma", "amx_bf16"}),
            ("Features\t: asimd bf16", {"asimd", "bf16"}),
            ("model name\t: a processor", set()),
        ],
    )
    def test_its_features_are_read_from_linux(
        self, line: str, flags: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n\nprocessor : 1\n")
        monkeypatch.setattr(devices, "CPU_FLAGS", tmp_path / "cpuinfo")
        assert devices.cpu_flags() == flags
        assert devices.cpu_has_avx2() == ({"avx2", "fma"} <= flags)

    def test_its_maker_is_read_from_linux(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: avx2\n")
        monkeypatch.setattr(devices, "CPU_FLAGS", tmp_path / "cpuinfo")
        assert devices.cpu_vendor() == "AuthenticAMD"

    def test_a_system_that_does_not_say_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "CPU_FLAGS", tmp_path / "nothing")
        assert devices.cpu_flags() == frozenset()
        assert devices.cpu_vendor() is None


class TestTheBackend:
    def test_a_cpu_takes_tensorflow_where_it_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "running", lambda: None)
        monkeypatch.setattr(devices, "nvidia_gpu", lambda: False)
        monkeypatch.setattr(deferred_imports, "is_installed", lambda name: True)
        assert backend.automatic() == ("tensorflow", "TensorFlow measured faster on CPUs")
        monkeypatch.setattr(deferred_imports, "is_installed", lambda name: False)
        assert backend.agree("auto") == "jax"

    def test_a_gpu_takes_jax(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "running", lambda: None)
        monkeypatch.setattr(devices, "nvidia_gpu", lambda: True)
        assert backend.agree("auto") == "jax"

    def test_a_process_stays_with_what_it_runs(self) -> None:
        running = backend.use()
        assert backend.agree("auto") == running


class TestThePrecision:
    @pytest.mark.parametrize(
        ("flags", "on", "taken", "why"),
        [
            ({"avx2", "fma"}, "tensorflow", "float32", "the processor has no instructions for bfloat16"),
            ({"avx512_bf16"}, "tensorflow", "mixed_bfloat16", "the processor has instructions for bfloat16"),
            ({"avx512_bf16"}, "jax", "float32", "JAX is no faster in bfloat16 on a processor without AMX"),
            ({"avx512_bf16", "amx_bf16"}, "jax", "mixed_bfloat16", "the processor has instructions for bfloat16"),
        ],
    )
    def test_auto_is_bfloat16_only_where_the_backend_is_faster_for_it(
        self, flags: set[str], on: str, taken: str, why: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.use()
        from kerasgen.models import precision

        monkeypatch.setattr(precision, "_gpu_capability", lambda: None)
        monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: bool(devices._BFLOAT16 & flags))
        monkeypatch.setattr(devices, "cpu_has_tiles", lambda: "amx_bf16" in flags)
        monkeypatch.setattr(precision.keras.config, "backend", lambda: on)
        assert precision.resolve("auto") == (taken, why)
        assert precision.resolve("mixed_bfloat16") == ("mixed_bfloat16", "asked for")

    @pytest.mark.parametrize(("capability", "taken"), [((7, 5), "float32"), ((8, 0), "mixed_bfloat16")])
    def test_a_gpu_is_asked_for_its_capability(
        self, capability: tuple[int, int], taken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.use()
        from kerasgen.models import precision

        monkeypatch.setattr(precision, "_gpu_capability", lambda: capability)
        assert precision.resolve("auto")[0] == taken


class TestTheReport:
    def test_it_says_what_was_taken_and_how_fast_it_was(self, tmp_path: Path) -> None:
        model = smallest_gpt2()
        train = encode(model.tokenizer, texts(12))
        tuner = FullTuner(epochs=3, batch_size=4, sequence_length=32)
        report = tuner.tune(model, train, encode(model.tokenizer, texts(3)), seed=0, directory=tmp_path, verbose=0)
        assert report.precision == "float32"
        assert report.reasons["precision"] == "the processor has no instructions for bfloat16"
        assert f"backend: {report.backend}, because " in str(report)
        assert len(report.accuracies) == report.steps
        assert 0 <= report.accuracy <= 1
        assert report.padding == pytest.approx(1 - report.fill)
        assert 0 < report.first_step_seconds < report.seconds
        assert report.steady_tokens_per_second > report.tokens_per_second
        assert 0 < report.flops_share < 1
        assert report.peak_memory_bytes > 10**8

    def test_a_tokens_operations_are_six_for_each_weight_of_a_product(self) -> None:
        """And two for each of two products with the positions before it, three times over."""
        from kerasgen.tuners.throughput import training_flops

        model = smallest_gpt2()
        width, wide, vocabulary_size = 16, 32, 300
        weights = 4 * width * width + 2 * width * wide + vocabulary_size * width
        assert training_flops(model, 32) == 6 * weights + 12 * width * 32
        model.backbone.token_embedding.trainable = False
        assert training_flops(model, 32) == 6 * weights + 12 * width * 32 - 2 * vocabulary_size * width

    def test_remat_is_for_the_families_with_a_forward_pass_of_their_own(self, tmp_path: Path) -> None:
        from toys import tiny_gemma

        model = tiny_gemma()
        with pytest.raises(
            TuneArgumentError,
            match=r"remat=True is for BloomBackbone, .*OPTBackbone.*Received: GemmaBackbone",
        ):
            FullTuner(remat=True).tune(model, encode(model.tokenizer, texts(3)), seed=0, directory=tmp_path, verbose=0)


def test_jax_keeps_nothing_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would warn at each program, and leave files cut off; what it left empty once is removed."""
    if backend.use() != "jax":
        pytest.skip("TensorFlow keeps nothing")
    import jax

    settings = SimpleNamespace(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)
    settings.update = lambda name, value: setattr(settings, name, value)
    monkeypatch.setattr(jax, "config", settings)
    monkeypatch.setattr(backend, "_compiled", None)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    kept = tmp_path / "jax"
    kept.mkdir()
    (kept / "jit_f-0-cache").touch()
    (kept / "jit_g-0-cache").write_bytes(b"program")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
        backend.keep_compiled()
    assert settings.jax_compilation_cache_dir is None
    backend.keep_compiled()
    assert settings.jax_compilation_cache_dir == str(kept)
    assert [path.name for path in kept.iterdir()] == ["jit_g-0-cache"]


def test_jax_keeps_what_it_compiled_unless_told_where(monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.use() != "jax":
        pytest.skip("TensorFlow keeps nothing")
    import jax

    told: dict[str, Any] = {}
    settings = SimpleNamespace(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)

    def update(name: str, value: Any) -> None:
        told[name] = value
        setattr(settings, name, value)

    settings.update = update
    monkeypatch.setattr(jax, "config", settings)
    monkeypatch.setattr(backend, "_compiled", None)
    for name in backend._LEAST_KEPT:
        monkeypatch.delenv(name.upper(), raising=False)
    backend.keep_compiled()
    chosen = str(cache.directory() / "jax")
    limits = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
    assert told == {"jax_compilation_cache_dir": chosen, **limits}
    told.clear()
    backend.keep_compiled()  # a directory of ours, chosen before
    assert told == limits
    told.clear()
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "2")
    backend.keep_compiled()
    assert told == {"jax_persistent_cache_min_entry_size_bytes": -1}
    told.clear()
    settings.jax_compilation_cache_dir = "/elsewhere"
    backend.keep_compiled()
    assert not told


def test_free_memory_is_the_systems_or_what_the_limit_of_a_group_leaves(tmp_path, monkeypatch):
    memory, own, groups = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "groups"
    for name, place in (("MEMORY", memory), ("OWN_GROUPS", own), ("GROUPS", groups)):
        monkeypatch.setattr(devices, name, place)
    assert devices.free_memory_bytes() is None
    memory.write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 3000 kB\n")
    assert devices.free_memory_bytes() == 3000 * 1024

    inner = groups / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("700000\n")
    (inner / "memory.stat").write_text("anon 300000\nactive_file 100\ninactive_file 200\n")
    assert devices.free_memory_bytes() == 3000 * 1024
    for name, content in (("max", "1000000"), ("current", "800000"), ("stat", "active_file 100\ninactive_file 200")):
        (inner.parent / f"memory.{name}").write_text(content + "\n")
    assert devices.free_memory_bytes() == 1_000_000 - 800_000 + 300

    own.write_text("5:cpu:/a\n4:memory:/told/from/outside\n0::/\n")
    (groups / "memory").mkdir()
    for name, content in (
        ("limit_in_bytes", "500000"),
        ("usage_in_bytes", "600000"),
        ("stat", "active_file 0\ninactive_file 150000"),
    ):
        (groups / "memory" / f"memory.{name}").write_text(content + "\n")
    assert devices.free_memory_bytes() == 500_000 - 450_000
