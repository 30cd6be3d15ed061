"""A model over another vocabulary: what it knew stays, what is new is learned, and all of it is saved and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama, tiny_opt
from toys import tiny_qwen

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.errors import TuneArgumentError
from kerasgen.models import vocabulary as models
from kerasgen.models.base import LanguageModel
from kerasgen.models.described import decoder_of
from kerasgen.models.saving import save_preset
from kerasgen.tokens import vocabulary as tokens
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tuners.vocabulary import adapt

POEMS = [f"{a}{b}{c}花落知多少" for a in "春夏秋冬" for b in "風雨雲月" for c in "山水"]
ENGLISH = ["the rain and the other thing", "he ran home then"] * 10
TUNER = kg.FullTuner(
    epochs=1, batch_size=4, sequence_length=32, learning_rate=1e-2, schedule="constant", vocabulary="extend"
)


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    return save_preset(small(), tmp_path_factory.mktemp("models") / "tiny")


def small() -> LanguageModel:
    return tiny_gpt2(400, num_layers=1, hidden_dim=16, max_sequence_length=32)


def pipeline(preset: Path, **arguments) -> kg.Pipeline:
    return kg.Pipeline(**({"corpus": POEMS, "model": preset, "tuner": TUNER, "sampler": "greedy"} | arguments))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def logits(model: LanguageModel, text: str) -> np.ndarray:
    ids = np.asarray([model.tokenizer.encode(text)], np.int32)
    return np.asarray(model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0]


@pytest.mark.numerical
@pytest.mark.parametrize("build", [tiny_gpt2, tiny_opt])
def test_a_trimmed_model_computes_the_same_numbers_for_the_tokens_that_stayed(build) -> None:
    model = build(400, num_layers=1)
    before = logits(model, ENGLISH[0])
    old = model.tokenizer.vocabulary
    record = adapt(model, lambda: ENGLISH, None, asked="trim")
    after = logits(model, ENGLISH[0])
    names = sorted(model.tokenizer.vocabulary, key=model.tokenizer.vocabulary.__getitem__)
    np.testing.assert_allclose(after, before[:, [old[name] for name in names]], rtol=1e-5, atol=1e-5)
    assert model.backbone.vocabulary_size == model.tokenizer.vocabulary_size < 400
    assert record["after"]["parameters"] < record["before"]["parameters"]
    assert record["after"]["tokens_per_character"] == record["before"]["tokens_per_character"]


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_opt])
def test_a_new_row_begins_as_the_mean_of_its_pieces(build) -> None:
    model = build(400, num_layers=1)
    old, table = model.tokenizer, np.asarray(models.token_table(model))
    adapt(model, lambda: POEMS, None, asked="extend")
    new, rows = model.tokenizer, np.asarray(models.token_table(model))
    for character in "知多少":
        (token_id,) = new.encode(character)
        np.testing.assert_allclose(rows[token_id], table[old.encode(character)].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows[new.vocabulary["a"]], table[old.vocabulary["a"]])


def test_the_report_tells_both_sides_and_texts_are_predicted_better(preset) -> None:
    pipe = pipeline(preset)
    report = pipe.fit(verbose=0)
    vocabulary = report.vocabulary
    assert vocabulary["choice"] == "extend"
    assert vocabulary["after"]["tokens_per_character"] <= 1.0 < vocabulary["before"]["tokens_per_character"]
    assert report.bits_per_character < vocabulary["before"]["bits_per_character"]
    assert vocabulary["before"]["parameters"] != vocabulary["after"]["parameters"] == report.parameters
    assert "tokens a character before" in str(report)
    assert pipe.generate("春", max_new_tokens=4).startswith("春")


@pytest.mark.parametrize("tuner", [TUNER, kg.LoraTuner(**{**dataclasses.asdict(TUNER), "rank": 2})])
def test_an_adapted_pipeline_is_saved_whole_and_loaded(preset, tmp_path, tuner) -> None:
    pipe = pipeline(preset, tuner=tuner)
    pipe.fit(verbose=0)
    written = pipe.generate(["春", "秋"], max_new_tokens=8)
    pipe.save(tmp_path / "poet")
    again = kg.Pipeline.load(tmp_path / "poet", corpus=POEMS)
    assert again.tokenizer.digest() == pipe.tokenizer.digest()
    assert again.generate(["春", "秋"], max_new_tokens=8) == written
    size = again.tokenizer.vocabulary_size
    assert again.fit(verbose=0).vocabulary == again.model.metadata["vocabulary"]
    assert again.tokenizer.vocabulary_size == size, "the same texts are not added twice"
    again.save(tmp_path / "poet twice")
    assert kg.Pipeline.load(tmp_path / "poet twice").generate("春", max_new_tokens=8) == again.generate(
        "春", max_new_tokens=8
    )


def test_beside_adapters_the_new_rows_are_tuned_and_the_old_ones_stay(preset) -> None:
    adapted = pipeline(preset)
    adapt(adapted.model, lambda: adapted._corpus().texts("train"), None, asked="extend")
    before = np.asarray(models.token_table(adapted.model))
    pipe = pipeline(preset, tuner=kg.LoraTuner(**{**dataclasses.asdict(TUNER), "rank": 2}))
    report = pipe.fit(verbose=0)
    after = np.asarray(models.token_table(pipe.model))
    first = report.vocabulary["first_added"]
    np.testing.assert_array_equal(after[:first], before[:first])
    assert (np.abs(after[first:] - before[first:]).max(axis=1) > 1e-4).mean() > 0.5
    rows = (len(after) - first) * after.shape[1]
    assert rows < report.trainable_parameters < rows + 2000


@pytest.mark.numerical
@pytest.mark.nightly
def test_what_validates_before_and_after_the_change_is_measured_alike(preset, tmp_path) -> None:
    """At a length that is not the model's own: the figures of both vocabularies are of one kind."""
    from kerasgen.tuners.vocabulary import measured

    tuner = dataclasses.replace(TUNER, sequence_length=8, max_steps=1)
    pipe = pipeline(preset, tuner=tuner)
    held_out = list(pipe._corpus().texts("held_out"))
    expected = measured(small(), lambda: held_out, sequence_length=8, batch_size=4, precision="float32")
    report = pipe.fit(verbose=0)
    assert report.vocabulary["before"]["bits_per_character"] == pytest.approx(expected, rel=1e-5)
    assert report.vocabulary["after"]["bits_per_character"] == report.validations[0].bits_per_character
    assert report.validations[0].step == 0


