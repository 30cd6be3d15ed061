"""Registries over real installed metadata: who may claim a name, and what a bad plugin can break."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from installing import child, install, install_project
from tiny import tiny_gpt2

from kerasgen import samplers
from kerasgen.errors import (
    KerasgenWarning,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    SamplerArgumentError,
    UnknownNameError,
)
from kerasgen.plugins import Registry
from kerasgen.samplers.sampling import Greedy, TopK

pytestmark = pytest.mark.one_backend

GROUP = "kerasgen.samplers"

# A sampler as a plugin's author writes one.
SAMPLER = """
from dataclasses import dataclass
from kerasgen.samplers.sampling import TopK

@dataclass(frozen=True)
class Mine(TopK):
    \"\"\"Mine.\"\"\"
    mood: str = "calm"
"""


def registry() -> Registry[Any]:
    """A registry that has seen nothing yet."""
    return Registry(GROUP, contract="kerasgen.samplers.base:SamplerSpec", noun="sampler", error=SamplerArgumentError)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sys.path to install into; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


def test_the_names_are_sorted_and_complete() -> None:
    names = registry().names()
    assert list(names) == sorted(names)
    assert {"greedy", "random", "top_k", "top_p", "min_p", "beam", "contrastive"} <= set(names)


def test_an_unknown_name_is_an_error_that_lists_the_near_ones_and_where_others_come_from() -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry().create("topk:k=4")
    assert (caught.value.name, caught.value.near[0]) == ("topk", "top_k")
    for said in ("No sampler is called 'topk'", "Did you mean 'top_k'", "contrastive, gibbs, greedy", repr(GROUP)):
        assert said in str(caught.value)


def test_a_name_that_nothing_comes_near_is_an_error_without_a_guess() -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry().get("zzzzzz")
    assert caught.value.near == ()
    assert "Did you mean" not in str(caught.value)


def test_a_registry_without_plugins_says_that_there_are_none() -> None:
    empty = Registry[Any]("kerasgen.none", contract="builtins:object", noun="thing", error=SamplerArgumentError)
    assert empty.names() == ()
    with pytest.raises(UnknownNameError, match="There are: none"):
        empty.get("anything")


def test_a_plugin_is_imported_when_it_is_asked_for_and_not_before(site: Path) -> None:
    install(site, "mine", {GROUP: {"mine": "plugin_mine:Mine"}}, {"plugin_mine": SAMPLER})
    here = registry()
    assert "mine" in here.names()
    assert here.create("top_k:k=3") == TopK(k=3)
    assert "plugin_mine" not in sys.modules
    assert here.create("mine:mood=wild,k=3").mood == "wild"
    assert "plugin_mine" in sys.modules


def test_two_packages_that_claim_one_name_are_both_named_when_it_is_asked_for(site: Path) -> None:
    install(site, "package-one", {GROUP: {"mine": "plugin_one:Mine"}}, {"plugin_one": SAMPLER})
    install(
        site, "package-two", {GROUP: {"mine": "plugin_two:Mine", "other": "plugin_two:Mine"}}, {"plugin_two": SAMPLER}
    )
    here = registry()
    assert "mine" in here.names()
    assert here.create("greedy") == Greedy()
    assert here.create("other").mood == "calm"
    with pytest.raises(PluginConflictError, match=r"claimed by package-one and package-two\. Uninstall") as caught:
        here.create("mine")
    assert caught.value.distribution == "package-one, package-two"
    assert "plugin_one" not in sys.modules


def test_a_built_in_can_not_be_shadowed(site: Path) -> None:
    install(site, "usurper", {GROUP: {"top_k": "plugin_usurper:Mine"}}, {"plugin_usurper": SAMPLER})
    here = registry()
    assert here.create("top_p").p == 0.9
    with pytest.warns(KerasgenWarning, match="'plugin_usurper:Mine', which the package 'usurper' declares") as caught:
        assert here.create("top_k:k=3") == TopK(k=3)
    assert len(caught) == 1
    assert here.create("top_k") == TopK()  # said once
    assert "plugin_usurper" not in sys.modules
    assert here.distribution("top_k") == "kerasgen"
    assert here.name_of(TopK()) == "top_k"


def test_a_built_in_keeps_its_name_where_a_package_gives_its_class_another(site: Path) -> None:
    install(site, "alias", {GROUP: {"a_top_k": "kerasgen.samplers.sampling:TopK"}})
    here = registry()
    assert here.get("a_top_k") is TopK
    assert here.to_text(TopK(k=3)) == "top_k:k=3"


def test_no_built_in_of_any_kind_can_be_shadowed(tmp_path: Path) -> None:
    """A package that claims every name of ours, and whose code fails, leaves each of them as it was."""
    declared = importlib.metadata.distribution("kerasgen").entry_points
    groups: dict[str, dict[str, str]] = {}
    for point in declared:
        if point.group.startswith("kerasgen."):
            groups.setdefault(point.group, {})[point.name] = "plugin_usurper:Mine"
    assert len(groups) == 6
    install(tmp_path, "usurper", groups, {"plugin_usurper": "raise RuntimeError('no licence')"})
    said = child(
        """
