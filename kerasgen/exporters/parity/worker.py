"""Runs a module in a fresh process: a job goes in as JSON, an answer comes out as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kerasgen
from kerasgen import devices, quiet
from kerasgen.errors import ExportError
from kerasgen.files import temporary

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of a process that multiplies on one core, beside another one."""


def run(
    module: str, job: Mapping[str, Any], *, timeout: float = 3600.0, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run `python -m MODULE JOB.json ANSWER.json` and return the answer; float32 is not rounded to TF32 in it.

    Args:
        module: its whole name; it finds kerasgen where this process did.
        job: as JSON could hold it.
        timeout: seconds after which the process is ended.
        environment: variables of its own.

    Raises:
        ExportError: the process failed, and the message holds the end of what it said; or it took too long.
    """
    with temporary.folder() as folder:
        job_path, answer_path = Path(folder) / "job.json", Path(folder) / "answer.json"
        job_path.write_text(json.dumps(job), encoding="utf-8")
        root = str(Path(kerasgen.__file__).parents[1])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, str(job_path), str(answer_path)],
                env=os.environ | quiet.CHILD | devices.WHOLE_FLOAT32 | {"PYTHONPATH": search} | dict(environment or {}),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise ExportError(
                f"A fresh process of {module} did not finish in {timeout:g} seconds. Nothing was kept. Export when the "
                "machine has less to do, or a smaller model."
            ) from cause
        if done.returncode:
            raise ExportError(
                f"A fresh process of {module} failed with exit status {done.returncode}, and nothing was kept: "
                f"{done.stderr.strip()[-1500:]}"
            )
        answer: dict[str, Any] = json.loads(answer_path.read_text(encoding="utf-8"))
        return answer
