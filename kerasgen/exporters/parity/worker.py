"""Runs a module in a fresh process, which may be started before its job is known: JSON goes in, JSON comes out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import kerasgen
from kerasgen import devices, quiet
from kerasgen.errors import ExportError
from kerasgen.files import temporary
from kerasgen.runtime import job as jobs

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of a process that multiplies on one core, beside another one."""

_SHOWN = 1500  # characters of a failed process's standard error
_MOST_READ = 4 * _SHOWN  # bytes of it
_GLANCE = 0.01  # seconds between two looks for a part of an answer

_of_another: list[contextlib.ExitStack] = []


class Worker:
    """A fresh process that imports while this one goes on, and does a job; a context manager that ends it.

    It runs `python -m MODULE JOB.json ANSWER.json prepared IMPORTS…`, and the module reads its job by
    `kerasgen.runtime.job.read`, which waits for it. While it works it may give parts of its answer and wait for further
    jobs. It ends with its answer, when the block is left before, and when
    this process ends, however that comes. float32 is not rounded to TF32 in it.

    Args:
        module: its whole name; the process finds kerasgen where this one did.
        imports: modules that it imports before its job is known. One that it can't import is told by what needs it.
        environment: variables of its own.

    Raises:
        ExportError: no process can be started.
    """

    def __init__(
        self, module: str, *, imports: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.module, self._timeout, self._until = module, 0.0, 0.0
        self._jobs = self._parts = 0
        root = str(Path(kerasgen.__file__).parents[1])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(temporary.folder()))
            self._job, self._answer = folder / "job.json", folder / "answer.json"
            self._said: IO[bytes] = stack.enter_context((folder / "said").open("w+b"))
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", module, str(self._job), str(self._answer), jobs.PREPARED, *imports],
                    env=os.environ
                    | quiet.CHILD
                    | devices.WHOLE_FLOAT32
                    | {"PYTHONPATH": search}
                    | dict(environment or {}),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                )
            except OSError as cause:
                raise ExportError(
                    f"A fresh process of {module} can't be started: {cause}. Nothing was kept."
                ) from cause
            stack.callback(_end, self._child)
            self._end = weakref.finalize(self, _close, stack.pop_all(), os.getpid())

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._child.pid

    def give(self, job: Mapping[str, Any], *, timeout: float = 3600.0) -> Worker:
        """Give the process its job, or a further one, and return this worker at once.

        Args:
            job: as JSON could hold it.
            timeout: seconds from now after which the process is ended.
        """
        self._timeout, self._until = timeout, time.monotonic() + timeout
        place = jobs.numbered(self._job, self._jobs)
        written = place.with_name(place.name + ".part")
        written.write_text(json.dumps(job), encoding="utf-8")
        written.replace(place)
        self._jobs += 1
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already, and its answer says how
            self._child.stdin.write(b"\n")
            self._child.stdin.flush()
        return self

    def part(self) -> dict[str, Any]:
        """Wait for the next part of the answer, and return it; the process goes on.

        Raises:
            ExportError: as `answer` does.
        """
        path = jobs.numbered(self._answer, self._parts + 1)
        while not path.exists():
            if self._child.poll() is not None and not path.exists():
                raise self._failure(self._child.wait())
            if time.monotonic() > self._until:
                raise self._failure(None)
            time.sleep(_GLANCE)
        self._parts += 1
        part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return part

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the job, and return it.

        Raises:
            ExportError: the process failed, and the message holds the end of what it said; or it took too long.
        """
        try:
            status = self._child.wait(max(self._until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired as cause:
            raise self._failure(None) from cause
        if status:
            raise self._failure(status)
        answer: dict[str, Any] = json.loads(self._answer.read_text(encoding="utf-8"))
        self.close()
        return answer

    def _failure(self, status: int | None) -> ExportError:
        """End the process; return the error of one that ended with this status, or took too long if it has none."""
        said = "" if status is None else self._last_words()
        self.close()
        if status is None:
            return ExportError(
                f"A fresh process of {self.module} did not finish in {self._timeout:g} seconds. Nothing was kept. "
                "Export when the machine has less to do, or a smaller model."
            )
        if not status:
            return ExportError(
                f"A fresh process of {self.module} gave less of an answer than asked for. Nothing was kept."
            )
        return ExportError(
            f"A fresh process of {self.module} failed with exit status {status}, and nothing was kept: {said}"
        )

    def close(self) -> None:
        """End the process, if it has not ended; what it wrote is removed."""
        self._end()

    def _last_words(self) -> str:
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(self._said.tell() - _MOST_READ, 0))
        return self._said.read().decode("utf-8", "replace").strip()[-_SHOWN:]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def run(
    module: str, job: Mapping[str, Any], *, timeout: float = 3600.0, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Do a job in a fresh process, and return the answer; see `Worker`.

    Args:
        module: as for `Worker`.
        job: as JSON could hold it.
        timeout: seconds after which the process is ended.
        environment: as for `Worker`.

    Raises:
        ExportError: the process failed, and the message holds the end of what it said; or it took too long.
    """
    with Worker(module, environment=environment) as process:
        return process.give(job, timeout=timeout).answer()


def _close(stack: contextlib.ExitStack, owner: int) -> None:
    """End a process and remove its files, unless this process was forked from the one that they belong to."""
    if os.getpid() == owner:
        stack.close()
    else:
        _of_another.append(stack)  # which would remove the files when it is collected


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and wait for it, so that none is left."""
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
