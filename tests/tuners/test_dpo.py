"""Preferences: the losses and their gradients are those of transformers' model by torch, and runs do what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2
from toys import weights_of

import kerasgen as kg
from kerasgen.corpora.base import Document, Part
from kerasgen.errors import CheckpointError, TuneArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.testing.tuners import TunerContract
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.dpo import DpoTuner
from kerasgen.tuners.full import FullTuner

SETTINGS: dict[str, Any] = {
    **{"learning_rate": 3e-3, "sequence_length": 64, "packing": "best_fit", "precision": "float32"},
    **{"schedule": "constant", "batch_size": 4},
}
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"beta": 0.3, "label_smoothing": 0.1},
    "ipo": {"beta": 0.2},
    "orpo": {"beta": 0.4},
    "simpo": {"beta": 1.5, "gamma": 0.7},
}


def small(seed: int = 0) -> LanguageModel:
    return tiny_gpt2(num_layers=1, hidden_dim=16, max_sequence_length=128, seed=seed)


def pairs(count: int, first: int = 0) -> list[Document]:
    """Prompts of unequal lengths with two answers of unequal lengths."""
    found = []
    for n in range(first, first + count):
        ask = Part(f"question {n}{' and more' * (n % 4)}? ", 0, "user")
        chosen, rejected = Part(f"yes {'so it is ' * (n % 3)}"), Part(f"no {'never ' * (n % 2)}")
        found.append(Document.of((ask, chosen), str(n), rejected=(ask, rejected)))
    return found


def encoded(model: LanguageModel, documents: list[Document]) -> EncodedDocuments:
    return encode_documents(documents, model.tokenizer)


def tuned(
    directory: Path, documents: list[Document] | None = None, *, model: LanguageModel | None = None, **settings: Any
) -> tuple[LanguageModel, TuneReport]:
    model = small() if model is None else model
    train = encoded(model, pairs(8) if documents is None else documents)
    tuner = DpoTuner(**SETTINGS | {"max_steps": 1} | settings)
    report = tuner.tune(model, train, encoded(model, pairs(4, 100)), seed=3, directory=directory, verbose=0)
    return model, report


@pytest.mark.slow
class TestContract(TunerContract):
    """Pairs in the place of texts; otherwise what every tuner is asked to."""

    @pytest.fixture
    def tuner(self) -> DpoTuner:
        return DpoTuner(epochs=2, batch_size=4, learning_rate=0.01, checkpoint_every=2, sequence_length=64, beta=0.3)

    @pytest.fixture
    def spec(self) -> str:
        return "dpo:epochs=2,batch_size=4,learning_rate=0.01,checkpoint_every=2,sequence_length=64,beta=0.3"

    def fresh_model(self) -> LanguageModel:
        return small()

    def documents(self, model: LanguageModel, count: int = 24) -> EncodedDocuments:
        return encoded(model, pairs(count))


# What torch says of the same weights: transformers' GPT-2, every text by itself and unpadded.


def _torch_of(model: LanguageModel) -> Any:
    """Transformers' GPT-2 of the same weights, placed by hand: KerasHub's kernels to the names and shapes there."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {"vocab_size": 300, "n_positions": 128, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": 32}
    sizes |= {"bos_token_id": 299, "eos_token_id": 299}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).float().eval()
    backbone = model.backbone
    (layer,) = backbone.transformer_layers
    attention = layer._self_attention_layer
    three = [attention.query_dense, attention.key_dense, attention.value_dense]
    state = {
        "wte.weight": backbone.token_embedding.embeddings,
        "wpe.weight": backbone.position_embedding.position_embeddings,
        "h.0.attn.c_attn.weight": np.concatenate([np.array(each.kernel).reshape(16, 16) for each in three], 1),
        "h.0.attn.c_attn.bias": np.concatenate([np.array(each.bias).reshape(16) for each in three]),
        "h.0.attn.c_proj.weight": np.array(attention.output_dense.kernel).reshape(16, 16),
        "h.0.attn.c_proj.bias": attention.output_dense.bias,
    }
    norms = {"h.0.ln_1": layer._self_attention_layer_norm, "h.0.ln_2": layer._feedforward_layer_norm}
    for name, norm in (norms | {"ln_f": backbone.layer_norm}).items():
        state |= {f"{name}.weight": norm.gamma, f"{name}.bias": norm.beta}
    dense = {"c_fc": layer._feedforward_intermediate_dense, "c_proj": layer._feedforward_output_dense}
    for name, part in dense.items():
        state |= {f"h.0.mlp.{name}.weight": part.kernel, f"h.0.mlp.{name}.bias": part.bias}
    own = theirs.transformer.state_dict()
    assert set(state) == set(own)
    theirs.transformer.load_state_dict({name: torch.tensor(np.array(of)) for name, of in state.items()})
    return theirs


