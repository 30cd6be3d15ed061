"""Repeats the run of a manifest, and says in what the new run differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.cli.arguments import verbosity
from kerasgen.cli.command import FAILED, report
from kerasgen.cli.json_output import show_json
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.manifests.contents import Difference


def repeat(file: Path, settings: Mapping[str, Any], *, output: Path | None, overwrite: bool, as_json: bool) -> int:
    """Repeat a run and return the exit status: 0 if all losses are the same to the bit, else 1.

    A run whose corpus has other texts by now can't have the same losses: it is not begun.

    Args:
        file: the manifest, or the directory that it lies in.
        settings: values that replace the run's own, by dotted names.
        output: where the tuned pipeline is saved, or None.
        overwrite: replace a pipeline that was saved there before.
        as_json: write one JSON object in place of text.
    """
    from kerasgen.manifests.contents import RunManifest
    from kerasgen.pipeline import Pipeline

    run = RunManifest.read(file)
    pipeline = Pipeline.from_manifest(run, settings)
    if output is not None:
        pipeline.check_target(output, overwrite=overwrite)
    before = pipeline.differences(run)
    if not as_json:
        _tell("differs before the run", before)
    if any(difference.what.startswith("corpus") for difference in before):
        if as_json:
            show_json({"repeated": False, "begun": False, "differences": before})
        else:
            show("The corpus has other texts than the run had, so nothing was run.")
        return FAILED
    fit = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith("fit.")}
    tuned = pipeline.fit(**{"resume": False, **fit}, verbose=verbosity(as_json))
    after = pipeline.differences(run)
    same = not any(difference.what.startswith(("losses", "validations")) for difference in after)
    saved = None if output is None else pipeline.save(output, overwrite=overwrite)
    if as_json:
        show_json({"repeated": same, "begun": True, "differences": after, "saved": saved, "report": tuned})
        return 0 if same else FAILED
    known = {difference.what for difference in before}
    _tell("differs", (difference for difference in after if difference.what not in known))
    count = len(run.losses)
    show(f"All {count} losses are the same to the bit." if same else f"Not the same: {count} losses were compared.")
    if saved is not None:
        show(f"Saved to {saved}")
    return 0 if same else FAILED


def _tell(label: str, differences: Iterable[Difference]) -> None:
    for difference in differences:
        report(f"{label}: {difference}", 0)
