"""A proof lets a right artefact pass and stops a broken one: here a decoder in NumPy stands for the fresh process."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen.decoder.numpy import NumpyDecoder, NumpyEngine
from kerasgen.decoder.weights import map_arrays
from kerasgen.errors import ExportError
from kerasgen.exporters.parity import comparison, quantized
from kerasgen.exporters.parity import draws as drawing
from kerasgen.exporters.parity import ids as proving
from kerasgen.generation import generate_ids
from kerasgen.models.families import family_of
from kerasgen.models.families.base import named
from kerasgen.samplers import arithmetic
from kerasgen.samplers.resolving import resolve

pytestmark = pytest.mark.one_backend
SIZES = {"chunks": (8, 16), "longest": 128}


@pytest.fixture(scope="module")
def engine() -> NumpyEngine:
    model = tiny_gpt2()
    family = family_of(model.causal_lm)
    return NumpyEngine(family.shape(model.causal_lm).config, named(family.weights(model.causal_lm)), model.tokenizer)


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

    def generate_ids(self, prompts, *, end_token_id=None, in_graph=False, **settings):
        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        found = generate_ids(engine, prompts, **{"sampler": "greedy"} | settings)
        return [list(several[0].token_ids) for several in found]

    def logits(self, token_ids, prefilled=1):
        read = [*self.prefill(token_ids[: prefilled - 1]), *token_ids[prefilled - 1 :]]
        return NumpyDecoder(self.engine.config, self.engine.weights).read(read)[prefilled - 1 :]

    def branched_logits(self, prompt, texts):
        texts = [[*prompt, *self.beams(text)] for text in texts]
        return np.stack([self.logits(text)[len(prompt) :] for text in texts])

    def ask(self, path, calls=(), *, logits=(), settings=None, timeout=0.0):
        found = []
        for call in map(dict, calls):
            if "end_token_of" in call:
                number, place = call.pop("end_token_of")
                call["end_token_id"] = found[number][0][place]
            self.calls.append(call)
            found.append(self.generate_ids(**call))
        read = [
            (self.logits if "token_ids" in one else self.branched_logits)(**one)
            for one in ({"token_ids": one} if isinstance(one, list) else one for one in logits)
        ]
        return proving.Answer(found, [1.0] * len(found), read, [], 0.1, 1)


def changed(engine: NumpyEngine) -> NumpyEngine:
    """The same decoder with every weight a little off."""
    weights = map_arrays(lambda array: (array * 1.02).astype(np.float32), engine.weights)
    return NumpyEngine(engine.config, weights, engine.tokenizer)


def test_greedy_texts_are_compared_to_their_full_length_although_the_model_would_end_them(engine, monkeypatch):
    prompt = comparison.prompts(engine.tokenizer, **SIZES)[0]
    early = comparison.ids_of(engine, [prompt], "greedy", 9)[0][3]
    host = Host(engine.ending_at(early))
    monkeypatch.setattr(proving, "ask", host.ask)
    figures = proving.prove_ids(engine.ending_at(early), Path("x"), **SIZES)
    assert figures["new_tokens"] == [
        min(128, 127 - length) for length in figures["prompt_lengths"]
    ]  # the start token is one of the 128 positions
    assert all(figures[f"{what}_equal"] for what in ("alone", "together", "ended"))
    ended = [call for call in host.calls if call.get("end_token_id", 300) < 300]
    assert len(ended) == 1


def test_prompts_fill_a_chunk_exactly_and_take_two_successive_ones(engine):
    """A prefill reads all of a prompt but its last token."""
    lengths = [1 + len(one) for one in comparison.prompts(engine.tokenizer, **SIZES)]
    assert 8 + 1 in lengths
    assert any(length - 1 > 16 for length in lengths)
    assert any(length < 8 for length in lengths)


@pytest.mark.parametrize("seeded", [("top_p:p=0.8",), ("min_p:p=0.1",), ("random",), ("top_k:k=5",)])
def test_weights_that_are_a_little_off_are_found(engine, seeded, monkeypatch):
    monkeypatch.setattr(proving, "ask", Host(changed(engine)).ask)
    with pytest.raises(ExportError, match="alone_equal") as caught:
        proving.prove_ids(engine, Path("x"), seeded=seeded, **SIZES)
    assert list(caught.value.figures["draws"]) == list(seeded)
    monkeypatch.setattr(proving, "ask", Host(engine).ask)
    assert proving.prove_ids(engine, Path("x"), seeded=seeded, **SIZES)["draws_distributed"]


def test_a_search_with_another_length_penalty_than_asked_for_is_found(engine, monkeypatch):
    asked = "beam:num_beams=4,length_penalty=0.3"
    host = Host(engine)
    monkeypatch.setattr(proving, "ask", host.ask)
    assert proving.prove_ids(engine, Path("x"), beams=asked, seeded=(), **SIZES)["beams_equal"]
    assert asked in [call.get("sampler") for call in host.calls]


def test_a_loop_in_the_graph_that_goes_another_way_is_found(engine, monkeypatch):
    class Broken(Host):
        def generate_ids(self, prompts, *, in_graph=False, **settings):
            found = super().generate_ids(prompts, **settings)
            return [[*ids[:-1], ids[-1] ^ 1] for ids in found] if in_graph else found

    monkeypatch.setattr(proving, "ask", Host(engine).ask)
    assert proving.prove_loop(engine, Path("x"), "top_k", **SIZES)["loop_ended_equal"]
    monkeypatch.setattr(proving, "ask", Broken(engine).ask)
    with pytest.raises(ExportError, match="other ids than the loop around it"):
        proving.prove_loop(engine, Path("x"), "top_k", **SIZES)


LIMITS = quantized.Limits(0.05, 0.85, 1.5, 0.02, disagreement=0.02)


def close(engine, host, monkeypatch, **settings):
    def logits(model, window):
        return NumpyDecoder(engine.config, engine.weights).read(window).astype(np.float64)

    monkeypatch.setattr(comparison, "logits", logits)
    monkeypatch.setattr(quantized, "ask", host.ask)
    settings = {"beams": 4, "limits": LIMITS} | settings
    return quantized.prove_closeness(engine, Path("x"), **SIZES, **settings)


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
    off = figures["largest_logit_difference_in_deviations"]
    assert off > 0.01
    quantized._check(figures | {"signatures": {"beams": 0.49 * off}}, limits)
    with pytest.raises(ExportError, match="signatures of beams"):
        quantized._check(figures | {"signatures": {"beams": 0.51 * off}}, limits)


def test_a_held_out_text_is_read_in_windows(engine, monkeypatch):
    figures = close(engine, Host(engine), monkeypatch, text="the sand and the sea " * 40)
    assert figures["tokens"] > 2 * 128
    assert figures["bits_per_character"] == pytest.approx(figures["bits_per_character_of_the_model"])


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


SKEWED = np.concatenate([[9.0, 6.0, 2.0, -1.0, -4.0], np.linspace(-6, -9, 60)])
SAMPLERS = ["top_k:k=5", "top_k:k=5,temperature=0.5", "top_p:p=0.9", "min_p:p=0.01", "random"]


def drawn(logits, sampler, seed):
    """Draws by the library's own arithmetic in float32."""
    spec, rows = resolve(sampler), np.repeat(logits[None].astype(np.float32), 200, axis=0)
    uniforms = np.random.default_rng(seed).random(200).astype(np.float32)
    return [[int(token)] for token in spec.choose(np, rows / np.float32(spec.temperature), uniforms)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("flat", [False, True])
def test_right_draws_pass_however_skewed_or_flat_the_logits_are(sampler, flat):
    """Where most tokens are expected far less than once in 200 draws, the plain statistic rejects many."""
    logits = SKEWED / 9 if flat else SKEWED
    assert all(drawing.figures(drawn(logits, sampler, seed), logits, sampler)["distributed"] for seed in range(300))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_of_another_distribution_do_not_pass(sampler):
    """A temperature of 2 where 1 was asked for."""
    logits = SKEWED / 2
    wrong = drawn(logits / 2, sampler, 1)
    assert not drawing.figures(wrong, logits, sampler)["distributed"]


def test_a_gap_of_800_between_logits_leaves_no_nan():
    logits = np.array([0.0, -800.0, -900.0, -1000.0, -1100.0, -1200.0])
    found = drawing.figures([[0]] * 200, logits, "top_k:k=5")
    assert found["distributed"]
    assert math.isfinite(found["chi_square"])
    wrong = drawing.figures([[0]] * 199 + [[1]], logits, "top_k:k=5")
    assert not wrong["distributed"]
    assert wrong["chi_square"] == math.inf


def test_the_probabilities_are_those_of_the_librarys_masks():
    logits = np.random.default_rng(1).normal(size=40)
    for sampler, mask in (
        ("top_k:k=7", lambda row: arithmetic.top_k_mask(np, row, 7)),
        ("top_p:p=0.6", lambda row: arithmetic.top_p_mask(np, row, 0.6)),
        ("min_p:p=0.2", lambda row: arithmetic.min_p_mask(np, row, 0.2)),
    ):
        np.testing.assert_allclose(
            drawing.probabilities(logits, sampler), arithmetic.softmax(np, mask(logits[None]))[0], atol=1e-9
        )


def test_a_process_that_takes_too_long_is_an_export_error(tmp_path, monkeypatch):
    def run(*arguments, timeout, **settings):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ExportError, match="did not finish"):
        proving.ask(tmp_path / "x", timeout=1.0)


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


def test_of_texts_read_together_as_many_tokens_are_compared_as_fit():
    """A prompt after which fewer fit doesn't shorten the others."""
    some, counts = [[1], [2, 2], [3] * 90], [30, 30, 10]
    expected = [[(row * 7 + place) % 50 for place in range(count)] for row, count in enumerate(counts)]
    asked = proving._Asked()
    proving._ask_greedily(asked, some, counts, expected, 300)
    together = [(asked.calls[place], ids) for name, place, ids in asked.wanted if name != "alone"]
    assert [call["prompts"] for call, _ in together] == [some[:2]] * 2
    assert [call["max_new_tokens"] for call, _ in together] == [30] * 2
    assert together[0][1] == expected[:2]
    assert [place for name, place, _ in asked.wanted if name == "alone"] == [0, 1, 2]
