"""Public benchmarks: each recipe names a set as it is published, and runs on one like it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.ogbench import save_single_task
from baq_cli.errors import DataError, UsageError
from baq_cli.launch.cell_runs import run_cell
from baq_cli.launch.matrix import asked_for, lay_out, tasks_of
from baq_cli.recipes.load import resolve
from baq_cli.recipes.names import recipe_folder, recipe_names
from baq_cli.recipes.shipped import find_recipe, open_recipe
from baq_cli.runs.folder import read_metrics
from baq_cli.units import UNITS
from support.advice import Terminal, follows, quoted
from support.places import DOCS
from support.public_sets import MINARI, OGBENCH, PUBLIC, make, write_ogbench
from support.small_methods import FEW, WARMUP, own_defaults

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
RECIPES = [
    name
    for name in recipe_names()
    if name.partition("/")[0] in ("d4rl", "mujoco", "ogbench") and name != "mujoco/compare"
]
SAMPLE = {
    **{"d4rl/antmaze-large-play": "spot", "d4rl/pen-cloned": "rebrac"},
    **{"d4rl/kitchen-complete": "iql", "d4rl/pointmaze-umaze-dense": "td3_bc"},
    **{"mujoco/hopper-medium": "awac", "ogbench/antmaze-large-navigate-task3": "iql"},
}
UPDATES = 20


def need_ogbench() -> None:
    pytest.importorskip("ogbench", reason="labmaze, which it needs, has no wheel for this Python")


@cache
def layer_of(name: str) -> dict[str, Any]:
    return open_recipe(name)


def published(name: str) -> list[str]:
    return list(layer_of(name)["compare"]["published"])


# -- names and settings


def test_every_set_that_a_recipe_is_of_is_published_under_that_name() -> None:
    """At least sixty, each another, and no set that is known here without a recipe."""
    found = [layer_of(name)["dataset"] for name in RECIPES]
    assert sorted(found) == sorted(PUBLIC)
    assert len(found) >= 60


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_its_settings_are_from_and_resolves_for_its_methods(name: str) -> None:
    layer, lines = layer_of(name), find_recipe(name).read_text(encoding="utf-8").splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert header.startswith(f"baq compare --recipe {name} --out ")
    family = header.partition("runs/")[2]
    assert "Not published" in header or "d4rl/kitchen-partial" in family or "Task " in family
    assert set(published(name)) <= METHODS.keys()
    recipe = resolve([layer, {"algo": "baq"}], method_configs())  # and checks all sections
    assert recipe.run.dataset == layer["dataset"]


@pytest.mark.parametrize("name", RECIPES)
def test_what_nobody_published_is_not_called_so(name: str) -> None:
    """Of these no settings are known but what this tool chose (docs/baselines.md)."""
    assert not {"moore", "hi_ors", "baq"} & set(published(name))


@pytest.mark.parametrize("name", ["d4rl/antmaze-large-play", "ogbench/cube-double-play-task3"])
def test_published_stands_for_baq_and_the_methods_with_published_settings(name: str) -> None:
    asked = asked_for([name], {"algos": ["published"]})
    assert asked.algos == ("baq", *(algo for algo in published(name) if algo != "baq"))
    cells = lay_out(tasks_of(asked, [name], {}, []), asked.algos, {}, Path("out"), "baq compare")
    assert [cell.method for cell in cells] == list(asked.algos)


def test_of_several_recipes_those_are_published_that_all_of_them_have() -> None:
    names = ["d4rl/antmaze-umaze", "d4rl/kitchen-mixed"]
    found = asked_for(names, {"algos": ["published"]}).algos
    assert found == ("baq", "cql", "iql", "cal_ql", "rlpd", "wsrl")


@pytest.mark.parametrize(
    ("name", "algo", "key", "value"),
    [
        ("d4rl/antmaze-umaze", "spot", "support_weight", 0.25),
        ("d4rl/antmaze-umaze", "iql", "expectile", 0.9),  # the family's
        ("d4rl/antmaze-large-play", "fql", "alpha", 3.0),
        ("d4rl/antmaze-medium-play", "rebrac", "policy_penalty", 0.001),
        ("d4rl/hammer-cloned", "rebrac", "critic_penalty", 0.5),
        ("d4rl/hammer-cloned", "fql", "alpha", 1000.0),
        ("d4rl/relocate-cloned", "fql", "alpha", 10_000.0),
        ("d4rl/door-human", "cql", "normalize_observations", True),
        ("d4rl/pen-human", "edac", "diversity_weight", 1000.0),
        ("d4rl/door-expert", "adaptive_bc", "derivative_gain", 0.002),  # × 8 / 0.4, as α is
        ("d4rl/door-expert", "adaptive_bc", "proportional_gain", 0.0006),  # × 8 / 0.4, too
        ("d4rl/kitchen-mixed", "cal_ql", "online_share", 0.75),
        ("d4rl/kitchen-mixed", "iql", "policy_cosine", False),
        ("d4rl/kitchen-mixed", "rlpd", "entropy_backup", False),
        ("d4rl/kitchen-mixed", "rlpd", "policy_learning_rate", 0.0001),
        ("d4rl/antmaze-umaze", "sung", "policy_hidden", (256, 256)),  # 3×256 are the critics'
        ("mujoco/hopper-medium", "famo2o", "base", "cql"),  # on IQL its authors have AntMaze alone
        ("mujoco/hopper-medium", "sac_n", "critics", 500),  # 200 are those of -replay and -expert
        ("mujoco/walker2d-expert", "rebrac", "critic_penalty", 0.5),
        ("mujoco/walker2d-expert", "spot", "support_weight", 0.1),  # the default: none published
        ("ogbench/antsoccer-arena-navigate-task2", "fql", "alpha", 30.0),
        ("ogbench/humanoidmaze-medium-navigate-task5", "rebrac", "discount", 0.995),
        ("ogbench/humanoidmaze-medium-navigate", "rebrac", "penalty_floor", 1.0),
        ("ogbench/humanoidmaze-medium-navigate", "rebrac", "online_share", None),
        ("ogbench/cube-triple-play-task4", "fql", "discount", 0.995),
    ],
)
def test_a_dataset_has_its_own_settings_over_those_of_its_family(
    name: str, algo: str, key: str, value: Any
) -> None:
    recipe = resolve([layer_of(name), {"algo": algo}], method_configs())
    assert getattr(recipe.method, key) == value


# -- one recipe upon another


def test_a_file_of_ones_own_extends_a_shipped_recipe_key_by_key(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: d4rl/antmaze-umaze\nenv_steps: 5\niql: {beta: 7.0}\n")
    layer = open_recipe(str(mine))
    assert layer["dataset"] == "D4RL/antmaze/umaze-v1"
    assert layer["env_steps"] == 5
    assert layer["iql"] == open_recipe("antmaze/compare")["iql"] | {"beta": 7.0}
    assert "extends" not in layer


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ("env: Pendulum-v1", None),
        ("env: Pendulum-v1\nenv_args: {g: 5.0}", {"g": 5.0}),
        ("env_args: {reset_target: true}", {"continuing_task": False, "reset_target": True}),
        ("no_env: true", None),
    ],
)
def test_a_file_that_names_another_environment_names_it_whole(
    tmp_path: Path, said: str, args: dict[str, Any] | None
) -> None:
    """The arguments of the extended recipe's are for the maze, as they are behind `--env`."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: d4rl/antmaze-umaze\n{said}\n")
    recipe = resolve([open_recipe(str(mine)), {"algo": "iql"}], method_configs())
    assert recipe.run.env_args == args