def _sum_of_answer(theirs: Any, ids: np.ndarray[Any, Any], first: int) -> Any:
    """The log-probability of the tokens from `first` on, and how many they are."""
    import torch

    whole = torch.tensor(ids[None].astype(np.int64))
    log_p = torch.log_softmax(theirs(whole[:, :-1]).logits, dim=-1)[0]
    of_targets = log_p.gather(1, whole[0, 1:, None])[:, 0]
    return of_targets[first - 1 :].sum(), len(ids) - first


def _formula(kind: str, own: list[Any], reference: list[Any], count: list[int], settings: dict[str, Any]) -> Any:
    """The published formulas, of one pair."""
    from torch.nn.functional import logsigmoid

    beta = settings["beta"]
    mean = [of / n for of, n in zip(own, count, strict=True)]
    if kind == "sigmoid":
        margin = beta * ((own[0] - reference[0]) - (own[1] - reference[1]))
        wrong = settings["label_smoothing"]
        return -(1 - wrong) * logsigmoid(margin) - wrong * logsigmoid(-margin)
    if kind == "ipo":
        before = [of / n for of, n in zip(reference, count, strict=True)]
        return (mean[0] - before[0] - mean[1] + before[1] - 1 / (2 * beta)) ** 2
    if kind == "simpo":
        return -logsigmoid(beta * (mean[0] - mean[1]) - settings["gamma"])
    odds = [(of.exp() / (1 - of.exp())).log() for of in mean]
    return -mean[0] - beta * logsigmoid(odds[0] - odds[1])


def _ours(documents: list[Document], directory: Path, **settings: Any) -> tuple[float, dict[str, Any]]:
    """The loss of a model that has moved away from its reference, and its gradient by transformers' names.

    The gradient is what one step of plain gradient descent at rate 1 takes away.
    """
    import keras

    from kerasgen.tuners import preferences, sharding
    from kerasgen.tuners.base import TuneJob
    from kerasgen.tuners.pair_trainer import PairTrainer

    model, before = small(1), small(0)
    tuner = DpoTuner(**SETTINGS | {"batch_size": 8, "learning_rate": 1.0} | settings)
    objective = tuner.objective()
    assert isinstance(objective, preferences.Preferences)
    job = TuneJob(before, encoded(model, documents), None, seed=0, directory=directory / "run")
    plan = objective.plan(job, tuner, sharding.Share())
    plan.reference[:] = objective._computed(PairTrainer(before, loss=objective.loss), plan, tuner)["train"]
    trainer = objective.trainer(model)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=keras.config.backend() == "jax")
    weights = [np.array(variable) for variable in model.network.trainable_variables]
    trainer.fit(plan.batches(0, first_step=0), verbose=0, shuffle=False)
    logged = float(np.asarray(trainer.step_loss.result()))
    # The gradient takes the place of the weights, and goes to transformers' names and shapes as they do.
    for variable, was in zip(model.network.trainable_variables, weights, strict=True):
        variable.assign(was - np.array(variable))
    return logged, {name: of.detach().numpy() for name, of in _torch_of(model).named_parameters()}


