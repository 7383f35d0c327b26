"""Tables: columns by mapping or by custom, parts, rows of an observation alone, last steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pyarrow
import pytest

from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.mapping import read_mapping
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import BaqError, DataError, UsageError
from support.logs import (
    BOUNDS,
    FORMS,
    NEW,
    ROBOT,
    ROBOT_ENDS,
    Columns,
    ends,
    import_table,
    write_table,
    written,
)

every_form = pytest.mark.parametrize("form", FORMS)
ONE_COLUMN = {"observation": "q_1", "action": "u_a", **ROBOT_ENDS}


# -- mappings


@every_form
def test_patterns_stand_for_columns_in_the_files_order(form: str, folder: Path) -> None:
    path = write_table(form, folder, ROBOT)
    done = import_table(path, {"observation": "q_*", "action": ["u_*"], **ROBOT_ENDS})
    # the last row's observation is the next one of the step before it
    assert done.episodes.obs.tolist() == [[1, 10, -1], [2, 20, -2], [3, 30, -3]]
    assert done.episodes.next_obs[2].tolist() == [4, 40, -4]
    assert done.episodes.action.tolist() == [[0.5, 0], [0.25, -0.25], [-0.5, 0.75]]
    assert done.episodes.reward.tolist() == [1, 2, 4]
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]


@pytest.mark.parametrize(
    ("names", "pattern"),
    [(["q[0]", "q[1]"], "q[*]"), (["q[0]", "q[1]"], "q[?]"), (["q0", "q1"], "q[01]")],
)
def test_brackets_in_a_pattern_stand_for_themselves_where_columns_have_them(
    names: list[str], pattern: str, folder: Path
) -> None:
    """As PlotJuggler and rosbags call the numbers of a list."""
    columns = {
        "other": ROBOT["q_10"],
        **dict(zip(names, (ROBOT["q_1"], ROBOT["q_2"]), strict=True)),
    }
    rest = {name: ROBOT[name] for name in ("u_a", *ROBOT_ENDS.values())}
    path = write_table("csv", folder, columns | rest)
    done = import_table(path, {**ONE_COLUMN, "observation": pattern})
    assert done.episodes.obs[0].tolist() == [-1, 1]


def test_names_before_a_pattern_come_first_and_no_column_comes_twice(folder: Path) -> None:
    path = write_table("csv", folder, ROBOT)
    done = import_table(path, {"observation": ["q_1", "q_*"], "action": "u_?", **ROBOT_ENDS})
    assert done.episodes.obs[0].tolist() == [-1, 1, 10]


@pytest.mark.parametrize("observation", ["*_*", {"arm": "q_*", "all": ["u_a", "q_1"]}, "q_*"])
def test_an_observation_that_holds_the_action_of_its_row_is_told_of(
    observation: Any, folder: Path
) -> None:
    """As a pattern has it that stands for more than was meant."""
    path = write_table("csv", folder, ROBOT)
    done = import_table(path, {"observation": observation, "action": "u_a", **ROBOT_ENDS})
    told = [note for note in done.notes if "the observation holds u_a (action)" in note]
    assert len(told) == (observation != "q_*")
    assert (open_minari(NEW).metadata.get("import_notes") or [])[: len(told)] == told


@every_form
def test_a_mapping_by_part_makes_a_dict_observation(form: str, folder: Path) -> None:
    path = write_table(form, folder, ROBOT)
    parts = {"goal": "q_2", "arm": ["q_10", "q_1"]}
    done = import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})
    assert done.episodes.spaces.obs_layout == (("arm", 2), ("goal", 1))
    assert done.episodes.obs[1].tolist() == [20, -2, 2]
    space = open_minari(NEW).spaces[0]
    assert isinstance(space, gym.spaces.Dict)
    assert {name: box.shape for name, box in space.items()} == {"arm": (2,), "goal": (1,)}


def test_parts_may_lie_in_parts(folder: Path) -> None:
    path = write_table("csv", folder, ROBOT)
    parts = {"arm/wrist": "q_2", "arm/elbow": "q_1", "goal": "q_10"}
    done = import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})
    assert done.episodes.spaces.obs_layout == (("arm/elbow", 1), ("arm/wrist", 1), ("goal", 1))
    assert done.episodes.obs[0].tolist() == [-1, 1, 10]


@pytest.mark.parametrize(
    "parts",
    [{"arm": "q_1", "arm/wrist": "q_2"}, {"arm/wrist": "q_2", "arm": "q_1"}],
    ids=["outer first", "inner first"],
)
def test_a_part_that_is_also_a_parent_is_refused(parts: dict[str, str], folder: Path) -> None:
    path = write_table("csv", folder, ROBOT)
    with pytest.raises(BaqError, match="arm"):
        import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})


@every_form
def test_next_observation_columns_keep_a_truncated_episodes_last_step(
    form: str, folder: Path
) -> None:
    path = write_table(form, folder, {**ROBOT, "next_1": [-2.0, -9, -4, -5]})
    done = import_table(path, {**ONE_COLUMN, "next_observation": "next_*"})
    assert done.episodes.next_obs.ravel().tolist() == [-2, -9, -4, -5]
    assert done.episodes.reward.tolist() == [1, 2, 4, 8]
    assert ends(done.episodes) == [(2, True, False), (2, False, True)]
    assert done.lost == 0


@pytest.mark.parametrize(
    ("observation", "following"),
    [("q_*", "q_1"), ({"arm": "q_*"}, {"arm": "q_1"})],
    ids=["flat", "by part"],
)
def test_next_observations_of_another_width_are_refused(
    observation: Any, following: Any, folder: Path
) -> None:
    path = write_table("csv", folder, ROBOT)
    change = {"observation": observation, "next_observation": following}
    with pytest.raises(DataError, match="observation"):
        import_table(path, {**ONE_COLUMN, **change})


@pytest.mark.parametrize("following", [{"wrist": "q_1"}, {"arm": "q_1", "wrist": "q_2"}, "q_1"])
def test_next_observations_of_other_parts_are_refused(following: Any, folder: Path) -> None:
    path = write_table("csv", folder, ROBOT)
    change = {"observation": {"arm": "q_1"}, "next_observation": following}
    with pytest.raises(DataError, match=r"have the parts .*, observations arm"):
        import_table(path, {**ONE_COLUMN, **change})


@every_form
@pytest.mark.parametrize("odd", [0.37, 2.0, -1.0])
@pytest.mark.parametrize("role", ["terminated", "truncated"])
def test_a_column_of_anything_but_0_and_1_ends_no_episode(
    role: str, odd: float, form: str, folder: Path
) -> None:
    """Whether a mapping names it, `--ends` does, or its own name."""
    columns = {"obs": [1.0, 2, 3, 4], "action": [0.0] * 4, "reward": [1.0] * 4}
    path = write_table(form, folder, {**columns, role: [0.0, 1, odd, 0]})
    names = {"observation": "obs", "action": "action", "reward": "reward"}
    for mapping in (None, {**names, role: role}, {**names, "ends": {role: role}}):
        rules = CutRules(only_terminations=role == "terminated")
        with pytest.raises(DataError, match=f"'{role}' marks no rows: .* {odd:g} in row 2"):
            import_table(path, mapping, rules)


@every_form
@pytest.mark.parametrize(
    "runs", [["a", "a", None, "b"], [1.0, None, 1, 2]], ids=["words", "numbers"]
)
def test_a_row_without_its_episode_is_refused(runs: list[Any], form: str, folder: Path) -> None:
    """An empty cell isn't another episode, in the middle of one."""
    given = ["" if form == "npz" and v is None and "a" in runs else v for v in runs]
    path = write_table(form, folder, {**ROBOT, "run": given})
    for episode in ({"episode": "run"}, {"ends": {"episode": "run"}}):
        mapping = {"observation": "q_1", "action": "u_a", "reward": "r", **episode}
        with pytest.raises(DataError, match="'run'"):
            import_table(path, mapping)
    assert local_datasets() == []


