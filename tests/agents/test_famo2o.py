"""FamO2O: the β that policies see, one β as the base, and the policy that chooses β."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from baq_cli.agents.parts.family import BalancePolicy, encoding, with_beta
from baq_cli.agents.registry import METHODS
from baq_cli.nets.streams import SeedStream
from support.builders import (
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    fill,
    finetune,
    forward,
    handed_over,
    pretrain,
    q_many,
    q_values,
    small_agent,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)

BASES = METHODS["famo2o"].Config.bases
OFFLINE_AND_ON: Any = pytest.mark.parametrize("phase", ["offline", "online"])
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def family(base: str, phase: Any = "offline", shared: Any = None, **settings: Any) -> Any:
    """Return a tiny family on a base, for whose section the settings are."""
    return tiny_agent("famo2o", phase=phase, base=base, **(shared or {}), **{base: settings})


def losses(agent: Any, batch: Any, noise: Any) -> Any:
    compute = agent.loss if agent.phase == "offline" else agent.online_loss
    return compute(batch, noise, frozenset(agent.groups()))


# -- the family, in numpy


def code(beta: Array) -> Array:
    """Return the six numbers of β, one at a time."""
    waves = [wave(beta / 10_000 ** (2 * i / 6)) for i in range(3) for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=-1)


def seen(obs: Array, beta: Array) -> Array:
    return np.concatenate([obs, code(beta)], axis=-1)


def balance_head(agent: Any, obs: Array) -> tuple[Array, Array]:
    """Return μ and log σ of x, `[S, B, 1]`, before the tanh."""
    gaussian = agent.balance.gaussian
    out = forward(gaussian.net, obs)[:, 0]
    if agent.config.base == "cql":
        return out[..., :1], np.clip(out[..., 1:], -20.0, 2.0)
    log_std = np.clip(gaussian.log_std.detach().numpy(), -10.0, 2.0)
    return out, np.broadcast_to(log_std, out.shape)


def bounds(agent: Any) -> tuple[float, float]:
    section = agent.base.config
    return section.lowest_beta, section.highest_beta


def chosen(agent: Any, obs: Array, eps: Array) -> tuple[Array, Array]:
    """Return β ~ π_b(s) and log π_b of its x, for eps `[S, B, 1]`."""
    mean, log_std = balance_head(agent, obs)
    x = np.tanh(mean + np.exp(log_std) * eps)
    low, high = bounds(agent)
    log_normal = -0.5 * eps**2 - log_std - HALF_LOG_2PI
    return (low + (x + 1) / 2 * (high - low))[..., 0], (log_normal - np.log(1 - x**2))[..., 0]


def uniform_beta(agent: Any, u: Array) -> Array:
    low, high = bounds(agent)
    return low + u * (high - low)


def mean_action(agent: Any, see: Array) -> Array:
    return np.tanh(forward(agent.base.policy.net, see)[:, 0])


def gaussian_action(agent: Any, see: Array, eps: Array, clip: bool) -> Array:
    log_std = np.clip(agent.base.policy.log_std.detach().numpy(), *agent.base.policy.log_std_range)
    action = mean_action(agent, see) + np.exp(log_std) * eps
    return np.clip(action, -1, 1) if clip else action


def gaussian_density(agent: Any, see: Array, action: Array) -> Array:
    log_std = np.clip(agent.base.policy.log_std.detach().numpy(), *agent.base.policy.log_std_range)
    z = (action - mean_action(agent, see)) / np.exp(log_std)
    return (-0.5 * z**2 - log_std - HALF_LOG_2PI).sum(-1)


def tanh_action(agent: Any, see: Array, eps: Array) -> tuple[Array, Array]:
    """Return a sample of CQL's π_u and its log density, for eps `[S, B, A]` or `[S, B, K, A]`."""
    mean, log_std = np.split(forward(agent.base.policy.net, see)[:, 0], 2, axis=-1)
    if eps.ndim == 4:
        mean, log_std = mean[:, :, None], log_std[:, :, None]
    log_std = np.clip(log_std, -20.0, 2.0)
    action = np.tanh(mean + np.exp(log_std) * eps)
    log_normal = -0.5 * eps**2 - log_std - HALF_LOG_2PI
    return action, (log_normal - np.log(1 - action**2)).sum(-1)


# -- what a policy sees


