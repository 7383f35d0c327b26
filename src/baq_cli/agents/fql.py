"""Flow Q-learning: a one-step policy between a flow of the data's actions and their value."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import Agent, make_critics, policy_net
from baq_cli.agents.interface import Batch, Group, Losses, Target
from baq_cli.agents.objectives import mean_abs, squared_distance, td_loss
from baq_cli.nets.critics import Reduction, reduce_q
from baq_cli.nets.flow import FlowPolicy, NoisePolicy
from baq_cli.nets.plain import Norm
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, Initialization, Widths


class FQL(Agent):
    """FQL (Park, Li, Levine 2025, arXiv 2502.02538): a one-step policy distilled from a flow.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], averaged over critics
              y = r + γ (1 − d) mean_i Q̄_i(s', a'),  a' = clip(μ(s', z'), ±1),  z' ~ N(0, I)
        v     mean_B mean_j (v(s, x_t, t)_j − (a − x₀)_j)²
              x_t = (1 − t) x₀ + t a,  x₀ ~ N(0, I),  t ~ U(0, 1)
        μ     α mean_B mean_j (μ(s, z)_j − f(s, z)_j)² − mean_B mean_i Q_i(s, clip(μ(s, z), ±1))
              f(s, z): where `flow_steps` Euler steps along v carry z ~ N(0, I), clipped to ±1
    With `target_reduction: min` (q_agg in the authors' code) y has the least target critic; with
    `normalize_q_loss` the value is divided by mean_B|mean_i Q_i|. v knows no value: it is the flow
    of the data's actions, and f carries no gradient.

    Online: the same losses. Actions, evaluations' too, are clip(μ(s, z), ±1) with fresh z.

    At the hand-over: the losses stay as they are, with the same α; batches are drawn from the
    dataset and the online rows together, or with `online_share` in fixed parts.

    Departures: critics, v and μ have an Adam each where the authors have one for all, which is the
    same, as its moments are each number's own; targets follow after the optimiser's step.
    """

    name = "fql"
    title = "FQL"
    family = "generative policy"
    constraint_online = "stays"

    class Config(AgentConfig):
        hidden: Widths = (512, 512, 512, 512)
        initialization: Initialization = "glorot"
        layer_norm: bool = Field(True, description="LayerNorm behind each critic activation")
        target_reduction: Reduction = "mean"
        alpha: float = Field(10.0, ge=0, description="weight of the distance to the flow's action")
        flow_steps: int = Field(10, ge=1, le=1000, description="Euler steps along the flow")
        policy_layer_norm: bool = Field(
            False, description="LayerNorm behind each activation of flow and policy"
        )
        normalize_q_loss: bool = Field(
            False, description="divide the policy's value term by the mean size of values"
        )

    config: Config
    policy: NoisePolicy

    def build(self, init: SeedStream) -> None:
        config = self.config
        spec = replace(self.spec, action_dim=self.chunk * self.spec.action_dim)
        sizes = {"obs_dim": spec.obs_dim, "action_dim": spec.action_dim, **policy_net(config)}
        norm: Norm = "after" if config.policy_layer_norm else False
        self.flow = FlowPolicy(init, steps=config.flow_steps, layer_norm=norm, **sizes)
        self.policy = NoisePolicy(init, layer_norm=norm, **sizes)
        self.critic, self.critic_target = make_critics(
            config, spec, init, norm="after", activation="gelu"
        )

    def groups(self) -> dict[str, Group]:
        config = self.config
        return {
            "critic": Group((self.critic,), config.learning_rate),
            "flow": Group((self.flow,), config.policy_learning_rate),
            "policy": Group((self.policy,), config.policy_learning_rate),
        }

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.q_target(batch, noise), batch.weight) / self.config.critics
        flow = self.flow_loss(batch, noise)
        policy, distance = self.policy_loss(batch, noise)
        metrics = {"q": q.mean((1, 2)), "flow_error": flow.mean(1), "distance": distance.mean(1)}
        return Losses(metrics, critic=critic, flow=flow, policy=policy)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = r + γ (1 − d) reduce Q̄(s', clip μ(s', z'))`, `[S, B]`."""
        with torch.no_grad():
            next_action = self.policy.draw(batch.next_obs, noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, self.config.target_reduction, noise)
            return batch.reward + batch.discount * next_value

    def flow_loss(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `mean_j (v(s, x_t, t)_j − (a − x₀)_j)²`, `[S, B]`."""
        return self.flow.matching_error(batch.obs, batch.action, noise).mean(-1)

    def policy_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Return μ's loss, `[S, B]`, and the distance from the flow's action in it, `[S, B]`."""
        z = self.policy.draw_noise(noise, batch.obs.shape[1])
        with torch.no_grad():
            carried = self.flow.carry(batch.obs, z)
        action = self.policy.from_noise(batch.obs, z)
        distance = squared_distance(action, carried)

        value = self.critic(batch.obs, action.clamp(-1.0, 1.0), frozen=True).mean(1)
        if self.config.normalize_q_loss:
            value = value / mean_abs(value).unsqueeze(1)
        return self.config.alpha * batch.constraint * distance - value, distance

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return a fresh sample: the policy has no density, and noise of zero is no mode of it."""
        return self.policy.draw(obs, noise)
