"""A forked child of a process in which an engine runs says so, and doesn't wait for threads that it has not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from installing import without_tensorflow
from killing import POSIX
from tiny import tiny_gpt2

from kerasgen.models.saving import save_preset

pytestmark = [*POSIX, pytest.mark.one_backend]

PROGRAM = """
    import os, signal, sys, warnings
    warnings.simplefilter("ignore")  # JAX's, of the fork
    import kerasgen as kg
    cache = sys.argv[2] + "/cache"
    pipe = kg.Pipeline(corpus=["the sea and the sun"] * 30, model=sys.argv[1], backend="jax", cache=cache)

    def forked(what, act):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                act()
                print(what, "worked")
            except kg.errors.ForkedError as error:
                print(what, "was refused" if str(os.getppid()) in str(error) and "spawn" in str(error) else error)
            except BaseException as error:
                print(what, repr(error))
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            print(what, "hung")
"""


def outcomes(tmp_path: Path, code: str) -> list[str]:
    preset = save_preset(tiny_gpt2(num_layers=1), tmp_path / "preset")
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program, str(preset), str(tmp_path)],
        env=without_tensorflow(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line]


def test_a_child_that_was_forked_before_anything_ran_does_what_it_likes(tmp_path: Path) -> None:
    found = outcomes(tmp_path, 'forked("generate", lambda: pipe.generate("the", max_new_tokens=2))')
    assert found == ["generate worked"]


def test_what_needs_an_engine_is_refused_after_a_text_without_keras(tmp_path: Path) -> None:
    code = """
        pipe.generate("the", max_new_tokens=2)
        assert "keras" not in sys.modules
        forked("generate", lambda: pipe.generate("the", max_new_tokens=2))
        forked("another", lambda: kg.Pipeline(model=sys.argv[1]).generate("the", max_new_tokens=2))
        forked("stream", lambda: list(pipe.stream("the", max_new_tokens=2)))
    """
    assert outcomes(tmp_path, code) == [f"{what} was refused" for what in ("generate", "another", "stream")]


def test_what_needs_a_model_is_refused_and_the_rest_works(tmp_path: Path) -> None:
    code = """
        pipe.score("the sea")
        forked("encode", lambda: pipe.tokenizer.encode_batch(["the sea"] * 100))
        forked("read", lambda: list(kg.Sample().documents()))
        forked("generate", lambda: pipe.generate("the", max_new_tokens=2))
        forked("generate_to", lambda: pipe.generate_to(sys.argv[2] + "/texts.jsonl", ["the"], max_new_tokens=2))
        forked("score", lambda: pipe.score("the sea"))
        forked("evaluate", lambda: pipe.evaluate(["the sea"]))
        forked("fit", lambda: pipe.fit(verbose=0))
        forked("save", lambda: pipe.save(sys.argv[2] + "/saved"))
        forked("export", lambda: pipe.export(sys.argv[2] + "/exported"))
        forked("prompt", lambda: pipe.prompt("the").generate("sea", max_new_tokens=2))
        forked("load", lambda: kg.Pipeline(model=sys.argv[1]).model)
        forked("litert", lambda: pipe.generate("the", max_new_tokens=2, engine="litert"))
    """
    refused = "generate", "generate_to", "score", "evaluate", "fit", "save", "export", "prompt", "load", "litert"
    assert outcomes(tmp_path, code) == ["encode worked", "read worked", *(f"{what} was refused" for what in refused)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "preset"]
