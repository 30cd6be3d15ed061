"""Low-rank adapters: put on without a change, tuned alone, merged, taken along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt
from toys import encode, smallest_gpt2, smallest_llama, texts, weights_of

import kerasgen as kg
from kerasgen.errors import KerasgenWarning, ModelFormatError, TuneArgumentError
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.tuners import adapters
from kerasgen.tuners.adapters import AdapterConfig
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.lora import LoraTuner

CONFIG = AdapterConfig(rank=3, alpha=6.0, targets=None)
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "sequence_length": 32, "learning_rate": 0.02}


def smallest_opt() -> LanguageModel:
    return tiny_opt(num_layers=1, hidden_dim=16, max_sequence_length=32)


@pytest.fixture(scope="module", params=[smallest_gpt2, smallest_opt], ids=["gpt2", "opt"])
def make(request: pytest.FixtureRequest) -> Callable[[], LanguageModel]:
    return request.param  # type: ignore[no-any-return]


def logits(model: LanguageModel) -> Any:
    ids = np.asarray([[5, 9, 250, 31, 77, 12, 299, 4]], np.int32)
    return np.asarray(model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


def names(model: LanguageModel) -> set[str]:
    return {variable.path.rsplit("/", 1)[-1] for variable in model.causal_lm.trainable_variables}


def fill_in(model: LanguageModel, seed: int = 0) -> None:
    """Give the second thin matrices values, as tuning would."""
    rng = np.random.default_rng(seed)
    for variable in model.causal_lm.trainable_variables:
        if variable.path.endswith("lora_kernel_b"):
            variable.assign(0.3 * rng.standard_normal(variable.shape).astype("float32"))


class TestWithoutTuning:
    def test_an_adapter_just_put_on_changes_no_logit(self, make: Callable[[], LanguageModel]) -> None:
        model = make()
        before = logits(model)
        adapters.enable(model, CONFIG, seed=1)
        np.testing.assert_array_equal(logits(model), before)
        assert names(model) == {"lora_kernel_a", "lora_kernel_b"}

    def test_merging_keeps_the_logits_and_leaves_no_trace(self, make: Callable[[], LanguageModel]) -> None:
        model = make()
        places = [variable.path for variable in model.causal_lm.weights]
        plain = logits(model)
        adapters.enable(model, CONFIG, seed=1)
        fill_in(model)
        adapted = logits(model)
        assert np.abs(adapted - plain).max() > 1e-2
        adapters.merge(model)
        np.testing.assert_allclose(logits(model), adapted, rtol=1e-5, atol=1e-5)
        assert [variable.path for variable in model.causal_lm.weights] == places
        assert len(model.causal_lm.trainable_variables) == len(places)
        assert adapters.current(model) is None
        merged = weights_of(model)
        adapters.merge(model)
        assert all(np.array_equal(one, other) for one, other in zip(weights_of(model), merged, strict=True))

    def test_saved_adapters_make_the_same_model_of_the_same_base(
        self, make: Callable[[], LanguageModel], tmp_path: Path
    ) -> None:
        model = make()
        config = AdapterConfig(rank=2, alpha=5.0, targets=("query", "feedforward_output_dense"))
        adapters.enable(model, config, seed=1)
        fill_in(model)
        adapters.save(model, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]
        assert json.loads((tmp_path / "adapter.json").read_text()) == {
            "rank": 2,
            "alpha": 5.0,
            "targets": ["feedforward_output_dense", "query"],
            "form": "paper",
            "rank_stabilized": False,
            "base": {"weights": adapters.digest_of_others(make()), "tokenizer": model.tokenizer.digest()},
        }
        again = make()
        adapters.load(again, tmp_path)
        np.testing.assert_array_equal(logits(again), logits(model))
        assert adapters.current(again) == adapters.current(model)

    def test_the_seed_alone_decides_what_the_adapters_begin_with(self) -> None:
        drawn = []
        for seed in (1, 1, 2):
            model = smallest_gpt2()
            adapters.enable(model, CONFIG, seed=seed)
            drawn.append(np.concatenate([np.ravel(value) for value in model.causal_lm.trainable_variables]))
        np.testing.assert_array_equal(drawn[0], drawn[1])
        assert (drawn[0] != drawn[2]).any()

    def test_the_same_adapters_asked_for_again_are_kept_and_others_take_their_place(self) -> None:
        model = smallest_gpt2()
        adapters.enable(model, CONFIG, seed=1)
        fill_in(model)
        adapted = logits(model)
        adapters.enable(model, CONFIG, seed=9)
        np.testing.assert_array_equal(logits(model), adapted)
        adapters.enable(model, AdapterConfig(rank=1, alpha=1.0, targets=("key",)), seed=9)
        np.testing.assert_allclose(logits(model), adapted, rtol=1e-5, atol=1e-5)
        assert adapters.current(model) == AdapterConfig(rank=1, alpha=1.0, targets=("key",))


class TestRoles:
    """A role of an architecture's table names the same part of a block in each of them."""

    @pytest.mark.parametrize("make_one", [smallest_gpt2, smallest_opt, smallest_llama], ids=["gpt2", "opt", "llama"])
    def test_the_default_is_queries_and_values(self, make_one: Callable[[], LanguageModel]) -> None:
        model = make_one()
        adapters.enable(model, CONFIG, seed=1)
        carrying = [layer for layer in model.backbone._flatten_layers() if getattr(layer, "lora_enabled", False)]
        architecture = keras_weights.architecture_of(model.causal_lm)
        assert architecture is not None
        blocks = [keras_weights.layer_parts(architecture, one) for one in model.backbone.transformer_layers]
        assert {id(layer) for layer in carrying} == {id(parts[role]) for parts in blocks for role in ("query", "value")}

    def test_every_role_of_a_llama_can_be_tuned_saved_and_merged(self, tmp_path: Path) -> None:
        model = smallest_llama()
        plain = logits(model)
        roles = ("query", "key", "value", "output", "gate", "up", "down")
        adapters.enable(model, AdapterConfig(rank=2, alpha=4.0, targets=roles), seed=1)
        assert len(model.causal_lm.trainable_variables) == 2 * len(roles) * len(model.backbone.transformer_layers)
        fill_in(model)
        adapted = logits(model)
        assert np.abs(adapted - plain).max() > 1e-2
        adapters.save(model, tmp_path)
        again = smallest_llama()
        adapters.load(again, tmp_path)
        np.testing.assert_array_equal(logits(again), adapted)
        adapters.merge(model)
        np.testing.assert_allclose(logits(model), adapted, rtol=1e-4, atol=1e-4)

    def test_a_role_and_the_name_of_its_layer_are_the_same_adapters(self) -> None:
        model = smallest_gpt2()
        adapters.enable(model, AdapterConfig(rank=2, alpha=4.0, targets=("up",)), seed=1)
        fill_in(model)
        adapted = logits(model)
        adapters.enable(model, AdapterConfig(rank=2, alpha=4.0, targets=("feedforward_intermediate_dense",)), seed=9)
        np.testing.assert_array_equal(logits(model), adapted)


