"""The frame of a method: what the engine asks of it, with the answers that most give."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from baq_cli.agents.interface import Batch, Clock, Experience, Group, Losses, Spec, Target
from baq_cli.agents.plans import UNION, Plan, online_and_offline
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.plain import Activation, Norm
from baq_cli.nets.policies import ActingPolicy
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, Initialization
from baq_cli.units import Phase

Module = TypeVar("Module", bound=nn.Module)
FAMILIES = (
    *("actor-critic", "adaptive constraint", "conservative critic", "ensemble"),
    *("generative policy", "imitation", "model-based", "policy constraint", "policy expansion"),
)
"""What keeps a method's policy near its data, or what it adds to actor-critic learning."""

CONSTRAINTS = ("stays", "relaxes", "ends", "none")
"""It holds as before; holds less, at once or by and by; goes with the hand-over; isn't there."""


def frozen_copy(module: Module) -> Module:
    """Return a copy whose parameters take no gradients: a target network, or a kept policy."""
    return copy.deepcopy(module).requires_grad_(False)


class Agent(nn.Module, ABC):
    """A method: its networks, its losses, and what changes at the hand-over.

    A subclass writes `build`, `groups` and `loss`, and overrides the rest where its paper differs.
    Everything that must survive a restart is a parameter or a buffer. S seeds train as one:
    every tensor leads with the seed axis. A subclass's docstring is its card (`cli/cards.py`): what
    it is and its paper in parentheses, then the sections that its phases need.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[str]
    """One of FAMILIES."""
    constraint_online: ClassVar[str] = "none"
    """One of CONSTRAINTS: what its defaults make online of what holds it to its data offline, be it
    a term of its losses, a penalty or the pessimism of an ensemble."""
    learns_offline: ClassVar[bool] = True
    learns_online: ClassVar[bool] = True
    needs_own_pretraining: ClassVar[bool] = False
    """Whether an online phase makes no sense without this method's own pre-training, or that of a
    method that it `inherits` from."""
    inherits: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Where parts of a checkpoint go at the hand-over: by the name of its method (this one's own:
    of its pre-training), how the names of its tensors begin, and how they do online. Where nothing
    is said, names are the same."""
    fresh_online: ClassVar[tuple[str, ...]] = ()
    """Parts that pre-training knows nothing of: where a checkpoint lacks them, they begin anew."""
    ablations: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Settings, by key, each of which takes a part of the method away (`compare --ablate`)."""
    reads_clock: frozenset[str] = frozenset()
    """The scalars of `Clock` that the losses of its phase read. A budget that a run has begun with
    can't be changed at a resume where `share` is among them."""
    chunk: int = 1
    """Actions a decision: `explore` and `act` return so many, which are done one after the other.
    They are asked at every step all the same."""
    data_columns: tuple[str, ...] = ()
    """Columns of a transition that the data provide: `mc_return` (discounted return-to-go, update
    units), `episode_return` (undiscounted, raw units), `episode_length` (env_steps), `held_out`,
    `intervention` (1 where somebody acted in the policy's place, online). A return of an online
    episode is −1e9 until the episode ends, its length 0."""
    Config: ClassVar[type[AgentConfig]] = AgentConfig

    config: AgentConfig
    policy: ActingPolicy

    def __init__(self, config: AgentConfig, spec: Spec, phase: Phase):
        super().__init__()
        self.config = config
        self.spec = spec
        self.phase = phase
        self.clock = Clock(spec.device)
        self.every: dict[str, int] = {}
        self.build(SeedStream(spec.seeds, "init", spec.device))

    # -- what a method must say

    @abstractmethod
    def build(self, init: SeedStream) -> None:
        """Make the networks of `self.phase`, drawing initial weights from `init`.

        What both phases have is drawn first, so that it is the same in either.
        """

    @abstractmethod
    def groups(self) -> dict[str, Group]:
        """Name the parameter groups; a loss term trains the group of its name.

        `self.every[name] = k` updates a group on every k-th gradient step only.
        """

    @abstractmethod
    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        """Return a term for each group in `active`. Pure tensor work on static shapes."""

    # -- what a method may say

    def judging(self) -> frozenset[str]:
        """Return the groups that say what actions are worth, which may be fitted alone."""
        return frozenset({"critic", "value"} & self.groups().keys())

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        """Return the loss after the hand-over; by default the same as before it."""
        return self.loss(batch, noise, active)

    def targets(self) -> list[Target]:
        """Return the networks that copies follow by Polyak averaging, after optimiser steps."""
        return []

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return actions to gather experience with, `[S, E, obs_dim]` to `[S, E, action_dim]`.

        By default drawn from the policy, or its mode where it is no distribution. Where `chunk` is
        above 1, `[S, E, chunk · action_dim]`, the next action first.
        """
        return self.policy.draw(obs, noise)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return the actions to evaluate with, in the same shapes; by default the policy's mode.

        Every episode has noise of its own: what is drawn leads with E.
        """
        return self.policy.mode(obs)

    @property
    def acts_by_its_policy(self) -> bool:
        """Whether `act` is the policy's mode and nothing else."""
        return type(self).act is Agent.act

    def acting_parts(self) -> tuple[str, ...]:
        """Return how the names of the tensors begin that exploring and acting need."""
        return ("policy.",)

    def offline_plan(self) -> Plan:
        """Say how the batches of pre-training are drawn; by default all from the dataset."""
        return Plan()

    def online_plan(self) -> Plan:
        """Say how online batches are drawn, and how often; by default as configured."""
        config = self.config
        share = config.online_share
        draws = (UNION,) if share is None else online_and_offline(share)
        return Plan(draws, config.utd, config.warmup_env_steps, capacity=config.capacity)

    def begin_stage(self, stage: str, data: Experience) -> None:
        """Make ready for a stage before its first update: a model's units, the odds of its draws.

        Called each time that a routine does the stage.
        """

    def assess(self, data: Experience, stage: str | None = None) -> None:
        """Look at the dataset at an evaluation of pre-training, or within and after a stage.

        For the validation of side models: a fixed number of steps, and the best kept per seed.
        """

    def finish_offline(self, data: Experience) -> None:
        """Close pre-training: pick the best side models, measure what the hand-over needs."""

    def refresh(self, routine: str, data: Experience, noise: SeedStream) -> None:
        """Do what a routine does after its stages, such as rolling a model out into its store."""

    def hand_over(self, data: Experience) -> frozenset[str]:
        """Change what the switch changes, once: after tensors are loaded, never at a resume.

        A run that continues an online checkpoint begins with a hand-over too.

        What it changes must be in parameters or buffers; what has another form online is built so
        (`self.phase`). Returns the groups whose optimisers start fresh.
        """
        return frozenset()

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        """Return columns to store with online-phase transitions, each `[S, B]`.

        Called once a transition: for the dataset's at the hand-over, for new ones on entry. The
        column `priority` (not negative) is what prioritised draws use.
        """
        return {}

    def reprioritise(self, batch: Batch) -> Tensor | None:
        """Return the priorities `[S, B]` of a batch's rows from now on; None: no change.

        Tensor work after every update, for methods whose priorities change as they learn. Rows of
        draws that are not prioritised keep theirs, whatever is returned for them.
        """
        return None

    @property
    def reprioritises(self) -> bool:
        """Whether priorities change with the updates of its phase."""
        if type(self).reprioritise is Agent.reprioritise:
            return False
        plan = self.offline_plan() if self.phase == "offline" else self.online_plan()
        return any(draw.prioritised for draw in plan.draws)

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        """See the raw returns and lengths (env_steps) of episodes that just ended, all `[S]`.

        Episodes that a fault of the environment cut short are not among them.
        Returns columns `[S]` by name (its own, `priority` among them, or the data's), which are
        written to the rows of the seeds' finished episodes.
        """
        return {}

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Return what is too dear to log at every update, `[S]` each; called now and then."""
        return {}


def make_critics(
    config: AgentConfig,
    spec: Spec,
    init: SeedStream,
    start: Start | None = None,
    norm: Norm = True,
    activation: Activation = "relu",
    members: int = 1,
) -> tuple[QEnsemble, QEnsemble]:
    """Return the critic ensemble that a configuration describes, and its target copy.

    Weights begin as the configuration says, or as `start` does. `norm` is the place of the
    LayerNorm, where the configuration asks for one. Each of `members` has so many critics; those of
    a member lie together.
    """
    critic = QEnsemble(
        init,
        spec.obs_dim,
        spec.action_dim,
        config.hidden,
        members * config.critics,
        norm if config.layer_norm else False,
        start or critic_start(config),
        activation,
    )
    return critic, frozen_copy(critic)


def critic_start(config: AgentConfig) -> Start:
    """Return how the weights of critics and values begin."""
    return _start(config.initialization, config.last_layer_gain, last_bound=3e-3)


def policy_net(config: AgentConfig) -> dict[str, Any]:
    """Return the hidden layers of a policy's network and how its weights begin, by argument."""
    how = config.policy_initialization or config.initialization
    return {
        "hidden": config.policy_hidden or config.hidden,
        "start": _start(how, config.last_layer_gain, last_bound=1e-3),
    }


def _start(how: Initialization, last_gain: float | None, last_bound: float) -> Start:
    if how != "small_last":
        return Start(how, last_gain)
    bound = last_bound if last_gain is None else None
    return Start(last_gain=last_gain, hidden_bias=0.1, last_bound=bound)


def per_seed(value: float, spec: Spec) -> Tensor:
    """Return a scalar that each seed owns, `[S]`."""
    return torch.full((len(spec.seeds),), value, device=spec.device)
