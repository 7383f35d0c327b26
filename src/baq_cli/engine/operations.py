"""What the commands do: pre-train, fine-tune and evaluate, from recipe to run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy.typing as npt
import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.data.episodes import Episodes
from baq_cli.engine import checkpoint as ckpt
from baq_cli.engine.datasets import open_dataset
from baq_cli.engine.device import prepare
from baq_cli.engine.events import Observer, Phase
from baq_cli.engine.handover import hand_over_optimizers, hand_over_parameters
from baq_cli.engine.inputs import Inputs, offline_store
from baq_cli.engine.interrupt import listen
from baq_cli.engine.learner import Learner
from baq_cli.engine.offline import pretrain
from baq_cli.engine.online import OnlineLoop, finetune
from baq_cli.engine.restore import spaces_of
from baq_cli.engine.run import Origin, Run
from baq_cli.engine.rundir import RunDirectory, git_revision, hardware, versions
from baq_cli.envs.pool import make_env
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.recipes.load import differences, to_yaml
from baq_cli.recipes.schema import Recipe

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Order:
    """Where a run goes, what it was called with, and who watches.

    `command` is what the user typed, kept in the recipe's first line; `resume_command` is what
    continues the run.
    """

    out: Path
    observer: Observer
    command: str
    resume_command: str
    resume: bool = False


def run_pretrain(recipe: Recipe, order: Order) -> Run:
    """Pre-train a method on the recipe's dataset; return the finished run."""
    method = METHODS[recipe.run.algo]
    if not method.learns_offline:
        raise UsageError(
            f"'{method.name}' doesn't learn from a dataset: use 'baq finetune --env ID --algo "
            f"{method.name}', or pre-train one of {_names('learns_offline')}."
        )
    if recipe.run.dataset is None:
        raise UsageError("pre-training needs a dataset: give --dataset ID ('baq data list')")
    device = prepare(recipe.run.device, recipe.run.threads)
    directory = RunDirectory(order.out)
    saved = _saved_run(directory, recipe, order, "offline")
    episodes = open_dataset(recipe.run.dataset, order.observer)
    origin = _origin(recipe.run.env, episodes)
    _check_dataset(saved, episodes)
    spec = Spec(
        recipe.run.seeds,
        episodes.spaces.obs_dim,
        episodes.spaces.action_dim,
        (float(episodes.returns.min()), float(episodes.returns.max())),
        device,
    )
    inputs = (
        Inputs.from_tensors(saved.agent)
        if saved
        else Inputs.fit(recipe.method, spec.obs_dim, episodes)
    )
    agent = make_agent(recipe.run.algo, recipe.method, spec)
    store = offline_store(episodes, inputs, spec, agent.data_columns, recipe.method.discount)
    if saved is None:
        directory.begin(to_yaml(recipe, order.command), _manifest(recipe, origin, order, device))
    with listen() as interruption:
        run = Run(
            recipe,
            "offline",
            origin,
            agent,
            inputs,
            Learner(agent, "offline"),
            directory,
            order.observer,
            interruption,
        )
        pretrain(run, store, saved, order.resume_command)
    run.close()
    return run


def run_finetune(recipe: Recipe, order: Order, source: ckpt.Checkpoint | None) -> Run:
    """Fine-tune from a checkpoint, or from scratch without one; return the finished run."""
    method = METHODS[recipe.run.algo]
    if not method.learns_online:
        raise UsageError(
            f"'{method.name}' has no online phase: continue its checkpoint with --algo, one of "
            f"{_names('learns_online')}."
        )
    device = prepare(recipe.run.device, recipe.run.threads)
    directory = RunDirectory(order.out)
    saved = _saved_run(directory, recipe, order, "online")
    episodes = _finetune_dataset(recipe, source, order.observer)
    origin = _finetune_origin(recipe, source, episodes)
    _check_dataset(source, episodes)
    spec = _finetune_spec(recipe, source, origin, episodes, device)
    agent = make_agent(recipe.run.algo, recipe.method, spec)
    if source is None:
        inputs = Inputs.fit(recipe.method, spec.obs_dim, episodes)
    else:
        inputs = Inputs.from_tensors(source.agent)
        hand_over_parameters(agent, source, recipe, order.observer)
    learner = Learner(agent, "online")
    if source is not None:
        learner.gradient_steps = int(source.document["gradient_steps"])
        if saved is None:
            hand_over_optimizers(learner, source, recipe, order.observer)
    agent.begin_online()
    store = None
    if episodes is not None:
        columns = agent.data_columns
        store = offline_store(episodes, inputs, spec, columns, recipe.method.discount)
    if saved is None:
        directory.begin(to_yaml(recipe, order.command), _manifest(recipe, origin, order, device))
    with listen() as interruption:
        run = Run(
            recipe,
            "online",
            origin,
            agent,
            inputs,
            learner,
            directory,
            order.observer,
            interruption,
        )
        if source is not None and saved is None:
            run.inherit_history(source.document["history"])
        loop = OnlineLoop(run, store, from_scratch=source is None)
        finetune(loop, saved, order.resume_command)
    loop.pool.close()
    run.close()
    return run


