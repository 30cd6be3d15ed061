"""Children that are killed at each of the things that they do to files, one after the other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerasgen import fork_safety

POSIX = (
    pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forked and killed as POSIX does"),
    # JAX warns of any fork of a process that it is in; the children here do nothing with it.
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
)


def in_child(act: Callable[[], Any]) -> int:
    """Run something that uses no engine in a forked child and return its wait status; 0 is a good end."""
    child = os.fork()
    if child == 0:
        fork_safety._began.clear()  # an earlier test of this process may have begun one
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(n: int, folder: Path, act: Callable[[], Any]) -> bool:
    """Run `act` in a child that is killed before its n-th change of what lies in `folder`; say whether it was."""

    def counted() -> None:
        count = 0
        kinds = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event not in kinds or not isinstance(arguments[0], (str, bytes, os.PathLike)):
                return
            if not os.fsdecode(arguments[0]).startswith(str(folder)):
                return
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        act()

    status = in_child(counted)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)
