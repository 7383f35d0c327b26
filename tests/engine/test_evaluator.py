"""What an evaluation returns, by hand: of environments that say everything of their start seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.engine.evaluation.evaluator import Evaluator, NotFinite, env_seed
from baq_cli.envs.ref import EnvRef

Array = np.ndarray[Any, Any]
ENV, NUMBER = "Telling-v0", "offline/3"
LENGTHS = 7


class Telling(gym.Env[Array, Array]):
    """Episodes of 1 to 7 steps; the t-th reward is t and what the start seed adds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, odd: str = ""):
        self.odd = odd

    def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:
        super().reset(**options)
        self.start, self.time = options["seed"], 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time == length_of(self.start)
        reward = np.nan if over and self.odd == "reward" else reward_of(self.start, self.time)
        other = np.nan if over and self.odd == "observation" else 0.0
        return np.array([self.time, other], np.float32), reward, over, False, {}


def length_of(start: int) -> int:
    return 1 + start % LENGTHS


def reward_of(start: int, time: int) -> float:
    return float(start % 13 + time)


def by_hand(seeds: tuple[int, ...], episodes: int, limit: int = LENGTHS) -> tuple[Array, Array]:
    starts = [[env_seed(seed, "eval", NUMBER, e) for e in range(episodes)] for seed in seeds]
    lengths = [[min(length_of(start), limit) for start in row] for row in starts]
    returns = [
        [
            sum(reward_of(start, t + 1) for t in range(count))
            for start, count in zip(*rows, strict=True)
        ]
        for rows in zip(starts, lengths, strict=True)
    ]
    return np.array(returns), np.array(lengths)


def idle(obs: Array, _: Array) -> Array:
    return np.zeros((len(obs), 1), np.float32)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register(ENV, Telling)
    yield
    gym.registry.pop(ENV)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize(
    ("seeds", "episodes", "width"), [((0, 1, 2), 7, 10), ((5,), 13, 4), ((3, 1), 1, 10)]
)
def test_every_seed_has_its_episodes_whole_and_no_others(
    seeds: tuple[int, ...], episodes: int, width: int, limit: int | None
) -> None:
    """Episodes that width doesn't divide, some of one step; by one process, or in shares."""
    env, expected = EnvRef(ENV, (), limit), by_hand(seeds, episodes, limit or LENGTHS)
    assert 1 in expected[1] or episodes == 1
    for processes in (1, 3):
        found = np.zeros((2, len(seeds), episodes))
        for i in range(processes):
            share = (i, processes)
            with closing(Evaluator(env, seeds, episodes, width, share=share)) as evaluator:
                for _ in range(2):  # the same again
                    played = evaluator.play(idle, NUMBER)
                found += np.stack(played)
        np.testing.assert_array_equal(found, np.stack(expected))


@pytest.mark.parametrize("odd", ["reward", "observation"])
def test_a_last_number_that_is_none_is_an_error_with_its_seeds_and_step(odd: str) -> None:
    """One number of an observation is enough; other seeds are still running, and aren't named."""
    seeds = (0, 1, 2, 3)
    lengths = by_hand(seeds, 2)[1]
    first = int(lengths.min())
    named = [seeds[i] for i in np.flatnonzero((lengths == first).any(1))]
    assert len(named) < len(seeds)
    said = re.escape(f"{odd} is NaN or infinite in an evaluation in '{ENV}', at its step {first} ")
    with (
        closing(Evaluator(EnvRef.of(ENV, {"odd": odd}), seeds, 2)) as evaluator,
        pytest.raises(NotFinite, match=said + re.escape(f"(seeds {named})")),
    ):
        evaluator.play(idle, NUMBER)
