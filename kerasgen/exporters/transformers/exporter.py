"""`transformers`: a directory that Hugging Face's transformers loads, weights as safetensors, tokenizer and all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.bounds import PositiveInt
from kerasgen.decoder.config import DecoderConfig
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, ExportError, ModelArgumentError
from kerasgen.exporters.base import Artefact, Exporter, check_bounds
from kerasgen.files import temporary
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import meant
from kerasgen.tokens.pretrained import PretrainedTokenizer

if TYPE_CHECKING:
    from kerasgen.exporters.parity.comparison import Read
    from kerasgen.exporters.validation import FileTokenizer
    from kerasgen.models.architectures import Architecture
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.base import Tokenizer

# Nats per token by which what was written may differ from the model: rounding each weight to 24, 11 or 8 bits.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 2.5e-1}
_WRITE, _TRANSFORMERS = "write the directory", "generate in transformers"
_LONGEST = 256  # tokens of a text that is compared
PLAIN = "a b"


def texts_of(tokenizer: Tokenizer) -> list[str]:
    """Return texts whose ids are compared: with them, every added token among letters and among blanks."""
    from kerasgen.exporters.parity.comparison import TEXTS

    added = [token.content for token in getattr(tokenizer, "added_tokens", ())]
    return [
        *TEXTS,
        *(f"a {token}b{token}{token}  {token} \n c" for token in added),
        *("".join(added) for _ in added[:1]),
    ]


@dataclass(frozen=True)
class TransformersExporter(Exporter):
    """Write a directory that `transformers.AutoModelForCausalLM` and `AutoTokenizer` load.

    The tokenizer puts the start token before a text, as the model was tuned. A fresh process reads back what was
    written, must generate the model's ids, and lets the `tokenizers` library encode by the file alone; where
    transformers and torch are installed, one of theirs must too, and the report says whether it did
    (`parity.transformers`).

    Args:
        dtype: what the weights are stored as; the halves round each weight to 11 or 8 bits.
        max_sequence_length: tokens of a text that the files say it is for; None for the model's positions, and for a
            Llama, which has no limit of its own, what the directory it came from said, else 1024.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_sequence_length: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(
                f"dtype must be one of {', '.join(map(repr, TOLERANCE))}. Received: {self.dtype!r}."
                f"{meant(self.dtype, TOLERANCE)}"
            )
        check_bounds(self)

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the directory, let fresh processes read it back and generate, and compare; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import masked_models, progress
        from kerasgen.models.base import MaskedLanguageModel

        if isinstance(model, MaskedLanguageModel):
            return masked_models.export(model, path, "transformers", self.dtype, overwrite=overwrite)
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.staging import staged, write_report
        from kerasgen.exporters.validation import decoder_of, json_tokenizer, text_length
        from kerasgen.models import licences
        from kerasgen.models.architectures import tensors
        from kerasgen.models.base import CHAT_TEMPLATE, SPECIAL_TOKENS
        from kerasgen.models.described import config_of, weights_of

        architecture, tokenizer = decoder_of(model, "transformers"), json_tokenizer(model, "transformers")
        model = replace(model, tokenizer=tokenizer)
        described = config_of(model)
        assert described is not None
        positions = text_length(model, self.max_sequence_length)
        comparison.require_positions(positions)
        comparison.require_finite(model)
        # kerasgen's own readers know no other, so nothing could be proved.
        is_fixed = "norm.epsilon" not in architecture.keys.values()
        if is_fixed and described.norm.epsilon != architecture.layer_norm_epsilon:
            raise ExportArgumentError(
                f"The norm's epsilon must be {architecture.layer_norm_epsilon}. Received: {described.norm.epsilon}."
            )
        start = tokenizer.end_token_id if tokenizer.start_token_id is None else tokenizer.start_token_id
        end, pad = tokenizer.end_token_id, tokenizer.pad_token_id
        ends = end if len(tokenizer.end_token_ids) == 1 else list(tokenizer.end_token_ids)
        config = _config(architecture, model.network, described, positions) | {
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "torch_dtype": self.dtype,
        }
        generation = {"bos_token_id": start, "eos_token_id": ends, "pad_token_id": pad, "do_sample": False}
        with staged(path, overwrite=overwrite, exporter="transformers") as stage:
            progress.plan(_WRITE, comparison.GENERATE, comparison.COMPARE)
            progress.begin(_WRITE)
            stage.mkdir()
            _write_json(stage / "config.json", config)
            _write_json(stage / "generation_config.json", generation)
            write_tokenizer(
                tokenizer,
                stage,
                length=positions,
                chat_template=model.metadata.get(CHAT_TEMPLATE),
                special_tokens=model.metadata.get(SPECIAL_TOKENS),
            )
            weights = weights_of(model)
            self._write_weights(tensors.write(architecture, described, weights, "transformers"), stage)
            licences.write(model.metadata, stage, library_name="transformers", pipeline_tag="text-generation")
            figures = self._prove(model, stage, tokenizer, min(positions, _LONGEST))
            about = {"dtype": self.dtype, "architecture": config["architectures"][0], **licences.said(model)}
            report = write_report(
                stage,
                {**about, "parity": figures},
                exporter="transformers",
            )
        return Artefact(path=path, exporter="transformers", report=report)

    def _write_weights(self, tensors: Mapping[str, Any], directory: Path) -> None:
        import ml_dtypes
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        kind = ml_dtypes.bfloat16 if self.dtype == "bfloat16" else np.dtype(self.dtype)
        with np.errstate(over="ignore"):
            stored = {name: np.ascontiguousarray(tensor.astype(kind)) for name, tensor in tensors.items()}
        for name, tensor in stored.items():
            if not np.isfinite(tensor.astype(np.float32)).all():
                raise ExportError(f"The tensor {name!r} is not finite as {self.dtype}. Nothing was kept.")
        try:
            save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
        except SafetensorError as cause:  # a full disk, too
            raise ExportError(f"The weights can't be written: {cause}. Nothing was kept.") from cause

    def _prove(self, model: LanguageModel, directory: Path, tokenizer: FileTokenizer, longest: int) -> dict[str, Any]:
        """Let a fresh process read the directory back and, where there is transformers, one of its; compare."""
        import numpy as np

        from kerasgen import backend
        from kerasgen.exporters import progress
        from kerasgen.exporters.parity import comparison, conversations, worker

        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        prompts = comparison.prompts(tokenizer, chunks=(max(longest // 8, 1),), longest=longest)[:2]
        counts = comparison.counts(tokenizer, prompts, longest)
        read = start + comparison.probe(tokenizer, longest - len(start))
        job = {"path": str(directory), "prompts": prompts, "new_tokens": counts}
        texts = comparison.encodable(tokenizer, texts_of(tokenizer))
        special = tokenizer.special_tokens.values()
        shown = [[*tokenizer.encode(PLAIN), token_id, *tokenizer.encode(PLAIN)] for token_id in special]
        with temporary.folder() as folder:
            worker_job = job | {
                "backend": backend.running(),
                "read": read,
                "folder": folder,
                "texts": texts,
                "shown": shown,
            }
            progress.begin(comparison.GENERATE)
            answer = worker.run("kerasgen.exporters.transformers.worker", worker_job)
            progress.begin(comparison.COMPARE)
            written = np.load(Path(folder) / "logits.npy")
        same = {
            "tokenizer_equal": answer["digest"] == tokenizer.digest(),
            "tokenizers_equal": answer["encoded"] == [tokenizer.encode(text) for text in texts],
            "shown_equal": answer["shown"] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in shown],
        }
        comparison.require(same, "The tokenizer that was written is not the model's")
        unrounded = comparison.reader(model, longest)
        reader = unrounded if self.dtype == "float32" else self._rounded(model, longest)
        figures: dict[str, Any] = {
            **comparison.distances(comparison.logits(model, read), written, read),
            "new_tokens": counts,
            "prompt_lengths": list(map(len, prompts)),
            **comparison.variety(answer["alone"]),
            **same,
            **comparison.greedily(reader, tokenizer, prompts, answer, counts),
            "tokens_per_second": counts[-1] / answer["seconds"][-1],
            "load_seconds": answer["load_seconds"],
            "peak_bytes": answer["peak_bytes"],
            "modules": answer["modules"],
        }
        if self.dtype != "float32":  # the file holds rounded weights, which resolve near ties differently
            own = comparison.greedily(unrounded, tokenizer, prompts, answer, counts)
            figures["like_the_unrounded_model"] = own["greedy_equal"]
        comparison.require(figures, "What was written does otherwise than the model", tolerance=TOLERANCE[self.dtype])
        job["chats"] = conversations.asked(model)
        figures["transformers"] = _prove_in_transformers(tokenizer, job, reader)
        return figures

    def _rounded(self, model: LanguageModel, longest: int) -> Read:
        """Return a reader of the model with its weights rounded as in the file."""
        import ml_dtypes  # noqa: F401  brings NumPy the name bfloat16

        from kerasgen.decoder.numpy import rounded
        from kerasgen.exporters.parity import comparison
        from kerasgen.models.described import weights_of

        weights = weights_of(model)
        return comparison.reader(comparison.with_weights(model, rounded(weights, self.dtype)), longest)


def _config(architecture: Architecture, network: Any, described: DecoderConfig, positions: int) -> dict[str, Any]:
    """Return the content of `config.json` for a decoder.

    Raises:
        ExportArgumentError: transformers has no key for one of its traits.
    """
    first: dict[str, Any] = {"architectures": [architecture.transformers_class], "model_type": architecture.name}
    if described.max_sequence_length is None:
        first["max_position_embeddings"] = positions
    if architecture.transformers_dropout and hasattr(network, "backbone"):
        first[architecture.transformers_dropout] = network.backbone.dropout
    try:
        return first | architecture.settings(described)
    except ModelArgumentError as cause:
        raise ExportArgumentError(f"The model can't be written for transformers: {cause}") from cause


def write_tokenizer(
    tokenizer: FileTokenizer,
    directory: Path,
    *,
    length: int,
    chat_template: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
) -> None:
    """Write a tokenizer so that `transformers.AutoTokenizer` gives the start token and then kerasgen's ids.

    Args:
        tokenizer: what to write.
        directory: where; it exists.
        length: positions of the model.
        chat_template: of the model, if it has one.
        special_tokens: names of special tokens that the template knows, such as `bos_token`, where the tokenizer itself
            has none of that name.
    """
    tokenizer.save(directory)
    # This class takes `tokenizer.json` as it is; GPT2Tokenizer would build another one, without the start token.
    place = directory / "tokenizer_config.json"
    settings = json.loads(place.read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    if chat_template is not None:
        settings |= {"chat_template": chat_template}
        for name, token in (special_tokens or {}).items():
            if settings.get(name) is None and token in tokenizer.special_tokens:
                settings[name] = token
    _write_json(place, settings)
    names = {"bos_token", "eos_token", "pad_token", "unk_token"}
    special = {name: settings[name] for name in sorted(names) if settings.get(name) is not None}
    _write_json(directory / "special_tokens_map.json", special)
    if isinstance(tokenizer, PretrainedTokenizer):
        return  # whose file is as it was, template and all
    content = json.loads(tokenizer.to_tokenizer_json())
    if tokenizer.start_token is not None:
        first = {"SpecialToken": {"id": tokenizer.start_token, "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        more = [{"Sequence": {"id": "B", "type_id": 1}}]
        start = {"id": tokenizer.start_token, "ids": [tokenizer.start_token_id], "tokens": [tokenizer.start_token]}
        template = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, *more],
            "special_tokens": {tokenizer.start_token: start},
        }
        content["post_processor"] = {"type": "Sequence", "processors": [content["post_processor"], template]}
    _write_json(directory / "tokenizer.json", content, indent=None)


def _prove_in_transformers(tokenizer: Tokenizer, job: Mapping[str, Any], read: Read) -> dict[str, Any] | None:
    """Generate in a fresh process of transformers, where it is installed, and compare; None where it is not."""
    from kerasgen.exporters import progress
    from kerasgen.exporters.parity import comparison, worker

    if not (is_installed("transformers") and is_installed("torch")):
        return None
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    texts = comparison.encodable(tokenizer, texts_of(tokenizer))
    worker_job = {**job, "prompts": [start + ids for ids in job["prompts"]], "texts": texts}
    worker_job["ids"] = tokenizer.vocabulary_size
    worker_job["chats"] = [talk["messages"] for talk in job["chats"]]
    progress.plan(_TRANSFORMERS)
    progress.begin(_TRANSFORMERS)
    answer = worker.run("kerasgen.exporters.transformers.transformers_worker", worker_job)
    encoded = [tokenizer.encode(text) for text in texts]
    figures = {
        "version": answer["version"],
        "ids_equal": answer["encoded"] == encoded and answer["started"] == [start + ids for ids in encoded],
        "text_equal": answer["decoded"] == [tokenizer.decode(ids) for ids in encoded],
        **({"chat_ids_equal": answer["chats"] == [talk["ids"] for talk in job["chats"]]} if job["chats"] else {}),
        **comparison.greedily(read, tokenizer, job["prompts"], answer, job["new_tokens"]),
        "modules": answer["modules"],
    }
    comparison.require(figures, "transformers does otherwise than the model")
    return figures


def _write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=False) + "\n", encoding="utf-8")
