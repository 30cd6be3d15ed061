# The public names of kerasgen, and where each lives. Type checkers read it, and `__init__.py` resolves names by it.

from kerasgen import (
    backend as backend,
    constraints as constraints,
    corpora as corpora,
    errors as errors,
    exporters as exporters,
    models as models,
    samplers as samplers,
    tuners as tuners,
)
from kerasgen.constraints.base import Constraint as Constraint
from kerasgen.constraints.regex import Regex as Regex
from kerasgen.constraints.acrostic import Acrostic as Acrostic
from kerasgen.constraints.couplet import Couplet as Couplet
from kerasgen.constraints.script import Script as Script
from kerasgen.constraints.verse_form import VerseForm as VerseForm
from kerasgen.corpora.base import (
    CorpusSource as CorpusSource,
    CorpusTally as CorpusTally,
    Document as Document,
    Part as Part,
)
from kerasgen.corpora.chinese_poetry import ChinesePoetry as ChinesePoetry
from kerasgen.corpora.deduplicated import Deduplicated as Deduplicated
from kerasgen.corpora.files import (
    Csv as Csv,
    Jsonl as Jsonl,
    Text as Text,
)
from kerasgen.corpora.hub_datasets import Datasets as Datasets
from kerasgen.corpora.mix import Mix as Mix
from kerasgen.corpora.parquet import Parquet as Parquet
from kerasgen.corpora.sample import Sample as Sample
from kerasgen.corpora.texts import Texts as Texts
from kerasgen.corpora.tfds import (
    CnnDailymail as CnnDailymail,
    RedditTifu as RedditTifu,
    Tfds as Tfds,
)
from kerasgen.errors import KerasgenError as KerasgenError
from kerasgen.estimates.estimate import Estimate as Estimate
from kerasgen.evaluation.base import (
    Evaluation as Evaluation,
    TextScore as TextScore,
    TokenChoice as TokenChoice,
    Writing as Writing,
    WrittenText as WrittenText,
)
from kerasgen.exporters.base import (
    Artefact as Artefact,
    Exporter as Exporter,
)
from kerasgen.exporters.gguf import GgufExporter as GgufExporter
from kerasgen.exporters.litertlm import LiteRtLmExporter as LiteRtLmExporter
from kerasgen.exporters.preset import PresetExporter as PresetExporter
from kerasgen.exporters.saved_model import SavedModelExporter as SavedModelExporter
from kerasgen.exporters.tflite import TFLiteExporter as TFLiteExporter
from kerasgen.exporters.transformers import TransformersExporter as TransformersExporter
from kerasgen.exporters.web import WebExporter as WebExporter
from kerasgen.generation.config import GenerationConfig as GenerationConfig
from kerasgen.manifests.contents import (
    Difference as Difference,
    RunManifest as RunManifest,
)
from kerasgen.masked.filling import FilledText as FilledText
from kerasgen.models.base import (
    LanguageModel as LanguageModel,
    MaskedLanguageModel as MaskedLanguageModel,
    ModelSource as ModelSource,
)
from kerasgen.models.gguf import Gguf as Gguf
from kerasgen.models.hub import Hub as Hub
from kerasgen.models.smollm2 import Smollm2 as Smollm2
from kerasgen.models.starter import Starter as Starter
from kerasgen.pipeline import Pipeline as Pipeline
from kerasgen.publishing.model_card import ModelCard as ModelCard
from kerasgen.publishing.plan import Publication as Publication
from kerasgen.reports.of_pipeline import RunReport as RunReport
from kerasgen.runtime.loading import load_artefact as load_artefact
from kerasgen.samplers.base import SamplerSpec as SamplerSpec
from kerasgen.samplers.sampling import (
    Greedy as Greedy,
    MinP as MinP,
    Random as Random,
    TopK as TopK,
    TopP as TopP,
)
from kerasgen.samplers.lookahead import (
    Beam as Beam,
    Contrastive as Contrastive,
)
from kerasgen.samplers.masked import (
    Gibbs as Gibbs,
    MaskPredict as MaskPredict,
)
from kerasgen.tokens.base import Tokenizer as Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE as ByteLevelBPE
from kerasgen.tokens.characters import whole_character_bpe as whole_character_bpe
from kerasgen.tuners.base import (
    FineTuner as FineTuner,
    TuneJob as TuneJob,
    TuneReport as TuneReport,
)
from kerasgen.tuners.dpo import DpoTuner as DpoTuner
from kerasgen.tuners.full import FullTuner as FullTuner
from kerasgen.tuners.metrics_logger import MetricsLogger as MetricsLogger
from kerasgen.tuners.lora import LoraTuner as LoraTuner

__version__: str
