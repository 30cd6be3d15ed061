"""Write `docs/reference/command-line.md`: each command of kerasgen with its arguments, options and defaults.

`python tools/command_line_page.py` writes what typer itself knows of them; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from kerasgen.cli import COMMANDS, load

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"

_HEAD = """\
# Command line

All commands with their arguments and options, as `kerasgen COMMAND --help` tells them. How they are used, and what they
have in common, is shown in {doc}`../how-to/command-line`.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *(_section(name) for name in COMMANDS)])


def _section(name: str) -> str:
    command = load(name)
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context)) is not None]
    lines = [f"## {name}", "", str(command.help), "", "```text", f"kerasgen {name} {usage}", "```", ""]
    lines += ["| argument or option | what it says |", "|---|---|"]
    lines += [f"| `{_escaped(spelled)}` | {_escaped(text)} |" for spelled, text in rows]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace(" <str>", "").replace(" <path>", "").replace("|", "\\|")  # which would end a cell


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
