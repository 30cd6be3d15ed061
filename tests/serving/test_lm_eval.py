"""EleutherAI's harness measures a served model by `local-completions`, and its figures are those of `pipe.score`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from listening import listening

import kerasgen as kg
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytest.importorskip("lm_eval", reason="the harness is a package of its own: lm_eval[api]")
pytest.importorskip("tenacity", reason="lm_eval asks servers by its extra: lm_eval[api]")
pytest.importorskip("datasets")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.one_backend, pytest.mark.nightly]

LINES = (
    ("春眠不覺曉，", "處處聞啼鳥。", "低頭思故鄉。"),
    ("床前明月光，", "疑是地上霜。", "更上一層樓。"),
    ("白日依山盡，", "黃河入海流。", "花落知多少。"),
    ("千山鳥飛絕，", "萬徑人蹤滅。", "何處不相思。"),
    ("空山不見人，", "但聞人語響。", "月落烏啼霜。"),
)
TASKS = {
    "lines": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{begin}}",
        "doc_to_choice": "{{[right, wrong]}}",
        "doc_to_target": 0,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "poems": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{begin}}{{right}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}


def test_the_harness_finds_what_the_pipeline_says(tmp_path: Path) -> None:
    pipe = kg.Pipeline(model="starter")
    pipe.export(tmp_path / "poet-hf", exporter="transformers")
    data = tmp_path / "lines.jsonl"
    rows = (dict(zip(("begin", "right", "wrong"), line, strict=True)) for line in LINES)
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    for name, task in TASKS.items():
        read = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"task": name, **read, **task}), "utf-8")  # JSON is YAML
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with listening(application_of(pipe, ServerSettings(model_name="poet"))) as server:
        address = f"http://127.0.0.1:{server.port}/v1/completions"
        about = f"model=poet,base_url={address},tokenizer_backend=huggingface,tokenizer={tmp_path / 'poet-hf'}"
        command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--tasks", "lines,poems"]
        command += ["--include_path", str(tmp_path), "--model_args", about, "--output_path", str(tmp_path / "out")]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text("utf-8"))["results"]

    def cost(text: str) -> float:
        return pipe.score(text).log_probability

    right = sum(cost(begin + right) > cost(begin + wrong) for begin, right, wrong in LINES)
    assert found["lines"]["acc,none"] == right / len(LINES)
    nats = -sum(cost(begin + right) for begin, right, _ in LINES)
    size = sum(len((begin + right).encode()) for begin, right, _ in LINES)
    assert found["poems"]["bits_per_byte,none"] == pytest.approx(nats / size / math.log(2), rel=1e-4)