@pytest.mark.numerical
@pytest.mark.nightly
def test_rows_of_an_earlier_vocabulary_stay_when_auto_keeps_it_and_adapters_say_all(preset, tmp_path) -> None:
    whole = pipeline(preset, tuner=dataclasses.replace(TUNER, max_steps=2))
    whole.fit(verbose=0)
    whole.save(tmp_path / "extended")
    tuner = kg.LoraTuner(**{**dataclasses.asdict(TUNER), "vocabulary": "auto", "rank": 2, "epochs": 2})
    pipe = kg.Pipeline.load(tmp_path / "extended", corpus=POEMS)
    pipe.tuner = tuner
    before = np.array(models.token_table(pipe.model))
    report = pipe.fit(verbose=0)
    assert report.vocabulary["choice"] == "keep"
    assert report.trainable_parameters < 2000
    np.testing.assert_array_equal(models.token_table(pipe.model), before)
    pipe.save(tmp_path / "poet")
    assert (tmp_path / "poet" / "adapters").is_dir()
    same_weights(kg.Pipeline.load(tmp_path / "poet").model, pipe.model)


def test_a_weight_that_was_changed_beside_adapters_is_saved(preset, tmp_path) -> None:
    """Whoever changed it: here a callback does."""
    import keras

    class Change(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            table = self.model.causal_lm.backbone.token_embedding._embeddings
            table.assign(np.asarray(table) + 1.0)

    tuner = kg.LoraTuner(epochs=1, max_steps=1, batch_size=4, sequence_length=32, rank=2)
    pipe = pipeline(preset, tuner=tuner)
    pipe.fit(callbacks=[Change()], verbose=0)
    pipe.save(tmp_path / "poet")
    same_weights(kg.Pipeline.load(tmp_path / "poet").model, pipe.model, text="the rain")


def same_weights(found: LanguageModel, expected: LanguageModel, text: str = "春風") -> None:
    """They compute the same, so adapters and what they stand beside are the same."""
    np.testing.assert_array_equal(models.token_table(found), models.token_table(expected))
    np.testing.assert_allclose(logits(found, text), logits(expected, text), rtol=1e-5, atol=1e-5)


@pytest.mark.one_backend
@pytest.mark.parametrize("kind", [kg.FullTuner, kg.LoraTuner])
def test_a_killed_run_goes_on_with_the_vocabulary_that_it_began_with(preset, tmp_path, kind) -> None:
    import keras

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise RuntimeError("killed")

    tuner = kind(**{**dataclasses.asdict(TUNER), "checkpoint_every": 1})
    whole = pipeline(preset, tuner=tuner).fit(directory=tmp_path / "whole", verbose=0)
    with pytest.raises(RuntimeError, match="killed"):
        pipeline(preset, tuner=tuner).fit(directory=tmp_path / "killed", callbacks=[Kill()], verbose=0)
    resumed = pipeline(preset, tuner=tuner).fit(directory=tmp_path / "killed", resume=True, verbose=0)
    assert resumed.resumed_from
    assert list(resumed.losses) == list(whole.losses)
    assert resumed.vocabulary == whole.vocabulary


def test_what_was_counted_once_is_not_counted_again_and_a_damaged_count_is(tmp_path, monkeypatch) -> None:
    """A run that goes on reads its corpus for the digest, and encodes nothing to have the vocabulary it began with."""
    encoded: list[int] = []
    encode_batch = ByteLevelBPE.encode_batch
    monkeypatch.setattr(
        ByteLevelBPE, "encode_batch", lambda self, texts: encoded.append(len(texts)) or encode_batch(self, texts)
    )
    first = small()
    record = adapt(first, lambda: POEMS, None, asked="auto", cache=tmp_path)
    assert 0 < len(encoded) <= 4
    for damaged in (False, True):
        encoded.clear()
        if damaged:
            for path in tmp_path.rglob("*.json"):
                path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
        again = small()
        assert adapt(again, lambda: POEMS, None, asked="auto", cache=tmp_path) == record
        assert again.tokenizer.digest() == first.tokenizer.digest()
        np.testing.assert_array_equal(models.token_table(again), models.token_table(first))
        assert bool(encoded) == damaged
    used = tokens.use_of(POEMS, first.tokenizer)
    assert record["after"]["tokens_per_character"] == used.tokens_per_character


def test_auto_extends_for_chinese_trims_for_a_few_words_and_says_why() -> None:
    assert adapt(small(), lambda: POEMS, None, asked="auto")["choice"] == "extend"
    record = adapt(small(), lambda: ENGLISH, None, asked="auto")
    assert record["choice"] == "trim"
    assert "of 400 ids are used" in record["reason"]


def test_auto_keeps_where_nothing_is_to_be_gained_and_where_nothing_can_be_done() -> None:
    model = small()
    everything = [text for text in map(model.tokenizer.decode, [[n] for n in range(400)]) if text.isascii()]
    assert adapt(model, lambda: everything, None, asked="auto")["choice"] == "keep"
    record = adapt(tiny_qwen(), lambda: ENGLISH, None, asked="auto")
    assert (record["choice"], "QwenBackbone" in record["reason"]) == ("keep", True)
    with pytest.raises(TuneArgumentError, match=r"'extend' can't change that of a QwenBackbone.*computes by itself"):
        adapt(tiny_qwen(), lambda: ENGLISH, None, asked="extend")


def test_keeping_does_nothing() -> None:
    model = small()
    before = model.causal_lm
    assert adapt(model, lambda: POEMS, None, asked="keep") == {}
    assert model.causal_lm is before


def test_an_adapted_model_is_a_preset_that_keras_hub_loads(tmp_path) -> None:
    import keras_hub

    model = small()
    adapt(model, lambda: POEMS, None, asked="extend")
    path = save_preset(model, tmp_path / "poet")
    theirs = keras_hub.models.CausalLM.from_preset(str(path))
    assert theirs.backbone.vocabulary_size == model.tokenizer.vocabulary_size
    assert theirs.preprocessor.tokenizer.vocabulary_size() == model.tokenizer.vocabulary_size
    assert tokens.use_of(POEMS, model.tokenizer).tokens_per_character <= 1.0


@pytest.mark.numerical
@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("qwen3", "trim"),
        ("llama_model", "extend"),
        *(
            pytest.param(family, asked, marks=pytest.mark.slow)
            for family, asked in [("qwen3", "extend"), ("llama_model", "trim"), ("gemma", "trim"), ("gemma", "extend")]
        ),
    ],
)
def test_a_vocabulary_that_only_its_file_says_is_changed_and_its_texts_cost_what_they_did(
    family: str, asked: str, families: Path, tmp_path: Path
) -> None:
    """The loss of a trimmed model is that of the old one among the tokens that stayed."""
    model = pretrained(families / family)
    old, texts = model.tokenizer, ["the river and the rain", " two  lines\n12", "a b c"] * 40 + POEMS * 4
    head = np.asarray(model.backbone.token_embedding.reverse_embeddings)
    table, said = np.asarray(models.token_table(model)), _logits(model, texts[0])
    record = adapt(model, lambda: texts, None, asked=asked)
    new = model.tokenizer
    assert record["after"]["vocabulary_size"] == new.vocabulary_size == model.vocabulary_size
    assert (new.start_token, new.end_token) == (old.start_token, old.end_token)
    found = {name: (old.vocabulary[name],) for name in new.vocabulary if name in old.vocabulary}
    ids = [old_ids[0] for name, old_ids in sorted(found.items(), key=lambda item: new.vocabulary[item[0]])]
    assert [ids[n] for n in new.encode(texts[0])] == old.encode(texts[0])
    np.testing.assert_allclose(_logits(model, texts[0])[:, : len(ids)], said[:, ids], atol=1e-5)
    if asked == "extend":
        (token_id,) = new.encode("a花")[-1:]
        spelled = old.encode("a花")[-3:]
        np.testing.assert_allclose(np.asarray(models.token_table(model))[token_id], table[spelled].mean(0), atol=1e-6)
        reverse = np.asarray(model.backbone.token_embedding.reverse_embeddings)
        np.testing.assert_allclose(reverse[:, token_id], head[:, spelled].mean(1), atol=1e-6)
        assert record["after"]["tokens_per_character"] < record["before"]["tokens_per_character"]
    else:
        nats = _nats(said[:-1, ids], new.encode(texts[0])[1:])
        assert _nats(_logits(model, texts[0])[:-1], new.encode(texts[0])[1:]) == pytest.approx(nats, rel=1e-5)
    assert adapt(model, lambda: texts, None, asked=asked) == record  # of the same request nothing is done again
    path = save_preset(model, tmp_path / "saved")
    again = kg.models.hub.Hub(str(path)).load()
    assert again.tokenizer == new
    np.testing.assert_array_equal(models.token_table(again), models.token_table(model))


