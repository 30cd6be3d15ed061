"""A proof lets a right artefact pass and stops a broken one: here a decoder in NumPy stands for the fresh process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen.decoder.numpy import NumpyDecoder, NumpyEngine, reader
from kerasgen.decoder.weights import map_arrays
from kerasgen.errors import ExportError
from kerasgen.exporters.parity import comparison, quantized
from kerasgen.exporters.parity import ids as proving
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights

pytestmark = pytest.mark.one_backend
SIZES = {"chunks": (8, 16), "longest": 128}


@pytest.fixture(scope="module")
def engine() -> NumpyEngine:
    model = tiny_gpt2()
    return NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)


class Host:
    """A runtime over NumPy, some of whose signatures may be broken.

    Args:
        engine: what it decodes with.
        prefill: what a prefill reads of a text.
        beams: what the signature of beams reads of one.
    """

    def __init__(self, engine, *, prefill=list, beams=list) -> None:
        self.engine, self.prefill, self.beams = engine, prefill, beams
        self.calls: list[dict] = []

    def generate_ids(self, prompts, *, end_token_id=None, **settings):
        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        found = generate_ids(engine, prompts, **{"sampler": "greedy"} | settings)
        return [list(several[0].token_ids) for several in found]

    def logits(self, token_ids, prefilled=1):
        read = [*self.prefill(token_ids[: prefilled - 1]), *token_ids[prefilled - 1 :]]
        return NumpyDecoder(self.engine.config, self.engine.weights).read(read)[prefilled - 1 :]

    def branched_logits(self, prompt, texts):
        texts = [[*prompt, *self.beams(text)] for text in texts]
        return np.stack([self.logits(text)[len(prompt) :] for text in texts])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def begin(self, path, calls=(), **more):
        self.found = self.ask(path, calls, **more)

    def answer(self):
        return self.found

    def ask(self, path, calls=(), *, logits=(), texts=(), settings=None, timeout=0.0):
        self.calls += calls
        found = [self.generate_ids(**call) for call in calls]
        read = [
            (self.logits if "token_ids" in one else self.branched_logits)(**one)
            for one in ({"token_ids": one} if isinstance(one, list) else one for one in logits)
        ]
        encoded = self.engine.tokenizer.encode_batch(texts)
        return proving.Answer(found, [1.0] * len(found), encoded, read, [], 0.1, 1)


def changed(engine: NumpyEngine) -> NumpyEngine:
    """The same decoder with every weight a little off."""
    weights = map_arrays(lambda array: (array * 1.02).astype(np.float32), engine.weights)
    return NumpyEngine(engine.config, weights, engine.tokenizer)


def read_of(engine: NumpyEngine):
    return reader(engine.config, engine.weights, engine.tokenizer.vocabulary_size)


def reader_of(engine: NumpyEngine, length: int):
    """What reads by the engine, whose model has no more positions than an artefact here."""
    assert length <= SIZES["longest"]
    return read_of(engine)


@pytest.fixture
def prove(engine, monkeypatch):
    """Prove what a host answers to be the engine's own."""

    def prove_host(host: Host, **settings):
        monkeypatch.setattr(comparison, "reader", reader_of)
        return proving.prove_ids(engine, Path("x"), reader=host, **SIZES, **settings)

    return prove_host


def test_greedy_texts_are_compared_to_their_full_length_although_the_model_would_end_them(engine, prove):
    prompt = comparison.prompts(engine.tokenizer, **SIZES)[0]
    early = comparison.greedy(engine, [prompt], 9)[0][3]
    host = Host(engine.ending_at(early))
    figures = prove(host)
    # The start token is one of the 128 positions.
    assert figures["new_tokens"] == [min(128, 127 - length) for length in figures["prompt_lengths"]]
    assert figures["greedy_equal"]
    assert figures["tokenizer_equal"]
    short = Host(engine.ending_at(early))
    ask = short.ask
    short.ask = lambda path, calls, **more: ask(path, [{**call, "end_token_id": early} for call in calls], **more)
    with pytest.raises(ExportError, match="alone_equal"):
        prove(short)


