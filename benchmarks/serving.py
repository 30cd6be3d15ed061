"""How many tokens a second `kerasgen serve` writes for clients that come together, beside one after another.

    python -m benchmarks.serving [--json FILE] [--threads N] [--quick] [--model MODEL …]

A server process is pinned to N processors; clients are threads of this one, each with a connection of its own that asks
for greedy texts after different beginnings, so that texts come and go at different steps. A row tells the clients, the
tokens a second of all of them, the seconds to a text, the mean number of texts a step, and the server's processor
seconds a thousand tokens. What is compiled was compiled by rounds before.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Figures, arguments_of, bar, pinned, report

CLIENTS = 64
LEAST_GAINS = {"starter": 2.0}  # of a small model, reading and answering requests is a part of the time
LEAST_GAIN = 3.0  # of others
BEGINNINGS = ("春", "秋風", "明月", "空山不見人", "The", "Once upon a time", "It was a", "On the first day")


@contextlib.contextmanager
def served(model: str, threads: int) -> Iterator[tuple[int, int]]:
    """Serve a model until the context ends; yield the port and the number of the process."""
    command = [
        *pinned(threads),
        sys.executable,
        "-m",
        "kerasgen",
        "serve",
        model,
        "--port",
        "0",
        "--model-name",
        "model",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                raise SystemExit(f"kerasgen serve {model} did not begin.")
            yield int(found[1]), process.pid
        finally:
            process.terminate()


def ask(port: int, number: int, tokens: int) -> tuple[str, int, float]:
    """Return a text, its tokens and the seconds that it took."""
    prompt = f"{BEGINNINGS[number % len(BEGINNINGS)]} {number}"
    body = {"prompt": prompt, "max_tokens": tokens - number % 8, "temperature": 0}
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer["choices"][0]["text"], answer["usage"]["completion_tokens"], time.perf_counter() - began


def metrics(port: int) -> dict[str, float]:
    """Return what the server counted, by name."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    pairs = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def processor_seconds(pid: int) -> float:
    """Return what a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(port: int, pid: int, clients: int, requests: int, tokens: int) -> tuple[Figures, list[str]]:
    """Return the figures of so many requests by so many clients, and the texts."""
    before, busy, began = metrics(port), processor_seconds(pid), time.perf_counter()
    with ThreadPoolExecutor(clients) as together:
        answers = list(together.map(lambda number: ask(port, number, tokens), range(requests)))
    seconds, after = time.perf_counter() - began, metrics(port)
    written = sum(count for _, count, _ in answers)
    steps = after["kerasgen_step_seconds_count"] - before["kerasgen_step_seconds_count"]
    figures: Figures = {
        "clients": clients,
        "requests": requests,
        "tokens_per_second": written / seconds,
        "seconds_to_a_text": median(taken for *_, taken in answers),
        "texts_per_step": (after["kerasgen_stepped_texts_total"] - before["kerasgen_stepped_texts_total"]) / steps,
        "cpu_seconds_per_1000": 1000 * (processor_seconds(pid) - busy) / written,
    }
    return figures, [text for text, *_ in answers]


def main(arguments: Sequence[str]) -> Figures:
    """Measure, print and return the figures."""
    parser = arguments_of(__doc__)
    parser.add_argument("--model", action="append", help="starter, smollm2 or another (default: both)")
    chosen = parser.parse_args(arguments)
    clients, tokens = (4, 12) if chosen.quick else (CLIENTS, 64)
    alone = 4 if chosen.quick else 8
    rows, bars = [], []
    for model in chosen.model or (["starter"] if chosen.quick else ["starter", "smollm2"]):
        with served(model, chosen.threads) as (port, pid):
            for _ in range(1 if chosen.quick else 3):  # until each size that comes is compiled
                measure(port, pid, clients, clients, tokens)
            one_by_one, first = measure(port, pid, 1, alone, tokens)
            together, texts = measure(port, pid, clients, clients, tokens)
        same = sum(a == b for a, b in zip(first, texts, strict=False))
        rows += [{"part": model, "threads": chosen.threads, **figures} for figures in (one_by_one, together)]
        gain = together["tokens_per_second"] / one_by_one["tokens_per_second"]
        bars += [
            bar(
                f"{model}: tokens a second by {clients} clients, of one",
                gain,
                at_least=0 if chosen.quick else LEAST_GAINS.get(model, LEAST_GAIN),
            ),
            bar(f"{model}: texts that are the same alone", same / alone, at_least=1.0),
        ]
    return report(rows, bars, chosen.json)


if __name__ == "__main__":
    main(sys.argv[1:])
