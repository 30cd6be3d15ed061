"""kerasgen: from a corpus to a fine-tuned text generator to an artefact that generates, on Keras 3 and KerasHub.

    import kerasgen as kg

    pipe = kg.Pipeline(corpus="sample", model="starter", sampler="top_k", seed=0)
    report = pipe.fit()
    print(pipe.generate("昨夜雨疏风骤", max_length=200))

Every public name is resolved on first use, so `import kerasgen` loads neither Keras nor a backend nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# A public name and the module it lives in; None for modules.
_PUBLIC: dict[str, str | None] = {
    "backend": None,
    "constraints": None,
    "corpora": None,
    "errors": None,
    "exporters": None,
    "models": None,
    "samplers": None,
    "tuners": None,
    "Artefact": "exporters.base",
    "Beam": "samplers.searching",
    "ByteLevelBPE": "tokens.bpe",
    "ChinesePoetry": "corpora.chinese_poetry",
    "CnnDailymail": "corpora.tfds",
    "Constraint": "constraints.base",
    "Contrastive": "samplers.searching",
    "CorpusSource": "corpora.base",
    "CorpusTally": "corpora.base",
    "Csv": "corpora.files",
    "Document": "corpora.base",
    "Evaluation": "evaluation.base",
    "Exporter": "exporters.base",
    "FineTuner": "tuners.base",
    "FullTuner": "tuners.full",
    "Greedy": "samplers.sampling",
    "Hub": "models.hub",
    "Jsonl": "corpora.files",
    "KerasgenError": "errors",
    "LanguageModel": "models.base",
    "LoraTuner": "tuners.lora",
    "MinP": "samplers.sampling",
    "ModelSource": "models.base",
    "Pipeline": "pipeline",
    "GgufExporter": "exporters.gguf",
    "LiteRtLmExporter": "exporters.litertlm",
    "PresetExporter": "exporters.preset",
    "TransformersExporter": "exporters.transformers",
    "SavedModelExporter": "exporters.saved_model",
    "Random": "samplers.sampling",
    "RedditTifu": "corpora.tfds",
    "Regex": "constraints.regex",
    "Script": "constraints.script",
    "Sample": "corpora.sample",
    "SamplerSpec": "samplers.base",
    "Starter": "models.starter",
    "Text": "corpora.files",
    "TextScore": "evaluation.base",
    "Texts": "corpora.texts",
    "TFLiteExporter": "exporters.tflite",
    "Tfds": "corpora.tfds",
    "Tokenizer": "tokens.base",
    "TopK": "samplers.sampling",
    "TopP": "samplers.sampling",
    "TuneReport": "tuners.base",
    "VerseForm": "constraints.verse_form",
    "Writing": "evaluation.base",
    "load_artefact": "runtime.loading",
    "whole_character_bpe": "tokens.characters",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        from kerasgen.keywords import meant

        hint = "" if name.startswith("_") else meant(name, _PUBLIC)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}")
    home = _PUBLIC[name]
    value = import_module(f"{__name__}.{name}") if home is None else getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from kerasgen import backend, constraints, corpora, errors, exporters, models, samplers, tuners
    from kerasgen.constraints.base import Constraint
    from kerasgen.constraints.regex import Regex
    from kerasgen.constraints.script import Script
    from kerasgen.constraints.verse_form import VerseForm
    from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
    from kerasgen.corpora.chinese_poetry import ChinesePoetry
    from kerasgen.corpora.files import Csv, Jsonl, Text
    from kerasgen.corpora.sample import Sample
    from kerasgen.corpora.texts import Texts
    from kerasgen.corpora.tfds import CnnDailymail, RedditTifu, Tfds
    from kerasgen.errors import KerasgenError
    from kerasgen.evaluation.base import Evaluation, TextScore, Writing
    from kerasgen.exporters.base import Artefact, Exporter
    from kerasgen.exporters.gguf import GgufExporter
    from kerasgen.exporters.litertlm import LiteRtLmExporter
    from kerasgen.exporters.preset import PresetExporter
    from kerasgen.exporters.saved_model import SavedModelExporter
    from kerasgen.exporters.tflite import TFLiteExporter
    from kerasgen.exporters.transformers import TransformersExporter
    from kerasgen.models.base import LanguageModel, ModelSource
    from kerasgen.models.hub import Hub
    from kerasgen.models.starter import Starter
    from kerasgen.pipeline import Pipeline
    from kerasgen.runtime.loading import load_artefact
    from kerasgen.samplers.base import SamplerSpec
    from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP
    from kerasgen.samplers.searching import Beam, Contrastive
    from kerasgen.tokens.base import Tokenizer
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.characters import whole_character_bpe
    from kerasgen.tuners.base import FineTuner, TuneReport
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner
