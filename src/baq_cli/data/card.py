"""A dataset described in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes
from baq_cli.data.logs.clipping import clipped_in
from baq_cli.data.logs.logfile import IMPORTED
from baq_cli.data.logs.robots.observed import CONTROL_HZ, control_hz
from baq_cli.data.logs.several import notes_in
from baq_cli.envs.making import as_registered
from baq_cli.envs.scores import known_reference, stored

Array = npt.NDArray[Any]
FROM_RUN = "baq_run"
"""The entry of a dataset's metadata that says which run it was made of."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
BINS = 20
OCCUPIED = 1e-3
"""The share of the actions that a bin must hold to count as covered."""


def card(episodes: Episodes, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to know of a dataset; returns are raw, lengths in env_steps.

    `reward_density` is the share of transitions whose reward isn't 0; `action_coverage` the share
    of twenty equal bins between each action's bounds that hold a thousandth of the actions or
    more, averaged over dimensions; `obs_effective_dims` the participation ratio (Σλ)²/Σλ² of the
    eigenvalues of the observations' correlations; `actions_on_bounds` the share of actions with a
    number exactly on its bound. `clipped_actions` and `import_notes` are what an import kept.
    """
    spaces, origin = episodes.spaces, episodes.origin
    clipped = clipped_in(metadata)
    action = spaces.to_env(episodes.action).astype(np.float32)  # as files of any type are shown
    return {
        "dataset": episodes.dataset_id,
        "environment": None if origin.env is None else str(as_registered(origin.env)),
        "evaluation_environment": (
            None if origin.eval_env is None else str(as_registered(origin.eval_env))
        ),
        "sha256": episodes.content_hash,
        "episodes": len(episodes.lengths),
        "env_steps": len(episodes),
        "obs_dim": spaces.obs_dim,
        "obs_layout": [list(part) for part in spaces.obs_layout],
        "action_dim": spaces.action_dim,
        "action_low": list(spaces.action_low),
        "action_high": list(spaces.action_high),
        "return_mean": float(episodes.returns.mean()),
        "return_std": float(episodes.returns.std()),
        "return_quantiles": _quantiles(episodes.returns),
        "scores": _scores(episodes, metadata),
        "length_quantiles": _quantiles(episodes.lengths),
        "ends": _ends(episodes),
        "reward_range": [float(episodes.reward.min()), float(episodes.reward.max())],
        "reward_density": float((episodes.reward != 0).mean()),
        "obs_min": episodes.observations.min(0).tolist(),
        "obs_max": episodes.observations.max(0).tolist(),
        "obs_effective_dims": _effective_dims(episodes.observations),
        "action_min": action.min(0).tolist(),
        "action_max": action.max(0).tolist(),
        "action_coverage": _coverage(episodes.action),
        "actions_on_bounds": float((np.abs(episodes.action) >= 1).any(1).mean()),
        "clipped_actions": None if clipped is None else clipped.facts,
        "import_notes": notes_in(metadata),
        **_imported(metadata),
        "control_hz": control_hz(metadata.get(CONTROL_HZ)),
        **_from_run(metadata),
        "requirements": list(origin.requirements),
        "warnings": [finding.text for finding in episodes.findings],
        "description": str(metadata.get("description", "")),
    }


def _imported(metadata: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return where an import found the ends of episodes, and which columns it didn't use."""
    said = metadata.get(IMPORTED)
    said = said if isinstance(said, dict) else {}
    return {name: _words(said.get(name)) for name in ("ends_from", "columns_not_used")}


def _from_run(metadata: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return which run a dataset was made of, where one was."""
    said = _words(metadata.get(FROM_RUN))
    return {"from_run": said} if said else {}


def _words(given: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}


def _quantiles(values: Array) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{round(100 * q)}%": float(v) for q, v in zip(QUANTILES, found, strict=True)}


def _ends(episodes: Episodes) -> dict[str, int]:
    last = episodes.starts + episodes.lengths - 1
    terminated, truncated = episodes.terminated[last], episodes.truncated[last]
    return {
        "terminated": int((terminated & ~truncated).sum()),
        "truncated": int((truncated & ~terminated).sum()),
        "both": int((terminated & truncated).sum()),
        "neither": int((~terminated & ~truncated).sum()),
    }


def _scores(episodes: Episodes, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mean return normalised by each reference that is known for it."""
    env = episodes.origin.env
    own = None if env is None else known_reference(as_registered(env))
    known = [stored(metadata, episodes.dataset_id), own]
    return [
        {
            "reference": reference.label,
            "score": float(reference.normalize(float(episodes.returns.mean()))),
            "random": reference.random,
            "expert": reference.expert,
            "source": reference.source,
        }
        for reference in known
        if reference is not None
    ]


def _effective_dims(rows: Array) -> float:
    varied = rows[:, rows.min(0) != rows.max(0)]
    if varied.shape[1] < 2:
        return float(varied.shape[1])
    values = np.clip(np.linalg.eigvalsh(np.corrcoef(varied, rowvar=False)), 0, None)
    return float(values.sum() ** 2 / (values**2).sum())


def _coverage(action: Array) -> float:
    """Return the covered share of the bins, for actions `[M, action_dim]` in [−1, 1]."""
    least = max(1.0, OCCUPIED * len(action))
    counts = [np.histogram(column, BINS, (-1, 1))[0] for column in action.T]
    return float(np.mean([(count >= least).mean() for count in counts]))
