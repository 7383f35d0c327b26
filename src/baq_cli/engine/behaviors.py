"""Behaviours: policies that a dataset is collected with, and the files that ship them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baq_cli.agents.base import Agent
from baq_cli.data.collect import Act, collect
from baq_cli.data.minari_source import LoggedEpisode
from baq_cli.engine import checkpoint as ckpt
from baq_cli.engine.device import on_threads
from baq_cli.engine.evaluation import env_seed
from baq_cli.engine.events import Note, Observer
from baq_cli.engine.files import disk_errors, replace_file, tensor_bytes
from baq_cli.engine.inputs import Inputs
from baq_cli.engine.restore import evaluate_checkpoint, load_agent, spaces_of
from baq_cli.envs.pool import environment_spaces
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream

Array = npt.NDArray[Any]
COLLECTING_THREADS = 2
"""Fixed, because the order of a sum depends on it, and a chaotic simulator on every last bit."""


def export_behavior(checkpoint: Path, out: Path, episodes: int) -> dict[str, Any]:
    """Write the policy of a one-seed checkpoint to a small file; return what it says of itself.

    Parameters are kept as float16, and the return is measured on what was kept.
    Raises UsageError for a checkpoint of several seeds.
    """
    saved = ckpt.load(checkpoint)
    seeds = saved.document["seeds"]
    if len(seeds) != 1:
        raise UsageError(f"a behaviour has one seed, {checkpoint} holds {seeds}")
    acting = load_agent(checkpoint)[0].acting_parts()
    tensors = {
        name: tensor.half() if name.startswith(acting) else tensor
        for name, tensor in saved.agent.items()
        if name.startswith((*acting, "inputs."))
    }
    document = {
        "format": ckpt.FORMAT,
        "kind": "behavior",
        **{
            key: saved.document[key]
            for key in (
                *("algo", "phase", "recipe", "seeds", "env_id", "spaces", "return_range"),
                *("gradient_steps", "env_steps", "versions"),
            )
        },
        "dataset": None,
        "history": [],
    }
    with disk_errors(f"write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, tensor_bytes(tensors, document))
    returns, _, _ = evaluate_checkpoint(out, None, episodes, 0)
    document["return_mean"] = float(returns.mean())
    document["return_std"] = float(returns.std())
    document["return_episodes"] = episodes
    with disk_errors(f"write {out}"):
        replace_file(out, tensor_bytes(tensors, document))
    return document


def roll_out(
    behaviors: Sequence[Path],
    env_id: str | None,
    env_steps: int,
    seed: int,
    observer: Observer,
    deterministic: bool = False,
) -> tuple[str, list[LoggedEpisode], list[str]]:
    """Collect equal shares of `env_steps` from each behaviour, exploring unless `deterministic`.

    Returns the environment's id, the episodes, and a line about each behaviour.
    """
    shares = np.diff(np.linspace(0, env_steps, len(behaviors) + 1).round().astype(int))
    episodes: list[LoggedEpisode] = []
    lines = []
    for number, (path, share) in enumerate(zip(behaviors, shares, strict=True)):
        agent, inputs, saved = load_agent(path)
        if len(saved.document["seeds"]) != 1:
            raise UsageError(f"a behaviour has one seed, {path} holds {saved.document['seeds']}")
        env_id = env_id or str(saved.document["env_id"])
        repeated = [other.stem for other in behaviors[:number]].count(path.stem)
        name = f"{path.stem}/{repeated}" if repeated else path.stem
        act = _actor(agent, inputs, None if deterministic else seed, name)
        line = describe(path, saved.document)
        observer(Note(f"collecting {share} environment steps from {line}"))
        spaces_of(saved.document).check_same(
            environment_spaces(env_id), f"the behaviour {path}", f"environment '{env_id}'"
        )
        with on_threads(COLLECTING_THREADS):
            episodes += _collect(env_id, act, int(share), seed, name)
        lines.append(line)
    assert env_id is not None
    return env_id, episodes, lines


def _actor(agent: Agent, inputs: Inputs, noise_seed: int | None, name: str) -> Act:
    """Return a function from raw observations to a one-seed agent's actions.

    With `noise_seed` the agent explores; with None it takes its mode.
    """
    stream = SeedStream((noise_seed or 0,), f"collect/{name}", agent.spec.device)

    def act(obs: Array) -> Array:
        batch = inputs.obs(obs).unsqueeze(0)
        with torch.no_grad():
            action = agent.act(batch) if noise_seed is None else agent.explore(batch, stream)
        return action.squeeze(0).numpy()

    return act


def _collect(env_id: str, act: Act, env_steps: int, seed: int, name: str) -> list[LoggedEpisode]:
    return collect(env_id, act, env_steps, lambda n: env_seed(seed, "collect", name, n))


def describe(path: Path, document: dict[str, Any]) -> str:
    """Return a line about a behaviour: how it was trained, and its return where measured."""
    text = (
        f"{path.stem}: {document['algo']} on {document['env_id']} after "
        f"{document['env_steps']} env_steps"
    )
    if "return_mean" in document:
        text += (
            f", return {document['return_mean']:.0f} ± {document['return_std']:.0f} over "
            f"{document['return_episodes']} episodes of its mode"
        )
    return text
