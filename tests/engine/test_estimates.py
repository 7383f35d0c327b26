"""What is said of a policy from data alone: numbers by hand, the command, a comparison's column."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.registry import METHODS
from baq_cli.cli.estimates import show_estimate
from baq_cli.data.episodes import Episodes, monte_carlo_returns
from baq_cli.data.minari.read import load_episodes
from baq_cli.engine.checkpoints.restore import load_agent
from baq_cli.engine.estimation.assessment import assess
from baq_cli.engine.estimation.calibration import calibration, held_out_rows, own_critics
from baq_cli.engine.estimation.closeness import closeness, evenly
from baq_cli.engine.estimation.estimate import discount_of, discounted_returns, of_values
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.spaces import Spaces
from baq_cli.nets.streams import SeedStream
from support.builders import tiny_agent, tiny_spec

Baq = Callable[..., tuple[int, str, str]]
Array = np.ndarray[Any, Any]
LOG = "me/short/log-v0"
TINY = ("iql.hidden=[8]", "iql.batch_size=8", "threads=1", "evaluation.episodes=1")
SHARED = [word.replace("iql.", "shared.") for word in TINY]
NEAR = pytest.approx


def episodes(
    lengths: tuple[int, ...] = (2, 3), ended: tuple[bool, ...] = (True, False)
) -> Episodes:
    """Return episodes of two numbers and one action, with rewards 1, 2, 3, …"""
    count = sum(lengths)
    last = np.cumsum(lengths) - 1
    terminated, over = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    terminated[last], over[last] = ended, True
    observations = np.arange(2 * (count + len(lengths)), dtype=np.float32).reshape(-1, 2) / 10
    return Episodes(
        "test/hand-v0",
        Spaces(2, (-1.0,), (1.0,)),
        observations,
        np.linspace(-1, 1, count, dtype=np.float32)[:, None],
        np.arange(1, count + 1, dtype=np.float32),
        terminated,
        over & ~terminated,
        np.asarray(lengths),
    )


def test_the_datas_own_returns_are_discounted_from_each_start_and_go_on_where_they_were_cut() -> (
    None
):
    """1 + γ 2; cut, 3 + γ 4 + γ² 5 + γ³ 4.5/(1 − γ), the mean of the last two rewards for ever."""
    found = discounted_returns(episodes(), 0.5)
    assert found.tolist() == NEAR([2.0, 3 + 2 + 1.25 + 0.125 * 9.0])


def test_an_estimate_is_the_mean_over_seeds_and_starts_beside_the_datas_own() -> None:
    found = of_values(np.array([[1.0, 3.0], [5.0, 7.0]]), 0.5, 10, episodes())
    assert found.value.value == 4.0
    assert [of.value for of in found.seeds] == [2.0, 6.0]
    assert (found.seeds[0].low, found.seeds[0].high) == (1.0, 3.0)  # of two starts: either, or both
    own = [2.0, 7.375]
    assert found.behavior.value == NEAR(np.mean(own))
    assert found.behavior_raw.value == NEAR((1 + 2 + 3 + 4 + 5) / 2)
    assert found.gain.value == NEAR(4.0 - np.mean(own))
    assert (found.gain.low, found.gain.high) == NEAR((5.0 - 7.375, 3.0 - 2.0))


def test_returns_below_one_are_said_with_digits_that_tell_them_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = replace(episodes(), reward=episodes().reward / 1000)
    critics = {"transitions": 3, "episodes": 1, "predicted": 0.0312, "realised": 0.0296}
    found = {
        **{"algo": "iql", "dataset": "me/success-v0", "seeds": [0], "trained_on_it": False},
        "estimate": of_values(np.array([[0.0021, 0.0049]]), 0.5, 10, data).as_dict(),
        "calibration": {"critics": critics | {"correlation": [None]}},
        "closeness": {"distance": [0.1], "log_likelihood": None, "actions": "mode", "spread": 0.2},
    }
    show_estimate(found, None)
    said = capsys.readouterr().out
    assert said.splitlines()[2].split() == ["0", "0.00350", "0.00210", "0.00490", "0.100"]
    assert "me/success-v0: 0.00350 [0.00210, 0.00490] discounted" in said
    assert "0.00469 [0.00200, 0.00738] discounted, 0.0075 [0.0030, 0.0120] as" in said
    assert "predicted 0.0312 of the policy, realised 0.0296" in said


def test_one_start_has_no_interval() -> None:
    found = of_values(np.array([[1.0]]), 0.5, 10, episodes((2,), (True,))).as_dict()
    assert found["value"] == {"value": 1.0, "low": None, "high": None}
    assert "NaN" not in json.dumps(found)


def test_calibration_is_of_held_out_episodes_in_the_units_of_the_rewards() -> None:
    data = episodes((2,) * 40, (True,) * 40)
    rows = np.flatnonzero(data.held_out())
    reward = 10.0 * data.reward.astype(np.float64) - 3.0
    realised = np.where(rows % 2 == 0, reward[rows] + 0.5 * (reward[rows] + 10), reward[rows])

    def predict(obs: Array, action: Array) -> Array:
        assert len(obs) == len(action) == len(rows) == 4
        return np.stack([realised + 2.0, -realised, np.ones(4)])

    found = calibration(predict, data, reward, 0.5)
    assert (found.transitions, found.episodes) == (4, 2)
    assert found.realised == NEAR(realised.mean())
    assert found.bias == NEAR((2.0, -2 * realised.mean(), 1 - realised.mean()))
    assert found.correlation[:2] == NEAR((1.0, -1.0))
    assert found.correlation[2] is None
    assert list(found.predicted_bins) == sorted(found.predicted_bins)
    assert np.mean(found.realised_bins) == NEAR(realised.mean(), rel=0.2)


def test_bins_are_tenths_of_the_predicted_values_with_what_came_of_each() -> None:
    """Over both seeds together: 20 held-out steps twice, in tens of four."""
    data = episodes((1,) * 400, (True,) * 400)
    realised = data.reward[data.held_out()].astype(np.float64)
    predicted = np.stack([-realised, 3 * realised])

    def predict(obs: Array, action: Array) -> Array:
        return predicted

    found = calibration(predict, data, data.reward.astype(np.float64), 0.5)
    pairs = sorted(zip(predicted.ravel().tolist(), [*realised.tolist()] * 2, strict=True))
    tenths = np.array(pairs).reshape(10, 4, 2).mean(1)
    assert found.predicted_bins == NEAR(tuple(tenths[:, 0]))
    assert found.realised_bins == NEAR(tuple(tenths[:, 1]))
    assert found.predicted == NEAR(realised.mean())

    few = episodes((3, 3), (True, True))
    predicted = np.array([[5.0, 4.0, 6.0]])
    kept = calibration(predict, few, few.reward.astype(np.float64), 0.5)
    assert (kept.transitions, kept.predicted_bins) == (3, (4.0, 5.0, 6.0))


def test_of_one_episode_every_step_is_held_against_what_came() -> None:
    def predict(obs: Array, action: Array) -> Array:
        np.testing.assert_array_equal(obs, alone.obs)
        np.testing.assert_array_equal(action, alone.action)
        return np.zeros((1, len(obs)))

    alone = episodes((3,), (True,))
    found = calibration(predict, alone, alone.reward.astype(np.float64), 0.5)
    assert (found.transitions, found.episodes) == (3, 1)
    assert found.realised == NEAR(((1 + 1 + 0.75) + (2 + 1.5) + 3) / 3)
    assert found.correlation == (None,)


def test_of_many_rows_those_that_are_looked_at_lie_evenly_from_first_to_last() -> None:
    assert evenly(5).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, most=3).tolist() == [0, 4, 8]
    assert len(evenly(20_001)) == 20_000


def identity() -> Inputs:
    return Inputs(torch.zeros(2), torch.ones(2), 1.0, 0.0)


UNLIKE = Inputs(torch.tensor([0.4, -0.2]), torch.tensor([2.0, 0.5]), 10.0, -3.0)
"""Of a checkpoint whose observations are normalised, and whose updates have units of their own."""


def test_distance_is_in_shares_of_an_actions_range_and_says_what_acts() -> None:
    """Logged were −1, −½, 0, ½, 1: from a policy that always does 1 they are 1 of 2 on average."""
    agent = tiny_agent("td3_bc", tiny_spec(action_dim=1)).float()
    agent.act = lambda obs, noise: torch.ones(*obs.shape[:2], 1)
    found = closeness(agent, episodes(), identity())
    assert found.distance == NEAR((0.5, 0.5))
    assert found.spread == NEAR((1 + 0.5 + 0 + 0.5 + 1) / 5 / 2)
    assert (found.actions, found.log_likelihood) == ("mode", None)

    def draws(obs: Tensor, noise: SeedStream) -> Tensor:
        return 0 * noise.normal(obs.shape[1], 1) + 1

    agent.act = draws
    assert closeness(agent, episodes(), identity()).actions == "samples"


def test_of_a_chunk_the_action_that_is_done_first_is_held_against_the_log() -> None:
    agent = tiny_agent("qc_fql", tiny_spec(action_dim=1)).float()
    ahead = torch.tensor([0.0] + [1.0] * (agent.chunk - 1))
    agent.act = lambda obs, noise: ahead.expand(*obs.shape[:2], -1)
    assert agent.chunk > 1
    size = (1 + 0.5 + 0 + 0.5 + 1) / 5
    assert closeness(agent, episodes(), identity()).distance == NEAR((size / 2, size / 2))


def test_over_several_action_dimensions_the_root_mean_square_counts() -> None:
    """The log has (x, −x): x misses by 0 and 2 |x|, which is √2 |x|, half of it of a range of 2."""
    one = episodes()
    data = replace(
        one,
        spaces=Spaces(2, (-1.0, -1.0), (1.0, 1.0)),
        action=np.concatenate([one.action, -one.action], axis=1),
    )
    agent = tiny_agent("td3_bc", tiny_spec(action_dim=2)).float()
    done = torch.from_numpy(one.action).expand(2, -1, 2)
    agent.act = lambda obs, noise: done
    found, size = closeness(agent, data, identity()), np.abs(one.action).mean()
    assert found.distance == NEAR((size / 2**0.5,) * 2)
    assert found.spread == NEAR(size / 2)


def test_what_acts_is_held_against_every_transition_that_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part of them at a time: as all at once."""
    agent, data = tiny_agent("iql", tiny_spec(action_dim=1)).float(), episodes()
    whole = closeness(agent, data, UNLIKE)
    monkeypatch.setattr("baq_cli.engine.estimation.closeness.ROWS", 2)
    parts = closeness(agent, data, UNLIKE)
    assert parts.distance == NEAR(whole.distance)
    assert parts.log_likelihood == NEAR(whole.log_likelihood)
    assert parts.transitions == whole.transitions == 5


