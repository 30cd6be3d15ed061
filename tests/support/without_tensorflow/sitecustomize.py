"""On a child's PYTHONPATH: TensorFlow is not found there, as where kerasgen is installed without its extra.

KerasHub imports TensorFlow where it finds it, which takes longer than most of what a child does.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class _WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in ("tensorflow", "tensorflow_text"):
            return None
        return PathFinder.find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = _WithoutTensorFlow
