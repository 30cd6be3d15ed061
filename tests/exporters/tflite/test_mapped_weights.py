"""The weights of an artefact that goes on generating move into memory of the process, and no text changes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import devices, file_mappings, huge_pages
from kerasgen.errors import GenerateArgumentError
from kerasgen.exporters.tflite import mapped_weights

pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.one_backend, pytest.mark.slow]
needs_moving = pytest.mark.skipif(not huge_pages.can_move(), reason="this system moves no memory into huge pages")

PROMPT, TOKENS = [5, 6, 7], 40


@pytest.fixture(scope="module", params=["float32", "int8"])
def path(request, tmp_path_factory):
    """An artefact of some 13 million weights, written without its proof, which is not what is tested here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(kg.TFLiteExporter, "_prove", lambda *arguments: {})
    exporter = kg.TFLiteExporter(
        cache_length=64, prefill_lengths=(8,), decode_lengths=(), quantize=request.param, beams=2
    )
    path = tmp_path_factory.mktemp("artefact") / "poet.tflite"
    exporter.export(tiny_gpt2(num_layers=1, hidden_dim=1024, num_heads=4), path)
    patch.undo()
    return path


@pytest.fixture
def kept(path, tmp_path):
    """A weight cache that an earlier process wrote."""
    kept = tmp_path / "weights"
    kg.load_artefact(path, weight_cache=kept, huge_pages=False)
    gc.collect()
    return kept


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(mapped_weights, "_MANY_TOKENS", 10)


def opened(path: Path, kept: Path, *, huge_pages: Any = True) -> Any:
    return kg.load_artefact(path, weight_cache=kept, huge_pages=huge_pages)


def ids(runtime: Any, **settings: Any) -> list[list[int]]:
    return runtime.generate_ids([PROMPT], max_new_tokens=TOKENS, end_token_id=300, **settings)


def moved(runtime: Any) -> bool:
    """Wait until a runtime's weights are moved, and return whether they were."""
    weights = runtime.engine.mapped_weights
    if weights.moving is not None:
        weights.moving.join()
    return weights.is_moved


@needs_moving
def test_texts_are_the_same_before_during_and_after_the_move(path, kept, soon):
    content = kept.read_bytes()
    staying = opened(path, kept, huge_pages=False)
    wanted = {sampler: ids(staying, sampler=sampler) for sampler in ("greedy", "beam:num_beams=2", "random")}
    del staying
    gc.collect()
    runtime = opened(path, kept)
    before = file_mappings.of_file(kept)
    assert before
    wrong: list[Any] = []
    last = time.monotonic() + 60

    def decode() -> None:
        while not runtime.engine.mapped_weights.is_moved and time.monotonic() < last:
            for sampler, text in wanted.items():
                if ids(runtime, sampler=sampler) != text:
                    wrong.append(sampler)

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert moved(runtime)
    assert not file_mappings.of_file(kept) & before
    assert {sampler: ids(runtime, sampler=sampler) for sampler in wanted} == wanted
    assert kept.read_bytes() == content


@needs_moving
def test_runtimes_of_one_file_each_move_their_own_and_give_their_memory_back(path, kept, soon):
    first, second = opened(path, kept), opened(path, kept)
    both = file_mappings.of_file(kept)
    wanted = ids(first)
    assert moved(first)
    left = file_mappings.of_file(kept)
    assert left
    assert len(both) == 2 * len(left)
    assert ids(second) == wanted
    assert moved(second)
    assert file_mappings.of_file(kept) == set()
    before = resident()
    del first
    gc.collect()
    assert resident() < before - sum(mapping.size for mapping in left) // 2
    assert ids(second) == wanted
    third = opened(path, kept)  # the file serves the next one
    assert len(file_mappings.of_file(kept)) == len(left)
    assert ids(third) == wanted