def test_the_likelihood_is_of_the_policy_that_acts_and_of_observations_as_it_sees_them() -> None:
    agent, data = tiny_agent("iql", tiny_spec(action_dim=1)).float(), episodes()
    found = closeness(agent, data, UNLIKE)
    seen = (data.obs - [0.4, -0.2]) / [2.0, 0.5]
    rows = [torch.tensor(part).float().expand(2, -1, -1) for part in (seen, data.action)]
    with torch.no_grad():
        expected = agent.policy.log_prob(*rows).mean(1).tolist()
    assert list(found.log_likelihood or ()) == NEAR(expected)


def judges_single_actions(algo: str) -> bool:
    return "critics" not in METHODS[algo].Config.unused and tiny_agent(algo).chunk == 1


@pytest.mark.parametrize("algo", filter(judges_single_actions, METHODS))
def test_a_methods_own_critics_are_the_mean_of_its_ensemble(algo: str) -> None:
    agent, data = tiny_agent(algo, tiny_spec(action_dim=1)).float(), episodes()
    predict = own_critics(agent, UNLIKE)
    assert predict is not None
    seen = (data.obs - [0.4, -0.2]) / [2.0, 0.5]
    rows = [torch.tensor(part).float().expand(2, -1, -1) for part in (seen, data.action)]
    with torch.no_grad():
        expected = agent.critic(*rows).mean(1).numpy()
    np.testing.assert_allclose(predict(data.obs, data.action), expected, rtol=1e-5)


