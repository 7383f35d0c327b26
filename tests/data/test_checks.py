"""What the checks of a dataset find: in its content, and against an environment."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest

from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.env_checks import environment_findings
from baq_cli.data.episodes import DataOrigin, Episodes, Finding
from baq_cli.data.recording import Recording
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch
from support.builders import make_episodes

Array = npt.NDArray[Any]
CLEAN = make_episodes([4, 3], [True, False])


def spoilt(episodes: Episodes, name: str, at: Any, value: Any) -> Episodes:
    """Return the episodes with other values at one place of an array."""
    values = getattr(episodes, name).copy()
    values[at] = value
    return replace(episodes, **{name: values})


def only(findings: list[Finding], level: str, check: str) -> str:
    """Return the text of the one finding there is."""
    assert [(finding.level, finding.check) for finding in findings] == [(level, check)]
    return findings[0].text


def of_check(findings: list[Finding], check: str) -> list[str]:
    return [finding.text for finding in findings if finding.check == check]


@pytest.mark.parametrize("lengths", [[4, 3], [2], [200, 200, 37]])
def test_nothing_is_found_in_clean_episodes(lengths: list[int]) -> None:
    episodes = make_episodes(lengths, [False] * len(lengths))
    assert content_findings(replace(episodes, origin=DataOrigin(max_episode_steps=200))) == []


# -- finite numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        # episodes of 4 and 3 steps have 5 and 4 observations
        ("observations", 0, "observations are .* in 1 of 9 rows, first in episode 0 at step 0"),
        ("observations", 4, "observations are .* in 1 of 9 rows, first in episode 0 at step 4"),
        ("observations", 5, "observations are .* in 1 of 9 rows, first in episode 1 at step 0"),
        ("observations", 8, "observations are .* in 1 of 9 rows, first in episode 1 at step 3"),
        ("action", 3, "actions are .* in 1 of 7 rows, first in episode 0 at step 3"),
        ("action", 4, "actions are .* in 1 of 7 rows, first in episode 1 at step 0"),
        ("reward", 3, "rewards are .* in 1 of 7 rows, first in episode 0 at step 3"),
        ("reward", 6, "rewards are .* in 1 of 7 rows, first in episode 1 at step 2"),
    ],
)
def test_numbers_that_are_not_finite_are_an_error_with_their_place(
    name: str, row: int, words: str, value: float
) -> None:
    findings = content_findings(spoilt(CLEAN, name, row, value))
    [text] = of_check(findings, "finite")
    assert findings[0].level == "error"
    assert re.match(words, text)


def test_one_number_of_a_row_is_enough_and_every_row_is_counted() -> None:
    observations = spoilt(CLEAN, "observations", ([6, 8, 2], [0, 1, 2]), np.nan)
    text = only(content_findings(observations), "error", "finite")
    assert "in 3 of 9 rows, first in episode 0 at step 2" in text


def test_each_array_that_is_not_finite_is_told() -> None:
    everywhere = spoilt(spoilt(CLEAN, "observations", 5, np.nan), "action", 4, np.nan)
    found = of_check(content_findings(spoilt(everywhere, "reward", 6, np.nan)), "finite")
    assert [text.split()[0] for text in found] == ["observations", "actions", "rewards"]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinities_of_both_signs_do_not_cancel() -> None:
    findings = content_findings(spoilt(CLEAN, "reward", [1, 5], [np.inf, -np.inf]))
    assert "in 2 of 7 rows, first in episode 0 at step 1" in only(findings, "error", "finite")


def test_what_is_not_finite_is_a_finding_and_no_warning_of_numpys() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only(
            content_findings(spoilt(CLEAN, "reward", [1, 5], [np.inf, -np.inf])), "error", "finite"
        )


def test_the_largest_numbers_are_finite() -> None:
    largest = np.finfo(np.float32).max
    assert content_findings(spoilt(CLEAN, "reward", slice(1, None), largest)) == []


# -- actions


@pytest.mark.parametrize("sign", [-1, 1])
def test_actions_outside_the_recorded_space_are_an_error(sign: int) -> None:
    actions = spoilt(CLEAN, "action", ([2, 4, 4], [0, 0, 1]), [1.25 * sign, 1.5 * sign, 1.25])
    text = only(content_findings(actions), "error", "action bounds")
    assert "2 of 7 (28.6%) of the actions lie outside" in text
    assert "by up to 0.5 of its half width" in text


def test_every_action_of_a_long_dataset_is_checked() -> None:
    episodes = make_episodes([70_000], [False])
    actions = spoilt(episodes, "action", ([0, -1], [0, 1]), [-1.5, 1.25])
    text = only(content_findings(actions), "error", "action bounds")
    assert text.startswith("2 of 70,000 (0.0%) of the actions")
    assert "by up to 0.5 of its half width" in text


@pytest.mark.parametrize(("size", "levels"), [(1.00009, []), (1.00011, ["error"])])
def test_actions_may_lie_outside_by_rounding(size: float, levels: list[str]) -> None:
    episodes = make_episodes([60, 40], [True, False])  # one of 100 is not worth a warning either
    for sign in (-1, 1):
        findings = content_findings(spoilt(episodes, "action", (7, 0), sign * size))
        assert [finding.level for finding in findings] == levels


def test_how_far_actions_lie_outside_is_told_beside_numbers_that_are_not_finite() -> None:
    actions = spoilt(CLEAN, "action", ([2, 4], [0, 0]), [np.nan, 1.5])
    [text] = of_check(content_findings(actions), "action bounds")
    assert "by up to 0.5 of its half width" in text


def test_actions_exactly_on_a_bound_are_worth_a_warning_above_one_in_a_hundred() -> None:
    episodes = make_episodes([60, 40], [True, False])
    one = spoilt(episodes, "action", 7, [1.0, -1.0])  # in both dimensions, and counted once
    assert content_findings(one) == []
    text = only(content_findings(spoilt(one, "action", (99, 1), -1.0)), "warning", "action bounds")
    assert text.startswith("2 of 100 (2.0%) of the actions lie exactly on a bound")


def test_actions_a_hair_inside_their_bounds_are_not_on_them() -> None:
    inside = np.nextafter(np.float32(1), np.float32(0))
    actions = spoilt(CLEAN, "action", (slice(4), 0), [inside, -inside, inside, -inside])
    assert content_findings(actions) == []


# -- end flags


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_an_end_marked_inside_an_episode_is_an_error(name: str) -> None:
    text = only(content_findings(spoilt(CLEAN, name, [1, 4], True)), "error", "end flags")
    assert text.startswith("marked terminated or truncated inside an episode: 2 steps; ")


def test_a_step_inside_with_both_flags_is_counted_once() -> None:
    both = spoilt(spoilt(CLEAN, "terminated", 1, True), "truncated", 1, True)
    assert only(content_findings(both), "error", "end flags").count("episode: 1 step; ")


def test_an_episode_that_ends_both_ways_is_worth_a_warning() -> None:
    findings = content_findings(spoilt(CLEAN, "truncated", 3, True))
    text = only(findings, "warning", "end flags")
    assert text.startswith("1 of 2 (50.0%) of the episodes end both terminated and truncated")


def test_an_episode_that_ends_neither_way_is_worth_a_warning() -> None:
    findings = content_findings(spoilt(CLEAN, "truncated", 6, False))
    text = only(findings, "warning", "end flags")
    assert text.startswith("1 of 2 (50.0%) of the episodes end neither terminated nor truncated")


# -- lengths


def test_episodes_of_one_step_are_worth_a_warning() -> None:
    findings = content_findings(make_episodes([1, 3, 2, 1], [True] * 4))
    assert only(findings, "warning", "lengths") == "2 of 4 (50.0%) of the episodes have one step."


def test_a_single_transition_is_found_short_and_nothing_else() -> None:
    only(content_findings(make_episodes([1], [True])), "warning", "lengths")


@pytest.mark.parametrize(("limit", "longer"), [(2, "2 of 3"), (3, "1 of 3"), (4, ""), (None, "")])
def test_episodes_longer_than_the_limit_are_worth_a_warning(limit: int | None, longer: str) -> None:
    episodes = make_episodes([4, 2, 3], [True] * 3)
    findings = content_findings(replace(episodes, origin=DataOrigin(max_episode_steps=limit)))
    if not longer:
        assert findings == []
        return
    text = only(findings, "warning", "lengths")
    assert text.startswith(longer)
    assert f"longer than the {limit} steps" in text
    assert "the longest: 4" in text


# -- dimensions and rewards


@pytest.mark.parametrize(("name", "words"), [("observations", "observation"), ("action", "action")])
def test_constant_dimensions_are_worth_a_warning(name: str, words: str) -> None:
    findings = content_findings(spoilt(CLEAN, name, (slice(None), 1), 0.25))
    assert only(findings, "warning", "dimensions") == f"{words} dimensions [1] are constant."


def test_a_dimension_that_moves_in_the_last_observation_only_is_not_constant() -> None:
    assert content_findings(spoilt(CLEAN, "observations", (slice(-1), 1), 0.25)) == []


def test_constant_dimensions_are_not_called_duplicates_of_each_other() -> None:
    findings = content_findings(spoilt(CLEAN, "observations", (slice(None), [0, 2]), 0.25))
    assert only(findings, "warning", "dimensions").startswith("observation dimensions [0, 2] are")


@pytest.mark.parametrize(
    ("name", "of", "to", "words"),
    [
        ("observations", 0, [2], "observation dimensions are duplicates: 0 = 2."),
        ("observations", 1, [0, 2], "observation dimensions are duplicates: 0 = 1, 0 = 2, 1 = 2."),
        ("action", 0, [1], "action dimensions are duplicates: 0 = 1."),
    ],
)
def test_dimensions_that_repeat_another_are_worth_a_warning(
    name: str, of: int, to: list[int], words: str
) -> None:
    column = getattr(CLEAN, name)[:, [of]]
    findings = content_findings(spoilt(CLEAN, name, (slice(None), to), column))
    assert only(findings, "warning", "dimensions") == words


def test_dimensions_of_the_same_range_are_not_duplicates() -> None:
    reversed_column = CLEAN.observations[::-1, 0]
    assert content_findings(spoilt(CLEAN, "observations", (slice(None), 2), reversed_column)) == []


def test_equal_rewards_leave_nothing_to_prefer() -> None:
    equal = spoilt(CLEAN, "reward", slice(None), -1.5)
    assert only(content_findings(equal), "warning", "rewards").startswith("every reward is -1.5:")
    assert content_findings(spoilt(equal, "reward", 6, -1.0)) == []


# -- duplicates


def of_copies() -> Episodes:
    """Return four episodes, the last two copies of the first."""
    episodes = make_episodes([3, 2, 3, 3], [True] * 4)  # 4, 3, 4 and 4 observations
    observations, action = episodes.observations[:4], episodes.action[:3]
    episodes = spoilt(episodes, "observations", slice(7, 15), np.tile(observations, (2, 1)))
    return spoilt(episodes, "action", slice(5, 11), np.tile(action, (2, 1)))


def test_episodes_that_repeat_others_are_worth_a_warning() -> None:
    text = only(content_findings(of_copies()), "warning", "duplicates")
    assert text.startswith("copies of other episodes, step by step: 2 of 4")


@pytest.mark.parametrize(
    ("name", "row"), [("observations", 14), ("observations", 11), ("action", 10)]
)
def test_an_episode_that_differs_in_one_number_is_no_copy(name: str, row: int) -> None:
    text = only(content_findings(spoilt(of_copies(), name, (row, 0), 0.5)), "warning", "duplicates")
    assert text.startswith("copies of other episodes, step by step: 1 of 4")


def test_an_episode_that_goes_on_where_another_ends_is_no_copy() -> None:
    episodes = make_episodes([2, 3], [False, False])  # 3 and 4 observations
    episodes = spoilt(episodes, "observations", slice(3, 6), episodes.observations[:3])
    assert content_findings(spoilt(episodes, "action", slice(2, 4), episodes.action[:2])) == []


# -- refusing


def test_episodes_with_errors_are_refused_with_every_error() -> None:
    spoilt_twice = spoilt(spoilt(CLEAN, "observations", 5, np.nan), "action", (2, 0), 1.5)
    spoilt_twice = spoilt(spoilt_twice, "reward", slice(None), 0)
    findings = content_findings(spoilt_twice)
    assert [finding.level for finding in findings] == ["error", "error", "warning"]
    with pytest.raises(DataError) as caught:
        refuse(spoilt_twice, findings)
    text = str(caught.value)
    assert "made/for-tests-v0" in text
    assert "in episode 1 at step 0" in text
    assert "by up to 0.5 of its half width" in text
    assert "every reward" not in text


def test_episodes_with_warnings_keep_them_and_stay_as_they_are() -> None:
    episodes = spoilt(make_episodes([1, 3], [True] * 2), "reward", slice(None), 0)
    findings = content_findings(episodes)
    kept = refuse(episodes, findings)
    assert [finding.check for finding in kept.findings] == ["lengths", "rewards"]
    assert list(kept.findings) == findings
    assert kept.content_hash == episodes.content_hash


@pytest.mark.parametrize("lengths", [[], [2, 0, 1]])
def test_a_log_without_transitions_or_with_an_episode_of_none_is_refused(
    lengths: list[int],
) -> None:
    steps, count = sum(lengths), len(lengths)
    space = gym.spaces.Box(-1, 1, (2,))
    with pytest.raises(DataError, match="holds no transitions, or an episode without any"):
        Recording(
            observation_space=space,
            action_space=space,
            observations={"": np.zeros((steps + count, 2))},
            actions=np.zeros((steps, 2)),
            rewards=np.zeros(steps),
            terminated=np.zeros(steps, dtype=bool),
            truncated=np.zeros(steps, dtype=bool),
            lengths=np.asarray(lengths, dtype=np.int64),
        )


# -- the environment

PENDULUM = Spaces(3, (-2.0,), (2.0,))


def in_pendulum(lengths: list[int] | None = None, **origin: Any) -> Episodes:
    """Return episodes in Pendulum-v1's spaces that say they were recorded there."""
    lengths = lengths or [4, 3]
    episodes = make_episodes(lengths, [True] * len(lengths))
    said = {"env_id": "Pendulum-v1", "max_episode_steps": 200} | origin
    return replace(
        episodes, spaces=PENDULUM, action=episodes.action[:, :1], origin=DataOrigin(**said)
    )