@follows("'baq recipes list' shows those that ship")
def test_a_recipe_that_is_not_there_is_told_from_a_file_that_is_not(terminal: Terminal) -> None:
    train = ("pretrain", "--out", "run", "--recipe")
    said = terminal.told(*train, "nothere.yaml")
    assert "no recipe 'nothere.yaml': no such file;" in said
    assert "pendulum/iql" in terminal.done(*quoted(said, "baq recipes list"), "pendulum", "--json")
    assert "did you mean 'pendulum/iql'" in terminal.told(*train, "pendulum/iql.yml")
    said = terminal.told(*train, "zzz")
    assert "no recipe 'zzz': neither a file nor a shipped recipe; 'baq recipes list'" in said


def test_what_is_extended_ships_and_ends_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: d4rl/antmaze-umase\n")
    with pytest.raises(UsageError, match="did you mean 'd4rl/antmaze-umaze'"):
        open_recipe(str(mine))
    monkeypatch.setattr("baq_cli.recipes.shipped.recipe_folder", lambda: tmp_path)
    monkeypatch.setattr("baq_cli.recipes.shipped.recipe_names", lambda: ["mine"])
    mine.write_text("extends: mine\n")
    with pytest.raises(UsageError, match="extends itself"):
        open_recipe("mine")
    assert recipe_folder() != tmp_path


