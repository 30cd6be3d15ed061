"""TensorFlow's executor of the block computes what KerasHub does, as rows and as columns, and refuses other traits."""

import numpy as np
import pytest
from described import CONFIGS, GPT2, LLAMA
from tiny import tiny_gpt2, tiny_opt

from kerasgen.decoder.fusing import fused
from kerasgen.decoder.weights import map_arrays, map_named
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import keras_weights

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.one_backend]

IDS = np.array([[3, 17, 4, 29, 8], [2, 30, 13, 9, 25]], np.int32)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_hidden_states_are_those_of_kerashub(make):
    from kerasgen.exporters.tensorflow import decoder

    model = make(num_layers=2)
    config, weights = keras_weights.decoder_of(model.causal_lm)
    weights = fused(weights)
    wanted = np.asarray(model.backbone({"token_ids": IDS, "padding_mask": np.ones_like(IDS)}))

    def of_rows(index, q, k, v):
        scores = tf.matmul(q, k, transpose_b=True)
        return tf.matmul(tf.nn.softmax(scores + np.triu(np.full((5, 5), -1e9, np.float32), 1)), v)

    def of_columns(index, q, k, v):  # `(rows, num_heads, head_dim)`, the rows those of both texts
        by_text = [tf.transpose(tf.reshape(x, (2, 5, *x.shape[1:])), (0, 2, 1, 3)) for x in (q, k, v)]
        return tf.reshape(tf.transpose(of_rows(index, *by_text), (0, 2, 1, 3)), q.shape)

    rows = decoder.embed(map_arrays(tf.constant, weights), IDS, np.arange(5))
    found = decoder.through(config, map_arrays(tf.constant, weights), rows, decoder.Rows(config, of_rows))
    np.testing.assert_allclose(found, wanted, atol=2e-5)

    transposed = decoder.as_columns(map_named(lambda name, x: x.T if name.endswith("kernel") else x, weights))
    columns = tf.transpose(tf.reshape(rows, (10, -1)))
    found = decoder.through(config, transposed, columns, decoder.Columns(config, of_columns))
    np.testing.assert_allclose(tf.transpose(found), np.reshape(wanted, (10, -1)), atol=2e-5)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.positions != GPT2.positions])
def test_a_decoder_with_traits_that_no_graph_computes_is_refused(name):
    from kerasgen.exporters.tensorflow.decoder import require_computable

    with pytest.raises(ModelArgumentError, match="Export it in another format"):
        require_computable(CONFIGS[name])


def test_all_that_is_left_out_is_named():
    from kerasgen.exporters.tensorflow.decoder import require_computable

    require_computable(GPT2)
    with pytest.raises(ModelArgumentError, match=r"not learned, key-value heads.* share, an output layer of its own"):
        require_computable(LLAMA)
