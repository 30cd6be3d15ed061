"""One process that decodes with one engine when it is told to: `python -m benchmarks.decode_contenders NAME JOB`.

The job is a JSON file with the model's shape and the folder of the artefacts; `export` writes them, and `quality` says
what the starter loses as an int8 artefact.
"""

from __future__ import annotations

import ctypes
import http.client
import itertools
import json
import os
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import generate_contenders
from benchmarks.harness import DATA, Figures, gpt2_files
from kerasgen.devices import peak_memory_bytes

Ask = Callable[[dict[str, Any]], Figures]
FILES = {"tflite float32": "float32.tflite", "tflite int8": "int8.tflite", "saved_model": "saved_model"}
FILES |= {"gguf q8_0": "q8_0.gguf"}
STRICT = " strict"  # after an artefact's name: computed as its proof does


def read_memory(job: dict[str, Any]) -> Ask:
    """Reads an array far larger than the caches by loops of loads, with nothing to compute: the faster one counts.

    One is the C library's search for a byte that isn't there, and one NumPy's maximum. A product with a vector reads
    more slowly than these, so that shares of its rate were too high.
    """
    array = np.ones(job["megabytes"] * 2**18, dtype=np.float32)
    find: Any = ctypes.CDLL(None).memchr
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def run(task: dict[str, Any]) -> Figures:
        seconds = []
        for turn in range(4):
            begun = time.perf_counter()
            if turn % 2:
                find(array.ctypes.data, 1, array.nbytes)
            else:
                array.max()
            seconds.append(time.perf_counter() - begun)
        return {"bytes": array.nbytes, "seconds": min(seconds), "cpu_seconds": min(seconds)}

    return run


def loaded(job: dict[str, Any], name: str) -> Ask:
    """An artefact in its own runtime, whose texts don't end before they are as long as asked for."""
    import kerasgen as kg

    file = name.removesuffix(STRICT)
    settings: dict[str, Any] = {} if name == "saved_model" else {"threads": job["threads"]}
    settings |= {"strict": True} if name != file else {}
    runtime = kg.load_artefact(Path(job["folder"], FILES[file]), **settings)
    never = job["vocabulary"]  # an id beyond it never comes

    def run(task: dict[str, Any]) -> Figures:
        begun, busy = time.perf_counter(), time.process_time()
        ids = runtime.generate_ids(
            task["prompts"], sampler=task["sampler"], max_new_tokens=task["lengths"][0], end_token_id=never
        )
        return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "ids": ids}

    return run


def another(job: dict[str, Any], name: str) -> Ask:
    """One of the contenders of `benchmarks.generate`, in the number format that its name ends with."""
    library, _, _number = name.partition(" int8")
    if name != library:
        job["compute_type"] = "int8"
    make, backend = generate_contenders.CONTENDERS[library]
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    generate = make(job)

    def run(task: dict[str, Any]) -> Figures:
        begun, busy = time.perf_counter(), time.process_time()
        ids = generate(task)
        return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "ids": ids}

    return run


def llama_cpp(job: dict[str, Any], name: str) -> Ask:
    """llama.cpp with its defaults, on the file of the artefact, asked for ids by its own server."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(Path(job["folder"], FILES["gguf q8_0"]))
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = job["threads"]
    settings.verbosity = 1
    server = xllamacpp.Server(settings)

    def run(task: dict[str, Any]) -> Figures:
        ids, address = [], urllib.parse.urlsplit(server.listening_address).netloc
        begun, busy = time.perf_counter(), time.process_time()
        for prompt, new in zip(task["prompts"], task["lengths"], strict=True):
            request = {"prompt": prompt, "n_predict": new, "temperature": 0.0, "return_tokens": True}
            connection = http.client.HTTPConnection(address)
            connection.request("POST", "/completion", json.dumps(request | {"ignore_eos": True, "cache_prompt": False}))
            ids.append(json.loads(connection.getresponse().read())["tokens"])
            connection.close()
        return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "ids": ids}

    return run


def model_of(job: dict[str, Any]) -> Any:
    """The random model, with GPT-2's own tokenizer but without a start token, so that all read the same prompt."""
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.bpe import ByteLevelBPE

    found = ByteLevelBPE.from_files(*gpt2_files())
    tokenizer = ByteLevelBPE(found.vocabulary, found.merges, start_token=None)
    return LanguageModel(generate_contenders.keras_model(job), tokenizer, "benchmark")