def test_nothing_is_found_against_the_environment_of_a_clean_dataset() -> None:
    assert environment_findings(in_pendulum(), "Pendulum-v1") == []


def test_an_environment_that_cannot_be_made_is_refused_by_name() -> None:
    with pytest.raises(EnvironmentMismatch, match="'NoSuchTask-v7'"):
        environment_findings(in_pendulum(), "NoSuchTask-v7")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"obs_dim": 4}, "'Pendulum-v1' has obs_dim 3, but dataset 'made/for-tests-v0' has 4"),
        ({"obs_layout": (("a", 1), ("b", 2))}, "has obs_layout [], but"),
        ({"action_low": (-1.0,)}, "has action_low [-2.0], but"),
        ({"action_high": (1.0,)}, "has action_high [2.0], but"),
    ],
)
def test_other_spaces_than_the_environments_are_an_error(
    changed: dict[str, Any], words: str
) -> None:
    episodes = replace(in_pendulum(), spaces=replace(PENDULUM, **changed))
    assert words in only(environment_findings(episodes, "Pendulum-v1"), "error", "spaces")


@pytest.mark.parametrize("limit", [100, None])
def test_another_time_limit_than_the_environments_is_worth_a_warning(limit: int | None) -> None:
    findings = environment_findings(in_pendulum(max_episode_steps=limit), "Pendulum-v1")
    text = only(findings, "warning", "settings")
    assert f"recorded with max_episode_steps {limit}; " in text
    assert "made here with 200" in text


