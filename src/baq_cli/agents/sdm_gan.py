"""SDM-GAN: a policy fed with noise, held to the data's states and actions by a discriminator."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.base import frozen_copy, make_critics, per_seed, policy_net
from baq_cli.agents.interface import Batch, Experience, Group, Losses, Target
from baq_cli.agents.objectives import mean_abs
from baq_cli.agents.parts.discriminator import Discriminator, Pairs
from baq_cli.agents.parts.keeping import keep_where
from baq_cli.agents.parts.loss_limit import LossLimit
from baq_cli.agents.parts.model_based import MODEL, MOST_MODEL_ROWS, ModelBased, reward_range
from baq_cli.agents.plans import Draw, Plan, Routine, Stage
from baq_cli.nets.flow import NoisePolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Widths

ADVERSARIES = frozenset({"policy", "discriminator"})
GAN_BETAS = (0.4, 0.999)
DYNAMICS_ROWS, NOISE_BOUND, STATE_NOISE_BOUND, DEVIATIONS = 128, 3.0, 0.05, 3.0


class SDMGAN(ModelBased):
    """SDM-GAN (Yang et al. 2022, arXiv 2206.07166): learning in a model, held to data by a GAN.

    The policy a = tanh f(s, z), z ~ clip(N(0, I), ±3), should visit the pairs (s, a) that data
    have: a discriminator D compares what it does, along the model too, with them.

    Offline:
        P_i   the models' likelihood as MOORe has it, for `dynamics_steps` before all else
        D_m   every `rollout_every` gradient steps: `rollout_rows` transitions of the model from
              states of the dataset, `horizon` steps long, each state with an action of its own
        D     ½ mean BCE(D(s, atanh a), U[`least_label`, 1]) of data + ½ mean BCE(D(s̃, f), 0),
              of fakes (s̃, f(s̃, z)), s̃ = s + clip(σε, ±.05) where s doesn't end an episode, and
              (s', f(s', z')), s' ~ P_i(s̃, tanh f(s̃, z)) where that doesn't;  σ = `state_noise`
        Q_i   mean_B Huber(Q_i(s, a) − y), bent at `huber`, summed over critics
              y = clip(r) + γ (1 − d) v 1(|v| < `most_value`),  v = the mean over `target_actions`
              of w min_i Q̄_i(s'', a'') + (1 − w) max_i Q̄_i(s'', a''),  w = `least_weight`
              a'' ~ π̄(s''),  s'' = s' + clip(σε, ±.05), and once s' itself
              not applied in a seed whose loss is above L; L starts at `first_loss_limit`, and after
              `loss_limit_every` updates each L ← .95 L + .05 (mean + 3 std of their losses)
        π     −`value_weight` mean_B[min_i Q_i(s, π(s))] / q̃ + `gan_weight` mean BCE(D(fakes), 1)
              q̃, a running mean of |min_i Q_i(s, π(s))|
    r is kept in the data's range ± 3 std. For `warm_up_steps` only D and π learn, without a value.
    The policy steps on every second gradient step. Batches are real rows with a probability that
    falls from 1 by a tenth every `real_share_every` steps, to `real_share`, and rows of D_m else.

    Online: the same losses, where data are the dataset and online rows together, and `real_share`
    of a batch are. Every `refit_every` environment steps the models are fitted on these,
    `refit_steps` more; D_m is made as before, every `rollout_every` environment steps. `gan_weight`
    falls in a line to `gan_weight_end` times that. It explores with π, and is evaluated with the
    action of `evaluation_actions` that Q_1 finds best.

    At the hand-over: all networks, L, q̃ and optimisers are taken as they are; D_m is empty, and
    filled before the first environment step.

    Departures: the online phase is ours, the paper has none. A rollout takes each state's own
    action; the released code takes that of the first state for all. Models and their fits are
    MOORe's, with batches of 128. Real rows are drawn with a probability, not counted. π steps as
    often as D in the warm-up, where no target follows: π̄ is set to π behind it; L moves only
    afterwards. Adam's count of steps goes on where an update isn't applied. All groups step on one
    backward pass, from the same parameters; q̃ begins behind the warm-up. No WGAN-GP.
    """

    name = "sdm_gan"
    title = "SDM-GAN"
    family = "model-based"
    constraint_online = "relaxes"

    class Config(ModelBased.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"online_share", "target_reduction"})

        hidden: Widths = (400, 300)
        policy_learning_rate: float = Field(2e-4, gt=0)
        batch_size: int = Field(512, ge=1)
        horizon: int = Field(1, ge=1)
        noise_dim: int | None = Field(
            None, ge=1, description="numbers of z; null: half as many as a state's, 10 at most"
        )
        policy_every: int = Field(2, ge=1, description="gradient steps a policy step")
        discriminator_hidden: Widths = Field((400, 300), description="hidden widths of D")
        discriminator_learning_rate: float = Field(2e-4, gt=0, description="of D")
        least_label: float = Field(0.8, ge=0, le=1, description="the least label of a pair of data")
        gan_weight: float = Field(1.0, ge=0, description="of D's part in the policy's loss")
        gan_weight_end: float = Field(
            0.5, ge=0, le=1, description="the share of that weight that it falls to online"
        )
        value_weight: float = Field(10.0, ge=0, description="of the policy's value term")
        warm_up_steps: int = Field(40_000, ge=1, description="updates of D and π before all others")
        target_actions: int = Field(50, ge=1, description="actions a state in the target")
        least_weight: float = Field(
            0.75, ge=0, le=1, description="w, of the least target critic; the rest the greatest's"
        )
        state_noise: float = Field(3e-4, ge=0, description="σ, of noise on states")
        most_value: float = Field(2000.0, gt=0, description="next values beyond it are left out")
        huber: float = Field(500.0, gt=0, description="error from which on the loss is linear")
        first_loss_limit: float = Field(1000.0, gt=0, description="L at first")
        loss_limit_every: int = Field(1_000, ge=1, description="updates between changes of L")
        real_share: float = Field(
            0.5, gt=0, le=1, description="share of real rows a batch, at last and online"
        )
        real_share_every: int = Field(
            5_000, ge=1, description="gradient steps in which that share falls by a tenth"
        )
        rollout_rows: int = Field(32_000, ge=1, description="transitions of the model made at once")
        rollouts_kept: int = Field(20, ge=1, description="how many times' transitions D_m holds")
        rollout_every: int = Field(250, ge=1, description="steps between rollouts, of the phase")
        evaluation_actions: int = Field(10, ge=1, description="actions to choose from, evaluated")

        @model_validator(mode="after")
        def _fits(self) -> SDMGAN.Config:
            if max(self.rollout_rows, self.horizon) * self.rollouts_kept > MOST_MODEL_ROWS:
                raise ValueError(f"expected rollout_rows · rollouts_kept <= {MOST_MODEL_ROWS:,}")
            return self

    config: Config
    policy: NoisePolicy
    real_odds: Tensor
    q_scale: Tensor
    reward_range: Tensor

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = NoisePolicy(
            init,
            spec.obs_dim,
            spec.action_dim,
            **policy_net(config),
            activation="leaky_relu",
            noise_dim=config.noise_dim or max(1, min(10, spec.obs_dim // 2)),
            noise_bound=NOISE_BOUND,
            squashed=True,
        )
        self.policy_target = frozen_copy(self.policy)
        self.critic, self.critic_target = make_critics(config, spec, init, activation="leaky_relu")
        self.discriminator = Discriminator(init, spec, config.discriminator_hidden)
        self.critic_limit = LossLimit(spec, config.first_loss_limit, config.loss_limit_every)
        self.build_model()
        self.register_buffer("real_odds", per_seed(1.0, spec))
        self.register_buffer("q_scale", per_seed(0.0, spec))
        ends = torch.tensor([-torch.inf, torch.inf], device=spec.device)
        self.register_buffer("reward_range", ends.repeat(len(spec.seeds), 1))
        self.every = {"policy": config.policy_every}
        self.reads_clock = frozenset({"gradient_steps" if self.phase == "offline" else "share"})

    def groups(self) -> dict[str, Group]:
        config = self.config
        rate = config.discriminator_learning_rate
        return self.model_group() | {
            "critic": Group((self.critic,), config.learning_rate),
            "policy": Group((self.policy,), config.policy_learning_rate, betas=GAN_BETAS),
            "discriminator": Group((self.discriminator,), rate, betas=GAN_BETAS),
        }

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target), Target(self.policy, self.policy_target)]

    # -- losses

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        if active == MODEL:
            return Losses(dynamics=self.dynamics.fit_loss(batch))
        data, fakes = batch.part("data"), self.fakes(batch.part("fake"), noise)
        pairs = Pairs.of_data(data.obs, data.action)
        discriminator = self.discriminator.loss(pairs, fakes, self.config.least_label, noise)
        generator = self.discriminator.error(fakes, 1.0, frozen=True)
        if active == ADVERSARIES:
            return Losses(discriminator=discriminator, policy=generator)
        value = batch.part("value")
        critic, metrics = self.critic_loss(value, noise)
        climbing, q_scale = self.value_term(value, noise)
        metrics |= {"generator": generator, "q_scale": q_scale}
        applied = self.critic_limit.allows(critic)
        metrics |= {"loss_limit": self.critic_limit.limit.clone(), "applied": applied.float()}
        after = {f"critic_limit.{n}": b for n, b in self.critic_limit.after(critic).items()}
        policy = climbing + self.gan_weight() * generator
        losses = Losses(metrics, critic=critic, discriminator=discriminator, policy=policy)
        return losses.updating({"critic": applied}, after | {"q_scale": q_scale})

    def value_term(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Return `−value_weight mean_B[min_i Q_i(s, π(s))] / q̃`, and q̃ after it, `[S]` each."""
        action = self.policy.draw(batch.obs, noise)
        least = self.critic(batch.obs, action, frozen=True).amin(1)
        size = mean_abs(least)
        scale = torch.where(self.q_scale > 0, self.q_scale, size)
        term = -self.config.value_weight * least.mean(1) / scale
        return term, torch.lerp(scale, size, self.config.tau)

    def noisy(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return `s + clip(σε, ±.05)` for states of any shape `[S, …, obs_dim]`."""
        eps = self.config.state_noise * noise.normal(*obs.shape[1:])
        return obs + eps.clamp(-STATE_NOISE_BOUND, STATE_NOISE_BOUND)

    def fakes(self, batch: Batch, noise: SeedStream) -> Pairs:
        """Return what the policy does in a batch's states, and one step on in the model."""
        rows = batch.obs.shape[1]
        obs = self.noisy(batch.obs, noise)
        raw = self.policy.raw(obs, self.policy.draw_noise(noise, rows))
        after = self.dynamics.step(obs, torch.tanh(raw), noise)
        next_raw = self.policy.raw(after.next_obs, self.policy.draw_noise(noise, rows))
        counts = torch.cat([batch.bootstrap, batch.bootstrap * after.bootstrap], dim=1)
        states = torch.cat([obs, after.next_obs], dim=1)
        return Pairs(states, torch.cat([raw, next_raw], dim=1), counts)

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        """Return `Σ_i mean_B Huber(Q_i(s, a) − y)`, `[S]`, and what to log."""
        q = self.critic(batch.obs, batch.action)
        y = self.q_target(batch, noise).unsqueeze(1).expand_as(q)
        error = F.huber_loss(q, y, reduction="none", delta=self.config.huber)
        return (batch.weight.unsqueeze(1) * error).mean(2).sum(1), {"q": q.mean((1, 2))}

    @torch.no_grad()
    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = clip(r) + γ (1 − d) v 1(|v| < most_value)`, `[S, B]`."""
        value = self.next_value(batch.next_obs, noise)
        value = torch.where(value.abs() < self.config.most_value, value, 0.0)
        least, most = self.reward_range.split(1, dim=1)
        return batch.reward.clamp(least, most) + batch.discount * value

    def next_value(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return the mean of the weighted target critics over actions near a state, `[S, B]`."""
        count, weight = self.config.target_actions, self.config.least_weight
        each = obs.unsqueeze(2)
        near = self.noisy(each.expand(-1, -1, count - 1, -1), noise)
        states = torch.cat([near, each], dim=2).flatten(1, 2)
        q = self.critic_target(states, self.policy_target.draw(states, noise))
        value = weight * q.amin(1) + (1 - weight) * q.amax(1)
        return value.unflatten(1, (-1, count)).mean(2)

    def gan_weight(self) -> Tensor | float:
        """Return the weight of the generator's loss at this step; offline it is whole."""
        weight, end = self.config.gan_weight, self.config.gan_weight_end
        return weight if self.phase == "offline" else weight * (1 - (1 - end) * self.clock.share)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return the one of several actions a state that the first critic finds best."""
        count = self.config.evaluation_actions
        actions = self.policy.many_from_noise(
            obs, self.policy.draw_noise(noise, obs.shape[1], count)
        )
        best = self.critic.many(obs, actions)[:, 0].argmax(2)
        at = best[..., None, None].expand(-1, -1, 1, actions.shape[3])
        return actions.gather(2, at).squeeze(2)

    def acting_parts(self) -> tuple[str, ...]:
        return ("policy.", "critic.")

    # -- plans

    def offline_plan(self) -> Plan:
        config = self.config
        draws = replace(self.real, name="fake"), replace(self.real, share=2.0, name="data")
        first = (
            self.fit(config.dynamics_steps, min(DYNAMICS_ROWS, config.batch_size)),
            Stage("warm-up", ADVERSARIES, draws, config.warm_up_steps),
        )
        mixed = Draw(("offline", "model"), odds="real_odds")
        return replace(self._plan((mixed,)), first=first)

    def online_plan(self) -> Plan:
        config = self.config
        real, model = replace(self.real, share=config.real_share), 1 - config.real_share
        plan = self._plan((real, Draw(("model",), model)) if model else (real,))
        fit = self.fit(config.refit_steps, min(DYNAMICS_ROWS, config.batch_size))
        return replace(
            plan,
            utd=config.utd,
            warmup_env_steps=config.warmup_env_steps,
            routines=(Routine("refit", config.refit_every, (fit,)), *plan.routines),
        )

    def _plan(self, mixed: tuple[Draw, ...]) -> Plan:
        config = self.config
        named = (replace(draw, name=name) for name in ("value", "fake") for draw in mixed)
        return Plan(
            (*named, replace(self.real, share=2.0, name="data")),
            capacity=config.capacity,
            model_capacity=self.rollouts * config.horizon * config.rollouts_kept,
            train=ADVERSARIES | {"critic"},
            routines=(Routine("rollouts", config.rollout_every),),
        )

    # -- the model

    @property
    def rollouts(self) -> int:
        """Rollouts that are made at once, a seed."""
        return max(1, self.config.rollout_rows // self.config.horizon)

    def begin_stage(self, stage: str, data: Experience) -> None:
        super().begin_stage(stage, data)
        if stage == "dynamics":
            self.reward_range.copy_(reward_range(data, DEVIATIONS))

    @torch.no_grad()
    def assess(self, data: Experience, stage: str | None = None) -> None:
        super().assess(data, stage)
        if stage == "warm-up":
            everywhere = torch.ones_like(self.q_scale, dtype=torch.bool)
            keep_where(everywhere, self.policy_target, self.policy)

    def refresh(self, routine: str, data: Experience, noise: SeedStream) -> None:
        """Make the model's rows, and set with which probability a row is none of them."""
        if routine != "rollouts":
            return
        if self.phase == "online":
            self.odds.copy_(self.odds_at(data.size("offline"), data.size("online")))
        tenths = (self.clock.gradient_steps / self.config.real_share_every).floor()
        self.real_odds.copy_((1 - 0.1 * tenths).clamp(min=self.config.real_share))
        self.fill(data, self.rollouts, noise)