def export(job: dict[str, Any]) -> list[Figures]:
    """Write the artefacts that are asked for; returns what their reports say of the files."""
    import kerasgen as kg
    from kerasgen.runtime import metadata

    paths = {name: Path(job["folder"], FILES[name]) for name in job["artefacts"]}
    model: Any = None if all(path.exists() for path in paths.values()) else model_of(job)
    # Random weights diverge more than trained ones when they are rounded; what the limits are says nothing here.
    loose: dict[str, Any] = {
        "most_divergence": 10.0,
        "least_agreement": 0.0,
        "most_logit_difference": 100.0,
        "most_loss_increase": 9.0,
    }
    exporters = {
        "tflite float32": kg.TFLiteExporter(cache_length=256),
        "tflite int8": kg.TFLiteExporter(cache_length=256, quantize="int8", **loose),
        "saved_model": kg.SavedModelExporter(samplers=("greedy",)),
        "gguf q8_0": kg.GgufExporter(dtype="Q8_0", most_divergence=10.0),
    }
    rows = []
    for name, path in paths.items():
        row: Figures = {"part": "file", "contender": name}
        if path.exists():  # of an earlier run; the report lies in it or beside it
            written = json.loads(metadata.report_path(path).read_text(encoding="utf-8"))
        else:
            begun = time.perf_counter()
            written = exporters[name].export(model, path).report
            row["export_seconds"] = time.perf_counter() - begun
        row |= {"MB": written["bytes"] / 2**20}
        if "bytes_over_weight_bytes" in written:
            row["bytes_over_weight_bytes"] = written["bytes_over_weight_bytes"]
        rows.append(row)
    return rows


def quality(job: dict[str, Any]) -> list[Figures]:
    """Bits per character of the starter on texts that it wasn't trained on, as a Keras model and as an int8 file.

    Tang poems that its training held out, where they are there; the package's own quatrains, which are few, where not.
    """
    import kerasgen as kg
    from kerasgen.corpora.chinese_poetry import ChinesePoetry
    from kerasgen.corpora.sample import Sample
    from kerasgen.corpora.splits import held_out_documents
    from kerasgen.models.scoring import score
    from kerasgen.tokens.encoding import encode_documents

    model = kg.Starter().load()
    path = Path(job["folder"], "starter.tflite")
    artefact = kg.TFLiteExporter(quantize="int8").export(model, path)
    start, longest = model.tokenizer.start_token_id, artefact.report["graph"]["cache_length"]
    poems = DATA / "chinese-poetry.tang.tar.xz"
    corpus = ChinesePoetry(str(poems), dynasty="tang") if poems.is_file() else Sample(language="zh")
    short = (
        document for document in held_out_documents(corpus) if len(model.tokenizer.encode(document.text)) + 2 < longest
    )
    documents = list(itertools.islice(short, job["texts"]))
    assert start is not None
    assert model.tokenizer.end_token_id is not None
    whole = score(model, encode_documents(documents, model.tokenizer), sequence_length=longest)
    nats = 0.0
    for document in documents:
        ids = [start, *model.tokenizer.encode(document.text), model.tokenizer.end_token_id]
        logits = artefact.runtime.logits(ids[:-1]).astype(np.float64)
        highest = logits.max(axis=-1, keepdims=True)
        totals = np.log(np.exp(logits - highest).sum(axis=-1)) + highest[:, 0]
        nats += float((totals - logits[np.arange(len(ids) - 1), ids[1:]]).sum())
    bits = nats / np.log(2.0) / sum(len(document.text) for document in documents)
    row = {
        "part": "quality",
        "contender": "tflite int8",
        "corpus": type(corpus).__name__,
        "texts": len(documents),
        "bits_per_character": bits,
    }
    row |= {"float32_bits_per_character": whole.bits_per_character, "ratio": bits / whole.bits_per_character}
    return [row]


def main(arguments: Sequence[str]) -> None:
    """Write the artefacts, or answer tasks until standard input ends."""
    name, job = arguments[0], json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    if name in ("export", "quality"):
        print(json.dumps(export(job) if name == "export" else quality(job)), file=answers, flush=True)
        return
    makers: dict[str, Callable[..., Ask]] = {
        "read memory": lambda job, name: read_memory(job),
        "llama.cpp q8_0": llama_cpp,
    }
    make: Callable[..., Ask] = loaded if name.removesuffix(STRICT) in FILES else another
    run = makers.get(name, make)(job, name)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line)) | {"peak_bytes": peak_memory_bytes() or 0}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
