"""Checks a release: builds it, looks through what was built, installs the wheel in a clean environment, and tests it.

    pip install build twine cffconvert
    python tools/check_release.py                            # quick tests of the wheel
    python tools/check_release.py --tests                    # the default tests, as contributors run them
    python tools/check_release.py -- tests/test_package.py   # or those that are named

A wheel is built of the checkout and another of the sdist; both must hold the same files. The tests run from a copy of
the checkout without the folder `kerasgen`, so that only the wheel can be imported. The copy and the environment are
removed at the end; `--keep DIR` leaves them in a folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_WHOLE = ("-q", "-p", "no:cacheprovider", "--backend", "jax", "-m", "not slow and not nightly and not pages")
_QUICK = (
    *_WHOLE,
    *("tests/test_package.py", "tests/test_imports.py", "tests/test_plugins.py", "tests/test_specs.py"),
    *("tests/test_plugin_listing.py", "tests/recipes", "tests/runtime", "tests/corpora/test_sample.py"),
    *("tests/integration/test_built_ins.py", "tests/integration/test_names_of_0_1_0.py", "tests/cli/test_cli.py"),
)
_AS_TOX = {  # as tox.ini has them, which says why
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONUTF8": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
}
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
    parser.add_argument("--tests", action="store_true", dest="whole", help="run all default tests, not the quick ones")
    parser.add_argument(
        "--borrow",
        action="store_true",
        help="let the new environment see the packages of this one, and build with them, instead of downloading them",
    )
    parser.add_argument("named", nargs="*", default=[], metavar="TESTS", help="arguments of pytest, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        copy = _copy(folder / "checkout")
        wheel = _built(copy, folder, borrow=options.borrow)
        shutil.rmtree(copy / "kerasgen")
        scripts = _environment(folder / "environment", wheel, options.extras, borrow=options.borrow)
        _run(scripts / "python", "-c", "import kerasgen; assert 'environment' in kerasgen.__file__, kerasgen.__file__",
             within=folder)  # fmt: skip
        _run(scripts / "kerasgen", "plugins", "check", within=folder)
        _run(scripts / "python", "-m", "pytest", *(options.named or (_WHOLE if options.whole else _QUICK)), within=copy)
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


def _built(checkout: Path, folder: Path, *, borrow: bool) -> Path:
    """Build the sdist and two wheels, one of it and one of the checkout; check them, and return the sdist's wheel."""
    build = [sys.executable, "-m", "build", *(["--no-isolation"] if borrow else [])]
    dist, direct = folder / "dist", folder / "direct"
    _run(*build, "--outdir", dist, ".", within=checkout)
    _run(*build, "--wheel", "--outdir", direct, ".", within=checkout)
    shutil.rmtree(checkout / "build", ignore_errors=True)
    (wheel,), (sdist,), (other,) = dist.glob("*.whl"), dist.glob("*.tar.gz"), direct.glob("*.whl")
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    _run(sys.executable, "-c", _CFFCONVERT, "--validate", "-i", checkout / "CITATION.cff")
    files, others = _contents(wheel), _contents(other)
    _require(_WHEEL, set(files), wheel)
    with tarfile.open(sdist) as archive:
        _require(_SDIST, {name.partition("/")[2] for name in archive.getnames()}, sdist)
    differing = sorted(name for name in files | others if files.get(name) != others.get(name))
    if differing:
        raise SystemExit(f"The wheel of the sdist is not that of the checkout: {', '.join(differing)} differ.")
    tracked = {path.relative_to(checkout).as_posix() for path in (checkout / "kerasgen").rglob("*") if path.is_file()}
    _require(tuple(sorted(tracked)), set(files), wheel)
    print(f"{wheel.name}: {len(files)} files, {wheel.stat().st_size / 1e6:.1f} MB; {sdist.stat().st_size / 1e6:.1f} MB")
    return wheel


def _contents(wheel: Path) -> dict[str, bytes]:
    """Return the digest of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).digest() for name in archive.namelist()}


def _environment(folder: Path, wheel: Path, extras: str, *, borrow: bool) -> Path:
    """Install the wheel into a new environment, and return the folder of its scripts."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (scripts / "python", "-m", "pip")
    if borrow:
        _run(*pip, "install", "-q", "--no-deps", "--no-index", wheel)
        scheme = {"base": str(folder), "platbase": str(folder)}
        packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
        seen = dict.fromkeys([*site.getsitepackages(), sysconfig.get_path("purelib")])
        (packages / "borrowed.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    else:
        _run(*pip, "install", "-q", f"{wheel}[{extras}]")
        _run(*pip, "check")
    return scripts


def _require(needed: tuple[str, ...], held: set[str], where: Path) -> None:
    missing = [name for name in needed if name not in held]
    if missing:
        raise SystemExit(f"{where.name} lacks {', '.join(missing)}.")


def _run(*command: str | Path, within: Path | None = None) -> None:
    print("+", *command, flush=True)
    environment = _AS_TOX | {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run([str(word) for word in command], cwd=within, env=environment, check=False).returncode:
        raise SystemExit(f"The release is not in order: {' '.join(str(word) for word in command)} failed.")


if __name__ == "__main__":
    sys.exit(main())
