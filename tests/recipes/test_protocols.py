"""Two protocols of a comparison: as published, and alike in all that methods share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import UsageError
from baq_cli.launch.cell_runs import recipe_of
from baq_cli.launch.matrix import asked_for, lay_out, tasks_of
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import resolve
from baq_cli.recipes.names import recipe_names
from baq_cli.recipes.protocols import MATCHED, base_of, matched_keys, under
from support.advice import follows

SHIPPED = [name for name in recipe_names() if name.endswith("/compare")]


def cells(protocol: str | None, recipe: str, *overrides: str, algos: Any = tuple(METHODS)) -> Any:
    asked = asked_for([recipe], {"algos": list(algos), "protocol": protocol})
    tasks = tasks_of(asked, [recipe], {}, overrides)
    return lay_out(tasks, asked.algos, asked.grid, Path("out"), "baq compare")


@pytest.mark.parametrize("recipe", SHIPPED)
def test_matched_methods_agree_in_every_key_that_they_share(recipe: str) -> None:
    found: dict[str, set[Any]] = {}
    for cell in cells("matched", recipe):
        method = recipe_of(cell).method
        for key in MATCHED:
            shared = key in type(method).model_fields and key not in method.unused
            if shared and key not in method.own:
                found.setdefault(key, set()).add(getattr(method, key))
    assert found.keys() == set(MATCHED)
    assert {key: values for key, values in found.items() if len(values) > 1} == {}


def bases() -> list[tuple[str, str]]:
    """Every method that is built on another, with each that it may be built on."""
    configs = {
        name: config for name, config in method_configs().items() if base_of(config(), METHODS)
    }
    return [(name, base) for name, config in configs.items() for base in config.bases]


@pytest.mark.parametrize("recipe", ["hopper/compare", "antmaze/compare"])
@pytest.mark.parametrize(("name", "base"), bases())
def test_a_method_on_a_base_has_it_as_it_is_by_itself(name: str, base: str, recipe: str) -> None:
    """What a method adds is all that the two differ in: keys that are the base's own, too."""
    overrides = (f"{name}.base={base}", "shared.hidden=[48,48]", "shared.critics=6")
    on, alone = (
        recipe_of(cell).method for cell in cells("matched", recipe, *overrides, algos=[name, base])
    )
    inside: AgentConfig = on.base_config()
    family = inside.unused - alone.unused  # what a family of policies has in their place
    for key in type(alone).model_fields.keys() - alone.unused - family - on.own.keys():
        assert getattr(inside, key) == getattr(alone, key), key
    assert inside.hidden == (48, 48)


def test_bases_that_are_tested_are_all_there_are() -> None:
    choosing = {n for n, config in method_configs().items() if "base" in config.model_fields}
    assert {name for name, _ in bases()} == choosing
    assert ("baq", "sac_n") in bases()


def test_what_is_a_methods_own_is_no_key_of_all() -> None:
    """Nor is it of a method on that one; a method without it takes the shared value."""
    algos = ["sac_n", "iql", "wsrl", "sung", "baq"]
    overrides = ("shared.critics=3", "shared.online_share=0.3", "baq.base=sac_n")
    for more in (overrides, ("baq.base=sac_n",)):
        found = {c.method: recipe_of(c).method for c in cells("matched", "hopper/compare", *more,
                                                              algos=algos)}  # fmt: skip
        assert found["sac_n"].critics == found["baq"].critics == 200
        assert found["wsrl"].online_share == 1.0
        assert found["sung"].online_share == 0.9
        assert found["iql"].critics == found["sung"].critics == (3 if more is overrides else 4)
        assert found["baq"].online_share == (0.3 if more is overrides else 0.5)
    (cell,) = cells(None, "hopper/compare", "shared.critics=3", algos=["sac_n"])
    assert recipe_of(cell).method.critics == 3, "without a protocol it is one of all"


def test_what_a_command_says_of_a_base_inside_a_method_stands() -> None:
    overrides = ("baq.target_reduction=mean", "baq.td3_bc.alpha=9", "td3_bc.actor_q=min")
    on, alone = (
        recipe_of(cell).method
        for cell in cells("matched", "hopper/compare", *overrides, algos=["baq", "td3_bc"])
    )
    assert (on.target_reduction, on.td3_bc.alpha, on.td3_bc.actor_q) == ("mean", 9, "min")
    assert (alone.target_reduction, alone.alpha, alone.actor_q) == ("min", 2.5, "min")


@follows(
    "--protocol matched: '{}' is {} of '{}' and {} of '{}', which is built on it. Set {}.{} for"
)
def test_what_makes_a_base_is_set_for_it_and_the_method_on_it() -> None:
    words, algos = ("matched", "hopper/compare", "baq.base=sac_n"), ["baq", "sac_n"]
    with pytest.raises(UsageError, match="'critics' is 200 of 'sac_n' and 7 of 'baq'") as error:
        cells(*words, "baq.critics=7", algos=algos)
    (key,) = re.findall(r"Set (\S+) for both", str(error.value))
    for cell in cells(*words, f"{key}=7", algos=algos):
        assert recipe_of(cell).method.critics == 7
    (cell,) = cells(*words, "baq.critics=7", algos=["baq"])  # there is none to differ from
    assert recipe_of(cell).method.critics == 7