def test_what_is_read_at_once_are_the_texts_that_the_model_generates(engine):
    """Of the model itself, and of texts that part from its own at one place, or end too early."""
    some, read = comparison.prompts(engine.tokenizer, **SIZES)[:3], read_of(engine)
    texts, many = comparison.greedy(engine, some, 12), [12] * 3
    assert comparison.likeliest(read, engine.tokenizer, some, texts, many) == texts
    other = [*texts[0][:5], texts[0][5] ^ 1, *texts[0][6:]]
    wanted = comparison.likeliest(read, engine.tokenizer, some[:1], [other], [12])
    assert comparison.first_difference([other], wanted)["place"] == 5
    for wrong in (texts[0][:9], [], [*texts[0], 5], [-1, *texts[0][1:]], [10**9, *texts[0][1:]]):
        assert comparison.likeliest(read, engine.tokenizer, some[:1], [wrong], [12]) != [wrong]


def test_what_was_read_before_is_not_read_again(engine):
    some, read = comparison.prompts(engine.tokenizer, **SIZES)[:2], read_of(engine)
    texts, known = comparison.greedy(engine, some, 12), {}
    assert comparison.likeliest(read, engine.tokenizer, some, texts, [12] * 2, known=known) == texts
    beginnings = [ids[:5] for ids in texts]
    assert comparison.likeliest(None, engine.tokenizer, some, beginnings, [5] * 2, known=known) == beginnings


def test_prompts_fill_a_chunk_exactly_and_take_two_successive_ones(engine):
    """A prefill reads all of a prompt but its last token."""
    lengths = [1 + len(one) for one in comparison.prompts(engine.tokenizer, **SIZES)]
    assert 8 + 1 in lengths
    assert any(length - 1 > 16 for length in lengths)
    assert any(length < 8 for length in lengths)


def test_weights_that_are_a_little_off_are_found(engine, prove):
    with pytest.raises(ExportError, match="alone_equal") as caught:
        prove(Host(changed(engine)))
    assert caught.value.figures["greedy_equal"] is False
    assert caught.value.figures["alone_first_difference"]


def test_a_batch_whose_prompts_disturb_each_other_is_found(engine, prove):
    class Mixed(Host):
        def generate_ids(self, prompts, **settings):
            return super().generate_ids(prompts[:1] * len(prompts), **settings)

    with pytest.raises(ExportError, match="together_equal") as caught:
        prove(Mixed(engine))
    assert caught.value.figures["together_first_difference"]["row"] == 1


def test_a_tokenizer_that_gives_other_ids_is_found(engine, prove):
    class Other(Host):
        def ask(self, *arguments, **settings):
            answer = super().ask(*arguments, **settings)
            return dataclasses.replace(answer, encoded=[[0, *ids] for ids in answer.encoded])

    with pytest.raises(ExportError, match="tokenizer_equal"):
        prove(Other(engine))


def test_what_a_file_rounds_is_held_to_the_model_as_it_is_rounded(engine, prove):
    """That the model itself would write another text is told, and no failure."""
    figures = prove(Host(changed(engine)), rounded=read_of(changed(engine)))
    assert figures["greedy_equal"]
    assert figures["like_the_unrounded_model"] is False
    assert prove(Host(engine), rounded=read_of(engine))["like_the_unrounded_model"]


LIMITS = quantized.Limits(0.05, 0.85, 1.5, 0.02, disagreement=0.02)


def close(engine, host, monkeypatch, **settings):
    monkeypatch.setattr(comparison, "reader", reader_of)
    settings = {"beams": 4, "limits": LIMITS} | settings
    return quantized.prove_divergence(engine, Path("x"), reader=host, **SIZES, **settings)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"prefill": lambda tokens: [0] * len(tokens)}, "prefill"),
        ({"beams": lambda tokens: [0] * len(tokens)}, "beams"),
    ],
)
def test_a_quantised_file_whose_signatures_disagree_is_found(engine, broken, what, monkeypatch):
    """Although its token-by-token predictions are the model's to the last bit."""
    figures = close(engine, Host(engine), monkeypatch)
    assert max(figures["signatures"].values()) < 1e-4
    assert {"beams"} < set(figures["signatures"])
    with pytest.raises(ExportError, match=f"signatures of {what}"):
        close(engine, Host(engine, **broken), monkeypatch)


