"""A JSON beside an artefact that isn't what was exported is an error of ours, or makes no difference."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metadata_variants
import numpy as np
import pytest
from in_threads import answers_are_those_of_one_thread
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError, GenerationError, KerasgenError, ModelFormatError
from kerasgen.files import digests
from kerasgen.runtime import metadata

pytest.importorskip("tensorflow", reason="it exports to TFLite: pip install 'kerasgen[export]'")
pytest.importorskip("ai_edge_litert", reason="it runs TFLite: pip install 'kerasgen[runtime]'")
pytestmark = pytest.mark.one_backend

PROMPT = "the sand and"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact with every kind of signature, written without its proof, which is not what is tested here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(kg.TFLiteExporter, "_prove", lambda *arguments: {"nats": 0.5})
    exporter = kg.TFLiteExporter(
        cache_length=32, prefill_lengths=(8, 16), decode_lengths=(8, 16), beams=2, shortlist=64, samplers=("top_k",)
    )
    path = tmp_path_factory.mktemp("original") / "poet.tflite"
    exporter.export(tiny_gpt2(num_layers=1), path)
    patch.undo()
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    for file in original.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / original.name


def texts(path: Path) -> list[Any]:
    runtime = kg.load_artefact(path, weight_cache=None)
    return [
        runtime.generate(PROMPT, sampler=sampler, max_new_tokens=9)
        for sampler in ("greedy", "top_k:k=3", "beam:num_beams=2")
    ]


def variants(said: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of every format, and the numbers of the graph exchanged."""
    yield from metadata_variants.variants(said, whole=("operators", "signatures"))
    for one in said["graph"]:
        for other, value in said["graph"].items():
            yield f"graph.{one} = {other}", said | {"graph": said["graph"] | {one: value}}


def test_every_change_of_a_value_is_told(path: Path) -> None:
    """By the digest, whatever it is, before any value is looked at."""
    report = metadata.report_path(path)
    said = json.loads(report.read_text(encoding="utf-8"))
    for what, other in variants(said):
        if other == said and repr(other) == repr(said):
            continue
        report.write_text(json.dumps(other), encoding="utf-8")
        with pytest.raises(ModelFormatError):
            raise AssertionError(f"{what}: {metadata.read(path)}")
    report.write_text(json.dumps(said, indent=None, sort_keys=True), encoding="utf-8")
    assert metadata.read(path) == said  # the order of the keys is nothing


@pytest.mark.slow
def test_a_change_whose_digest_was_mended_is_told_or_makes_no_difference(path: Path) -> None:
    report = metadata.report_path(path)
    said = json.loads(report.read_text(encoding="utf-8"))
    wanted, refused, read = texts(path), 0, 0
    for what, other in variants(said):
        # Who changes the bounds of the estimates on purpose could have changed the weights as well.
        if "shortlist" in what and ("row_error" in what or "largest_row" in what):
            continue
        report.write_text(json.dumps(metadata_variants.sealed(other)), encoding="utf-8")
        try:
            found = texts(path)
        except ModelFormatError:
            refused += 1
            continue
        assert found == wanted, what
        read += 1
    assert refused > 300
    assert read > 10


def test_some_changes_whose_digest_was_mended(path: Path) -> None:
    report = metadata.report_path(path)
    said = json.loads(report.read_text(encoding="utf-8"))
    graph = said["graph"]
    for key, value in {
        "num_layers": 2, "num_heads": graph["head_dim"], "head_dim": graph["num_heads"], "vocabulary_size": 299,
        "cache_length": 31, "prefill_lengths": [8], "decode_lengths": [8], "beams": 3,
        "shortlist": None,
    }.items():  # fmt: skip
        assert graph[key] != value
        other = said | {"graph": graph | {key: value}}
        report.write_text(json.dumps(metadata_variants.sealed(other)), encoding="utf-8")
        with pytest.raises(ModelFormatError, match=key):
            kg.load_artefact(path, weight_cache=None)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"exporter": 1}', "[" * 100_000, '{"format": 1' + "0" * 5000 + "}"]
)
def test_what_is_no_report_is_told(path: Path, text: str) -> None:
    metadata.report_path(path).write_text(text, encoding="utf-8")
    with pytest.raises(ModelFormatError):
        kg.load_artefact(path)


