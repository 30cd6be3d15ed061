"""Every public name of 0.1.0 works, or warns and says the new one, or is refused with what to do instead."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installing import install
from places import TESTS

import kerasgen as kg
from kerasgen.cli import main
from kerasgen.cli.app import load
from kerasgen.errors import TuneArgumentError

SAVED = TESTS / "golden" / "from_0_1_0"
OLD: dict[str, Any] = json.loads((SAVED / "names.json").read_text(encoding="utf-8"))

# Names that warn, and what the warning says to write.
MOVED = {
    "kerasgen.generation.generating.decode": "kerasgen.generation.decode",
    "kerasgen.generation.generating.generate": "kerasgen.generation.generate",
    "kerasgen.generation.generating.generate_ids": "kerasgen.generation.generate_ids",
    "kerasgen.generation.generating.stream": "kerasgen.generation.stream",
    "kerasgen.samplers.arithmetic.keep_highest": "kerasgen.samplers.selection.keep_highest",
    "kerasgen.specs.near": "kerasgen.keywords.near",
    "kerasgen.tokens.decoding.ByteTokenDecoder": "kerasgen.tokens.utf8_decoding.ByteTokenDecoder",
}

# Arguments that a signature doesn't show: `tune` hands them to `TuneJob`, and `run` takes those of 0.1.0 with a
# warning, which is tried below.
_OF_JOB = {"seed", "directory", "resume", "callbacks", "sample", "verbose"}
ELSEWHERE = {
    "FineTuner.tune": _OF_JOB,
    "FullTuner.tune": _OF_JOB,
    "LoraTuner.tune": _OF_JOB,
    "GradientTuner.tune": _OF_JOB,
    "training.run": _OF_JOB | {"model", "train", "held_out"},
}

# Settings that are refused, with what is told.
GONE: dict[tuple[str, str], tuple[Callable[[], Any], str]] = {
    (owner, name): (call, told)
    for name, told in (("csv", r"CSVLogger\(path\)"), ("tensorboard", r"keras\.callbacks\.TensorBoard\(directory\)"))
    for owner, call in (
        ("kerasgen.FullTuner", lambda name=name: kg.FullTuner(**{name: True})),
        ("kerasgen.LoraTuner", lambda name=name: kg.LoraTuner(**{name: True})),
        ("kerasgen.tuners.settings.GradientTuner", lambda name=name: kg.tuners.create(f"full:{name}=true")),
    )
}


def named(address: str) -> Any:
    """What stands at an address: modules as far as there are any, then attributes."""
    parts = address.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(address)


def left_out(address: str, old: dict[str, Any], now: Any) -> list[str]:
    """The arguments of 0.1.0 that can't be given any more as they were."""
    signature = inspect.signature(now)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items() if name not in ("self", "cls")}
    by_place = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    elsewhere = ELSEWHERE.get(".".join(address.split(".")[-2:]), set())
    known = set(kinds) | elsewhere | {name for owner, name in GONE if owner == address}
    missing = [name for name in (*old["by_place"], *old["by_name"]) if name not in known]
    if not elsewhere and by_place[: len(old["by_place"])] != old["by_place"]:
        missing.append(f"by place {', '.join(old['by_place'])}, not {', '.join(by_place)}")
    return missing


