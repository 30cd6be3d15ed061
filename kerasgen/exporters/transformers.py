"""`transformers`: a directory that Hugging Face's transformers loads, weights as safetensors, tokenizer and all."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, ModelError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.bpe import ByteLevelBPE

# Nats per token by which what was written may differ from the model: rounding each weight to 24, 11 or 8 bits.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 2.5e-1}

# transformers alone, in a fresh process: no line of kerasgen, no Keras.
_CHILD = """
import json, sys
import torch, transformers
job = json.load(open(sys.argv[1], encoding="utf-8"))
tokenizer = transformers.AutoTokenizer.from_pretrained(job["path"])
model = transformers.AutoModelForCausalLM.from_pretrained(job["path"], dtype=torch.float32).eval()
ids = []
model.generation_config.eos_token_id = None  # as many ids are compared as are asked for
for prompt, count in zip(job["prompts"], job["new_tokens"]):
    asked = torch.tensor([prompt])
    found = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, num_beams=1,
                           max_new_tokens=count)
    ids.append(found[0, len(prompt):].tolist())
encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job["texts"]]
started = [tokenizer(text)["input_ids"] for text in job["texts"]]
decoded = [tokenizer.decode(some) for some in encoded]
foreign = sorted({"keras", "kerasgen", "tensorflow", "jax"} & set(sys.modules))
json.dump({"ids": ids, "encoded": encoded, "started": started, "decoded": decoded, "modules": foreign,
           "version": transformers.__version__}, open(sys.argv[2], "w", encoding="utf-8"))
