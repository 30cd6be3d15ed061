"""One process that generates with one library, when it is told to: `python -m benchmarks.generate_contenders NAME JOB`.

The job is a JSON file with the model's shape and the seed of its weights. A line on standard input is a task as JSON;
the answer is a line with the seconds that it took and the ids that came.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Ids = list[list[int]]
Generate = Callable[[dict[str, Any]], Ids]
END = 0


def arrays(job: dict[str, Any]) -> dict[str, Any]:
    """The weights of a GPT-2 in transformers' names and layout, loud enough that greedy text does not stand still."""
    rng = np.random.default_rng(job["seed"])
    dim = job["dim"]

    def draw(*shape: int, scale: float = 0.08) -> Any:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    found = {
        "transformer.wte.weight": draw(job["vocabulary"], dim),
        "transformer.wpe.weight": draw(job["positions"], dim),
    }
    norms = ["transformer.ln_f"]
    sizes = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for base in (f"transformer.h.{n}" for n in range(job["layers"])):
        norms += [f"{base}.ln_1", f"{base}.ln_2"]
        for name, (rows, columns) in sizes.items():
            found[f"{base}.{name}.weight"] = draw(rows * dim, columns * dim)
            found[f"{base}.{name}.bias"] = draw(columns * dim, scale=0.02)
    for name in norms:
        found |= {f"{name}.weight": np.ones(dim, dtype=np.float32), f"{name}.bias": draw(dim, scale=0.02)}
    return found


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_id = pad_token_id = END
    end_token_ids = (END,)

    def __init__(self, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size

    def digest(self) -> str:
        """Whose numbers they are."""
        return f"numbers {self.vocabulary_size}"


def keras_model(job: dict[str, Any]) -> Any:
    """A `keras_hub` GPT-2 with these weights, or the real model that the job names."""
    import keras_hub

    if "model" in job:
        from kerasgen.models.resolving import resolve

        return resolve(job["model"]).load().causal_lm
    dim, heads = job["dim"], job["heads"]
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=job["vocabulary"],
        num_layers=job["layers"],
        num_heads=heads,
        hidden_dim=dim,
        intermediate_dim=4 * dim,
        max_sequence_length=job["positions"],
        dropout=0.0,
        dtype="float32",
    )
    weights = arrays(job)
    backbone.token_embedding.embeddings.assign(weights["transformer.wte.weight"])
    backbone.position_embedding.position_embeddings.assign(weights["transformer.wpe.weight"])

    def norm(layer: Any, name: str) -> None:
        layer.gamma.assign(weights[f"{name}.weight"])
        layer.beta.assign(weights[f"{name}.bias"])

    def dense(layer: Any, kernel: Any, bias: Any) -> None:
        layer.kernel.assign(kernel.reshape(layer.kernel.shape))
        layer.bias.assign(bias.reshape(layer.bias.shape))

    norm(backbone.layer_norm, "transformer.ln_f")
    for n, layer in enumerate(backbone.transformer_layers):
        base, attention = f"transformer.h.{n}", layer._self_attention_layer
        norm(layer._self_attention_layer_norm, f"{base}.ln_1")
        norm(layer._feedforward_layer_norm, f"{base}.ln_2")
        kernels = np.split(weights[f"{base}.attn.c_attn.weight"], 3, axis=1)
        biases = np.split(weights[f"{base}.attn.c_attn.bias"], 3)
        parts = (attention._query_dense, attention._key_dense, attention._value_dense)
        for part, kernel, bias in zip(parts, kernels, biases, strict=True):
            dense(part, kernel, bias)
        for part, name in (
            (attention._output_dense, "attn.c_proj"),
            (layer._feedforward_intermediate_dense, "mlp.c_fc"),
            (layer._feedforward_output_dense, "mlp.c_proj"),
        ):
            dense(part, weights[f"{base}.{name}.weight"], weights[f"{base}.{name}.bias"])
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def kerasgen_generates(job: dict[str, Any]) -> Generate:
    """Through kerasgen's loops, with a limit of its own for each text."""
    from kerasgen.generation import batches, beam_loop, engine_registry, loops
    from kerasgen.models.base import LanguageModel
    from kerasgen.samplers.lookahead import Beam
    from kerasgen.samplers.resolving import resolve

    model = LanguageModel(keras_model(job), Numbers(job["vocabulary"]), "benchmark")  # type: ignore[arg-type]

    def run(task: dict[str, Any]) -> Ids:
        engine, spec, prompts = engine_registry.resolve(model), resolve(task["sampler"]), task["prompts"]
        limits = [len(prompt) + more for prompt, more in zip(prompts, task["lengths"], strict=True)]
        rows: Ids = [[] for _ in prompts]
        for batch in batches.batches(prompts, limits, [0] * len(prompts), 32):
            if isinstance(spec, Beam):
                for place, (best, *_) in zip(batch.places, beam_loop.search_beams(engine, batch, spec), strict=True):
                    rows[place] = list(best.token_ids)
                continue
            for chosen in loops.sample(engine, batch, spec, loops.Texts(batch, engine.tokenizer)):
                for row, token_id in zip(chosen.rows.tolist(), chosen.token_ids.tolist(), strict=True):
                    rows[batch.places[row]].append(token_id)
        return rows

    run.compilations = lambda: engine_registry.resolve(model).compilations  # type: ignore[attr-defined]
    return run


