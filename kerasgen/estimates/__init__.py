"""Estimates of a run before it is begun: its memory, its time, and the size of what is exported."""
