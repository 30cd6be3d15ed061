"""Tells what lies at a path, by file names: a saved pipeline, a model, an artefact, a run's checkpoints, or nothing.

It imports nothing and reads no weights, so a wrong path is refused at once, with the call that would open it. A path
that can't be looked at, because its name is too long or a folder is closed to the user, counts as nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kerasgen import keywords, limits
from kerasgen.files import presence

Kind: TypeAlias = Literal["pipeline", "preset", "transformers", "artefact", "checkpoints", "folder", "file", "nothing"]

PIPELINE_FILE = "pipeline.json"
CONFIG_FILE = "config.json"
PEFT_FILE = "adapter_config.json"
REPORT_FILE = "kerasgen.json"  # inside an artefact that is a directory
REPORT_SUFFIX = ".json"  # after the whole name of one that is a file
CHECKPOINT_FILE = "state.json"
# Settings that are paths, and those that may be.
_OF_PATHS = ("path", "cache_dir", "data_dir")
_NEVER_PATHS = ("separator", "delimiter", "url")
_MAY_BE_PATHS = ("name", "preset", "file", "assistant_model")
_PATH_FORM = re.compile(r"[/~]|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\|file:")
_PATH_IN_TEXT = re.compile(rf"\b({'|'.join(_OF_PATHS)})=|=\s*([/~]|\.\.?[/\\])")


@dataclass(frozen=True)
class Location:
    """A path with what lies there.

    Args:
        path: as it was given, the user's home directory filled in.
        kind: the kind of what lies there.
    """

    path: Path
    kind: Kind

    def __str__(self) -> str:
        """Say what it is and, if kerasgen opens it, which call does."""
        path = str(self.path)
        if self.kind == "folder":
            return f"{path!r} is a folder of other files: {_listing(self.path)}."
        if self.kind == "nothing":
            return _nothing(self.path)
        sentences: dict[Kind, str] = {
            "pipeline": f"{path!r} is a saved pipeline. Open it with Pipeline.load({path!r}).",
            "preset": (
                f"{path!r} is a KerasHub preset, a model alone. Open it with Pipeline(model={_spelled(path)!r})."
            ),
            "transformers": (
                f"{path!r} is a transformers directory, a model alone. Open it with Pipeline(model={_spelled(path)!r})."
            ),
            "artefact": f"{path!r} is an exported artefact. Open it with kerasgen.load_artefact({path!r}).",
            "checkpoints": (
                f"{path!r} holds the checkpoints of a run. Go on with it by the same Pipeline's "
                f"fit(directory={str(_run_of(self.path))!r}), and save that."
            ),
            "file": f"{path!r} is a file.",
        }
        return sentences[self.kind]


def look(path: str | os.PathLike[str]) -> Location:
    """Return what lies at the path."""
    path = Path(path).expanduser()
    return Location(path, _kind(path))


def is_page(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a web page that was exported."""
    return _object(Path(path).expanduser() / REPORT_FILE).get("exporter") == "web"


def names_a_path(value: Any, key: str = "") -> bool:
    """Return whether settings, as JSON holds them, name a file or folder of a machine, at any depth.

    Args:
        value: of a setting, or the settings of a corpus, a model or a call.
        key: the name of the setting.
    """
    if isinstance(value, Mapping):
        settings = value["arguments"] if set(value) == {"name", "arguments"} else value
        if not isinstance(settings, Mapping):
            return False
        return any(names_a_path(inner, str(name)) for name, inner in settings.items())
    if isinstance(value, (list, tuple)):
        return any(names_a_path(inner, key) for inner in value)
    if not isinstance(value, str) or not value.strip() or key in _NEVER_PATHS:
        return False
    if key in _OF_PATHS or _PATH_FORM.match(value) or (key == "of" and _PATH_IN_TEXT.search(value)):
        return True
    if key not in _MAY_BE_PATHS or "://" in value:
        return False
    may_be_hub_name = key == "name" and value.count("/") == 1
    return (not may_be_hub_name and ("/" in value or "\\" in value or value.endswith(".gguf"))) or presence.exists(
        Path(value)
    )


def _kind(path: Path) -> Kind:
    if not presence.exists(path):
        return "nothing"
    if not presence.is_dir(path):
        return "artefact" if "exporter" in _object(path.with_name(path.name + REPORT_SUFFIX)) else "file"
    if presence.is_file(path / PIPELINE_FILE):
        return "pipeline"
    report, config = _object(path / REPORT_FILE), _object(path / CONFIG_FILE)
    # An exporter of models in another form leaves a report too; what it wrote is opened as a model.
    if "registered_name" in config:
        return "preset"
    if "model_type" in config:
        return "transformers"
    if "exporter" in report:
        return "artefact"
    if _run_of(path) is not None:
        return "checkpoints"
    return "folder"


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty for none. A pipe is not read, because that could wait forever."""
    try:
        content = limits.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _run_of(path: Path) -> Path | None:
    """Return the directory of the run whose checkpoints lie at the path, or whose checkpoint the path is."""
    if presence.is_file(path / CHECKPOINT_FILE):
        return path.parent
    try:
        return path if any(path.glob(f"step-*/{CHECKPOINT_FILE}")) else None
    except OSError:
        return None


def _spelled(path: str) -> str:
    """Return the path as a `model` argument: a bare name could be a preset's."""
    return path if "/" in path or "\\" in path else f"./{path}"


def _nothing(path: Path) -> str:
    """Return a message that nothing lies at a path, with similar names."""
    parent = path.parent
    above = parent
    while not presence.exists(above) and above != above.parent:
        above = above.parent
    if above != parent:
        return f"There is nothing at {str(path)!r}; {str(above)!r} is the last folder of it that is there."
    return f"There is nothing at {str(path)!r}.{hint(path)}"


def hint(path: Path) -> str:
    """Return ` Did you mean 'poems.txt'?` with its space, or nothing where no neighbour's name comes close."""
    if presence.is_link(path):
        return f" It is a link to {str(path.readlink())!r}, which leads nowhere."
    return keywords.suggestion(map(str, near(path)))


def near(path: Path) -> list[Path]:
    """Return the neighbours of a path that is not there whose names come close to its own."""
    try:
        names = sorted(neighbour.name for neighbour in path.parent.iterdir())
    except (OSError, ValueError):  # ValueError: the path holds a NUL
        return []
    return [path.with_name(name) for name in keywords.near(path.name, names)]


def _listing(directory: Path) -> str:
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as cause:
        return f"it can't be read ({cause})"
    listed = ", ".join(repr(name) for name in names[:8])
    return f"{listed} and {len(names) - 8} more" if len(names) > 8 else listed or "nothing"
