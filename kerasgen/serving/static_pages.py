"""Shows a folder that the exporter `web` wrote, with the headers that a page's threads need. Imports starlette."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from kerasgen import limits
from kerasgen.errors import ArgumentError, ModelFormatError
from kerasgen.locations import REPORT_FILE
from kerasgen.serving.settings import ServerSettings

# With these a page is isolated from others, and a browser lets it share memory between threads.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

_EDITED = (".html", ".css", ".js", ".json", ".webmanifest")


class _Page(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def _check(folder: Path) -> None:
    """Raise a `ModelFormatError` if a file of the page is missing, or one that nobody edits was cut off."""
    report = limits.read_json(folder / REPORT_FILE)
    files = report.get("files")
    files = files if isinstance(files, dict) else {}
    missing = [name for name in {"index.html", *files} if not (folder / name).is_file()]
    cut = [
        name
        for name, size in files.items()
        if name not in missing and not name.endswith(_EDITED) and (folder / name).stat().st_size != size
    ]
    if missing or cut:
        first = sorted([*missing, *cut])[0]
        raise ModelFormatError(
            f"The page in {str(folder)!r} is not whole: {len(missing)} files are missing and {len(cut)} have another "
            f"size, such as {first!r}. Copy the whole folder again, or export it anew."
        )


def application(path: str | os.PathLike[str], settings: ServerSettings) -> Starlette:
    """Return the server of a page.

    Raises:
        ArgumentError: an API key is set, which a browser that opens a page can't send.
        ModelFormatError: the folder was copied in part.
    """
    _check(Path(path).expanduser())
    if settings.api_key is not None:
        raise ArgumentError(
            "A page is open to whoever reaches the server: a browser sends no API key. Leave `api_key` out."
        )
    hosts = [host.strip("[]") for host in settings.hosts] or ["*"]
    app = Starlette(middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])
    app.mount("/", _Page(directory=Path(path).expanduser(), html=True))
    return app
