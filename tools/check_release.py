"""Checks a release: builds it, looks through what was built, installs the wheel in a clean environment, and tests it.

    pip install build twine cffconvert
    python tools/check_release.py                            # the default tests, against the wheel
    python tools/check_release.py -- tests/test_package.py   # or those that are named

The tests run from a copy of the checkout without the folder `kerasgen`, so that only the wheel can be imported. The
copy and the environment are removed at the end; `--keep DIR` leaves them in a folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TESTS = ["-q", "--backend", "jax", "-m", "not slow and not nightly and not pages"]
_CFFCONVERT = "from cffconvert.cli.cli import cli; cli()"
_SDIST = ("pyproject.toml", "README.md", "LICENSE", "kerasgen/py.typed", "kerasgen/__init__.pyi", "CITATION.cff")
_WHEEL = (
    *("kerasgen/py.typed", "kerasgen/__init__.pyi", "kerasgen/plugin_template/files/tests/test_corpus.py"),
    "kerasgen/plugin_template/files/src/kerasgen_placeholder/py.typed",
)


def main() -> int:
    """Check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what was built and installed here")
    parser.add_argument("--extras", default="test", help="of the wheel, with commas between (default: test)")
    parser.add_argument("tests", nargs="*", default=[], help="arguments of pytest, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        copy = _copy(folder / "checkout")
        wheel = _built(copy, folder / "dist")
        shutil.rmtree(copy / "kerasgen")
        venv.create(folder / "environment", with_pip=True)
        scripts = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        _run(scripts / "python", "-m", "pip", "install", "-q", f"{wheel}[{options.extras}]")
        _run(scripts / "python", "-m", "pip", "check")
        _run(scripts / "python", "-c", "import kerasgen; assert 'environment' in kerasgen.__file__, kerasgen.__file__",
             within=folder)  # fmt: skip
        _run(scripts / "kerasgen", "plugins", "check", within=folder)
        _run(scripts / "pytest", *(options.tests or _TESTS), within=copy)
    print("The release is in order.")
    return 0


def _copy(folder: Path) -> Path:
    """Copy what the repository tracks, so that nothing else gets into the release."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place)
    return folder


def _built(checkout: Path, folder: Path) -> Path:
    """Build the sdist, and of it the wheel; check both, and return the wheel's path."""
    _run(sys.executable, "-m", "build", "--outdir", folder, ".", within=checkout)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    _run(sys.executable, "-c", _CFFCONVERT, "--validate", "-i", checkout / "CITATION.cff")
    with zipfile.ZipFile(wheel) as archive:
        _require(_WHEEL, set(archive.namelist()), wheel)
    with tarfile.open(sdist) as archive:
        _require(_SDIST, {name.partition("/")[2] for name in archive.getnames()}, sdist)
    return wheel


def _require(needed: tuple[str, ...], held: set[str], where: Path) -> None:
    missing = [name for name in needed if name not in held]
    if missing:
        raise SystemExit(f"{where.name} lacks {', '.join(missing)}.")


def _run(*command: str | Path, within: Path | None = None) -> None:
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run([str(word) for word in command], cwd=within, env=environment, check=False).returncode:
        raise SystemExit(f"The release is not in order: {' '.join(str(word) for word in command)} failed.")


if __name__ == "__main__":
    sys.exit(main())
