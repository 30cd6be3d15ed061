"""OPT as a decoder family: its activation, its position table, and its names in transformers format.

Source: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.models.families.base import DecoderFamily, DecoderShape, DecoderWeights

# OPT inherits fairseq's positions: row 2 belongs to the first token, rows 0 and 1 to nobody.
POSITION_OFFSET = 2


class OPTFamily(DecoderFamily):
    """OPT: ReLU, and kernels that transformers keeps as `(out, in)`. llama.cpp has no such architecture."""

    name = "opt"
    activation = "relu"

    def position_table(self, backbone: Any) -> Any:
        """Return the variable of the position embeddings."""
        return backbone.embeddings.position_embedding.position_embeddings

    def transformers_config(self, shape: DecoderShape, *, start: int, end: int, pad: int) -> dict[str, Any]:
        """Return the configuration of an `OPTForCausalLM`."""
        return {
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "vocab_size": shape.vocabulary_size,
            "max_position_embeddings": shape.max_sequence_length,
            "hidden_size": shape.hidden_dim,
            "word_embed_proj_dim": shape.hidden_dim,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "ffn_dim": shape.intermediate_dim,
            "activation_function": "relu",
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }

    def transformers_tensors(self, weights: DecoderWeights) -> Mapping[str, Any]:
        """Return the tensors of an `OPTForCausalLM`, whose head is tied and therefore absent."""
        import numpy as np

        positions = weights.position_embedding
        nobody = np.zeros((POSITION_OFFSET, positions.shape[1]), positions.dtype)
        tensors = {
            "model.decoder.embed_tokens.weight": weights.token_embedding,
            "model.decoder.embed_positions.weight": np.concatenate([nobody, positions]),
            "model.decoder.final_layer_norm.weight": weights.final_gamma,
            "model.decoder.final_layer_norm.bias": weights.final_beta,
        }
        for index, layer in enumerate(weights.layers):
            queries, keys, values = np.split(layer.qkv_kernel, 3, axis=1)
            query_bias, key_bias, value_bias = np.split(layer.qkv_bias, 3)
            tensors |= {
                f"model.decoder.layers.{index}.{name}": np.ascontiguousarray(tensor)
                for name, tensor in {
                    "self_attn_layer_norm.weight": layer.attention_gamma,
                    "self_attn_layer_norm.bias": layer.attention_beta,
                    "self_attn.q_proj.weight": queries.T,
                    "self_attn.q_proj.bias": query_bias,
                    "self_attn.k_proj.weight": keys.T,
                    "self_attn.k_proj.bias": key_bias,
                    "self_attn.v_proj.weight": values.T,
                    "self_attn.v_proj.bias": value_bias,
                    "self_attn.out_proj.weight": layer.output_kernel.T,
                    "self_attn.out_proj.bias": layer.output_bias,
                    "final_layer_norm.weight": layer.feedforward_gamma,
                    "final_layer_norm.bias": layer.feedforward_beta,
                    "fc1.weight": layer.up_kernel.T,
                    "fc1.bias": layer.up_bias,
                    "fc2.weight": layer.down_kernel.T,
                    "fc2.bias": layer.down_bias,
                }.items()
            }
        return tensors


FAMILY = OPTFamily()