# -- parts


def _names(ability: str) -> str:
    return ", ".join(name for name, method in METHODS.items() if getattr(method, ability))


def _saved_run(
    directory: RunDirectory, recipe: Recipe, order: Order, phase: Phase
) -> ckpt.Checkpoint | None:
    """Return the checkpoint to resume from, or None to start.

    Raises UsageError when the folder's run has another phase or recipe, or is there without
    --resume.
    """
    if not directory.holds_run:
        return None
    if not order.resume:
        raise UsageError(
            f"{directory.path} already holds a run: choose another --out, or add --resume."
        )
    saved = ckpt.load(directory.path)
    if saved.document["phase"] != phase:
        raise UsageError(
            f"cannot resume {directory.path}: it holds an {saved.document['phase']} phase, and "
            f"this command runs an {phase} one. Choose another --out."
        )
    changed = differences(saved.document["recipe"], recipe.as_dict())
    if changed:
        raise UsageError(
            f"cannot resume {directory.path} with another recipe: {'; '.join(changed)}. Give the "
            "run's own values (its recipe.yaml), or choose another --out."
        )
    return saved


def _check_dataset(saved: ckpt.Checkpoint | None, episodes: Episodes | None) -> None:
    """Raise DataError when a dataset is not the one that a checkpoint was made with."""
    if saved is None or episodes is None or saved.document["dataset"] is None:
        return
    known = saved.document["dataset"]
    if known["id"] == episodes.dataset_id and known["sha256"] != episodes.content_hash:
        raise DataError(
            f"dataset '{known['id']}' has changed: its content hash is "
            f"{episodes.content_hash[:12]}, the checkpoint was trained on {known['sha256'][:12]}. "
            "Restore that version, or pre-train again."
        )


def _origin(env: str | None, episodes: Episodes) -> Origin:
    env_id = env or episodes.env_id
    if env_id is None:
        raise EnvironmentMismatch(
            f"dataset '{episodes.dataset_id}' names no environment: give one with --env ID"
        )
    made = make_env(env_id)
    spaces = Spaces.of(made.observation_space, made.action_space)
    made.close()
    episodes.spaces.check_same(
        spaces, f"dataset '{episodes.dataset_id}'", f"environment '{env_id}'"
    )
    return Origin.of(env_id, spaces, episodes)


def _finetune_dataset(
    recipe: Recipe, source: ckpt.Checkpoint | None, observer: Observer
) -> Episodes | None:
    dataset = recipe.run.dataset
    if dataset is None and source is not None and source.document["dataset"] is not None:
        dataset = source.document["dataset"]["id"]
    return None if dataset is None else open_dataset(dataset, observer)


def _finetune_origin(
    recipe: Recipe, source: ckpt.Checkpoint | None, episodes: Episodes | None
) -> Origin:
    env_id = recipe.run.env or (source.document["env_id"] if source else None)
    if episodes is not None:
        origin = _origin(env_id, episodes)
    elif env_id is not None:
        made = make_env(env_id)
        origin = Origin(env_id, Spaces.of(made.observation_space, made.action_space))
        made.close()
    else:
        raise UsageError("fine-tuning needs --checkpoint PATH, or --env ID to start from scratch")
    if source is not None:
        trained_for = spaces_of(source.document)
        trained_for.check_same(origin.spaces, "the checkpoint", f"environment '{origin.env_id}'")
    return origin


def _finetune_spec(
    recipe: Recipe,
    source: ckpt.Checkpoint | None,
    origin: Origin,
    episodes: Episodes | None,
    device: torch.device,
) -> Spec:
    returns = (0.0, 1.0)
    if source is not None:
        low, high = source.document["return_range"]
        returns = (low, high)
    elif episodes is not None:
        returns = (float(episodes.returns.min()), float(episodes.returns.max()))
    spaces = origin.spaces
    return Spec(recipe.run.seeds, spaces.obs_dim, spaces.action_dim, returns, device)


def _manifest(recipe: Recipe, origin: Origin, order: Order, device: torch.device) -> dict[str, Any]:
    env_spec = gym.spec(origin.env_id)
    return {
        "command": order.command,
        "algo": recipe.run.algo,
        "seeds": list(recipe.run.seeds),
        "versions": versions(),
        "git_revision": git_revision(),
        "hardware": hardware(device.type),
        "dataset": origin.dataset,
        "environment": {
            "id": origin.env_id,
            "max_episode_steps": env_spec.max_episode_steps,
            "kwargs": {k: repr(v) for k, v in env_spec.kwargs.items()},
        },
    }