"""
TEXTS = ("昨夜雨疏风骤，浓睡不消残酒。", " two  spaces\n\nand a blank line", "it's 10 , don 't . 🚀 é ६", "a\0b")


@dataclass(frozen=True)
class TransformersExporter(Exporter):
    """Write a directory that `transformers.AutoModelForCausalLM` and `AutoTokenizer` load.

    The tokenizer puts the start token before a text, as the model was tuned. What was written is read back and
    compared; where transformers and torch are installed, a fresh process of theirs must generate the same ids too, and
    the report says whether it did (`parity.transformers`).

    Args:
        dtype: what the weights are stored as; the halves round each weight to 11 or 8 bits.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(
                f"dtype must be one of {', '.join(map(repr, TOLERANCE))}. Received: {self.dtype!r}."
            )

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the directory, read it back, and compare ids, losses and greedy text; see `Exporter`."""
        from kerasgen.exporters import comparing
        from kerasgen.exporters.families import family_and_tokenizer
        from kerasgen.exporters.writing import staged, write_report

        family, tokenizer = family_and_tokenizer(model, "transformers")
        shape = family.shape(model.causal_lm)
        comparing.require_positions(shape.max_sequence_length)
        # No reader of ours has these settings, so nothing could be proved.
        if shape.layer_norm_epsilon != 1e-5:
            raise ExportArgumentError(f"The norm's epsilon must be 1e-5. Received: {shape.layer_norm_epsilon}.")
        if family.name == "gpt2" and shape.intermediate_dim != 4 * shape.hidden_dim:
            raise ExportArgumentError(
                f"A GPT-2 can be read back only with intermediate_dim = 4 * hidden_dim = {4 * shape.hidden_dim}. "
                f"Received: {shape.intermediate_dim}."
            )
        start = tokenizer.end_token_id if tokenizer.start_token_id is None else tokenizer.start_token_id
        end, pad = tokenizer.end_token_id, tokenizer.pad_token_id
        config = family.transformers_config(shape, start=start, end=end, pad=pad) | {"torch_dtype": self.dtype}
        generation = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad, "do_sample": False}
        with staged(path, overwrite=overwrite, exporter="transformers") as stage:
            stage.mkdir()
            _write_json(stage / "config.json", config)
            _write_json(stage / "generation_config.json", generation)
            write_tokenizer(tokenizer, stage, length=shape.max_sequence_length)
            self._write_weights(family.transformers_tensors(family.weights(model.causal_lm)), stage)
            figures = self._prove(model, stage)
            report = write_report(
                stage,
                {"dtype": self.dtype, "architecture": config["architectures"][0], "parity": figures},
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

    def _prove(self, model: LanguageModel, directory: Path) -> dict[str, Any]:
        from kerasgen import devices
        from kerasgen.exporters import comparing
        from kerasgen.models.loading import load_directory

        try:
            written = load_directory(directory, source="export")
        except ModelError as cause:
            raise ExportError(f"What was written can't be read back: {cause}") from cause
        figures: dict[str, Any] = dict(compare_losses(model, written, TOLERANCE[self.dtype]))
        longest = min(model.max_sequence_length or 1024, 256)
        prompts = comparing.prompts(model.tokenizer, chunks=(max(longest // 8, 1),), longest=longest)[:2]
        counts = comparing.counts(model.tokenizer, prompts, longest)
        expected, seconds = comparing.timed_greedy(written, prompts, counts)
        theirs = comparing.greedy(model, prompts, counts)
        figures |= {"tokens_per_second": sum(counts) / seconds, "peak_bytes": devices.peak_memory_bytes()}
        figures |= {"new_tokens": counts, "prompt_lengths": list(map(len, prompts)), **comparing.variety(expected)}
        figures["greedy_equal"] = expected == theirs
        if self.dtype != "float32":  # rounded weights choose otherwise between near equals, and these are what counts
            figures["like_the_unrounded_model"] = figures["greedy_equal"]
            figures["greedy_equal"] = expected == comparing.greedy(self._rounded(model), prompts, counts)
        if not figures["greedy_equal"]:
            raise ExportError(f"What was written generates other ids than the model: {figures}.", figures=figures)
        figures["transformers"] = _prove_in_transformers(model.tokenizer, directory, prompts, expected, counts)
        return figures

    def _rounded(self, model: LanguageModel) -> Any:
        """The model as the file rounds it."""
        import ml_dtypes  # noqa: F401  brings NumPy the name bfloat16

        from kerasgen.exporters.numpy_decoder import NumpyEngine, rounded
        from kerasgen.models.families import family_of

        family = family_of(model.causal_lm)
        assert family is not None
        weights = rounded(family.weights(model.causal_lm), self.dtype)
        return NumpyEngine(weights, family.shape(model.causal_lm), model.tokenizer)


def compare_losses(model: LanguageModel, written: LanguageModel, tolerance: float) -> dict[str, float]:
    """Return how far two models are apart on a probe text, in nats per token.

    Raises:
        ExportError: their ids differ, or they are further apart than `tolerance`.
    """
    import numpy as np

    from kerasgen.corpora.base import Document
    from kerasgen.exporters.comparing import PROBE
    from kerasgen.models.scoring import score
    from kerasgen.tokens.encoding import encode_documents

    probe = [Document(text=PROBE, id="probe")]
    encoded, again = (encode_documents(probe, one.tokenizer) for one in (model, written))
    if not np.array_equal(encoded.token_ids, again.token_ids):
        raise ExportError("The tokenizer that was written gives other ids than the model's own. Nothing was kept.")
    length = model.default_sequence_length
    before, after = (score(one, encoded, sequence_length=length, batch_size=1).loss for one in (model, written))
    figures = {"nats_per_token": before, "difference_in_nats_per_token": abs(before - after)}
    if not figures["difference_in_nats_per_token"] <= tolerance:
        raise ExportError(
            f"What was written does not compute what the model does: {figures}. Nothing was kept.", figures=figures
        )
    return figures


def write_tokenizer(tokenizer: ByteLevelBPE, directory: Path, *, length: int) -> None:
    """Write a tokenizer so that `transformers.AutoTokenizer` gives the start token and then kerasgen's ids.

    Args:
        tokenizer: what to write.
        directory: where; it exists.
        length: positions of the model.
    """
    tokenizer.save(directory)
    found = json.loads(tokenizer.to_tokenizer_json())
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
        found["post_processor"] = {"type": "Sequence", "processors": [found["post_processor"], template]}
    _write_json(directory / "tokenizer.json", found, indent=None)
    # This class takes `tokenizer.json` as it is; GPT2Tokenizer would build another one, without the start token.
    place = directory / "tokenizer_config.json"
    settings = json.loads(place.read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    _write_json(place, settings)
    names = {"bos_token", "eos_token", "pad_token", "unk_token"}
    special = {name: settings[name] for name in sorted(names) if settings[name] is not None}
    _write_json(directory / "special_tokens_map.json", special)


def _prove_in_transformers(
    tokenizer: Any, directory: Path, prompts: list[list[int]], expected: list[list[int]], new_tokens: list[int]
) -> dict[str, Any] | None:
    """Generate in a fresh process of transformers, where it is installed, and compare; None where it is not."""
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        return None
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    usable = [text for text in TEXTS if _encodes(tokenizer, text)]
    job = {
        "path": str(directory.absolute()),
        "prompts": [start + ids for ids in prompts],
        "texts": usable,
        "new_tokens": new_tokens,
    }
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "job.json", Path(folder) / "answer.json"
        _write_json(asked, job)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(asked), str(answered)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ExportError(f"transformers could not run what was written: {done.stderr[-1500:]}")
        answer = json.loads(answered.read_text(encoding="utf-8"))
    encoded = [tokenizer.encode(text) for text in usable]
    figures = {
        "version": answer["version"],
        "ids_equal": answer["encoded"] == encoded and answer["started"] == [start + ids for ids in encoded],
        "text_equal": answer["decoded"] == usable,
        "greedy_equal": answer["ids"] == expected,
        "modules": answer["modules"],
    }
    if not (figures["ids_equal"] and figures["text_equal"] and figures["greedy_equal"]):
        raise ExportError(f"transformers does otherwise than the model: {figures}. Nothing was kept.", figures=figures)
    return figures


def _encodes(tokenizer: Any, text: str) -> bool:
    from kerasgen.errors import TokenArgumentError

    try:
        tokenizer.encode(text)
    except TokenArgumentError:
        return False
    return True


def _write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
