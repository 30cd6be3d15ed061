"""`saved_model`: a TensorFlow SavedModel with tokenizer, decoding loop and samplers in its graph, for any server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kerasgen import garbage, quiet
from kerasgen.bounds import FiniteFloat, PositiveInt
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter, check_bounds
from kerasgen.exporters.exportable_samplers import BEAM, token_sampler
from kerasgen.files.path_arguments import path_argument

if TYPE_CHECKING:
    from kerasgen.decoder.config import DecoderConfig
    from kerasgen.decoder.weights import Weights
    from kerasgen.exporters.parity.comparison import Read
    from kerasgen.models.base import LanguageModel

SAMPLERS = ("greedy", "top_k", "top_p", "min_p", "beam")
# A prompt's length around which the proof chooses others; the whole prompt is read at once.
_PROBED_LENGTH = 16
# Tokens of a text where the model has no limit of its own.
_LONGEST = 2048
_WRITE = "trace and write the graph"
# What `import tensorflow` itself brings into a process.
_ALLOWED = ("tensorflow", "keras", "jax")
_IMPORTS = ("tensorflow", "kerasgen.exporters.saved_model.runtime", "kerasgen.tokens.bpe")


@dataclass(frozen=True)
class SavedModelExporter(Exporter):
    """Write a directory that `tensorflow` alone loads and serves: text in, text out, and ids in, ids out.

    A model that kerasgen describes is written as plain TensorFlow. Any other KerasHub causal model is written with its
    own `generate_step`. A byte-level BPE tokenizer that splits texts as GPT-2's does is part of the graph. With any
    other tokenizer, all signatures take and return ids.

    For each sampler there are two signatures, such as `top_k` (of texts) and `top_k_ids`. Their inputs are the seed,
    the temperature, the sampler's own settings, `max_new_tokens` and the end token. A batch has any size.

    Args:
        samplers: those that get signatures: `beam`, and samplers whose class declares its `inputs`, such as `greedy`,
            `random`, `top_k`, `top_p`, `min_p` and those of other packages.
        num_beams: texts that `beam` keeps at each step.
        length_penalty: the length penalty of `beam`.
        dtype: what the weights are stored as; `"float16"` halves the files. Computation is in float32.
        compiled: let XLA compile the steps of every sampler but `beam` where the graph runs. On a CPU that is 1.2 to
            1.5 times as fast for up to four texts, but a call waits while XLA compiles: ten seconds for GPT-2 base on
            one core, once a process for each batch size and cache length. It has no effect on a model that kerasgen
            doesn't describe.
        max_sequence_length: tokens of a whole text, at most the model's positions; None for all of these, or for 2,048
            where the model has no limit of its own, as a Llama.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("saved_model",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.saved_model.runtime:open_artefact"

    samplers: tuple[str, ...] = SAMPLERS
    num_beams: PositiveInt = 4
    length_penalty: FiniteFloat = 1.0
    dtype: Literal["float32", "float16"] = "float32"
    compiled: bool = False
    max_sequence_length: PositiveInt | None = None

    def __post_init__(self) -> None:
        if isinstance(self.samplers, (str, list)):
            is_single = isinstance(self.samplers, str)
            object.__setattr__(self, "samplers", (self.samplers,) if is_single else tuple(self.samplers))
        if not self.samplers or not all(isinstance(name, str) for name in self.samplers):
            raise ExportArgumentError(
                f"samplers must be names, such as {', '.join(SAMPLERS)}. Received: samplers={self.samplers!r}."
            )
        for name in self.samplers:
            if name != BEAM:
                token_sampler(name)
        check_bounds(self)
        if self.dtype not in ("float32", "float16"):
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: {self.dtype!r}.")
        if not isinstance(self.compiled, bool):
            raise ExportArgumentError(f"compiled must be True or False. Received: {self.compiled!r}.")

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the SavedModel, let a fresh process generate from it, and compare with the model; see `Exporter`.

        Raises:
            MissingDependencyError: TensorFlow is not installed.
        """
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import masked_graphs, progress
        from kerasgen.models.base import MaskedLanguageModel

        if isinstance(model, MaskedLanguageModel):
            return masked_graphs.export_saved_model(model, path, overwrite=overwrite)
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.parity.ids import Reader, prove_ids
        from kerasgen.exporters.staging import check_target, sha256_of_files, staged, write_report
        from kerasgen.exporters.validation import held_beside, held_in_graph, require_held, require_plain
        from kerasgen.models import chat, licences
        from kerasgen.models.described import config_of, weights_of
        from kerasgen.runtime import metadata

        check_target(path, overwrite=overwrite, exporter="saved_model")
        config, tokenizer = config_of(model), model.tokenizer
        held = held_in_graph(tokenizer)
        carried = held or held_beside(tokenizer)
        if config is None:
            self._check_other(model)
        if not is_installed("tensorflow"):
            raise MissingDependencyError(
                "A SavedModel is written with TensorFlow: pip install 'kerasgen[tensorflow]'.",
                package="tensorflow",
                extra="tensorflow",
            )
        require_plain(model, "saved_model")
        require_held(tokenizer, "saved_model", added_tokens=held is None, end_tokens=True)
        longest = self._longest(model)
        comparison.require_positions(longest)
        comparison.require_finite(model)
        about: dict[str, Any] = {
            "model": model.source,
            "samplers": list(self.samplers),
            "num_beams": self.num_beams,
            "length_penalty": self.length_penalty,
            "dtype": self.dtype,
            "compiled": self.compiled and config is not None,
            "decoder": "generate_step" if config is None else config.architecture,
            "max_sequence_length": longest,
            "tokenizer": None if carried is None else metadata.tokenizer_settings(carried),
            "tokenizer_in_graph": held is not None,
            "token_ids": metadata.token_ids(tokenizer),
            **licences.said(model),
            **chat.said(model),
        }
        # The process that proves imports TensorFlow while this one traces.
        with (
            staged(path, overwrite=overwrite, exporter="saved_model") as stage,
            Reader(_IMPORTS) as reader,
            ThreadPoolExecutor(1) as thread,
            garbage.put_off(),
        ):
            progress.plan(_WRITE, comparison.GENERATE, comparison.COMPARE)
            progress.begin(_WRITE)
            if config is None:
                about["signatures"] = self._save_other(model, longest, stage)
            else:
                about["signatures"] = self._save(config, weights_of(model), tokenizer, longest, stage)
            if carried is not None:
                metadata.tokenizer_path(stage).write_text(metadata.tokenizer_text(carried), encoding="utf-8")
            licences.write(model.metadata, stage, card=False)
            write_report(stage, about, exporter="saved_model")
            digests = thread.submit(sha256_of_files, stage)
            about["parity"] = prove_ids(
                model,
                stage,
                reader=reader,
                chunks=(min(_PROBED_LENGTH, max(longest // 4, 1)),),
                longest=longest,
                rounded=self._rounded(model, longest) if config else None,
                allowed_modules=_ALLOWED,
                texts=() if carried is None else comparison.TEXTS,
                logits="whole" if "logits" in about["signatures"] else None,
            )
            about["sha256_of_files"] = digests.result()
            report = write_report(stage, about, exporter="saved_model")
        return Artefact(path=path, exporter="saved_model", report=report)

    def _longest(self, model: LanguageModel) -> int:
        """Return the number of tokens of the longest text."""
        own = model.max_sequence_length
        if self.max_sequence_length is None:
            return own or _LONGEST
        if own is not None and self.max_sequence_length > own:
            raise ExportArgumentError(
                f"max_sequence_length must be at most the model's {own} positions. Received: "
                f"{self.max_sequence_length}."
            )
        return self.max_sequence_length

    def _check_other(self, model: LanguageModel) -> None:
        """Refuse a model without a description if its own `generate_step` can't decode it with these settings."""
        if not hasattr(model.causal_lm, "generate_step"):
            raise ExportArgumentError(
                f"saved_model decodes a {type(model.backbone).__name__} by its own `generate_step`, and a "
                f"{type(model.causal_lm).__name__} has none."
            )
        if self.dtype != "float32":
            raise ExportArgumentError(
                f"saved_model writes a {type(model.backbone).__name__} in float32 only. Received: dtype={self.dtype!r}."
            )

    def _rounded(self, model: LanguageModel, longest: int) -> Read | None:
        """Return a reader of the model with its weights rounded as in the files; None where they round none."""
        if self.dtype == "float32":
            return None
        from kerasgen.decoder.numpy import rounded
        from kerasgen.exporters.parity import comparison
        from kerasgen.models.described import weights_of

        weights = weights_of(model)
        return comparison.reader(comparison.with_weights(model, rounded(weights, self.dtype)), longest)

    def _save(self, config: DecoderConfig, weights: Weights, tokenizer: Any, longest: int, path: Path) -> list[str]:
        from kerasgen.constraints.valid_utf8 import masks_of

        quiet.load("tensorflow")
        from kerasgen.exporters.saved_model.graph import DecoderGraph
        from kerasgen.exporters.saved_model.signatures import save
        from kerasgen.exporters.validation import held_in_graph

        return save(
            DecoderGraph(
                config,
                weights,
                dtype=self.dtype,
                pad_token_id=tokenizer.pad_token_id,
                max_sequence_length=longest,
                compiled=self.compiled,
            ),
            path,
            tokenizer=held_in_graph(tokenizer),
            utf8=masks_of(tokenizer),
            start_token_id=tokenizer.start_token_id,
            end_token_id=tokenizer.end_token_id,
            end_token_ids=tokenizer.end_token_ids,
            samplers=self.samplers,
            max_sequence_length=longest,
            num_beams=self.num_beams,
            length_penalty=float(self.length_penalty),
        )

    def _save_other(self, model: LanguageModel, longest: int, path: Path) -> list[str]:
        from kerasgen.exporters.saved_model import worker

        return worker.write(
            model,
            path,
            samplers=self.samplers,
            num_beams=self.num_beams,
            length_penalty=float(self.length_penalty),
            max_sequence_length=longest,
        )
