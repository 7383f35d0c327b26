"""RLPD: what its update computes, and a run from scratch that draws from a dataset."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.read import load_episodes
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.experience.inputs import RETURNS_RANGE, Inputs
from baq_cli.engine.updates.learner import Learner
from baq_cli.launch.cell_runs import beside, run_cell
from baq_cli.launch.cells import Cell
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.streams import SeedStream
from support.advice import Terminal
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    q_values,
    small_agent,
    squashed_sample,
    temperature,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID, own_folders
from support.runs import execute, recipe_of, states
from support.small_data import write_steady

LOG = "me/short/log-v0"


def evaluated(active: frozenset[str] = ALL_GROUPS, **settings: Any) -> tuple[Any, Any, Any, Any]:
    """Return an agent, its terms of a tiny batch, the noise that it drew, and the batch."""
    agent, batch, noise = tiny_agent("rlpd", phase="online", **settings), tiny_batch(), KnownNoise()
    return agent, terms(agent.online_loss(batch, noise, active)), noise, arrays(batch)


def least(q: Array, drawn: list[list[int]]) -> Array:
    """Return the least value `[S, B]` of the critics that each seed drew."""
    return np.stack([q[s, pair].min(0) for s, pair in enumerate(drawn)])


# -- the update


@pytest.mark.parametrize(("reduction", "count"), [("min_of_two", 2), ("one", 1)])
@pytest.mark.parametrize("entropy_backup", [True, False])
def test_critics_are_fitted_to_the_least_of_those_that_are_drawn(
    reduction: str, count: int, entropy_backup: bool
) -> None:
    """A seed's draws, sorted, say which critics: none can be there twice."""
    settings = {"critics": 5, "target_reduction": reduction, "entropy_backup": entropy_backup}
    agent, found, noise, b = evaluated(**settings)
    drawn = [np.argsort(row)[:count].tolist() for row in noise.uniforms[0]]
    assert noise.uniforms[0].shape == (2, 5), "once for each seed, not for each row"
    action, log_prob = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    value = least(q_values(agent.critic_target, b.next_obs, action), drawn)
    if entropy_backup:
        value = value - temperature(agent)[:, None] * log_prob
    y = b.reward + GAMMA * b.bootstrap * value
    q = q_values(agent.critic, b.obs, b.action)
    expected = (b.weight[:, None] * (q - y[:, None]) ** 2).mean((1, 2))  # a mean over critics too
    assert_allclose(found["critic"], expected, **EXACT)


def test_two_critics_are_drawn_without_replacement_and_with_it_where_that_is_asked() -> None:
    """Of three critics valued 0, 1, 2 the least of a pair is 0 in 2 of 3, of two draws in 5 of 9.

    Only a critic that is drawn twice gives 2: in one of nine.
    """
    q, stream = tensor([[[0.0], [1.0], [2.0]]]).float(), SeedStream((0,), "pairs")
    for how, shares in {
        "one": (1 / 3, 1 / 3, 1 / 3),
        "min_of_two": (2 / 3, 1 / 3, 0),
        "min_of_two_draws": (5 / 9, 3 / 9, 1 / 9),
    }.items():
        found = [float(reduce_q(q, how, stream)) for _ in range(3_000)]  # type: ignore[arg-type]
        assert_allclose([found.count(k) / 3_000 for k in range(3)], shares, atol=0.03, err_msg=how)
    assert found.count(2.0) > 0


def test_the_actor_follows_the_mean_of_all_critics_and_half_the_usual_entropy() -> None:
    agent, found, noise, b = evaluated(critics=4)
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[-1])
    q = q_values(agent.critic, b.obs, action).mean(1)
    assert_allclose(found["policy"], (temperature(agent)[:, None] * log_prob - q).mean(1), **EXACT)
    log_alpha = agent.log_alpha.detach().numpy()
    assert_allclose(found["temperature"], -log_alpha * (log_prob - 2 / 2).mean(1), **EXACT)
    assert tiny_agent("rlpd", target_entropy=-1.5).target_entropy == -1.5


def test_the_policy_steps_once_in_utd_critic_steps_at_the_last_of_them() -> None:
    learner = Learner(small_agent("rlpd", (0, 1), phase="online", utd=3))
    steps = []
    for _ in range(6):
        steps.append(learner.active())
        learner.count()
    critic = frozenset({"critic"})
    assert steps == [critic, critic, critic | {"policy", "temperature"}] * 2
    _, found, noise, _ = evaluated(critic)
    assert list(found) == ["critic"]
    assert len(noise.normals) == 1, "no action is drawn for a policy that doesn't step"


