"""What a comparison consists of: its cells, from flags, recipes and grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from baq_cli.agents.registry import METHODS
from baq_cli.errors import DataError, UsageError
from baq_cli.launch.cells import Cell, load_cells
from baq_cli.launch.matrix import asked_for, lay_out, parse_grid, tasks_of
from baq_cli.recipes.method_files import named
from baq_cli.runs.files import json_bytes
from support.advice import follows

OUT = Path("out")
BASE: dict[str, Any] = {"dataset": "me/arm/monday-v0", "seeds": [0, 1]}


def cells_of(*algos: str, grid: dict[str, list[Any]] | None = None, **more: Any) -> list[Cell]:
    return lay_out([[BASE | more]], algos, grid or {}, OUT, "baq compare")


def test_a_grid_multiplies_the_cells_of_the_method_it_names_and_no_others() -> None:
    cells = cells_of("baq", "iql", grid={"baq.k_q": [1, 3], "shared.batch_size": [64, 128]})
    assert [cell.method for cell in cells] == [
        "baq k_q=1 shared.batch_size=64",
        "baq k_q=1 shared.batch_size=128",
        "baq k_q=3 shared.batch_size=64",
        "baq k_q=3 shared.batch_size=128",
        "iql shared.batch_size=64",
        "iql shared.batch_size=128",
    ]
    assert [cell.recipe["baq"]["k_q"] for cell in cells[:4]] == [1, 1, 3, 3]
    assert [cell.recipe["iql"]["batch_size"] for cell in cells[4:]] == [64, 128]


def test_an_ablated_method_has_a_cell_without_each_of_its_parts() -> None:
    cells = lay_out([[BASE]], ["iql", "baq"], {}, OUT, "baq compare", ["baq"])
    off: list[dict[str, Any]] = [
        *({"weight": False}, {"align": False}, {"relax": False}, {"priority": "off"}),
        {"align": False, "relax": False},
    ]
    assert [cell.method for cell in cells] == [
        *("iql", "baq", "baq weight=false", "baq align=false", "baq relax=false"),
        *("baq priority=off", "baq align=false relax=false"),
    ]
    for cell, taken_away in zip(cells[2:], off, strict=True):
        recipe, whole = cell.recipe["baq"], cells[1].recipe["baq"]
        assert {k: v for k, v in recipe.items() if v != whole[k]} == taken_away


@pytest.mark.parametrize("name", ["iql", "moore", "nothing"])
def test_what_has_no_parts_or_does_not_run_is_not_ablated(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of --algos whose parts"):
        lay_out([[BASE]], ["iql", "baq"], {}, OUT, "baq compare", [name])


def test_every_cell_has_a_folder_of_its_own_inside() -> None:
    grid = {"baq.behavior_hidden": [[64, 64], [256]], "baq.base": ["iql", "td3_bc"]}
    folders = [cell.folder for cell in cells_of("baq", "iql", grid=grid)]
    assert len(set(folders)) == len(folders) == 5
    assert all(folder.parent == OUT / "cells" / "me/arm/monday-v0" for folder in folders)


def test_a_grid_is_read_as_yaml() -> None:
    words = ["baq.k_q=1,3.5", "shared.hidden=[64,64],[256,256]", "iql.layer_norm=true,false"]
    assert parse_grid(words) == {
        "baq.k_q": [1, 3.5],
        "shared.hidden": [[64, 64], [256, 256]],
        "iql.layer_norm": [True, False],
    }


@pytest.mark.parametrize("word", ["baq.k_q", "baq.k_q=", "=1,2", "a..b=1", "k=[1", "k=]"])
def test_a_grid_of_another_form_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="expected key"):
        parse_grid([word])


def test_a_grid_for_a_method_that_is_not_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="'cql' is not among the methods"):
        cells_of("baq", "iql", grid={"cql.cql_weight": [1, 5]})


def test_a_key_of_a_grid_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"iql\.expectile: it is given twice"):
        parse_grid(["iql.expectile=0.7", "iql.expectile=0.9"])


@pytest.mark.parametrize(
    "key", ["algo", "dataset", "seeds", "protocol", "compare.protocol", "tune.trials"]
)
def test_a_grid_of_what_makes_the_matrix_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="says what the cells are"):
        cells_of("iql", grid={key: ["iql", "bc"]})


@pytest.mark.parametrize(
    "grid",
    [
        {"iql.utd": [1, 1]},
        {"iql.learning_rate": ["1e-3", 0.001]},
        {"shared.utd": [1, 2], "iql.utd": [1, 2]},
    ],
)
def test_cells_of_a_grid_that_would_be_the_same_run_are_refused(grid: dict[str, list[Any]]) -> None:
    with pytest.raises(UsageError, match="would be the same run; expected values that differ"):
        cells_of("iql", grid=grid)


@pytest.mark.parametrize(
    ("key", "values"),
    [("shared.utd", [1, 2]), ("guard.max_drop", [1, 2]), ("critic_updates", [0, 5])],
)
def test_a_method_without_what_a_grid_varies_is_one_cell(key: str, values: list[int]) -> None:
    methods = [cell.method for cell in cells_of("iql", "bc", grid={key: values})]
    assert methods == [f"iql {key}={value}" for value in values] + ["bc"]


@follows("no effect on {}; leave it out")
@pytest.mark.parametrize(
    ("algo", "key"),
    [("bc", "env_steps"), ("bc", "shared.utd"), ("sac", "gradient_steps"), ("bc", "guard")],
)
def test_a_grid_of_what_no_method_has_is_refused(algo: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"--grid {key}: no effect on {algo}"):
        cells_of(algo, grid={key: [10, 20]})
    assert len(cells_of(algo)) == 1


def test_a_grid_that_is_no_value_or_no_section_is_refused() -> None:
    with pytest.raises(UsageError, match=r"iql\.utd: expected values to try, found none"):
        cells_of("iql", grid={"iql.utd": []})
    with pytest.raises(UsageError, match="'iql': expected a mapping of keys to values, found 1"):
        cells_of("iql", grid={"iql": [1]})


@pytest.mark.parametrize(
    ("flags", "overrides"), [({}, ["iql.expectile=0.8"]), ({"iql": {"expectile": 0.8}}, [])]
)
def test_a_key_that_a_grid_tries_is_not_set_beside_it(
    flags: dict[str, Any], overrides: list[str]
) -> None:
    asked = asked_for([], {"grid": {"iql.expectile": [0.7, 0.9]}})
    with pytest.raises(UsageError, match=r"iql\.expectile: it is set to 0\.8, too"):
        tasks_of(asked, [], flags, overrides)
    assert tasks_of(asked, [], {"iql": {"beta": 2}}, ["bc.batch_size=8"])


@follows("changes no method's settings: say --protocol {}")
def test_a_protocol_is_what_methods_are_run_by_and_no_mere_name() -> None:
    with pytest.raises(UsageError, match="say --protocol published"):
        tasks_of(asked_for([], {}), [], BASE, ["protocol=published"])
    asked = asked_for([], {"protocol": "published"})
    (layers,) = tasks_of(asked, [], BASE, [])
    assert lay_out([layers], ["iql"], {}, OUT, "")[0].recipe["protocol"] == "published"


@pytest.mark.parametrize(
    ("key", "values"),
    [("gradient_steps", [10, 20]), ("env_steps", [10, 20]), ("evaluation.episodes", [1, 2])],
)
def test_cells_of_other_budgets_or_evaluations_are_refused_by_the_field(
    key: str, values: list[int]
) -> None:
    with pytest.raises(UsageError, match=rf"{key} is {values[0]} and {values[1]}"):
        cells_of("iql", grid={key: values})


def test_a_phase_that_a_method_lacks_is_not_compared() -> None:
    assert [cell.method for cell in cells_of("iql", "bc", "sac")] == ["iql", "bc", "sac"]


def test_all_stands_for_every_method_that_is_not_named() -> None:
    assert set(asked_for([], {"algos": ["all"]}).algos) == set(METHODS)
    some = asked_for([], {"algos": ["iql", "all", "baq"]}).algos
    assert (some[0], some[-1], len(some)) == ("iql", "baq", len(METHODS))
    offline = {name for name, method in METHODS.items() if method.learns_offline}
    assert set(named(["all"], "offline")) == offline
    assert named(["sac", "all"], "offline")[0] == "sac"


def test_flags_go_before_a_recipe_and_overrides_before_flags(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(yaml.safe_dump(BASE | {"env_steps": 10, "iql": {"expectile": 0.8}}))
    other.write_text(yaml.safe_dump({"dataset": "me/leg/walk-v0", "env_steps": 30}))
    recipes = [str(one), str(other)]
    tasks = tasks_of(asked_for(recipes, {}), recipes, {"seeds": [7]}, ["iql.expectile=0.9"])
    first, second = lay_out(tasks, ["iql"], {}, OUT, "baq compare")
    assert (first.task, second.task) == ("me/arm/monday-v0", "me/leg/walk-v0")
    assert (first.recipe["env_steps"], second.recipe["env_steps"]) == (10, 30)
    assert first.recipe["seeds"] == second.recipe["seeds"] == [7]
    assert first.recipe["iql"]["expectile"] == second.recipe["iql"]["expectile"] == 0.9


def test_datasets_are_tasks_of_one_recipe() -> None:
    config = asked_for([], {"datasets": ["a/b-v0", "c/d-v0"], "algos": ["iql", "bc"]})
    cells = lay_out(tasks_of(config, [], {}, []), config.algos, {}, OUT, "baq compare")
    assert [cell.name for cell in cells] == [
        "a/b-v0: iql",
        "a/b-v0: bc",
        "c/d-v0: iql",
        "c/d-v0: bc",
    ]


def test_one_file_says_it_all(tmp_path: Path) -> None:
    matrix = {
        "compare": {
            "algos": ["baq", "iql"],
            "recipes": ["pendulum/compare", "hopper/compare"],
            "grid": {"baq.k_q": [1, 3]},
        },
        "seeds": [0, 1, 2, 3, 4],
        "env_steps": 100,
    }
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(matrix))
    config = asked_for([str(path)], {})
    tasks = tasks_of(config, [str(path)], {}, [])
    cells = lay_out(tasks, config.algos, config.grid, OUT, "baq compare")
    assert [cell.name for cell in cells] == [
        f"baq/{task}: {method}"
        for task in ("pendulum/replay-v0", "hopper/medium-v0")
        for method in ("baq k_q=1", "baq k_q=3", "iql")
    ]
    assert all(cell.recipe["env_steps"] == 100 for cell in cells), "over the tasks' own"
    assert cells[0].recipe["gradient_steps"] == 4000, "of the task's own recipe"


@pytest.mark.parametrize("key", ["algo", "recipe", "workers"])
def test_the_section_compare_is_closed(tmp_path: Path, key: str) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump({"compare": {key: ["iql"]}}))
    with pytest.raises(UsageError, match=f"unknown recipe key 'compare.{key}'"):
        asked_for([str(path)], {})


def test_what_makes_no_matrix_is_refused() -> None:
    with pytest.raises(UsageError, match="--dataset"):
        lay_out([[{}]], ["iql"], {}, OUT, "baq compare")
    with pytest.raises(UsageError, match="two tasks are on dataset"):
        lay_out([[BASE], [BASE]], ["iql"], {}, OUT, "baq compare")
    with pytest.raises(UsageError, match="different methods"):
        cells_of("iql", "iql")
    recipes = ["pendulum/compare", "hopper/compare"]
    with pytest.raises(UsageError, match="expected no --dataset"):
        tasks_of(asked_for(recipes, {"datasets": ["a/b-v0"]}), recipes, {}, [])


def test_a_strangers_matrix_names_no_folder_outside(tmp_path: Path) -> None:
    (tmp_path / "matrix.json").write_bytes(json_bytes({"cells": [{"folder": "../elsewhere"}]}))
    with pytest.raises(DataError, match="outside"):
        load_cells(tmp_path)
