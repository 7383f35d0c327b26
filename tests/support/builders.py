"""Small agents, batches, noise and stores for the tests, and numpy passes of their networks.

Nothing here calls the mathematics under test: the passes read the weights and compute in numpy.
Letters in shapes: S seeds, N critics, B rows, K actions a state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import OFFLINE, ONLINE, PLAIN_FIELDS, Batch, Losses, Spec
from baq_cli.agents.plans import Plan, StoreName
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.continuing import renamed
from baq_cli.engine.experience.columns import DATA_COLUMNS, columns_of, data_layout
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.replay import Replay, named_parts, split
from baq_cli.engine.experience.store import END, Store
from baq_cli.engine.experience.stores import annotate, make_stores, odds_of, stores_by_name
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.synthetic import random_rows
from baq_cli.envs.spaces import Spaces
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig
from baq_cli.units import Phase
from support.small_methods import own_sizes

Array = np.ndarray[Any, Any]
UNKNOWN_RETURN = -1e9
EXACT = {"rtol": 1e-9, "atol": 1e-12}
"""What float64 may round, where numbers are computed anew by a formula."""
GAMMA = 0.9
"""Of tiny batches; no method's own default, so that one that used that would be found out."""

# -- cases worked out by hand: two seeds, few rows, float64


def numbers(*shape: int, phase: float = 0.0, size: float = 1.0) -> Array:
    """Return numbers in (−size, size) without a pattern in the axes."""
    return size * np.sin(1.7 * np.arange(np.prod(shape)) + phase).reshape(shape)


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def fill(module: nn.Module, phase: float = 0.0, size: float = 0.6) -> None:
    """Give every parameter known numbers that differ by seed, member, place and network."""
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            values = numbers(*parameter.shape, phase=phase + 0.9 * k, size=size)
            parameter.copy_(torch.from_numpy(values))


def tiny_spec(seeds: tuple[int, ...] = (0, 1), obs_dim: int = 2, action_dim: int = 2) -> Spec:
    return Spec(seeds, obs_dim, action_dim)


def tiny_config(algo: str, **settings: Any) -> AgentConfig:
    """Return a method's configuration with small networks, without what it has no use for."""
    one_layer = {name: value[:1] for name, value in own_sizes(algo, 3, 3).items() if value != 3}
    small: dict[str, Any] = {"hidden": (3,), **one_layer}
    config = METHODS[algo].Config
    return config(**{k: v for k, v in (small | settings).items() if k not in config.unused})


def tiny_agent(
    algo: str, spec: Spec | None = None, phase: Phase = "offline", **settings: Any
) -> Any:
    """Return a float64 agent with filled parameters."""
    config = tiny_config(algo, **settings)
    agent = make_agent(algo, config, spec or tiny_spec(), phase).double()
    fill(agent)
    return agent


def tiny_batch(seeds: int = 2, rows: int = 3, **columns: Any) -> Batch:
    """Return a float64 batch with weights that differ, of both stores, with both kinds of end.

    A terminated row has no next action, and of the others one has none either: it is truncated.
    """
    at = np.arange(seeds * rows).reshape(seeds, rows)
    bootstrap = tensor(at % 3 != 1)
    has_next = bootstrap * tensor(at != 2)
    return Batch(
        obs=tensor(numbers(seeds, rows, 2, phase=0.3)),
        action=tensor(numbers(seeds, rows, 2, phase=1.1, size=0.95)),
        reward=tensor(numbers(seeds, rows, phase=2.2, size=2.0)),
        next_obs=tensor(numbers(seeds, rows, 2, phase=3.4)),
        bootstrap=bootstrap,
        discount=GAMMA * bootstrap,
        weight=tensor(0.5 + 0.1 * at),
        constraint=tensor(np.ones_like(at)),
        source=tensor(np.where(at % 2, ONLINE, OFFLINE)),
        next_action=tensor(numbers(seeds, rows, 2, phase=0.6, size=0.9)) * has_next.unsqueeze(-1),
        has_next=has_next,
        columns={name: tensor(values) for name, values in columns.items()},
    )


