"""What one cell of the matrix of architectures tries: functions that raise where something is not right.

`python tools/matrix_cells.py qwen3 load tokenizer` tries cells of one architecture and writes a line of JSON for each.

A model is what transformers itself makes, tiny, with weights drawn by name, and saves with a tokenizer of the family's
kind. What is compared with is transformers' own logits, and what the exporters' proofs ask: llama.cpp, LiteRT and
LiteRT-LM.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from shutil import copyfile
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tools")]

from matrix import MODELS, TOKENIZERS  # noqa: E402

FAMILIES = ROOT / "tests" / "tokens" / "families.tar.xz"
LONGEST, BEYOND = 64, 100  # tokens of a text that a model is made for, and of one that is longer
TOLERANCE = 1e-4  # of logits; of larger ones than 5, so much of the largest:
OF_LARGEST = 2e-5
LONGROPE = {"phi3": {"original_max_position_embeddings": 8 * LONGEST, "max_position_embeddings": 16 * LONGEST}}
# Which KerasHub's class computes, where the one that stands for the architecture is of those that it doesn't.
HELD = {
    "gpt_neox": "gpt_neox_held",
    "falcon": "falcon_held",
    "qwen3": "qwen3_held",
    "mixtral": "mixtral_held",
    "gpt_oss": "gpt_oss_held",
}
# Of those that stand for an architecture, llama.cpp computes these otherwise; of what is published, others too.
NEAREST_IN_GGUF: dict[str, tuple[dict[str, Any], str]] = {
    "mistral": ({"settings": {"sliding_window": None}}, "without windows, which are refused"),
    "phi3": ({"described": "phi3", "settings": {"sliding_window": None}}, "without LongRoPE, which is refused"),
    "qwen2_moe": (
        {"settings": {"norm_topk_prob": False}},
        "with experts' shares as they are, as published, for shares brought to 1 are refused",
    ),
    "qwen3_moe": (
        {"settings": {"norm_topk_prob": True, "mlp_only_layers": []}},
        "with shares of experts brought to 1 and experts in each layer, as published, for others are refused",
    ),
    "olmo2": ({"settings": {"head_dim": 6}}, "with heads of 6, for others than its width by their number are refused"),
}


class Absent(Exception):  # noqa: N818  (nothing is wrong)
    """The architecture has nothing that the cell could try."""


class Tried:
    """A tiny model of an architecture in transformers, and the directory that transformers saves.

    Args:
        name: of the architecture.
        place: an empty folder.
        described: the decoder of `tests/support/described.py`; that of `MODELS` by default.
        family: whose tokenizer it has; that of `TOKENIZERS` by default.
        settings: of transformers, further ones.
        saved: whether the tokenizer is as transformers saves it again, and not as the family publishes it.
    """

    def __init__(
        self,
        name: str,
        place: Path,
        *,
        described: str | None = None,
        family: str | None = None,
        settings: Mapping[str, Any] | None = None,
        saved: bool = True,
    ) -> None:
        self.name, self.place, self.saved = name, place, saved
        self.described = described or MODELS[name]
        self.family = family or TOKENIZERS[name]
        self.settings = {**LONGROPE.get(name, {}), **(settings or {})}

    @cached_property
    def directory(self) -> Path:
        """What transformers saves: settings, weights and tokenizer."""
        import write_transformers_logits as theirs
        from described import CONFIGS
        from transformers import AutoTokenizer

        with tarfile.open(FAMILIES) as archive:
            members = [member for member in archive if member.name.split("/")[0] == self.family]
            archive.extractall(self.place, members, filter="data")
        tokenizer = AutoTokenizer.from_pretrained(self.place / self.family)
        config = replace(CONFIGS[self.described], vocabulary_size=len(tokenizer))
        if "head_dim" in self.settings:
            config = replace(config, attention=replace(config.attention, head_dim=self.settings["head_dim"]))
        experts = config.feedforward.experts
        if experts is not None and self.settings.get("mlp_only_layers") == []:
            config = replace(config, feedforward=replace(config.feedforward, experts=replace(experts, layers=())))
        special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        if special["pad_token_id"] is None:
            special["pad_token_id"] = special["eos_token_id"]
        said = {"vocab_size": len(tokenizer), **special, **self.settings}
        model = theirs.model_of(self.described, config=config, **said)
        model.generation_config.eos_token_id = special["eos_token_id"]
        model.save_pretrained(self.place / "directory")
        if self.saved:
            tokenizer.save_pretrained(self.place / "directory")
        else:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                copyfile(self.place / self.family / file, self.place / "directory" / file)
        return self.place / "directory"

    def theirs(self) -> Any:
        """Return transformers' model of the directory, read anew."""
        from transformers import AutoModelForCausalLM

        # Of a Falcon with ALiBi, transformers 5.24's eager attention adds the slopes twice, and its usual one once.
        kind = "sdpa" if self.name == "falcon" else "eager"
        return AutoModelForCausalLM.from_pretrained(self.directory, attn_implementation=kind).float().eval()

    @cached_property
    def reference(self) -> Any:
        """The same, which nobody changes."""
        return self.theirs()

    def ours(self) -> Any:
        """Return kerasgen's model of the directory, read anew."""
        from kerasgen.models.hub import Hub

        return Hub(str(self.directory)).load()

    @cached_property
    def experts(self) -> bool:
        """Whether it is a mixture of experts."""
        from described import CONFIGS

        return CONFIGS[self.described].feedforward.experts is not None

    def ids(self, count: int) -> list[int]:
        """Return drawn ids."""
        import numpy as np

        size = self.reference.config.vocab_size
        return [int(each) for each in np.random.default_rng(0).integers(3, size, count)]


