"""Write `llama_logits.npy`, what transformers computes from a tiny Llama's exported directory: needs torch.

`KERAS_BACKEND=jax python tests/support/write_llama_logits.py`
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from llamas import TOKENS, llama

import kerasgen as kg

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = kg.TransformersExporter().export(llama(), Path(folder) / "hf").path
        model = transformers.AutoModelForCausalLM.from_pretrained(path).float().eval()
        with torch.no_grad():
            found = model(torch.tensor([TOKENS])).logits[0].numpy()
    place = Path(__file__).parents[1] / "exporters" / "transformers" / "llama_logits.npy"
    np.save(place, found[:, ::8])
    print(f"{place}: {found[:, ::8].shape} by transformers {transformers.__version__}")
