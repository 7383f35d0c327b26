"""SPOT: TD3 held to the support of the data, as a model of the behaviour's density sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from baq_cli.agents.interface import Batch, Experience, Group, Losses, Seen
from baq_cli.agents.objectives import mean_abs, td_loss
from baq_cli.agents.parts.td3 import TD3
from baq_cli.agents.parts.vae import VAE, VAEConfig
from baq_cli.agents.plans import Draw, Plan, Stage
from baq_cli.nets.plain import Dropout
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Positive

VAE_ALONE = frozenset({"vae"})


class SPOT(TD3):
    """SPOT (Wu et al. 2022, arXiv 2202.06239): TD3 whose actor stays where the data are dense.

    Offline:
        VAE   ℓ(s, a) = mean_j (â_j − a_j)² + β mean_l KL(q(z_l|s, a) ‖ N(0, 1)),  β = `vae_beta`
              â = decoder(s, z),  z ~ q(z|s, a), 2|A| numbers; fixed after `vae_steps` updates
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' = clip(π̄(s') + clip(ε, ±c), ±1)
        π     −mean_B[Q_1(s, π(s))] / mean_B|Q_1(s, π(s))| + λ mean_B[ℓ(s, π(s))]
              λ = `support_weight`
    The policy steps on every second gradient step, and the targets with it. π and π̄ drop
    `policy_dropout` of their hidden units.

    Online: the same losses with λ · max(`support_weight_end`, 1 − t / `support_weight_env_steps`),
    t in env_steps of this phase, and without dropout. Actions have Gaussian noise of std
    `exploration_noise`.

    At the hand-over: γ becomes `online_discount`, where it is set; optimisers start fresh
    (`reset_optimizers`), as CORL's do; the VAE stays as it is. Batches are drawn from the dataset
    and the online rows together.

    Departures: critic and policy step on one backward pass, from the same parameters; dropout ends
    with the offline phase (the authors fine-tune on AntMaze alone, where they have none).
    """

    name = "spot"
    title = "SPOT"
    family = "policy constraint"
    constraint_online = "relaxes"
    needs_own_pretraining = True
    reads_clock = frozenset({"env_steps"})

    class Config(TD3.Config, VAEConfig):
        unused: ClassVar[frozenset[str]] = frozenset({"last_layer_gain"})

        normalize_observations: bool = True
        support_weight: float = Field(0.1, ge=0, description="λ, of the support constraint")
        support_weight_end: float = Field(
            0.2, ge=0, le=1, description="the share of λ that it falls to online"
        )
        support_weight_env_steps: int = Field(
            1_000_000, ge=1, description="online environment steps in which λ would fall to 0"
        )
        policy_dropout: float = Field(
            0.1, ge=0, lt=1, description="share of the policy's hidden units dropped offline"
        )
        policy_last_bound: Positive | None = Field(
            None, description="the policy's last layer begins uniform in ± this; null: as others"
        )
        critic_last_bound: Positive | None = Field(
            None, description="the critics' last layers begin uniform in ± this; null: as others"
        )
        online_discount: float | None = Field(
            None, gt=0, lt=1, description="γ online; null: as offline"
        )
        reset_optimizers: bool = Field(True, description="fresh optimisers at the hand-over")

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        config, states, actions = self.config, self.spec.obs_dim, self.spec.action_dim
        sizes = actions, states, 2 * actions, actions
        self.vae = VAE(init, *sizes, config.vae_hidden, config.vae_beta)

    def starts(self) -> tuple[Start, Start]:
        bounds = self.config.policy_last_bound, self.config.critic_last_bound
        policy, critics = (
            start if bound is None else replace(start, last_bound=bound)
            for start, bound in zip(super().starts(), bounds, strict=True)
        )
        return policy, critics

    def groups(self) -> dict[str, Group]:
        groups = super().groups()
        if self.phase == "offline":
            groups["vae"] = Group((self.vae,), self.config.vae_learning_rate)
        return groups

    def offline_plan(self) -> Plan:
        first = Stage("vae", VAE_ALONE, (Draw(),), self.config.vae_steps)
        return Plan(train=frozenset({"critic", "policy"}), first=(first,))

    def online_plan(self) -> Plan:
        return replace(super().online_plan(), discount=self.config.online_discount)

    def hand_over(self, data: Experience) -> frozenset[str]:
        return frozenset(self.groups()) if self.config.reset_optimizers else frozenset()

    def in_training(self, policy: DeterministicPolicy, obs: Tensor, noise: SeedStream) -> Tensor:
        rate = self.config.policy_dropout if self.phase == "offline" else 0.0
        return policy.mode(obs, dropout=Dropout(rate, noise) if rate else None)

    def weight(self) -> Tensor:
        """Return λ at this step, a scalar; offline it is whole."""
        config = self.config
        left = 1.0 - self.clock.env_steps / config.support_weight_env_steps
        return config.support_weight * left.clamp(min=config.support_weight_end)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        if active == VAE_ALONE:
            return Losses(vae=self.vae.negative_elbo(batch.action, batch.obs, noise))
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.q_target(batch, noise), batch.weight)
        metrics = {"q": q.mean((1, 2))}
        if "policy" not in active:
            return Losses(metrics, critic=critic)
        action = self.in_training(self.policy, batch.obs, noise)
        q_policy = self.critic(batch.obs, action, frozen=True)
        value = -(q_policy[:, 0].mean(1) / mean_abs(q_policy[:, :1]))
        strange = self.vae.negative_elbo(action, batch.obs, noise, frozen=True)
        weight = self.weight()
        policy = value + weight * (batch.constraint * strange).mean(1)
        metrics |= {"strangeness": strange.mean(1), "support_weight": weight.expand_as(value)}
        return Losses(metrics, Seen(action, q_policy), critic=critic, policy=policy)