def logits(model: Any, ids: Sequence[int]) -> Any:
    """Return transformers' logits of a text, or those of kerasgen's forward pass, `(tokens, rows)`."""
    import numpy as np

    network = getattr(model, "network", None)
    if network is None and hasattr(model, "backbone"):
        network = model
    given = np.asarray([ids], "int32")
    if network is not None:
        return np.asarray(network({"token_ids": given, "padding_mask": np.ones_like(given)}))[0]
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(given.astype("int64"))).logits[0].float().numpy()


def near(found: Any, wanted: Any) -> float:
    """Return how far apart logits are; raise beyond the tolerance."""
    import numpy as np

    apart, size = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
    if not apart <= max(TOLERANCE, OF_LARGEST * size):
        raise AssertionError(f"logits are {apart:.2g} apart, of {size:.1f} at most")
    return apart


def load(tried: Tried, folder: Path) -> str:
    """A directory of transformers, and the preset that is saved of it, have transformers' logits, in KerasHub too."""
    import keras_hub

    from kerasgen.models.hub import Hub
    from kerasgen.models.saving import save_preset

    seen = []
    held = HELD.get(tried.name)
    for each in [tried, *([Tried(tried.name, folder / held, described=held)] if held else [])]:
        model, ids = each.ours(), each.ids(LONGEST - 4)
        wanted = logits(each.reference, ids)
        apart = near(logits(model, ids), wanted)
        preset = save_preset(model, folder / f"{each.described}.preset")
        near(logits(Hub(str(preset)).load(), ids), wanted)
        seen.append(f"{each.described} to {apart:.0e}")
        if model.causal_lm is not None:
            near(logits(keras_hub.models.CausalLM.from_preset(str(preset), preprocessor=None), ids), wanted)
            seen[-1] += " and in KerasHub"
    return ", ".join(seen)


def tokenizer(tried: Tried, folder: Path) -> str:
    """Ids are those of transformers' AutoTokenizer of the same directory, on drawn texts and real ones."""
    from drawn_texts import drawn, posts
    from transformers import AutoTokenizer

    ours = tried.ours().tokenizer
    theirs = AutoTokenizer.from_pretrained(tried.directory, split_special_tokens=True)
    texts = drawn(2000, seed=2)
    data = ROOT.parent / "shared" / "data"
    texts += posts(data) if data.is_dir() else []
    wrong = [
        text
        for text, found, wanted in zip(
            texts, ours.encode_batch(texts), theirs(texts, add_special_tokens=False)["input_ids"], strict=True
        )
        if found != wanted
    ]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(texts)} texts have other ids, such as {wrong[0]!r}")
    start = [] if ours.start_token_id is None else [ours.start_token_id]
    assert [*start, *ours.encode("a b")] == theirs("a b")["input_ids"], "another start"
    return f"{type(theirs).__name__}, {len(texts)} texts"


