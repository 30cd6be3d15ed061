"""A GGUF file is loaded like every artefact, and llama.cpp generates from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from in_threads import answers_are_those_of_one_thread
from metadata_variants import outcomes
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.constraints.valid_utf8 import START, masks_of
from kerasgen.decoder.numpy import NumpyDecoder, NumpyEngine
from kerasgen.errors import GenerateArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.exporters.gguf import runtime as of_runtime
from kerasgen.exporters.gguf.runtime import utf8_further
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.runtime import metadata
from kerasgen.testing import draws
from kerasgen.testing.runtimes import RuntimeContract

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    for package in ("gguf", "xllamacpp"):
        pytest.importorskip(package, reason="it runs llama.cpp: pip install 'kerasgen[llamacpp]'")
    model = tiny_gpt2()
    return model, kg.GgufExporter().export(model, tmp_path_factory.mktemp("gguf") / "tiny one 春.gguf")


@pytest.fixture(scope="module")
def runtime(exported):
    return kg.load_artefact(exported[1].path, strict=True)


@pytest.fixture(scope="module")
def by_itself(exported):
    """As llama.cpp computes by itself."""
    return kg.load_artefact(exported[1].path)


@pytest.fixture(scope="module")
def host(exported):
    model = exported[0]
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


class TestRuntime(RuntimeContract):
    samplers = ("random", "top_k:k=5,temperature=0.7", "top_p:p=0.8", "min_p:p=0.1,temperature=2.0")
    seeds_are_the_models = False

    @pytest.fixture
    def model(self, exported) -> LanguageModel:
        return exported[0]

    @pytest.fixture
    def runtime(self, runtime):
        return runtime

    @pytest.fixture
    def reference(self, host) -> NumpyEngine:
        return host


def test_texts_are_valid_utf8_unless_they_shall_not_be(exported, runtime, host):
    """Greedy ids are then the model's among the tokens that may follow, after a prompt within a character too."""
    tokenizer = exported[0].tokenizer
    prompts = [tokenizer.encode("🐉")[:2], *map(tokenizer.encode, ("the sand", "春", "a"))]
    for valid_utf8 in (True, False):
        settings = {"max_new_tokens": 24, "valid_utf8": valid_utf8}
        wanted = [list(one[0].token_ids) for one in generate_ids(host, prompts, sampler="greedy", **settings)]
        assert runtime.generate_ids(prompts, **settings) == wanted
        for sampler in ("random", "top_k:k=50", "top_p:p=0.95,temperature=1.5"):
            found = runtime.generate_ids(prompts, sampler=sampler, seed=4, **settings)
            assert runtime.generate_ids(prompts, sampler=sampler, seed=4, **settings) == found
            texts = [
                tokenizer.decode(prompt + ids, skip_special_tokens=True)
                for prompt, ids in zip(prompts, found, strict=True)
            ]
            assert any("\ufffd" in text.rstrip("\ufffd") for text in texts) != valid_utf8
    assert len({tuple(ids) for ids in runtime.generate_ids([[5]] * 20, sampler="random", max_new_tokens=6)}) > 15


def test_what_is_drawn_among_the_tokens_that_may_follow_is_distributed_so(exported, runtime, host):
    """Within a character where few may, and between two where few may not."""
    tokenizer = exported[0].tokenizer
    masks = masks_of(tokenizer)
    for prompt in (tokenizer.encode("é")[:1], tokenizer.encode("the")):
        framed = [tokenizer.start_token_id, *prompt]
        logits = NumpyDecoder(host.config, host.weights).read(framed)[-1]
        logits = np.where(masks.allowed(np.array([masks.state_after(framed)]))[0], logits, -np.inf)
        for sampler in ("top_k:k=5", "random"):
            found = runtime.generate_ids([prompt] * 200, sampler=sampler, max_new_tokens=1, seed=3)
            assert draws.figures(found, logits, sampler)["distributed"]


def test_nothing_is_written_after_an_end_token(runtime, monkeypatch):
    asked, end = [], runtime.tokenizer.end_token_id  # made likelier
    complete = runtime._server.complete

    def counted(prompt, new_tokens, **settings):
        answer = complete(prompt, new_tokens, **{"logit_bias": [[end, 3.0]]} | settings)
        asked.append((new_tokens, len(answer["tokens"])))
        return answer

    monkeypatch.setattr(runtime._server, "complete", counted)
    ended = 0
    for n in range(5, 25):
        asked.clear()
        (ids,) = runtime.generate_ids([[n]], max_new_tokens=24, sampler="random", seed=n, valid_utf8=False)
        assert asked == [(24, len(ids))]
        ended += ids[-1] == end
    assert ended