def test_spaces_around_an_episodes_name_are_no_part_of_it(folder: Path) -> None:
    path = write_table("csv", folder, {**ROBOT, "run": ["a", "a ", " b", "b"]})
    mapping = {"observation": "q_1", "action": "u_a", "reward": "r", "episode": "run"}
    assert import_table(path, mapping).episodes.lengths.tolist() == [1, 1]


@every_form
def test_episodes_may_be_named_by_words(form: str, folder: Path) -> None:
    columns = {**ROBOT, "run": ["tuesday", "tuesday", "monday", "monday"]}
    path = write_table(form, folder, columns)
    mapping = {"observation": "q_1", "action": "u_a", "reward": "r", "episode": "run"}
    done = import_table(path, mapping)
    assert ends(done.episodes) == [(1, False, True), (1, False, True)]
    assert done.episodes.observations.ravel().tolist() == [-1, -2, -3, -4]
    assert done.lost == 2


@every_form
def test_a_number_names_one_episode_however_it_is_written(form: str, folder: Path) -> None:
    """0 and 0.0 are one, in words as in numbers; 01 may be another's name, as 1e0 may."""
    columns = {k: v * 2 for k, v in ROBOT.items()} | {
        "run": ["0", "0.0", "0.", "0.00", "01", "1", "1e0", "1.0"]
    }
    path = write_table(form, folder, columns)
    mapping = {"observation": "q_1", "action": "u_a", "reward": "r", "ends": {"runs": "run"}}
    assert import_table(path, mapping).episodes.lengths.tolist() == [3]


