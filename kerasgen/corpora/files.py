"""The corpora of files: plain text, JSON and CSV, each read one record at a time, compressed or not."""

from __future__ import annotations

from kerasgen.corpora.csv_files import Csv
from kerasgen.corpora.json_files import Jsonl
from kerasgen.corpora.text_files import SPLITS, Text

__all__ = ["SPLITS", "Csv", "Jsonl", "Text"]
