"""docs/baselines.md is true: every value that it calls ours is the code's or the recipe's."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import resolve
from baq_cli.recipes.shipped import open_recipe
from support.places import DOCS

PAGE = DOCS / "baselines.md"
FAMILIES = ("antmaze", "adroit")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def said(cells: list[str]) -> tuple[str, Any]:
    """Return a row's key, and the value that it calls ours."""
    key, ours = (cell.strip("`") for cell in cells)
    return key, yaml.safe_load(ours)


def flat(section: dict[str, Any]) -> dict[str, Any]:
    """Return a section's values by key, those of a section in it behind a dot."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        inner = flat(value) if isinstance(value, dict) else {"": value}
        found |= {f"{key}.{name}".rstrip("."): each for name, each in inner.items()}
    return found


LOCOMOTION = [(row[0], *said(row[1:3])) for row in rows("Locomotion: the defaults")]
OTHERS = [(row[0], row[1], *said(row[2:4])) for row in rows("Other families: the recipes")]


@pytest.mark.parametrize(("algo", "key", "ours"), LOCOMOTION)
def test_a_default_is_the_one_in_the_table(algo: str, key: str, ours: Any) -> None:
    assert flat(METHODS[algo].Config().model_dump(mode="json"))[key] == ours


@pytest.mark.parametrize("algo", sorted(set(METHODS) - {"baq"}))
def test_the_table_has_every_default_that_a_method_sets_for_itself(algo: str) -> None:
    model = METHODS[algo].Config
    common, own = AgentConfig().model_dump(mode="json"), model().model_dump(mode="json")
    differ = {key for key in own.keys() & common.keys() if own[key] != common[key]}
    changed = {key for key, was in model.former.items() if key in own and own[key] != was}
    assert differ | changed - {"policy_hidden"} <= {
        key for name, key, _ in LOCOMOTION if name == algo
    } | {"capacity"}


@pytest.mark.parametrize(("family", "algo", "key", "ours"), OTHERS)
def test_a_familys_recipe_has_what_the_table_says(
    family: str, algo: str, key: str, ours: Any
) -> None:
    recipe = resolve([open_recipe(f"{family}/compare"), {"algo": algo}], method_configs())
    assert flat(recipe.method.model_dump(mode="json"))[key] == ours


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_has_every_key_of_a_familys_recipe(family: str) -> None:
    layer = open_recipe(f"{family}/compare")
    keys = {(algo, key) for algo in METHODS for key in flat(layer.get(algo, {}))}
    assert keys == {(algo, key) for of, algo, key, _ in OTHERS if of == family}


def test_baq_adapts_its_bases_as_it_always_did() -> None:
    """The defaults of the methods alone are other ones."""
    for base, settings in {
        "td3_bc": {"actor_q": "mean", "targets_move": "every_step", "reward_scale": 1.0},
        "iql": {"reward_scale": 1.0, "expectile": 0.7, "beta": 3.0},
        "cql": {"cql_weight": 5.0, "initial_log_std": None, "policy_learning_rate": 3e-4},
    }.items():
        config = METHODS["baq"].Config(base=base).base_config()  # type: ignore[call-arg]
        expected = {"hidden": (256, 256), "initialization": "uniform", "last_layer_gain": None}
        for key, value in (settings | expected).items():
            assert getattr(config, key) == value, (base, key)