@pytest.mark.parametrize("slip", [None, 7, 8, 20])
def test_characters_of_several_tokens_are_not_asked_for_token_by_token(slip):
    """Of a model that knows its language; what it gets wrong once is drawn again."""
    tokenizer = tiny_gpt2().tokenizer
    text = tokenizer.encode("春江潮水连海平海上明月共潮生")
    masks, asked = masks_of(tokenizer), []

    class Writes:
        """Writes the text, but for one wrong token where nothing keeps it from it."""

        def further(self, prompt, new_tokens, *, ends, **settings):
            asked.append(new_tokens)
            new = text[len(prompt) - 1 :][:new_tokens]
            place = -1 if slip is None else slip - len(prompt) + 1
            if 0 <= place < len(new) and "logit_bias" not in settings:
                begins = masks.state_after([5, *text[:slip]]) == START
                new[place] = tokenizer.encode("é")[1] if begins else tokenizer.encode("a")[0]
            return new

    assert sum(len(tokenizer.encode(character)) > 1 for character in "春江潮水连海平") > 5
    settings = {"temperature": 0.0, "seed": 0}
    assert utf8_further(Writes(), masks, [5], len(text), settings, ends=()) == text
    assert len(asked) < (6 if slip is None else 16)


def test_an_artefact_generates_text(exported):
    artefact = exported[1]
    text = artefact.generate("the sand", max_new_tokens=8)
    assert text.startswith("the sand")
    assert artefact.generate(["the sand"], max_new_tokens=8) == [text]


@pytest.mark.parametrize(
    "sampler", ["beam:num_beams=2", "contrastive", "greedy:repetition_penalty=1.2", "top_k:no_repeat_ngram_size=2"]
)
def test_what_llama_cpp_does_otherwise_is_refused(runtime, sampler):
    with pytest.raises(GenerateArgumentError, match="Received"):
        runtime.generate_ids([[5]], sampler=sampler, max_new_tokens=2)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"max_new_tokens": 0}, {"prompts": [[300]]}, {"prompts": [[5] * 200]}])
def test_a_call_that_can_not_be_carried_out_is_told(runtime, wrong):
    with pytest.raises(GenerateArgumentError):
        runtime.generate_ids(**{"prompts": [[5]], "max_new_tokens": 2} | wrong)


def test_a_file_that_is_not_the_one_that_was_exported_is_told(exported, tmp_path):
    for file in exported[1].path.parent.iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / exported[1].path.name
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ModelFormatError, match="SHA-256"):
        kg.load_artefact(path)
    path.write_bytes(whole[:100])
    about = path.with_name(path.name + ".json")
    said = json.loads(about.read_text(encoding="utf-8"))
    from kerasgen.files.digests import sha256_of

    other = said | {"sha256": sha256_of(path)}
    about.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="digest is another"):
        kg.load_artefact(path)
    about.write_text(json.dumps(other | {"digest": metadata.digest_of(other)}), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="GGUF"):
        kg.load_artefact(path)


def test_without_llama_cpp_it_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingDependencyError, match="llamacpp"):
        kg.load_artefact(exported[1].path)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": True}, {"threads": 1.5}, {"strict": 1}])
def test_a_setting_of_another_kind_is_told(exported, wrong):
    with pytest.raises(GenerateArgumentError, match=f"`{next(iter(wrong))}` must"):
        kg.load_artefact(exported[1].path, **wrong)


@pytest.mark.numerical
def test_by_itself_llama_cpp_takes_a_token_that_is_the_likeliest_but_for_half_precision(exported, by_itself, host):
    """Its keys and values are float16 then; the limit is some hundred times below what another token is behind."""
    tokenizer = exported[0].tokenizer
    for prompt in ([5], tokenizer.encode("the sand and the sun") * 4):
        ids = by_itself.generate_ids([prompt], sampler="greedy", max_new_tokens=24, valid_utf8=False)[0]
        text = [tokenizer.start_token_id, *prompt, *ids]
        rows = NumpyDecoder(host.config, host.weights).read(text[:-1])[-len(ids) :]
        chosen = rows[np.arange(len(ids)), ids]
        assert np.all(rows.max(axis=-1) - chosen < 0.01)
        assert np.median(np.sort(rows, axis=-1)[:, -1] - np.sort(rows, axis=-1)[:, -2]) > 0.05