def test_other_keyword_arguments_than_the_environments_are_worth_a_warning() -> None:
    findings = environment_findings(in_pendulum(kwargs={"g": "5.0"}), "Pendulum-v1")
    text = only(findings, "warning", "settings")
    assert "recorded with keyword arguments {'g': '5.0'}; Pendulum-v1 is made here with {}" in text


def test_of_keyword_arguments_those_that_differ_are_shown() -> None:
    made = EnvRef.of("Pendulum-v1", {"g": 5.0})
    recorded = {"render_fps": list(range(100)), "g": 5.0}
    text = only(environment_findings(in_pendulum(kwargs=recorded), made), "warning", "settings")
    assert "recorded with keyword arguments {'render_fps'" in text
    assert "'g'" not in text


def test_the_limit_of_another_environment_is_not_compared() -> None:
    elsewhere = in_pendulum(env_id="Pendulum-v9", max_episode_steps=100)
    assert environment_findings(elsewhere, "Pendulum-v1") == []


# -- versions


@pytest.mark.parametrize(
    "requirement",
    [
        f"numpy=={np.__version__}",
        "numpy",
        "NumPy >= 1.0, < 99",
        "gymnasium[classic-control]>=1",
        "no-such-simulator==1.2; python_version < '3'",
    ],
)
def test_requirements_that_are_met_are_not_worth_a_word(requirement: str) -> None:
    assert environment_findings(in_pendulum(requirements=(requirement,)), "Pendulum-v1") == []


