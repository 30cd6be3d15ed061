"""Write `tests/tuners/peft_losses.json`, the losses of fifty steps in peft: needs torch, transformers and peft.

`python tests/support/write_peft_losses.py`
"""

import json
import re
from pathlib import Path

import peft
import torch
import transformers
from adapter_start import ALPHA, DOCUMENTS, EPSILON, LEARNING_RATE, NAMES, RANK, STEPS, first_matrix
from described import CONFIGS
from write_transformers_logits import COMMON, SETTINGS, state

ROLES = {name: role for role, name in NAMES.items()}


def losses(targets: list[str], *, rank_stabilized: bool = False, dora: bool = False) -> list[float]:
    config = CONFIGS["llama"]
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model("llama", **COMMON, **SETTINGS["llama"])
    )
    model.load_state_dict({name: torch.tensor(array) for name, array in state(config).items()}, strict=False)
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, use_rslora=rank_stabilized, use_dora=dora),
    )
    trained = []
    for name, weight in adapted.named_parameters():
        if "lora_A" in name:
            layer, projection = re.search(r"layers\.(\d+)\.\w+\.(\w+)\.lora_A", name).groups()
            start = first_matrix(int(layer), ROLES[projection], weight.shape[1])
            weight.data = torch.tensor(start.T.copy())
        if weight.requires_grad:
            trained.append(weight)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=EPSILON, weight_decay=0.0)
    count = sum(len(document) - 1 for document in DOCUMENTS)
    found = []
    for _ in range(STEPS):
        total = 0.0
        for document in DOCUMENTS:
            logits = adapted(torch.tensor([document[:-1]])).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(document[1:]), reduction="sum")
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


if __name__ == "__main__":
    attention = [NAMES[role] for role in ("query", "key", "value", "output")]
    recorded = {
        "attention": losses(attention),
        "all": losses(list(NAMES.values())),
        "all_rslora": losses(list(NAMES.values()), rank_stabilized=True),
        "all_dora": losses(list(NAMES.values()), dora=True),
    }
    path = Path(__file__).parents[1] / "tuners" / "peft_losses.json"
    path.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    print({name: (found[0], found[-1]) for name, found in recorded.items()})