@every_form
def test_a_column_of_text_is_no_harm_unless_it_is_mapped(form: str, folder: Path) -> None:
    path = write_table(form, folder, ROBOT)
    assert import_table(path, ONE_COLUMN).episodes.lengths.tolist() == [2, 1]
    with pytest.raises(DataError, match=r"expected (a )?number"):
        import_table(path, {**ONE_COLUMN, "observation": "note"}, dataset_id="me/other-v0")
    assert local_datasets() == [NEW]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observatoin": "q_1"}, "unknown key 'observatoin'; did you mean 'observation'"),
        ({"observation": "q_11"}, "no column 'q_11'; did you mean 'q_1'"),
        ({"reward": "rr"}, "no column 'rr'; did you mean 'r'"),
        ({"action": ["u_a", "zz_*"]}, r"no column 'zz_\*'"),
        ({"reward": None}, "reward"),
        ({"observation": 5}, "observation"),
        ({"observation": []}, "observation: .*names no column"),
        ({"observation": {"arm": []}}, "observation: .*names no column"),
        ({"action": ""}, "action: .*names no column"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_nearest_name(
    change: dict[str, Any], said: str, folder: Path
) -> None:
    path = write_table("csv", folder, ROBOT)
    mapping = {"observation": "q_*", "action": "u_*", **ROBOT_ENDS, **change}
    with pytest.raises(UsageError, match=said):
        import_table(path, mapping)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "7"])
def test_a_mapping_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"map\.yaml"):
        read_mapping(written(tmp_path / "map.yaml", text))


# -- without a mapping


@every_form
def test_columns_are_known_by_custom_without_a_mapping(form: str, folder: Path) -> None:
    columns = {"note": ["a", "b", "c"], "observation": [1.0, 2, 3], "action": [0.5, 0, -0.5]}
    columns |= {"reward": [1.0, 2, 4], "terminals": [0, 0, 1], "timeouts": [0, 1, 0]}
    done = import_table(write_table(form, folder, columns))
    assert ends(done.episodes) == [(1, False, True), (1, True, False)]


def test_true_and_false_are_flags_in_any_case(folder: Path) -> None:
    path = written(
        folder / "log.csv",
        "obs,action,reward,terminated,truncated\n"
        "1,0.5,1,false,FALSE\n2,0.5,2,True,false\n3,0.5,4,False,0\n4,0.5,8,0,TRUE\n",
    )
    assert ends(import_table(path).episodes) == [(2, True, False), (1, False, True)]


@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_a_parquet_may_have_lists_of_equal_length(kind: str, folder: Path) -> None:
    """Polars writes large lists."""
    pairs = pyarrow.array([[1.0, 2], [3, 4], [5, 6]], getattr(pyarrow, kind)(pyarrow.float64()))
    columns = {"action": [0.5, 0, -0.5], "reward": [1.0, 2, 4], "terminated": [0, 0, 1]}
    path = write_table("parquet", folder, {"obs": pairs, **columns})
    done = import_table(path, rules=CutRules(only_terminations=True))
    assert done.episodes.obs.tolist() == [[1, 2], [3, 4], [5, 6]]


