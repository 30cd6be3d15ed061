"""Recipes: a run as one TOML file, read with its faults told by line, written, and described for editors."""
