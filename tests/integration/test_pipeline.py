"""One object from a corpus to text to a directory and back."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import (
    ArgumentError,
    ModelFormatError,
    ModelUnavailableError,
    TuneArgumentError,
    UnknownNameError,
)
from kerasgen.models.saving import save_preset

TEXTS = [f"the {animal} and the {thing}, in the {place}" for animal in ("cat", "dog", "hen", "fox")
         for thing in ("hat", "bed", "ink", "pot") for place in ("sun", "sea", "end")]  # fmt: skip
# At a constant rate, so that runs of any length share what is compiled.
TUNER = kg.FullTuner(epochs=1, batch_size=2, sequence_length=64, learning_rate=1e-2, schedule="constant")
LORA = kg.LoraTuner(rank=2, batch_size=2, sequence_length=64, learning_rate=0.1, schedule="constant")


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    """Runs without a directory of their own keep their checkpoints here, not in the person's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def pipeline(preset, **arguments) -> kg.Pipeline:
    return kg.Pipeline(**({"corpus": TEXTS, "model": preset, "tuner": TUNER, "sampler": "greedy"} | arguments))


class TestConstructing:
    def test_a_hub_model_and_a_corpus_on_no_disk_are_fine_until_they_are_needed(self):
        """Nothing is read, no network asked: these are the lines that a person without either can still write."""
        kg.Pipeline(
            corpus="chinese_poetry:path=/data/chinese-poetry,dynasty=tang",
            model="gpt2_base_en",
            tuner=kg.FullTuner(epochs=1, learning_rate=5e-4, batch_size=16, max_steps=500),
            sampler=kg.TopK(k=5, seed=1),
        )
        kg.Pipeline(corpus="reddit_tifu", model="gpt2_base_en", tuner=kg.LoraTuner(rank=8, alpha=16), sampler="beam")

    def test_no_heavy_library_is_imported(self):
        code = """
            import sys, kerasgen as kg
            kg.Pipeline(corpus="sample", model="starter", tuner="lora:rank=4", sampler="top_p:p=0.9", seed=3)
            heavy = {"keras", "keras_hub", "keras_nlp", "tensorflow", "jax", "torch", "numpy"} & set(sys.modules)
            assert not heavy, heavy
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"corpus": "smaple"}, "sample"),
            ({"sampler": "topk"}, "top_k"),
            ({"tuner": "loar"}, "lora"),
            ({"sampler": "top_k:j=4"}, "k"),
            ({"seed": -1}, "-1"),
            ({"seed": 1.5}, "1.5"),
            ({"held_out": 1.0}, "1.0"),
            ({"seed": 2**64}, "18446744073709551616"),
            ({"max_documents": 0}, "0"),
            ({"max_documents": "5"}, "'5'"),
            ({"max_documents": 2.5}, "2.5"),
            ({"backend": "numpy"}, "numpy"),
            ({"corpus": 3}, "3"),
            ({"model": 3}, "3"),
            ({"tuner": kg.FullTuner}, "FullTuner"),
        ],
    )
    def test_a_wrong_argument_is_said_at_once_with_what_was_received(self, preset, arguments, message):
        with pytest.raises(ArgumentError, match=message):
            pipeline(preset, **arguments)

    def test_an_unknown_name_lists_the_near_ones(self, preset):
        with pytest.raises(UnknownNameError) as caught:
            pipeline(preset, sampler="topp")
        assert "top_p" in caught.value.near


class TestFitting:
    @pytest.mark.one_backend
    def test_the_held_out_texts_are_predicted_better_afterwards(self, preset):
        pipe = pipeline(preset)
        before = pipe.evaluate()
        report = pipe.fit(verbose=0)
        after = pipe.evaluate()
        assert after.bits_per_character < before.bits_per_character
        assert report.bits_per_character_before == pytest.approx(before.bits_per_character, rel=1e-4)
        assert report.bits_per_character == pytest.approx(after.bits_per_character, rel=1e-4)
        assert json.loads(json.dumps(report.to_dict()))["steps"] == report.steps == len(report.losses)

    @pytest.mark.one_backend
    def test_no_held_out_text_is_trained_on_and_every_text_is_on_one_side(self, preset):
        pipe = pipeline(preset)
        report = pipe.fit(verbose=0)
        evaluation = pipe.evaluate()
        assert report.documents + evaluation.documents == len(TEXTS)
        assert evaluation.documents > 0

    @pytest.mark.one_backend
    def test_the_report_tells_what_the_corpus_dropped(self, preset, tmp_path):
        lines = [json.dumps({"text": text}) for text in TEXTS] + ["{broken"]
        (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
        pipe = pipeline(preset, corpus=f"jsonl:path={tmp_path / 'texts.jsonl'},on_error=skip")
        report = pipe.fit(verbose=0)
        assert report.corpus["read"] == len(TEXTS) + 1
        assert report.corpus["kept"] == len(TEXTS)
        assert sum(report.corpus["dropped"].values()) == 1
        assert "dropped" in str(report)

    @pytest.mark.one_backend
    def test_max_documents_reads_no_more(self, preset):
        pipe = pipeline(preset, max_documents=10, held_out=0.0)
        assert pipe.fit(verbose=0).documents == 10

    def test_two_pipelines_of_one_seed_are_one(self, preset):
        first, second = pipeline(preset), pipeline(preset)
        assert first.fit(verbose=0).losses == second.fit(verbose=0).losses
        assert first.generate("the", max_new_tokens=8) == second.generate("the", max_new_tokens=8)

    @pytest.mark.one_backend
    def test_a_finished_run_leaves_nothing_in_the_state_directory(self, preset, tmp_path):
        report = pipeline(preset).fit(verbose=0)
        assert report.checkpoint is None
        assert not [path for path in (tmp_path / "state").rglob("*") if path.is_file()]

    @pytest.mark.one_backend
    @pytest.mark.parametrize("own", [True, False])
    def test_a_second_run_in_one_directory_is_told_who_the_first_is(self, preset, tmp_path, own):
        """Without a directory, both are the same run and so have the same folder."""
        import keras

        directory = tmp_path / "run" if own else None
        said = []

        class Second(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                with pytest.raises(kg.errors.LockedError, match=rf"being written by process {os.getpid()}") as caught:
                    pipeline(preset).fit(verbose=0, directory=directory)
                said.append(str(caught.value))

        report = pipeline(preset).fit(verbose=0, directory=directory, callbacks=[Second()])
        assert "fit(directory=…)" in said[0]
        assert report.losses == pipeline(preset).fit(verbose=0, directory=directory).losses

    @pytest.mark.one_backend
    def test_a_directory_of_ones_own_keeps_the_checkpoint(self, preset, tmp_path):
        report = pipeline(preset).fit(verbose=0, directory=tmp_path / "run")
        assert Path(report.checkpoint).parent == tmp_path / "run"

    @pytest.mark.one_backend
    def test_a_tuner_written_for_0_1_0_goes_on_working(self, preset):
        with pytest.warns(DeprecationWarning, match=r"Write `tune_job\(job\)`"):

            @dataclasses.dataclass(frozen=True)
            class TunerOf010(kg.FineTuner):
                """Overrides `tune` with the nine arguments that it had in 0.1.0."""

                def tune(
                    self,
                    model,
                    train,
                    held_out=None,
                    *,
                    seed,
                    directory,
                    resume=False,
                    callbacks=(),
                    sample=None,
                    verbose=1,
                ):
                    told = {"resume": resume, "callbacks": callbacks, "sample": sample, "verbose": verbose}
                    one_step = dataclasses.replace(TUNER, max_steps=1)
                    return one_step.tune(model, train, held_out, seed=seed, directory=directory, **told)

        report = pipeline(preset, tuner=TunerOf010()).fit(verbose=0)
        assert report.steps == 1
        assert report.validations

    @pytest.mark.parametrize("wrong", [{"resume": "yes"}, {"verbose": 3}])
    def test_how_a_run_goes_is_checked_before_the_corpus_is_read(self, preset, wrong):
        with pytest.raises(TuneArgumentError, match=f"`{next(iter(wrong))}` must be"):
            pipeline(preset, corpus="text:path=/nonexistent").fit(**wrong)

    @pytest.mark.parametrize(
        ("flag", "instead"),
        [("csv", "CSVLogger"), ("tensorboard", r"keras\.callbacks\.TensorBoard")],
    )
    def test_a_log_that_the_tuner_no_longer_writes_is_told_with_what_does(self, flag, instead):
        with pytest.raises(TuneArgumentError, match=instead):
            kg.FullTuner(**{flag: True})

    def test_without_a_corpus_it_says_so(self, preset):
        with pytest.raises(ArgumentError, match="no corpus"):
            pipeline(preset, corpus=None).fit()

    def test_without_held_out_texts_evaluate_says_so(self, preset):
        with pytest.raises(ArgumentError, match="held_out"):
            pipeline(preset, held_out=0.0).evaluate()

    def test_any_texts_can_be_evaluated(self, preset):
        assert pipeline(preset, corpus=None).evaluate(["the cat", "the dog"]).documents == 2

    @pytest.mark.one_backend
    def test_a_text_sample_is_written_every_so_often(self, preset):
        tuner = dataclasses.replace(TUNER, sample_every=2, max_steps=4)
        report = pipeline(preset, tuner=tuner).fit(verbose=0, sample_prompt="the")
        assert [sample.step for sample in report.samples] == [2, 4]
        assert all(sample.text.startswith("the") for sample in report.samples)


class TestGenerating:
    @pytest.mark.one_backend
    def test_a_string_gives_a_string_and_a_list_a_list(self, preset):
        pipe = pipeline(preset)
        one = pipe.generate("the", max_new_tokens=5)
        assert isinstance(one, str)
        assert pipe.generate(["the", "a cat"], max_new_tokens=5)[0] == one

    @pytest.mark.one_backend
    def test_the_prompt_comes_back_only_if_asked_for(self, preset):
        pipe = pipeline(preset)
        whole = pipe.generate("the", max_new_tokens=5)
        assert whole == "the" + pipe.generate("the", max_new_tokens=5, return_prompt=False)

    @pytest.mark.one_backend
    def test_the_pieces_of_a_stream_are_the_text(self, preset):
        pipe = pipeline(preset, sampler="top_k:k=20")
        assert "".join(pipe.stream("the", max_new_tokens=20)) == pipe.generate("the", max_new_tokens=20)

    @pytest.mark.one_backend
    def test_a_sampled_text_is_the_same_on_every_call(self, preset):
        pipe = pipeline(preset, sampler=kg.TopK(k=50))
        assert pipe.generate("the", max_new_tokens=20) == pipe.generate("the", max_new_tokens=20)
        assert pipe.generate("the", max_new_tokens=20) != pipe.generate("the", max_new_tokens=20, seed=1)

    @pytest.mark.one_backend
    def test_tuning_changes_what_is_generated(self, preset):
        """Compiled functions hold no weights of their own."""
        pipe = pipeline(preset)
        before = pipe.generate("the", max_new_tokens=20)
        pipe.fit(verbose=0)
        assert pipe.generate("the", max_new_tokens=20) != before


class TestSaving:
    @pytest.mark.parametrize("tuner", [TUNER, LORA])
    def test_what_is_loaded_writes_what_was_saved(self, preset, tmp_path, tuner):
        pipe = pipeline(preset, tuner=tuner, sampler=kg.TopK(k=30, temperature=0.7), seed=5)
        pipe.fit(verbose=0)
        pipe.save(tmp_path / "poet")
        again = kg.Pipeline.load(tmp_path / "poet")
        assert (again.tuner, again.sampler, again.seed) == (pipe.tuner, pipe.sampler, pipe.seed)
        assert again.generate("the", max_new_tokens=20) == pipe.generate("the", max_new_tokens=20)

    def test_adapters_are_saved_apart_and_merged_on_demand(self, preset, tmp_path):
        pipe = pipeline(preset, tuner=LORA)
        pipe.fit(verbose=0)
        apart = pipe.save(tmp_path / "apart")
        whole = pipe.save(tmp_path / "whole", merge_adapters=True)
        assert (apart / "adapters").is_dir()
        assert not (apart / "model").exists()
        assert (whole / "model").is_dir()
        ids = [pipe.tokenizer.encode("the cat and the")]
        logits = []
        for folder in (apart, whole):
            model = kg.Pipeline.load(folder).model
            inputs = {"token_ids": np.asarray(ids), "padding_mask": np.ones_like(ids)}
            logits.append(np.asarray(model.causal_lm(inputs)))
        np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
        pipe.merge()
        assert (pipe.save(tmp_path / "merged") / "model").is_dir()

    @pytest.mark.one_backend
    def test_adapters_that_replaced_others_are_saved_with_all_weights(self, preset, tmp_path):
        """The earlier ones were merged into weights that the named model doesn't have."""
        pipe = pipeline(preset, tuner=LORA)
        pipe.fit(verbose=0)
        pipe.tuner = dataclasses.replace(LORA, rank=4)
        pipe.fit(verbose=0)
        again = kg.Pipeline.load(pipe.save(tmp_path / "poet"))
        assert again.generate("the", max_new_tokens=20) == pipe.generate("the", max_new_tokens=20)

    @pytest.mark.one_backend
    def test_nothing_is_overwritten_unless_told(self, preset, tmp_path):
        pipe = pipeline(preset, corpus=None)
        pipe.save(tmp_path / "poet")
        with pytest.raises(ArgumentError, match="overwrite"):
            pipe.save(tmp_path / "poet")
        pipe.save(tmp_path / "poet", overwrite=True)
        (tmp_path / "letters").mkdir()
        with pytest.raises(ArgumentError, match="no saved pipeline"):
            pipe.save(tmp_path / "letters", overwrite=True)

    @pytest.mark.one_backend
    def test_texts_given_in_python_are_asked_for_again(self, preset, tmp_path):
        pipeline(preset).save(tmp_path / "poet")
        with pytest.raises(ArgumentError, match="no corpus"):
            kg.Pipeline.load(tmp_path / "poet").evaluate()
        assert kg.Pipeline.load(tmp_path / "poet", corpus=TEXTS).evaluate().documents > 0

    @pytest.mark.one_backend
    def test_a_named_corpus_comes_back(self, preset, tmp_path):
        pipe = pipeline(preset, corpus="sample:language=zh", max_documents=30)
        pipe.save(tmp_path / "poet")
        assert kg.Pipeline.load(tmp_path / "poet").corpus == pipe.corpus

    def test_a_directory_without_a_pipeline_is_an_error(self, tmp_path):
        with pytest.raises(ModelFormatError, match="no saved pipeline"):
            kg.Pipeline.load(tmp_path)

    def test_a_later_format_is_refused(self, preset, tmp_path):
        saved = pipeline(preset, corpus=None).save(tmp_path / "poet")
        manifest = json.loads((saved / "pipeline.json").read_text())
        (saved / "pipeline.json").write_text(json.dumps(manifest | {"format": 99}))
        with pytest.raises(ModelFormatError, match="99"):
            kg.Pipeline.load(saved)

    @pytest.mark.parametrize("manifest", [[], "poet", {"format": 1}, {"format": 1, "adapters": False}])
    def test_a_damaged_manifest_is_told_with_its_path(self, tmp_path, manifest):
        (tmp_path / "pipeline.json").write_text(json.dumps(manifest))
        with pytest.raises(ModelFormatError, match=r"pipeline\.json was changed or cut.*Save the pipeline again"):
            kg.Pipeline.load(tmp_path)

    def test_a_home_directory_is_meant_by_its_short_name(self, preset, tmp_path, monkeypatch):
        """By the sign that `export` and `load_artefact` take too."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert pipeline(preset, corpus=None).save("~/poet") == tmp_path / "poet"
        assert kg.Pipeline.load("~/poet").seed == pipeline(preset, corpus=None).seed

    def test_a_killed_save_leaves_no_half_pipeline(self, preset, tmp_path, monkeypatch):
        """The manifest is written last and the directory gets its name after that."""
        pipe = pipeline(preset, corpus=None)

        def fail(*arguments, **settings):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", fail)
        with pytest.raises(kg.KerasgenError, match="No space left"):
            pipe.save(tmp_path / "poet")
        assert not [path for path in tmp_path.iterdir() if path.name != "state"]


def test_a_silent_fit_writes_nothing(preset, tmp_path, capfd):
    tuner = dataclasses.replace(TUNER, max_steps=1)
    pipe = kg.Pipeline(corpus=["the rain", "he ran home"] * 9, model=preset, tuner=tuner, cache=tmp_path / "cache")
    capfd.readouterr()
    pipe.fit(directory=tmp_path / "run", verbose=0)
    said = capfd.readouterr()
    assert not [line for line in (said.out + said.err).splitlines() if "documents" in line]
    assert not said.out.strip()


def test_a_hub_that_cannot_be_reached_is_named_with_what_works_offline(monkeypatch):
    """The address is a closed port of this machine, so the test is the same with a network and without."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLEHUB_CACHE", "/nonexistent")
    pipe = kg.Pipeline(corpus=TEXTS, model="gpt2_base_en", tuner=TUNER)
    with pytest.raises(ModelUnavailableError, match=r"Kaggle(.|\n)*starter"):
        pipe.fit(verbose=0)


