"""Another policy that acts in the policy's place online, when chance has it so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.intervention_state import STATE, STREAM
from baq_cli.engine.checkpoints.restore import build_agent, spaces_of
from baq_cli.engine.collection.behaviors import describe
from baq_cli.engine.evaluation.acting import ActionQueue
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases.origin import Origin
from baq_cli.errors import DataError
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import MOST_COUNT
from baq_cli.recipes.intervention import InterventionConfig

if TYPE_CHECKING:
    from baq_cli.engine.phases.run import Run

Array = npt.NDArray[Any]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TakeOver:
    """A policy that takes over: one seed of a checkpoint, beside each seed of a run.

    `digest` is of everything that its actions are computed from.
    """

    path: Path
    agent: Agent
    inputs: Inputs
    digest: str
    about: str

    @classmethod
    def read(cls, path: Path, seeds: tuple[int, ...], origin: Origin) -> TakeOver:
        """Read the first seed of a checkpoint or behaviour file; it acts on the CPU.

        Raises DataError and UsageError where it can't be read, or is of other spaces.
        """
        saved = ckpt.load_agent_file(path)
        known = spaces_of(saved.document)
        known.check_same(origin.spaces, f"the policy {path}", f"environment '{origin.env}'")
        first = {
            name: t if name.startswith("inputs.") else t[:1].repeat_interleave(len(seeds), 0)
            for name, t in saved.agent.items()
        }
        document = saved.document | {"seeds": list(seeds)}
        agent = build_agent(ckpt.Checkpoint(document, first), CPU, path).eval()
        return cls(
            path,
            agent.requires_grad_(False),
            Inputs.from_tensors(first),
            _digest(
                {name: t if name.startswith("inputs.") else t[:1] for name, t in first.items()}
            ),
            describe(path, saved.document),
        )

    def streams(self, seeds: Sequence[int]) -> dict[str, SeedStream]:
        """Return the stream of chance, and of its own noise."""
        return {STREAM: SeedStream(tuple(seeds), f"{STREAM}/online", "cpu")}

    def begin(self, run: Run) -> Intervention:
        """Return it in a run, by the rule of its recipe."""
        config = run.recipe.run.takes_over
        assert config is not None
        return Intervention(config, self, run.streams[STREAM])

    def decide(self, obs: Array, noise: SeedStream) -> Array:
        """Return what it would do at raw observations `[S, obs_dim]`, as it is evaluated."""
        with torch.no_grad():
            known = self.inputs.obs(obs).unsqueeze(1)
            return self.agent.act(known, noise).squeeze(1).numpy()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()


class Intervention:
    """Let somebody act in the policy's place, by a rule that chance decides, seed by seed.

    Of all episodes `episode_share` are watched; at each step of a watched one a take-over begins
    with `step_probability`, and goes on for `steps` or until the episode ends. One begins too where
    a limit asks for it. Chance and the other's own noise are drawn at every step and for all seeds,
    from one stream of each seed, so that a seed is the same alone and among others.

    `taken [S]` says whose action the last one chosen was; no episode is marked (`marks [S]` is 0).
    """

    waited_seconds = 0.0

    def __init__(self, config: InterventionConfig, other: TakeOver, stream: SeedStream):
        self._config, self.other, self._stream = config, other, stream
        seeds = len(stream.seeds)
        self._episode = np.full(seeds, -1, dtype=np.int64)
        self._watched, self.taken = (np.zeros(seeds, dtype=np.bool_) for _ in range(2))
        self._left, self.marks = (np.zeros(seeds, dtype=np.int64) for _ in range(2))
        self._queue = ActionQueue(seeds, other.agent.chunk, other.agent.spec.action_dim)

    def choose(
        self, own: Array, obs: Array, episode: Array, asked_for: Sequence[str | None] = ()
    ) -> Array:
        """Return what is done in place of the policy's `own` actions, `[S, action_dim]`.

        `obs [S, obs_dim]` is raw, and `episode [S]` the number of the episode that each seed is in.
        """
        config, new = self._config, episode != self._episode
        chance = self._stream.uniform(2).numpy()
        self._episode = episode.copy()
        self._watched = np.where(new, chance[:, 0] < config.episode_share, self._watched)
        self._left[new] = 0
        begins = self._watched & (chance[:, 1] < config.step_probability)
        begins = (begins | [bool(why) for why in asked_for or [None] * len(new)]) & (
            self._left == 0
        )
        self._left[begins] = config.steps or MOST_COUNT
        self._queue.drop(new | begins)
        theirs = self._queue.head(self.other.decide(obs, self._stream))
        self.taken = self._left > 0
        return np.where(self.taken[:, None], theirs, own)

    def judged(
        self, reward: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array, Array]:
        """Return what a step led to as it is."""
        return reward, terminated, truncated

    def close(self) -> None:
        """Let go of nothing."""

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""
        self._left -= self.taken
        self._queue.done()

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """Return what tells the policy that takes over from another."""
        return {"intervention": {"sha256": self.other.digest}}

    def tensors(self) -> dict[str, Tensor]:
        """Return which take-overs are under way, `[S, 4]` int64, and what was decided on ahead."""
        each = self._episode, self._watched, self._left, self.taken
        state = np.stack([array.astype(np.int64) for array in each], axis=1)
        queue = {f"{STREAM}.{name}": tensor for name, tensor in self._queue.tensors().items()}
        return {STATE: torch.from_numpy(state), **queue}

    def restore(self, saved: ckpt.Checkpoint) -> None:
        """Go on from what `state()` and `tensors()` returned.

        Raises DataError when another policy would take over than before.
        """
        before = saved.state["intervention"]["sha256"]
        if before != self.other.digest:
            raise DataError(
                f"{self.other.path}, which takes over in this run, is no longer what it was when "
                f"the run was saved: its content hash is {self.other.digest[:12]}, it was "
                f"{before[:12]}. Restore that file, or choose another --out."
            )
        state = saved.replay[STATE].numpy().copy()
        self._episode, self._left = state[:, 0], state[:, 2]
        self._watched, self.taken = state[:, 1] > 0, state[:, 3] > 0
        mine = {n: t for n, t in saved.replay.items() if n.startswith(f"{STREAM}.")}
        kept = {name.removeprefix(f"{STREAM}."): tensor for name, tensor in mine.items()}
        expected = {name: tensor.shape for name, tensor in self._queue.tensors().items()}
        if expected != {name: kept[name].shape for name in expected.keys() & kept.keys()}:
            raise DataError(f"{saved.folder} is damaged: its chunk is none of {self.other.path}")
        self._queue.restore(kept)
