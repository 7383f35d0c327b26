"""What methods share that learn from transitions which a model of the dynamics makes."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.base import Agent, per_seed
from baq_cli.agents.interface import Experience, Group
from baq_cli.agents.parts.dynamics import GaussianDynamics, Imagined, judges
from baq_cli.agents.parts.rollouts import roll_out
from baq_cli.agents.plans import Draw, Stage, StoreName
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, Widths

MODEL = frozenset({"dynamics"})
ASSESSMENTS, MOST_MODEL_ROWS = 10, 100_000_000
"""How often a fit looks which members are better than those that are kept; rows of D_m a seed."""
REAL: tuple[StoreName, ...] = ("offline", "online")


class ModelBased(Agent):
    """A method with an ensemble of dynamics models, fitted before its phase and refitted online.

    `odds [S]` is the probability with which a row that no model made is of the dataset, online.
    """

    needs_own_pretraining: ClassVar[bool] = True
    data_columns = ("held_out",)

    class Config(AgentConfig):
        horizon: int = Field(5, ge=1, description="steps of a rollout")
        members: int = Field(7, ge=1, le=100, description="dynamics models of a seed")
        elites: int = Field(5, ge=1, description="the best of them, which move a state on")
        dynamics_hidden: Widths = Field((200, 200, 200, 200), description="their hidden widths")
        dynamics_learning_rate: float = Field(1e-3, gt=0, description="of the dynamics models")
        dynamics_steps: int = Field(50_000, ge=1, description="updates of them before the phase")
        refit_every: int = Field(1_000, ge=1, description="env_steps between refits, online")
        refit_steps: int = Field(1_000, ge=1, description="updates of a refit")

        @model_validator(mode="after")
        def _elites_are_members(self) -> ModelBased.Config:
            if self.elites > self.members:
                raise ValueError("expected elites <= members")
            return self

    config: Config
    odds: Tensor

    def build_model(self) -> None:
        """Make the dynamics models, which have random numbers of their own."""
        config = self.config
        of_model = config.dynamics_hidden, config.members, config.elites
        self.dynamics = GaussianDynamics(self.spec, *of_model)
        self.register_buffer("odds", per_seed(1.0, self.spec))

    def model_group(self) -> dict[str, Group]:
        """Return the parameter group of the dynamics models."""
        return {"dynamics": Group((self.dynamics.learner,), self.config.dynamics_learning_rate)}

    @property
    def real(self) -> Draw:
        """How rows are drawn that no model made."""
        if self.phase == "offline":
            return Draw()
        return Draw(REAL, odds="odds")

    def fit(self, steps: int, rows: int | None = None) -> Stage:
        """Return the stage that fits the models, by so many updates."""
        every = -(-steps // ASSESSMENTS)
        return Stage("dynamics", MODEL, (self.real,), steps, rows, assess_every=every)

    def begin_stage(self, stage: str, data: Experience) -> None:
        """Take the dataset's units before the first fit; before a refit, set the odds."""
        if stage != "dynamics":
            return
        if self.phase == "offline":
            self.dynamics.standardise(data.chunks(held_out=False))
            return
        self.odds.copy_(self.odds_at(data.size("offline"), data.size("online")))
        self.dynamics.go_back()

    def odds_at(self, offline: int, online: int) -> Tensor:
        """Return the probability `[S]` of the dataset, now, for so many rows of either store."""
        return torch.full_like(self.odds, offline / (offline + online))

    def assess(self, data: Experience, stage: str | None = None) -> None:
        if stage == "dynamics":
            self.dynamics.keep_better(judges(data, self.odds))

    def fill(self, data: Experience, rollouts: int, noise: SeedStream) -> None:
        """Put so many rollouts a seed into the model's store, from states of real rows."""
        of_rollouts = rollouts, self.config.horizon, noise
        roll_out(lambda obs: self.imagine(obs, noise), data, self.real, *of_rollouts)

    def imagine(self, obs: Tensor, noise: SeedStream) -> dict[str, Tensor]:
        """Return a transition of the model from each state `[S, K, obs_dim]`, a ~ π(s)."""
        action = self.policy.draw(obs, noise)
        found = self.dynamics.step(obs, action, noise)
        fields = {"obs": obs, "action": action, "next_obs": found.next_obs}
        return fields | {"reward": self.imagined_reward(found), "bootstrap": found.bootstrap}

    def imagined_reward(self, found: Imagined) -> Tensor:
        """Return the reward `[S, K]` that a transition of the model is stored with."""
        return found.reward


def reward_range(data: Experience, deviations: float) -> Tensor:
    """Return the least and greatest real reward, so many deviations less and more, `[S, 2]`."""
    chunks = [batch.reward for store in REAL for batch in data.chunks(store=store)]
    rewards = torch.cat(chunks, dim=1)
    beyond = deviations * rewards.std(1, unbiased=False)
    return torch.stack([rewards.amin(1) - beyond, rewards.amax(1) + beyond], dim=1)
