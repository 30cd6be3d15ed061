"""What every test can ask for, and the backend that all of them run on."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import tiers

from kerasgen.errors import MissingDependencyError

_CACHE = pytest.StashKey[str]()
_GROWTH = 1024**3  # bytes
_MOST_MAPPED = 25_000  # regions of memory: each compiled graph has some, and Linux allows a process 65,530
_reports: list[pytest.TestReport] = []
_settled = 0  # the bytes that this process held when all of its objects were last gone through
_COLLECTED = pytest.StashKey[set[str]]()
_IGNORED = pytest.StashKey[bool]()
_ONE_BACKEND = re.compile(r"^pytestmark = (?:\[[^\]]*)?pytest\.mark\.one_backend\b", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=["jax", "tensorflow"],
        default=os.environ.get("KERAS_BACKEND", "jax"),
        help="the backend that Keras runs on",
    )
    parser.addoption(
        "--write-durations", action="store_true", help=f"keep the seconds that tests took in {tiers.FILE.name}"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Keras reads the variable once, at its first import, so it is set before any test module is collected.
    os.environ["KERAS_BACKEND"] = config.getoption("--backend")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # kerasgen sets it before it imports TensorFlow, but a test module may import that first, and oneDNN's sums are
    # rounded otherwise: what a child process computes must be what this one does, to the bit.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # The same tiny models are compiled by many tests, in many processes: JAX keeps what it compiled, here and for them.
    compiled = config.rootpath / ".pytest_cache" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # Token stores are no test's to find in the person's cache, and none's to leave there.
    os.environ["KERASGEN_CACHE"] = str(config.stash.setdefault(_CACHE, tempfile.mkdtemp(prefix="kerasgen-tests-")))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files all of whose tests would be deselected: importing them takes as long as a hundred tests."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    has_none = config.getoption("markexpr").startswith("numerical and ") and "mark.numerical" not in text
    runs_on_jax = config.getoption("--backend") != "jax" and _ONE_BACKEND.search(text) is not None
    config.stash[_IGNORED] = config.stash.get(_IGNORED, False) or has_none or runs_on_jax
    return has_none or runs_on_jax or None


@pytest.hookimpl(tryfirst=True)  # before pytest looks at markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run on JAX alone what has nothing to do with the backend of the tests' own process, and long files first."""
    if config.getoption("--backend") != "jax":
        once = [item for item in items if item.get_closest_marker("one_backend")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in set(once)]
    config.stash[_COLLECTED] = set() if config.stash.get(_IGNORED, False) else {item.nodeid for item in items}
    durations = tiers.read(config.getoption("--backend"))
    # Integration runs slow tests on JAX alone.
    tiers.mark(items, durations, slow=config.getoption("--backend") == "jax")
    tiers.longest_first(items, durations)


def pytest_collection_finish(session: pytest.Session) -> None:
    settle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test whose fixtures need an extra that is not installed, with the error that names it."""
    # urllib keeps the proxies of its first call for the whole process; one test's closed door is not another's.
    urllib.request._opener = None  # type: ignore[attr-defined]
    try:
        return (yield)
    except MissingDependencyError as error:
        _skip_without(error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that needs an extra that is not installed, with the error that names it."""
    try:
        return (yield)
    except MissingDependencyError as error:
        _skip_without(error)
        raise
    except ExceptionGroup as group:  # hypothesis found several
        missing, other = group.split(MissingDependencyError)
        if missing is not None and other is None:
            _skip_without(_first(missing))
        raise


def _first(group: BaseException) -> MissingDependencyError:
    while isinstance(group, ExceptionGroup):
        group = group.exceptions[0]
    assert isinstance(group, MissingDependencyError)
    return group


def _skip_without(error: MissingDependencyError) -> None:
    """Skip if the package that an error names is really absent, and not hidden by the test."""
    module = str(error.name).replace("-", "_")
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        pytest.skip(f"{error.extra or module!r} is an extra that is not installed. {error}")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        settle()


def settle() -> None:
    """Keep Python's garbage collector from going through all that earlier files imported and compiled.

    These are a million objects, half a second each time, and Keras asks for it at every layer that it quantizes. What
    was frozen and is in use no more is let go of whenever the process has grown by a gigabyte, or has so many graphs
    compiled that the system would soon refuse another one, which ends the process.
    """
    global _settled
    has_many_graphs = _mapped_regions() > _MOST_MAPPED
    if has_many_graphs and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if has_many_graphs or _resident_bytes() > _settled + _GROWTH:
        gc.unfreeze()
        gc.collect()
        _settled = _resident_bytes()
    gc.collect()
    gc.freeze()


def _mapped_regions() -> int:
    """The number of regions of memory that this process has mapped; 0 where the system doesn't tell."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def _resident_bytes() -> int:
    """The memory that this process holds; 0 where the system doesn't tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _reports.append(report)  # in a worker too, where nothing asks for them


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        tiers.write(config.getoption("--backend"), _reports, config.stash.get(_COLLECTED, set()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CACHE in config.stash:
        shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _no_bfloat16() -> Iterator[None]:
    """Let `precision="auto"` be float32 on every machine: what the tests compute must not depend on the processor's."""
    from kerasgen import devices

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cpu_has_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Let files be read from memory: those of a test need not outlive a power failure, and waiting takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small tokenizers that `write_tokenizer_families.py` wrote, a directory each; for reading."""
    place = tmp_path_factory.mktemp("families")
    with tarfile.open(Path(__file__).parent / "tokens" / "families.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that lies beside a checkout, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data folder {folder.name!r} does not lie beside this checkout")
    return folder
