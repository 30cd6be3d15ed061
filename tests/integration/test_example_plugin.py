"""The plugin distribution of the examples: built as a wheel, installed in an environment of its own, and used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installing import environment_of_its_own, run_module

pytestmark = [pytest.mark.one_backend, pytest.mark.slow, pytest.mark.essential]

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "plugins" / "kerasgen-field"

# From a folder of notes to a text by NumPy alone, with the three names that the wheel adds.
USE = """
import json, sys
from pathlib import Path
import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.testing import small_model
notes = Path("notes")
notes.mkdir()
for number in range(12):
    (notes / f"{number}.md").write_text(f"---\\ntitle: Day {number}\\n---\\nIt rains, and day {number} is long.\\n")
(notes / "draft.md").write_text("---\\ndraft: true\\n---\\nNo.\\n")
pipe = kg.Pipeline(corpus="notes:path=notes", model=save_preset(small_model(), "small"), sampler="eta:epsilon=0.01",
                   tuner="full:max_steps=3,batch_size=2,sequence_length=32", seed=3)
report = pipe.fit(directory="run", verbose=0)
artefact = pipe.export("writer.numpy.safetensors")
saved = kg.Pipeline.load(pipe.save("saved"))
text = pipe.generate("Day", max_new_tokens=9)
print(json.dumps([report.corpus["dropped"], artefact.report["parity"]["greedy_equal"], text,
                  saved.generate("Day", max_new_tokens=9), saved.corpus == pipe.corpus]))
"""
RUN = """
import json, sys
import kerasgen as kg
artefact = kg.load_artefact("writer.numpy.safetensors")
text = artefact.generate("Day", max_new_tokens=9, sampler="eta:epsilon=0.01", seed=3)
print(json.dumps([text, sorted({"jax", "keras", "keras_hub", "tensorflow", "torch"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("built")
    project = Path(shutil.copytree(PROJECT, folder / "project", ignore=shutil.ignore_patterns("*.egg-info", "build")))
    quiet = ("-q", "--disable-pip-version-check", "--no-deps")
    run_module(
        sys.executable, "pip", "wheel", *quiet, "--no-build-isolation", "-w", str(folder), str(project), within=folder
    )
    (wheel,) = folder.glob("kerasgen_field-*.whl")
    environment = environment_of_its_own(folder / "environment")
    run_module(sys.executable, "pip", "--python", str(environment), "install", *quiet, str(wheel), within=folder)
    return environment


def said(python: Path, code: str, within: Path) -> object:
    done = subprocess.run([str(python), "-c", code], cwd=within, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_the_wheel_adds_works_from_a_corpus_to_an_artefact(python: Path, tmp_path: Path) -> None:
    dropped, equal, text, again, same_corpus = said(python, USE, tmp_path)
    assert dropped == {"draft": 1}
    assert (equal, again, same_corpus) == (True, text, True)
    assert said(python, RUN, tmp_path) == [text, []]


def test_kerasgen_lists_it_with_its_version_and_can_leave_it_out(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def field() -> dict[str, tuple[str, object]]:
        entries = json.loads(run_module(python, "kerasgen", "plugins", "check", "--json", within=tmp_path))["plugins"]
        return {
            f"{entry['kind']}.{entry['name']}": (entry["version"], entry["contract_version"])
            for entry in entries
            if entry["distribution"] == "kerasgen-field"
        }

    assert field() == {
        "corpora.notes": ("0.1.0", 1),
        "samplers.eta": ("0.1.0", 1),
        "exporters.numpy": ("0.1.0", 1),
    }
    monkeypatch.setenv("KERASGEN_PLUGINS", "none")
    assert {version for _, version in field().values()} == {None}


def test_its_own_tests_pass_against_the_wheel(python: Path, tmp_path: Path) -> None:
    """Those of the runtime, which take longest, are the template's too (`tests/test_plugin_template.py`)."""
    shutil.copytree(PROJECT / "tests", tmp_path / "tests")
    arguments = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--deselect", "tests/test_numpy_format.py")
    assert " passed" in run_module(python, "pytest", *arguments, "tests", within=tmp_path)


@pytest.mark.nightly
def test_its_types_and_its_format_pass_too(python: Path, tmp_path: Path) -> None:
    shutil.copytree(PROJECT, tmp_path / "project")
    types = run_module(python, "mypy", "--cache-dir", str(tmp_path / "types"), within=tmp_path / "project")
    assert "Success" in types
    tested = run_module(python, "pytest", "-q", "-p", "no:cacheprovider", "tests/test_numpy_format.py",
                        within=tmp_path / "project")  # fmt: skip
    assert " passed" in tested