# -- rows of an observation alone: each episode's last one

BARE: Columns = {
    "obs": [1.0, 2, 3, 4, 5],
    "action": [0.5, 0.25, None, -0.5, None],
    "reward": [1.0, 2, None, 4, None],
    "terminated": [0.0, 1, None, 0, None],
    "truncated": [0.0, 0, None, 0, 1],
}


@every_form
def test_rows_of_an_observation_alone_are_final_observations(form: str, folder: Path) -> None:
    done = import_table(write_table(form, folder, BARE))
    assert done.episodes.observations.ravel().tolist() == [1, 2, 3, 4, 5]
    assert done.episodes.reward.tolist() == [1, 2, 4]
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]
    assert done.lost == 0


def test_empty_flags_of_such_a_row_in_a_parquet_are_no_harm(folder: Path) -> None:
    """Pandas writes them as null in a column of booleans."""
    flags = {
        "terminated": [False, True, None, False, None],
        "truncated": [False, False, None, False, True],
    }
    done = import_table(write_table("parquet", folder, {**BARE, **flags}))
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]


def test_a_final_observation_never_comes_from_another_episode(folder: Path) -> None:
    """Episode 0 has no row of its own for it, episode 1 has: 3 is no successor of 2."""
    text = "episode,obs,action,reward\n0,1,.5,1\n0,2,.5,2\n1,3,.5,4\n1,4,,\n"
    try:
        episodes = import_table(written(folder / "log.csv", text)).episodes
    except DataError:
        return  # refusing is as good
    pairs = set(zip(episodes.obs.ravel().tolist(), episodes.next_obs.ravel().tolist(), strict=True))
    assert (2, 3) not in pairs


def test_a_final_observation_inside_an_episode_isnt_passed_over(folder: Path) -> None:
    """The episode's number says that 3 follows, the row before it that 2 does."""
    text = "episode,obs,action,reward\n0,1,.5,1\n0,2,,\n0,3,.5,4\n0,4,,\n"
    with pytest.raises(DataError, match="row"):
        import_table(written(folder / "log.csv", text))


# -- what an episode's last step needs


@every_form
def test_a_termination_keeps_its_last_step_and_a_truncation_without_next_loses_it(
    form: str, folder: Path, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    columns = {"obs": [1.0, 2, 3, 4, 5], "action": [0.1, 0.2, 0.3, 0.4, 0.5]}
    columns |= {"reward": [1.0, 2, 4, 8, 16]}
    columns |= {"terminated": [0, 1, 0, 0, 0], "truncated": [0, 0, 0, 0, 1]}
    path = write_table(form, folder, columns)
    status, _, said = baq_here("data", "import", path, "--id", NEW, *BOUNDS)
    assert status == 0
    assert "left out: 1 transition, where" in said
    episodes = load_episodes(NEW)
    assert episodes.reward.tolist() == [1, 2, 4, 8]
    assert ends(episodes) == [(2, True, False), (2, False, True)]
    assert episodes.next_obs[2:].ravel().tolist() == [4, 5]
    assert import_table(path, dataset_id="me/again-v0").lost == 1


def test_a_pattern_for_one_column_must_stand_for_one(folder: Path) -> None:
    path = written(folder / "log.csv", "o,a,r,rr,t\n1,0,1,2,0\n2,0,1,2,1\n")
    columns = {"observation": "o", "action": "a", "reward": "r*", "terminated": "t"}
    with pytest.raises(UsageError, match="'r\\*' stands for 2 columns"):
        import_table(path, columns)


def test_a_gap_in_a_log_is_not_taken_for_the_end_of_an_episode(folder: Path) -> None:
    """A sensor that was silent for a row looks like an end, but nothing says that it is one."""
    rows = "o,a,r,t\n1,.5,1,0\n2,,,0\n3,.5,1,0\n4,.5,1,1\n"
    path = written(folder / "log.csv", rows)
    columns = {"observation": "o", "action": "a", "reward": "r", "terminated": "t"}
    with pytest.raises(DataError, match=r"row 1 \(from 0\) has neither"):
        import_table(path, columns)
