"""Data directories that TensorFlow Datasets itself prepares from examples, laid out as the real data sets are."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

needs_tfds = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None or importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow Datasets (the extra 'tfds') is not installed",
)


def prepare_reddit_tifu(
    data_dir: Path, posts: Iterable[dict[str, Any]], *, name: str = "reddit_tifu", shards: int = 1
) -> Path:
    """Write posts as `NAME/short/1.1.2` with the real data set's features; those not given get a value."""
    texts = ("documents", "id", "title", "tldr")
    numbers = ("num_comments", "score", "ups", "upvote_ratio")
    examples = ({"num_comments": 1.0, "ups": 2.0, "upvote_ratio": 0.5, **post} for post in posts)
    return _prepare(data_dir, examples, name, "short", "1.1.2", texts, numbers, shards)


def prepare_cnn_dailymail(data_dir: Path, articles: Iterable[dict[str, Any]]) -> Path:
    """Write articles as `cnn_dailymail/3.4.0` with the real data set's features."""
    texts = ("article", "highlights", "id", "publisher")
    return _prepare(data_dir, articles, "cnn_dailymail", None, "3.4.0", texts, (), 1)


def _prepare(
    data_dir: Path,
    examples: Iterable[dict[str, Any]],
    name: str,
    config: str | None,
    version: str,
    texts: tuple[str, ...],
    numbers: tuple[str, ...],
    shards: int,
) -> Path:
    # Imported here: TensorFlow takes seconds that collecting the tests need not spend.
    import numpy
    import tensorflow_datasets as tfds

    # Not registered: the real data sets have these names, and a corpus must find those's code.
    with tfds.core.registered.skip_registration():

        class Examples(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc, name-defined]
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = (
                [] if config is None else [tfds.core.BuilderConfig(name=config, version=version, description=config)]
            )

            def _info(self) -> Any:
                features = {key: tfds.features.Text() for key in texts}
                features |= {key: tfds.features.Tensor(shape=[], dtype=numpy.float32) for key in numbers}
                return tfds.core.DatasetInfo(
                    builder=self, description=name, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager: Any) -> Any:
                return {"train": self._generate_examples()}

            def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
                yield from enumerate(examples)

    Examples.name = name
    download = tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    Examples(data_dir=data_dir, config=config).download_and_prepare(download_config=download)
    return data_dir