def test_another_version_than_the_recorded_is_worth_a_warning() -> None:
    findings = environment_findings(in_pendulum(requirements=("numpy<1.0",)), "Pendulum-v1")
    text = only(findings, "warning", "versions")
    assert f"made with numpy<1.0, numpy {np.__version__} is installed" in text


def test_a_package_that_is_not_installed_is_worth_a_warning() -> None:
    wanted = ("numpy", "no-such-simulator==1.2", "numpy<1.0")
    findings = environment_findings(in_pendulum(requirements=wanted), "Pendulum-v1")
    assert [finding.level for finding in findings] == ["warning", "warning"]
    texts = of_check(findings, "versions")
    assert texts[0] == "it needs no-such-simulator==1.2, which isn't installed."
    assert "numpy<1.0" in texts[1]


def test_a_line_that_is_no_requirement_is_told_without_a_claim_about_what_is_installed() -> None:
    line = "git+https://github.com/numpy/numpy"
    findings = environment_findings(in_pendulum(requirements=(line,)), "Pendulum-v1")
    text = only(findings, "warning", "versions")
    assert line in text
    assert "isn't installed" not in text


# -- recorded starts


def seeded(
    seeds: tuple[int | None, ...], lengths: list[int], env_id: str = "Pendulum-v1"
) -> tuple[Episodes, list[int]]:
    """Return episodes that begin as Pendulum-v1 does with those seeds, and their first rows."""
    episodes = in_pendulum(lengths, env_id=env_id, seeds=seeds)
    rows = [sum(lengths[:k]) + k for k in range(len(lengths))]
    env = gym.make("Pendulum-v1")
    for row, seed in zip(rows, seeds, strict=True):
        if seed is not None:
            episodes = spoilt(episodes, "observations", row, env.reset(seed=seed)[0])
    env.close()
    return episodes, rows


