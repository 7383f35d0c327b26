"""What is known of online episodes only when they end: who is told, and what is written then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.engine.experience.columns import DATA_COLUMNS, Ended, data_layout
from baq_cli.engine.experience.store import Store
from baq_cli.engine.phases.repeating import RunningEpisode
from baq_cli.engine.phases.run import Run
from baq_cli.errors import nearest

Array = npt.NDArray[Any]


class Endings:
    """Write to the rows of episodes what is known at their end; tell the guard and the method."""

    def __init__(self, run: Run, online: Store):
        self._run, self._online = run, online

    def note(
        self, running: Sequence[RunningEpisode], over: Array, terminated: Array, cut: bool
    ) -> None:
        """Note the ends of those of S running episodes that are `over`, or `cut` short.

        Of an episode that was cut short the method hears nothing: it may be near a good return
        only because it is short. The guard counts it, as its harm is done.
        """
        run = self._run
        ended = [episode if o else None for episode, o in zip(running, over, strict=True)]
        for i, episode in enumerate(ended):
            if episode is not None:
                self._fill_in(i, episode, bool(terminated[i]))
        returns = np.array([sum(e.rewards) if e else 0.0 for e in ended])
        run.guard.episodes_ended(run.env_steps, over, returns)
        if not cut:
            self._tell(over, ended, returns)
        run.episodes += over

    def _tell(self, over: Array, ended: list[RunningEpisode | None], returns: Array) -> None:
        """Let the method see what came of episodes, and write what it says of them."""
        device = self._run.spec.device
        lengths = [float(len(e.rewards)) if e else 0.0 for e in ended]
        columns = self._run.agent.on_episode_end(
            torch.from_numpy(over).to(device),
            torch.tensor(returns.tolist(), device=device),
            torch.tensor(lengths, device=device),
        )
        for name, values in columns.items():
            for i, episode in enumerate(ended):
                if episode is not None:
                    self._write(i, episode, name, values[i].expand(len(episode.slots)))

    def _fill_in(self, i: int, episode: RunningEpisode, terminated: bool) -> None:
        """Write the data columns of a seed's episode that are known only at its end."""
        reward = self._run.inputs.reward(np.asarray(episode.rewards))
        ended = Ended(reward, episode.rewards, terminated, self._run.learner.discount)
        for name in data_layout(self._online.layout).columns:
            at_end = DATA_COLUMNS[name].at_end
            if at_end is not None:
                self._write(i, episode, name, torch.from_numpy(at_end(ended)))

    def _write(self, i: int, episode: RunningEpisode, name: str, values: Tensor) -> None:
        """Write a column of a seed's episode of T steps, `[T]`; raises ValueError for no column."""
        online, known = self._online, self._online.layout.columns
        if name not in known:
            raise ValueError(
                f"'{self._run.agent.name}' fills in the column '{name}' at an episode's end: "
                f"{nearest(name, list(known))}"
            )
        kept = slice(-online.capacity, None)  # earlier steps are overwritten already
        slots = torch.tensor(episode.slots[kept], device=self._run.spec.device)
        online.overwrite(i, slots, name, values[kept])
