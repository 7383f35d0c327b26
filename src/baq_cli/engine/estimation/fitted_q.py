"""Fitted Q evaluation: the values of a fixed policy, learned from a dataset alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from baq_cli.agents.base import Agent, make_critics
from baq_cli.agents.interface import Batch, Group, Losses, Spec, Target
from baq_cli.agents.plans import Plan
from baq_cli.data.episodes import Episodes, monte_carlo_returns
from baq_cli.engine.evaluation.acting import Decide
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.errors import DataError, NonFiniteError
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig

Array = npt.NDArray[Any]
ROWS = 4096
"""States that are valued at a time."""


class FittedQConfig(AgentConfig):
    """The networks and updates of fitted Q evaluation. No hidden layer: a linear critic."""

    hidden: tuple[PositiveInt, ...] = Field((256, 256), description="hidden layer widths")
    layer_norm: bool = Field(True, description="LayerNorm before each activation")
    learning_rate: float = Field(1e-3, gt=0, description="falls to zero along a cosine")
    critics: int = Field(1, ge=1, description="critics, whose mean counts; each learns for itself")
    tau: float = Field(0.05, gt=0, le=1, description="Polyak rate of target networks")
    level_rate: float = Field(
        0.02, ge=0, le=1, description="share of its error that the level makes good an update"
    )


class FittedQ:
    """The action values of policies on one dataset, by fitted Q evaluation.

    S seeds are S policies, each with critics of its own, in one batched program (Le, Voloshin, Yue
    2019, arXiv 1903.08738; with target networks that follow, as Paine et al. 2020, arXiv
    2007.09055, choose policies by it). A critic learns r + γ Q(s', a') by least squares; a' is
    what the policy does in s'. A termination ends the sum, a truncation doesn't: what comes after
    it is worth what the critic says of s'. Values are discounted returns in raw reward units.

    A policy that decides on `chunk` actions at once has the value of whole chunks, and learns from
    those that the data hold whole or that end in a termination.
    Raises DataError where there are none.
    """

    def __init__(
        self,
        spec: Spec,
        episodes: Episodes,
        inputs: Inputs,
        discount: float,
        config: FittedQConfig | None = None,
        chunk: int = 1,
        capture: bool = True,
    ):
        _check_chunks(episodes, chunk)
        config = (config or FittedQConfig()).model_copy(update={"discount": discount})
        raw = replace(inputs, reward_scale=1.0, reward_shift=0.0)
        self._critics = _Critics(config, spec, "offline")
        self._critics.fit_units(episodes, raw, chunk)
        self._learner = Learner(self._critics)
        plan = self._learner.plan
        columns = columns_of(self._critics, plan)
        store = offline_store(episodes, raw, spec, columns, discount)
        stream = SeedStream(spec.seeds, "batch/estimation", spec.device)
        of_batches = stream, config.batch_size, discount
        self._replay = Replay(plan.draws, {"offline": store}, *of_batches, None, Window.of(plan))
        self._episodes, self._inputs, self._spec = episodes, inputs, spec
        self._capture = capture
        self._updater: Updater | None = None
        self._noise = SeedStream(spec.seeds, "act/estimation", spec.device)

    def fit(self, decide: Decide, steps: int) -> None:
        """Take gradient steps towards the values of the policy that `decide` acts by.

        `decide` is `Agent.act`: what an evaluation plays. The learning rate falls to zero within
        the steps. Asked again, for another policy too, it goes on from where the critics are.
        Raises NonFiniteError when values become NaN or infinite.
        """
        if self._updater is None or self._critics.decide != decide:
            self._critics.decide = decide
            self._updater = Updater(self._learner, self._replay, self._capture)
        self._learner.gradient_steps, self._learner.cosine_steps = 0, steps
        for step in range(steps):
            self._learner.share = step / steps
            self._updater.step()
        if self._learner.not_finite():
            raise NonFiniteError(
                "fitted Q evaluation came to values that are NaN or infinite: so are actions of "
                "the policy, or the data's numbers are too large for float32"
            )

    def values(self) -> Array:
        """Return V(s) of the first state of each episode, `[S, K]`, as discounted raw return."""
        return self.at(self._episodes.observations[_first(self._episodes)])

    def at(self, obs: Array, action: Array | None = None) -> Array:
        """Return Q(s, a), `[S, N]` float64, of raw observations `[N, obs_dim]`.

        Actions are `[N, chunk · action_dim]` in [−1, 1]; without them, what the policy does.
        """
        seeds = len(self._spec.seeds)
        found = []
        for rows in _blocks(len(obs)):
            states = self._on_device(self._inputs.obs(obs[rows]), seeds)
            if action is None:
                chosen = self._critics.choose(states, self._noise)
            else:
                chosen = self._on_device(torch.from_numpy(action[rows]), seeds)
            found.append(self._critics.value(states, chosen).cpu().numpy())
        return np.concatenate(found, axis=1).astype(np.float64)

    def state(self) -> dict[str, Tensor]:
        """Return all that `fit` goes on from, by name: critics, moments, random streams."""
        streams = {"batch": self._replay.stream, "act": self._noise}
        return {
            **self._critics.state_dict(),
            **self._learner.state(),
            **{f"stream.{name}": stream.state() for name, stream in streams.items()},
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned.

        Raises RuntimeError for tensors of other names or shapes, and for what is no random stream.
        """
        networks = {name: state[name] for name in self._critics.state_dict()}
        self._critics.load_state_dict(networks, strict=True)
        self._learner.restore(state, 0)
        self._replay.stream.restore(state["stream.batch"])
        self._noise.restore(state["stream.act"])

    def _on_device(self, rows: Tensor, seeds: int) -> Tensor:
        return rows.float().to(self._spec.device).expand(seeds, -1, -1)


