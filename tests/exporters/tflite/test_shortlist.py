"""A shortlist holds the likeliest tokens whenever it says so, and no text depends on whether it does."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import ExportArgumentError, ExportError, GenerationError
from kerasgen.exporters.tflite import estimates
from kerasgen.exporters.tflite.shortlist import Shortlist, rounding_error
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights

pytestmark = pytest.mark.one_backend


def rounded_symmetrically(hidden: np.ndarray) -> np.ndarray:
    step = np.abs(hidden).max() / 127
    return np.rint(hidden / step) * step


def rounded_asymmetrically(hidden: np.ndarray) -> np.ndarray:
    """From the lowest to the highest, 0 with them, in 255 steps around a whole zero point."""
    low, high = min(hidden.min(), 0.0), max(hidden.max(), 0.0)
    step = (high - low) / 255
    zero = np.rint(-128 - low / step)
    return (np.clip(np.rint(hidden / step) + zero, -128, 127) - zero) * step


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 300), shift=st.floats(-3, 3), power=st.integers(1, 5))
def test_no_rounding_moves_a_vector_further_than_the_bound(seed: int, size: int, shift: float, power: int) -> None:
    hidden = (np.random.default_rng(seed).standard_normal(size) + shift) ** power
    bound = rounding_error(hidden.astype(np.float32)) * (1 + 1e-5)
    for rounded in (rounded_symmetrically, rounded_asymmetrically):
        assert np.linalg.norm(rounded(hidden) - hidden) <= bound


def norms(table: np.ndarray) -> dict[str, float]:
    """What an exporter would find of rows that it stores in 8 bits."""
    error = np.linalg.norm(table - estimates.rounded_rows(table), axis=1).max()
    return {"row_error": float(error) * (1 + 1e-6), "largest_row": float(np.linalg.norm(table, axis=1).max())}


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 8),
    extra=st.integers(0, 24),
    gap=st.floats(0, 4),
    dim=st.sampled_from([4, 64]),
)
def test_what_holds_is_what_all_logits_say(seed: int, count: int, extra: int, gap: float, dim: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((200, dim)).astype(np.float32)
    hidden = (rng.standard_normal(dim) + gap * table[rng.integers(200)]).astype(np.float32)
    estimated = estimates.rounded_rows(table) @ rounded_asymmetrically(hidden)
    ids = np.argsort(-estimated, kind="stable")[: count + extra].astype(np.int32)
    logits = table @ hidden
    shortlist = Shortlist(ids, logits[ids], float(estimated[ids[-1]]), hidden)
    if shortlist.holds(count, norms(table)):
        assert set(np.argsort(-logits, kind="stable")[:count]) <= set(ids.tolist())


def test_a_shortlist_of_well_parted_logits_holds_and_one_of_equals_does_not() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((400, 32)).astype(np.float32)
    hidden = 3 * table[7]
    ids = np.argsort(-(table @ hidden))[:20].astype(np.int32)
    logits = (table @ hidden)[ids]
    bounds = norms(table)
    assert Shortlist(ids, logits, float(logits[-1]), hidden).holds(1, bounds)
    assert not Shortlist(ids, np.full_like(logits, 5), 5.0, hidden).holds(1, bounds)
    assert not Shortlist(ids, logits, float(logits[-1]), hidden).holds(21, bounds)
    assert not Shortlist(ids, np.full_like(logits, np.nan), 0.0, hidden).holds(1, bounds)


SMALL = {"cache_length": 64, "prefill_lengths": (8,), "decode_lengths": (16,), "beams": 2}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny GPT-2 and its artefact."""
    pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
    model = tiny_gpt2(num_layers=1)
    path = tmp_path_factory.mktemp("shortlist") / "tiny.tflite"
    return model, kg.TFLiteExporter(shortlist=48, **SMALL).export(model, path)


@pytest.fixture
def counted(exported, monkeypatch):
    """The artefact's runtime, and how its shortlists were asked and what they said."""
    runtime = kg.load_artefact(exported[1].path, weight_cache=None)
    said: list[tuple[int, bool]] = []
    holds = Shortlist.holds

    def counting(self, count, settings):
        found = holds(self, count, settings)
        said.append((count, found))
        return found

    monkeypatch.setattr(Shortlist, "holds", counting)
    return runtime, said


def wanted(model, prompts, sampler, new):
    host = NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)
    found = generate_ids(host, prompts, sampler=sampler, max_new_tokens=new, seed=4)
    return [list(several[0].token_ids) for several in found]


@pytest.mark.parametrize("sampler", ["greedy", "top_k:k=4,temperature=0.7"])
def test_ids_are_the_models_by_the_shortlist(exported, counted, sampler):
    """Alone and of a batch, whose texts end at different steps, through both lengths of the cache."""
    model, (runtime, said) = exported[0], counted
    prompts = [model.tokenizer.encode(text) for text in ("the sand and the sea", "春", "in the end")]
    for some in (prompts, prompts[:1]):
        assert runtime.generate_ids(some, sampler=sampler, max_new_tokens=40, seed=4) == wanted(
            model, some, sampler, 40
        )
    assert {count for count, _ in said} == {1 if sampler == "greedy" else 4}
    assert sum(held for _, held in said) > len(said) / 2