import json, sys, warnings
import kerasgen as kg
from kerasgen import constraints, corpora, exporters, models, samplers, tuners
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pipe = kg.Pipeline(corpus="sample")
defaults = sorted(str(each.message).split(" is kerasgen")[0] for each in caught)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    again = kg.Pipeline.from_recipe(pipe.to_recipe())
    exporter = exporters.registry.by_ending(__import__("pathlib").Path("poet.gguf"))
    modules = {
        f"{each.REGISTRY.kind}.{name}": each.get(name).__module__
        for each in (constraints, corpora, exporters, models, samplers, tuners) for name in each.REGISTRY.built_ins()
    }
print(json.dumps([defaults, repr(pipe), repr(again), exporter, modules, "plugin_usurper" in sys.modules]))
""",
        tmp_path,
    )
    defaults, pipe, again, exporter, modules, is_loaded = said
    assert defaults == ["The corpus 'sample'", "The model 'starter'", "The sampler 'top_k'", "The tuner 'full'"]
    assert pipe == again == "Pipeline(corpus='sample', model='starter', tuner='full', sampler='top_k', seed=0)"
    assert exporter == "gguf"
    assert len(modules) == sum(map(len, groups.values()))
    assert {module.partition(".")[0] for module in modules.values()} == {"kerasgen"}
    assert not is_loaded


def test_a_package_that_declares_a_name_twice_is_at_fault(site: Path) -> None:
    install(site, "twice", {GROUP: {"mine": "plugin_twice:Mine"}}, {"plugin_twice": SAMPLER})
    declared = site / "twice-1.0.dist-info" / "entry_points.txt"
    declared.write_text(declared.read_text() + "mine = plugin_twice:Yours\n")
    with pytest.raises(PluginConflictError, match="'twice' declares the sampler 'mine' more than once") as caught:
        registry().get("mine")
    assert caught.value.distribution == "twice"


def test_an_older_copy_of_a_package_further_down_the_path_claims_nothing(
    site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation beside an ordinary one is one package."""
    install(site, "mine", {GROUP: {"mine": "plugin_mine:Mine"}}, {"plugin_mine": SAMPLER}, version="2.0")
    older = tmp_path_factory.mktemp("older")
    install(older, "mine", {GROUP: {"mine": "plugin_old:Mine"}}, version="1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older)])
    assert registry().get("mine").__module__ == "plugin_mine"


@pytest.mark.parametrize(
    ("target", "source", "cause"),
    [
        ("plugin_bad:Mine", "raise RuntimeError('no licence')", RuntimeError),
        ("plugin_bad:Mine", "import no_such_package", ModuleNotFoundError),
        ("plugin_bad:Mine", "def broken(:", SyntaxError),
        ("plugin_bad:Other", SAMPLER, AttributeError),
        ("no_such_module:Mine", SAMPLER, ModuleNotFoundError),
    ],
)
def test_a_plugin_that_fails_names_its_package_chains_the_cause_and_breaks_nothing_else(
    site: Path, target: str, source: str, cause: type[Exception]
) -> None:
    install(site, "bad-package", {GROUP: {"bad": target}}, {"plugin_bad": source})
    here = registry()
    assert "bad" in here.names()
    with pytest.raises(PluginLoadError, match="'bad' of the package 'bad-package' could not be loaded") as caught:
        here.create("bad")
    assert caught.value.distribution == "bad-package"
    assert isinstance(caught.value.__cause__, cause)
    assert str(caught.value.__cause__) in str(caught.value)
    assert {here.create(name).seed for name in here.names() if name != "bad"} == {None}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Mine = 4", "must be a subclass of kerasgen.samplers.base.SamplerSpec. Received: 4"),
        ("def Mine(k=3): ...", "must be a subclass"),
        ("class Mine: ...", "must be a subclass"),
        ("from kerasgen.samplers import Greedy\nMine = Greedy()", "could not be loaded"),
        ("from kerasgen.samplers.sampling import Greedy\nMine = Greedy()", "must be a subclass"),
    ],
)
def test_a_plugin_that_is_not_what_the_contract_asks_for_is_refused(site: Path, source: str, said: str) -> None:
    install(site, "odd", {GROUP: {"odd": "plugin_odd:Mine"}}, {"plugin_odd": source})
    with pytest.raises(PluginLoadError) as caught:
        registry().get("odd")
    assert said in str(caught.value)
    assert caught.value.distribution == "odd"