def packed(tried: Tried, folder: Path) -> str:
    """Documents that share a row cost, and pull at the weights, what they do in the plain pass over each alone."""
    import jax
    import keras
    import numpy as np
    from keras import ops

    from kerasgen.models.forward import TokenLosses

    model = tried.ours()
    losses = TokenLosses(model)
    assert losses.packs, "its documents are not packed"
    ids = tried.ids(40)
    documents, length, second = (ids[:23], ids[23:]), 48, 24
    row = {name: np.zeros((1, length), "int32") for name in ("token_ids", "targets", "positions", "segment_ids")}
    for number, (begin, text) in enumerate(zip((0, second), documents, strict=True), start=1):
        span = slice(begin, begin + len(text) - 1)
        row["token_ids"][0, span], row["targets"][0, span] = text[:-1], text[1:]
        row["positions"][0, span], row["segment_ids"][0, span] = np.arange(len(text) - 1), number
    given = {name: ops.convert_to_tensor(array) for name, array in row.items()}
    given["weights"] = ops.convert_to_tensor((row["segment_ids"] > 0).astype("float32"))
    variables, others = model.network.trainable_variables, model.network.non_trainable_variables

    def differentiated(compute: Callable[[], Any]) -> tuple[float, list[Any]]:
        def stateless(values: Any) -> Any:
            held = [*zip(variables, values, strict=True), *((each, each.value) for each in others)]
            with keras.StatelessScope(state_mapping=held):
                return compute()

        value, slopes = jax.jit(jax.value_and_grad(stateless))([each.value for each in variables])
        return float(value), [np.asarray(slope) for slope in slopes]

    def alone() -> Any:
        total = 0.0
        for text in documents:
            inputs = {"token_ids": ops.array([text[:-1]]), "padding_mask": ops.ones((1, len(text) - 1), "int32")}
            rows = ops.log_softmax(ops.cast(model.network(inputs, training=False)[0], "float32"), axis=-1)
            total = total - ops.sum(ops.take_along_axis(rows, ops.array(text[1:])[:, None], axis=-1))
        return total

    loss, slopes = differentiated(lambda: losses.weighted(given, training=False).loss)
    wanted, theirs = differentiated(alone)
    by_them = 0.0
    for text in documents:
        rows = logits(tried.reference, text[:-1]).astype("float64")
        by_them += float((np.log(np.exp(rows).sum(-1)) - rows[np.arange(len(rows)), text[1:]]).sum())
    assert abs(loss / by_them - 1) < 1e-5, f"a loss of {loss}, and {by_them} in transformers"
    assert abs(loss / wanted - 1) < 1e-5, f"a loss of {loss}, and {wanted} of documents alone"
    steepest = max(float(np.abs(other).max()) for other in theirs)  # those of a key's bias are zero but for rounding
    worst = max(
        float(np.abs(slope - other).max() / max(np.abs(other).max(), 1e-3 * steepest))
        for slope, other in zip(slopes, theirs, strict=True)
    )
    assert worst < 1e-3, f"a gradient is {worst:.2g} of its size off"
    return f"gradients to {worst:.0e}"


def tuned(tried: Tried, folder: Path, **settings: Any) -> Any:
    """Return a model whose adapters were tuned for six epochs of few texts, and lowered the loss."""
    from toys import encode, texts

    import kerasgen as kg

    model = tried.ours()
    tuner = kg.LoraTuner(
        **{"rank": 2, "alpha": 8.0, "targets": ("attention",) if tried.experts else ("all",), "epochs": 6},
        **{"batch_size": 4, "sequence_length": 32, "learning_rate": 0.01, "precision": "float32"},
        **{"vocabulary": "keep", **settings},
    )
    (folder / "run").mkdir()
    report = tuner.tune(model, encode(model.tokenizer, texts(20)), seed=1, directory=folder / "run", verbose=0)
    an_epoch = len(report.losses) // 6
    first, last = sum(report.losses[:an_epoch]) / an_epoch, sum(report.losses[-an_epoch:]) / an_epoch
    assert last < first, f"losses of {report.losses}"
    return model