def backward(losses: Losses) -> None:
    """Give every parameter the gradient of the terms' sum, over seeds too."""
    sum(losses.terms.values(), torch.zeros(())).sum().backward()


def batch_for(agent: Agent) -> Batch:
    """Return a tiny batch as the agent's plan draws it, with every column that a method may want.

    Three rows stand for `batch_size`, so that it has as many more as the draws' shares say; a part
    that only stages draw is all of it. A window's steps are all valid in the first row, and one
    less in each row after it.
    """
    plan = plan_of(agent)
    counts = split(3, [draw.share for draw in plan.draws])
    rows = sum(counts)
    of_stages = {draw.name: slice(None) for draw in plan.all_draws if draw.name}
    batch = replace(
        tiny_batch(rows=rows, **every_column(rows)),
        parts=of_stages | named_parts(plan.draws, counts),
    )
    seeds, rows, width = batch.action.shape
    if plan.next_action:
        has_next = tensor(np.arange(seeds * rows).reshape(seeds, rows) % 3 != 0)
        action = tensor(numbers(seeds, rows, width, phase=4.5)) * has_next.unsqueeze(-1)
        batch = replace(batch, next_action=action, has_next=has_next)
    if plan.window > 1:
        chunk = tensor(numbers(seeds, rows, plan.window * width, phase=1.1, size=0.95))
        missing = np.arange(seeds * rows).reshape(seeds, rows, 1) % plan.window
        valid = tensor(np.arange(plan.window) < plan.window - missing)
        batch = replace(batch, action=chunk, valid=valid, weight=batch.weight * valid[..., -1])
    return batch


def arrays(batch: Batch) -> SimpleNamespace:
    """Return a batch's fields as numpy arrays."""
    return SimpleNamespace(**{name: getattr(batch, name).numpy() for name in PLAIN_FIELDS})


def every_column(rows: int = 3) -> dict[str, Any]:
    """Return every column that some method asks for, for a tiny batch."""
    of_three = {
        "held_out": [[0, 1, 0], [0, 0, 1]],
        "episode_return": [[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]],
        "intervention": [[0, 1, 0], [1, 0, 0]],
        "episode_length": [[5, 5, 2], [3, 4, 9]],
        "behavior_distance": [[0.2, 0.4, 0.1], [0.3, 0.6, 0.5]],
    }
    again = np.arange(rows) % 3
    columns = {name: np.asarray(values)[:, again] for name, values in of_three.items()}
    return columns | {"mc_return": numbers(2, rows, phase=0.7)}


class KnownNoise:
    """A noise stream whose numbers are formulas; it keeps what it gave, in order."""

    def __init__(self, seeds: int = 2, size: float = 1.5):
        self.seeds, self.size = seeds, size
        self.normals: list[Array] = []
        self.uniforms: list[Array] = []

    def normal(self, *shape: int) -> Tensor:
        phase = 0.5 + len(self.normals)
        self.normals.append(numbers(self.seeds, *shape, phase=phase, size=self.size))
        return tensor(self.normals[-1])

    def uniform(self, *shape: int) -> Tensor:
        phase = 0.2 + len(self.uniforms)
        self.uniforms.append(0.5 + numbers(self.seeds, *shape, phase=phase, size=0.499))
        return tensor(self.uniforms[-1])


ALL_GROUPS = frozenset({"critic", "policy", "value", "temperature", "behavior"})
LOSSES = [(algo, "loss") for algo in sorted(METHODS)]
LOSSES += [
    (algo, "online_loss")
    for algo, method in sorted(METHODS.items())
    if method.online_loss is not Agent.online_loss
]
"""Every method's loss by the name of its function: some have one of their own online."""
FORM: dict[str, Phase] = {"loss": "offline", "online_loss": "online"}
"""The phase that an agent is built for, by the loss that it is to compute."""


def trained_together(agent: Agent) -> list[frozenset[str]]:
    """Return the groups of a phase's main updates, and those of each of its stages."""
    plan = plan_of(agent)
    stages = [*plan.first, *(stage for routine in plan.routines for stage in routine.stages)]
    main = frozenset(agent.groups()) if plan.train is None else plan.train
    return [main, *(stage.groups for stage in stages)]


