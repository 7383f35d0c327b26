"""WSRL: what its update computes in either phase, what the hand-over ends, and what goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.updates.learner import Learner
from support.advice import Terminal
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    q_many,
    q_values,
    small_agent,
    squashed_sample,
    td,
    temperature,
    terms,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID
from support.runs import execute, last_tensors, recipe_of

pytestmark = pytest.mark.usefixtures("steady_dataset")

LOG = "me/short/log-v0"
RETURNS = [[0.4, -0.3, 0.9], [0.1, 0.8, -0.6]]
OF_CAL_QL = {"calibrated": True, "conservative_online": True, "online_max_target_backup": True}
OF_CAL_QL |= {"online_share": 0.5, "warmup_env_steps": 0, "utd": 1}
"""The settings that leave of WSRL what Cal-QL is."""
CRITICS = {"critics": 4, "layer_norm": True, "policy_layer_norm": True}
CRITICS |= {"target_reduction": "min_of_two_draws"}


def evaluated(
    algo: str, phase: Any, active: frozenset[str] = ALL_GROUPS, rows: int = 3, **settings: Any
) -> tuple[Any, Any, Any, Any]:
    """Return an agent, its terms of a tiny batch, the noise that it drew, and the batch."""
    columns = {"mc_return": RETURNS} if rows == 3 else {"mc_return": np.zeros((2, rows))}
    agent, batch = tiny_agent(algo, phase=phase, **settings), tiny_batch(rows=rows, **columns)
    noise, loss = KnownNoise(), agent.loss if phase == "offline" else agent.online_loss
    return agent, terms(loss(batch, noise, active)), noise, arrays(batch)


def least_drawn(q: Array, uniforms: Array) -> Array:
    """Return the least value `[S, …]` of the critics on which two uniform numbers a seed fall."""
    drawn = np.floor(uniforms * q.shape[1]).astype(int)
    return np.stack([np.minimum(q[s, i], q[s, j]) for s, (i, j) in enumerate(drawn)])


# -- online


def test_online_critics_are_fitted_to_the_least_of_two_draws_and_to_nothing_else() -> None:
    agent, found, noise, b = evaluated("wsrl", "online", critics=5, utd=1)
    assert noise.uniforms[0].shape == (2, 2), "two draws a seed, with replacement"
    assert len(noise.uniforms) == 1, "no action is penalised"
    action, _ = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    value = least_drawn(q_values(agent.critic_target, b.next_obs, action), noise.uniforms[0])
    y = b.reward + GAMMA * b.bootstrap * value  # neither entropy nor a maximum over actions
    assert_allclose(
        found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight), **EXACT
    )


def test_the_targets_maximum_over_actions_stays_online_where_that_is_asked() -> None:
    settings = {"critics": 5, "utd": 1, "cql_actions": 4, "online_max_target_backup": True}
    agent, found, noise, b = evaluated("wsrl", "online", **settings)
    actions, _ = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    q = least_drawn(q_many(agent.critic_target, b.next_obs, actions), noise.uniforms[0])
    y = b.reward + GAMMA * b.bootstrap * q.max(-1)
    assert_allclose(
        found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight), **EXACT
    )


def test_the_actor_follows_the_least_of_all_critics_on_as_many_batches_as_critic_steps() -> None:
    """Of eight rows and a `utd` of 4 the critics see two, the policy and the temperature all."""
    agent, found, noise, b = evaluated("wsrl", "online", rows=8, critics=3, utd=4)
    action, _ = squashed_sample(agent.policy, b.next_obs[:, :2], noise.normals[0])
    q = q_values(agent.critic_target, b.next_obs[:, :2], action)
    y = (b.reward + 0)[:, :2] + GAMMA * b.bootstrap[:, :2] * least_drawn(q, noise.uniforms[0])
    q = q_values(agent.critic, b.obs, b.action)[..., :2]
    assert_allclose(found["critic"], td(q, y, b.weight[:, :2]), **EXACT)
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[1])
    q = q_values(agent.critic, b.obs, action).min(1)
    assert log_prob.shape == (2, 8)
    assert_allclose(found["policy"], (temperature(agent)[:, None] * log_prob - q).mean(1), **EXACT)
    log_alpha = agent.log_alpha.detach().numpy()
    assert_allclose(found["temperature"], -log_alpha * (log_prob - 2).mean(1), **EXACT)


def test_batches_hold_the_critics_rows_and_those_of_the_policys_other_batches() -> None:
    agent: Any = small_agent("wsrl", (0,), phase="online")
    plan = agent.online_plan()
    assert plan.draws == (Draw(("online",), 1.0), Draw(("online",), 3.0))
    assert (plan.utd, plan.warmup_env_steps, plan.uses_offline) == (4, 5_000, False)
    mixed: Any = small_agent("wsrl", (0,), phase="online", online_share=0.25, utd=3)
    shares = [(draw.stores[0], draw.share) for draw in mixed.online_plan().draws]
    assert shares == [("online", 0.25), ("offline", 0.75), ("online", 0.5), ("offline", 1.5)]
    learner = Learner(small_agent("wsrl", (0,), phase="online", utd=3))
    steps = []
    for _ in range(6):
        steps.append("policy" in learner.active())
        learner.count()
    assert steps == [False, False, True] * 2


# -- before the hand-over, and with it left out


@pytest.mark.parametrize(("calibrated", "algo"), [(True, "cal_ql"), (False, "cql")])
def test_pre_training_is_cal_ql_or_cql_of_the_same_critics(calibrated: bool, algo: str) -> None:
    same = CRITICS | {"cql_weight": 5.0, "max_target_backup": True, "cql_actions": 3}
    _, found, *_ = evaluated("wsrl", "offline", calibrated=calibrated, **same)
    _, expected, *_ = evaluated(algo, "offline", **same)
    assert found.keys() == expected.keys()
    for name, term in expected.items():
        assert_allclose(found[name], term, rtol=0, err_msg=name)


def recipe(algo: str, **settings: Any) -> Any:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": 10, "every_env_steps": 4}
    method = CRITICS | {"cql_actions": 2} | settings
    return recipe_of(
        algo, method, dataset=ID, env="Steady-v0", gradient_steps=10, env_steps=12,
        evaluation=watched,
    )  # fmt: skip


def test_without_warm_up_with_the_dataset_and_the_penalty_it_is_cal_ql_to_the_bit(
    tmp_path: Path,
) -> None:
    for algo, settings in (("wsrl", OF_CAL_QL), ("cal_ql", {})):
        offline, online = tmp_path / f"{algo}-offline", tmp_path / f"{algo}-online"
        execute(recipe(algo, **settings), offline)
        execute(recipe(algo, **settings), online, source=offline)
    for phase in ("offline", "online"):
        found, expected = (last_tensors(tmp_path / f"{a}-{phase}") for a in ("wsrl", "cal_ql"))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name].nan_to_num(), value.nan_to_num()), name


def test_the_hand_over_leaves_the_data_and_keeps_temperature_and_optimisers(
    tmp_path: Path,
) -> None:
    offline, notes = tmp_path / "offline", list[str]()
    settings = {"utd": 2, "warmup_env_steps": 8, "cql_target_gap": 0.5}
    execute(recipe("wsrl", **settings), offline)
    execute(recipe("wsrl", **settings), tmp_path / "online", source=offline, notes=notes)
    assert not [note for note in notes if "fresh" in note]
    before, after = (load(tmp_path / name) for name in ("offline", "online"))
    assert before.document["gradient_steps"] == 10
    assert after.document["gradient_steps"] == 10 + 2 * (12 - 8)
    warm = tmp_path / "online" / "checkpoints" / "online-8"
    still = load(warm)
    for name, value in before.agent.items():
        assert torch.equal(still.agent[name], value), f"{name} waits for the end of the warm-up"
    assert still.training["optimizer.critic.exp_avg"].abs().sum() > 0
    for name in ("critic", "policy", "temperature"):
        key = f"optimizer.{name}.exp_avg"
        assert torch.equal(still.training[key], before.training[key]), name
    assert not torch.equal(after.agent["log_alpha"], before.agent["log_alpha"])
    assert torch.equal(after.agent["log_dual"], before.agent["log_dual"]), "its penalty is gone"
    assert still.kept()["offline"] == []


@pytest.mark.parametrize("algo", ["cal_ql", "cql"])
def test_checkpoints_of_other_conservative_methods_are_continued_with_their_critics(
    algo: str, terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    words = ("--env", short_env, "--behavior", "random", "--env-steps", "30")
    terminal.done("data", "collect", LOG, *words)
    small = ["threads=1", "evaluation.episodes=1", "evaluation.background=false"]
    nets = [f"{algo}.hidden=[8,8]", f"{algo}.batch_size=8", f"{algo}.critics=3"]
    nets += [f"{algo}.layer_norm=true", f"{algo}.cql_actions=2"]
    run = ["--dataset", LOG, "--gradient-steps", "4", "--out", str(tmp_path / "run"), *small]
    terminal.done("pretrain", "--algo", algo, *run, *nets)
    words = ("finetune", "--checkpoint", str(tmp_path / "run"), "--algo", "wsrl")
    rest = ["--env-steps", "6", *small, "wsrl.warmup_env_steps=3", "wsrl.utd=2"]
    said = terminal.done(*words, "--out", str(tmp_path / "on"), *rest)
    taken = "taken from the checkpoint: critic, critic_target, log_alpha, policy; fresh: none"
    assert taken in said
    section = load(tmp_path / "on").document["recipe"]["wsrl"]
    assert (section["critics"], section["layer_norm"], section["policy_layer_norm"]) == (
        *(3, True, False),
    )
    told = terminal.told(*words, "--out", str(tmp_path / "x"), *rest, "wsrl.policy_layer_norm=true")
    assert "or set wsrl.policy_layer_norm=false" in told
