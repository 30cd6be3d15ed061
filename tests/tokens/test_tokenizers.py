"""The tokenizer of a transformers directory: its ids are those of the `tokenizers` library, before and after saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import tiny_vocabulary
from tokenizers import AddedToken as RustToken
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers_files import GPT2_CONFIG, OPT_CONFIG, gpt2_shapes, opt_shapes, random_weights

import kerasgen as kg
from kerasgen.errors import ModelFormatError
from kerasgen.exporters.parity import comparison
from kerasgen.generation.keras_engine import KerasEngine
from kerasgen.models import transformers_tokenizers
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.vocabulary import extend, trim, use_of

SPECIAL = ("<|endoftext|>", "<|im_end|>", "</s>", "<|sep|>")
ORDINARY = (
    RustToken("<user>"),
    RustToken("<user>x", normalized=False),
    RustToken("user"),
    RustToken("春風"),
    RustToken("春"),
    RustToken("<my tool>", lstrip=True, rstrip=True),
    RustToken("mot", single_word=True),
    RustToken("the", normalized=False),
)
TEXTS = (
    "a<user>b <user> c\n<user>x<user>y user",
    "昨夜春風來，春 風 and 春風春",
    "mot motto (mot) mot.",
    " a  <my tool>  b<my tool>",
    "the there <user>the春風mot",
    "nothing of it, it's 10 in 🚀",
)


def rust(*, size: int = 300, special: tuple[str, ...] = SPECIAL, ordinary: tuple[RustToken, ...] = ()) -> Tokenizer:
    """A tokenizer as the library makes one, of exactly this many ids with its added tokens."""
    vocabulary, merges = tiny_vocabulary(size - len(special) - len(ordinary) - 1, last=())
    vocabulary["usable"] = len(vocabulary)  # a token that no merge makes
    made = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    made.add_tokens(list(ordinary))
    assert made.get_vocab_size() == size
    return made


def directory(
    path: Path, tokenizer: Tokenizer, *, settings: dict[str, Any] | None = None, family: str = "gpt2", **config: Any
) -> Path:
    """A model's directory in transformers format around a tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    shapes, base = (gpt2_shapes(), GPT2_CONFIG) if family == "gpt2" else (opt_shapes(), OPT_CONFIG)
    (path / "config.json").write_text(json.dumps(base | config), encoding="utf-8")
    save_file(random_weights(shapes, seed=3), path / "model.safetensors")
    tokenizer.save(str(path / "tokenizer.json"))
    if settings is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def assert_like_the_library(found: Any, theirs: Tokenizer) -> None:
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert found.encode(text) == expected
        assert found.encode_batch([text, "a"])[0] == expected
        decoder = found.decoder()
        shown = theirs.decode(expected, skip_special_tokens=False)
        assert found.decode(expected) == shown
        assert "".join([*map(decoder.push, expected), decoder.finish()]) == shown
    for token in SPECIAL:
        token_id = theirs.token_to_id(token)
        if token_id is not None:
            ids = [*theirs.encode("a").ids, token_id, *theirs.encode("b").ids]
            assert found.decode(ids, skip_special_tokens=True) == theirs.decode(ids) == "ab"
            assert found.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