def test_methods_without_critics_of_single_actions_have_none_to_ask() -> None:
    assert own_critics(tiny_agent("bc"), identity()) is None
    assert own_critics(tiny_agent("qc_fql"), identity()) is None


def test_the_discount_is_that_of_the_checkpoints_phase() -> None:
    agent = tiny_agent("iql", discount=0.8)
    assert discount_of(agent) == 0.8
    plan = replace(agent.offline_plan(), discount=0.7)
    stand_in = SimpleNamespace(phase="offline", offline_plan=lambda: plan, config=agent.config)
    assert discount_of(stand_in) == 0.7  # type: ignore[arg-type]


# -- the commands


@pytest.fixture
def run(baq_here: Baq, short_env: str, tmp_path: Path) -> Path:
    """A pre-trained IQL on a log of an environment that is gone when the test begins."""
    import gymnasium as gym

    words = ("--env", short_env, "--behavior", "random", "--env-steps", "60")
    assert baq_here("data", "collect", LOG, *words)[0] == 0
    out = tmp_path / "run"
    done = baq_here(
        *("pretrain", "--algo", "iql", "--dataset", LOG, "--gradient-steps", "4", "--seeds", "2"),
        *("--out", out, *TINY),
    )
    assert done[0] == 0, done[2]
    gym.registry.pop(short_env)
    gym.register(short_env, "gone:Gone")
    return out