@pytest.mark.essential
@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_gradients_are_those_of_the_formula_over_transformers_model(kind: str, tmp_path: Path) -> None:
    documents = pairs(6)
    theirs, reference = _torch_of(small(1)), _torch_of(small(0))
    train = encoded(small(1), documents)
    assert train.rejected is not None
    assert train.parts is not None
    total: Any = 0.0
    for index in range(len(documents)):
        sides = [train[index], train.rejected[index]]
        first = int(train.parts.of_document(index).ends[0])
        own, count = zip(*(_sum_of_answer(theirs, ids, first) for ids in sides), strict=True)
        others = [_sum_of_answer(reference, ids, first)[0].detach() for ids in sides]
        total = total + _formula(kind, list(own), others, list(count), LOSSES[kind]) / len(documents)
    total.backward()
    logged, gradient = _ours(documents, tmp_path, loss=kind, **LOSSES[kind])
    assert logged == pytest.approx(float(total.detach()), abs=1e-4)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(gradient[name], parameter.grad, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "beta"), [("sigmoid", 0.3), ("ipo", 0.2)])
def test_loss_and_gradients_are_those_of_trl(
    kind: str, beta: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's own trainer, where it is installed, over transformers' GPT-2 of the same weights and the same ids."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    import tokenizers
    import transformers

    documents = pairs(6)
    train = encoded(small(1), documents)
    assert train.rejected is not None
    assert train.parts is not None
    names = {"<pad>": 0, "<eos>": 1, "a": 2}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="a"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    settings: dict[str, Any] = {
        "report_to": [],
        "use_cpu": True,
        "max_length": None,
        "gradient_checkpointing": False,
        "bf16": False,
    }
    theirs = _torch_of(small(1))
    examples = []
    for index in range(len(documents)):
        first = int(train.parts.of_document(index).ends[0])
        better, worse = train[index].tolist(), train.rejected[index].tolist()
        examples.append({"prompt_ids": better[:first], "chosen_ids": better[first:], "rejected_ids": worse[first:]})
    # The ids are given: TRL's reading of texts is left out.
    rows = datasets.table.InMemoryTable.from_pylist([{"prompt": "a", "chosen": "a", "rejected": "a a", **examples[0]}])
    monkeypatch.setattr(trl.DPOTrainer, "_prepare_dataset", lambda self, dataset, *_: dataset)
    trainer = trl.DPOTrainer(
        theirs,
        ref_model=_torch_of(small(0)),
        args=trl.DPOConfig(output_dir=str(tmp_path / "trl"), loss_type=kind, beta=beta, **settings),
        train_dataset=datasets.Dataset(rows, fingerprint="1"),
        processing_class=tokenizer,
    )
    theirs.zero_grad()
    total = trainer.compute_loss(theirs, trainer.data_collator(examples))
    total.backward()
    logged, gradient = _ours(documents, tmp_path, loss=kind, beta=beta)
    found = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    differences = {name: float(np.abs(gradient[name] - found[name]).max()) for name in found}
    print(trl.__version__, kind, logged, float(total.detach()), max(differences.values()))
    assert max(float(np.abs(each).max()) for each in found.values()) > 1e-2
    assert logged == pytest.approx(float(total.detach()), abs=1e-4)
    assert max(differences.values()) < 1e-4, differences


@pytest.mark.slow
def test_a_run_prefers_what_was_chosen_and_says_so(tmp_path: Path) -> None:
    _, report = tuned(tmp_path, max_steps=8, epochs=8)
    assert report.losses[0] == pytest.approx(np.log(2), abs=1e-5)  # the model is its own reference
    assert report.margins[0] == pytest.approx(0, abs=1e-5)
    assert report.losses[-1] < report.losses[0]
    assert report.margins[-1] > 0.1
    first, last = report.validations[0], report.validations[-1]
    assert (first.margin, first.reward_accuracy, first.divergence) == pytest.approx((0, 0.5, 0), abs=1e-5)
    assert first.loss == pytest.approx(np.log(2), abs=1e-5)
    assert last.margin is not None
    assert last.divergence is not None
    assert last.margin > 0
    assert last.divergence > 0
    assert last.reward_accuracy == 1.0
    found = json.loads(json.dumps(report.to_dict()))
    assert found["validations"][-1]["pair_accuracy"] == last.pair_accuracy
    assert found["margin"] == report.margins[-1]
    assert f"margin {report.margin:.3f}" in str(report)
    assert "held-out pairs" in str(report)
    assert report.tokens > report.read_tokens > 0


def test_callbacks_may_watch_the_held_out_pairs_and_only_of_such_a_run() -> None:
    from kerasgen import backend

    backend.use()
    import keras

    from kerasgen.tuners import user_callbacks

    callback = keras.callbacks.EarlyStopping(monitor="val_pair_accuracy", mode="max")
    assert user_callbacks.checked(callback, pairs=DpoTuner._learns_pairs) == [callback]
    with pytest.raises(TuneArgumentError, match=r"'val_pair_accuracy'.*would watch for what no run has"):
        user_callbacks.checked(callback, pairs=FullTuner._learns_pairs)


@pytest.mark.slow
def test_pairs_that_share_rows_give_what_each_gives_alone(tmp_path: Path) -> None:
    _, one = tuned(tmp_path / "a", max_steps=3, epochs=3, batch_size=2)
    alone, two = tuned(tmp_path / "b", max_steps=3, epochs=3, batch_size=8, packing="none")
    assert one.fill > two.fill
    accumulated, three = tuned(
        tmp_path / "c", max_steps=3, epochs=3, batch_size=2, packing="none", gradient_accumulation_steps=4
    )
    np.testing.assert_allclose(three.losses, two.losses, atol=2e-5)
    for left, right in zip(weights_of(accumulated), weights_of(alone), strict=True):
        np.testing.assert_allclose(left, right, atol=5e-5)
    whole, four = tuned(tmp_path / "d", max_steps=3, epochs=3, batch_size=8)  # a step of all pairs, in shared rows
    np.testing.assert_allclose(four.losses, two.losses, atol=2e-5)
    for left, right in zip(weights_of(whole), weights_of(alone), strict=True):
        np.testing.assert_allclose(left, right, atol=5e-5)


def test_no_pair_sees_another_of_its_row_to_the_bit(tmp_path: Path) -> None:
    from kerasgen.tokens.pairs import pack_pairs
    from kerasgen.tuners.pair_trainer import PairTrainer, read_pairs
    from kerasgen.tuners.preference_losses import PreferenceLoss

    model = small()
    documents = pairs(2)
    ask = Part("cuestion 1 and more? ", 0, "user")
    swapped = Document.of((ask, documents[1].parts[1]), "1", rejected=(ask, documents[1].rejected[1]))
    found = []
    trainer = PairTrainer(model, loss=PreferenceLoss("sigmoid", 0.1))
    for other in (documents[1], swapped):
        both = encoded(model, [documents[0], other])
        rows = pack_pairs(both, sequence_length=128)
        assert len(rows) == 1
        found.append(read_pairs(trainer, both, rows, batch_size=1)[0]["log_probabilities"])
    assert found[0][0].tobytes() == found[1][0].tobytes()
    assert found[0][1, 0] != found[1][1, 0]


@pytest.mark.slow
def test_the_reference_is_computed_once_and_kept_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerasgen.tokens.store import store
    from kerasgen.tuners import preferences

    path = tmp_path / "pairs.jsonl"
    rows = [{"q": f"what {n}", "good": f"yes {n}", "bad": f"no {n}"} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = kg.Jsonl(path, prompt="q", chosen="good", rejected="bad")

    def fit(**settings: Any) -> TuneReport:
        model = small()
        stored = store(corpus.documents, model.tokenizer, held_out=0.3, directory=tmp_path / "tokens")
        tuner = DpoTuner(**SETTINGS | {"max_steps": 2, "epochs": 2} | settings)
        return tuner.tune(model, stored.train, stored.held_out, seed=3, directory=tmp_path / "run", verbose=0)

    calls = []
    computed = preferences.Preferences._computed
    monkeypatch.setattr(preferences.Preferences, "_computed", lambda *of: calls.append(1) or computed(*of))
    first = fit()
    kept = list((tmp_path / "tokens").glob("*/reference-*.safetensors"))
    assert len(kept) == len(calls) == 1
    assert fit().losses == first.losses
    assert fit(rank=2).losses[0] == pytest.approx(first.losses[0], abs=1e-5)  # the same model before its first step
    assert len(calls) == 1
    kept[0].write_bytes(b"damaged")
    assert fit().losses == first.losses
    assert len(calls) == 2


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_reference(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    model, whole = tuned(tmp_path / "whole", max_steps=4, epochs=4, checkpoint_every=2)
    tuner = DpoTuner(**SETTINGS | {"max_steps": 4, "epochs": 4, "checkpoint_every": 2})
    import keras

    class Break(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(np.asarray(self.model.optimizer.iterations)) == 3:
                raise StoppedError

    again = small()
    train, held_out = encoded(again, pairs(8)), encoded(again, pairs(4, 100))
    settings = {"seed": 3, "directory": tmp_path / "broken", "verbose": 0}
    with pytest.raises(StoppedError):
        tuner.tune(again, train, held_out, callbacks=(Break(),), **settings)
    # The model in memory has moved; the run's reference has not.
    report = tuner.tune(again, train, held_out, resume=True, **settings)
    assert report.losses == whole.losses
    assert report.validations == whole.validations
    for left, right in zip(weights_of(again), weights_of(model), strict=True):
        np.testing.assert_array_equal(left, right)
    (tmp_path / "broken" / "report.json").unlink()
    (tmp_path / "broken" / "reference.safetensors").unlink()
    with pytest.raises(CheckpointError, match="reference differ"):
        tuner.tune(again, train, held_out, resume=True, **settings)


@pytest.mark.slow
def test_tuners_without_preferences_learn_the_chosen_answers_and_say_so(tmp_path: Path) -> None:
    plain = [dataclasses.replace(document, rejected=()) for document in pairs(8)]
    reports = []
    for name, documents in (("pairs", pairs(8)), ("plain", plain)):
        model = small()
        train = encoded(model, documents)
        tuner = FullTuner(**SETTINGS | {"max_steps": 2, "epochs": 2})
        reports.append(tuner.tune(model, train, seed=3, directory=tmp_path / name, verbose=0))
    assert reports[0].losses == reports[1].losses
    assert "8 documents have a worse answer beside the chosen one" in str(reports[0])
    assert reports[1].warnings == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of"),
        ({"beta": 0.0}, "beta must be a finite number above 0"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "is for loss='sigmoid' and 'simpo'"),
        ({"packing": "concatenate"}, "kept whole"),
        ({"learn": "all"}, "Leave out learn='all'"),
        ({"use_dora": True}, "Give a rank too"),
        ({"rank": -1}, "rank must be a whole number of at least 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TuneArgumentError, match=message):
        DpoTuner(**settings)


def test_defaults_are_decided_by_the_loss_and_the_rank() -> None:
    assert (DpoTuner().beta, DpoTuner(loss="simpo").beta) == (0.1, 2.0)
    assert (DpoTuner().learning_rate, DpoTuner(rank=8).learning_rate) == (5e-6, 5e-5)


def test_documents_without_a_worse_answer_are_refused_before_any_work(tmp_path: Path) -> None:
    model = small()
    train = encoded(model, [*pairs(3), Document("alone", "x"), Document("too", "y")])
    with pytest.raises(TuneArgumentError, match=r"2 of the 5 training documents have none: 3, 4 \(counted from 0\)"):
        DpoTuner(**SETTINGS).tune(model, train, seed=0, directory=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
    pipe = kg.Pipeline(["one text", "another text"], tuner="dpo", cache=tmp_path)
    with pytest.raises(TuneArgumentError, match="2 documents have no rejected answer: '0', '1'"):
        pipe.fit(directory=tmp_path / "run", verbose=0)
    assert pipe._model is None
    assert not (tmp_path / "run").exists()
