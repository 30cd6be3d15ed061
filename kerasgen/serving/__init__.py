"""Serves a model over HTTP as OpenAI's API describes it: `serve(source)`, and `kerasgen serve` on the command line.

Importing it loads neither starlette nor a backend.
"""

from __future__ import annotations

from kerasgen.serving.server import serve
from kerasgen.serving.settings import ServerSettings

__all__ = ["ServerSettings", "serve"]