def test_signatures_may_be_apart_by_less_than_half_of_what_the_file_is_from_the_model(engine, monkeypatch):
    """A deep model's activations round otherwise where sums are taken in another order."""
    limits = quantized.Limits(9, 0, 99, 9, disagreement=0.0)
    figures = close(engine, Host(changed(engine)), monkeypatch, limits=limits)
    off = figures["largest_difference_of_any_logit_in_deviations"]
    assert off >= figures["largest_logit_difference_in_deviations"] > 0.01
    quantized._check(figures | {"signatures": {"beams": 0.49 * off}}, limits)
    with pytest.raises(ExportError, match="signatures of beams"):
        quantized._check(figures | {"signatures": {"beams": 0.51 * off}}, limits)


def test_a_wrong_logit_counts_if_its_token_could_be_drawn():
    """By the model or by the artefact: a token of which neither thinks may be off by any number."""
    wanted = np.random.default_rng(0).standard_normal((40, 5000))
    order = wanted[7].argsort()
    for token, off, counts in (
        (order[0], -30.0, False),
        (order[2500], 2.0 - wanted[7, order[2500]], False),
        (order[0], 30.0, True),
        (order[-1], -30.0, True),
        (order[-60], 1.0, True),
    ):
        written = wanted.copy()
        written[7, token] += off
        assert quantized._largest_difference(wanted, written) == (abs(off) if counts else 0)


def test_a_held_out_text_is_read_in_windows(engine, monkeypatch):
    figures = close(engine, Host(engine), monkeypatch, text="the sand and the sea " * 40)
    assert figures["tokens"] > 2 * 128
    assert figures["bits_per_character"] == pytest.approx(figures["bits_per_character_of_the_model"])


def test_without_a_text_the_model_s_own_are_compared_and_rounding_costs_its_divergence(engine, monkeypatch):
    """The mean of the loss that it adds is the divergence, up to the error of that mean."""
    close(engine, Host(engine), monkeypatch)
    loose = quantized.Limits(9, 0, 99, 9, disagreement=9)
    figures = close(engine, Host(changed(engine)), monkeypatch, limits=loose)
    assert figures["tokens"] == 8 * (1 + 2 + 64)
    added = figures["nats_per_token"] - figures["nats_per_token_of_the_model"]
    assert abs(added - figures["divergence_in_nats"]) < 3 * figures["standard_error_of_their_difference"]
    assert figures["divergence_in_nats"] > 1e-4


def test_a_mean_is_beyond_its_limit_if_chance_does_not_explain_it(engine, monkeypatch):
    limits = quantized.Limits(0.05, 0.85, 99, 0.02, disagreement=9)
    figures = close(engine, Host(engine), monkeypatch, limits=limits)
    own = figures["nats_per_token_of_the_model"]
    for mean, value, error, size, told in (
        ("nats_per_token", 1.03 * own, "standard_error_of_their_difference", own, "bits per character"),
        ("divergence_in_nats", 0.06, "standard_error_of_divergence", 1.0, "nats a token"),
        ("same_likeliest", 0.84, "standard_error_of_agreement", 1.0, "less often"),
    ):
        unsure = figures | {mean: value}
        quantized._check(unsure | {error: 0.006 * size}, limits)
        with pytest.raises(ExportError, match=told):
            quantized._check(unsure | {error: 0.004 * size}, limits)


def test_the_error_of_a_mean_is_that_of_its_tokens(engine, monkeypatch):
    """That of a share is the binomial one."""
    loose = quantized.Limits(9, 0, 99, 9, disagreement=9)
    figures = close(engine, Host(changed(changed(engine))), monkeypatch, limits=loose)
    share = figures["same_likeliest"]
    drawn = (share * (1 - share) / (figures["tokens"] - 1)) ** 0.5
    assert figures["standard_error_of_agreement"] == pytest.approx(drawn, rel=1e-6)
    assert 0 < figures["standard_error_of_divergence"] < figures["divergence_in_nats"]


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ((0.0, 0, 99, 9), "nats a token"),
        ((9, 1, 99, 9), "likeliest"),
        ((9, 0, 1e-9, 9), "deviations"),
        ((9, 0, 99, -0.9), "bits per character"),
    ],
)
def test_every_limit_is_held(engine, limits, what, monkeypatch):
    with pytest.raises(ExportError, match=what):
        close(engine, Host(changed(changed(engine))), monkeypatch, limits=quantized.Limits(*limits, disagreement=9))


