"""baq: take a logged dataset to a policy that keeps improving online."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.3.0"

if TYPE_CHECKING:
    import os

    from baq_cli.deploy.policy import DeployedPolicy


def load_policy(
    path: str | os.PathLike[str], seed: int | None = None, device: str = "cpu"
) -> DeployedPolicy:
    """Load a checkpoint's policy: `policy(obs)` returns the environment's own actions.

    `path` is a run, a checkpoint folder or an agent.safetensors; of several seeds, `seed` chooses
    one, by default the first. Shapes: `[obs_dim]` to `[action_dim]`, `[B, obs_dim]` to
    `[B, action_dim]`, float32. See `DeployedPolicy` for the rest.
    Raises DataError when the checkpoint is missing or damaged, UsageError for a seed that it
    doesn't hold.
    """
    from baq_cli.deploy.policy import load_policy as load  # PyTorch, when it is needed

    return load(path, seed, device)
