"""`litertlm`: the bundle of a TFLite model and its tokenizer that LiteRT-LM runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kerasgen.bounds import NonNegativeFloat
from kerasgen.corpora.base import Conversation
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.exporters.litertlm import bundle
from kerasgen.exporters.parity import conversations
from kerasgen.exporters.tflite import TFLiteExporter
from kerasgen.exporters.tflite.exporter import CacheLength, PrefillLength
from kerasgen.files import temporary
from kerasgen.files.path_arguments import path_argument
from kerasgen.models import chat
from kerasgen.tokens.pretrained import PretrainedTokenizer

if TYPE_CHECKING:
    from kerasgen.exporters.validation import FileTokenizer
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.base import Tokenizer

TEXTS = (
    "昨夜雨疏风骤，浓睡不消残酒。",
    "Once upon a time there was a small house by the river,\n\nand nobody lived in it.",
    "春",
)

_ANSWER = 16  # tokens of an answer at most
_WRITE, _COMPARE = "write the bundle", "generate in LiteRT-LM and compare"


@dataclass(frozen=True)
class LiteRtLmExporter(Exporter):
    """Write a bundle for LiteRT-LM. The TFLite model in it is proved as by the exporter `tflite`, then the bundle.

    The bundle's sections are read back and must be the files that were proved, and LiteRT-LM must write the greedy
    texts that the TFLite model writes alone, whatever its weights are stored as.

    Args:
        quantize: as for `TFLiteExporter`.
        cache_length: as there; LiteRT-LM's texts have so many tokens at most.
        prefill_lengths: as there.
        most_divergence: as there.
        least_agreement: as there.
        most_logit_difference: as there.
        most_loss_increase: as there.
        held_out_text: as there.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".litertlm",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.litertlm.runtime:open_artefact"

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    cache_length: CacheLength | None = None
    prefill_lengths: tuple[PrefillLength, ...] = (32, 128)
    most_divergence: NonNegativeFloat | None = None
    least_agreement: NonNegativeFloat | None = None
    most_logit_difference: NonNegativeFloat | None = None
    most_loss_increase: NonNegativeFloat | None = None
    held_out_text: str | None = None

    def __post_init__(self) -> None:
        # The TFLite exporter checks the shared settings and normalizes their spellings.
        object.__setattr__(self, "prefill_lengths", self._tflite().prefill_lengths)

    def _tflite(self) -> TFLiteExporter:
        """Return the exporter of the TFLite model, with the only signatures that LiteRT-LM runs."""
        shared = {field.name: getattr(self, field.name) for field in fields(self)}
        return TFLiteExporter(**shared, decode_lengths=(), beams=0, shortlist=0)

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the bundle, read its sections back, let fresh processes generate, and compare; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        if path.suffix != ".litertlm":
            raise ExportArgumentError(
                "LiteRT-LM opens only files whose names end in '.litertlm', in small letters. Received: "
                f"{str(path)!r}. Write {str(path.with_suffix('.litertlm'))!r}."
            )
        from kerasgen.exporters import progress, staging
        from kerasgen.exporters.validation import file_tokenizer, require_held
        from kerasgen.files import digests
        from kerasgen.models import licences
        from kerasgen.models.base import CHAT_TEMPLATE
        from kerasgen.runtime import metadata

        tokenizer = file_tokenizer(model, "litertlm")
        model = replace(model, tokenizer=tokenizer)
        require_held(tokenizer, "litertlm", added_tokens=True, end_tokens=True)
        for package in ("litert_lm", "litert_lm_builder"):
            if not is_installed(package):
                raise MissingDependencyError(
                    f"The exporter 'litertlm' needs {package}: pip install 'kerasgen[litertlm]'.",
                    package=package,
                    extra="litertlm",
                )
        with staging.staged(path, overwrite=overwrite, exporter="litertlm", beside=staging.BESIDE) as stage:
            progress.plan(_WRITE, _COMPARE)
            beside = metadata.tokenizer_path(stage)
            beside.write_text(metadata.tokenizer_text(tokenizer), encoding="utf-8")
            with temporary.folder() as folder:
                inner = self._tflite().export(model, Path(folder) / "model.tflite")
                about: dict[str, Any] = {
                    "max_tokens": int(inner.report["graph"]["cache_length"]),
                    "start": _start(model),
                    "stop": list(tokenizer.end_token_ids),
                }
                if model.metadata.get(CHAT_TEMPLATE):
                    about["chat_template"] = model.metadata[CHAT_TEMPLATE]
                progress.begin(_WRITE)
                own = beside
                if isinstance(tokenizer, PretrainedTokenizer):
                    own = Path(folder) / tokenizer.codec.file_name
                    own.write_bytes(tokenizer.codec.content())
                bundle.write(inner.path, own, about, stage)
                report: dict[str, Any] = {
                    **licences.said(model),
                    **chat.said(model),
                    "quantize": self.quantize,
                    "max_tokens": about["max_tokens"],
                    "bundle_bytes": stage.stat().st_size,
                    "sha256": digests.sha256_of(stage),
                    "tokenizer": metadata.tokenizer_settings(tokenizer),
                    "tflite": {
                        key: inner.report[key] for key in ("graph", "signatures", "operators", "parity", "sha256")
                    },
                }
                staging.write_report(stage, report, exporter="litertlm")
                progress.begin(_COMPARE)
                sections = _prove_sections(stage, inner, tokenizer, about)
                report["parity"] = sections | self._prove(model, stage, inner, about["max_tokens"])
                report["parity"] |= _prove_chat(model, stage, about["max_tokens"], exact=self.quantize == "float32")
            written = staging.write_report(stage, report, exporter="litertlm")
        return Artefact(path=path, exporter="litertlm", report=written)

    def _prove(self, model: LanguageModel, stage: Path, inner: Artefact, length: int) -> dict[str, Any]:
        """Let fresh processes of LiteRT-LM and of LiteRT go on from the same texts, and compare."""
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.parity import ids as proving

        tokenizer = model.tokenizer
        new = min(comparison.NEW_TOKENS, length // 2)
        prompts = [ids for ids in map(tokenizer.encode, TEXTS) if len(ids) + new < length]
        calls = [{"prompts": [prompt], "max_new_tokens": new} | comparison.RAW for prompt in prompts]
        answer = proving.ask(stage, calls)
        alone = proving.ask(inner.path, calls, settings={"weight_cache": None})
        ids = [call[0] for call in alone.calls]
        counts = list(map(len, ids))
        read = comparison.reader(model, comparison.read_length(tokenizer, prompts, counts))
        own = comparison.likeliest(read, tokenizer, prompts, ids, counts)
        theirs = [tokenizer.decode(calls[0]) for calls in answer.calls]
        figures: dict[str, Any] = {
            # Of the TFLite file in the bundle, which was held to the model, or to limits, on its own.
            "text_equal": theirs == [as_litert_lm_tells(tokenizer, text_ids) for text_ids in ids],
            "greedy_equal": ids == own,
            "new_tokens": list(map(len, ids)),  # LiteRT-LM ends a text at the end token, whatever is asked
            "prompt_lengths": list(map(len, prompts)),
            "characters": list(map(len, theirs)),  # that were compared: a text may end early
            **comparison.variety(ids),
            "tokens_per_second": len(ids[0]) / answer.seconds[0],
            "load_seconds": answer.load_seconds,
            "peak_bytes": answer.peak_bytes,
            "modules": answer.modules,
        }
        rounds = self.quantize != "float32"  # then the TFLite file itself may write other texts than the model
        held = {name: value for name, value in figures.items() if not (rounds and name == "greedy_equal")}
        comparison.require(held, f"The bundle generates {theirs}, and not what it should")
        return figures


def _start(model: LanguageModel) -> list[int]:
    """Return the ids that LiteRT-LM shall put before whatever it reads, a conversation too.

    Its Jinja writes a start token that stands in a chat template, but knows no `bos_token`. So where a model has a
    template, there is one here only for a template that writes it by that name.
    """
    start_id, template = model.tokenizer.start_token_id, chat.template_of(model)
    if start_id is None:
        return []
    if template is None:
        return [start_id]
    nameless = replace(template, variables={**template.variables, "bos_token": ""})
    talks = conversations.asked(model)
    begin = [nameless.render(Conversation(tuple(talk["messages"])), add_generation_prompt=True) for talk in talks]
    lacks = [talk["text"] != text for talk, text in zip(talks, begin, strict=True)]
    return [start_id] if talks and all(lacks) and all(talk["ids"][:1] == [start_id] for talk in talks) else []


def _prove_sections(path: Path, inner: Artefact, tokenizer: FileTokenizer, about: dict[str, Any]) -> dict[str, Any]:
    """Compare what stands in the bundle with what was proved, byte by byte."""
    from kerasgen.exporters.parity import comparison

    sections = bundle.read(path)
    if isinstance(tokenizer, PretrainedTokenizer):
        content = tokenizer.codec.content()
    else:
        content = tokenizer.to_tokenizer_json().encode()
    figures = {
        "tflite_equal": sections["sha256"] == inner.report["sha256"],
        "tokenizer_equal": sections["tokenizer"] == content,
        "metadata_equal": sections["about"] == about,
    }
    comparison.require(figures, "The bundle holds something else than what was proved")
    return figures


def _prove_chat(model: LanguageModel, path: Path, length: int, *, exact: bool) -> dict[str, Any]:
    """Let a fresh process of LiteRT-LM write, read and answer conversations, where the model has a chat template.

    Args:
        model: what was exported.
        path: of the bundle.
        length: tokens of a whole text.
        exact: whether answers must be the model's, where LiteRT-LM's Jinja writes a conversation as the template.
    """
    from kerasgen.exporters.parity import comparison, worker

    chats = conversations.asked(model)
    if not chats:
        return {}
    new = min(_ANSWER, length - max(len(talk["ids"]) for talk in chats) - 1)
    job = {"path": str(path.absolute()), "max_tokens": length, "chats": chats, "new_tokens": max(new, 0)}
    answer = worker.run("kerasgen.exporters.litertlm.chat_worker", job)
    texts = [talk["text"] for talk in chats]
    figures: dict[str, Any] = {"chat_ids_equal": answer["ids"] == [talk["ids"] for talk in chats]}
    own, start = answer["texts"], chat.start_of(model.tokenizer)
    is_shown = all(text and not text.startswith("refused: ") for text in own)
    is_same = all(it in (text, text.removeprefix(start)) for it, text in zip(own, texts, strict=True))
    if new > 0 and is_same:
        greedily = comparison.answers(model, texts, new)
        told = [as_litert_lm_tells(model.tokenizer, ids) for ids in greedily]
        figures["answers_equal" if exact else "like_the_answers"] = (
            told == [text.rstrip("\ufffd") for text in answer["answers"]]  # half a character at an answer's end
        )
    comparison.require(figures, "LiteRT-LM reads or answers conversations otherwise than the model")
    return figures | {"chat_text": "the template's" if is_same else "another one" if is_shown else "not shown"}


def as_litert_lm_tells(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Return a text as it comes from LiteRT-LM: special tokens are shown, but for the end token that ended it.

    A tokenizer in a file is read by the library that LiteRT-LM reads it with, for these libraries tell bytes that are
    no text otherwise than kerasgen does. As C's texts do, it ends at a NUL; half a character at its end is left out;
    and the bytes of a lone surrogate, which is none in UTF-8, are told one by one.
    """
    if ids and ids[-1] in tokenizer.end_token_ids:
        ids = ids[:-1]
    text = _decoded(tokenizer, ids).partition("\0")[0]
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").rstrip("\ufffd")


def _decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    if not isinstance(tokenizer, PretrainedTokenizer):
        return tokenizer.decode(ids)
    content = tokenizer.codec.content()
    if tokenizer.is_json:
        import tokenizers

        return str(tokenizers.Tokenizer.from_str(content.decode()).decode(ids, skip_special_tokens=False))
    import sentencepiece

    return str(sentencepiece.SentencePieceProcessor(model_proto=content).decode(ids))