def test_a_plugin_that_is_no_dataclass_is_refused(site: Path) -> None:
    """Its arguments could not be read from text."""
    source = "from kerasgen.corpora import CorpusSource\nclass Plain(CorpusSource):\n    documents = None\n"
    install(site, "plain", {"kerasgen.corpora": {"plain": "plugin_plain:Plain"}}, {"plugin_plain": source})
    here = Registry[Any](
        "kerasgen.corpora", contract="kerasgen.corpora:CorpusSource", noun="corpus", error=SamplerArgumentError
    )
    with pytest.raises(PluginLoadError, match="'plain' of the package 'plain' must be a frozen dataclass"):
        here.create("plain")


def test_a_plugin_whose_annotations_can_not_be_resolved_is_refused(site: Path) -> None:
    source = "from __future__ import annotations\n" + SAMPLER.replace("mood: str", "mood: Mood")
    install(site, "moody", {GROUP: {"moody": "plugin_moody:Mine"}}, {"plugin_moody": source})
    with pytest.raises(PluginLoadError, match="annotations can be resolved: NameError: name 'Mood'"):
        registry().create("moody")


def test_a_damaged_installation_without_a_name_is_still_told_apart(site: Path) -> None:
    install(site, "nameless", {GROUP: {"mine": "no_such_module:Mine"}}, named=False)
    with pytest.raises(PluginLoadError, match="an unnamed package") as caught:
        registry().get("mine")
    assert isinstance(caught.value, PluginError)


def test_an_argument_that_is_wrong_is_the_registry_s_own_error() -> None:
    for text in ("top_k:q=4", "top_k:k=many", "top_k:k=0", 'top_k:"k=4', "", "top_k:"):
        with pytest.raises(SamplerArgumentError):
            registry().create(text)


def test_a_value_of_a_class_that_nobody_registered_can_not_be_saved() -> None:
    class Unregistered(TopK):
        pass

    for save in (registry().to_manifest, registry().to_text):
        with pytest.raises(SamplerArgumentError, match="Unregistered is no registered sampler"):
            save(Unregistered())