def test_starts_that_the_recorded_seeds_give_are_not_worth_a_word() -> None:
    episodes, rows = seeded((7, None, 3), [2, 4, 3])
    assert rows == [0, 3, 8]
    assert environment_findings(episodes, "Pendulum-v1") == []
    rounded = spoilt(episodes, "observations", 8, episodes.observations[8] + 1e-6)
    assert environment_findings(rounded, "Pendulum-v1") == []


@pytest.mark.parametrize(("numbers", "count"), [([0], 1), ([2], 1), ([0, 2], 2)])
def test_starts_that_the_recorded_seeds_do_not_give_are_worth_a_warning(
    numbers: list[int], count: int
) -> None:
    episodes, rows = seeded((7, None, 3), [2, 4, 3])
    for number in numbers:
        episodes = spoilt(episodes, "observations", (rows[number], 1), 0.123)
    text = only(environment_findings(episodes, "Pendulum-v1"), "warning", "starts")
    assert text.startswith(f"another first observation here from {count} of 2 recorded start seeds")


def test_seeds_that_were_changed_give_other_starts() -> None:
    episodes, _ = seeded((7, 3), [2, 3])
    swapped = replace(episodes, origin=replace(episodes.origin, seeds=(3, 7)))
    text = only(environment_findings(swapped, "Pendulum-v1"), "warning", "starts")
    assert "from 2 of 2 recorded" in text