class TestAddedTokens:
    def test_they_are_found_as_the_library_finds_them_before_and_after_saving(self, tmp_path: Path) -> None:
        theirs = rust(ordinary=ORDINARY)
        there = directory(tmp_path / "hf", theirs, settings={"eos_token": "<|im_end|>"})
        model = Hub(str(there)).load()
        assert_like_the_library(model.tokenizer, theirs)
        again = Hub(str(save_preset(model, tmp_path / "preset"))).load()
        assert again.tokenizer == model.tokenizer
        assert_like_the_library(again.tokenizer, theirs)
        model.tokenizer.save(tmp_path)
        assert_like_the_library(ByteLevelBPE.from_directory(tmp_path), theirs)

    def test_what_a_preset_lost_is_an_error(self, tmp_path: Path) -> None:
        model = Hub(str(directory(tmp_path / "hf", rust(ordinary=ORDINARY)))).load()
        preset = save_preset(model, tmp_path / "preset")
        (preset / "assets" / "tokenizer" / "tokenizer_config.json").unlink()
        with pytest.raises(ModelFormatError, match=r"tokenizer_config\.json"):
            Hub(str(preset)).load()

    @pytest.mark.one_backend
    def test_a_lone_surrogate_leaves_them(self) -> None:
        tokenizer = ByteLevelBPE.from_contents(_contents(rust(ordinary=ORDINARY)))
        user = tokenizer.encode("<user>")
        assert len(user) == 1
        ids = tokenizer.encode("a\ud800<user>b\udfff")
        assert ids == tokenizer.encode("a\ud800") + user + tokenizer.encode("b\udfff")
        assert tokenizer.decode(ids) == "a\ud800<user>b\udfff"

    @pytest.mark.one_backend
    def test_those_of_files_beside_a_vocabulary_are_found_too(self, tmp_path: Path) -> None:
        """`added_tokens.json` of older versions, and `added_tokens_decoder` of newer ones with its flags."""
        vocabulary, merges = tiny_vocabulary(300)
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (tmp_path / "merges.txt").write_text("\n".join(map(" ".join, merges)), encoding="utf-8")
        (tmp_path / "added_tokens.json").write_text('{"<user>": 300, "<|sep|>": 301, "mot": 303}', encoding="utf-8")
        decoder = {"303": {"content": "mot", "single_word": True, "special": False}}
        settings = {"additional_special_tokens": ["<|sep|>"], "added_tokens_decoder": decoder}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        tokenizer = ByteLevelBPE.from_directory(tmp_path)
        assert tokenizer.encode("<user>mot")[:1] == [300]
        assert 303 in tokenizer.encode("<user> mot")
        assert 303 not in tokenizer.encode("motto")
        assert 301 not in tokenizer.encode("<|sep|>")
        assert tokenizer.decode([300, 301], skip_special_tokens=True) == "<user>"

    @pytest.mark.one_backend
    def test_another_vocabulary_for_a_corpus_keeps_them(self) -> None:
        tokenizer = ByteLevelBPE.from_contents(_contents(rust(ordinary=ORDINARY)))
        texts = ["春風 <user> the end of it"] * 200
        for adapted in (trim(tokenizer, use_of(texts, tokenizer)), extend(tokenizer, lambda: texts)):
            new = adapted.tokenizer
            assert {token.content for token in new.added_tokens} == {token.content for token in ORDINARY}
            assert set(new.special_tokens) == set(SPECIAL)
            for text in (*TEXTS, *texts[:1]):
                assert new.decode(new.encode(text)) == tokenizer.decode(tokenizer.encode(text))
            for token in ("<user>", "春風"):
                (place,) = new.encode(token)
                assert adapted.sources[place] == tuple(tokenizer.encode(token))

    @pytest.mark.one_backend
    def test_a_digest_changes_with_a_flag(self) -> None:
        contents = _contents(rust(ordinary=ORDINARY[:1]))
        flags = [AddedToken("<user>"), AddedToken("<user>", lstrip=True), AddedToken("<user>", normalized=False)]
        made = [ByteLevelBPE.from_contents(_with(contents, added_tokens=(flag,))) for flag in flags]
        assert (
            len(
                {one.digest() for one in made} | {ByteLevelBPE.from_contents(_with(contents, added_tokens=())).digest()}
            )
            == 4
        )

    @pytest.mark.one_backend
    def test_formats_that_can_t_hold_them_say_so(self, tmp_path: Path) -> None:
        model = Hub(str(directory(tmp_path / "hf", rust(ordinary=ORDINARY)))).load()
        for exporter in (kg.SavedModelExporter(), kg.GgufExporter(), kg.PresetExporter()):
            with pytest.raises(kg.errors.ExportArgumentError, match="added token"):
                exporter.export(model, tmp_path / "out")

    @pytest.mark.one_backend
    def test_transformers_holds_them_and_the_library_says_so(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("kerasgen.exporters.transformers.exporter._prove_in_transformers", lambda *_: None)
        theirs = rust(ordinary=ORDINARY)
        config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        model = Hub(str(directory(tmp_path / "hf", theirs, settings=config))).load()
        written = kg.TransformersExporter().export(model, tmp_path / "out")
        assert written.report["parity"]["tokenizers_equal"]
        assert_like_the_library(
            Hub(str(tmp_path / "out")).load().tokenizer, Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
        )
        assert_like_the_library(Hub(str(tmp_path / "out")).load().tokenizer, theirs)


def _contents(tokenizer: Tokenizer) -> Any:
    from kerasgen.tokens import tokenizer_json

    return tokenizer_json.contents(json.loads(tokenizer.to_str()), Path("tokenizer.json"))


def _with(contents: Any, **said: Any) -> Any:
    from dataclasses import replace

    return replace(contents, **said)


class TestOtherKinds:
    @pytest.mark.one_backend
    @pytest.mark.parametrize(
        "change",
        [
            lambda t: setattr(t, "normalizer", normalizers.NFC()),
            lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
            lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
            lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
            lambda t: setattr(
                t,
                "pre_tokenizer",
                pre_tokenizers.Sequence(
                    [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(False)]
                ),
            ),
        ],
        ids=["NFC", "lower case", "space before", "words", "digits together"],
    )
    def test_a_tokenizer_that_is_no_byte_level_bpe_of_one_cut_is_the_library_s(
        self, change: Any, tmp_path: Path
    ) -> None:
        theirs = rust(ordinary=ORDINARY)
        change(theirs)
        theirs.encode_special_tokens = True
        tokenizer = Hub(str(directory(tmp_path, theirs))).load().tokenizer
        assert isinstance(tokenizer, PretrainedTokenizer)
        assert tokenizer.end_token == "<|endoftext|>"  # GPT-2's, where no file says one
        for text in ("A e\u0301 12 3 <|endoftext|>", " a  b", "", *(f"a {token.content}b" for token in ORDINARY)):
            assert tokenizer.encode(text) == theirs.encode(text).ids

    @pytest.mark.one_backend
    @pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
    def test_special_tokens_that_are_allowed_take_the_blanks_that_they_say(self, flag: str, tmp_path: Path) -> None:
        """As those of Phi-4 do."""
        theirs = rust()
        theirs.add_special_tokens([RustToken("<|im_start|>", special=True, **{flag: True})])
        theirs.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}', encoding="utf-8")
        tokenizer = transformers_tokenizers.read(str(tmp_path), None, {}, lambda: None)
        for text in ("a <|im_start|>  user", "a<|im_start|>user<|im_start|>", " <|im_start|> <|endoftext|> b"):
            assert tokenizer.encode_with_special(text, "all") == theirs.encode(text).ids


