"""The sampled gradient of CQL's penalty: the same value, the same mean, a spread that M shrinks.

Every seed of an agent gets the same parameters, batch and actions here, and draws of its own for
its gradient: S seeds are S independent draws of one gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch
from baq_cli.agents.registry import METHODS
from baq_cli.nets.streams import SeedStream
from support.builders import (
    ALL_GROUPS,
    UNKNOWN_RETURN,
    KnownNoise,
    backward,
    every_column,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)
from support.chance import is_fair

DRAWS = 4000
SAMPLING = [name for name, method in METHODS.items() if "gradient" in method.Config.model_fields]
"""The methods whose penalty's gradient may be drawn."""
SETTINGS: dict[str, Any] = {"cql_actions": 3, "cql_weight": 3.0, "critics": 2}
SETTINGS["target_reduction"] = "min"  # nothing else is drawn


class SameActions:
    """Every seed gets the same numbers, until the penalty draws which actions to differentiate."""

    def __init__(self, seeds: int):
        self.seeds, self.known = seeds, KnownNoise(1)
        self.generator = torch.Generator().manual_seed(5)

    def normal(self, *shape: int) -> Tensor:
        return self.known.normal(*shape).expand(self.seeds, *shape)

    def uniform(self, *shape: int) -> Tensor:
        if not self.known.uniforms:  # the uniform actions; what follows chooses among all
            return self.known.uniform(*shape).expand(self.seeds, *shape)
        return torch.rand(self.seeds, *shape, generator=self.generator)


def same_agent(algo: str, seeds: int, **settings: Any) -> Any:
    """Return an agent whose seeds are all alike."""
    agent = tiny_agent(algo, tiny_spec(tuple(range(seeds))), **SETTINGS, **settings)
    single = dict(tiny_agent(algo, tiny_spec((0,)), **SETTINGS).named_parameters())
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            parameter.copy_(single[name].expand_as(parameter))
    return agent


def same_batch(seeds: int) -> Batch:
    """Return a batch alike for every seed.

    Of its three rows the calibration binds on no policy action, on some of them, and on all.
    """
    agent, batch = same_agent("cql", 1), tiny_batch(1)
    actions, _ = agent.penalised_actions(batch, KnownNoise(1))
    q = agent.critic.many(batch.obs, actions)[0, :, :, SETTINGS["cql_actions"] :].detach()
    floors = [UNKNOWN_RETURN, float(q[:, 1].median()), float(q[:, 2].max()) + 0.1]
    binds = (q < torch.tensor(floors).view(1, 3, 1)).double().mean((0, 2))
    assert binds[0] == 0
    assert 0 < binds[1] < 1
    assert binds[2] == 1
    returns = torch.tensor(floors, dtype=torch.float64).expand(seeds, 3)
    fields = {n: t.expand(seeds, *t.shape[1:]) for n, t in batch.tensors().items()}
    return Batch.from_tensors(fields | {".mc_return": returns}, {})


def gradients(agent: Any) -> np.ndarray[Any, Any]:
    """Return the critic loss's gradient of every seed, one draw each, `[S, coordinates]`."""
    seeds = len(agent.spec.seeds)
    agent.zero_grad()
    loss, _ = agent.critic_loss(same_batch(seeds), SameActions(seeds))
    loss.sum().backward()
    return torch.cat([p.grad.flatten(1) for p in agent.critic.parameters()], dim=1).numpy()


def sampled(algo: str, count: int) -> np.ndarray[Any, Any]:
    return gradients(same_agent(algo, DRAWS, gradient="sampled", gradient_actions=count))