def test_by_itself_it_gives_a_prompt_the_same_text_alone_and_in_a_batch(exported, by_itself):
    prompts = [exported[0].tokenizer.encode(text) for text in ("the sea", "春", "the sand and the sun")]
    for sampler in ("greedy", "top_k:k=5"):
        settings = {"sampler": sampler, "seed": 7, "max_new_tokens": 12}
        together = by_itself.generate_ids(prompts, **settings)
        assert together[::-1] == [by_itself.generate_ids([one], **settings)[0] for one in prompts[::-1]]


def test_longer_texts_are_written_by_a_server_of_their_own(exported, host, monkeypatch):
    """It starts with the first of them, once, and a text as long as the shorter ones may be needs none."""
    monkeypatch.setattr(of_runtime, "_SHORT", 40)
    runtime = kg.load_artefact(exported[1].path)
    start, started = runtime._start_longer, []
    runtime._start_longer = lambda: started.append(start()) or started[-1]
    prompt = exported[0].tokenizer.encode("the sand and the sun")
    settings = {"sampler": "greedy", "valid_utf8": False}
    fits = 40 - 1 - len(prompt)
    (short,) = runtime.generate_ids([prompt], max_new_tokens=fits, **settings)
    assert started == []
    longer = runtime.generate_ids([prompt, prompt], max_new_tokens=fits + 1, **settings)
    (whole,) = runtime.generate_ids([prompt], max_new_tokens=127 - len(prompt), **settings)
    assert started == [runtime._longer]
    for ids in (short, *longer, whole):
        text = [exported[0].tokenizer.start_token_id, *prompt, *ids]
        rows = NumpyDecoder(host.config, host.weights).read(text[:-1])[-len(ids) :]
        assert np.all(rows.max(axis=-1) - rows[np.arange(len(ids)), ids] < 0.01)


def test_a_file_that_another_took_the_place_of_is_told_by_the_first_longer_text(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(of_runtime, "_SHORT", 16)
    for file in exported[1].path.parent.iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / exported[1].path.name
    runtime = kg.load_artefact(path)
    (before,) = runtime.generate_ids([[5]], max_new_tokens=4, sampler="greedy")
    other = bytearray(path.read_bytes())
    other[-5] ^= 1
    path.unlink()  # the first server keeps the file that it has open
    path.write_bytes(other)
    with pytest.raises(ModelFormatError, match="SHA-256"):
        runtime.generate_ids([[5]], max_new_tokens=40, sampler="greedy")
    assert runtime.generate_ids([[5]], max_new_tokens=4, sampler="greedy") == [before]


def test_logits_are_not_shown(runtime):
    with pytest.raises(GenerateArgumentError, match="logits"):
        runtime.logits(np.array([5]))


def test_eight_threads_get_the_texts_that_one_gets(exported, runtime):
    prompts = [exported[0].tokenizer.encode(text) for text in ("the sea", "春", "the sand and the sun")]
    calls = [
        {"prompts": [prompt], "sampler": sampler, "seed": 7}
        for prompt in prompts
        for sampler in ("greedy", "top_k:k=5", "random")
    ]
    answers_are_those_of_one_thread(lambda one: runtime.generate_ids(**one, max_new_tokens=12), calls)


def test_other_sizes_than_the_files_are_told_though_the_digest_was_mended(exported, tmp_path):
    for file in exported[1].path.parent.iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / exported[1].path.name
    about = path.with_name(path.name + ".json")
    said = json.loads(about.read_text(encoding="utf-8"))
    for change in ({"max_tokens": said["max_tokens"] * 2}, {"max_tokens": 8}, {"architecture": "llama"}):
        about.write_text(json.dumps(said | change | {"digest": metadata.digest_of(said | change)}), encoding="utf-8")
        with pytest.raises(ModelFormatError, match="Copy the files of one export together"):
            kg.load_artefact(path)


def test_a_change_beside_the_file_whose_digest_was_mended_is_told_or_makes_no_difference(exported, tmp_path):
    def write(path):
        return kg.load_artefact(path).generate("the sand and", max_new_tokens=9)

    refused, accepted = outcomes(exported[1].path, tmp_path, write, unread=["parity"])
    assert len(refused) > 250
    assert len(accepted) > 10


def test_a_file_that_is_opened_and_dropped_at_once_ends(exported):
    """llama.cpp's server waits for ever where it is deleted before its loop began, and no signal ends that."""
    program = "import sys, pathlib, kerasgen as kg; kg.load_artefact(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(exported[1].path)], check=True, timeout=120)
