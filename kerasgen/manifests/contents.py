"""`RunManifest`: one run's inputs, versions, machine, settings and figures, and how two runs differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kerasgen import limits
from kerasgen.errors import KerasgenError, ModelFormatError
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.manifests import machine

FILE: Final = "manifest.json"
KIND: Final = "kerasgen run"
FORMAT: Final = 1
_NEEDED: Final = (
    ("report", "losses", list),
    ("report", "validations", list | None),
    ("corpus", "digest", str),
    ("backend", "name", str),
)


@dataclass(frozen=True)
class Difference:
    """One difference between two runs.

    Args:
        what: its name, such as `"versions.keras"` or `"losses"`.
        then: in the first run.
        now: in the second one.
        step: of losses and validations, the first optimizer step that differs; a validation at 0 is the one before the
            first step. None for other things.
    """

    what: str
    then: Any
    now: Any
    step: int | None = None

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}, the first that differs"
        absent = "the default" if self.what.startswith("recipe.") else "none"
        then, now = (absent if value is None else _shown(value) for value in (self.then, self.now))
        return f"{self.what}{at}: {then} then, {now} now"


@dataclass(frozen=True)
class RunManifest:
    """The inputs, the environment and the results of a run. It is written as `manifest.json` beside the run.

    Args:
        recipe: the run's settings as a recipe; None where it has no such form.
        unrepeatable: why there is no recipe, or why it doesn't give this run again; empty else.
        corpus: the SHA-256 of its texts, of those on the training side, and of their token ids, with what was dropped.
        model: its address, and the SHA-256 of its weights when the run began.
        versions: of Python and of the packages that computed.
        machine: the processor, its cores and its memory in bytes.
        environment: variables that change how a backend computes.
        backend: which of Keras's computed, and on what device.
        report: the figures; see `TuneReport.to_dict`.
    """

    recipe: Mapping[str, Any] | None
    unrepeatable: str
    corpus: Mapping[str, Any]
    model: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    environment: Mapping[str, str]
    backend: Mapping[str, str]
    report: Mapping[str, Any]

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of each optimizer step."""
        return tuple(self.report["losses"])

    def to_json(self) -> str:
        """Return the text of the file."""
        content = {"kind": KIND, "format": FORMAT, **asdict(self)}
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the manifest to a file, which is replaced, and return its path.

        Raises:
            KerasgenError: it can't be written.
        """
        target = path_argument(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.replace(target, self.to_json())
        except OSError as cause:
            raise KerasgenError(f"The manifest can't be written to {target}: {cause}") from cause
        return target

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunManifest:
        """Read a manifest.

        Args:
            path: of the file, or of the directory that it lies in.

        Raises:
            ModelFormatError: it is none, a damaged one, or one of a later format.
        """
        file = path_argument(path)
        file = file / FILE if file.is_dir() else file
        try:
            content = limits.read_json(file)
        except FileNotFoundError as cause:
            raise ModelFormatError(
                f"There is no manifest {file}. Name the {FILE} that fit wrote, or the directory of the saved pipeline, "
                "in which it lies."
            ) from cause
        except (OSError, ValueError) as cause:
            raise ModelFormatError(f"The manifest {file} can't be read: {cause}.") from cause
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ModelFormatError(f"{file} is no manifest of a run, which fit writes as {FILE}.")
        if content.get("format") != FORMAT:
            raise ModelFormatError(
                f"{file} has the format {content.get('format')!r}, and this version reads {FORMAT}. Upgrade kerasgen."
            )
        names = tuple(cls.__dataclass_fields__)
        wrong: list[str] = [
            name for name in names if name not in content or not isinstance(content[name], _kinds_of(name))
        ]
        if not wrong:
            wrong = [f"{name}.{key}" for name, key, kind in _NEEDED if not isinstance(content[name].get(key), kind)]
        if wrong:
            raise ModelFormatError(f"{file} was changed or cut since it was written: {', '.join(wrong)} can't be read.")
        return cls(**{name: content[name] for name in names})

    def differences(self, later: RunManifest) -> tuple[Difference, ...]:
        """Return the differences between this run and a later one: first the inputs, then the losses and validations.

        Equal losses are equal to the bit.
        """
        groups = ("recipe", "corpus", "model", "versions", "machine", "environment", "backend")
        found = [each for name in groups for each in _differing(name, getattr(self, name), getattr(later, name))]
        return (*found, *_differing_losses(self, later))

    def differences_from_here(self) -> tuple[Difference, ...]:
        """Return the differences between the run's environment and this process; nothing is loaded for it."""
        further = [name for name in self.versions if name != "python"]
        now = machine.versions(self.backend["name"], further)
        return (
            *_differing("versions", self.versions, {name: now.get(name) for name in self.versions}),
            *_differing("machine", self.machine, machine.machine()),
        )


def _kinds_of(name: str) -> Any:
    """Return the types of JSON that a field of the manifest may have."""
    return {"recipe": dict | None, "unrepeatable": str}.get(name, dict)


def _differing(name: str, then: Any, now: Any) -> Iterator[Difference]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*then, *now]):
            yield from _differing(f"{name}.{key}", then.get(key), now.get(key))
    elif _plain(then) != _plain(now):
        yield Difference(name, then, now)


def _differing_losses(first: RunManifest, later: RunManifest) -> Iterator[Difference]:
    for name, step in (("losses", 1), ("validations", 0)):
        then, now = first.report.get(name) or (), later.report.get(name) or ()
        for place, (one, other) in enumerate(zip(then, now, strict=False)):
            if _plain(one) != _plain(other):
                if isinstance(one, Mapping) and isinstance(other, Mapping):
                    yield from _differing_figures(name, one, other)
                else:
                    yield Difference(name, one, other, place + 1 if step else None)
                break
        else:
            if len(then) != len(now):
                yield Difference(f"{name} (how many)", len(then), len(now))


def _differing_figures(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the figures in which two validations differ, each by its own name."""
    for difference in _differing(name, then, now):
        yield Difference(difference.what, difference.then, difference.now, then.get("step"))


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value, allow_nan=False))


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:13]}…'" if isinstance(value, str) and len(value) == 64 else f"{text:.200}"
