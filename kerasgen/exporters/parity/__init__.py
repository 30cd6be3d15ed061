"""Compares what an artefact does in a fresh process with what its model does."""
