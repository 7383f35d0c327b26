"""A dataset described in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def card(episodes: Episodes, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to know of a dataset; returns are raw, lengths in env_steps."""
    ends = [*episodes.starts[1:].tolist(), len(episodes)]
    last = np.asarray(ends) - 1
    return {
        "dataset": episodes.dataset_id,
        "environment": episodes.env_id,
        "sha256": episodes.content_hash,
        "episodes": len(episodes.starts),
        "env_steps": len(episodes),
        "obs_dim": episodes.spaces.obs_dim,
        "action_dim": episodes.spaces.action_dim,
        "action_low": list(episodes.spaces.action_low),
        "action_high": list(episodes.spaces.action_high),
        "return_mean": float(episodes.returns.mean()),
        "return_std": float(episodes.returns.std()),
        "return_quantiles": _quantiles(episodes.returns),
        "length_quantiles": _quantiles(episodes.lengths),
        "terminated_episodes": int(episodes.terminated[last].sum()),
        "truncated_episodes": int(episodes.truncated[last].sum()),
        "description": str(metadata.get("description", "")),
    }


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{round(100 * q)}%": float(v) for q, v in zip(QUANTILES, found, strict=True)}
