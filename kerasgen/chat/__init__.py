"""Chat templates: how a conversation becomes the text that a model reads, and which of it is learned."""

from __future__ import annotations
