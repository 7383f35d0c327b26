"""Rolling behaviours out into recordings: trained policies, random actions, maze controllers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.data.collect import WIDTH, Act, LoggedEpisode, collect, join
from baq_cli.data.recording import Recording, check_spec
from baq_cli.data.suite import Behavior, Trained, Uniform
from baq_cli.data.waypoints import WaypointController
from baq_cli.engine.checkpoints.restore import load_agent, spaces_of
from baq_cli.engine.collection.behaviors import describe
from baq_cli.engine.evaluation.acting import Player
from baq_cli.engine.evaluation.environment import environment_of, limited
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.engine.updates.device import on_threads
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.envs.pool import environment_spaces
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.events import Note, Observer
from baq_cli.units import amount

Array = npt.NDArray[Any]
WAYPOINT_NOISE = 0.5
"""Standard deviation of the noise on a maze controller's actions, as in the public datasets."""


def roll_out(
    behaviors: Sequence[Behavior | Path],
    choice: EnvChoice,
    env_steps: int,
    seed: int,
    observer: Observer,
    deterministic: bool = False,
    threads: int = 1,
) -> tuple[Recording, list[str]]:
    """Collect equal shares of `env_steps` from each behaviour, exploring unless `deterministic`.

    Returns the recording and a line about each behaviour. Without an id in `choice`, the
    environment is the first trained behaviour's. `threads` is fixed because the data depend on it.
    Raises UsageError when nothing names an environment, or a behaviour has several seeds.
    """
    env = limited(choice.over(None) or _trained_in(behaviors, choice), observer)
    made = make_env(env)
    check_spec(made.spec)  # before hours of collecting, not after
    let_go(made)
    shares = np.diff(np.linspace(0, env_steps, len(behaviors) + 1).round().astype(int))
    episodes: list[LoggedEpisode] = []
    lines: list[str] = []
    names: list[str] = []
    for behavior, share in zip(behaviors, shares.tolist(), strict=True):
        stem = behavior.stem if isinstance(behavior, Path) else behavior.name
        name = f"{stem}/{names.count(stem)}" if stem in names else stem
        names.append(stem)
        act, line = actor_of(behavior, env, name, seed, deterministic)
        observer(Note(f"collecting {amount(share, 'environment step')} from {line}"))
        with on_threads(threads):
            episodes += _collect(env, act, share, seed, name)
        lines.append(line)
    return join(env, episodes, {}), lines


def _collect(env: EnvRef, act: Act, env_steps: int, seed: int, name: str) -> list[LoggedEpisode]:
    return collect(env, act, env_steps, lambda n: env_seed(seed, "collect", name, n))


def _trained_in(behaviors: Sequence[Behavior | Path], choice: EnvChoice) -> EnvRef:
    for behavior in behaviors:
        path = behavior.path if isinstance(behavior, Trained) else behavior
        if isinstance(path, Path):
            document = load_agent(path)[2].document
            return environment_of(document, choice, f"the behaviour {path}")
    raise UsageError("these behaviours fit any environment: name one with --env ID")


def actor_of(
    behavior: Behavior | Path, env: EnvRef, name: str, seed: int, deterministic: bool
) -> tuple[Act, str]:
    """Return a behaviour as a function of raw observations, and a line about it.

    `name` and `seed` name its random numbers; without an exploring one they aren't drawn.
    """
    if isinstance(behavior, Trained):
        behavior = behavior.path
    if isinstance(behavior, Path):
        return _policy(behavior, env, name, None if deterministic else seed)
    stream = SeedStream((seed,), f"collect/{name}", torch.device("cpu"))
    action_dim = environment_spaces(env).action_dim

    def uniform(count: int) -> Array:
        return stream.uniform(count, action_dim).squeeze(0).numpy() * 2 - 1

    if isinstance(behavior, Uniform):
        return (lambda obs, _: uniform(len(obs))), "uniformly random actions"
    controller, share = WaypointController(env), behavior.random_share

    def steer(obs: Array, _: Array) -> Array:
        noise = WAYPOINT_NOISE * stream.normal(len(obs), action_dim).squeeze(0).numpy()
        steered = controller(obs, noise * (not deterministic))
        at_random = stream.uniform(len(obs)).squeeze(0).numpy() < share
        return np.where(at_random[:, None], uniform(len(obs)), steered)

    return steer, f"a waypoint controller, {share:.0%} of its actions random"


def _policy(path: Path, env: EnvRef, name: str, noise_seed: int | None) -> tuple[Act, str]:
    """Return a one-seed policy that explores; with None for `noise_seed` it takes its mode."""
    agent, inputs, saved = load_agent(path)
    if len(saved.document["seeds"]) != 1:
        raise UsageError(f"a behaviour has one seed, {path} holds {saved.document['seeds']}")
    spaces_of(saved.document).check_same(
        environment_spaces(env), f"the behaviour {path}", f"environment '{env}'"
    )
    stream = SeedStream((noise_seed or 0,), f"collect/{name}", agent.spec.device)

    def explore(obs: Tensor, _: SeedStream) -> Tensor:
        return agent.explore(obs, stream)

    decide = agent.act if noise_seed is None else explore
    play = Player(agent, inputs, WIDTH, f"collect/{name}", decide)
    return play, describe(path, saved.document)
