"""A trained policy as a function of raw observations, for use outside of training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.deploy.observations import read_observations
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import build_agent, spaces_of
from baq_cli.engine.evaluation.acting import ActionQueue
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.exports import NoExport, PlainMode
from baq_cli.nets.streams import SeedStream

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OneSeed:
    """One seed of a checkpoint, ready to act; `seeds` are all that the checkpoint holds."""

    agent: Agent
    inputs: Inputs
    spaces: Spaces
    document: dict[str, Any]
    seed: int
    seeds: tuple[int, ...]


def load_one_seed(path: Path, seed: int | None, device: str = "cpu") -> OneSeed:
    """Read one seed of a checkpoint, the first by default; nothing but its agent file is read.

    Raises DataError when the checkpoint is missing, damaged or not finite; UsageError for a seed
    that it doesn't hold, and for a device that isn't here.
    """
    place = _device(device)
    saved = ckpt.load_agent_file(path)
    seeds = tuple(int(held) for held in saved.document["seeds"])
    if seed is None:
        seed = seeds[0]
    if seed not in seeds:
        raise UsageError(f"{path} holds the seeds {list(seeds)}, not {seed}: choose among them")
    row = seeds.index(seed)
    tensors = {
        name: tensor if name.startswith("inputs.") else tensor[row : row + 1]
        for name, tensor in saved.agent.items()
    }
    one = ckpt.Checkpoint(saved.document | {"seeds": [seed]}, tensors)
    agent = build_agent(one, place, path).eval().requires_grad_(False)
    inputs, spaces = Inputs.from_tensors(tensors), spaces_of(saved.document)
    _check_numbers(agent, inputs, spaces, path)
    return OneSeed(agent, inputs, spaces, saved.document, seed, seeds)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device '{name}': expected cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"nothing acts on the device '{name}' here: expected cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device '{name}', but PyTorch sees no CUDA device: use 'cpu'")
    return device


def _check_numbers(agent: Agent, inputs: Inputs, spaces: Spaces, path: Path) -> None:
    """Raise DataError unless everything that an action is computed from is finite, and fits."""
    for name, tensor in (("obs_mean", inputs.obs_mean), ("obs_std", inputs.obs_std)):
        if tuple(tensor.shape) != (spaces.obs_dim,):
            raise DataError(
                f"{path} is damaged: {name} has the shape {list(tensor.shape)} for observations "
                f"of {spaces.obs_dim} numbers"
            )
    acting = {n: t for n, t in agent.state_dict().items() if n.startswith(agent.acting_parts())}
    for name, tensor in (acting | inputs.tensors()).items():
        if not tensor.isfinite().all():
            raise DataError(
                f"the tensor '{name}' of {path} has numbers that are not finite: no action can be "
                "computed from them. Choose an earlier checkpoint."
            )


def plain_mode_of(agent: Agent) -> PlainMode | NoExport:
    """Return the plain layers that a method acts with, or why it doesn't act with such alone."""
    exports = agent.policy.exports
    if isinstance(exports, NoExport):
        return exports
    if agent.chunk > 1:
        return NoExport(f"it decides on {agent.chunk} actions at once")
    if not agent.acts_by_its_policy:
        return NoExport("it acts with more than its policy")
    return exports