def with_weights(tried: Tried, model: Any) -> Any:
    """Return transformers' model with the weights of one of ours that has no adapters beside them."""
    import numpy as np
    import torch

    from kerasgen.models import described
    from kerasgen.models.architectures import tensors

    architecture = described.architecture_of(model)
    assert architecture is not None
    config, weights = described.decoder_of(model)
    file = tensors.write(architecture.with_experts_together(), config, weights, "transformers")
    theirs = tried.theirs()
    held = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in file.items()}
    missing, unexpected = theirs.load_state_dict(held, strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if not name.startswith(("lm_head", "embed_out"))], missing
    theirs.tie_weights()
    return theirs


def in_peft(model: Any, base: Any, ids: Sequence[int], folder: Path) -> float:
    """Return how far what peft computes with our file of adapters is from what we do."""
    import peft

    from kerasgen.tuners import peft_files

    peft_files.write(model, folder / "adapters")
    return near(logits(peft.PeftModel.from_pretrained(base, str(folder / "adapters")).eval(), ids), logits(model, ids))


def lora(tried: Tried, folder: Path) -> str:
    """Adapters that were tuned compute in peft, over transformers' model, what they compute here."""
    model = tuned(tried, folder)
    return f"peft, to {in_peft(model, tried.theirs(), tried.ids(40), folder):.0e}"


def qlora(tried: Tried, folder: Path) -> str:
    """The same beside weights in int8: in peft over the floats that the codes stand for."""
    from kerasgen.tuners import adapters

    base = tried.ours()
    adapters.hold(base, "int8")
    adapters.merge(base)
    model = tuned(tried, folder, quantize="int8")
    return f"peft, to {in_peft(model, with_weights(tried, base), tried.ids(40), folder):.0e}"


def merged_int8(tried: Tried, folder: Path) -> str:
    """Adapters beside int8 codes are merged: what comes out are floats that transformers computes the same with."""
    import numpy as np

    from kerasgen.tuners import adapters
    from kerasgen.tuners.adapters import AdapterConfig

    model, ids = tried.ours(), tried.ids(40)
    plain = logits(model, ids)
    targets = ("attention",) if tried.experts else ("all",)
    adapters.enable(model, AdapterConfig(2, 4.0, targets, quantize="int8"), seed=0)
    rng = np.random.default_rng(0)
    for layer in adapters.carrying(model):
        layer.lora_kernel_b.assign(0.2 * rng.standard_normal(layer.lora_kernel_b.shape))
    before = logits(model, ids)
    adapters.merge(model)
    near(logits(model, ids), before)
    apart = near(logits(with_weights(tried, model), ids), before)
    assert np.abs(before - plain).max() > 0.05, "the adapters changed nothing"
    return f"transformers, to {apart:.0e}"


def decoded(tried: Tried, model: Any, prompt: list[int], count: int) -> list[int]:
    """Return the ids that the JAX engine chooses, held to the likeliest by transformers."""
    import numpy as np

    import kerasgen as kg
    from kerasgen.generation import engine_registry
    from kerasgen.generation.api import generate_ids
    from kerasgen.generation.jax_engine import JaxEngine

    engine = engine_registry.resolve(model)
    assert isinstance(engine, JaxEngine), f"decoded by {type(engine).__name__}"
    size = model.tokenizer.vocabulary_size
    found = generate_ids(engine.ending_at(size), [prompt], max_new_tokens=count, sampler=kg.Greedy(), valid_utf8=False)[
        0
    ][0].token_ids
    start = [] if model.tokenizer.start_token_id is None else [model.tokenizer.start_token_id]
    whole = [*start, *prompt, *found]
    wanted = logits(tried.reference, whole)[len(whole) - len(found) - 1 : -1, :size].argmax(-1)
    assert list(found) == list(wanted), f"token {int(np.argmax(np.asarray(found) != wanted))} of {count} is another"
    assert len(found) == count, f"{len(found)} ids of {count}"
    return list(found)


def jax(tried: Tried, folder: Path) -> str:
    """The JAX engine chooses what transformers finds likeliest, along a text that it writes."""
    model = tried.ours()
    ids = decoded(tried, model, model.tokenizer.encode("a house by the river")[:12], 40)
    return f"{len(ids)} ids, {len(set(ids))} distinct"


