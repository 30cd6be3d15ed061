"""Proves a GGUF file: NumPy and llama.cpp read it in fresh processes and must compute what the model does."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.numpy import NumpyDecoder, NumpyEngine
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ExportError
from kerasgen.exporters import progress
from kerasgen.exporters.gguf import file_format as gguf_file
from kerasgen.exporters.gguf.worker import digests
from kerasgen.exporters.parity import comparison, worker
from kerasgen.files import temporary
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.base import LanguageModel
from kerasgen.models.gguf_tokenizer_fields import GgufVocabulary
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

Rows = npt.NDArray[np.float64]

# Mean Kullback-Leibler divergence, in nats per token of the probe text, of what was written from the model.
TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 5e-2, "Q5_0": 0.5, "Q4_0": 1.0}
# The same of what llama.cpp computes, at some places of that text.
LLAMA_CPP_TOLERANCE = TOLERANCE | {"F32": 1e-3}
# By how many nats a token that llama.cpp takes may be behind the likeliest. What is left for F32 is the order of sums,
# which a step of the table of GELU makes larger; beside the others llama.cpp rounds what it multiplies, too.
NEAR = {"F32": 2e-2, "F16": 2e-1, "BF16": 1.0, "Q8_0": 2.5, "Q5_0": 2.5, "Q4_0": 2.5}
LLAMA_CPP = "generate in llama.cpp"
_PLACES = 8
_FEW_TOKENS = 16  # that NumPy generates where llama.cpp generates too, and llama.cpp after prompts of middle lengths
_IMPOSSIBLE = -80.0  # nats
_CLEARLY = 1.0  # nats by which an end token comes nearer than before, to end a text there


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The prompts and texts with which a file is compared, whatever reads it.

    Args:
        tokenizer: the tokenizer of the model.
        chunk: tokens that llama.cpp reads at once.
        longest: tokens of a text.
        start: the start token, or nothing.
        prompts: ids, the start token in front.
        counts: the number of new tokens after each prompt; few, but after the first and the longest.
        probe: ids of a text, the start token in front.
        texts: to encode.
    """

    tokenizer: ByteLevelBPE | PretrainedTokenizer
    chunk: int
    longest: int
    start: list[int]
    prompts: list[list[int]]
    counts: list[int]
    probe: list[int]
    texts: list[str]

    @classmethod
    def of(cls, tokenizer: ByteLevelBPE | PretrainedTokenizer, positions: int) -> _Asked:
        """Return the questions for texts of at most so many positions."""
        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        longest = min(positions, 256)
        chunk = max(longest // 8, 1)
        prompts = comparison.prompts(tokenizer, chunks=(chunk,), longest=longest)
        far = _first_and_longest(prompts)
        counts = [
            count if place in far else min(count, _FEW_TOKENS)
            for place, count in enumerate(comparison.counts(tokenizer, prompts, longest))
        ]
        probe = (start + tokenizer.encode(comparison.PROBE))[: longest - 1]
        texts = comparison.encodable(tokenizer, (*comparison.TEXTS, f"not an end: {tokenizer.end_token}"))
        return cls(tokenizer, chunk, longest, start, [start + ids for ids in prompts], counts, probe, texts)

    def likeliest(
        self, read: comparison.Read, prompts: Sequence[list[int]], texts: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> list[list[int]]:
        """Return the likeliest id at each place of these texts, which go on from some of the prompts."""
        bare = [prompt[len(self.start) :] for prompt in prompts]
        return comparison.likeliest(read, self.tokenizer, bare, texts, counts)


def _first_and_longest(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of the first and the longest prompt, each once."""
    return sorted({0, max(range(len(prompts)), key=lambda place: len(prompts[place]))})


def runs_llama_cpp() -> bool:
    """Return whether llama.cpp is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def prove(
    model: LanguageModel,
    architecture: Architecture,
    config: DecoderConfig,
    weights: Weights,
    tokenizer: ByteLevelBPE | PretrainedTokenizer,
    path: Path,
    *,
    dtype: str,
    most_divergence: float | None = None,
) -> dict[str, Any]:
    """Read the file in a fresh process, and in one of llama.cpp where that is installed, and compare.

    Args:
        model: what was exported.
        architecture: the architecture of the model.
        config: the config of its decoder, whose ids are the tokenizer's, with a `max_sequence_length`.
        weights: the weights of the model, unrounded.
        tokenizer: the tokenizer of the model.
        path: the path of the file.
        dtype: the dtype of its kernels and token embeddings.
        most_divergence: nats a token that its rounding may cost; None for `TOLERANCE` and `LLAMA_CPP_TOLERANCE`.

    Returns:
        Figures, as JSON could hold them.

    Raises:
        ExportError: something is not the model's, or a process failed; `.figures` holds what was seen.
    """
    assert config.max_sequence_length is not None
    asked = _Asked.of(tokenizer, config.max_sequence_length)
    rounded = gguf_file.rounded(architecture, config, weights, dtype)
    own = comparison.reader(model, asked.longest)
    # Rounded weights choose otherwise between near equals, and these are what counts.
    read = own if dtype == "F32" else comparison.reader(comparison.with_weights(model, rounded), asked.longest)
    model_says = log_softmax(np, np.asarray(own(asked.probe), np.float64))
    should = digests(tensors.write(architecture, config, rounded, "gguf"))
    figures, text = _read_by_numpy(should, architecture, config, path, asked, read, own, model_says)
    if dtype == "F32":
        del figures["like_the_unrounded_model"]
    wrong = [key for key, value in figures.items() if key.endswith("_equal") and not value]
    most = [
        limits_by_dtype[dtype] if most_divergence is None else most_divergence
        for limits_by_dtype in (TOLERANCE, LLAMA_CPP_TOLERANCE)
    ]
    if wrong or not figures["kl_nats_per_token"] <= most[0]:
        raise ExportError(
            f"What was written is not what the model is ({', '.join(wrong) or 'kl_nats_per_token'}): {figures}. "
            "Nothing was kept.",
            figures=figures,
        )
    figures["llama_cpp"] = None
    if runs_llama_cpp():
        reference = NumpyEngine(config, rounded, tokenizer)
        by_llama_cpp, texts = _run_by_llama_cpp(
            reference, path, asked, read, text, model_says, most_divergence=most[1], near=NEAR[dtype]
        )
        figures |= {**comparison.variety(texts), "llama_cpp": by_llama_cpp}
    return figures


def _read_by_numpy(
    should: Mapping[str, str],
    architecture: Architecture,
    config: DecoderConfig,
    path: Path,
    asked: _Asked,
    read: comparison.Read,
    own: comparison.Read,
    says: Rows,
) -> tuple[dict[str, Any], list[int]]:
    """Compare the file, read by NumPy in a fresh process, with the model; return figures and the first text.

    NumPy reads prompts of all lengths alike, so it goes on from two, the first and the longest.
    """
    tokenizer = asked.tokenizer
    places = _first_and_longest(asked.prompts)
    prompts = [asked.prompts[place] for place in places]
    most = _FEW_TOKENS if runs_llama_cpp() else asked.longest
    counts = [min(asked.counts[place], most) for place in places]
    with temporary.folder() as folder:
        logits = Path(folder) / "logits.npy"
        job = {
            "path": str(path.absolute()),
            "prompts": prompts,
            "new_tokens": counts,
            "texts": asked.texts,
            "probe": asked.probe,
            "logits": str(logits),
        }
        progress.begin(comparison.GENERATE)
        answer = worker.run("kerasgen.exporters.gguf.worker", job)
        progress.begin(comparison.COMPARE)
        file_says = log_softmax(np, np.load(logits).astype(np.float64))
    _check_modules(answer)
    stored_digests = answer["digests"]
    different = [name for name in {**should, **stored_digests} if should.get(name) != stored_digests.get(name)]
    figures = {
        "tokens_per_second": sum(counts) / answer["seconds"],  # of NumPy
        "load_seconds": answer["load_seconds"],
        "peak_bytes": answer["peak_bytes"],
        "modules": answer["modules"],
        "new_tokens": counts,
        "prompt_lengths": [len(prompt) - len(asked.start) for prompt in prompts],
        **comparison.variety(answer["ids"]),
        "kl_nats_per_token": _divergence(says, file_says),
        "top_1_agreement": float((says.argmax(-1) == file_says.argmax(-1)).mean()),
        "shape_equal": answer["config"] == repr(settings.stored(architecture, config)),
        "vocabulary_equal": answer["vocabulary"] == dataclasses.asdict(GgufVocabulary.of(tokenizer)),
        "ids_equal": answer["encoded"] == [tokenizer.encode(text) for text in asked.texts],
        "weights_equal": not different,
        **comparison.compared("greedy", answer["ids"], asked.likeliest(read, prompts, answer["ids"], counts)),
        "like_the_unrounded_model": answer["ids"] == asked.likeliest(own, prompts, answer["ids"], counts),
    }
    if different:
        figures["different_weights"] = different[:5]
    return figures, answer["ids"][0]


def _run_by_llama_cpp(
    reference: NumpyEngine,
    path: Path,
    asked: _Asked,
    read: comparison.Read,
    text: list[int],
    says: Rows,
    *,
    most_divergence: float,
    near: float,
) -> tuple[dict[str, Any], list[list[int]]]:
    """Compare what llama.cpp does with the file with what the model does; return figures, and its greedy texts."""
    tokenizer = asked.tokenizer
    along = _logprobs_along(reference, asked.prompts[0], text)
    place, bias = _ending(along, tokenizer.end_token_id)
    ended = [*text[:place], tokenizer.end_token_id]
    lengths = np.unique(np.linspace(1, len(asked.probe), min(_PLACES, len(asked.probe))).astype(int)).tolist()
    job = {
        "path": str(path.absolute()),
        "chunk": asked.chunk,
        "longest": asked.longest,
        "prompts": asked.prompts,
        "new_tokens": asked.counts,
        "ending": {
            "prompt": asked.prompts[0],
            "new_tokens": asked.counts[0],
            "bias": [tokenizer.end_token_id, bias],
        },
        "texts": asked.texts,
        "prefixes": [asked.probe[:length] for length in lengths],
        "vocabulary_size": tokenizer.vocabulary_size,
        "forced": _whole_character(tokenizer),
    }
    progress.begin(LLAMA_CPP)
    answer = worker.run("kerasgen.exporters.gguf.llama_cpp_worker", job)
    _check_modules(answer)
    encoded = [tokenizer.encode(text) for text in asked.texts]
    # llama.cpp's server returns the space that encoding put before a text.
    before = " " if tokenizer.strips_first_space else ""
    # One request has one number of new tokens, and a text that comes to an end token stops there.
    fewest, special = min(asked.counts), set(tokenizer.special_tokens.values())
    stopped = [max(min(len(ids), fewest), 1) for ids in answer["together"]]
    together = asked.likeliest(read, asked.prompts, answer["together"], stopped)
    wanted = asked.likeliest(read, asked.prompts, answer["ids"], asked.counts)
    there = says[[length - 1 for length in lengths]]
    # The server returns -3e38 where its float32 probability is 0.
    llama_cpp_says = log_softmax(np, np.maximum(np.asarray(answer["log_probabilities"]), _IMPOSSIBLE))
    likeliest, behind = _choices(reference, asked.prompts * 2, answer["ids"] + answer["together"])
    limits = {"kl_nats_per_token": most_divergence, "most_nats_behind_the_likeliest": near}
    figures = {
        "version": answer["version"],
        "tokens_per_second": sum(asked.counts) / answer["seconds"],
        "load_seconds": answer["load_seconds"],
        "peak_bytes": answer["peak_bytes"],
        "modules": answer["modules"],
        "ids_equal": answer["encoded"] == encoded and answer["started"] == [asked.start + ids for ids in encoded],
        "text_equal": [decoded.removeprefix(before) for decoded in answer["decoded"]] == asked.texts,
        "prompt_lengths": [len(prompt) - len(asked.start) for prompt in asked.prompts],
        "new_tokens": asked.counts,
        **comparison.compared("greedy", answer["ids"], wanted),
        "together_equal": answer["together"] == together,
        "ended_equal": answer["ended"] == ended and answer["ended_by"] == "eos",
        "same_likeliest": likeliest,
        "most_nats_behind_the_likeliest": behind,
        "kl_nats_per_token": _divergence(there, llama_cpp_says),
        "limits": limits,
    }
    holds = {
        "ids_equal": figures["ids_equal"],
        "text_equal": figures["text_equal"],
        "new_tokens": list(map(len, answer["ids"])) == asked.counts
        and all(len(ids) == fewest or ids[-1] in special for ids in answer["together"]),
        # If a near tie was resolved differently, the text to be ended is a different one.
        "ended_equal": figures["ended_equal"] or not figures["greedy_equal"],
        **{name: figures[name] <= limit for name, limit in limits.items()},
    }
    wrong = [key for key, held in holds.items() if not held]
    if wrong:
        raise ExportError(
            f"llama.cpp does otherwise than the model ({', '.join(wrong)}): {figures}. Nothing was kept.",
            figures=figures,
        )
    return figures, answer["ids"]


class _LlamaCppDecoder(NumpyDecoder):
    """The same with llama.cpp's GELU, which on a CPU is a table from float16 to float16 between -10 and 10."""

    def activate(self, hidden: Any) -> Any:
        """Return the activations between the kernels of the feed-forward part."""
        part = self._config.feedforward
        if part.gated or part.activation != "gelu_approximate":
            return super().activate(hidden)
        half = np.clip(hidden, -10, 10).astype(np.float16).astype(np.float32)
        table = super().activate(half).astype(np.float16).astype(np.float32)
        return np.where(hidden <= -10, np.float32(0), np.where(hidden >= 10, hidden, table))


def _check_modules(answer: Mapping[str, Any]) -> None:
    """Raise if a process that should read a file alone had what wrote it. torch may come with a package of `gguf`'s."""
    foreign = set(answer["modules"]) - {"torch"}
    if foreign:
        raise ExportError(f"The fresh process loaded {', '.join(sorted(foreign))}. Nothing was kept.")


def _divergence(ours: Rows, theirs: Rows) -> float:
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def _logprobs_along(engine: NumpyEngine, prompt: Sequence[int], ids: Sequence[int]) -> Rows:
    """Return what llama.cpp should compute: log-probabilities before each id, `(len(ids), vocabulary_size)`."""
    read = _LlamaCppDecoder(engine.config, engine.weights).read([*prompt, *ids[:-1]])
    logprobs: Rows = log_softmax(np, read[len(prompt) - 1 :].astype(np.float64))
    return logprobs


def _ending(rows: Rows, end: int) -> tuple[int, float]:
    """Return a place, and what to add to the end token's logit so that the text ends there and not before.

    It is where the end token comes nearer to the likeliest than ever before, by most; if it never clearly does, it is
    at once.
    """
    margins = rows.max(-1) - rows[:, end]
    before = np.minimum.accumulate(margins)[:-1]
    nearer = before - margins[1:]
    if not len(nearer) or nearer.max() < _CLEARLY:
        return 0, float(margins[0]) + _CLEARLY
    place = int(nearer.argmax()) + 1
    return place, float(before[place - 1] + margins[place]) / 2


def _choices(engine: NumpyEngine, prompts: Sequence[list[int]], texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return how often the texts' ids are the likeliest ones, and by how many nats they are behind at most.

    A text that another one of the same prompt begins with is read once, with that one.
    """
    behind: dict[tuple[tuple[int, ...], tuple[int, ...]], npt.NDArray[np.float64]] = {}
    asked = [(tuple(prompt), tuple(ids)) for prompt, ids in zip(prompts, texts, strict=True)]
    for prompt, ids in sorted(asked, key=lambda text: -len(text[1])):
        if (prompt, ids) not in behind:
            rows = _logprobs_along(engine, prompt, ids)
            nats = rows.max(-1) - rows[np.arange(len(ids)), list(ids)]
            behind |= {(prompt, ids[:count]): nats[:count] for count in range(1, len(ids) + 1)}
    together = np.concatenate([behind[text] for text in asked])
    return float((together == 0).mean()), float(together.max())


def _whole_character(tokenizer: ByteLevelBPE | PretrainedTokenizer) -> int:
    """Return the first token whose bytes are whole characters."""
    usual = set(tokenizer.vocabulary.values()) - set(tokenizer.special_tokens.values())
    return next(token_id for token_id in sorted(usual) if "\ufffd" not in tokenizer.decode([token_id]))