def test_an_artefact_of_the_format_before_is_told(path: Path) -> None:
    report = metadata.report_path(path)
    said = json.loads(report.read_text(encoding="utf-8"))
    report.write_text(json.dumps(said | {"format": 1}), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=r"format 1; this version reads 2.*export it again"):
        kg.load_artefact(path)


def test_a_text_is_streamed_piece_by_piece_where_the_runtime_shows_it(path: Path) -> None:
    here = kg.load_artefact(path, weight_cache=None)
    for sampler, valid_utf8 in (("greedy", True), ("top_k:k=50", True), ("random", False)):
        settings = {"sampler": sampler, "seed": 3, "max_new_tokens": 9, "valid_utf8": valid_utf8}
        pieces = list(here.stream(PROMPT, **settings))
        assert "".join(pieces) == here.generate(PROMPT, **settings)
        config = kg.GenerationConfig(**settings | {"max_new_tokens": 2})
        assert list(here.stream(PROMPT, config, max_new_tokens=9)) == pieces
        assert pieces[0] == PROMPT
        assert len(pieces) > 2
        assert "".join(here.stream(PROMPT, return_prompt=False, **settings)) == "".join(pieces[1:])
    for wrong, message in (
        ({"max_new_tokens": 100}, "positions"),
        ({"max_new_tokens": 3, "seed": -1}, "seed"),
        ({}, "needs 'max_new_tokens'"),
        ({"max_new_tokens": 3, "sampler": "beam:num_beams=2"}, "only when it is complete"),
        ({"max_new_tokens": 3, "sampel": "greedy"}, "sampler"),
    ):
        with pytest.raises(GenerateArgumentError, match=message):  # at the call
            here.stream(PROMPT, **wrong)
    with kg.load_artefact(path, isolated=True, weight_cache=None) as there:
        with pytest.raises(GenerateArgumentError, match="shows a text only when it is complete"):
            there.stream(PROMPT, max_new_tokens=3)
        for wrong, message in (
            ({"max_new_tokens": 3, "seed": [1]}, "one seed"),
            ({"max_new_tokens": 3, "stop": "a"}, "decodes by itself.* Received besides: stop='a'"),
            ({"config": kg.GenerationConfig(max_new_tokens=3, stop="a")}, "Received besides.*stop="),
        ):
            with pytest.raises(GenerateArgumentError, match=message):
                there.generate(PROMPT, **wrong)