def terms(losses: Any) -> dict[str, Array]:
    """Return each loss term, `[S]`."""
    return {name: term.detach().numpy() for name, term in losses.terms.items()}


# -- passes of the networks, in numpy


def forward(mlp: Any, x: Array) -> Array:
    """Return the output `[S, N, B, n_out]` of an MLP for `x [S, B, n_in]`."""
    h = np.stack([x] * mlp.members, axis=1)
    for i, layer in enumerate(mlp.layers):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        h = np.einsum("snbi,snio->snbo", h, weight) + bias
        if i == len(mlp.layers) - 1:
            return h
        if len(mlp.norms) and mlp.layer_norm != "after":
            h = normed(mlp.norms[i], h)
        h = activated(mlp.activation, h)
        if mlp.layer_norm == "after":
            h = normed(mlp.norms[i], h)
    raise AssertionError("an MLP has layers")


def normed(norm: Any, h: Array) -> Array:
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return h * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def activated(how: str, h: Array) -> Array:
    if how == "leaky_relu":
        return np.where(h > 0, h, 0.01 * h)
    return gelu(h) if how == "gelu" else np.maximum(h, 0.0)


def gelu(h: Array) -> Array:
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


def q_values(critic: Any, obs: Array, action: Array) -> Array:
    """Return Q_i(s, a), `[S, N, B]`."""
    return forward(critic.net, np.concatenate([obs, action], axis=-1))[..., 0]


def q_many(critic: Any, obs: Array, actions: Array) -> Array:
    """Return Q_i(s, a_k), `[S, N, B, K]`, one action at a time."""
    each = [q_values(critic, obs, actions[:, :, k]) for k in range(actions.shape[2])]
    return np.stack(each, axis=3)


def tanh_mean(policy: Any, obs: Array) -> Array:
    """Return `tanh f(s)`, `[S, B, action_dim]`."""
    return np.tanh(forward(policy.net, obs)[:, 0])


def gaussian_log_prob(policy: Any, obs: Array, action: Array) -> Array:
    """Return the log density of a Gaussian about `tanh f(s)`, `[S, B]`."""
    log_std = np.clip(policy.log_std.detach().numpy(), *policy.log_std_range)
    z = (action - tanh_mean(policy, obs)) / np.exp(log_std)
    return (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def gaussian_sample(policy: Any, obs: Array, eps: Array) -> Array:
    log_std = np.clip(policy.log_std.detach().numpy(), *policy.log_std_range)
    return np.clip(tanh_mean(policy, obs) + np.exp(log_std) * eps, -1, 1)


def squashed_sample(policy: Any, obs: Array, eps: Array) -> tuple[Array, Array]:
    """Return `tanh(μ + σ ε)` and its log density, for eps `[S, B, A]` or `[S, B, K, A]`."""
    mean, log_std = np.split(forward(policy.net, obs)[:, 0], 2, axis=-1)
    if eps.ndim == 4:
        mean, log_std = mean[:, :, None], log_std[:, :, None]
    log_std = np.clip(log_std, *policy.log_std_range)
    action = np.tanh(mean + np.exp(log_std) * eps)
    log_normal = -0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi)
    return action, (log_normal - np.log(1 - action**2)).sum(-1)


def squashed_mode(policy: Any, obs: Array) -> Array:
    return np.tanh(np.split(forward(policy.net, obs)[:, 0], 2, axis=-1)[0])


def td(q: Array, q_target: Array, weight: Array) -> Array:
    """Return `Σ_i mean_B w (Q_i − y)²`, `[S]`."""
    return (weight[:, None] * (q - q_target[:, None]) ** 2).mean(2).sum(1)


# -- what each method bootstraps on, `[S, B]`, from the noise that its loss drew


def _td3_next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    config = agent.config
    eps = config.target_noise * noise.normals[0]
    smoothing = np.clip(eps, -config.target_noise_clip, config.target_noise_clip)
    action = np.clip(tanh_mean(agent.policy_target, b.next_obs) + smoothing, -1.0, 1.0)
    return q_values(agent.critic_target, b.next_obs, action).min(1)