# -- a file of OGBench's


def test_a_step_that_begins_at_the_goal_ends_its_episode_and_no_other_does(folder: Path) -> None:
    """antmaze-large's first task: rewards are −1, and 0 where the ant begins within 0.5 of it."""
    need_ogbench()
    path = write_ogbench("antmaze-large-navigate", folder)
    with np.load(path) as archive:
        arrays = dict(archive)
    goal = np.array([36.0, 24.0])  # cell (7, 10): x = 4 · 10 − 4, y = 4 · 7 − 4
    arrays["qpos"][:, :2] = 0.0
    arrays["qpos"][2, :2] = goal + 0.3  # in the first trajectory of six rows
    arrays["qpos"][11, :2] = goal  # the second's last row: an observation, no step
    np.savez(path, **arrays)
    done = save_single_task(path, 1)
    assert done.episodes.dataset_id == "ogbench/antmaze-large-navigate/task1-v0"
    np.testing.assert_array_equal(done.episodes.lengths, [3, 2, 5, 6])
    assert np.flatnonzero(done.episodes.reward == 0.0).tolist() == [2]
    assert np.flatnonzero(done.episodes.terminated).tolist() == [2]
    assert done.episodes.truncated.sum() == 3
    kept = np.flatnonzero(~arrays["terminals"])
    np.testing.assert_array_equal(done.episodes.obs, arrays["observations"][kept])
    np.testing.assert_array_equal(done.episodes.next_obs, arrays["observations"][kept + 1])


@follows("gives no rewards to a log")
def test_ogbench_itself_gives_the_rewards_so_it_is_installed(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_ogbench()
    words = ("data", "ogbench", write_ogbench("antmaze-large-navigate", folder))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ogbench.relabel_utils", None)  # as before version 1.1
        said = terminal.told(*words, status=4)
        assert "pip install 'baq-cli[ogbench]'" in said
        patch.setitem(sys.modules, "ogbench", None)  # as where it isn't installed
        patch.delitem(gym.registry, "antmaze-large-singletask-v0", raising=False)
        assert "'baq-cli[ogbench]' for OGBench's" in terminal.told(*words, status=4)
    terminal.done(*words, "--task", "2")
    assert load_episodes("ogbench/antmaze-large-navigate/task2-v0").lengths.sum() == 16


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qpos": None}, "it has no 'qpos'"),
        ({"actions": np.zeros((3, 8), np.float32)}, "its arrays have different lengths"),
        ({"terminals": np.zeros(19, bool)}, "its last row ends no trajectory"),
        ({"terminals": np.ones(19, bool)}, "every row ends a trajectory"),
        ({"terminals": np.array(1.0)}, "its arrays have different lengths"),
        ({"observations": np.array(1.0)}, "its arrays have different lengths"),
        ({"terminals": np.array(["no"] * 19)}, "its 'terminals' holds no numbers"),
        ({"terminals": np.arange(19)}, "found 2 in row 2"),
    ],
)
def test_a_file_that_is_none_of_ogbenchs_is_refused(
    folder: Path, change: dict[str, Any], said: str
) -> None:
    path = write_ogbench("antmaze-large-navigate", folder)
    with np.load(path) as archive:
        arrays = {**archive, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=said):
        save_single_task(path, 1)
    with pytest.raises(UsageError, match=r"such as cube-double-play-v0\.npz"):
        save_single_task(folder / "mine.npz", 1)


def test_marks_in_a_column_of_their_own_axis_are_ogbenchs_all_the_same(folder: Path) -> None:
    path = write_ogbench("antmaze-large-navigate", folder)
    with np.load(path) as archive:
        arrays = {**archive}
    plain = save_single_task(path, 1, "me/plain-v0").episodes
    np.savez(path, **arrays | {"terminals": arrays["terminals"][:, None]})
    found = save_single_task(path, 1, "me/column-v0").episodes
    assert found.content_hash == plain.content_hash


# -- and they run


SHORT = (
    *("threads=1", "capture=false", "max_episode_steps=5"),
    *("evaluation.episodes=1", "evaluation.background=false"),
    *(f"{key}={UPDATES}" for key in ("gradient_steps", "env_steps")),
    *(f"evaluation.every_{unit}={UPDATES}" for unit in ("gradient_steps", "env_steps")),
)