def windows(tried: Tried, folder: Path) -> str:
    """Texts beyond the window, and windows beyond all that a cache holds, are computed as by transformers."""
    from kerasgen.models.described import config_of

    described = {"phi3": "phi3", "starcoder2": "starcoder2_windowed", "mixtral": "mixtral_held"}.get(tried.name)
    few = Tried(tried.name, folder / "few", described=described) if described else tried
    config = config_of(few.ours())
    assert config is not None
    sizes = {size for size in config.attention.windows or () if size}
    if not sizes:
        raise Absent("it has no windows")
    for each in (few, Tried(tried.name, folder / "many", described=few.described, settings={"sliding_window": 4096})):
        model, ids = each.ours(), each.ids(LONGEST - 4)
        near(logits(model, ids), logits(each.reference, ids))
        decoded(each, model, ids[:4], LONGEST - 8)
    return f"texts of {LONGEST - 4} tokens, windows of {max(sizes)} and 4096"


def positions(tried: Tried, folder: Path) -> str:
    """Texts longer than the model was made for are computed as by transformers, or refused where no table reaches."""
    from kerasgen.decoder.config import LearnedPositions
    from kerasgen.errors import GenerateArgumentError
    from kerasgen.models.described import config_of

    model, ids = tried.ours(), tried.ids(BEYOND)
    config = config_of(model)
    assert config is not None
    if isinstance(config.positions, LearnedPositions):
        for prompt, new in ((ids[:10], BEYOND), (ids, 4)):
            try:
                decoded(tried, model, prompt, new)
            except GenerateArgumentError as cause:
                said = str(cause)
            else:
                raise AssertionError(f"a text of {len(prompt) + new} tokens is written")
        return f"{said[:60]}…"
    apart = near(logits(model, ids), logits(tried.reference, ids))
    decoded(tried, model, ids[:10], BEYOND - 12)
    return f"texts of {BEYOND} tokens, to {apart:.0e}"


def _gguf(tried: Tried, folder: Path) -> tuple[Tried, Any, str]:
    """Write a GGUF file, of the nearest model of the architecture that it has a place for; say which."""
    import kerasgen as kg
    from kerasgen.errors import ExportArgumentError
    from kerasgen.exporters.validation import require_held
    from kerasgen.models import gguf_tokenizer_writing

    notes = []
    others: dict[str, Any] = {}
    tokenizers: dict[str, Any]
    if tried.name in NEAREST_IN_GGUF:
        others, note = NEAREST_IN_GGUF[tried.name]
        notes.append(note)
    for number, (tokenizers, note) in enumerate(
        (
            ({}, ""),
            (
                {"saved": False},
                "with the tokenizer as it is published, for as transformers saves it llama.cpp has none like it",
            ),
            ({"family": "gpt2"}, "with the tokenizer of GPT-2, for llama.cpp has none like that of this family"),
        )
    ):
        if others or tokenizers:
            tried = Tried(tried.name, folder / str(number), **others, **tokenizers)
        try:
            tokenizer = gguf_tokenizer_writing.of(tried.ours().tokenizer).tokenizer
            require_held(tokenizer, "gguf", added_tokens=True, end_tokens=len(tokenizer.end_token_ids) <= 2)
        except ExportArgumentError:
            continue
        if note:
            notes.append(note)
        break
    artefact = kg.GgufExporter().export(tried.ours(), folder / "model.gguf")
    return tried, artefact, "".join(f", {note}" for note in notes)


def gguf(tried: Tried, folder: Path) -> str:
    """The file computes in llama.cpp what the model does."""
    _, artefact, note = _gguf(tried, folder)
    parity = artefact.report["parity"]
    assert parity.get("llama_cpp"), "llama.cpp is not installed"
    return f"llama.cpp{note}"


def gguf_in(tried: Tried, folder: Path) -> str:
    """A GGUF file becomes a model of transformers' logits and the same tokenizer."""
    from kerasgen.models.gguf import Gguf

    tried, artefact, note = _gguf(tried, folder)
    model, ids = Gguf(str(artefact.path)).load(), tried.ids(LONGEST - 4)
    apart = near(logits(model, ids)[:, : model.tokenizer.vocabulary_size], logits(tried.reference, ids))
    texts = ["the river's song 123", "昨夜 🚀 é", "x\n\n  y"]
    assert model.tokenizer.encode_batch(texts) == tried.ours().tokenizer.encode_batch(texts), "another tokenizer"
    return f"to {apart:.0e}{note}"