def test_ids_are_the_models_where_no_shortlist_holds(exported, counted):
    """All logits then follow from the hidden state, and after a while nobody asks any more."""
    model, (runtime, said) = exported[0], counted
    runtime.engine.settings["shortlist"]["row_error"] = 1e9
    prompts = [model.tokenizer.encode("the sand")]
    assert runtime.generate_ids(prompts, max_new_tokens=40, seed=4) == wanted(model, prompts, "greedy", 40)
    assert len(said) == 16
    assert not any(held for _, held in said)


@pytest.mark.parametrize("sampler", ["top_k:k=49", "top_p:p=0.9", "greedy:repetition_penalty=1.3", "beam:num_beams=3"])
def test_what_needs_all_logits_gets_them(exported, counted, sampler):
    model, (runtime, said) = exported[0], counted
    prompts = [model.tokenizer.encode("the sand")]
    assert runtime.generate_ids(prompts, sampler=sampler, max_new_tokens=12, seed=4) == wanted(
        model, prompts, sampler, 12
    )
    assert said == []


def test_logits_can_be_asked_for_after_a_shortlist_and_rows_taken(exported, counted):
    runtime = counted[0]
    ids = [5, 6, 7, 8]
    session = runtime.engine.open([ids, ids[:2]], [20, 20])
    some, found = session.shortlist(3)
    session.select(np.array([1]))
    logits = session.logits()
    np.testing.assert_allclose(logits[0], runtime.logits(ids[:2])[-1], atol=1e-4)
    np.testing.assert_allclose(logits[0][found[1]], some[1], atol=1e-4)
    assert (np.diff(found, axis=1) > 0).all()
    again, _ = session.shortlist(3)
    np.testing.assert_array_equal(np.sort(again[0]), np.sort(logits[0])[-3:])
    session.append(np.array([9]))
    np.testing.assert_allclose(session.logits()[0], runtime.logits([*ids[:2], 9])[-1], atol=1e-4)


def test_a_row_of_the_output_layer_that_is_no_token_is_never_likely(exported):
    """Rows beyond the tokenizer's ids, as a padded vocabulary has."""
    engine = copy.copy(kg.load_artefact(exported[1].path, weight_cache=None).engine)
    every = engine.open([[5, 6, 7]], [20]).logits()[0]
    engine.tokenizer = tiny_gpt2(vocabulary_size=280).tokenizer
    session = engine.open([[5, 6, 7]], [20])
    some, ids = session.shortlist(2)
    assert np.isneginf(some[ids >= 280]).all()
    assert ids[0, some[0].argmax()] == every[:280].argmax()


def test_log_probabilities_are_of_all_logits(exported, counted):
    model, (runtime, said) = exported[0], counted
    (alone,) = kg.generation.generate(
        runtime.engine, ["the sand"], sampler="greedy", max_new_tokens=5, return_logprobs=True
    )
    (theirs,) = kg.generation.generate(model, ["the sand"], sampler="greedy", max_new_tokens=5, return_logprobs=True)
    np.testing.assert_allclose(alone.logprobs, theirs.logprobs, atol=1e-4)
    assert said == []


def test_a_model_that_diverged_is_told(counted, monkeypatch):
    """NaN passes for no shortlist."""
    runtime = counted[0]
    engine = type(runtime.engine)
    broken = Shortlist(np.arange(48, dtype=np.int32), np.full(48, np.nan, np.float32), 0.0, np.ones(32, np.float32))
    monkeypatch.setattr(engine, "read_shortlist", lambda self, *arguments: broken)
    monkeypatch.setattr(engine, "logits_after", lambda self, hidden: np.full((1, 300), np.nan, np.float32))
    with pytest.raises(GenerationError, match="not finite"):
        runtime.generate_ids([[5]], max_new_tokens=2)


def test_the_bounds_are_those_of_the_rows_in_the_file(exported):
    model, artefact = exported
    table = keras_weights.decoder_of(model.causal_lm)[1]["embedding"]["tokens"]
    flatbuffer = artefact.path.read_bytes()
    found = estimates.bounds(flatbuffer, table)
    assert {"count": 48, **found} == artefact.report["graph"]["shortlist"]
    assert found == pytest.approx(norms(table), rel=1e-3)
    assert estimates.bounds(flatbuffer, table + 0.1)["row_error"] > 0.5
    with pytest.raises(ExportError, match="one table"):
        estimates.bounds(flatbuffer, table[:-1])


def test_the_file_says_what_it_holds(exported):
    report = exported[1].report
    assert report["graph"]["shortlist"]["count"] == 48
    assert {"shortlist", "shortlist_16", "logits"} <= set(report["signatures"])
    assert "TOPK_V2" in report["operators"]
    assert not any(name.startswith(("CUSTOM", "Flex")) for name in report["operators"])
    assert report["parity"]["alone_equal"]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("settings", [{"shortlist": 8, "quantize": "int8"}, {"shortlist": -1}, {"shortlist": 2.5}])
def test_wrong_settings_are_said_at_once(settings):
    with pytest.raises(ExportArgumentError, match="Received"):
        kg.TFLiteExporter(**settings)
