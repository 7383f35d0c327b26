"""Small policies in files, for the tests of what acts with them.

Letters in shapes: S seeds, B observations.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.deploy.export import export_policy
from baq_cli.deploy.graphs import FORMATS, FormatName, Run
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import load_agent
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.evaluation.acting import Player
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.spaces import Spaces
from baq_cli.units import Phase
from support.runs import recipe_of

Array = np.ndarray[Any, Any]
ROBOT = Spaces(5, (-2.0, -0.25, 1.0), (2.0, 0.75, 5.0))
PENDULUM = Spaces(3, (-2.0,), (2.0,))
NAMES: tuple[FormatName, ...] = ("onnx", "torchscript")
DATASET = {"id": "made/log-v0", "sha256": "ab" * 32, "episodes": 3}


def write_policy(
    path: Path,
    algo: str = "td3_bc",
    phase: Phase = "offline",
    seeds: tuple[int, ...] = (4, 7),
    spaces: Spaces = ROBOT,
    normalised: bool = True,
    env_id: str = "Robot-v0",
    said: dict[str, Any] | None = None,
    **method: Any,
) -> Path:
    """Write an agent file as a run does, with weights large enough to reach the bounds.

    `said` are entries of its document that are other ones.
    """
    recipe = recipe_of(algo, method, seeds=list(seeds))
    agent = make_agent(algo, recipe.method, Spec(seeds, spaces.obs_dim, spaces.action_dim), phase)
    tensors = {
        n: 2 * t if n.startswith(agent.acting_parts()) else t for n, t in agent.state_dict().items()
    }
    mean, std = torch.zeros(spaces.obs_dim), torch.ones(spaces.obs_dim)
    if normalised:
        mean, std = torch.linspace(-3, 9, spaces.obs_dim), torch.linspace(0.5, 4, spaces.obs_dim)
    document = {
        "format": ckpt.FORMAT,
        "algo": algo,
        "phase": phase,
        "recipe": recipe.as_dict(),
        "seeds": list(seeds),
        "env_id": env_id,
        "spaces": asdict(spaces),
        "return_range": [0.0, 1.0],
        "dataset": DATASET,
        "gradient_steps": 10,
        "env_steps": 20,
        "history": [],
    }
    document |= said or {}
    tensors |= Inputs(mean, std, 1.0, 0.0).tensors()
    path.write_bytes(tensor_bytes(tensors, document))
    return path


def observations(inputs: Inputs, count: int, spread: float = 2.0) -> Array:
    """Return observations `[B, obs_dim]` float32 about the mean, some of them far away."""
    rng = np.random.default_rng(3)
    normal = rng.standard_t(2, size=(count, len(inputs.obs_mean)))
    return (inputs.obs_mean.numpy() + spread * inputs.obs_std.numpy() * normal).astype(np.float32)


def evaluated(path: Path, count: int) -> tuple[Array, Array]:
    """Return observations `[S, B, …]` and the environment's actions that evaluation gives them."""
    agent, inputs, saved = load_agent(path)
    seeds = agent.spec.seeds
    obs = np.stack([observations(inputs, count)] * len(seeds))
    play = Player(agent, inputs, count, "act/0")
    action = play(obs.reshape(-1, obs.shape[-1]), np.tile(np.arange(count), len(seeds)))
    spaces = Spaces.from_fields(saved.document["spaces"])
    return obs, spaces.to_env(action).reshape(len(seeds), count, -1)


def exported(path: Path, name: FormatName, out: Path, **settings: Any) -> Run:
    """Export, and load what was written."""
    export_policy(path, name, out, **settings)
    return FORMATS[name].run(out)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
