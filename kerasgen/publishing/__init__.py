"""Publishing: a pipeline, its artefacts and its model card become a repository on a hub."""
