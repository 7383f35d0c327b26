"""The one place that turns raw observations and rewards into what networks see (law 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.interface import Spec
from baq_cli.data.episodes import Episodes
from baq_cli.engine.experience.columns import DATA_COLUMNS, Logged
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.recipes.closed import AgentConfig

Array = npt.NDArray[Any]
RETURNS_RANGE = 1000.0
"""Between the least and the greatest return of a dataset, in update units (IQL's authors)."""

STATISTICS_ROWS = 65_536
"""Observations that are widened to float64 at a time."""


@dataclass(frozen=True)
class Inputs:
    """Observation statistics and reward units: fixed at pre-training, kept in every checkpoint.

    Shapes: obs_mean, obs_std `[obs_dim]`. Applied alike to the dataset, to the environment during
    fine-tuning and evaluation, and to a deployed policy.
    """

    obs_mean: Tensor
    obs_std: Tensor
    reward_scale: float
    reward_shift: float

    @classmethod
    def fit(cls, config: AgentConfig, obs_dim: int, episodes: Episodes | None) -> Inputs:
        """Take statistics from the dataset where the method wants them, else the identity.

        A `reward_scale` of `returns` is 1000 over the range of the dataset's returns, and 1 where
        they are all the same. `standard` gives the dataset's rewards a mean of 0, and a standard
        deviation of 1 unless they are all the same.
        """
        mean, std = torch.zeros(obs_dim), torch.ones(obs_dim)
        if config.normalize_observations and episodes is not None:
            obs = episodes.obs.astype(np.float64)
            mean = torch.from_numpy(obs.mean(0)).float()
            std = torch.from_numpy(obs.std(0)).float() + 1e-3  # constant dimensions stay finite
        scale = config.reward_scale
        if scale == "returns":
            spread = 0.0 if episodes is None else float(np.ptp(episodes.returns))
            scale = RETURNS_RANGE / spread if spread > 0 else 1.0
        shift = config.reward_shift
        if scale == "standard":
            rewards = np.zeros(1) if episodes is None else episodes.reward.astype(np.float64)
            spread = float(rewards.std())
            scale = 1.0 / spread if spread > 0 else 1.0
            shift -= scale * float(rewards.mean())
        return cls(mean, std, scale, shift)

    def obs(self, raw: Array) -> Tensor:
        """Return normalised observations, `[..., obs_dim]` float32, on the CPU."""
        return (torch.from_numpy(np.ascontiguousarray(raw)) - self.obs_mean) / self.obs_std

    def reward(self, raw: Array) -> Array:
        """Return rewards in the units of updates, `[...]` float64."""
        return np.asarray(raw, dtype=np.float64) * self.reward_scale + self.reward_shift

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, by name."""
        return {
            "inputs.obs_mean": self.obs_mean,
            "inputs.obs_std": self.obs_std,
            "inputs.reward": torch.tensor(
                [self.reward_scale, self.reward_shift], dtype=torch.float64
            ),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Inputs:
        """Read what `tensors()` returned."""
        scale, shift = tensors["inputs.reward"].tolist()
        return cls(tensors["inputs.obs_mean"], tensors["inputs.obs_std"], scale, shift)


def observation_statistics(episodes: Episodes) -> dict[str, list[float]]:
    """Return the `mean` and `std` of each dimension of a dataset's observations, `[obs_dim]`.

    Of the observations that somebody acted at, in float64 whatever their size.
    """
    total, squares, count = 0.0, 0.0, len(episodes)
    rows = np.arange(count) + episodes.episode
    blocks = [rows[i : i + STATISTICS_ROWS] for i in range(0, count, STATISTICS_ROWS)]
    for block in blocks:
        total = total + episodes.observations[block].sum(0, dtype=np.float64)
    mean = np.asarray(total / count)
    for block in blocks:
        squares = squares + np.square(episodes.observations[block] - mean).sum(0)
    return {"mean": mean.tolist(), "std": np.sqrt(squares / count).tolist()}


def offline_store(
    episodes: Episodes, inputs: Inputs, spec: Spec, columns: tuple[str, ...], discount: float
) -> Store:
    """Pack a dataset into one store that every seed shares, rows `[1, M, width]`.

    `columns` names what the method asked of the data; see `columns.DATA_COLUMNS`.
    """
    reward = inputs.reward(episodes.reward)
    logged = Logged(episodes, reward, discount)
    fields = {
        "obs": inputs.obs(episodes.obs),
        "action": torch.from_numpy(episodes.action),
        "next_obs": inputs.obs(episodes.next_obs),
        "reward": torch.from_numpy(reward),
        "bootstrap": torch.from_numpy(~episodes.terminated),
    }
    for name in columns:
        fields[name] = torch.from_numpy(DATA_COLUMNS[name].of_dataset(logged))
    layout = Layout(spec.obs_dim, spec.action_dim, columns)
    rows = layout.pack(fields).unsqueeze(0).to(spec.device)
    return Store(layout, rows, len(episodes))
