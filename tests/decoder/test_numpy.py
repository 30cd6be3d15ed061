"""The block, by its NumPy executor, computes what transformers computes for each trait of the description."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from described import BY_LENGTH, CONFIGS, TOKENS, drawn

from kerasgen.decoder.numpy import NumpyDecoder, NumpyEngine, greedy

pytestmark = pytest.mark.one_backend

LOGITS = np.load(Path(__file__).parent / "transformers_logits.npz")


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name):
    config = CONFIGS[name]
    found = NumpyDecoder(config, drawn(config)).read(TOKENS)
    assert LOGITS[name].std() > 0.05
    np.testing.assert_allclose(found, LOGITS[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in BY_LENGTH])
def test_a_text_read_in_parts_and_from_a_copy_gives_the_same(name):
    config = CONFIGS[name]
    decoder = NumpyDecoder(config, drawn(config))
    parts = [decoder.read(TOKENS[:7])]
    aside = decoder.copy()
    aside.read([1, 2, 3])
    parts += [decoder.read(TOKENS[7:8]), decoder.read(TOKENS[8:])]
    np.testing.assert_allclose(np.concatenate(parts), LOGITS[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in BY_LENGTH])
def test_texts_of_other_lengths_read_together_are_each_read_as_alone(name):
    config = CONFIGS[name]
    lengths = [9, 1, 3]
    engine = NumpyEngine(config, drawn(config), SimpleNamespace(vocabulary_size=config.vocabulary_size))
    session = engine.open([TOKENS[:length] for length in lengths], [20] * 3)
    for step in range(5):
        if step == 2:  # one text ends, and another stands twice
            lengths = [lengths[row] for row in (2, 0, 0)]
            session.select(np.array([2, 0, 0]))
        wanted = LOGITS[name][[length + step - 1 for length in lengths]]
        np.testing.assert_allclose(session.logits(), wanted, atol=1e-4, rtol=0)
        session.append(np.array([TOKENS[length + step] for length in lengths]))


def test_greedy_stops_at_its_end_token():
    config = CONFIGS["llama"]
    ids = greedy(config, drawn(config), TOKENS, new_tokens=5, end=-1)
    assert ids[0] == LOGITS["llama"][-1].argmax()
    assert len(ids) == 5
    assert greedy(config, drawn(config), TOKENS, new_tokens=5, end=ids[1]) == ids[:2]
