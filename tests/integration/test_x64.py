"""A process whose JAX has 64-bit numbers switched on trains, generates and scores as any other."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

PROGRAM = """
    import json, sys, warnings
    warnings.simplefilter("error")
    import kerasgen as kg
    texts = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。"] * 6
    tuner = kg.FullTuner(max_steps=2, batch_size=2)
    pipe = kg.Pipeline(model="starter", corpus=kg.Texts(texts), tuner=tuner, held_out=0)
    samplers = ["greedy", "top_k", "random", "beam:num_beams=2", "contrastive"]
    said = [pipe.generate("春", sampler=sampler, max_new_tokens=6) for sampler in samplers]
    said.append("".join(pipe.stream("春", max_new_tokens=6)))
    said.append(pipe.generate("春", constraint="regex:pattern=.{4}", max_new_tokens=6))
    warnings.simplefilter("default")
    pipe.model
    said += [pipe.generate("春", sampler=sampler, max_new_tokens=6) for sampler in samplers]
    said.append(pipe.prompt("春").generate("眠", max_new_tokens=3))
    said.append(round(pipe.score(texts[:1])[0].log_probability, 3))
    losses = pipe.fit(verbose=0).losses
    print(json.dumps([said, [round(loss, 3) for loss in losses]]))
"""


@pytest.mark.nightly
def test_x64_changes_nothing_that_is_written_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for x64 in ("0", "1"):
        monkeypatch.setenv("JAX_ENABLE_X64", x64)
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-3000:]
        said.append(json.loads(run.stdout.splitlines()[-1]))
    assert said[0] == said[1]


@pytest.mark.nightly
def test_x64_exports_what_writes_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each export is proved against the model in its process."""
    for package in ("gguf", "xllamacpp", "ai_edge_litert", "tensorflow"):
        pytest.importorskip(package)
    program = """
        import sys
        from pathlib import Path
        import kerasgen as kg
        from tiny import tiny_gpt2
        model = tiny_gpt2(num_layers=1, max_sequence_length=160)
        tflite = kg.TFLiteExporter(cache_length=96, prefill_lengths=(8,), decode_lengths=(), beams=0)
        for exporter, name in ((kg.GgufExporter(), "/poet.gguf"), (tflite, "/poet.tflite")):
            print(repr(exporter.export(model, Path(sys.argv[1] + name)).generate("the sand", max_new_tokens=9)))
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    said = []
    for x64 in ("0", "1"):
        monkeypatch.setenv("JAX_ENABLE_X64", x64)
        (tmp_path / x64).mkdir()
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / x64)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        said.append(run.stdout.splitlines()[-2:])
    assert said[0] == said[1]
    assert said[0][0].startswith("'the sand")
