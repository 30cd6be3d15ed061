"""Presets from disk, from the package and from hubs: what comes, and what is said when it can't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from installing import without_tensorflow
from places import SUPPORT
from tiny import tiny_gpt2, tiny_opt

from kerasgen import backend, models
from kerasgen.errors import (
    ModelArgumentError,
    ModelFormatError,
    ModelUnavailableError,
    UnknownNameError,
)
from kerasgen.models import preset_names, starter
from kerasgen.models.base import LanguageModel
from kerasgen.models.hub import Hub
from kerasgen.models.resolving import resolve
from kerasgen.models.saving import save_preset
from kerasgen.models.starter import Starter
from kerasgen.testing.models import ModelContract

# Nothing listens there, whatever network the machine has.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def gpt2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(seed=1), tmp_path_factory.mktemp("gpt2") / "preset")


@pytest.fixture(scope="module")
def opt_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_opt(seed=2), tmp_path_factory.mktemp("opt") / "preset")


@pytest.fixture
def copy(gpt2_directory: Path, tmp_path: Path) -> Path:
    """A GPT-2 preset that may be damaged."""
    return Path(shutil.copytree(gpt2_directory, tmp_path / "copy"))


class TestGpt2FromDisk(ModelContract):
    @pytest.fixture
    def source(self, gpt2_directory: Path) -> Hub:
        return Hub(str(gpt2_directory))

    def test_start_and_end_are_end_of_text(self, model: LanguageModel) -> None:
        tokenizer = model.tokenizer
        assert tokenizer.token_bytes(tokenizer.end_token_id) == b"<|endoftext|>"
        assert tokenizer.start_token_id == tokenizer.end_token_id


class TestOptFromDisk(ModelContract):
    @pytest.fixture
    def source(self, opt_directory: Path) -> Hub:
        return Hub(str(opt_directory))

    def test_start_and_end_and_padding_are_opt_s(self, model: LanguageModel) -> None:
        tokenizer = model.tokenizer
        assert tokenizer.token_bytes(tokenizer.end_token_id) == b"</s>"
        assert tokenizer.start_token_id == tokenizer.end_token_id
        assert tokenizer.token_bytes(tokenizer.pad_token_id) == b"<pad>"


@pytest.mark.slow
class TestStarter(ModelContract):
    text = "春風"

    @pytest.fixture
    def source(self) -> Starter:
        return Starter()

    @pytest.fixture
    def spec(self) -> str:
        return "starter"


def test_the_tiny_models_keep_moving() -> None:
    """Greedy text of the tests' own models has many different ids, so that a wrong one is seen."""
    for model in (tiny_gpt2(), tiny_opt()):
        ids = np.zeros((1, 24), dtype="int32")
        ids[0, :3] = 40, 41, 42
        for position in range(2, 23):  # one shape for all steps: a new one costs a compilation
            logits = model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)})
            ids[0, position + 1] = _numpy(logits)[0, position].argmax()
        assert len(set(ids[0])) > 10


