"""Bugs that others of this kind have shipped, each held off by a test."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from baq_cli.agents.interface import Batch
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.engine.updates.learner import Learner
from baq_cli.envs.pool import EnvPool
from baq_cli.nets.policies import TanhGaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.units import Phase
from support.builders import tiny_agent, tiny_batch


def test_a_cosine_rate_falls_offline_and_is_constant_online() -> None:
    def rates(phase: Phase, steps: int) -> list[float]:
        agent = tiny_agent("iql", phase=phase, critics=2).float()
        learner = Learner(agent)
        learner.cosine_steps = 4 if phase == "offline" else None
        batch = Batch.from_tensors({n: t.float() for n, t in tiny_batch().tensors().items()}, {})
        seen = []
        for _ in range(steps):
            seen.append(learner.learning_rates()["policy"] / 3e-4)
            learner.update(batch)
        return seen

    expected = [1.0, 0.5 + 0.5 * np.cos(np.pi / 4), 0.5, 0.5 + 0.5 * np.cos(3 * np.pi / 4)]
    assert rates("offline", 6) == pytest.approx([*expected, 0.0, 0.0])
    assert rates("online", 6) == pytest.approx([1.0] * 6)


def test_evaluations_never_share_start_states(
    short_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    reset = EnvPool.reset

    def noted(pool: EnvPool, given: Any, which: Any = None) -> Any:
        seeds.extend(np.array(given)[slice(None) if which is None else which].tolist())
        return reset(pool, given, which)

    monkeypatch.setattr(EnvPool, "reset", noted)
    with closing(Evaluator(short_env, (0, 1), episodes=3)) as evaluator:
        for number in ("offline/0", "offline/1", "online/0"):
            evaluator.play(lambda obs, episode: np.zeros((len(obs), 1), np.float32), number)
    assert len(seeds) == len(set(seeds)) == 18


def test_the_observation_after_a_last_step_is_the_true_one() -> None:
    pool = EnvPool("Pendulum-v1", 2)
    alone = gym.make("Pendulum-v1")
    pool.reset([3, 4])
    alone.reset(seed=3)
    action = np.full((2, 1), 0.5, dtype=np.float32)
    for _ in range(200):
        obs, _, terminated, truncated = pool.step(action)
        true_obs, *_ = alone.step(np.array([1.0], dtype=np.float32))  # 0.5 of the bound 2
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(obs[0], true_obs)
    fresh = pool.reset([5, 6], np.array([True, False]))
    np.testing.assert_array_equal(fresh[1], obs[1])
    np.testing.assert_array_equal(fresh[0], alone.reset(seed=5)[0])
    pool.close()


def test_logged_actions_on_the_bounds_have_a_finite_likelihood() -> None:
    policy = TanhGaussianPolicy(SeedStream((0,), "init"), 2, 1, (4,))
    obs = torch.zeros(1, 3, 2)
    action = torch.tensor([[[-1.0], [1.0], [0.0]]])
    log_prob = policy.log_prob(obs, action)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(bool(p.grad.isfinite().all()) for p in policy.parameters())


def test_a_likelihood_integrates_to_one() -> None:
    policy = TanhGaussianPolicy(SeedStream((0,), "init"), 2, 1, (4,))
    grid = torch.linspace(-1 + 1e-4, 1 - 1e-4, 20_001)
    density = policy.log_prob(torch.zeros(1, len(grid), 2), grid.view(1, -1, 1)).exp()
    assert float(torch.trapezoid(density[0], grid)) == pytest.approx(1.0, abs=1e-2)


def test_making_a_simulator_says_nothing_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo 4 warns of each of Gymnasium's models, on stderr and in a file where it runs."""
    monkeypatch.chdir(tmp_path)
    EnvPool("HalfCheetah-v5", 2).close()
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
