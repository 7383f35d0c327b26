"""In which order cells start."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.bench.cost import run_operations
from baq_cli.data.episodes import Episodes
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.launch.cell_runs import recipe_of
from baq_cli.launch.cells import Cell
from baq_cli.launch.estimate import makespan
from baq_cli.launch.matrix import lay_out
from baq_cli.launch.order import dearest_first, update_costs
from baq_cli.runs.events import ignore
from support.recordings import own_folders
from support.small_data import write_steady

ID = "me/steady-v0"
SMALL = {"hidden": [8, 8], "batch_size": 16}


@pytest.fixture(scope="module")
def data() -> Any:
    with own_folders():
        write_steady(ID)
        yield {ID: open_dataset(ID, ignore)}


def cells(algos: list[str], **run: Any) -> list[Cell]:
    layers = [{"dataset": ID, "shared": SMALL, "gradient_steps": 100, "env_steps": 100} | run]
    return lay_out([layers], algos, {}, Path("nowhere"), "baq compare")


def test_the_method_whose_updates_cost_most_starts_first(data: dict[str, Episodes]) -> None:
    given = cells(["bc", "iql", "cql", "td3_bc"])
    found = dearest_first(given, update_costs(given, data))
    assert [given[number].method for number in found] == ["cql", "iql", "td3_bc", "bc"]


@pytest.mark.parametrize(
    ("more", "times"),
    [
        ({"gradient_steps": 200, "env_steps": 200}, 2.0),
        ({"seeds": [0, 1, 2]}, 3.0),
        ({"shared": SMALL | {"batch_size": 64}}, 4.0),
    ],
    ids=["steps", "seeds", "rows"],
)
def test_what_updates_cost_is_in_proportion_to_steps_seeds_and_rows(
    more: dict[str, Any], times: float, data: dict[str, Episodes]
) -> None:
    spaces = data[ID].spaces
    one, several = (
        run_operations(recipe_of(cell), spaces.obs_dim, spaces.action_dim)
        for cell in (*cells(["iql"], seeds=[0]), *cells(["iql"], **({"seeds": [0]} | more)))
    )
    assert several == pytest.approx(times * one)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=6), st.integers(1, 3))
def test_dearest_first_ends_within_four_thirds_of_the_best(seconds: list[float], n: int) -> None:
    """Graham's bound, against every way to share the cells out."""
    best = min(
        max(sum(s for s, at in zip(seconds, where, strict=True) if at == w) for w in range(n))
        for where in itertools.product(range(n), repeat=len(seconds))
    )
    assert makespan(sorted(seconds, reverse=True), n) <= 4 / 3 * best + 1e-9