@pytest.mark.usefixtures("figures")
def test_a_policy_is_estimated_without_its_environment(
    run: Path, baq_here: Baq, tmp_path: Path
) -> None:
    words = ("ope", "--checkpoint", run, "--dataset", LOG, "--steps", "3")
    status, out, _ = baq_here(*words, "--json")
    found = json.loads(out)
    assert (status, found["is"], found["trained_on_it"]) == (0, "estimate", True)
    assert found["estimate"]["episodes"] == 20
    assert len(found["estimate"]["seeds"]) == len(found["closeness"]["distance"]) == 2
    assert found["calibration"]["critics"]["episodes"] == 1

    status, out, _ = baq_here(*words, "--out", tmp_path / "seen")
    assert status == 0
    assert "estimate, not measured" in out
    assert "start states alone" in out
    names = sorted(path.name for path in (tmp_path / "seen").iterdir())
    assert names == ["estimate.json", "estimate.png", "estimate.svg"]
    assert "the method's critics" in (tmp_path / "seen" / "estimate.svg").read_text()

    status, _, said = baq_here(*words, "--out", tmp_path / "seen" / "estimate.json")
    assert (status, "make the folder" in said, "fitting" in said) == (3, True, False)


def test_critics_are_held_against_returns_in_the_units_that_each_learned(run: Path) -> None:
    """A method's in those of its updates, here scaled by the returns; fitted ones in raw units."""
    data = load_episodes(LOG)
    agent, inputs, _ = load_agent(run)
    found, rows, discount = assess(run, data, steps=3), held_out_rows(data), discount_of(agent)
    assert inputs.reward_scale != 1.0
    raw, own = (
        monte_carlo_returns(data, reward, discount)[rows].mean()
        for reward in (data.reward.astype(np.float64), inputs.reward(data.reward))
    )
    assert found.fitted is not None
    assert found.critics is not None
    assert (found.fitted.realised, found.critics.realised) == NEAR((raw, own), rel=1e-5)
    assert found.seen
    assert not assess(run, replace(data, reward=data.reward + 1), steps=1).seen