def test_the_first_five_recorded_seeds_are_compared() -> None:
    episodes, rows = seeded((None, *range(7)), [2] * 8)
    beyond = spoilt(episodes, "observations", rows[6:], 0.123)
    assert environment_findings(beyond, "Pendulum-v1") == []
    fifth = spoilt(episodes, "observations", rows[5:], 0.123)
    text = only(environment_findings(fifth, "Pendulum-v1"), "warning", "starts")
    assert "from 1 of 5 recorded" in text


def test_the_seeds_of_another_environment_are_not_compared() -> None:
    episodes, rows = seeded((7, 3), [2, 3], env_id="Pendulum-v9")
    altered = spoilt(episodes, "observations", rows, 0.123)
    assert environment_findings(altered, "Pendulum-v1") == []


def test_a_seed_that_the_environment_refuses_is_worth_a_warning() -> None:
    episodes, _ = seeded((7, None), [2, 3])
    episodes = replace(episodes, origin=replace(episodes.origin, seeds=(7, -1)))
    only(environment_findings(episodes, "Pendulum-v1"), "warning", "starts")


@pytest.mark.parametrize(
    ("lengths", "terminated", "found"),
    [
        ([49, 49, 3], [False] * 3, True),
        ([49, 49, 3], [True, False, False], True),
        ([49, 20, 3], [True, False, False], False),  # the longest ended by itself
        ([20, 20, 30], [True, True, False], False),  # most did; the recording stopped in the last
        ([199, 49], [False, False], False),  # a log may lack an episode's last step
    ],
)
def test_episodes_that_are_cut_before_the_environment_cuts_them_are_worth_a_warning(
    lengths: list[int], terminated: list[bool], found: bool
) -> None:
    ends = make_episodes(lengths, terminated)
    episodes = replace(in_pendulum(lengths), terminated=ends.terminated, truncated=ends.truncated)
    findings = environment_findings(episodes, "Pendulum-v1")
    if found:
        text = only(findings, "warning", "lengths")
        assert "the longest after 49 steps" in text
        assert "goes on to 200" in text
    else:
        assert findings == []


def test_episodes_longer_than_the_limit_of_the_environment_asked_about_are_found() -> None:
    """A log of one's own knows no limit; the environment does."""
    episodes = in_pendulum([250, 3], env_id=None, max_episode_steps=None)
    text = only(environment_findings(episodes, "Pendulum-v1"), "warning", "lengths")
    assert "1 of 2 (50.0%)" in text
    assert "200 steps" in text
