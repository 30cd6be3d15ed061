"""GPT-2 as a decoder family: its activation, its position table, and its names in transformers format.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.models.families.base import DecoderFamily, DecoderShape, DecoderWeights


class GPT2Family(DecoderFamily):
    """GPT-2: tanh GELU, and kernels that transformers keeps as `(in, out)` too."""

    name = "gpt2"
    activation = "gelu_approximate"
    gguf_architecture = "gpt2"

    def position_table(self, backbone: Any) -> Any:
        """Return the variable of the position embeddings."""
        return backbone.position_embedding.position_embeddings

    def transformers_config(self, shape: DecoderShape, *, start: int, end: int, pad: int) -> dict[str, Any]:
        """Return the configuration of a `GPT2LMHeadModel`."""
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": shape.vocabulary_size,
            "n_positions": shape.max_sequence_length,
            "n_ctx": shape.max_sequence_length,
            "n_embd": shape.hidden_dim,
            "n_layer": shape.num_layers,
            "n_head": shape.num_heads,
            "n_inner": shape.intermediate_dim,
            "activation_function": "gelu_new",
            # Those of GPT-2; they matter to who tunes it further. KerasHub's converter asks for the first.
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
            "layer_norm_epsilon": shape.layer_norm_epsilon,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }

    def transformers_tensors(self, weights: DecoderWeights) -> Mapping[str, Any]:
        """Return the tensors of a `GPT2LMHeadModel`, whose head is tied and therefore absent."""
        tensors = {
            "transformer.wte.weight": weights.token_embedding,
            "transformer.wpe.weight": weights.position_embedding,
            "transformer.ln_f.weight": weights.final_gamma,
            "transformer.ln_f.bias": weights.final_beta,
        }
        for index, layer in enumerate(weights.layers):
            tensors |= {
                f"transformer.h.{index}.{name}": tensor
                for name, tensor in {
                    "ln_1.weight": layer.attention_gamma,
                    "ln_1.bias": layer.attention_beta,
                    "attn.c_attn.weight": layer.qkv_kernel,
                    "attn.c_attn.bias": layer.qkv_bias,
                    "attn.c_proj.weight": layer.output_kernel,
                    "attn.c_proj.bias": layer.output_bias,
                    "ln_2.weight": layer.feedforward_gamma,
                    "ln_2.bias": layer.feedforward_beta,
                    "mlp.c_fc.weight": layer.up_kernel,
                    "mlp.c_fc.bias": layer.up_bias,
                    "mlp.c_proj.weight": layer.down_kernel,
                    "mlp.c_proj.bias": layer.down_bias,
                }.items()
            }
        return tensors


FAMILY = GPT2Family()