class DeployedPolicy:
    """One seed's policy as it is evaluated, from raw observations to the environment's actions.

    `policy(obs)` takes `[obs_dim]` to `[action_dim]`, and `[B, obs_dim]` to `[B, action_dim]`. It
    normalises as in training, acts as `baq eval` does, bit for bit, and scales actions to the
    environment's bounds; they are of its action space's type, contained in that space, and an
    array of their own. Where the environment's observations are a `Dict`, such a mapping does too;
    its parts may have a leading axis B.
    Calls share nothing, so several threads may make them. PyTorch's settings stay as they are:
    for one observation at a time `torch.set_num_threads(1)` is fastest.

    A method that samples when it acts, or decides on several actions at once (`chunk`), is in an
    episode that its calls go through, step by step: `reset()` begins the next. Such a policy is one
    thread's, and of a chunk all calls of an episode have the same number of observations.

    Attributes: obs_dim, action_dim, spaces, env (its id, arguments and limit; None, as env_id is,
    where it was trained on a dataset alone), algo, seed (the one that acts), seeds (those in the
    checkpoint), chunk (actions a decision), obs_mean and obs_std (of the data, `[obs_dim]`; zeros
    and ones where the method doesn't normalise), document (what the checkpoint says of itself:
    recipe, dataset, versions, gradient_steps, env_steps, …).
    Raises DataError for an observation of another shape, or that is not finite.
    """

    def __init__(self, one: OneSeed):
        self._agent, self._inputs = one.agent, one.inputs
        self.spaces, self.document = one.spaces, one.document
        self.obs_dim, self.action_dim = one.spaces.obs_dim, one.spaces.action_dim
        self.env = EnvRef.of_document(one.document)
        self.env_id = self.env and self.env.id
        self.algo = str(one.document["algo"])
        self.seed, self.seeds = one.seed, one.seeds
        self.obs_mean = one.inputs.obs_mean.numpy().copy()
        self.obs_std = one.inputs.obs_std.numpy().copy()
        self.chunk = one.agent.chunk
        self._episodes = 0
        self.reset()
        self._layers = _layers(one.agent)
        self._squashed = bool(self._layers) and one.agent.policy.squashed

    def reset(self, episode: int | None = None, name: str = "deployed") -> None:
        """Begin an episode: what was decided ahead is dropped, and noise is this episode's own.

        It depends on the seed, the name and the episode's number alone, which by default counts the
        calls; the first episode, 0, has begun already. With the name `command/N` episodes have the
        noise of those that `baq eval --number N` plays. Other methods have nothing to begin.
        """
        if episode is None:
            episode, self._episodes = self._episodes, self._episodes + 1
        place = self._agent.spec.device
        self._noise = SeedStream((self.seed,), f"act/{name}/{episode}", place)
        self._queue: ActionQueue | None = None

    def __repr__(self) -> str:
        among = "" if len(self.seeds) == 1 else f" of {', '.join(map(str, self.seeds))}"
        return (
            f"<{self.algo} on {self.env or 'a dataset alone'}, seed {self.seed}{among}: "
            f"observations [{self.obs_dim}] to actions [{self.action_dim}]>"
        )

    def __call__(self, obs: npt.ArrayLike | Mapping[str, Any]) -> Array:
        raw = read_observations(obs, self.spaces)
        with torch.inference_mode():
            if self._layers and raw.size == self.obs_dim:
                action = self._act_on_one(raw)
            else:
                action = self._act(raw.reshape(-1, self.obs_dim))
        if np.isnan(action).any():
            raise DataError(
                "the action is not a number: the observation's numbers are too large for float32. "
                f"The largest is {np.abs(raw).max():.3g}."
            )
        return action.reshape(*raw.shape[:-1], self.action_dim)

    def _act(self, raw: Array) -> Array:
        """Act as evaluation does, `[B, obs_dim]` to `[B, action_dim]`."""
        batch = self._inputs.obs(raw).unsqueeze(0).to(self._agent.spec.device)
        decided = self._agent.act(batch, self._noise).squeeze(0).cpu().numpy()
        return self.spaces.to_env(decided if self.chunk == 1 else self._next(decided))

    def _next(self, decided: Array) -> Array:
        """Return the next action of each episode, `[B, action_dim]`, of what was decided."""
        if self._queue is None:
            self._queue = ActionQueue(len(decided), self.chunk, self.action_dim)
        going_on = len(self._queue.left)
        if len(decided) != going_on:
            raise DataError(
                f"{len(decided)} observations, in the middle of episodes of {going_on}: "
                f"'{self.algo}' decides on {self.chunk} actions at once. Start other episodes with "
                "reset()."
            )
        action = self._queue.head(decided)
        self._queue.done()
        return action

    def _act_on_one(self, raw: Array) -> Array:
        """Do the same sums for one observation, without what surrounds them for the sake of many.

        The matrix products stay batched ones, of one matrix: others round differently.
        """
        h = torch.from_numpy(raw.reshape(1, 1, -1))
        h = (h - self._inputs.obs_mean).div_(self._inputs.obs_std)
        for weight, bias in self._layers[:-1]:
            h = torch.baddbmm(bias, h, weight).relu_()
        weight, bias = self._layers[-1]
        last = torch.baddbmm(bias, h, weight)
        found = (last.tanh_() if self._squashed else last).numpy()[0, 0, : self.action_dim]
        return self.spaces.to_env(found)


def load_policy(
    path: str | os.PathLike[str], seed: int | None = None, device: str = "cpu"
) -> DeployedPolicy:
    """Load a checkpoint's policy, ready to act on raw observations: see `DeployedPolicy`.

    `path` is a run, a checkpoint folder or an agent.safetensors. Of several seeds, `seed` chooses
    one; by default it is the first, which `repr` names. On `cuda` every call waits for the card:
    for one observation at a time the CPU is faster.
    Raises DataError when the checkpoint is missing or damaged, UsageError for a seed that it
    doesn't hold.
    """
    return DeployedPolicy(load_one_seed(Path(path), seed, device))


def _layers(agent: Agent) -> list[tuple[Tensor, Tensor]]:
    """Return weight `[1, n_in, n_out]` and bias `[1, 1, n_out]` of each layer.

    Empty where acting on one observation has no shorter way than acting on many.
    """
    mode = plain_mode_of(agent)
    if isinstance(mode, NoExport) or agent.spec.device.type != "cpu":
        return []
    net = mode.net
    if len(net.norms) or net.members > 1 or net.activation != "relu":
        return []
    layers: list[Any] = list(net.layers)
    return [(layer.weight[0], layer.bias[0]) for layer in layers]
