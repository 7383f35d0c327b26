"""Side models inside an update: recorded, they train as they do eagerly, in every bit."""

from __future__ import annotations

from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.parts.dynamics import GaussianDynamics
from baq_cli.agents.parts.vae import VAE
from baq_cli.agents.sac import SAC
from baq_cli.nets.streams import SeedStream
from support.own_methods import assert_recorded_is_eager


class Modelling(SAC):
    """SAC beside an auto-encoder, which its policy is held to, and a dynamics model."""

    def build(self, init: SeedStream) -> None:
        super().build(init)
        actions, states = self.spec.action_dim, self.spec.obs_dim
        self.vae = VAE(init, actions, states, 2 * actions, bounded=actions, hidden=(16, 16))
        self.dynamics = GaussianDynamics(self.spec, (16, 16), members=3, elites=2)

    def groups(self) -> dict[str, Group]:
        models = {"vae": (self.vae,), "dynamics": (self.dynamics.learner,)}
        return super().groups() | {name: Group(of, 1e-3) for name, of in models.items()}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        action, _ = self.policy.sample(batch.obs, noise)
        strange = self.vae.negative_elbo(action, batch.obs, noise, frozen=True)
        imagined = self.dynamics.step(batch.obs, batch.action, noise)
        losses.terms["policy"] = losses.terms["policy"] + strange.mean(1)
        losses.terms["vae"] = self.vae.negative_elbo(batch.action, batch.obs, noise).mean(1)
        losses.terms["dynamics"] = self.dynamics.fit_loss(batch)
        losses.metrics["penalty"] = imagined.penalty.mean(1)
        likely = self.vae.log_likelihood(batch.action, batch.obs, noise, 3, frozen=True)
        losses.metrics["likely"] = likely.mean(1).detach()
        return losses


def test_a_recorded_update_with_side_models_is_the_eager_one_in_every_bit() -> None:
    assert_recorded_is_eager(Modelling)