@pytest.mark.slow
@pytest.mark.essential
def test_everything_works_on_jax_where_tensorflow_cannot_be_imported(preset, tmp_path):
    """Fit, generate, evaluate, save, load and LoRA in a process in which importing TensorFlow fails."""
    code = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("tensorflow", "tensorflow_text", "tf_keras"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Blocked())
        import kerasgen as kg

        texts = [f"the cat sat on mat {{n}}" for n in range(40)]
        for tuner in ("full:max_steps=2,batch_size=2,sequence_length=64", "lora:rank=2,max_steps=2,batch_size=2"):
            pipe = kg.Pipeline(texts, {str(preset)!r}, tuner=tuner, sampler="top_p:p=0.9", backend="jax")
            pipe.fit(verbose=0)
            text = pipe.generate("the", max_new_tokens=8)
            pipe.evaluate()
            saved = pipe.save({str(tmp_path)!r} + "/" + tuner[:4])
            assert kg.Pipeline.load(saved, backend="jax").generate("the", max_new_tokens=8) == text
        assert "tensorflow" not in sys.modules
        print("done")
    """
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("done")


def test_a_corpus_that_is_held_out_whole_is_told_as_that():
    """Texts that are nearly the same lie on one side, which may be that of the held-out ones."""
    with pytest.raises(TuneArgumentError, match=r"all documents were held out.*held_out=0\.0"):
        kg.Pipeline(corpus=["the cat and the hat, in the sun"] * 6, tuner=TUNER, held_out=0.9).fit(verbose=0)