def test_beta_is_seen_as_these_six_numbers() -> None:
    found = encoding(tensor([[0.0, 3.0]]))
    slow = [3 / 10_000 ** (1 / 3), 3 / 10_000 ** (2 / 3)]  # 3 / 21.54, 3 / 464.2
    expected = [math.sin(3), math.cos(3)]
    expected += [math.sin(slow[0]), math.cos(slow[0]), math.sin(slow[1]), math.cos(slow[1])]
    assert_allclose(found, [[[0, 1, 0, 1, 0, 1], expected]], **EXACT)
    assert_allclose(expected[2:], [0.138798, 0.990321, 0.0064633, 0.9999791], atol=1e-6)


def test_it_is_laid_behind_the_observation() -> None:
    obs, beta = tiny_batch().obs, tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert_allclose(with_beta(obs, beta), seen(obs.numpy(), beta.numpy()), **EXACT)


# -- β


limits = st.floats(0.0, 100.0)


@given(
    low=limits,
    high=limits,
    x=st.floats(-1.0, 1.0, width=32) | st.sampled_from([-1.0, 1.0, 1 - 2**-24]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_x_gives_a_beta_outside_its_bounds(
    low: float, high: float, x: float, dtype: torch.dtype
) -> None:
    low, high = sorted((low, high))
    found = BalancePolicy.beta(_bounded(low, high), torch.tensor([[x]], dtype=dtype))
    least, most = (torch.tensor(bound, dtype=dtype) for bound in (low, high))
    assert least <= found <= most
    if low == high:
        assert found == least
    if x == -1.0:
        assert found == least
    if x == 1.0:
        assert_allclose(found, [[most]], rtol=1e-6)


def _bounded(low: float, high: float) -> Any:
    return BalancePolicy(SeedStream((0,), "init"), 2, (low, high), "one", hidden=(2,))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_whatever_the_networks_say_beta_stays_within_its_bounds(base: str, size: float) -> None:
    agent = family(base, lowest_beta=0.7, highest_beta=2.9)
    fill(agent.balance, size=size)
    obs = 10 * tiny_batch(rows=50).obs
    noise = KnownNoise(size=5.0)
    each = agent.balance.sample(obs, noise)[0], agent.balance.mode(obs)
    for beta in (*each, agent.balance.uniform(50, noise)):
        assert beta.shape == (2, 50)
        assert ((beta >= 0.7) & (beta <= 2.9)).all()
    assert agent.balance.uniform(50, noise).detach().max() > 2.8
    assert agent.balance.uniform(50, noise).detach().min() < 0.8


@pytest.mark.parametrize("base", BASES)
def test_a_choice_and_its_density_are_those_of_a_tanh_gaussian(base: str) -> None:
    agent, obs, noise = family(base), tiny_batch().obs, KnownNoise()
    beta, log_prob, std = agent.balance.sample(obs, noise)
    expected, density = chosen(agent, obs.numpy(), noise.normals[0])
    assert_allclose(beta.detach(), expected, **EXACT)
    assert_allclose(log_prob.detach(), density, **EXACT)
    assert_allclose(std, np.exp(balance_head(agent, obs.numpy())[1]).mean((1, 2)), **EXACT)


@pytest.mark.parametrize(("base", "log_std"), [("iql", 0.0), ("awac", 0.0), ("cql", -1.0)])
def test_a_choice_begins_as_wide_as_the_authors_and_its_entropy_weighs_one(
    base: str, log_std: float
) -> None:
    agent: Any = small_agent("famo2o", (0, 1), base=base)
    gaussian = agent.balance.gaussian
    own = gaussian.net.layers[-1].bias[..., 1:] if base == "cql" else gaussian.log_std
    assert (own == log_std).all()
    if base != "cql":  # whose choice has no entropy term
        assert agent.log_temperature.exp().tolist() == [1.0, 1.0]


# -- one β is the base


@pytest.mark.parametrize("base", BASES)
def test_with_one_beta_it_is_its_base(base: str) -> None:
    beta = {"iql": 3.0, "cql": 1.0, "awac": 2.5}[base]
    own = {
        "iql": {"beta": 3.0},
        "cql": {"cql_weight": 1.0, "layer_norm": True},
        "awac": {"temperature": 0.4},
    }[base]
    agent = family(base, lowest_beta=beta, highest_beta=beta)
    plain = tiny_agent(base, **own)
    state = {k: v for k, v in agent.base.state_dict().items() if "policy.net.layers.0" not in k}
    plain.load_state_dict(plain.state_dict() | state)
    first, theirs = agent.base.policy.net.layers[0], plain.policy.net.layers[0]
    with torch.no_grad():
        theirs.weight.copy_(first.weight[..., :2, :])
        theirs.bias.copy_(first.bias + tensor(code(np.array([[beta]]))) @ first.weight[..., 2:, :])

    class AfterBeta(KnownNoise):
        """What is left of the noise once β is drawn: a uniform number offline, and π_b's."""

        def __init__(self) -> None:
            super().__init__()
            self.uniform(3)
            self.normal(3, 1)

    batch = tiny_batch()
    ours = losses(agent, batch, KnownNoise())
    other = plain.loss(batch, AfterBeta(), frozenset(plain.groups()))
    assert {k for k in ours.terms if not k.startswith("balance")} == set(other.terms)
    for name, value in terms(other).items():
        assert_allclose(terms(ours)[name], value, **EXACT, err_msg=name)
    for term in (ours.terms["policy"], other.terms["policy"]):
        term.sum().backward()
    gradients = dict(agent.base.named_parameters())
    for name, parameter in plain.named_parameters():
        if name.startswith("policy.") and "layers.0.weight" not in name:
            assert_allclose(gradients[name].grad, parameter.grad, **EXACT, err_msg=name)


@pytest.mark.parametrize("base", BASES)
def test_a_base_that_is_told_nothing_sees_what_it_did(base: str) -> None:
    agent, batch = tiny_agent(base), tiny_batch()
    assert agent.policy_dim == 2
    assert agent.policy_obs(batch) is batch.obs
    assert agent.policy_next_obs(batch) is batch.next_obs
    assert agent.improvement(batch) == {"iql": 3.0, "awac": 1 / 0.333, "cql": 1.0}[base]


# -- learning


def drawn_beta(agent: Any, b: Any, noise: KnownNoise) -> tuple[Array, Array]:
    """Return the β of π_u at s, and the one of its next action: π_b's choice at s."""
    choice = chosen(agent, b.obs, noise.normals[0])[0]
    offline = agent.phase == "offline"
    return (uniform_beta(agent, noise.uniforms[0]) if offline else choice), choice


def weighed_cloning(agent: Any, b: Any, beta: Array, advantage: Array) -> Array:
    """Return −mean_B[min(exp(β A), 100) log π(a|s, β)], `[S]`."""
    weight = np.minimum(np.exp(beta * advantage), 100.0)
    found: Array = -(weight * gaussian_density(agent, seen(b.obs, beta), b.action)).mean(1)
    return found


@OFFLINE_AND_ON
def test_on_iql_each_row_is_weighed_by_its_own_beta(phase: Any) -> None:
    agent, batch, noise = family("iql", phase), tiny_batch(), KnownNoise()
    found, b = terms(losses(agent, batch, noise)), arrays(batch)
    beta, _ = drawn_beta(agent, b, noise)
    assert len({float(each) for each in beta.flat}) == beta.size, "each row has its own"
    v = forward(agent.base.value.net, b.obs)[:, 0, :, 0]
    advantage = q_values(agent.base.critic_target, b.obs, b.action).min(1) - v
    assert_allclose(found["policy"], weighed_cloning(agent, b, beta, advantage), **EXACT)


@OFFLINE_AND_ON
def test_on_awac_each_row_is_weighed_by_its_own_beta(phase: Any) -> None:
    agent, batch, noise = family("awac", phase), tiny_batch(), KnownNoise()
    found, b = terms(losses(agent, batch, noise)), arrays(batch)
    beta, _ = drawn_beta(agent, b, noise)
    own = gaussian_action(agent, seen(b.obs, beta), noise.normals[2], clip=True)
    q = q_values(agent.base.critic, b.obs, b.action).min(1)
    advantage = q - q_values(agent.base.critic, b.obs, own).min(1)
    assert_allclose(found["policy"], weighed_cloning(agent, b, beta, advantage), **EXACT)


@OFFLINE_AND_ON
def test_on_cql_the_policy_follows_values_as_far_as_its_beta_says(phase: Any) -> None:
    agent, batch, noise = family("cql", phase), tiny_batch(), KnownNoise()
    found, b = terms(losses(agent, batch, noise)), arrays(batch)
    beta, _ = drawn_beta(agent, b, noise)
    action, log_prob = tanh_action(agent, seen(b.obs, beta), noise.normals[4])
    alpha = np.exp(agent.base.log_alpha.detach().numpy())[:, None]
    q = q_values(agent.base.critic, b.obs, action).min(1)
    assert_allclose(found["policy"], (alpha * log_prob - beta * q).mean(1), **EXACT)


@OFFLINE_AND_ON
@pytest.mark.parametrize("base", sorted({*BASES} - {"iql"}))  # whose target is V's
def test_targets_take_the_next_action_at_the_beta_chosen_at_s(base: str, phase: Any) -> None:
    agent, batch, noise = family(base, phase), tiny_batch(), KnownNoise()
    if base == "cql":
        agent.base.drop_constraint()
    found, b = terms(losses(agent, batch, noise)), arrays(batch)
    at_s, at_next = (chosen(agent, obs, noise.normals[0])[0] for obs in (b.obs, b.next_obs))
    assert not np.allclose(at_s, at_next)
    see, eps = seen(b.next_obs, at_s), noise.normals[1]
    if base == "cql":
        after = tanh_action(agent, see, eps)[0]
    else:
        after = gaussian_action(agent, see, eps, clip=True)
    next_q = q_values(agent.base.critic_target, b.next_obs, after).min(1)
    q = q_values(agent.base.critic, b.obs, b.action)
    assert_allclose(
        found["critic"], td(q, b.reward + GAMMA * b.bootstrap * next_q, b.weight), **EXACT
    )


@OFFLINE_AND_ON
def test_cqls_penalty_has_each_state_at_its_own_beta(phase: Any) -> None:
    agent, batch, noise = family("cql", phase, cql_actions=2), tiny_batch(), KnownNoise()
    gap, b = losses(agent, batch, noise).metrics["cql_gap"], arrays(batch)
    beta, next_beta = drawn_beta(agent, b, noise)
    here, log_here = tanh_action(agent, seen(b.obs, beta), noise.normals[2])
    after, log_after = tanh_action(agent, seen(b.next_obs, next_beta), noise.normals[3])
    uniform = 2 * noise.uniforms[-1] - 1
    density = np.concatenate([np.full(log_here.shape, -2 * math.log(2)), log_here, log_after], 2)
    actions = np.concatenate([uniform, here, after], 2)
    values = q_many(agent.base.critic, b.obs, actions) - density[:, None]
    every = np.log(np.exp(values).sum(3))
    expected = (every - q_values(agent.base.critic, b.obs, b.action)).mean(2).sum(1)
    assert_allclose(gap, expected, **EXACT)


# -- π_b


def value_of(agent: Any, obs: Array, beta: Array, eps: Array) -> Array:
    """Return the least value of π_u's action at β, by the critics that choose, `[S, B]`."""
    see = seen(obs, beta)
    if agent.config.base == "cql":
        action = tanh_action(agent, see, eps)[0]
    else:
        action = gaussian_action(agent, see, eps, clip=False)
    judge = agent.base.critic_target if agent.config.base == "iql" else agent.base.critic
    return q_values(judge, obs, action).min(1)


@OFFLINE_AND_ON
@pytest.mark.parametrize("base", BASES)
def test_beta_is_chosen_by_the_value_of_what_its_policy_does(base: str, phase: Any) -> None:
    agent, batch, noise = family(base, phase), tiny_batch(), KnownNoise()
    fill(agent.base.critic_target, phase=0.8)
    found, b = terms(losses(agent, batch, noise)), arrays(batch)
    beta, log_prob = chosen(agent, b.obs, noise.normals[0])
    value = value_of(agent, b.obs, beta, noise.normals[-1]).mean(1)
    if base == "cql":
        assert "balance_temperature" not in found
        assert_allclose(found["balance"], -value, **EXACT)
        return
    temperature = np.exp(agent.log_temperature.detach().numpy())
    assert_allclose(found["balance"], temperature * log_prob.mean(1) - value, **EXACT)
    expected = temperature * (-log_prob.mean(1) + 0.5)
    assert_allclose(found["balance_temperature"], expected, **EXACT)


def test_an_entropy_term_can_be_had_on_cql_and_none_on_iql() -> None:
    with_term = family("cql", balance_target_entropy=-1.0)
    assert "balance_temperature" in losses(with_term, tiny_batch(), KnownNoise()).terms
    assert "balance_temperature" not in family("iql", balance_target_entropy=None).groups()


@pytest.mark.parametrize("base", BASES)
def test_gradients_reach_beta_through_what_the_policy_sees_alone(base: str) -> None:
    agent, batch, b = family(base), tiny_batch(), arrays(tiny_batch())
    beta = tensor(numbers_between(1.1, 1.4)).requires_grad_()
    noise = KnownNoise()
    agent.base.value_at(batch.obs, beta, noise).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in agent.parameters())
    step = 1e-6
    value = [
        value_of(agent, b.obs, beta.detach().numpy() + h, noise.normals[0]) for h in (step, -step)
    ]
    slope = (value[0] - value[1]) / (2 * step)
    assert np.abs(slope).max() > 1e-3
    assert_allclose(beta.grad, slope, rtol=1e-5, atol=1e-8)


def numbers_between(low: float, high: float) -> Array:
    return np.linspace(low, high, 6).reshape(2, 3)


@pytest.mark.parametrize("base", BASES)
def test_the_base_learns_nothing_into_the_choice_nor_the_choice_into_the_base(base: str) -> None:
    agent = family(base, "online")
    found = losses(agent, tiny_batch(), KnownNoise())
    for name, term in found.terms.items():
        agent.zero_grad()
        term.sum().backward(retain_graph=True)
        moved = {n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None}
        own = {"balance": {"balance"}, "balance_temperature": {"log_temperature"}}
        assert moved == own.get(name, {"base"}), name


def test_the_choice_steps_now_and_then_as_its_base_says() -> None:
    every = {"iql": 5, "awac": 5, "cql": 1}
    for base in BASES:
        agent = family(base)
        steps = {agent.every.get(name, 1) for name in agent.groups() if "balance" in name}
        assert steps == {every[base]}
        idle = frozenset(agent.base.groups())
        assert set(agent.loss(tiny_batch(), KnownNoise(), idle).terms) == idle


# -- acting, and the hand-over


@pytest.mark.parametrize("base", BASES)
def test_it_acts_at_the_likeliest_beta_and_explores_by_the_policy_there(base: str) -> None:
    agent, obs, noise = family(base, "online"), tiny_batch().obs, KnownNoise()
    mean, _ = balance_head(agent, obs.numpy())
    low, high = bounds(agent)
    see = seen(obs.numpy(), (low + (np.tanh(mean) + 1) / 2 * (high - low))[..., 0])
    mode = np.tanh(forward(agent.base.policy.net, see)[:, 0, :, :2])
    assert_allclose(agent.act(obs, noise).detach(), mode, **EXACT)
    explored = agent.explore(obs, noise).detach()
    assert len(noise.normals) == 1, "β is not drawn"
    if base == "cql":
        expected = tanh_action(agent, see, noise.normals[0])[0]
    else:
        expected = gaussian_action(agent, see, noise.normals[0], clip=True)
    assert_allclose(explored, expected, **EXACT)


def test_what_acts_is_among_the_acting_parts() -> None:
    agent, obs = family("iql"), tiny_batch().obs
    action = agent.act(obs, KnownNoise())
    with torch.no_grad():
        for name, each in agent.state_dict().items():
            if not name.startswith(agent.acting_parts()):
                each.add_(1.0)
    assert torch.equal(agent.act(obs, KnownNoise()), action)


@pytest.mark.parametrize("base", BASES)
def test_the_hand_over_changes_nothing_but_whose_beta_it_is(base: str) -> None:
    agent: Any = small_agent("famo2o", (0, 1), base=base)
    before, _ = pretrain(agent, 4)
    online = handed_over(agent)
    for name, value in agent.state_dict().items():
        assert torch.equal(online.state_dict()[name], value), name
    assert online.hand_over(None) == frozenset()
    if base == "cql":
        assert online.base.penalised
    (draw,) = online.online_plan().draws
    assert draw.stores == ("offline", "online")
    assert not online.online_plan().warmup_env_steps
    learner, _ = finetune(agent, before, 10)
    after: Any = learner.agent.state_dict()
    moved = {
        name.split(".")[0]
        for name, value in online.state_dict().items()
        if not torch.equal(after[name], value)
    }
    assert moved >= {"base", "balance"}


# -- settings


def test_what_is_shared_has_cqls_defaults_with_cql() -> None:
    config = family("iql").Config
    found = {base: config(base=base) for base in BASES}
    assert [found[base].layer_norm for base in BASES] == [False, True, False]
    assert [found[base].reward_scale for base in BASES] == ["returns", 1.0, "returns"]
    assert found["cql"].base_config().layer_norm
    assert config(base="cql", reward_scale=2.0).reward_scale == 2.0


def test_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="lowest_beta 6 is above highest_beta 5"):
        family("iql", lowest_beta=6.0)


@pytest.mark.parametrize(("base", "idle"), [("iql", "beta"), ("awac", "temperature")])
def test_what_a_base_does_with_one_beta_has_no_place_in_its_section(base: str, idle: str) -> None:
    with pytest.raises(ValueError, match=f"'{idle}' has no effect"):
        family(base, **{idle: 2.0})
    assert idle not in family(base).config.model_dump(mode="json")[base]