class TestIsolated:
    def test_it_gives_the_texts_ids_and_logits_that_it_gives_here(self, path: Path) -> None:
        here = kg.load_artefact(path, weight_cache=None)
        with kg.load_artefact(path, isolated=True, weight_cache=None) as there:
            prompts = here.tokenizer.encode_batch([PROMPT, "春"])
            assert there.tokenizer.encode_batch([PROMPT, "春"]) == prompts
            for sampler in ("greedy", kg.TopK(k=3), "beam:num_beams=2"):
                settings = {"sampler": sampler, "max_new_tokens": 9, "seed": 3}
                config = kg.GenerationConfig(**settings)
                assert there.generate(PROMPT, **settings) == here.generate(PROMPT, **settings)
                assert there.generate(PROMPT, config, max_new_tokens=2) == here.generate(
                    PROMPT, config, max_new_tokens=2
                )
                assert there.generate([PROMPT, "春"], **settings) == here.generate([PROMPT, "春"], **settings)
                assert there.generate_ids(prompts, **settings) == here.generate_ids(prompts, **settings)
            np.testing.assert_array_equal(there.logits(prompts[0]), here.logits(prompts[0]))
            assert there.max_sequence_length == here.max_sequence_length
            assert there.tokenizer.digest() == here.tokenizer.digest()
            assert there.tokenizer.decode(prompts[0]) == PROMPT
            decoder = there.tokenizer.decoder(skip_special_tokens=True)
            end = there.tokenizer.end_token_id
            assert "".join(map(decoder.push, [*prompts[1], end])) + decoder.finish() == "春"
            answers_are_those_of_one_thread(
                lambda prompt: there.generate(prompt, max_new_tokens=5), [PROMPT, "春", "a"], rounds=1
            )

    def test_its_errors_are_raised_here_and_it_goes_on(self, path: Path) -> None:
        with kg.load_artefact(path, isolated=True, weight_cache=None) as runtime:
            with pytest.raises(GenerateArgumentError, match="positions"):
                runtime.generate(PROMPT, max_new_tokens=100)
            with pytest.raises(GenerateArgumentError, match="token ids"):
                runtime.generate_ids(["春"], max_new_tokens=1)
            assert runtime.generate(PROMPT, max_new_tokens=2)
        with pytest.raises(GenerationError, match="closed"):
            runtime.generate(PROMPT, max_new_tokens=2)
        with pytest.raises(GenerateArgumentError, match="thread"):
            kg.load_artefact(path, isolated=True, thread=2)
        with pytest.raises(ModelFormatError, match="no artefact"):
            kg.load_artefact(path / "nowhere", isolated=True)
        with pytest.raises(GenerateArgumentError, match="isolated=True"):
            kg.load_artefact(path, timeout_seconds=2)
        for wrong in ({"timeout_seconds": 0}, {"timeout_seconds": "1"}, {"memory_bytes": -1}, {"memory_bytes": True}):
            with pytest.raises(GenerateArgumentError, match="above 0"):
                kg.load_artefact(path, isolated=True, **wrong)

    @pytest.mark.skipif(sys.platform == "win32", reason="its signals are POSIX's")
    def test_a_crash_is_an_error_and_this_process_lives(self, path: Path) -> None:
        runtime: Any = kg.load_artefact(path, isolated=True, weight_cache=None)
        os.kill(runtime._process._child.pid, signal.SIGSEGV)
        for _ in range(2):
            with pytest.raises(GenerationError, match="SIGSEGV"):
                runtime.generate(PROMPT, max_new_tokens=2)
        runtime.close()

    def test_what_takes_too_long_is_ended(self, path: Path) -> None:
        with pytest.raises(ModelFormatError, match=r"timeout_seconds=0\.01"):
            kg.load_artefact(path, isolated=True, timeout_seconds=0.01)

    @pytest.mark.skipif(sys.platform != "linux", reason="it limits memory as Linux does")
    def test_what_takes_too_much_memory_is_an_error(self, path: Path) -> None:
        with pytest.raises(KerasgenError):
            kg.load_artefact(path, isolated=True, memory_bytes=50 << 20)

    def test_a_program_without_a_guard_and_one_from_standard_input_may_use_it(self, path: Path) -> None:
        code = textwrap.dedent(
            f"""
            import kerasgen as kg
            runtime = kg.load_artefact({str(path)!r}, isolated=True, weight_cache=None)
            print(runtime.generate({PROMPT!r}, max_new_tokens=9))
            """
        )
        done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == texts(path)[0], done.stderr

    @pytest.mark.slow
    def test_flipped_bytes_whose_digests_were_mended_never_end_this_process(self, path: Path) -> None:
        report, content = metadata.report_path(path), path.read_bytes()
        said = json.loads(report.read_text(encoding="utf-8"))
        random, outcomes = np.random.default_rng(0), set()
        for place in random.integers(0, len(content), 25).tolist():
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(random.integers(8))
            path.write_bytes(flipped)
            other = said | {"sha256": digests.sha256_of(path)}
            report.write_text(json.dumps(metadata_variants.sealed(other)), encoding="utf-8")
            try:
                with kg.load_artefact(path, isolated=True, weight_cache=None, timeout_seconds=60) as runtime:
                    outcomes.add(type(runtime.generate(PROMPT, max_new_tokens=9)))
            except KerasgenError as error:
                outcomes.add(type(error))
        assert str in outcomes
