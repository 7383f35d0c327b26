"""A checkpoint brought back to life: its agent, ready to act, and its evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import Parameter

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent, method_configs
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.document import BEHAVIOR
from baq_cli.engine.evaluation.background import Setting
from baq_cli.engine.evaluation.environment import environment_of, limited
from baq_cli.engine.evaluation.limits import rules_of_document
from baq_cli.engine.evaluation.together import evaluate_together, processes_for
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.device import prepare
from baq_cli.envs.pool import Made
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, UsageError
from baq_cli.recipes.load import reopen
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Observer

Array = npt.NDArray[Any]


def load_agent(path: Path, device: str = "cpu") -> tuple[Agent, Inputs, ckpt.Checkpoint]:
    """Build the agent of a checkpoint, ready to act.

    Raises DataError when the checkpoint is missing, damaged, or doesn't fit its own recipe.
    """
    saved = ckpt.load(path)
    agent = build_agent(saved, prepare(device, None), path)
    return agent, Inputs.from_tensors(saved.agent), saved


def build_agent(saved: ckpt.Checkpoint, device: torch.device, path: Path) -> Agent:
    """Build the agent of a checkpoint that was read from `path`.

    Raises DataError when the checkpoint doesn't fit its own recipe.
    """
    document = saved.document
    try:
        recipe = reopen(document["recipe"], method_configs())
    except UsageError as error:
        raise DataError(f"{path} holds a recipe that this version refuses: {error}") from error
    spec, alone = _spec_of(document, device), document.get("kind") == BEHAVIOR
    place = torch.device("meta") if alone else device
    there = replace(spec, device=place)
    agent = make_agent(document["algo"], recipe.method, there, document["phase"])
    tensors = ckpt.agent_tensors(saved)
    if alone:
        _put_in(agent, tensors, spec)
    else:
        load_exactly(agent, tensors, path)
    return agent


def _put_in(agent: Agent, tensors: dict[str, Tensor], spec: Spec) -> None:
    """Give shapes without numbers those that a behaviour has; what acting doesn't need stays so.

    Networks hold on to their parameters, so these are filled and not replaced.
    """
    for name, shape in {**dict(agent.named_parameters()), **dict(agent.named_buffers())}.items():
        if name in tensors:
            filled = tensors[name].to(spec.device, shape.dtype)
            if isinstance(shape, Parameter):
                filled = Parameter(filled, shape.requires_grad)
            torch.utils.swap_tensors(shape, filled)
    for part in agent.modules():
        if isinstance(part, Agent):
            part.spec = spec


def evaluate_checkpoint(
    path: Path,
    env: EnvRef | None,
    episodes: int,
    number: int,
    observer: Observer = lambda event: None,
) -> tuple[Array, Array, ckpt.Checkpoint]:
    """Return raw returns and lengths `[S, episodes]` of a checkpoint's policies.

    Without `env`, they act in the environment that the checkpoint names.
    """
    agent, inputs, saved = load_agent(path)
    trained_for = spaces_of(saved.document)
    env = env or environment_of(saved.document, EnvChoice(), f"the checkpoint {path}")
    env = limited(env, observer, EnvRef.of_document(saved.document))
    made = Made.of(env)
    trained_for.check_same(made.spaces, "the checkpoint", f"environment '{env}'")
    setting = Setting(
        *(_playing(saved, episodes), saved.document["phase"], agent.spec, env),
        save(inputs.tensors()),
        rules_of_document(saved.document, trained_for),
    )
    limit = None if made.spec is None else made.spec.max_episode_steps
    count = processes_for(setting, limit)
    found = evaluate_together(setting, agent, f"command/{number}", count, observer)
    return *found, saved


def _playing(saved: ckpt.Checkpoint, episodes: int) -> Recipe:
    """Return a checkpoint's recipe with so many episodes of an evaluation, all played here."""
    recipe = reopen(saved.document["recipe"], method_configs())
    evaluation = recipe.run.evaluation.model_copy(update={"episodes": episodes})
    changed = {"evaluation": evaluation, "env_timeout_seconds": None}
    return replace(recipe, run=recipe.run.model_copy(update=changed))


def _spec_of(document: dict[str, Any], device: torch.device) -> Spec:
    spaces = spaces_of(document)
    low, high = document["return_range"]
    seeds = tuple(int(seed) for seed in document["seeds"])
    return Spec(seeds, spaces.obs_dim, spaces.action_dim, (low, high), device)


def spaces_of(document: dict[str, Any]) -> Spaces:
    """Return the spaces that a checkpoint's policy was trained for."""
    return Spaces.from_fields(document["spaces"])


def load_exactly(agent: Agent, tensors: dict[str, Tensor], where: Path) -> None:
    try:
        agent.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise DataError(
            f"the checkpoint's tensors don't fit the networks of {where}: "
            f"{' '.join(str(error).split())}"
        ) from error
