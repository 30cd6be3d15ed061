"""`gguf`: one file for llama.cpp and Ollama, with llama.cpp's names, layouts and tokenizer settings."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from kerasgen.bounds import NonNegativeFloat, PositiveInt
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter, check_bounds
from kerasgen.exporters.gguf.dtypes import BLOCK, DTYPES, IN_BLOCKS
from kerasgen.files.path_arguments import path_argument

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

_LOG = logging.getLogger(__name__)
_WRITE = "write the file"
_WITH_SEARCH = re.compile(r"I?Q\d_(K|XS|XXS|S|M|NL)", re.IGNORECASE)


@dataclass(frozen=True)
class GgufExporter(Exporter):
    """Write a GGUF file for llama.cpp, Ollama and programs that build on them.

    A fresh process that has no Keras reads the file back: weights, vocabulary and settings must be the model's, and its
    greedy ids, by an independent forward in NumPy. Where the package `xllamacpp` is installed (extra `llamacpp`),
    llama.cpp runs the file in another one, and is compared too; the report says so (`parity.llama_cpp`). The Modelfile
    for `ollama create` lies beside the file.

    Args:
        dtype: of kernels and embeddings, as GGUF names it; `"Q8_0"` takes 8.5 bits a weight, `"Q5_0"` 5.5 and `"Q4_0"`
            4.5. Biases, norms and position embeddings stay float32; beside Q5_0 and Q4_0 the tables of tokens are Q8_0.
        most_divergence: from the model's predictions, in nats a token, that the file may have in NumPy and in llama.cpp
            (Kullback-Leibler, on a probe text); None for 0.001 with F16, 0.01 with BF16, 0.05 with Q8_0, 0.5 with Q5_0
            and 1 with Q4_0, and with F32, which rounds nothing, for 0.000001 in NumPy and 0.001 in llama.cpp.
        max_sequence_length: tokens of a text that the file says it is for; None for the model's positions, and for a
            Llama, which has no limit of its own, what the directory it came from said, else 1024.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".gguf",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.gguf.runtime:open_artefact"

    dtype: Literal["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0"] = "F32"
    most_divergence: NonNegativeFloat | None = None
    max_sequence_length: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            message = f"dtype must be one of {', '.join(map(repr, DTYPES))}. Received: {self.dtype!r}."
            if isinstance(self.dtype, str) and _WITH_SEARCH.match(self.dtype):
                message += (
                    " Types of this kind are made by llama.cpp's own quantizer, which no package of Python brings: "
                    "export 'F16', and run `llama-quantize poet.gguf poet.small.gguf` with the type that you want."
                )
            raise ExportArgumentError(message)
        check_bounds(self)

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the file, and have fresh processes read it and compare; see `Exporter`.

        Raises:
            MissingDependencyError: the package `gguf` is not installed.
        """
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import progress
        from kerasgen.exporters.gguf import file_format as gguf_file
        from kerasgen.exporters.gguf import modelfile
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.staging import REPORTS, staged, write_report
        from kerasgen.exporters.validation import decoder_of, require_held, text_length
        from kerasgen.files import digests
        from kerasgen.models import chat, gguf_tokenizer_writing, licences
        from kerasgen.models.architectures import gguf_settings
        from kerasgen.models.described import config_of, weights_of

        architecture, written = decoder_of(model, "gguf"), gguf_tokenizer_writing.of(model.tokenizer)
        tokenizer = written.tokenizer
        # llama.cpp ends a text at two of them.
        require_held(tokenizer, "gguf", added_tokens=True, end_tokens=len(tokenizer.end_token_ids) <= 2)
        config = config_of(model)
        assert config is not None
        if architecture.gguf is None:
            why = architecture.not_in_gguf or (
                f"llama.cpp runs no {architecture.name.upper()} model, so there is no GGUF file of one"
            )
            raise ExportArgumentError(f"{why}. The exporter 'transformers' writes it.")
        for difference in written.differences:
            _LOG.warning("%s.", difference)
        model = replace(model, tokenizer=tokenizer)
        inner = config.feedforward.intermediate_dim
        widths = {
            "hidden_dim": config.hidden_dim,
            "intermediate_dim": inner,
            "num_query_heads * head_dim": config.attention.query_dim,
        }
        if config.feedforward.experts is not None:
            of_experts = config.feedforward.experts
            widths["intermediate_dim of an expert"] = of_experts.intermediate_dim or inner
            if of_experts.shared_dim:
                widths["shared_dim of an expert"] = of_experts.shared_dim
        if self.dtype in IN_BLOCKS and any(width % BLOCK for width in widths.values()):
            raise ExportArgumentError(
                f"{self.dtype} needs widths that {BLOCK} divides. Received: "
                f"{', '.join(f'{name}={width}' for name, width in widths.items())}. Choose 'F16'."
            )
        longest = text_length(model, self.max_sequence_length)
        config = gguf_settings.check(architecture, replace(config, max_sequence_length=longest))
        comparison.require_positions(longest)
        comparison.require_finite(model)
        if not is_installed("gguf"):
            raise MissingDependencyError(
                "The exporter 'gguf' needs the package gguf: pip install 'kerasgen[gguf]'.",
                package="gguf",
                extra="gguf",
            )
        from kerasgen.exporters.gguf import questions
        from kerasgen.exporters.gguf.proof import LLAMA_CPP, Proof, Readers

        with (
            staged(path, overwrite=overwrite, exporter="gguf", beside=(*REPORTS, modelfile.SUFFIX)) as stage,
            Readers.started() as readers,
            contextlib.ExitStack() as stack,
        ):
            # Rows beyond the vocabulary have no text: the model never takes them, and llama.cpp could.
            size = tokenizer.vocabulary_size
            weights = weights_of(model)
            weights["embedding"]["tokens"] = weights["embedding"]["tokens"][:size]
            if not config.tied_head:
                weights["head"]["kernel"] = weights["head"]["kernel"][:, :size]
            config = replace(config, vocabulary_size=size)
            proof = stack.enter_context(
                Proof(readers, model, architecture, config, weights, tokenizer, dtype=self.dtype)
            )
            last = (LLAMA_CPP,) if questions.runs_llama_cpp() else ()
            progress.plan(_WRITE, comparison.GENERATE, *last, comparison.COMPARE)
            progress.begin(_WRITE)
            gguf_file.write(stage, architecture, config, weights, tokenizer, dtype=self.dtype, metadata=model.metadata)
            digest = proof.submit(digests.sha256_of, stage)
            figures = proof.of(stage, most_divergence=self.most_divergence)
            about = {
                **({"tokenizer_differences": list(written.differences)} if written.differences else {}),
                **licences.said(model),
                **chat.said(model),
                "dtype": self.dtype,
                "architecture": architecture.gguf,
                "max_tokens": longest,
                "sha256": digest.result(),
                "parity": figures,
            }
            modelfile.write(stage, max_tokens=longest, chat_template=chat.template_of(model) is not None)
            report = write_report(stage, about, exporter="gguf")
        return Artefact(path=path, exporter="gguf", report=report)