def standard_errors(drawn: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """Return how far the mean draw is from the exact gradient where it is farthest."""
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    return float((np.abs(drawn.mean(0) - exact) / (error + 1e-12)).max())


# -- the value


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("algo", SAMPLING)
def test_every_loss_term_has_the_value_that_it_has_with_the_full_gradient(
    algo: str, count: int
) -> None:
    columns = every_column() | {"mc_return": [[UNKNOWN_RETURN, 0.1, 5.0]] * 2}
    batch, found = tiny_batch(**columns), []
    for settings in ({}, {"gradient": "sampled", "gradient_actions": count}):
        noise = KnownNoise()
        agent = tiny_agent(algo, **SETTINGS, **settings)
        found.append(terms(agent.loss(batch, noise, ALL_GROUPS)))
        # one more draw, and after the actions: both see the same actions
        assert len(noise.uniforms) == (2 if settings else 1)
    for name, value in found[0].items():
        assert_allclose(found[1][name], value, rtol=1e-13, err_msg=name)


def test_only_the_critics_gradient_is_sampled() -> None:
    batch, found = tiny_batch(**every_column()), []
    for gradient in ("full", "sampled"):
        agent = tiny_agent("cql", **SETTINGS, gradient=gradient)
        backward(agent.loss(batch, KnownNoise(), ALL_GROUPS))
        found.append({n: p.grad for n, p in agent.named_parameters() if p.requires_grad})
    for name in found[0]:
        same = torch.equal(found[0][name], found[1][name])
        assert same != name.startswith("critic."), name


# -- the gradient


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("algo", SAMPLING)
def test_the_mean_of_many_sampled_gradients_is_the_full_one(algo: str, count: int) -> None:
    exact = gradients(same_agent(algo, 1))[0]
    drawn = sampled(algo, count)
    assert (drawn.std(0) > 1e-3).mean() > 0.75, "a gradient that never varies is not a sample"
    assert standard_errors(drawn, exact) < 5


@pytest.mark.parametrize("algo", SAMPLING)
def test_four_actions_leave_a_quarter_of_the_variance_of_one(algo: str) -> None:
    one, four = (sampled(algo, count).var(0).sum() for count in (1, 4))
    assert 0.15 < four / one < 0.4


@pytest.mark.parametrize("algo", SAMPLING)
def test_actions_drawn_by_other_probabilities_would_give_another_mean(
    algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = gradients(same_agent(algo, 1))[0]
    right = CQL.draw_from_softmax
    for wrong in (
        lambda agent, values, noise: right(agent, torch.zeros_like(values), noise),
        lambda agent, values, noise: right(agent, values.flip(1), noise),  # another critic's
    ):
        monkeypatch.setattr(CQL, "draw_from_softmax", wrong)
        assert standard_errors(sampled(algo, 4), exact) > 5, "the check must be able to fail"


@pytest.mark.parametrize("gradient", ["full", "sampled"])
def test_where_every_calibration_binds_cal_ql_pushes_no_value_down(gradient: str) -> None:
    agent = same_agent("cal_ql", 500, gradient=gradient)
    batch = same_batch(500)
    high = torch.full_like(batch.reward, 100.0)  # policy actions outweigh the uniform ones
    batch = replace(batch, columns={"mc_return": high})
    agent.penalty(batch, torch.zeros(500, 2, 3), SameActions(500)).sum().backward()
    assert max(float(p.grad.abs().max()) for p in agent.critic.parameters()) < 1e-12


# -- the draws


def softmax_draws(count: int) -> tuple[np.ndarray[Any, Any], Tensor]:
    """Return how often each action was drawn, `[S, N, B, K]`, and the values they were drawn by."""
    values = 2 * torch.randn(2, 3, 2, 7, generator=torch.Generator().manual_seed(0))
    agent = tiny_agent("cql", critics=3, gradient="sampled", gradient_actions=count)
    drawn = agent.draw_from_softmax(values, SeedStream((0, 1), "draws"))
    assert drawn.shape == (2, 3, 2, count)
    return torch.nn.functional.one_hot(drawn, 7).sum(3).numpy(), values


def test_each_critic_draws_actions_in_proportion_to_its_own_softmax() -> None:
    counts, values = softmax_draws(5000)
    shares = torch.softmax(values, dim=3).numpy()
    for seed, critic, row in np.ndindex(2, 3, 2):
        own = counts[seed, critic, row]
        assert is_fair(own, shares[seed, critic, row])
        assert not is_fair(own, shares[seed, (critic + 1) % 3, row])
        assert not is_fair(own, shares[1 - seed, critic, row])
        assert not is_fair(own, shares[seed, critic, 1 - row])


def test_critics_of_one_mind_draw_apart() -> None:
    agent = tiny_agent("cql", critics=3, gradient="sampled", gradient_actions=64)
    drawn = agent.draw_from_softmax(torch.zeros(2, 3, 2, 7), SeedStream((0, 1), "draws"))
    own = {tuple(drawn[place].tolist()) for place in np.ndindex(2, 3, 2)}
    assert len(own) == 2 * 3 * 2


@pytest.mark.parametrize("u", [2.0**-24, 0.5, 1 - 2.0**-24])
def test_a_draw_never_leaves_the_actions_that_have_probability(u: float) -> None:
    agent = tiny_agent("cql", gradient="sampled")
    values = torch.full((1, 2, 1, 5), float("-inf"))
    values[..., 1:3] = torch.tensor([1e4, 1e4 - 1])
    noise: Any = type("Fixed", (), {"uniform": lambda _, *shape: torch.full((1, *shape), u)})()
    assert set(agent.draw_from_softmax(values, noise).flatten().tolist()) <= {1, 2}
