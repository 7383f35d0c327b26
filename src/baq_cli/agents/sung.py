"""SUNG: one model of uncertainty to explore by, and to say where a base stays constrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch, Experience, Group, Losses
from baq_cli.agents.objectives import shortlist_draw, softmax_draw
from baq_cli.agents.parts.sections import OnBase
from baq_cli.agents.parts.uncertainty import PairUncertainty
from baq_cli.agents.parts.vae import VAEConfig
from baq_cli.agents.parts.wrapper import Wrapper
from baq_cli.agents.plans import Draw, Plan, Stage, newest_and_all
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.nets.streams import SeedStream

VAE_ALONE = frozenset({"vae"})


class BaseCQL(CQL.Config):
    """CQL as SUNG has it."""

    cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight")


class SUNGConfig(OnBase, VAEConfig):
    """SUNG's section. What it shares with its base (networks, batches, rates) is set here."""

    bases: ClassVar[tuple[str, ...]] = ("td3_bc", "cql")
    with_base: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cql": {
            "normalize_observations": False,
            "policy_learning_rate": 1e-4,
            "constrained_share": 0.1,
            "gate": "drawn",
            "shortlist_by": "uncertainty",
            "shortlist_actions": 20,
            "reset_optimizers": True,
        }
    }

    own: ClassVar[dict[str, str]] = {"online_share": "it draws the newest rows apart"}

    normalize_observations: bool = True
    online_share: float | None = Field(0.9, ge=0, le=1, description="of the newest online rows")

    base: Literal["td3_bc", "cql"] = Field("td3_bc", description="the method it guides")
    td3_bc: TD3BC.Config = TD3BC.Config()
    cql: BaseCQL = BaseCQL()

    constrained_share: float = Field(0.05, gt=0, le=1, description="p, of a batch; cql: 0.1")
    constraint_weight: float | None = Field(None, ge=0, description="λ, on these rows; null: p")
    gate: Literal["most_uncertain", "drawn"] = Field(
        "most_uncertain", description="of those rows: by U(s, π(s)), or ∝ exp U(s, a); cql: drawn"
    )
    candidate_actions: int = Field(100, ge=1, description="actions to explore that it chooses from")
    shortlist_by: Literal["value", "uncertainty"] = Field(
        "value", description="what they are shortlisted by; the other chooses; cql: uncertainty"
    )
    shortlist_actions: int = Field(10, ge=1, description="the shortlist's length; cql: 20")
    newest_rows: int = Field(20_000, ge=1, description="online rows that count as the newest")
    reset_optimizers: bool = Field(
        False, description="fresh optimisers and temperature at the hand-over; cql: true"
    )
    vae_states: Literal["linear", "tanh"] = Field(
        "linear", description="how the decoder's states end; the authors' can't leave ±1"
    )