def test_a_process_that_takes_too_long_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match=r"did not finish in 0\.01 seconds"):
        proving.ask(tmp_path / "x", timeout=0.01)


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "tokenizers.py").write_text("raise SystemExit('a stray module')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError) as caught:
        proving.ask(tmp_path / "nothing.tflite")
    assert "There is no artefact" in str(caught.value)


def test_every_degenerate_text_counts():
    varied, stuck = list(range(30)), [1] * 30
    assert comparison.variety([varied, stuck]) == {
        "distinct_tokens": 30,
        "degenerate_texts": 1,
        "is_degenerate": False,
    }
    assert comparison.variety([stuck, stuck])["is_degenerate"]


def test_a_batch_gets_as_many_tokens_as_fit_after_most_of_its_prompts():
    """A prompt after which fewer fit doesn't shorten the others; what goes on further than the batch is alone."""
    assert proving.divided([30, 30, 10]) == ([0, 2], [0, 1], 30)
    assert proving.divided([128, 128, 128]) == ([0], [0, 1, 2], 128)
    assert proving.divided([60, 55, 41]) == ([0, 1], [0, 1, 2], 41)
    assert proving.divided([9]) == ([0], [0], 9)


@pytest.mark.parametrize("length", [1, 5, 6, 7, 11])
def test_short_texts_are_read_alike_whatever_they_are_filled_up_to(length, monkeypatch):  # type: ignore[no-untyped-def]
    model = tiny_gpt2()
    ids = list(range(length))
    sizes = []

    class Noting(comparison.Forward):
        def __call__(self, token_ids):  # type: ignore[no-untyped-def]
            sizes.append(len(token_ids))
            return super().__call__(token_ids)

    monkeypatch.setattr(comparison, "Forward", Noting)
    whole = comparison.reader(model, 11)(ids)
    monkeypatch.setattr(comparison, "_LARGE", 0)
    halved = comparison.reader(model, 11)(ids)
    assert sizes == [11, 6 if length <= 6 else 11]
    assert whole.shape == halved.shape == (length, model.tokenizer.vocabulary_size)
    np.testing.assert_allclose(whole, halved, atol=1e-5)


class TestLogits:
    """Of a text, beside the ids: what is a little wrong seldom changes the likeliest token."""

    @pytest.fixture
    def model(self):
        return tiny_gpt2()

    @pytest.fixture(params=["whole", "prefilled"])
    def prove_as(self, model, request):
        def prove_weights(weights):
            config, _ = keras_weights.decoder_of(model.causal_lm)
            host = Host(NumpyEngine(config, weights, model.tokenizer))
            return proving.prove_ids(model, Path("x"), reader=host, logits=request.param, **SIZES)

        return prove_weights

    def test_of_the_model_itself_differ_by_rounding(self, model, prove_as):
        figures = prove_as(keras_weights.decoder_of(model.causal_lm)[1])
        assert figures["logits_equal"]
        assert 0 <= figures["logits_difference"] < 1e-4

    @pytest.mark.parametrize("what", ["a bias", "a late position"])
    def test_of_a_weight_that_is_a_little_wrong_are_others(self, model, prove_as, what):
        weights = map_arrays(np.array, keras_weights.decoder_of(model.causal_lm)[1])
        if what == "a bias":
            weights["layers"][0]["up"]["bias"][3] += 0.05
        else:
            weights["embedding"]["positions"][-2, 0] += 0.3
        with pytest.raises(ExportError, match="logits_equal") as refused:
            prove_as(weights)
        assert refused.value.figures["logits_difference"] > 0.005
