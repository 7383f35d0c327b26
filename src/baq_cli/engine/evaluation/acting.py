"""A policy in episodes: the noise that is each episode's own, and actions decided on ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.nets.streams import EpisodeNoise, SeedStream

Array = npt.NDArray[Any]
Decide = Callable[[Tensor, SeedStream], Tensor]
"""What `Agent.act` is."""


class ActionQueue:
    """What K environments are still to do of the actions last decided on, one a step.

    A method may decide on a `chunk` of actions at once. It is asked at every step all the same, and
    its answer is taken where nothing is left of an earlier one. Were it asked only where an answer
    is missing, the random numbers that a seed has drawn would depend on when its neighbours' chunks
    end; and asking for some seeds is no less work than asking for all.

    Shapes: `actions [K, chunk · action_dim]` float32; `left [K]` int64, how many of the last ones
    are still to do, 0 to `chunk`.
    """

    def __init__(self, count: int, chunk: int, action_dim: int):
        self.chunk = chunk
        self.actions = np.zeros((count, chunk * action_dim), dtype=np.float32)
        self.left = np.zeros(count, dtype=np.int64)

    def head(self, decided: Array) -> Array:
        """Return the actions that are next, `[K, action_dim]`, until they are `done`."""
        if self.chunk == 1:
            return decided
        empty = self.left == 0
        self.actions[empty] = decided[empty]
        self.left[empty] = self.chunk
        each = self.actions.reshape(len(self.left), self.chunk, -1)
        return each[np.arange(len(each)), self.chunk - self.left]

    def done(self) -> None:
        """Go on to the actions after those that were next."""
        if self.chunk > 1:
            self.left = np.maximum(self.left - 1, 0)

    def drop(self, over: Array | None = None) -> None:
        """Forget what is left, of the episodes that are over, `[K]`, or of all."""
        if self.chunk > 1:
            self.left[... if over is None else over] = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return what is left, for a checkpoint; nothing where no method decides ahead."""
        if self.chunk == 1:
            return {}
        return {"queue": torch.from_numpy(self.actions), "queue_left": torch.from_numpy(self.left)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors()` returned."""
        if self.chunk > 1:
            self.actions = tensors["queue"].numpy().copy()
            self.left = tensors["queue_left"].numpy().copy()


class Player:
    """A policy that plays the episodes of S seeds, `width` side by side; an `Act`.

    Noise is named `name`, and belongs to an episode: see `EpisodeNoise`. What is left of a chunk
    is dropped where another episode begins.
    """

    def __init__(
        self, agent: Agent, inputs: Inputs, width: int, name: str, decide: Decide | None = None
    ):
        self._inputs, self._decide = inputs, decide or agent.act
        self._shape, self._device = (len(agent.spec.seeds), width), agent.spec.device
        self._noise = EpisodeNoise(agent.spec.seeds, width, name, self._device)
        count = len(agent.spec.seeds) * width
        self._queue = ActionQueue(count, agent.chunk, agent.spec.action_dim)
        self._episode = np.full(count, -1)

    def __call__(self, obs: Array, episode: Array) -> Array:
        self._queue.drop(episode != self._episode)
        self._episode = episode
        self._noise.enter(episode.tolist())
        with torch.no_grad():
            batch = self._inputs.obs(obs).unflatten(0, self._shape).to(self._device)
            decided = self._decide(batch, self._noise)
        action = self._queue.head(decided.cpu().flatten(0, 1).numpy())
        self._queue.done()
        return action
