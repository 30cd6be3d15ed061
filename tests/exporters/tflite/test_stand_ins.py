"""A graph is converted without its matrices, and what the file computes is what transformers does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from described import BY_LENGTH, CONFIGS, LLAMA, TOKENS, drawn

from kerasgen.errors import ExportError

tf = pytest.importorskip("tensorflow")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytestmark = [pytest.mark.tensorflow, pytest.mark.one_backend]

LOGITS = np.load(Path(__file__).parents[2] / "decoder" / "transformers_logits.npz")
LENGTH = len(TOKENS)


def converted(config, weights, folder, **more):
    from kerasgen.exporters.tflite import graph

    more = {"prefill_lengths": (), "beams": 0} | more
    stand_ins = graph.write_saved_model(config, weights, folder, cache_length=LENGTH, **more)
    return stand_ins.converted(folder)


def read(flatbuffer, config):
    """Logits after each token, read one by one."""
    decode = interpreter.Interpreter(model_content=flatbuffer).get_signature_runner("decode")
    caches = {
        name: np.zeros(given["shape"], np.float32)
        for name, given in decode.get_input_details().items()
        if name.startswith("kv_cache")
    }
    rows = []
    for place, token in enumerate(TOKENS):
        caches = decode(tokens=np.array([[token]], np.int32), input_pos=np.array([place], np.int32), **caches)
        rows.append(caches.pop("logits")[0, 0])
    return np.stack(rows)


# Their matrices are those of others, and what else is theirs, such as positions and windows, is no stand-in's: the
# graphs that are converted are compared with transformers in `tests/exporters/tensorflow/test_decoder.py`.
ALIKE = ("llama_linear", "llama_llama3", "llama_yarn", "mistral", "qwen2", "gemma", "gemma2_held", "gpt_neox_in_turn")
ALIKE += ("falcon_40b", "falcon_held", "smollm3", "smollm3_held", "starcoder2_windowed", "mixtral", "gpt_oss")


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly if name in ALIKE else ())
        for name in CONFIGS
        if name not in BY_LENGTH
    ],
)
def test_a_file_of_every_description_computes_what_transformers_does(name, tmp_path):
    config = CONFIGS[name]
    flatbuffer = converted(config, drawn(config), tmp_path)
    np.testing.assert_allclose(read(flatbuffer, config), LOGITS[name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_factors_before_and_behind_a_matrix_stay_outside_of_it(tmp_path):
    """Multiplied into it they would make a second matrix, of a table that the output layer shares a second table."""
    from kerasgen.exporters.tflite import quantize

    config = CONFIGS["gemma2"]
    weights = drawn(config)
    assert config.tied_head
    assert config.logit_soft_cap is not None
    flatbuffer = converted(config, weights, tmp_path)
    _, model = quantize.read(flatbuffer)
    table = weights["embedding"]["tokens"]
    contents = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
    assert contents.count(table.tobytes()) == 1
    assert sum(len(content) == table.nbytes for content in contents) == 1


def test_a_converter_that_computes_with_what_stands_in_is_told(tmp_path, monkeypatch):
    from kerasgen.exporters.tflite import graph

    monkeypatch.setattr(graph, "_multiply", lambda hidden, kernel: tf.matmul(hidden, kernel * 3.0, transpose_b=True))
    config = replace(LLAMA, num_layers=1)
    with pytest.raises(ExportError, match=r"of another model: .*kerasgen's"):
        converted(config, drawn(config), tmp_path)


@pytest.mark.slow
def test_signatures_share_what_is_equal(tmp_path):
    from kerasgen.exporters.tflite import quantize

    config = CONFIGS["gpt2"]
    flatbuffer = converted(config, drawn(config), tmp_path, prefill_lengths=(4, 8), decode_lengths=(8,), beams=2)
    _, model = quantize.read(flatbuffer)
    contents = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    assert len(contents) == len(set(contents))
    assert {given.name for given in model.signatureDefs[0].inputs}.isdisjoint({b"vector_0", b"vector_1"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gpt_neox_held", "starcoder2"])
def test_scales_and_biases_of_norms_lie_in_the_products_behind_them(name, tmp_path):
    """Two operations less for each norm, which a small model's step notices."""
    from kerasgen.exporters.tflite import quantize

    config = CONFIGS[name]
    weights = drawn(config)
    _, model = quantize.read(converted(config, weights, tmp_path))
    contents = {bytes(buffer.data) for buffer in model.buffers if buffer.data is not None}
    assert weights["final_norm"]["scale"].tobytes() in contents
    for layer in weights["layers"]:
        for norm in ("attention_norm", "feedforward_norm"):
            if norm in layer:
                assert {layer[norm]["scale"].tobytes(), layer[norm]["bias"].tobytes()}.isdisjoint(contents)
