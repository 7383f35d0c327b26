"""Behaviour cloning."""

from __future__ import annotations

from typing import Any, ClassVar

from baq_cli.agents.base import Agent, policy_net
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class BC(Agent):
    """Behaviour cloning (Pomerleau 1988), by maximum likelihood.

    Offline:
        π     −mean_B[log π(a|s)],  π a Gaussian with a tanh mean
    It has no online phase: there is nothing in it that new experience could improve.

    Departures: none; CORL's fits a squared error instead of a likelihood.
    """

    name = "bc"
    title = "BC"
    family = "imitation"
    learns_online: ClassVar[bool] = False

    class Config(AgentConfig):
        unused: ClassVar[frozenset[str]] = frozenset(
            {
                *("critics", "layer_norm", "target_reduction", "tau", "learning_rate", "discount"),
                *("reward_scale", "reward_shift"),
                *("utd", "warmup_env_steps", "online_share", "capacity"),
                *("policy_hidden", "policy_initialization"),
            }
        )
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {"normalize_observations": False}

        normalize_observations: bool = True

    config: Config
    policy: GaussianPolicy

    def build(self, init: SeedStream) -> None:
        spec, net = self.spec, policy_net(self.config)
        self.policy = GaussianPolicy(init, spec.obs_dim, spec.action_dim, **net)

    def groups(self) -> dict[str, Group]:
        return {"policy": Group((self.policy,), self.config.policy_learning_rate)}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        return Losses(policy=-self.policy.log_prob(batch.obs, batch.action))
