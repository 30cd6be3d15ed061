"""Documents that share a row know nothing of each other, whatever the packing: change one, and no other's moves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import tiny_gpt2, tiny_llama, tiny_opt
from toys import documents_of

from kerasgen.models.base import LanguageModel
from kerasgen.tokens.packing import Packing, TokenBlock, block, pack

pytestmark = pytest.mark.numerical

ROWS, LENGTH = 12, 16
FAMILIES = {"gpt2": tiny_gpt2, "opt": tiny_opt, "llama": tiny_llama}


BFLOAT16 = " in bfloat16"


@cache
def losses_of(family: str) -> Any:
    """A tiny model's losses, and the same compiled, so that every example has one graph."""
    return compiled(
        FAMILIES[family.removesuffix(BFLOAT16)](num_layers=1, hidden_dim=16, max_sequence_length=LENGTH),
        "mixed_bfloat16" if family.endswith(BFLOAT16) else "float32",
    )


def compiled(model: LanguageModel, precision: str) -> Any:
    import keras

    from kerasgen.models.forward import TokenLosses, set_precision

    set_precision(model.causal_lm, precision)
    losses = TokenLosses(model)
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(lambda inputs: losses(inputs, training=False)), jax.jit(lambda inputs: losses.weighted(inputs))
    import tensorflow as tf

    return tf.function(lambda inputs: losses(inputs, training=False)), tf.function(losses.weighted)


def inputs_of(packed: TokenBlock, weights: NDArray[np.float32]) -> dict[str, Any]:
    from keras import ops

    named = {name: getattr(packed, name) for name in ("token_ids", "targets", "positions", "segment_ids")}
    return {name: ops.convert_to_tensor(value) for name, value in (named | {"weights": weights}).items()}


def of_targets(family: str, packed: TokenBlock) -> Any:
    """The nats of each target."""
    losses_of(family)  # the backend is chosen before its tensors are made
    return np.asarray(losses_of(family)[0](inputs_of(packed, np.zeros(packed.targets.shape, np.float32))))


def as_trained(family: str, packed: TokenBlock, counted: NDArray[np.bool_]) -> float:
    """The loss of the targets that count, by the path that training takes."""
    losses_of(family)
    return float(losses_of(family)[1](inputs_of(packed, counted.astype(np.float32))).loss)


@pytest.mark.parametrize(
    ("family", "packing"),
    [
        *((family, packing) for packing in ("best_fit", "concatenate", "none") for family in FAMILIES),
        *((family + BFLOAT16, "best_fit") for family in FAMILIES),
    ],
)
@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(2, 22), min_size=2, max_size=6), seed=st.integers(0, 999), data=st.data())
def test_a_document_that_changes_leaves_every_other_ones_loss_as_it_was_to_the_bit(
    family: str, packing: Packing, counts: list[int], seed: int, data: st.DataObject
) -> None:
    """Those split at the edge of a row too: a piece in another row counts as another document."""
    rng = np.random.default_rng(seed)
    documents = [rng.integers(3, 300, count) for count in counts]
    changed = data.draw(st.integers(0, len(counts) - 1))
    others = [*documents]
    others[changed] = (documents[changed] - 3 + rng.integers(1, 296, counts[changed])) % 297 + 3
    blocks = []
    for written in (documents, others):
        encoded = documents_of([list(map(int, ids)) for ids in written])
        rows = pack(encoded, sequence_length=LENGTH, packing=packing)
        blocks.append(block(encoded, rows, range(len(rows)), size=ROWS))
    before, after = blocks
    np.testing.assert_array_equal(before.documents, after.documents)
    own, real = before.documents == changed, before.segment_ids > 0
    assert (before.targets[own] != after.targets[own]).any()
    was, now = of_targets(family, before), of_targets(family, after)
    np.testing.assert_array_equal(was[real & ~own], now[real & ~own])
    assert (was[own] != now[own]).any(), "it was changed for the model, too"
    assert as_trained(family, before, real & ~own) == as_trained(family, after, real & ~own)


@pytest.mark.slow
def test_a_conversation_that_changes_leaves_every_other_ones_answers_as_they_were_to_the_bit() -> None:
    """Of conversations that share rows, as the chat template writes them."""
    from kerasgen.corpora.conversations import conversation, document
    from kerasgen.models import chat
    from kerasgen.tokens.encoding import encode_documents

    model = tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=96)
    chat.give(model, "chatml", seed=0)
    blocks = []
    for name in ("zog", "zug"):
        talks = []
        for n, ask in enumerate(("who sat?", f"the {name}?", "the mat?")):
            answer = f"the {name} sat" if n == 1 else "on the mat"
            turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
            talks.append(document(conversation(turns), id=str(n)))
        encoded = encode_documents(talks, model.tokenizer, chat.needed(model))
        rows = pack(encoded, sequence_length=96, packing="best_fit")
        assert len(rows) < len(talks)
        blocks.append(block(encoded, rows, range(len(rows)), size=2))
    before, after = blocks
    np.testing.assert_array_equal(before.documents, after.documents)
    np.testing.assert_array_equal(before.weights > 0, after.weights > 0)
    own, learned = before.documents == 1, before.weights > 0
    losses, weighted = compiled(model, "float32")
    was, now = (np.asarray(losses(inputs_of(each, np.zeros_like(each.weights)))) for each in blocks)
    real = before.segment_ids > 0
    np.testing.assert_array_equal(was[real & ~own], now[real & ~own])
    assert (was[own & learned] != now[own & learned]).any()
    counted = (learned & ~own).astype(np.float32)
    assert float(weighted(inputs_of(before, counted)).loss) == float(weighted(inputs_of(after, counted)).loss)