def test_the_same_seed_gives_the_same_tiny_model() -> None:
    first, again, other = (tiny_gpt2(seed=seed) for seed in (3, 3, 4))
    weights = [np.concatenate([_numpy(w).ravel() for w in m.causal_lm.weights]) for m in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


class TestResolving:
    def test_names_presets_addresses_and_paths(self, tmp_path: Path) -> None:
        (tmp_path / "poet").mkdir()
        assert resolve("starter") == Starter()
        assert resolve("gpt2_base_en") == Hub("gpt2_base_en")
        assert resolve("hub:preset=opt_125m_en") == Hub("opt_125m_en")
        assert resolve("hf://openai-community/gpt2") == Hub("hf://openai-community/gpt2")
        assert resolve("kaggle://keras/gpt2/keras/gpt2_base_en/2") == Hub("kaggle://keras/gpt2/keras/gpt2_base_en/2")
        assert resolve(tmp_path / "poet") == Hub(str(tmp_path / "poet"))
        assert resolve(str(tmp_path / "poet")) == Hub(str(tmp_path / "poet"))
        assert resolve(Path("poet")) == Hub("./poet")

    def test_a_path_that_is_called_like_a_model_is_a_path(self) -> None:
        """Text is a name first; a `Path` is never one."""
        assert resolve(Path("starter")) == Hub(f".{os.sep}starter")

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "  ",
            None,
            42,
            b"starter",
            ["starter"],
            "hub",
            "hub:presets=a",
            "starter:seed=1",
            "what ever",
            "hf://",
            "hf://a/b/c",
            "kaggle://keras/gpt2",
            "s3://bucket/model",
        ],
    )
    def test_anything_else_is_refused_at_once(self, value: object) -> None:
        with pytest.raises(ModelArgumentError):
            resolve(value)  # type: ignore[arg-type]

    def test_a_misspelt_preset_is_told_at_once_with_the_near_ones(self) -> None:
        """Nobody should wait for Keras to hear of a typing error."""
        with pytest.raises(UnknownNameError, match="Did you mean") as caught:
            resolve("gpt2_bas_en")
        assert caught.value.name == "gpt2_bas_en"
        assert "gpt2_base_en" in caught.value.near

    def test_the_names_read_from_keras_hub_s_files_hold_all_that_it_registers(self) -> None:
        backend.use()
        import keras_hub

        assert preset_names.known() >= set(keras_hub.models.Backbone.presets)

    def test_an_unregistered_name_with_arguments_names_the_near_ones(self) -> None:
        with pytest.raises(UnknownNameError) as caught:
            resolve("startr:seed=1")
        assert "starter" in caught.value.near

    def test_a_source_survives_its_text_even_with_commas_and_quotes(self, gpt2_directory: Path, tmp_path: Path) -> None:
        awkward = Path(shutil.copytree(gpt2_directory, tmp_path / 'a,b "c"'))
        assert resolve(resolve(awkward).load().source) == Hub(str(awkward))

    def test_a_source_survives_a_manifest(self) -> None:
        for source in (Hub("gpt2_base_en"), Starter()):
            assert models.REGISTRY.from_manifest(json.loads(json.dumps(models.REGISTRY.to_manifest(source)))) == source

    def test_resolving_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; from kerasgen.models.resolving import resolve; resolve('gpt2_base_en'); resolve('starter');"
            "print([m for m in ('keras', 'keras_hub', 'numpy', 'jax', 'tensorflow', 'tokenizers') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "[]"