def _awac_next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    action = gaussian_sample(agent.policy, b.next_obs, noise.normals[0])
    return q_values(agent.critic_target, b.next_obs, action).min(1)


def _iql_next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    return forward(agent.value.net, b.next_obs)[:, 0, :, 0]


def temperature(agent: Any) -> Array:
    return np.exp(agent.log_alpha.detach().numpy())


def _sac_next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    action, log_prob = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    entropy = temperature(agent)[:, None] * log_prob if agent.config.entropy_backup else 0.0
    return q_values(agent.critic_target, b.next_obs, action).min(1) - entropy


def _greedy_next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    action = squashed_mode(agent.policy, b.next_obs)
    return q_values(agent.critic_target, b.next_obs, action).min(1)


_NEXT_VALUES: dict[str, Callable[..., Array]] = {
    "td3_bc": _td3_next_value,
    "awac": _awac_next_value,
    "iql": _iql_next_value,
    "sac": _sac_next_value,
    "sac_n": _sac_next_value,
    "rlpd": _sac_next_value,
    "edac": _sac_next_value,
    "rebrac": _td3_next_value,  # as it is online
    "cql": _sac_next_value,
    "cal_ql": _sac_next_value,
    "enoto": _greedy_next_value,
}


def next_value(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    return _NEXT_VALUES[agent.name](agent, b, noise)


# -- runs in small: real float32 agents, stores and learners


def small_spec(seeds: tuple[int, ...], device: str = "cpu") -> Spec:
    return Spec(seeds, obs_dim=3, action_dim=2, device=torch.device(device))


def small_agent(
    algo: str,
    seeds: tuple[int, ...],
    device: str = "cpu",
    phase: Phase = "offline",
    **settings: Any,
) -> Agent:
    settings = {"hidden": (16, 16), "batch_size": 16} | own_sizes(algo, 16, 20) | settings
    return make_agent(algo, tiny_config(algo, **settings), small_spec(seeds, device), phase)


def make_episodes(
    lengths: list[int], terminated: list[bool], rewards: list[float] | None = None
) -> Episodes:
    """Return episodes of the given lengths with reproducible random content."""
    rng = np.random.default_rng(7)
    count, ends = sum(lengths), np.cumsum(lengths) - 1
    last = np.zeros((2, count), dtype=bool)
    last[0, ends], last[1, ends] = terminated, np.logical_not(terminated)
    reward = rng.normal(size=count) if rewards is None else np.asarray(rewards)
    return Episodes(
        dataset_id="made/for-tests-v0",
        spaces=Spaces(3, (-1.0, -1.0), (1.0, 1.0)),
        observations=rng.normal(size=(count + len(lengths), 3)).astype(np.float32),
        action=rng.uniform(-1, 1, size=(count, 2)).astype(np.float32),
        reward=reward.astype(np.float32),
        terminated=last[0],
        truncated=last[1],
        lengths=np.asarray(lengths),
    )


def dataset_store(agent: Agent) -> Store:
    """Return an offline store of ten episodes, with the columns that the agent asks for."""
    episodes = make_episodes([12] * 10, [True, False] * 5)
    inputs = Inputs.fit(agent.config, 3, episodes)
    columns = columns_of(agent, plan_of(agent))
    return offline_store(episodes, inputs, agent.spec, columns, discount_of(agent))


def replay_of(agent: Agent, plan: Plan, stores: dict[StoreName, Store]) -> Replay:
    """Return a replay that draws by a method's plan, as the phase that it is built for would."""
    stream = SeedStream(agent.spec.seeds, f"batch/{agent.phase}", agent.spec.device)
    if plan.model_capacity:
        layout = next(iter(stores.values())).layout
        made = Store(layout, random_rows(layout, (1, 40), agent.spec.device), 40)
        stores = {**stores, "model": made}  # the same of every seed, alone or among others
    how = agent.config.batch_size, discount_of(agent), odds_of(agent, plan), Window.of(plan)
    return Replay(plan.draws, stores, stream, *how)


def plan_of(agent: Agent) -> Plan:
    """Return the plan of the phase that an agent is built for."""
    return agent.offline_plan() if agent.phase == "offline" else agent.online_plan()


def discount_of(agent: Agent) -> float:
    """Return γ of the phase that an agent is built for."""
    return plan_of(agent).discount or agent.config.discount


def offline_replay(agent: Agent) -> Replay:
    return replay_of(agent, agent.offline_plan(), {"offline": dataset_store(agent)})


def reader_of(agent: Agent, store: Store | None) -> StoreReader:
    return StoreReader(agent, stores_by_name(store), discount_of(agent))


def stores_in_reach(
    agent: Any, plan: Plan, offline: Store | None, capacity: int = 64
) -> tuple[Store | None, Store]:
    """Return the stores that fine-tuning would use."""
    return make_stores(agent, plan, offline, capacity)


def add_online(agent: Agent, store: Store, step: int) -> None:
    """Store one made-up transition a seed; it depends on the seed and the step alone."""
    per_seed = [np.random.default_rng([seed, step]) for seed in agent.spec.seeds]

    def draw(make: Callable[[np.random.Generator], Any]) -> Tensor:
        drawn = torch.from_numpy(np.stack([make(rng) for rng in per_seed]))
        return drawn.float().to(agent.spec.device)

    fields = {
        "obs": draw(lambda rng: rng.normal(size=3)),
        "action": draw(lambda rng: rng.uniform(-1, 1, size=2)),
        "next_obs": draw(lambda rng: rng.normal(size=3)),
        "reward": draw(lambda rng: rng.normal()),
        "bootstrap": draw(lambda rng: float(rng.random() < 0.9)),
    }
    known = data_layout(store.layout)
    for name in known.columns:
        fields[name] = torch.full_like(fields["reward"], DATA_COLUMNS[name].running)
    if END in known.columns:
        fields[END] = draw(lambda rng: float(rng.random() < 0.2))
    row = known.pack(fields).unsqueeze(1)
    source = torch.full(row.shape[:2], ONLINE, device=row.device)
    annotated = annotate(agent, known.batch(row, source, discount_of(agent)))
    fields |= {name: column.squeeze(1) for name, column in annotated.items()}
    store.append(store.layout.pack(fields), fields.get("priority"))


def online_form(agent: Agent) -> Agent:
    """Return an online agent that holds what a pre-trained one does, before the switch."""
    online = make_agent(agent.name, agent.config, agent.spec, "online")
    online.to(next(agent.parameters()).dtype)
    taken = renamed(type(online), agent.name, agent.state_dict())
    own = online.state_dict().items()
    fresh = {name: t for name, t in own if name.split(".")[0] in online.fresh_online}
    online.load_state_dict(fresh | taken)
    return online


def handed_over(agent: Agent) -> Any:
    """Return the online agent that the switch makes of a pre-trained one, without data."""
    online = online_form(agent)
    online.hand_over(reader_of(online, None))
    return online


def pretrain(agent: Agent, updates: int) -> tuple[Learner, list[Batch]]:
    """Train offline; return the learner and the batches it saw."""
    learner, replay = Learner(agent), offline_replay(agent)
    batches = [replay.batch() for _ in range(updates)]
    for batch in batches:
        learner.update(batch)
    reader = reader_of(agent, dataset_store(agent))
    agent.assess(reader)
    agent.finish_offline(reader)
    return learner, batches


def finetune(agent: Agent, before: Learner | None, updates: int) -> tuple[Learner, list[Batch]]:
    """Hand a pre-trained agent over and train online, one made-up transition an update.

    The agent stays as it is; the one that is trained is the learner's.
    """
    agent = online_form(agent)
    learner, dataset = Learner(agent), dataset_store(agent)
    fresh = agent.hand_over(reader_of(agent, dataset))
    if before is not None:
        learner.gradient_steps = before.gradient_steps
        learner.restore_optimizers(before.state(), fresh)
    offline, online = stores_in_reach(agent, learner.plan, dataset)
    replay = replay_of(agent, learner.plan, stores_by_name(offline, online))
    batches = []
    for step in range(updates):
        add_online(agent, online, step)
        batches.append(replay.batch())
        learner.update(batches[-1])
    return learner, batches
