"""A million texts of 4 to 16 words are divided, encoded and stored in a process, which tells its peak memory.

    python -m benchmarks.short_texts [--json FILE] [--threads N] [--quick]

The words are drawn by a fixed seed from those of the shared English posts; near-duplicates are searched for, as
a pipeline does. Two threads are asked for by `--threads 2`: CPU seconds, in the process and beside it, by the clock's
say how many cores were busy, which is of use where nothing runs beside; the memory of both processes is told. `--quick`
takes 20,000 texts, to see that it runs.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from benchmarks.harness import Figures, arguments_of, bar, pinned, report

TEXTS, QUICK_TEXTS = 1_000_000, 20_000
MOST_MB = 300.0
LEAST_CORES = 1.6
"""Cores that are busy on average, at least, of two."""


def write(path: Path, count: int) -> int:
    """Write so many texts as JSON lines, and return their bytes."""
    from benchmarks.vocabulary import Size, _stories

    words = [word for post in _stories(Size(stories=2000), quick=False) for word in post.split()]
    rng = random.Random(0)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            at = rng.randrange(len(words) - 16)
            text = " ".join(words[at : at + rng.randint(2, 8)] + rng.choices(words, k=rng.randint(2, 8)))
            written += file.write(json.dumps({"text": text}) + "\n")
    return written


def measure(path: Path, folder: Path) -> Figures:
    """Divide, encode and store the texts in this process."""
    from benchmarks.vocabulary import _gpt2_tokenizer
    from kerasgen.corpora.files import Jsonl
    from kerasgen.corpora.held_out_split import DividedCorpus
    from kerasgen.devices import peak_memory_bytes
    from kerasgen.tokens import store

    corpus = DividedCorpus(Jsonl(path=str(path), field="text"), 0.05)
    tokenizer = _gpt2_tokenizer()
    began, began_cpu = time.perf_counter(), time.process_time()
    division = corpus.division
    divided, divided_cpu = time.perf_counter(), time.process_time()
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    stored = store.store(corpus.documents, tokenizer, held_out=division, directory=folder / "store")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    peak = peak_memory_bytes()
    assert peak is not None
    return {
        "documents": len(stored.train) + len(stored.held_out),
        "tokens": len(stored.train.token_ids) + len(stored.held_out.token_ids),
        "division_seconds": divided - began,
        "division_cpu_seconds": divided_cpu - began_cpu,
        "division_cpu_seconds_beside": beside.ru_utime + beside.ru_stime,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "cores_busy": (cpu + beside.ru_utime + beside.ru_stime) / seconds,
        "peak_mb": peak / 1e6,
        "peak_mb_beside": _peak_mb_beside(path),
    }


def _peak_mb_beside(path: Path) -> float:
    """Return the peak memory of a process that hashes portions of the texts, which are all as large.

    The system's figure for children that have ended counts the memory of their parent when they were started.
    """
    from kerasgen.corpora import hashing_processes, near_duplicates

    with path.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 5 * near_duplicates._PORTION_TEXTS)]
    child = hashing_processes._started()
    assert child is not None
    process = hashing_processes._Process(child)
    try:
        for first in range(0, len(texts), near_duplicates._PORTION_TEXTS):
            process.begin(texts[first : first + near_duplicates._PORTION_TEXTS], first).result()
        status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
    finally:
        process.close()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the texts, let a process store them, and report."""
    parser = arguments_of(__doc__)
    parser.add_argument("--of", nargs=2, type=Path, help="be the process: the file and a folder")
    given = parser.parse_args(arguments)
    if given.of:
        print(json.dumps(measure(*given.of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.jsonl")
        size = write(path, QUICK_TEXTS if given.quick else TEXTS)
        command = [*pinned(given.threads), sys.executable, "-m", "benchmarks.short_texts", "--of", str(path), folder]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: Figures = {"part": "short texts", "mb": size / 1e6, **json.loads(ran.stdout.splitlines()[-1])}
    most = row["peak_mb"] + row["peak_mb_beside"] * (given.threads - 1)  # as many processes beside
    bars = [] if given.quick else [bar("MB of memory to store a million short texts, at most", most, at_most=MOST_MB)]
    if given.threads == 2 and not given.quick:
        bars.append(bar("cores that were busy, of two", row["cores_busy"], at_least=LEAST_CORES))
    report([row], bars, given.json)


if __name__ == "__main__":
    main()