def test_half_of_every_batch_is_the_datasets_and_the_authors_numbers_are_the_defaults() -> None:
    plan = small_agent("rlpd", (0,), phase="online").online_plan()
    assert plan.draws == (Draw(("online",), 0.5), Draw(("offline",), 0.5))
    assert (plan.utd, plan.warmup_env_steps) == (20, 5_000)
    alone = small_agent("rlpd", (0,), phase="online", online_share=1.0).online_plan()
    assert not alone.uses_offline
    union = small_agent("rlpd", (0,), phase="online", online_share=None).online_plan()
    assert union.uses_offline
    assert not union.needs_offline


# -- runs


@pytest.fixture(scope="module")
def steady() -> Any:
    """A dataset in reach, in numbers."""
    with own_folders():
        write_steady(ID)
        yield load_episodes(ID)


def recipe(**settings: Any) -> Any:
    method = {"critics": 3, "utd": 2, "warmup_env_steps": 4} | settings
    return recipe_of("rlpd", method, dataset=ID, env="Steady-v0", env_steps=8)


def test_a_run_from_scratch_takes_its_units_from_the_dataset(
    steady: Episodes, tmp_path: Path
) -> None:
    execute(recipe(normalize_observations=True, reward_scale="returns"), tmp_path)
    saved = load(tmp_path)
    inputs = Inputs.from_tensors(saved.agent)
    obs = steady.obs.astype(np.float64)
    assert_allclose(inputs.obs_mean, obs.mean(0), rtol=1e-5, atol=1e-6)
    assert_allclose(inputs.obs_std, obs.std(0) + 1e-3, rtol=1e-5)
    assert inputs.reward_scale == pytest.approx(RETURNS_RANGE / np.ptp(steady.returns))
    assert saved.document["dataset"]["sha256"] == steady.content_hash
    low, high = saved.document["return_range"]
    assert (low, high) == (steady.returns.min(), steady.returns.max())
    assert saved.document["gradient_steps"] == 2 * (8 - 4)


def test_what_it_learns_depends_on_the_dataset(steady: Episodes, tmp_path: Path) -> None:
    """The same run draws the same online rows alone; with the dataset it has other critics."""
    for name, share in (("half", 0.5), ("alone", 1.0)):
        execute(recipe(online_share=share), tmp_path / name)
    half, alone = (load(tmp_path / name).agent for name in ("half", "alone"))
    assert not torch.equal(half["critic.net.layers.0.weight"], alone["critic.net.layers.0.weight"])


def test_a_comparison_gives_it_the_dataset_and_sac_none(steady: Episodes, tmp_path: Path) -> None:
    for algo, dataset in (("rlpd", ID), ("sac", None)):
        method = {"critics": 3, "utd": 2, "warmup_env_steps": 4}
        plain = recipe_of(algo, method, dataset=ID, env="Steady-v0", env_steps=8)
        cell = Cell(ID, algo, tmp_path / algo, plain.as_dict(), "baq")
        run_cell(beside(cell, steady), lambda event: None)
        document = load(tmp_path / algo / "online").document
        assert (document["dataset"] or {}).get("id") == dataset
        assert not (tmp_path / algo / "offline").exists()
        before = states(tmp_path / algo / "online")
        run_cell(beside(cell, steady), lambda event: None)
        assert states(tmp_path / algo / "online") == before, "it is finished"


def test_a_command_without_a_dataset_is_told_which_one_is_meant(
    terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    words = ("--env", short_env, "--behavior", "random", "--env-steps", "30")
    terminal.done("data", "collect", LOG, *words)
    small = ["threads=1", "evaluation.episodes=1", "evaluation.background=false"]
    small += ["rlpd.hidden=[8,8]", "rlpd.batch_size=8", "rlpd.utd=2", "rlpd.warmup_env_steps=3"]
    rest = ["--env-steps", "6", "--out", str(tmp_path / "run"), *small]
    said = terminal.told("finetune", "--env", short_env, "--algo", "rlpd", *rest)
    assert f"'baq finetune --env {short_env} --dataset ID --algo rlpd'" in said
    terminal.done("finetune", "--env", short_env, "--dataset", LOG, "--algo", "rlpd", *rest)
    pretraining = ["--dataset", LOG, "--out", str(tmp_path / "x"), *small]
    said = terminal.told("pretrain", "--algo", "rlpd", *pretraining)
    assert "'baq finetune --env ID --dataset ID --algo rlpd'" in said
    shown = json.loads(terminal.done("methods", "show", "rlpd", "--json"))
    assert (shown["phases"], shown["online_draws_from_data"]) == (["online"], True)
    card = terminal.done("methods", "show", "rlpd")
    assert re.search(r"^dataset +online too$", card, re.MULTILINE)
    assert not re.search(r"^dataset ", terminal.done("methods", "show", "sac"), re.MULTILINE)
