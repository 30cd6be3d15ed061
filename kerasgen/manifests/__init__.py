"""Run manifests: what a run of tuning began with, ran on and came to, kept so that it can be repeated."""