def test_every_key_of_all_methods_is_matched_or_said_to_be_a_methods_own() -> None:
    not_of_a_network = {"target_reduction"}  # how a method is pessimistic
    assert set(AgentConfig.model_fields) - set(MATCHED) == not_of_a_network
    for name, config in method_configs().items():
        assert set(config.own) <= set(config.model_fields) & set(MATCHED), name
        assert all(config.own.values()), name


def test_a_recipes_shared_keys_hold_for_all_and_its_sections_for_none() -> None:
    for cell in cells("matched", "pendulum/compare", algos=["baq", "rlpd", "sac_n"]):
        method = recipe_of(cell).method
        assert method.hidden == (64, 64)  # shared
        assert method.utd == 1  # rlpd: 4 in its section


def test_what_makes_a_method_stays_its_own() -> None:
    (cell,) = cells("matched", "hopper/compare", algos=["sac_n"])
    assert recipe_of(cell).method.critics == 200  # as its authors have it on Hopper


def test_an_override_of_one_method_is_refused_and_one_of_all_is_not() -> None:
    with pytest.raises(UsageError, match=r"'critics' is 4 of 'iql' and 2 of 'cql'"):
        cells("matched", "hopper/compare", "cql.critics=2", algos=["iql", "cql"])
    for cell in cells("matched", "hopper/compare", "shared.critics=3", algos=["iql", "cql"]):
        assert recipe_of(cell).method.critics == 3


def test_published_methods_are_their_defaults_where_a_recipe_is_not_the_authors() -> None:
    for cell in cells("published", "pendulum/compare"):
        recipe = recipe_of(cell)
        assert recipe.method == type(recipe.method)()
        assert recipe.run.gradient_steps == 4000
        assert recipe.run.protocol == "published"


def test_a_recipe_may_be_the_authors_for_some_methods_alone() -> None:
    found = {cell.method: recipe_of(cell).method for cell in cells("published", "hopper/compare")}
    assert found["edac"].critics == 50
    assert found["sac"].warmup_env_steps == 5000  # 10,000 in a section that is ours


def test_published_methods_are_the_recipes_where_it_is_the_authors() -> None:
    (cell,) = cells("published", "antmaze/compare", algos=["iql"])
    assert recipe_of(cell).method.expectile == 0.9


@pytest.mark.parametrize("as_matrix", [False, True])
def test_what_ones_own_file_changes_in_a_published_section_is_not_published(
    tmp_path: Path, as_matrix: bool
) -> None:
    """`extends` takes over what the shipped recipe says is published; it says that of itself."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: d4rl/antmaze-large-play\nenv_steps: 7\nmax_episode_steps: 9\n"
        "iql: {beta: 5.0}\nfql: {alpha: 9.0}\nedac: {critics: 3}\nshared: {tau: 0.1}\n"
    )
    name = str(mine)
    if as_matrix:
        name = str(tmp_path / "matrix.yaml")
        Path(name).write_text(f"compare: {{recipes: [{mine}]}}\niql: {{beta: 6.0}}\n")
    algos = ["iql", "fql", "edac", "cql"]
    found = {c.method: recipe_of(c) for c in cells("published", name, algos=algos)}
    shipped = {
        c.method: recipe_of(c) for c in cells("published", "d4rl/antmaze-large-play", algos=algos)
    }
    for algo in algos:
        assert found[algo].method == shipped[algo].method, algo
        assert (found[algo].run.env_steps, found[algo].run.max_episode_steps) == (7, 9)
        assert found[algo].run.env_args == {"continuing_task": False}
    without = {c.method: recipe_of(c).method for c in cells(None, name, algos=algos)}
    assert without["iql"].beta == (6.0 if as_matrix else 5.0)
    assert without["edac"].critics == 3


def test_ones_own_file_may_say_itself_what_is_published(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: d4rl/antmaze-large-play\ncompare: {published: [iql]}\niql: {beta: 5.0}\n"
    )
    found = {c.method: recipe_of(c).method for c in cells("published", str(mine), algos=["iql"])}
    assert (found["iql"].beta, found["iql"].expectile) == (5.0, 0.9)


@pytest.mark.parametrize("protocol", ["published", None])
def test_a_published_method_that_is_none_is_refused(tmp_path: Path, protocol: str | None) -> None:
    """It dropped the section that was meant, and the method ran with its defaults."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("dataset: me/arm/monday-v0\ncompare: {published: [iqll]}\niql: {beta: 5.0}\n")
    with pytest.raises(UsageError, match=r"'compare\.published': unknown algorithm 'iqll'; did you "
                                         r"mean 'iql'"):  # fmt: skip
        cells(protocol, str(mine), algos=["iql"])


def test_without_a_protocol_layers_are_as_they_were() -> None:
    layers = [{"algo": "iql", "iql": {"critics": 3}, "shared": {"tau": 0.1}}]
    assert under(None, layers, method_configs()) == layers
    assert "critics" in matched_keys(METHODS["iql"].Config)
    assert resolve(layers, method_configs()).run.protocol is None