def test_a_class_that_its_package_offers_elsewhere_than_it_lives_has_its_name(site: Path) -> None:
    """`from package import Mine` is how people get it; they never asked a registry."""
    install(
        site,
        "front",
        {GROUP: {"mine": "plugin_front:Mine"}},
        {"plugin_front": "from plugin_back import Mine", "plugin_back": SAMPLER},
    )
    here = registry()
    spec = importlib.import_module("plugin_front").Mine(mood="wild")
    assert here.to_manifest(spec) == {"name": "mine", "arguments": {"mood": "wild"}}
    assert here.to_text(spec) == "mine:mood=wild"
    assert here.from_manifest(here.to_manifest(spec)) == spec


@pytest.mark.parametrize(
    "manifest", [None, [], {}, {"name": "top_k"}, {"name": 4, "arguments": {}}, {"name": "top_k", "arguments": [1]}]
)
def test_a_damaged_manifest_is_an_error_and_not_a_crash(manifest: Any) -> None:
    with pytest.raises(SamplerArgumentError, match="A saved sampler is"):
        registry().from_manifest(manifest)


def test_a_manifest_of_a_plugin_that_is_gone_says_where_it_could_come_from() -> None:
    with pytest.raises(UnknownNameError, match=r"entry-point group 'kerasgen\.samplers'"):
        registry().from_manifest({"name": "second_best", "arguments": {}})


def test_what_a_person_wrote_resolves_to_a_value_or_an_error() -> None:
    here = registry()
    assert here.resolve("top_k:k=4") == TopK(k=4)
    spec = TopK(k=4)
    assert here.resolve(spec) is spec
    with pytest.raises(SamplerArgumentError, match=r"Write TopK\(…\)"):
        here.resolve(TopK)
    with pytest.raises(SamplerArgumentError, match="Received: 4"):
        here.resolve(4)


def test_the_module_s_functions_are_its_registry_s() -> None:
    assert samplers.names() == samplers.REGISTRY.names()
    assert samplers.get("top_k") is TopK
    assert samplers.create("top_k:k=4") == TopK(k=4)
    assert samplers.describe("top_k").startswith("top_k(k: int = 5, ")


def test_a_package_from_outside_is_used_like_a_built_in(tmp_path: Path) -> None:
    """A corpus and a sampler of a real project, in a process that knows nothing but that it is installed."""
    install_project(tmp_path, "kerasgen-haiku")
    said = child(
        """
import json, sys
import kerasgen as kg
from kerasgen.corpora import CorpusTally
names = ["haiku" in kg.corpora.names(), "second_best" in kg.samplers.names(), "kerasgen_haiku" in sys.modules]
pipe = kg.Pipeline(corpus="haiku:season=winter,shout=yes", sampler="second_best:patience=2")
manifest = kg.corpora.REGISTRY.to_manifest(pipe.corpus)
again = kg.corpora.REGISTRY.from_manifest(json.loads(json.dumps(manifest)))
tally = CorpusTally()
texts = [document.text for document in again.documents(tally)]
from kerasgen_haiku import SecondBest
same = [again == pipe.corpus, pipe.sampler == SecondBest(patience=2), kg.samplers.REGISTRY.to_text(pipe.sampler)]
try:
    kg.Pipeline(corpus="haiku:season=spring")
except kg.errors.CorpusArgumentError as error:
    refused = str(error)
print(json.dumps([names, manifest, texts, tally.kept, same, refused, kg.corpora.describe("haiku")]))
""",
        tmp_path,
    )
    names, manifest, texts, kept, same, refused, description = said
    assert names == [True, True, False]
    assert manifest == {"name": "haiku", "arguments": {"season": "winter", "shout": True}}
    assert texts[0].startswith("SNOW ON THE LADDER\n")
    assert kept == len(texts) == 2
    assert same == [True, True, "second_best:patience=2"]
    assert "takes one of 'any', 'summer', 'winter'. Received: 'spring'" in refused
    assert description.startswith("haiku(season: Literal['any', 'summer', 'winter'] = 'any', shout: bool = False)")