def keras_hub_generates(job: dict[str, Any]) -> Generate:
    """Through KerasHub's `generate`: one batch has one length, which its longest prompt and text decide."""
    import keras_hub

    causal_lm = keras_model(job)
    kinds = {
        "greedy": keras_hub.samplers.GreedySampler,
        "beam": lambda: keras_hub.samplers.BeamSampler(num_beams=5),
        "top_p": lambda: keras_hub.samplers.TopPSampler(p=0.9, seed=0),
    }
    compiled: list[str] = []

    def run(task: dict[str, Any]) -> Ids:
        kind = task["sampler"].split(":")[0]
        if compiled[-1:] != [kind]:
            compiled.append(kind)
            causal_lm.compile(sampler=kinds[kind]())
        starts = [len(prompt) for prompt in task["prompts"]]
        longest = max(start + more for start, more in zip(starts, task["lengths"], strict=True))
        token_ids = np.zeros((len(starts), longest), dtype="int32")
        for row, prompt in enumerate(task["prompts"]):
            token_ids[row, : len(prompt)] = prompt
        mask = (np.arange(longest) < np.array(starts)[:, None]).astype("int32")
        whole = causal_lm.generate({"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=None)["token_ids"]
        rows = zip(np.asarray(whole), starts, task["lengths"], strict=True)
        return [row[start : start + more].tolist() for row, start, more in rows]

    return run


def transformers_generates(job: dict[str, Any], *, dtype: str = "float32", cache: str | None = None) -> Generate:
    """Through transformers' `generate`, prompts padded on the left, until the longest text is done.

    Args:
        job: the shape of the model.
        dtype: of weights and products.
        cache: its `cache_implementation`, such as `"static"`; None for its own choice.
    """
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(job["threads"])
    if "model" in job:
        from kerasgen.models.smollm2 import Smollm2

        file = Smollm2().file()
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    else:
        config = GPT2Config(
            vocab_size=job["vocabulary"],
            n_positions=job["positions"],
            n_embd=job["dim"],
            n_layer=job["layers"],
            n_head=job["heads"],
            bos_token_id=END,
            eos_token_id=END,
        )
        model = GPT2LMHeadModel(config).eval()
        model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays(job).items()}, strict=False)
        model.tie_weights()
    model = model.to(getattr(torch, dtype))
    kinds: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "beam": {"num_beams": 5, "do_sample": False},
        "top_p": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    }

    def run(task: dict[str, Any]) -> Ids:
        longest, most = max(map(len, task["prompts"])), max(task["lengths"])
        token_ids = torch.zeros((len(task["prompts"]), longest), dtype=torch.long)
        mask = torch.zeros_like(token_ids)
        for row, prompt in enumerate(task["prompts"]):
            token_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        settings = kinds[task["sampler"].split(":")[0]]
        # A static cache is compiled where the device gains by it, which a CPU without a compiler can't.
        settings |= {"cache_implementation": cache, "disable_compile": True} if cache else {}
        with torch.inference_mode():
            found = model.generate(
                token_ids, attention_mask=mask, max_new_tokens=most, min_new_tokens=most, pad_token_id=END, **settings
            )
        return [row[:more] for row, more in zip(found[:, longest:].tolist(), task["lengths"], strict=True)]

    return run