class SUNG(Wrapper):
    """SUNG (Guo et al. 2023, arXiv 2306.07541): explores what is uncertain, and is careful there.

    Offline:
        base  the losses of `base`, as that method has them; on CQL, where no key says otherwise,
              observations are as they are, and the policy's learning rate is 1e-4
        VAE   U(s, a) = mean_j (x̂_j − x_j)² + β mean_l KL(q(z_l|x) ‖ N(0, 1)),  β = `vae_beta`
              x = (s, a), s standardised;  x̂ = decoder(z),  z ~ q(z|x), 2|A| numbers
    The VAE has its `vae_steps` updates first.

    Online:
        base  its losses, but its constraint is λ times its mean over k = ⌊p B⌋ rows of a batch
        VAE   as offline, on the same batch
    λ = p = `constrained_share` where `constraint_weight` is null. On TD3+BC these rows are those of
    the largest U(s, π(s)); on CQL they are drawn, with replacement, ∝ exp U(s, a). With p = λ = 1
    all rows are constrained, and the base's losses are its own, bit for bit. Of `candidate_actions`
    drawn as the base explores, TD3+BC keeps the `shortlist_actions` of the largest Q and draws one
    ∝ exp U, CQL keeps those of the largest U and draws one ∝ exp Q. Q is what the base's policy
    follows.

    At the hand-over: target networks become what they follow. With `reset_optimizers`, as on CQL,
    all optimisers start fresh, and the temperature is its first; else the VAE's alone. A share
    `online_share` of a batch is drawn from the last `newest_rows` online rows, once these fill it,
    and from the dataset till then; the rest from the dataset and all online rows together.

    Departures: the decoder's states are linear, where the authors' end in a tanh that states
    beyond ±1 can't pass (`vae_states: tanh`); actions of the dataset are not clipped to ±0.99;
    a row that is drawn twice counts twice, where on CQL the authors draw actions anew; groups step
    on one backward pass, from the same parameters. λ is constant; in CQL's Lagrange form it
    multiplies the target gap too.
    """

    name = "sung"
    title = "SUNG"
    family = "adaptive constraint"
    constraint_online = "relaxes"
    needs_own_pretraining: ClassVar[bool] = True
    BASES = {"td3_bc": TD3BC, "cql": CQL}  # noqa: RUF012
    Config = SUNGConfig

    config: SUNGConfig

    def build(self, init: SeedStream) -> None:
        super().build(init)
        how = self.config.vae_hidden, self.config.vae_beta, self.config.vae_states
        self.uncertainty = PairUncertainty(self.spec, *how)

    def groups(self) -> dict[str, Group]:
        vae = Group((self.uncertainty.vae,), self.config.vae_learning_rate)
        return super().groups() | {"vae": vae}

    # -- offline: the base unchanged, and before it the VAE

    def offline_plan(self) -> Plan:
        plan = super().offline_plan()
        stage = Stage("vae", VAE_ALONE, (Draw(),), self.config.vae_steps)
        train = plan.train or frozenset(self.base.groups())
        return replace(plan, train=train, first=(*plan.first, stage))

    def begin_stage(self, stage: str, data: Experience) -> None:
        if stage == "vae":
            self.uncertainty.standardise(data.chunks())
        else:
            super().begin_stage(stage, data)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        if active == VAE_ALONE:
            return Losses(vae=self.uncertainty(batch.obs, batch.action, noise))
        return super().loss(batch, noise, active)

    # -- online

    def hand_over(self, data: Experience) -> frozenset[str]:
        fresh = super().hand_over(data)
        for target in self.targets():
            target.copy.load_state_dict(target.network.state_dict())
        if not self.config.reset_optimizers:
            return fresh | VAE_ALONE
        self.base.reset_temperature()
        return frozenset(self.groups())

    def online_plan(self) -> Plan:
        config, plan = self.config, super().online_plan()
        if config.online_share is None:
            return plan
        how = config.online_share, config.newest_rows, config.batch_size, config.capacity
        return replace(plan, draws=newest_and_all(*how))

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        given = batch
        if self.config.gate == "drawn" or "policy" in active:  # else no loss has the constraint
            given = replace(batch, constraint=batch.constraint * self.held(batch, noise))
        losses = super().online_loss(given, noise, active)
        if "vae" in active:
            losses.terms["vae"] = self.uncertainty(batch.obs, batch.action, noise).mean(1)
        return losses

    def held(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return what each row's constraint is multiplied by, `[S, B]`: λ on average."""
        config, rows = self.config, batch.reward.shape[1]
        share, weight = config.constrained_share, config.constraint_weight
        count = max(1, int(share * rows))
        weight = share if weight is None else weight
        if count == rows:
            return torch.full_like(batch.reward, weight)
        with torch.no_grad():
            drawn = config.gate == "drawn"
            action = batch.action if drawn else self.policy.mode(batch.obs)
            u = self.uncertainty(batch.obs, action, noise)
            chosen = softmax_draw(u, noise.uniform(count)) if drawn else u.topk(count).indices
        each = torch.full_like(batch.reward[:, :count], weight * rows / count)
        return torch.zeros_like(batch.reward).scatter_add(1, chosen, each)

    def acting_parts(self) -> tuple[str, ...]:
        exploring = ("base.critic.", "uncertainty.") if self.phase == "online" else ()
        return (*super().acting_parts(), *exploring)

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        if self.phase == "offline":
            return super().explore(obs, noise)
        config = self.config
        actions = self.base.candidates(obs, config.candidate_actions, noise)
        q = self.critic.many(obs, actions)
        value = self.base.followed(q.flatten(2)).unflatten(1, q.shape[2:])
        u = self.uncertainty.many(obs, actions, noise)
        by: tuple[Tensor, Tensor] = (value, u) if config.shortlist_by == "value" else (u, value)
        one = shortlist_draw(*by, config.shortlist_actions, noise.uniform(obs.shape[1], 1))
        return actions.take_along_dim(one.unsqueeze(3), dim=2).squeeze(2).clamp(-1.0, 1.0)
