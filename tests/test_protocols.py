"""Two protocols of a comparison: as published, and alike in all that methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import UsageError
from baq_cli.launch.cell_runs import recipe_of
from baq_cli.launch.matrix import asked_for, lay_out, tasks_of
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import resolve
from baq_cli.recipes.protocols import MATCHED, matched_keys, under

SHIPPED = ("pendulum/compare", "hopper/compare", "antmaze/compare", "adroit/compare")


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


def test_without_a_protocol_layers_are_as_they_were() -> None:
    layers = [{"algo": "iql", "iql": {"critics": 3}, "shared": {"tau": 0.1}}]
    assert under(None, layers, method_configs()) == layers
    assert "critics" in matched_keys(METHODS["iql"].Config)
    assert resolve(layers, method_configs()).run.protocol is None