class _Critics(Agent):
    """The critics of `FittedQ`, trained as a method's are: flat, fused, captured or recorded.

    Q = `level` + `scale` · q, where q is what the networks learn. `scale` is the standard deviation
    of the behaviour's returns-to-go; the level begins at their mean. Moving targets come nearer to
    the policy's level by 1 − γ of the way each time, so it is solved for beside them: moving all
    values by c moves the mean of r + γ Q(s', a') − Q(s, a) by −(1 − γ)c, less where terminations
    are among them. What is learned is the same; it takes some thousand updates fewer.
    Targets stay within what the rewards of the data can add up to. Observations are standardised.
    """

    name, title, family = "fitted_q", "Fitted Q evaluation", "actor-critic"
    Config = FittedQConfig
    reads_clock = frozenset({"share"})
    decide: Decide | None = None
    config: FittedQConfig
    level: Tensor

    def build(self, init: SeedStream) -> None:
        self.chunk = 1

    def fit_units(self, episodes: Episodes, inputs: Inputs, chunk: int) -> None:
        """Take the units of a dataset, and make the networks."""
        spec, config = self.spec, self.config
        self.chunk = chunk
        init = SeedStream(spec.seeds, "init/estimation", spec.device)
        wide = replace(spec, action_dim=spec.action_dim * chunk)
        self.critic, self.critic_target = make_critics(config, wide, init)
        rewards = episodes.reward.astype(np.float64)
        returns = monte_carlo_returns(episodes, rewards, config.discount).astype(np.float64)
        of_critics = (len(spec.seeds), config.critics, 1)
        mean = torch.full(of_critics, float(returns.mean()), device=spec.device)
        self.register_buffer("level", mean)
        self.scale = float(returns.std()) or 1.0
        least, most = float(rewards.min()), float(rewards.max())
        horizon = 1 / (1 - config.discount)
        self.bounds = min(least, least * horizon), max(most, most * horizon)
        obs = inputs.obs(episodes.observations).double()
        self.obs_mean = obs.mean(0).float().to(spec.device)
        self.obs_rate = (1 / (obs.std(0, correction=0) + 1e-3)).float().to(spec.device)

    def groups(self) -> dict[str, Group]:
        return {"critic": Group((self.critic,), self.config.learning_rate, cosine=True)}

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    def offline_plan(self) -> Plan:
        return Plan(window=self.chunk)

    def choose(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return what the policy under evaluation does, `[S, B, chunk · action_dim]`."""
        assert self.decide is not None
        with torch.no_grad():
            return self.decide(obs, noise)

    def value(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the mean of the critics, `[S, B]`, as discounted raw return."""
        with torch.no_grad():
            q = self.critic(self._seen(obs), action)
        return (q * self.scale + self.level).mean(1)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        reward, discount, weight = (
            each.unsqueeze(1) for each in (batch.reward, batch.discount, _whole(batch))
        )
        obs = self._seen(batch.obs)
        with torch.no_grad():
            following = self.choose(batch.next_obs, noise)
            states = torch.cat([self._seen(batch.next_obs), obs], dim=1)
            later, now = self.critic_target(
                states, torch.cat([following, batch.action], dim=1)
            ).chunk(2, dim=2)
            later, now = (self.level + self.scale * each for each in (later, now))
            target = (reward + discount * later).clamp(*self.bounds)
            error = (weight * (target - now)).sum(2, keepdim=True)
            share = (weight * (1 - discount)).sum(2, keepdim=True)
            owed = torch.where(share > 0, error / share, 0.0)  # a batch may hold no whole chunk
            rate = self.config.level_rate * (1 - self.clock.share)
        q = self.critic(obs, batch.action)
        miss = q - (target - self.level) / self.scale
        losses = Losses(critic=(weight * miss.square()).sum(1))
        return losses.updating({}, {"level": self.level + rate * owed})

    def _seen(self, obs: Tensor) -> Tensor:
        return (obs - self.obs_mean) * self.obs_rate


def _check_chunks(episodes: Episodes, chunk: int) -> None:
    longest = int(episodes.lengths.max())
    if longest < chunk and not episodes.terminated.any():
        raise DataError(
            f"the policies decide on {chunk} actions at once, and the longest episode of "
            f"'{episodes.dataset_id}' has {longest} steps, none terminated: they can't be valued "
            "by it. Give --dataset one with longer episodes."
        )


def _whole(batch: Batch) -> Tensor:
    """Return 1 for the rows that can be learned from: a chunk that is cut short only by an end."""
    return torch.maximum(batch.weight, 1 - batch.bootstrap)


def _first(episodes: Episodes) -> Array:
    """Return where the first observation of each episode lies, `[K]`."""
    return np.asarray(episodes.starts + np.arange(len(episodes.starts)))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, count, ROWS))