def exported(name: str, **settings: Any) -> Callable[[Tried, Path], str]:
    """Return a cell in which an exporter writes and proves."""

    def run(tried: Tried, folder: Path) -> str:
        import kerasgen as kg

        exporter = getattr(kg, f"{name}Exporter")
        path = folder / f"artefact{''.join(exporter.suffixes[:1])}"
        own, note = dict[str, Any](), ""
        if name == "SavedModel" and tried.name in LONGROPE:
            longest = LONGROPE[tried.name]["original_max_position_embeddings"]
            own, note = {"max_sequence_length": longest}, f", texts of at most {longest} tokens"
        artefact = exporter(**settings, **own).export(tried.ours(), path)
        parity = artefact.report["parity"]
        if name == "Transformers":
            assert parity["transformers"], "transformers is not installed"
            return "transformers"
        if "divergence_in_nats" in parity:
            return f"{parity['divergence_in_nats']:.1g} nats from the model"
        return f"the same ids{note}"

    return run


_GRAPH: dict[str, Any] = {"cache_length": LONGEST, "prefill_lengths": (16,)}
# Weights drawn at random have no reason to survive rounding as those of a trained model do: what is asked here is that
# the signatures of a file agree, and that it is near to the model.
_LIMITS = ("most_divergence", "least_agreement", "most_logit_difference", "most_loss_increase")
_INT8 = dict(zip(_LIMITS, (0.5, 0.6, 6.0, 0.5), strict=True))
_INT4 = dict(zip(_LIMITS, (2.0, 0.3, 12.0, 2.0), strict=True))
CELLS: dict[str, Callable[[Tried, Path], str]] = {
    "load": load,
    "tokenizer": tokenizer,
    "packed": packed,
    "lora": lora,
    "qlora": qlora,
    "merged_int8": merged_int8,
    "jax": jax,
    "windows": windows,
    "positions": positions,
    "gguf_in": gguf_in,
    "transformers": exported("Transformers"),
    "gguf": gguf,
    "saved_model": exported("SavedModel"),
    "tflite": exported("TFLite", beams=0, **_GRAPH),
    "tflite_float16": exported("TFLite", beams=0, quantize="float16", **_GRAPH),
    "tflite_int8": exported("TFLite", beams=0, quantize="int8", **_GRAPH, **_INT8),
    "tflite_int4": exported("TFLite", beams=0, quantize="int4", **_GRAPH, **_INT4),
    "litertlm": exported("LiteRtLm", **_GRAPH),
}


def tried(cell: Callable[[Path], str]) -> dict[str, Any]:
    """Return what happened: `ok` with what proved it, `refused` with the reason, `absent`, or `failed`."""
    from kerasgen.errors import ArgumentError, ExportError

    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"result": "ok", "by": cell(Path(folder))}
        except Absent as cause:
            return {"result": "absent", "by": str(cause)}
        except ArgumentError as cause:
            return {"result": "refused", "by": str(cause)}
        except ExportError as cause:
            # Weights drawn at random suffer more from rounding than those of a model that was trained.
            what = "can't be relied on: "
            limits = str(cause).partition(what)[2].partition(". Received")[0]
            if limits and "signatures" not in limits and "tokenizer" not in limits:
                return {"result": "refused", "by": f"by its limits: {limits}"}
            return {"result": "failed", "by": f"{type(cause).__name__}: {cause}"[:400]}
        except Exception as cause:
            sys.stderr.write(traceback.format_exc())
            return {"result": "failed", "by": f"{type(cause).__name__}: {cause}"[:400]}


@contextmanager
def lines() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write lines to standard output, and what others print to standard error."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):

        def write(found: Mapping[str, Any]) -> None:
            out.write(json.dumps(found) + "\n")
            out.flush()

        yield write


def main() -> None:
    """Try cells of one architecture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=list(MODELS))
    parser.add_argument("cells", nargs="+", choices=list(CELLS))
    asked = parser.parse_args()
    from kerasgen import backend

    backend.use("jax")
    with tempfile.TemporaryDirectory() as folder, lines() as write:
        model = Tried(asked.name, Path(folder))
        for kind in asked.cells:
            began = time.monotonic()
            found = tried(lambda place, kind=kind: CELLS[kind](model, place))  # type: ignore[misc]
            write({"cell": kind, **found, "seconds": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    main()