@pytest.mark.one_backend
def test_a_vocabulary_of_a_pretrained_tokenizer_is_kept_in_the_cache(families: Path, tmp_path: Path) -> None:
    written = [
        adapt(pretrained(families / "llama_model"), lambda: POEMS, None, asked="extend", cache=str(tmp_path / "cache"))
        for _ in range(2)
    ]
    assert written[0] == written[1]
    assert len(list((tmp_path / "cache").rglob("*.extended.json"))) == 1


@pytest.mark.one_backend
def test_keras_hub_s_own_tokenizer_is_changed_if_that_is_asked(families: Path) -> None:
    from keras_hub.tokenizers import LlamaTokenizer

    from kerasgen.models.hub_tokenizer import KerasHubTokenizer

    model = pretrained(families / "llama_model")
    tokenizer = KerasHubTokenizer(LlamaTokenizer(proto=model.tokenizer.codec.content()))
    model.tokenizer = tokenizer
    assert adapt(model, lambda: POEMS, None, asked=None)["choice"] == "keep"
    assert model.tokenizer is tokenizer
    assert adapt(model, lambda: POEMS, None, asked="auto")["choice"] == "extend"
    assert isinstance(model.tokenizer, PretrainedTokenizer)
    assert model.tokenizer.decode(model.tokenizer.encode(POEMS[0])) == POEMS[0]


def pretrained(directory: Path) -> LanguageModel:
    """A Llama with an output layer of its own over the small tokenizer of a family."""
    tokenizer = PretrainedTokenizer.from_directory(directory)
    return dataclasses.replace(tiny_llama(tokenizer.vocabulary_size, num_layers=1), tokenizer=tokenizer)


def _nats(logits: np.ndarray, targets: list[int]) -> float:
    from scipy.special import log_softmax

    return -float(log_softmax(logits.astype(np.float64), axis=-1)[np.arange(len(targets)), targets].sum())


def _logits(model: LanguageModel, text: str) -> np.ndarray:
    return NumpyDecoder(*decoder_of(model)).read(model.tokenizer.encode(text))