@pytest.mark.usefixtures("figures")
def test_a_policy_that_decides_ahead_has_an_estimate_and_no_calibration(
    short_env: str, baq_here: Baq, tmp_path: Path
) -> None:
    """Its chunks are valued whole; no critics judge the single actions of a log."""
    words = ("--env", short_env, "--behavior", "random", "--env-steps", "60")
    assert baq_here("data", "collect", LOG, *words)[0] == 0
    small = [word.replace("iql.", "qc_fql.") for word in (*TINY, "iql.chunk=2")]
    words = ("--algo", "qc_fql", "--dataset", LOG, "--gradient-steps", "2", "--seeds", "2")
    done = baq_here("pretrain", *words, "--out", tmp_path / "run", *small)
    assert done[0] == 0, done[2]
    words = ("--checkpoint", tmp_path / "run", "--dataset", LOG, "--steps", "2", "--json")
    status, out, said = baq_here("ope", *words, "--out", tmp_path / "seen")
    assert status == 0, said
    found = json.loads(out)
    assert found["calibration"] == {"fitted": None, "critics": None}
    assert len(found["estimate"]["seeds"]) == 2
    assert found["closeness"]["actions"] == "samples"


def test_a_log_of_other_spaces_is_refused(run: Path, baq_here: Baq) -> None:
    words = ("--env", "MountainCarContinuous-v0", "--behavior", "random", "--env-steps", "20")
    assert baq_here("data", "collect", "me/other/log-v0", *words)[0] == 0
    status, _, said = baq_here("ope", "--checkpoint", run, "--dataset", "me/other/log-v0")
    assert status == 4
    assert "dataset 'me/other/log-v0' has obs_dim 2, but the checkpoint has 3" in said


def test_a_comparison_shows_estimates_where_they_are_asked_for(
    baq_here: Baq, short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of finished cells too, once, and named for what they are; damage is told."""
    monkeypatch.setattr("baq_cli.launch.cell_estimates.STEPS", 3)
    words = ("--env", short_env, "--behavior", "random", "--env-steps", "60")
    assert baq_here("data", "collect", LOG, *words)[0] == 0
    words = (
        *("compare", "--algos", "td3_bc,sac", "--dataset", LOG, "--seeds", "2", "--workers", "1"),
        *("--gradient-steps", "4", "--env-steps", "6", "--out", tmp_path, *SHARED, "--json"),
    )
    plain = json.loads(baq_here(*words)[1])
    assert "estimate" not in plain["statistics"]
    assert not [note for note in plain["notes"] if "estimate" in note]

    found = json.loads(baq_here(*words, "--ope")[1])
    cloned, sac = (found["tasks"][0]["methods"][name]["statistics"] for name in ("td3_bc", "sac"))
    file = tmp_path / "cells" / LOG / "td3_bc" / "offline" / "estimate.json"
    kept = json.loads(file.read_text())["estimate"]
    assert cloned["estimate"]["per_seed"] == NEAR([of["value"] for of in kept["seeds"]], rel=1e-4)
    assert (sac["estimate"]["count"], sac["estimate"]["mean"]) == (0, None)
    assert {k: v for k, v in cloned.items() if k != "estimate"} == (
        plain["tasks"][0]["methods"]["td3_bc"]["statistics"]
    )
    assert any("estimates from the dataset" in note for note in found["notes"])
    assert "No measurement" in found["statistics"]["estimate"]["definition"]

    before = file.stat().st_mtime_ns
    status, shown, _ = baq_here(*words[:-1], "--ope")
    assert (status, file.stat().st_mtime_ns) == (0, before)
    assert "estimate (fitted Q)" in shown
    for report in ("report.md", "report.html", "results.csv"):
        assert "estimate" in (tmp_path / report).read_text()
    file.write_text(file.read_text().replace('"value"', '"other"', 1))
    failures = json.loads(baq_here("report", tmp_path, "--json")[1])["failures"]
    assert [("estimate.json is damaged" in failure["error"]) for failure in failures] == [True]
    file.write_text("{")  # one that doesn't say of which policies it is is made anew
    mended = json.loads(baq_here(*words, "--ope")[1])
    assert mended["tasks"][0]["methods"]["td3_bc"]["statistics"]["estimate"]["count"] == 2
    assert json.loads(file.read_text())["checkpoint_gradient_steps"] == 4