def resident() -> int:
    """Return how many bytes of its own this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


@needs_moving
def test_another_process_reads_the_file_as_before(path, kept, soon):
    runtime = opened(path, kept)
    wanted = ids(runtime)
    assert moved(runtime)
    code = (
        "import sys, kerasgen as kg\n"
        "runtime = kg.load_artefact(sys.argv[1], weight_cache=sys.argv[2], huge_pages=True)\n"
        f"print(runtime.generate_ids([{PROMPT}], max_new_tokens={TOKENS}, end_token_id=300))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path, kept], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == str(wanted), run.stderr[-2000:]
    with kg.load_artefact(path, isolated=True, weight_cache=str(kept), huge_pages=True) as isolated:
        assert ids(isolated) == wanted


@needs_moving
def test_the_first_process_that_writes_the_weight_cache_moves_its_weights_too(path, kept, tmp_path, soon):
    wanted = ids(opened(path, kept, huge_pages=False))
    runtime = opened(path, tmp_path / "new" / "weights")
    assert ids(runtime) == wanted
    assert moved(runtime)
    assert ids(runtime) == wanted


@needs_moving
def test_a_runtime_that_goes_while_its_weights_are_copied_takes_them_with_it(path, kept, soon, monkeypatch):
    runtime = opened(path, kept)
    wanted = ids(opened(path, kept, huge_pages=False))
    gc.collect()
    going, gone = threading.Event(), threading.Event()

    class Waiting(file_mappings.Copy):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            going.set()
            assert gone.wait(60)

    monkeypatch.setattr(file_mappings, "Copy", Waiting)
    weights = runtime.engine.mapped_weights
    assert ids(runtime) == wanted
    assert going.wait(60)
    del runtime
    gc.collect()
    gone.set()
    weights.moving.join()
    assert not weights.is_moved
    assert file_mappings.of_file(kept) == set()
    assert ids(opened(path, kept)) == wanted


@pytest.mark.parametrize("lacking", ["memory", "figures of memory", "mremap", "huge pages", "maps"])
def test_texts_are_the_same_where_nothing_can_be_moved(path, kept, soon, lacking, tmp_path, monkeypatch):
    wanted = ids(opened(path, kept, huge_pages=False))
    if lacking in ("memory", "figures of memory"):
        monkeypatch.setattr(devices, "free_memory_bytes", lambda: 1000 if lacking == "memory" else None)
    elif lacking == "mremap":
        monkeypatch.setattr(file_mappings, "_calls", lambda: None)
    elif lacking == "huge pages":
        monkeypatch.setattr(huge_pages, "can_move", lambda: False)
    else:
        monkeypatch.setattr(file_mappings, "MAPS", tmp_path / "nothing")
    runtime = opened(path, kept)
    for _ in range(2):
        assert ids(runtime) == wanted
        assert not moved(runtime)


def test_weights_stay_in_the_file_for_a_short_text_and_where_that_is_asked_for(path, kept, monkeypatch):
    short = opened(path, kept)
    ids(short)
    assert short.engine.mapped_weights.moving is None
    monkeypatch.setattr(mapped_weights, "_MANY_TOKENS", 10)
    staying = opened(path, kept, huge_pages=False)
    ids(staying)
    assert staying.engine.mapped_weights is None
    is_int8 = "int8" in path.with_name(path.name + ".json").read_text()
    assert (kg.load_artefact(path, weight_cache=kept).engine.mapped_weights is not None) == is_int8
    with pytest.raises(GenerateArgumentError, match="huge_pages"):
        opened(path, kept, huge_pages=1)
    assert opened(path, kept).engine.ending_at(3).mapped_weights is not None


@needs_moving
def test_a_process_ends_while_its_weights_are_moved(path, kept):
    code = (
        "import sys, kerasgen as kg\n"
        "from kerasgen.exporters.tflite import mapped_weights\n"
        "mapped_weights._MANY_TOKENS = 3\n"
        "runtime = kg.load_artefact(sys.argv[1], weight_cache=sys.argv[2], huge_pages=True)\n"
        f"print(len(runtime.generate_ids([{PROMPT}], max_new_tokens=3, end_token_id=300)[0]))\n"
    )
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code, path, kept], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (0, "3\n"), run.stderr[-2000:]