class TestUnavailable:
    def test_an_unknown_preset_names_the_near_ones(self) -> None:
        with pytest.raises(UnknownNameError, match="gpt2_base_en") as caught:
            Hub("gpt2_bas_en").load()
        assert caught.value.name == "gpt2_bas_en"
        assert "gpt2_base_en" in caught.value.near

    @pytest.mark.parametrize("preset", ["f_net_base_en", "bart_base_en"])
    def test_a_preset_that_continues_no_text_is_refused_before_any_download(self, preset: str) -> None:
        with pytest.raises(ModelArgumentError, match=preset):
            Hub(preset).load()

    @pytest.mark.one_backend
    def test_a_hub_that_can_t_be_reached_is_named_with_what_works_offline(self, tmp_path: Path) -> None:
        """A process whose every connection is refused, with an empty cache, on any machine."""
        hubs = {
            "gpt2_base_en": "Kaggle",
            "kaggle://keras/gpt2/keras/gpt2_base_en": "Kaggle",
            "hf://openai-community/gpt2": "Hugging Face",
        }
        code = f"""
            from kerasgen.models.resolving import resolve
            from kerasgen.errors import ModelUnavailableError
            for preset in {list(hubs)!r}:
                try:
                    resolve(preset).load()
                except ModelUnavailableError as error:
                    assert error.__suppress_context__ and error.__cause__ is None  # no traceback but our own
                    print(error)
            """
        environment = {
            **os.environ,
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), NOWHERE),
            "NO_PROXY": "",
            "no_proxy": "",
            # Hugging Face's client tries six times in 23 s when refused; told that it is offline, it fails at once.
            "HF_HUB_OFFLINE": "1",
            "HF_ENDPOINT": NOWHERE,
            "HF_HOME": str(tmp_path / "hf"),
            "KAGGLEHUB_CACHE": str(tmp_path / "kaggle"),
        }
        run = subprocess.run(
            [sys.executable, "-c", dedent(code)],
            env=without_tensorflow(environment),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        messages = run.stdout.splitlines()
        assert len(messages) == len(hubs)
        for message, (preset, hub) in zip(messages, hubs.items(), strict=True):
            assert message.startswith(f"{hub} could not be reached")
            assert repr(preset) in message
            assert "'starter'" in message
            assert "directory" in message

    def test_a_path_where_nothing_lies(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailableError, match="nowhere"):
            Hub(str(tmp_path / "nowhere")).load()

    def test_a_path_to_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.h5").write_bytes(b"x")
        with pytest.raises(ModelUnavailableError, match="it is a file"):
            Hub(str(tmp_path / "model.h5")).load()

    def test_an_installation_without_the_starter_s_files_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(starter, "DIRECTORY", tmp_path / "starter_preset")
        with pytest.raises(ModelUnavailableError, match="not part of this installation"):
            Starter().load()

    def test_the_starter_is_the_preset_in_its_folder_with_its_card(
        self, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (copy / starter.CARD).write_text("# A card\n", encoding="utf-8")
        monkeypatch.setattr(starter, "DIRECTORY", copy)
        model = Starter().load()
        assert model.source == "starter"
        assert model.metadata["model_card"] == "# A card\n"


class TestDamaged:
    def test_a_directory_that_is_no_preset_says_what_was_found(self, tmp_path: Path) -> None:
        (tmp_path / "poem.txt").write_text("春", encoding="utf-8")
        with pytest.raises(ModelFormatError, match=r"no 'config.json'.*poem\.txt"):
            Hub(str(tmp_path)).load()

    def test_a_config_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"port": 80}', encoding="utf-8")
        with pytest.raises(ModelFormatError, match="'port'"):
            Hub(str(tmp_path)).load()

    @pytest.mark.parametrize("text", ["{", "[1, 2]", "\ufeff{}", "null"])
    def test_a_config_that_is_no_json_object(self, copy: Path, text: str) -> None:
        (copy / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ModelFormatError, match="copy"):
            Hub(str(copy)).load()

    @pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
    def test_weights_that_were_cut_short(self, copy: Path, keep: float) -> None:
        path = copy / "model.weights.h5"
        data = path.read_bytes()
        path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
        with pytest.raises(ModelFormatError, match="copy"):
            Hub(str(copy)).load()

    def test_weights_of_another_shape(self, copy: Path) -> None:
        for name in ("config.json", "task.json"):
            path = copy / name
            path.write_text(path.read_text("utf-8").replace('"hidden_dim": 32', '"hidden_dim": 16'), encoding="utf-8")
        with pytest.raises(ModelFormatError, match="copy"):
            Hub(str(copy)).load()

    @pytest.mark.parametrize(
        "file", ["model.weights.h5", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"]
    )
    def test_a_missing_file_is_named(self, copy: Path, file: str) -> None:
        (copy / file).unlink()
        with pytest.raises(ModelFormatError, match=file.rsplit("/", 1)[-1].split(".")[0]):
            Hub(str(copy)).load()

    def test_a_vocabulary_larger_than_the_model(self, copy: Path) -> None:
        path = copy / "assets" / "tokenizer" / "vocabulary.json"
        vocabulary = json.loads(path.read_text("utf-8"))
        vocabulary["beyond"] = len(vocabulary)
        path.write_text(json.dumps(vocabulary), encoding="utf-8")
        with pytest.raises(ModelFormatError, match="301 ids and its model only 300"):
            Hub(str(copy)).load()

    def test_a_preset_of_no_generator(self, tmp_path: Path) -> None:
        backend.use()
        import keras_hub

        f_net = keras_hub.models.FNetBackbone(
            vocabulary_size=10, num_layers=1, hidden_dim=4, intermediate_dim=4, max_sequence_length=8
        )
        f_net.save_to_preset(str(tmp_path / "f_net"))
        with pytest.raises(ModelFormatError, match="FNetBackbone"):
            Hub(str(tmp_path / "f_net")).load()


@pytest.mark.one_backend
def test_models_are_loaded_and_saved_where_tensorflow_can_t_be_imported(tmp_path: Path) -> None:
    """On JAX nothing needs TensorFlow: not KerasHub, not the tokenizer, not the preset that is written."""
    code = f"""
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0].startswith("tensorflow"):
                    raise ImportError(f"{{name}} is blocked")

        sys.meta_path.insert(0, Blocker())
        sys.path.insert(0, {str(SUPPORT)!r})
        from tiny import tiny_gpt2, tiny_opt
        import numpy as np
        from kerasgen.models.resolving import resolve
        from kerasgen.models.saving import save_preset
        import keras, keras_hub

        for make in (tiny_gpt2, tiny_opt):
            directory = save_preset(make(), {str(tmp_path)!r} + "/" + make.__name__, dtype="float16")
            again = resolve(directory).load()
            ids = np.asarray([again.tokenizer.encode("spring 春")], dtype="int32")
            inputs = {{"token_ids": ids, "padding_mask": np.ones_like(ids)}}
            ours = keras.ops.convert_to_numpy(again.causal_lm(inputs))
            plain = keras_hub.models.CausalLM.from_preset(str(directory))
            assert np.array_equal(ours, keras.ops.convert_to_numpy(plain(inputs)))
            assert plain.preprocessor.tokenizer("spring").tolist() == again.tokenizer.encode("spring")
        assert not any(name.startswith("tensorflow") for name in sys.modules)
        print("fine on", keras.config.backend())
        """
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip().endswith("fine on jax"), run.stderr


def _numpy(tensor: object) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))