def ctranslate2_generates(job: dict[str, Any]) -> Generate:
    """Through CTranslate2's generator, in float32 unless the job says otherwise."""
    import ctranslate2
    from ctranslate2.specs import common_spec, transformer_spec

    weights = arrays(job)
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        job["layers"], job["heads"], pre_norm=True, activation=common_spec.Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = weights["transformer.wte.weight"]
    decoder.position_encodings.encodings = weights["transformer.wpe.weight"]

    def norm(target: Any, name: str) -> None:
        target.gamma, target.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def linear(target: Any, name: str) -> None:
        target.weight, target.bias = np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"]

    norm(decoder.layer_norm, "transformer.ln_f")
    for n, layer in enumerate(decoder.layer):
        base = f"transformer.h.{n}"
        norm(layer.self_attention.layer_norm, f"{base}.ln_1")
        linear(layer.self_attention.linear[0], f"{base}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"{base}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"{base}.ln_2")
        linear(layer.ffn.linear_0, f"{base}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"{base}.mlp.c_proj")
    names = [f"t{n}" for n in range(job["vocabulary"])]
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = names[END]
    spec.register_vocabulary(names)
    folder = tempfile.mkdtemp()
    spec.validate()
    spec.save(folder)
    generator = ctranslate2.Generator(
        folder, device="cpu", compute_type=job.get("compute_type", "float32"), intra_threads=job["threads"]
    )

    def run(task: dict[str, Any]) -> Ids:
        most = max(task["lengths"])
        found = generator.generate_batch(
            [[names[token] for token in prompt] for prompt in task["prompts"]],
            max_length=most,
            min_length=most,
            include_prompt_in_result=False,
            beam_size=int(task["sampler"].split("=")[-1]) if task["sampler"].startswith("beam") else 1,
        )
        return [one.sequences_ids[0][:more] for one, more in zip(found, task["lengths"], strict=True)]

    return run


def write_preset(job: dict[str, Any]) -> None:
    """Write a KerasHub preset with these weights, and GPT-2's vocabulary as far as the model has ids."""
    import keras_hub

    from benchmarks.harness import gpt2_files

    vocabulary, merges = gpt2_files()
    ids = json.loads(vocabulary.read_text(encoding="utf-8"))
    end, size = "<|endoftext|>", job["vocabulary"]
    kept = {token: number for token, number in ids.items() if number < size - 1} | {end: size - 1}
    lines = [line for line in merges.read_text(encoding="utf-8").splitlines() if not line.startswith("#version")]
    tokenizer = keras_hub.tokenizers.GPT2Tokenizer(vocabulary=kept, merges=lines[: size - 257])
    causal_lm = keras_hub.models.GPT2CausalLM(
        backbone=keras_model(job).backbone,
        preprocessor=keras_hub.models.GPT2CausalLMPreprocessor(tokenizer),
    )
    causal_lm.save_to_preset(job["preset"])


def kerasgen_begins(job: dict[str, Any]) -> Generate:
    """From a preset's directory to a token, as a person would write it."""
    import kerasgen as kg

    pipe = kg.Pipeline(model=job["preset"], sampler="greedy")

    def run(task: dict[str, Any]) -> Ids:
        (found,) = pipe.generate([task["text"]], max_new_tokens=1, return_logprobs=True)
        return [list(found.token_ids)]

    return run


def keras_hub_begins(job: dict[str, Any]) -> Generate:
    """The same with KerasHub, told the length of the text."""
    import keras_hub

    causal_lm = keras_hub.models.CausalLM.from_preset(job["preset"])
    causal_lm.compile(sampler="greedy")

    def run(task: dict[str, Any]) -> Ids:
        tokenizer = causal_lm.preprocessor.tokenizer
        length = len(tokenizer(task["text"])) + 1  # the start token
        text = causal_lm.generate(task["text"], max_length=length + 1)
        return [np.asarray(tokenizer(text[len(task["text"]) :])).tolist()]

    return run


CONTENDERS: dict[str, tuple[Callable[[dict[str, Any]], Generate], str]] = {
    "kerasgen": (kerasgen_generates, "jax"),
    "keras_hub jax": (keras_hub_generates, "jax"),
    "keras_hub tensorflow": (keras_hub_generates, "tensorflow"),
    "transformers": (transformers_generates, ""),
    "transformers static": (partial(transformers_generates, cache="static"), ""),
    "transformers bf16": (partial(transformers_generates, dtype="bfloat16"), ""),
    "ctranslate2": (ctranslate2_generates, ""),
    "kerasgen begins": (kerasgen_begins, "jax"),
    "keras_hub jax begins": (keras_hub_begins, "jax"),
}


def main(arguments: Sequence[str]) -> None:
    """Answer tasks until standard input ends."""
    if arguments[0] == "write preset":
        os.environ["KERAS_BACKEND"] = "jax"
        write_preset(json.loads(Path(arguments[1]).read_text()))
        return
    make, backend = CONTENDERS[arguments[0]]
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    run = make(json.loads(Path(arguments[1]).read_text()))
    for line in sys.stdin:
        begun, busy = time.perf_counter(), time.process_time()
        token_ids = run(json.loads(line))
        answer = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "ids": token_ids}
        answer["compilations"] = getattr(run, "compilations", lambda: None)()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