class TestRefused:
    @pytest.mark.one_backend
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda t: t.enable_truncation(8), "truncation"),
            (lambda t: t.enable_padding(length=8), "padding"),
            (lambda t: setattr(t.model, "dropout", 0.1), "dropout"),
            (lambda t: setattr(t, "decoder", decoders.WordPiece()), "WordPiece"),
            (lambda t: setattr(t, "post_processor", processors.BertProcessing(("</s>", 0), ("</s>", 0))), "Bert"),
            (lambda t: t.add_tokens(["é"]), "é"),
        ],
    )
    def test_what_would_give_other_ids_is_named(self, change: Any, named: str, tmp_path: Path) -> None:
        theirs = rust()
        change(theirs)
        with pytest.raises(ModelFormatError, match=named):
            Hub(str(directory(tmp_path, theirs))).load()

    @pytest.mark.one_backend
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"add_prefix_space": True}, "add_prefix_space"),
            ({"eos_token": "<|absent|>"}, r"<\|absent\|>"),
            ({"added_tokens_decoder": {"7": {"content": "<user>", "special": False}}}, "<user>"),
            ({"added_tokens_decoder": {"299": {"content": "<user>", "lstrip": True, "special": False}}}, "<user>"),
            ({"added_tokens_decoder": {"299": {"content": "<user>", "special": True}}}, "<user>"),
        ],
    )
    def test_settings_that_contradict_tokenizer_json(self, settings: Any, named: str, tmp_path: Path) -> None:
        theirs = rust(ordinary=ORDINARY[:1])
        assert theirs.token_to_id("<user>") == 299
        with pytest.raises(ModelFormatError, match=named):
            Hub(str(directory(tmp_path, theirs, settings=settings))).load()


