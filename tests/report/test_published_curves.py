"""Curves that others published and that ship: their numbers, and where they may stand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from baq_cli.envs.ref import EnvRef
from baq_cli.envs.scores import Reference, known_reference
from baq_cli.errors import UsageError
from baq_cli.launch.matrix import asked_for
from baq_cli.report.curves import Curve
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.external import curves_of
from baq_cli.report.markdown_task import SOURCES
from baq_cli.report.method_runs import Course, reference_of
from baq_cli.report.published_curves import published_curves
from support.advice import Terminal, follows
from support.places import RECORDED

FINAL = RECORDED / "corl_antmaze_final.csv"
LARGE, MEDIUM = "D4RL/antmaze/large-play-v1", "D4RL/antmaze/medium-diverse-v1"
METHODS = ["AWAC", "CQL", "IQL", "SPOT", "Cal-QL", "ReBRAC"]
ENDS_AT_GOAL = {"continuing_task": False, "maze_map": [[1, "r", "g", 1]]}


def own(steps: int = 100) -> Course:
    """Return two seeds of a run in a maze whose episodes end at the goal, with another budget."""
    counters, returns = np.array([0, steps]), np.array([[0.0, 0.5], [0.25, 1.0]])
    curve = Curve("iql", "online", "env_steps", counters, returns, (0, 1))
    reference = known_reference(EnvRef.of("AntMaze_Large-v4", ENDS_AT_GOAL))
    protocol = {"env_steps": steps, "gradient_steps": 7}
    return Course(LARGE, "iql", {"online": curve}, "return", protocol, reference=reference)


def test_the_last_scores_are_those_that_corl_published() -> None:
    with FINAL.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = {
        (row["dataset"], f"{row['algo']} (CORL)", int(row["seed_index"])): float(
            row["normalized_score"]
        )
        for row in rows
    }
    found = {
        (course.task, course.method, seed): float(score)
        for course in published_curves("corl", [])
        for seed, score in zip(course.seeds, course.curves["online"].returns[:, -1], strict=True)
    }
    assert found == expected
    assert len(found) == 6 * 6 * 4


def test_evaluations_stand_at_their_steps_and_begin_with_the_hand_over() -> None:
    courses = {course.method: course for course in published_curves("corl", [LARGE])}
    assert list(courses) == [f"{method} (CORL)" for method in METHODS]
    for name, course in courses.items():
        online, offline = course.curves["online"], course.curves["offline"]
        assert course.steps_known
        assert online.counters.tolist() == list(range(0, 1_000_001, 50_000))
        assert offline.counters[-1] == 1_000_000
        assert offline.counters[0] == (0 if name.startswith("ReBRAC") else 50_000)
        if not name.startswith("ReBRAC"):
            np.testing.assert_array_equal(online.returns[:, 0], offline.returns[:, -1])
    # ReBRAC's first seed, as its raw results have it: it peaks early and falls
    assert courses["ReBRAC (CORL)"].curves["online"].returns[0, [0, 4, -1]].tolist() == [71, 95, 21]
    means = {name: c.curves["online"].returns[:, [0, -1]].mean(0) for name, c in courses.items()}
    np.testing.assert_allclose(means["Cal-QL (CORL)"], [31.75, 97.25])
    np.testing.assert_allclose(means["IQL (CORL)"], [38.5, 64.5])


def test_they_stand_beside_own_runs_of_that_task_alone_and_say_what_they_are() -> None:
    courses = [own(), *published_curves("corl", [LARGE, "mujoco/hopper/medium-v0"])]
    document = build_document(courses, ReportInfo())
    (task,) = document["tasks"]
    assert task["unit"] == "normalized score"
    assert task["methods"]["iql"]["curves"]["online"]["scores"][1] == [25.0, 100.0]
    sources = {name: of["source"] for name, of in task["methods"].items()}
    assert sources.pop("iql") == "file"
    assert set(sources.values()) == {"published"}
    assert SOURCES["published"] == " (published by others)"
    (said,) = [note for note in document["notes"] if "published by others" in note]
    for word in (
        "CORL",
        "Apache-2.0",
        "antmaze-large-play-v2",
        "isn't Minari's",
        LARGE,
        "1,000,000",
    ):
        assert word in said


def test_another_budget_than_theirs_is_shown_and_not_refused() -> None:
    for steps in (100, 1_000_000):
        build_document([own(steps), *published_curves("corl", [LARGE])], ReportInfo())


def test_tasks_without_curves_are_refused_with_those_that_have_some() -> None:
    with pytest.raises(UsageError, match="it has those of D4RL/antmaze/umaze-v1"):
        published_curves("corl", ["mujoco/hopper/medium-v0"])


def test_a_file_of_that_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corl").write_text(
        "dataset,algo,seed_index,phase,eval_index,return\nmaze,IQL,0,online,0,5\n"
    )
    assert [course.task for course in curves_of(["corl"], [])] == ["maze"]


def test_a_comparison_learns_before_it_runs_that_curves_are_of_other_tasks(
    folder: Path, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("--recipe", "pendulum/compare", "--curves", "corl", "--out", folder / "out")
    status, _, said = baq_here("compare", *words)
    assert status == 2
    assert "--curves corl has no curves of baq/pendulum/" in said
    assert not (folder / "out").exists()


@follows("--algos published: no recipe here says of a method that its settings are its authors'")
def test_methods_are_named_where_no_recipe_says_which_are_published(terminal: Terminal) -> None:
    words = ["compare", "--recipe", "mujoco/ant-simple", "--out", "runs/ant", "--dry-run"]
    said = terminal.told(*words, "--algos", "published", status=2)
    assert "Name methods instead" in said
    assert asked_for(["mujoco/ant-simple"], {"algos": ["td3_bc"]}).algos == ("td3_bc",)


# -- what a return is measured against


@pytest.mark.parametrize(
    ("env_id", "args", "limit", "label"),
    [
        ("AntMaze_Large-v4", {"continuing_task": False}, None, "D4RL AntMaze"),
        ("AntMaze_UMaze-v5", ENDS_AT_GOAL, 50, "D4RL AntMaze"),
        ("AntMaze_Large-v4", {}, None, None),  # it goes on, and counts the steps at the goal
        ("PointMaze_Large-v3", {"maze_map": [["g"]]}, None, "D4RL maze2d-large-v1"),
        ("PointMaze_UMazeDense-v3", {"maze_map": [["g"]]}, None, "D4RL maze2d-umaze-dense-v1"),
        ("PointMaze_Large-v3", {}, None, None),  # a goal for each episode
        ("PointMaze_Large-v3", {"maze_map": [["g", "g"]]}, None, None),
        ("PointMaze_Large-v3", {"maze_map": [["g"]], "reset_target": True}, None, None),
        ("PointMaze_Large-v3", {"maze_map": [["g"]]}, 300, None),
        ("FrankaKitchen-v1", {"tasks_to_complete": ["a", "b", "c", "d"]}, 450, "D4RL kitchen"),
        ("FrankaKitchen-v1", {}, None, None),  # seven tasks
        ("Hopper-v5", {}, None, "D4RL Hopper"),
        ("Hopper-v5", {"frame_skip": 2}, None, None),
    ],
)
def test_d4rls_reference_holds_where_a_return_is_what_it_was_there(
    env_id: str, args: dict[str, object], limit: int | None, label: str | None
) -> None:
    found = known_reference(EnvRef.of(env_id, args, limit))
    assert (None if found is None else found.label) == label


def test_scores_in_the_mazes_are_d4rls() -> None:
    maze = known_reference(EnvRef.of("PointMaze_Medium-v3", {"maze_map": [["g"]]}))
    assert maze is not None
    assert maze.normalize(13.13) == 0.0
    assert maze.normalize(277.39) == pytest.approx(100.0)
    ant = known_reference(EnvRef.of("AntMaze_Large-v4", ENDS_AT_GOAL))
    assert ant is not None
    assert ant.normalize(0.25) == 25.0


def test_a_report_takes_the_reference_that_a_run_found_in_its_environment() -> None:
    """An environment's text doesn't say all of its arguments, so the run's manifest does."""
    kept = {"label": "D4RL AntMaze", "random": 0.0, "expert": 1.0, "source": "s"}
    environment = {"id": "AntMaze_Large-v4", "name": "AntMaze_Large-v4(…)", "reference": kept}
    assert reference_of(environment, None) == Reference("D4RL AntMaze", 0.0, 1.0, "s")
    assert reference_of(environment | {"reference": None}, None) is None
