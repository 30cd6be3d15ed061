"""From conversations to a tuned model that answers: the template's tokens are learned, and everything travels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama

import kerasgen as kg
from kerasgen.errors import ArgumentError, ChatTemplateError, GenerateArgumentError, TuneArgumentError
from kerasgen.models.saving import save_preset

ANIMALS = ("cat", "dog", "hen", "fox")
TALKS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"a {animal}?"},
            {"role": "assistant", "content": f"the {animal}"},
            {"role": "user", "content": f"{n}"},
            {"role": "assistant", "content": "on"},
        ]
    }
    for animal in ANIMALS
    for n in range(6)
]
SETTINGS = {"batch_size": 4, "sequence_length": 96, "schedule": "constant", "vocabulary": "keep"}
FULL = kg.FullTuner(epochs=1, learning_rate=2e-2, **SETTINGS)
LORA = kg.LoraTuner(rank=2, epochs=1, learning_rate=0.05, **SETTINGS)


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def pipeline(preset, **arguments) -> kg.Pipeline:
    settings = {"corpus": TALKS, "model": preset, "tuner": FULL, "sampler": "greedy", "chat_template": "chatml"}
    return kg.Pipeline(**(settings | arguments))


def table(pipe: kg.Pipeline) -> np.ndarray:
    from kerasgen.models.vocabulary import token_table

    return np.asarray(token_table(pipe.model))


@pytest.mark.slow
def test_a_tuned_model_answers_and_stops_at_the_end_of_its_turn(preset, tmp_path) -> None:
    pipe = pipeline(preset)
    report = pipe.fit(verbose=0)
    assert report.losses[-1] < report.losses[0]
    assert 0 < report.read_tokens < report.tokens
    asked = TALKS[0]["messages"][:2]
    answer = pipe.chat(asked, max_new_tokens=24)
    assert "<|im" not in answer
    assert "".join(pipe.chat_stream(asked, max_new_tokens=24)) == answer
    assert pipe.chat(asked, max_new_tokens=24, return_logprobs=True).text == answer
    # The answer is what the model writes on after the template's text, without a start token before it.
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na cat?<|im_end|>\n<|im_start|>assistant\n"
    from kerasgen.generation import batches, generate_ids

    tokenizer = pipe.tokenizer
    ids = tokenizer.encode_with_special(text, "all")
    assert batches.add_start_token(pipe.model, [ids], start=False) == [ids]
    assert tokenizer.special_tokens["<|im_end|>"] in tokenizer.end_token_ids
    loaded = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert loaded.chat_template == "chatml"
    assert loaded.chat(asked, max_new_tokens=24) == answer
    again = kg.Pipeline(model=tmp_path / "saved" / "model", sampler="greedy")  # the preset alone has the template too
    assert again.chat(asked, max_new_tokens=24) == answer
    assert len(generate_ids(pipe.model, [ids], sampler="greedy", max_new_tokens=2)) == 1


@pytest.mark.parametrize("kind", [tiny_gpt2, pytest.param(tiny_llama, marks=pytest.mark.nightly)])
def test_beside_adapters_the_added_rows_alone_are_tuned(kind, preset, tmp_path) -> None:
    place = preset if kind is tiny_gpt2 else save_preset(kind(num_layers=1), tmp_path / "other")
    pipe = pipeline(place, tuner=LORA)
    before = table(pipe).copy()
    assert len(before) == 302
    old = table(kg.Pipeline(model=place))
    np.testing.assert_array_equal(before[:300], old)
    assert np.abs(before[300:] - old.mean(axis=0)).max() < np.abs(old).max()
    assert not np.allclose(before[300], before[301])
    pipe.fit(verbose=0)
    after = table(pipe)
    np.testing.assert_array_equal(after[:300], before[:300])
    assert (np.abs(after[300:] - before[300:]).max(axis=1) > 1e-4).all()
    asked = TALKS[3]["messages"][:2]
    answer = pipe.chat(asked, max_new_tokens=12)
    loaded = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert loaded.chat(asked, max_new_tokens=12) == answer
    np.testing.assert_array_equal(table(loaded), after)


def test_held_out_figures_count_answers_alone(preset) -> None:
    pipe = pipeline(preset, corpus=None)
    scored = pipe.evaluate(TALKS[:3])
    said = [message["content"] for row in TALKS[:3] for message in row["messages"] if message["role"] == "assistant"]
    assert scored.characters == sum(map(len, said))
    assert scored.documents == 3


def test_what_cannot_be_done_is_said_before_any_work(preset) -> None:
    with pytest.raises(ChatTemplateError, match="has no chat template"):
        pipeline(preset, chat_template=None).fit(verbose=0)
    with pytest.raises(ChatTemplateError, match="Name one when the pipeline is made, chat_template="):
        kg.Pipeline(model=preset).chat("Who?")
    with pytest.raises(ArgumentError, match="chat_template must be"):
        pipeline(preset, chat_template="vicuna")
    pipe = pipeline(preset)
    for wrong in ([], [{"role": "user"}], [*TALKS[0]["messages"]], 3):
        with pytest.raises(GenerateArgumentError, match="No answer can follow these messages"):
            pipe.chat(wrong)
    with pytest.raises(GenerateArgumentError):
        pipe.chat("x", return_prompt=True)
    with pytest.raises(GenerateArgumentError, match="can't be streamed"):
        pipe.chat_stream("x", sampler="beam")
    with pytest.raises(GenerateArgumentError, match="MaskPredict is for masked language models"):
        pipe.generate("x", sampler="mask_predict")
    with pytest.raises(TuneArgumentError, match="masking='spans'"):
        pipeline(preset, corpus=["a b"], tuner=kg.FullTuner(masking="spans")).fit(verbose=0)
    assert pipe._model is None  # nothing was loaded
    with pytest.raises(ChatTemplateError, match="no place for tools"):
        pipeline(preset, chat_template="alpaca").chat("x", tools=[{"name": "look"}])


def test_a_conversation_longer_than_a_row_loses_whole_turns_and_keeps_its_system_turn(preset) -> None:
    from kerasgen.models import chat
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tokens.packing import block, pack

    pipe = pipeline(preset)
    tokenizer = pipe.tokenizer
    turns = [
        message
        for n in range(6)
        for message in ({"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": f"say {n}"})
    ]
    rows = [{"messages": [{"role": "system", "content": "Be."}, *turns]}, TALKS[0]]
    encoded = encode_documents(kg.Texts(rows).documents(), tokenizer, chat.needed(pipe.model))
    packed = pack(encoded, sequence_length=100)
    assert packed.shortened_documents == 1
    shown = block(encoded, packed, list(range(len(packed))), size=len(packed))
    row, _ = np.argwhere(shown.documents == 0)[0]
    inside = shown.documents[row] == 0
    text = tokenizer.decode([*shown.token_ids[row][inside].tolist(), int(shown.targets[row][inside][-1])])
    system, kept = text.split("<|im_end|>\n", 1)
    assert system.removeprefix(tokenizer.start_token) == "<|im_start|>system\nBe."
    first = int(kept.split("ask ")[1][0])
    assert 0 < first < 6
    wanted = "".join(
        f"<|im_start|>user\nask {n}<|im_end|>\n<|im_start|>assistant\nsay {n}<|im_end|>\n" for n in range(first, 6)
    )
    assert kept == wanted
    learned = shown.targets[row][inside & (shown.weights[row] > 0)]
    assert tokenizer.decode(learned.tolist()) == "".join(f"say {n}<|im_end|>" for n in range(first, 6))


# Where a system turn stands in a user's turn, in the first or in the last.
INNER = """\
{%- set system, talk = messages[0].content, messages[1:] %}
{{- bos_token }}
{%- for m in talk %}
    {%- if m.role == 'user' %}
        {{- '[INST]\n' + (system + '\n\n' if loop.index == PLACE else '') + m.content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + m.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""


@pytest.mark.parametrize("template", ["gemma", INNER.replace("PLACE", "1"), INNER.replace("PLACE", "talk|length - 1")])
@pytest.mark.parametrize("length", [60, 100, 140])
def test_what_stays_of_a_long_conversation_is_what_the_template_writes_of_it(preset, template, length) -> None:
    from kerasgen.corpora.base import Conversation
    from kerasgen.models import chat
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tokens.packing import block, pack

    pipe = pipeline(preset, chat_template=template)
    tokenizer, written = pipe.tokenizer, chat.needed(pipe.model)
    system = {"role": "system", "content": "Be brief."}
    turns = [({"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": f"say {n}"}) for n in range(6)]
    whole = [system, *(message for turn in turns for message in turn)]
    encoded = encode_documents(kg.Texts([{"messages": whole}]).documents(), tokenizer, written)
    packed = pack(encoded, sequence_length=length)
    shown = block(encoded, packed, [0], size=1)
    inside = shown.documents[0] == 0
    text = tokenizer.decode([*shown.token_ids[0][inside].tolist(), int(shown.targets[0][inside][-1])])
    rests = [[system, *(message for turn in turns[n:] for message in turn)] for n in range(6)]
    texts = [written.render(Conversation(tuple(rest))) for rest in rests]
    assert text.removesuffix(tokenizer.end_token or "") in [
        each.removesuffix(tokenizer.end_token or "") for each in texts
    ]
    assert packed.shortened_documents == 1


@pytest.mark.one_backend
def test_answers_of_a_template_that_nothing_learned_are_warned_of(preset) -> None:
    pipe = pipeline(preset)
    with pytest.warns(kg.errors.KerasgenWarning, match="has learned nothing of them"):
        pipe.chat("x", max_new_tokens=2)
    with pytest.raises(GenerateArgumentError, match="Received: 'messages', which the call says itself"):
        pipeline(preset, chat_template="alpaca").chat("x", template_arguments={"messages": []})


@pytest.mark.one_backend
def test_a_template_that_is_none_is_refused_before_a_model_is_loaded(preset, tmp_path) -> None:
    (tmp_path / "a.jinja").write_text("{% for %}", encoding="utf-8")
    for template in ("{% for %}", tmp_path / "a.jinja"):
        with pytest.raises(
            ChatTemplateError, match=r"jinja' is no Jinja|chat_template is no Jinja|Chat_template is no"
        ):
            pipeline(preset, chat_template=template)
    endless = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
    with pytest.raises(ChatTemplateError, match="recursion"):
        pipeline(preset, chat_template=endless).chat("x")


PAIRS = [{"prompt": f"a {animal}?", "response": "on"} for animal in ANIMALS]


def test_a_corpus_of_which_everything_is_dropped_says_why(preset, tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "x", "a": "y"}\n' * 3, encoding="utf-8")
    pipe = pipeline(preset, corpus=kg.Jsonl(path, prompt="question", response="a", on_error="skip"))
    with pytest.raises(ArgumentError, match=r"all 3 documents that were read were dropped \(3 no field 'question'\)"):
        pipe.fit(verbose=0)
    with pytest.raises(ArgumentError, match="the corpus gives no document"):
        pipeline(preset, corpus=[]).fit(verbose=0)


def test_documents_of_which_nothing_that_is_learned_is_left_are_refused(preset) -> None:
    parts = [kg.Part("the cat"), kg.Part(" and the dog on the bed in the sun" * 4, 0)]
    corpus = [kg.Document.of(parts, str(n)) for n in range(4)]
    tuner = kg.FullTuner(sequence_length=16, batch_size=2)
    with pytest.raises(kg.errors.TuneArgumentError, match="of each of the 4 training documents, what is learned was"):
        pipeline(preset, corpus=corpus, tuner=tuner, held_out=0).fit(verbose=0)


def test_documents_of_which_nothing_is_learned_are_not_counted(preset) -> None:
    pipe = pipeline(preset, corpus=None)
    read = [kg.Document.of([kg.Part("only read", 0)], f"r{n}") for n in range(3)]
    scored, alone = pipe.evaluate([*PAIRS, *read]), pipe.evaluate(PAIRS)
    assert (scored.documents, scored.interval) == (alone.documents, alone.interval)
    with pytest.raises(ArgumentError, match="all parts of the 3 documents are only read"):
        pipe.evaluate(read)


def test_a_corpus_of_an_own_class_is_not_saved(preset, tmp_path) -> None:
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Own(kg.CorpusSource):
        def documents(self, tally=None):
            yield kg.Document("the cat", "0")

    pipe = pipeline(preset, corpus=Own())
    loaded = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert loaded.corpus is None