class TestEnds:
    """Which tokens frame a document and end a text."""

    def load(self, path: Path, *, special: tuple[str, ...] = SPECIAL, **files: Any) -> Any:
        generation = files.pop("generation", None)
        theirs = files.pop("theirs", None) or rust(special=special)
        there = directory(path / "hf", theirs, **files)
        if generation is not None:
            (there / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
        return Hub(str(there)).load()

    @pytest.mark.parametrize("family", ["gpt2", "opt"])
    @pytest.mark.parametrize("where", ["tokenizer_config", "a dictionary", "config", "generation_config"])
    def test_the_end_token_is_the_one_that_the_directory_names(self, where: str, family: str, tmp_path: Path) -> None:
        end = rust().token_to_id("<|im_end|>")
        files: dict[str, Any] = {
            "tokenizer_config": {"settings": {"eos_token": "<|im_end|>"}},
            "a dictionary": {"settings": {"eos_token": {"content": "<|im_end|>", "lstrip": False}}},
            "config": {"eos_token_id": end},
            "generation_config": {"generation": {"eos_token_id": [end]}, "eos_token_id": 50256},
        }[where]
        tokenizer = self.load(tmp_path, family=family, **files).tokenizer
        assert (tokenizer.end_token, tokenizer.end_token_ids) == ("<|im_end|>", (end,))
        assert tokenizer.start_token is None

    def test_several_ends_all_end_a_text_and_the_tokenizer_s_ends_a_document(self, tmp_path: Path) -> None:
        ids = [rust().token_to_id(token) for token in SPECIAL]
        settings = {"eos_token": "<|im_end|>"}
        model = self.load(tmp_path, settings=settings, generation={"eos_token_id": [ids[0], ids[2]]})
        assert model.tokenizer.end_token_id == ids[1]
        assert set(model.tokenizer.end_token_ids) == set(ids[:3])
        again = Hub(str(save_preset(model, tmp_path / "preset"))).load().tokenizer
        assert again == model.tokenizer
        assert again.end_token_ids == model.tokenizer.end_token_ids
        for exporter in (kg.GgufExporter(), kg.PresetExporter()):  # the graphs hold them all
            with pytest.raises(kg.errors.ExportArgumentError, match="end"):
                exporter.export(model, tmp_path / "out")

    def test_the_start_token_is_what_the_post_processor_puts_there(self, tmp_path: Path) -> None:
        theirs = rust()
        template = {"single": "<|sep|> $A", "special_tokens": [("<|sep|>", theirs.token_to_id("<|sep|>"))]}
        theirs.post_processor = processors.TemplateProcessing(**template)
        settings = {"bos_token": "<|endoftext|>", "eos_token": "</s>"}
        tokenizer = self.load(tmp_path, theirs=theirs, settings=settings).tokenizer
        assert (tokenizer.start_token, tokenizer.end_token) == ("<|sep|>", "</s>")
        assert [tokenizer.start_token_id, *tokenizer.encode("a b")] == theirs.encode("a b").ids

    def test_a_vocabulary_with_another_family_s_end_token_alone(self, tmp_path: Path) -> None:
        tokenizer = self.load(tmp_path, special=("</s>",)).tokenizer
        assert (tokenizer.end_token, tokenizer.pad_token) == ("</s>", "</s>")

    def test_a_vocabulary_without_an_end_token_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFormatError, match=r"eos_token.*tokenizer_config\.json.*generation_config\.json"):
            self.load(tmp_path, special=("<|sep|>",))
        there = tmp_path / "hf"
        end = rust(special=("<|sep|>",)).token_to_id("<|sep|>")
        (there / "generation_config.json").write_text(json.dumps({"eos_token_id": end}), encoding="utf-8")
        assert Hub(str(there)).load().tokenizer.end_token == "<|sep|>"

    def test_an_end_token_that_text_becomes_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFormatError, match="ordinary text becomes it"):
            self.load(tmp_path, generation={"eos_token_id": 5})

    def test_tokens_that_no_file_calls_special_are_none(self, tmp_path: Path) -> None:
        """`</s>` is in the vocabulary, but the directory does not say that it is special."""
        theirs = rust(special=("<|endoftext|>",), ordinary=(RustToken("</s>"),))
        tokenizer = self.load(tmp_path, theirs=theirs, settings={"eos_token": "<|endoftext|>"}).tokenizer
        assert tokenizer.encode("a</s>") == theirs.encode("a</s>").ids
        assert tokenizer.decode(tokenizer.encode("a</s>"), skip_special_tokens=True) == "a</s>"

    @pytest.mark.parametrize("said", [{}, {"tokenizer_class": "GPT2Tokenizer"}, {"tokenizer_class": "OtherFast"}])
    def test_what_gpt2_s_class_calls_special_is_so_though_no_file_says_it(
        self, said: dict[str, str], tmp_path: Path
    ) -> None:
        """transformers gives this class `<|endoftext|>` for each of its three tokens that the settings leave out."""
        there = directory(tmp_path / "hf", rust(), family="opt")
        vocabulary, merges = tiny_vocabulary(298, last=("<|endoftext|>", "<|im_end|>"))
        (there / "tokenizer.json").unlink()
        (there / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (there / "merges.txt").write_text("\n".join(map(" ".join, merges)), encoding="utf-8")
        (there / "tokenizer_config.json").write_text(json.dumps(said | {"eos_token": "<|im_end|>"}), encoding="utf-8")
        tokenizer = Hub(str(there)).load().tokenizer
        hidden = said.get("tokenizer_class") != "OtherFast"
        shown = tokenizer.decode([vocabulary["<|endoftext|>"]], skip_special_tokens=True)
        assert shown == ("" if hidden else "<|endoftext|>")
        assert (tokenizer.end_token, tokenizer.start_token) == ("<|im_end|>", None)


@pytest.fixture(scope="module")
def several_ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[int], list[int]]:
    """A model whose likeliest text holds, early, an end that is not the first of three; prompt and text up to it."""
    theirs = rust()
    there = directory(tmp_path_factory.mktemp("ends") / "hf", theirs, settings={"eos_token": "<|im_end|>"})
    model = Hub(str(there)).load()
    prompt = model.tokenizer.encode("the end")
    text = comparison.greedy(model, [prompt], 12)[0]
    place = next(n for n in range(2, 12) if text[n] not in (*text[:n], *prompt))
    # Two rows change their places, and with them the two tokens in all that the model says.
    table, end = model.backbone.token_embedding.embeddings, theirs.token_to_id("</s>")
    rows = np.array(table)
    rows[[text[place], end]] = rows[[end, text[place]]]
    table.assign(rows)
    ends = [theirs.token_to_id("<|endoftext|>"), end]
    (there / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    model.tokenizer = Hub(str(there)).load().tokenizer
    return model, prompt, [*text[:place], end]


@pytest.mark.one_backend
@pytest.mark.parametrize("sampler", ["greedy", "top_k:k=1,seed=1", "beam:num_beams=2", "contrastive:k=2,alpha=0.0"])
@pytest.mark.parametrize("engine", ["own", "keras"])
def test_every_end_ends_a_text(sampler: str, engine: str, several_ends: Any) -> None:
    model, prompt, expected = several_ends
    decoder = KerasEngine(model) if engine == "keras" else model
    found = kg.generation.generate_ids(
        decoder, [prompt, prompt[:-1]], sampler=sampler, max_new_tokens=12, **comparison.RAW
    )[0][0]
    if sampler.startswith("beam"):  # a search may find a likelier text, which ends there or nowhere
        assert found.finished == (found.token_ids[-1] in model.tokenizer.end_token_ids)
        assert not set(found.token_ids[:-1]) & set(model.tokenizer.end_token_ids)
        return
    assert list(found.token_ids) == expected
    assert found.finished


def test_every_end_ends_a_stream_and_keras_hub_s_samplers(several_ends: Any) -> None:
    import keras_hub

    from kerasgen.generation import api

    model, prompt, expected = several_ends
    text = model.tokenizer.decode(expected[:-1])
    pieces = api.stream(
        model,
        model.tokenizer.decode(prompt),
        sampler="greedy",
        max_new_tokens=12,
        return_prompt=False,
        **comparison.RAW,
    )
    assert "".join(pieces).rstrip("\ufffd") == text.rstrip("\ufffd")
    sampler = keras_hub.samplers.GreedySampler()
    found = kg.generation.generate_ids(model, [prompt], sampler=sampler, max_new_tokens=12, **comparison.RAW)[0][0]
    assert list(found.token_ids) == expected