@pytest.mark.parametrize("address", OLD["names"])
def test_a_name_is_there_with_its_arguments_and_attributes(address: str) -> None:
    old = OLD["names"][address]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        now = named(address)
    messages = [str(warning.message) for warning in told if issubclass(warning.category, DeprecationWarning)]
    if address in MOVED:
        assert messages == [
            f"{address} is deprecated since kerasgen 1.0, and goes with kerasgen 2. Write {MOVED[address]}."
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert named(MOVED[address]) is now, "what is to be written is the same, and doesn't warn"
    else:
        assert not messages
    assert (old["kind"] == "class") == inspect.isclass(now)
    missing = left_out(address, old, now) if "by_place" in old else []
    fields = getattr(now, "__dataclass_fields__", {})
    for name, arguments in old.get("has", {}).items():
        is_test = name.startswith("test_") and ".testing." in address
        if (address, name) in GONE or (is_test and name in suites_values().FORMER_TESTS):
            continue
        if not (hasattr(now, name) or name in fields or name in getattr(now, "__annotations__", {})):
            if (address, name) not in FORMER_HOOKS:
                missing.append(name)
        elif "by_place" in arguments and not is_test and (address, name) not in FORMER_HOOKS:
            missing += left_out(f"{address}.{name}", arguments, getattr(now, name))
    assert missing == []


def suites_values() -> Any:
    return importlib.import_module("kerasgen.testing.values")


# What a suite of 0.1.0 overrode, and goes on overriding with a warning: tried below.
FORMER_HOOKS = {
    ("kerasgen.testing.tokenizers.TokenizerContract", "make_tokenizer"),
    ("kerasgen.testing.tuners.TunerContract", "model"),
}


@pytest.mark.parametrize(("owner", "name"), GONE)
def test_a_setting_that_is_no_more_says_what_to_do(owner: str, name: str) -> None:
    call, told = GONE[owner, name]
    with pytest.raises(TuneArgumentError, match=told):
        call()


def test_suites_of_0_1_0_go_on_with_warnings() -> None:
    from kerasgen.testing.models import ModelContract
    from kerasgen.testing.samplers import SamplerConformance
    from kerasgen.testing.tokenizers import TokenizerContract
    from kerasgen.testing.tuners import TunerContract

    for suite, name, new in (
        (SamplerConformance, "make", "SamplerContract"),
        (TokenizerContract, "make_tokenizer", "a fixture `tokenizer`"),
        (TunerContract, "model", r"fresh_model\(\)"),
        (
            ModelContract,
            "test_importing_the_source_loads_nothing_heavy",
            "test_importing_its_module_loads_nothing_heavy",
        ),
    ):
        with pytest.warns(DeprecationWarning, match=f"deprecated since kerasgen 1.0.*Write {new}"):
            type("Suite", (suite,), {name: lambda self: None})


def test_each_former_test_of_a_suite_has_its_place_taken() -> None:
    suites = [each for name, each in OLD["names"].items() if ".testing." in name]
    assert set(suites_values().FORMER_TESTS) <= {name for each in suites for name in each.get("has", {})}
    for new in suites_values().FORMER_TESTS.values():
        assert hasattr(suites_values().PluginContract, new)


class TestTuners:
    """A tuner as 0.1.0 asked for it: a method `tune`, which calls `training.run` with nine arguments."""

    @pytest.fixture
    def biases(self) -> Any:
        from kerasgen.tuners.settings import GradientTuner

        with pytest.warns(DeprecationWarning, match=r"own `tune`, as Biases defines it.*Write `tune_job\(job\)`"):

            @dataclasses.dataclass(frozen=True, kw_only=True)
            class Biases(GradientTuner):
                def tune(self, model: Any, train: Any, held_out: Any = None, **arguments: Any) -> Any:
                    from kerasgen.tuners import training

                    def freeze() -> None:
                        for weight in model.causal_lm.weights:
                            weight.trainable = weight.path.endswith("bias")

                    arguments = {"resume": False, "callbacks": (), "sample": None, "verbose": 1} | arguments
                    return training.run(model, train, held_out, settings=self, prepare=freeze, **arguments)

        return Biases

    @pytest.mark.slow
    def test_it_tunes_and_each_of_the_two_warns(self, biases: Any, tmp_path: Path) -> None:
        from tiny import tiny_gpt2

        from kerasgen.models.saving import save_preset

        texts = ["the cat sat", "a mat in the rain", "a dog in the rain"] * 2
        pipe = kg.Pipeline(
            texts,
            save_preset(tiny_gpt2(num_layers=1), tmp_path / "tiny"),
            tuner=biases(batch_size=2, max_steps=2),
            held_out=0,
        )
        before = {weight.path: np.array(weight) for weight in pipe.model.network.weights}
        with pytest.warns(DeprecationWarning, match=r"training\.run\(model, .*kg\.TuneJob\("):
            report = pipe.fit(directory=tmp_path / "run", verbose=0)
        moved = [each.path for each in pipe.model.network.weights if not np.array_equal(each, before[each.path])]
        assert report.steps == 2
        assert moved
        assert all(path.endswith("bias") for path in moved)

    def test_a_wrong_argument_of_the_former_call_is_told(self) -> None:
        from kerasgen.tuners import training

        with (
            pytest.warns(DeprecationWarning, match=r"training\.run"),
            pytest.raises(TuneArgumentError, match="directory"),
        ):
            training.run(None, None, settings=kg.FullTuner(), prepare=lambda: None, seed=0)  # type: ignore[call-arg, arg-type]


def test_a_runtime_that_defines_generate_ids_goes_on_with_a_warning() -> None:
    from kerasgen.runtime import Runtime

    with pytest.warns(DeprecationWarning, match=r"own `generate_ids`.*Write `generate_checked\("):
        type("Old", (Runtime,), {"generate_ids": lambda self, prompts, **settings: [[1]]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = type("New", (Runtime,), {"generate_checked": lambda self, prompts, config, *, end_token_id: [[1]]})
        type("Further", (new,), {"generate_ids": lambda self, prompts, **settings: [[2]]})


def test_a_module_that_a_saved_reference_names_still_has_its_samplers() -> None:
    """Entry points of 0.1.0, and what was pickled with it, name classes where they lay then."""
    for each in OLD["entry_points"].values():
        for value in each.values():
            module, _, name = value.partition(":")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                assert getattr(importlib.import_module(module), name) is getattr(kg, name)


@pytest.mark.parametrize("group", OLD["entry_points"])
def test_a_registered_name_is_registered_still(group: str) -> None:
    registry = importlib.import_module(group).REGISTRY
    assert set(OLD["entry_points"][group]) <= set(registry.names())


def test_an_extra_can_be_asked_for_still() -> None:
    """`gguf`, whose package is a dependency by now, came between the two versions."""
    assert {*OLD["extras"], "gguf"} <= set(metadata.metadata("kerasgen").get_all("Provides-Extra") or ())


@pytest.mark.parametrize("command", OLD["commands"])
def test_a_command_has_its_flags(command: str) -> None:
    flags = {option for parameter in load(command).params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(OLD["commands"][command]) <= flags


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generate", "starter", "春", "--max-new", "5"], "--max-new-tokens"),
        (["fit", "sample", "--max-doc", "5", "--output", "x"], "--max-documents"),
    ],
)
def test_a_shortened_flag_is_told_in_full(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert told in capsys.readouterr().err


def test_what_the_upgrading_page_says_is_what_is_told_here() -> None:
    """Each name that warns or is gone stands in the changelog's table, which the page for those who upgrade shows."""
    changelog = (TESTS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    page = changelog[changelog.index("<!-- upgrade -->") : changelog.index("<!-- /upgrade -->")]
    words = set(re.findall(r"[\w.]+", page))
    for address in MOVED:
        assert address in words or address.rpartition(".")[0] in words, address
    for name in {name for _, name in GONE} | {name for _, name in FORMER_HOOKS}:
        assert name in words, name


def test_the_plugins_of_0_1_0_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules as the documentation of 0.1.0 had them: a corpus, a sampler, a tuner and an exporter."""
    from kerasgen.plugins import Registry

    source = (SAVED / "kerasgen_extras.py").read_text(encoding="utf-8")
    kinds = {"corpora": "Fortunes", "samplers": "TopA", "tuners": "BiasTuner", "exporters": "NpzExporter"}
    module = "kerasgen_extras_of_0_1_0"
    points = {f"kerasgen.{kind}": {"old": f"{module}:{name}"} for kind, name in kinds.items()}
    install(tmp_path, module, points, {module: source}, version="1.0")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for kind, name in kinds.items():
            known = importlib.import_module(f"kerasgen.{kind}").REGISTRY
            registry: Registry[Any] = Registry(
                f"kerasgen.{kind}", contract=known._contract, noun=known.noun, error=known.error
            )
            assert registry.get("old").__name__ == name
    assert [str(each.message)[:52] for each in told] == ["A tuner's own `tune`, as BiasTuner defines it, is de"]