def test_a_sampler_from_outside_writes_text(site: Path) -> None:
    """The second best token is not the greedy one, where the text so far is the same."""
    from kerasgen.generation import generate_ids  # imports Keras, which nothing else here needs

    install_project(site, "kerasgen-haiku")
    sampler = registry().create("second_best")
    model = tiny_gpt2()
    prompt = model.tokenizer.encode("春")
    greedy, second, again = (
        generate_ids(model, [prompt], sampler=spec, max_new_tokens=3)[0][0].token_ids
        for spec in (Greedy(), sampler, sampler)
    )
    assert second == again
    assert second[0] != greedy[0]


@pytest.mark.parametrize(
    "content",
    ["[kerasgen.samplers]\nno equals sign\n", "[[[\n=", b"\xff\xfe\x00", "[kerasgen.samplers]\n= \n x", "\0"],
)
def test_a_package_whose_entry_points_cannot_be_read_breaks_itself_alone(site: Path, content: Any) -> None:
    install(site, "broken-one", {GROUP: {}})
    file = next(site.glob("broken_one*")) / "entry_points.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    install(site, "sound-one", {GROUP: {"mine": "sound:Mine"}}, {"sound": SAMPLER})
    found = registry()
    try:
        with pytest.warns(RuntimeWarning, match=r"'broken-one' is passed over: its entry_points\.txt can't be read"):
            names = found.names()
    except pytest.fail.Exception:  # Python made something of it that harms nobody
        names = registry().names()
    else:
        with pytest.raises(UnknownNameError, match="Those of broken-one can't be read"):
            found.create("broken")
    assert {"mine", "greedy", "top_k"} <= set(names)
    assert found.create("mine").mood == "calm"
    assert found.create("top_k:k=3") == TopK(k=3)


@pytest.mark.parametrize(
    "value",
    ["", ":", "no module", "no.module:", "mine:Mine:More", "os:path", "sys", "mine:Mine.no", "1+1"],
)
def test_an_entry_point_that_names_no_class_breaks_itself_alone(site: Path, value: str) -> None:
    install(site, "odd-one", {GROUP: {"odd": value}}, {"mine": SAMPLER})
    found = registry()
    with pytest.raises(PluginLoadError, match="'odd-one'"):
        found.get("odd")
    assert found.name_of(TopK(k=3)) == "top_k"
    assert found.create("greedy") == Greedy()


@pytest.mark.parametrize("place", ["at import", "in the class", "as it is made"])
def test_a_plugin_that_calls_sys_exit_does_not_end_the_program(site: Path, place: str) -> None:
    source = SAMPLER
    if place == "at import":
        source = "import sys\nsys.exit('no license')\n"
    elif place == "in the class":
        source = SAMPLER + "    import sys\n    sys.exit(3)\n"
    else:
        source = SAMPLER + "    def __post_init__(self):\n        raise SystemExit(3)\n"
    install(site, "leaving-one", {GROUP: {"mine": "leaving:Mine"}}, {"leaving": source})
    found = registry()
    with pytest.raises(PluginLoadError, match="'leaving-one'") as caught:
        found.create("mine")
    assert caught.value.distribution == "leaving-one"
    with pytest.raises(PluginLoadError):
        found.from_manifest({"name": "mine", "arguments": {}})
    assert found.create("greedy") == Greedy()


def test_a_person_who_stops_a_slow_plugin_has_stopped_it(site: Path) -> None:
    install(site, "slow-one", {GROUP: {"mine": "slow:Mine"}}, {"slow": "raise KeyboardInterrupt\n"})
    with pytest.raises(KeyboardInterrupt):
        registry().get("mine")


@pytest.mark.parametrize("name", ["a:b", "a,b", "a b"])
def test_a_name_that_no_text_can_say_is_told_with_its_package(name: str, site: Path) -> None:
    """A spec parts its name from its settings by these."""
    folder = site / "mine-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = plugin_mine:Mine\n", encoding="utf-8")
    (site / "plugin_mine.py").write_text(SAMPLER, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(PluginLoadError, match="'mine' can't be written as text"):
        registry().get(name)