def words(algo: str) -> list[str]:
    """Return overrides that make a method's own schedule short: its networks stay as they are."""
    large = {
        name: FEW
        for name, value in own_defaults(algo).items()
        if type(value) is int and value > 1000
    }
    fields = METHODS[algo].Config.model_fields.keys() - METHODS[algo].Config.unused
    small = {"warmup_env_steps": WARMUP, "utd": 1, "batch_size": 8}
    found = large | {key: value for key, value in small.items() if key in fields}
    return [f"{algo}.{key}={value}" for key, value in found.items()]


def methods_of(name: str) -> list[str]:
    if TORTURE:
        return ["baq", *published(name)]
    return [SAMPLE[name]]


@pytest.mark.torture
@pytest.mark.parametrize("name", RECIPES if TORTURE else SAMPLE)
def test_a_recipe_trains_on_a_set_of_its_format_offline_and_online(name: str, folder: Path) -> None:
    """Twenty updates of the recipe's networks, in its environment, whose spaces are the set's."""
    if name.startswith("ogbench/"):
        need_ogbench()
    make(layer_of(name)["dataset"], folder)
    for algo in methods_of(name):
        tasks = tasks_of(asked_for([name], {}), [name], {}, [*SHORT, *words(algo)])
        (cell,) = lay_out(tasks, [algo], {}, folder / "runs", "baq compare")
        run_cell(cell, lambda event: None)
        for phase in ("offline", "online"):
            if getattr(METHODS[algo], f"learns_{phase}"):
                rows = read_metrics(cell.folder / phase)
                assert max(row[UNITS[phase]] for row in rows) == UPDATES, (name, algo)


def test_an_ant_maze_ends_at_the_goal_in_the_data_too(folder: Path) -> None:
    """The made set's second episode reaches it in its third step of six, and stays there."""
    from baq_cli.engine.collection.datasets import open_dataset

    name = "D4RL/antmaze/umaze-v1"
    make(name, folder)
    notes: list[str] = []
    layer = open_recipe("d4rl/antmaze-umaze")
    assert layer["env_args"] == {"continuing_task": False}
    whole = load_episodes(name)
    found = open_dataset(name, lambda note: notes.append(str(note)), layer["end_at_reward"])
    np.testing.assert_array_equal(whole.lengths, [6, 6, 7])
    np.testing.assert_array_equal(found.lengths, [6, 3, 7])
    np.testing.assert_array_equal(found.returns, [0.0, 1.0, 0.0])
    assert np.flatnonzero(found.terminated).tolist() == [8]
    assert np.flatnonzero(found.truncated).tolist() == [5, 15]
    np.testing.assert_array_equal(found.obs, whole.obs[[*range(9), *range(12, 19)]])
    np.testing.assert_array_equal(found.next_obs, whole.next_obs[[*range(9), *range(12, 19)]])
    assert "ended at a reward of 1 or more (end_at_reward): 1 of 3 episodes" in notes[0]
    assert "left out behind it: 3 steps" in notes[0]


def test_tables_here_are_of_the_same_sets_as_the_recipes() -> None:
    assert len(MINARI) == 41
    assert all(len(sizes) == 3 for sizes in OGBENCH.values())


def test_the_page_has_every_recipe_with_the_methods_that_it_says() -> None:
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    said = {row[0].strip("`"): row[1:] for row in rows}
    assert said.keys() == {name for name in RECIPES if "-task" not in name}
    for name, (dataset, methods) in said.items():
        assert dataset.strip("`") == layer_of(name)["dataset"]
        named = [] if methods == "–" else [word.strip("`") for word in methods.split(", ")]
        assert named == published(name), name


def test_recipes_are_listed_by_folder_and_a_folder_by_what_is_in_it(
    baq_here: Callable[..., tuple[int, str, str]],
) -> None:
    status, out, _ = baq_here("recipes", "list")
    assert status == 0
    assert "cube-double-play[-task1,3,4,5]" in out
    assert len(out.splitlines()) < 60
    status, out, _ = baq_here("recipes", "list", "adroit")
    assert (status, "D4RL/pen/cloned-v2" in out, "antmaze" in out) == (0, True, False)
    status, _, said = baq_here("recipes", "list", "d5rl")
    assert status == 2
    assert "did you mean 'd4rl'?" in said