class TestRefusals:
    def test_a_rank_above_a_kernels_smaller_side(self) -> None:
        """A projection is 16 by 16."""
        model = smallest_gpt2()
        before = weights_of(model)
        with pytest.raises(TuneArgumentError, match=r"smaller side \(16\)\. Received: rank=17"):
            adapters.enable(model, AdapterConfig(rank=17, alpha=1.0, targets=("query",)), seed=0)
        assert all(np.array_equal(one, other) for one, other in zip(weights_of(model), before, strict=True))

    @pytest.mark.parametrize("target", ["querry", "token_embedding", "layer_norm"])
    def test_a_target_that_is_no_dense_layer_names_those_that_are(self, target: str, tmp_path: Path) -> None:
        """Keras would adapt an embedding too, but by other means."""
        model = smallest_gpt2()
        tuner = LoraTuner(targets=("query", target))
        with pytest.raises(TuneArgumentError, match=rf"'{target}'.*can be: .*down.*key.*query.*value") as error:
            tuner.tune(model, encode(model.tokenizer, texts(2)), seed=0, directory=tmp_path, verbose=0)
        assert "'query'" not in str(error.value)
        assert adapters.current(model) is None

    def test_a_model_without_adapters_has_none_to_save(self, tmp_path: Path) -> None:
        with pytest.raises(TuneArgumentError, match="no adapters"):
            adapters.save(smallest_gpt2(), tmp_path)

    def test_adapters_of_another_model(self, tmp_path: Path) -> None:
        model = smallest_gpt2()
        adapters.enable(model, CONFIG, seed=0)
        adapters.save(model, tmp_path)
        deeper = tiny_gpt2(num_layers=2, hidden_dim=16, max_sequence_length=32)
        with pytest.raises(ModelFormatError, match="another shape"):
            adapters.load(deeper, tmp_path)

    @pytest.mark.parametrize("file", ["adapter.json", "adapter.safetensors"])
    def test_files_that_are_damaged_or_missing(self, file: str, tmp_path: Path) -> None:
        model = smallest_gpt2()
        adapters.enable(model, CONFIG, seed=0)
        adapters.save(model, tmp_path)
        data = (tmp_path / file).read_bytes()
        for damaged in (data[: len(data) // 2], b"[]"):
            (tmp_path / file).write_bytes(damaged)
            with pytest.raises(ModelFormatError, match="can't be read") as error:
                adapters.load(smallest_gpt2(), tmp_path)
            assert str(tmp_path) in str(error.value)
        (tmp_path / file).unlink()
        with pytest.raises(ModelFormatError, match="can't be read"):
            adapters.load(smallest_gpt2(), tmp_path)


@dataclass
class Tuned:
    model: LanguageModel
    frozen_before: list[Any]
    report: TuneReport
    directory: Path


def tuned(make: Callable[[], LanguageModel], directory: Path) -> Tuned:
    model = make()
    before = weights_of(model)
    tuner = LoraTuner(**SETTINGS, rank=3, alpha=6.0)
    train = encode(model.tokenizer, texts(20))
    report = tuner.tune(model, train, seed=1, directory=directory, verbose=0)
    return Tuned(model, before, report, directory)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tuned(smallest_gpt2, tmp_path_factory.mktemp("lora"))


class TestTuning:
    def check_only_adapters_moved(self, run: Tuned) -> None:
        thin = run.model.causal_lm.trainable_variables
        assert names(run.model) == {"lora_kernel_a", "lora_kernel_b"}
        assert run.report.trainable_parameters == sum(int(np.prod(variable.shape)) for variable in thin)
        assert run.report.trainable_parameters < 0.2 * run.report.parameters
        others = [variable for variable in run.model.causal_lm.weights if "lora_kernel" not in variable.path]
        for variable, before in zip(others, run.frozen_before, strict=True):
            np.testing.assert_array_equal(np.asarray(variable), before, err_msg=variable.path)
        seconds = [variable for variable in thin if variable.path.endswith("lora_kernel_b")]
        assert all(np.abs(np.asarray(variable)).max() > 0 for variable in seconds), "they began at zero"
        assert np.mean(run.report.losses[-2:]) < run.report.losses[0]

    def test_only_the_adapters_move(self, gpt2: Tuned) -> None:
        self.check_only_adapters_moved(gpt2)

    @pytest.mark.slow
    def test_only_the_adapters_move_in_opt_too(self, tmp_path: Path) -> None:
        self.check_only_adapters_moved(tuned(smallest_opt, tmp_path))

    def test_a_checkpoint_holds_the_adapters_and_not_the_frozen_weights(self, gpt2: Tuned) -> None:
        from kerasgen.tuners import checkpoints

        saved = checkpoints.read_latest(gpt2.directory)
        assert saved is not None
        weights = [tensor for name, tensor in saved.tensors.items() if name.startswith("weights/")]
        assert sum(tensor.size for tensor in weights) == gpt2.report.trainable_parameters

    def test_a_full_tuning_afterwards_merges_first(self, gpt2: Tuned, tmp_path: Path) -> None:
        """It goes on from what the adapted model computed, and tunes every weight."""
        from kerasgen.models.scoring import score

        model = gpt2.model
        train = encode(model.tokenizer, texts(20))
        adapted = score(model, train, sequence_length=32, batch_size=4).loss
        tuner = FullTuner(batch_size=20, sequence_length=32, learning_rate=1e-4, checkpoint_every=100)
        report = tuner.tune(model, train, seed=1, directory=tmp_path / "new" / "run", verbose=0)
        assert adapters.current(model) is None
        assert report.steps == 1
        assert report.losses[0] == pytest.approx(adapted, rel=1e-5)
        assert report.trainable_parameters == report.parameters == sum(before.size for before in gpt2.frozen_before)
        changed = [(one != before).any() for one, before in zip(weights_of(model), gpt2.frozen_before, strict=True)]
        assert all(changed)


@pytest.mark.one_backend
class TestTheirModel:
    """Adapters that were saved apart know the model that they belong to."""

    def saved(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
        """A pipeline whose model was named by a relative path, and what it writes."""
        folder.mkdir()
        monkeypatch.chdir(folder)
        save_preset(tiny_gpt2(), folder / "base")
        pipe = kg.Pipeline(
            ["the sea and the spring"] * 8, "./base", held_out=0.0, tuner="lora:rank=2,epochs=1,batch_size=2"
        )
        pipe.fit(verbose=0)
        saved = pipe.save(folder / "poet")
        assert (saved / "adapters").is_dir()
        return saved, pipe.generate("the", sampler="greedy", max_new_tokens=8)

    def test_a_relative_path_is_found_from_elsewhere_and_after_both_were_moved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved, text = self.saved(tmp_path / "here", monkeypatch)
        monkeypatch.chdir(tmp_path)
        assert kg.Pipeline.load(saved).generate("the", sampler="greedy", max_new_tokens=8) == text
        (tmp_path / "here").rename(tmp_path / "there")
        moved = tmp_path / "there" / "poet"
        assert kg.Pipeline.load(moved).generate("the", sampler="greedy", max_new_tokens=8) == text
        (tmp_path / "there" / "base").rename(tmp_path / "lost")
        with pytest.raises(ModelFormatError, match=r"no longer at .*here.*there.*Put it back at one"):
            kg.Pipeline.load(moved)
        (tmp_path / "there").rename(tmp_path / "here")
        with pytest.raises(ModelFormatError, match=r"no longer at '[^']*here/base'\. Put it back, or"):
            kg.Pipeline.load(tmp_path / "here" / "poet")
        (tmp_path / "here").rename(tmp_path / "there")
        (tmp_path / "lost").rename(tmp_path / "there" / "base")
        assert kg.Pipeline.load(moved).generate("the", sampler="greedy", max_new_tokens=8) == text

    def test_adapters_that_do_not_say_warn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        saved, text = self.saved(tmp_path / "here", monkeypatch)
        file = saved / "adapters" / "adapter.json"
        said = json.loads(file.read_text(encoding="utf-8"))
        del said["base"]
        file.write_text(json.dumps(said), encoding="utf-8")
        pipe = kg.Pipeline.load(saved)
        with pytest.warns(KerasgenWarning, match="save the pipeline again"):
            assert pipe.generate("the", sampler="greedy", max_new_tokens=8) == text
        pipe.save(tmp_path / "again")
        assert kg.Pipeline.load(tmp_path / "again").generate("the", sampler="greedy", max_new_tokens=8) == text

    def test_another_model_in_its_place_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        saved, text = self.saved(tmp_path / "here", monkeypatch)
        base = tmp_path / "here" / "base"
        base.rename(tmp_path / "kept")
        save_preset(tiny_gpt2(seed=1), base)
        with pytest.raises(ModelFormatError, match=r"its weights differ.*back where it was"):
            _ = kg.Pipeline.load(saved).model
        shutil.rmtree(base)
        (tmp_path / "kept").rename(base)
        assert kg.Pipeline.load(saved).generate("the", sampler="greedy", max_new_tokens=8) == text
