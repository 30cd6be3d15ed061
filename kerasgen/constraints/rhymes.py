"""The rhyme groups of the level tone, by which the couplets of a constrained verse rhyme; see `prosody.tones`."""

from __future__ import annotations

from kerasgen.prosody.tones import level_groups, require_table

__all__ = ["level_groups", "require_table"]
