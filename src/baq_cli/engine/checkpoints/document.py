"""What a checkpoint says of itself, checked before anything is built of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent, method_configs
from baq_cli.engine.experience.store import BLOCK_ROWS
from baq_cli.errors import DataError, Unreadable, UsageError
from baq_cli.recipes.load import reopen
from baq_cli.recipes.schema import MOST_SEEDS
from baq_cli.runs.checked import Checked, Count, Finite, Logs, Name, Size, check_content
from baq_cli.runs.log import Source
from baq_cli.units import Phase
from baq_cli.untrusted import check_arguments

Tensors = Mapping[str, Tensor]
BEHAVIOR = "behavior"
INPUTS = "inputs."
STREAMS = ("stream.noise", "stream.batch", "stream.explore")


class _Spaces(Checked):
    obs_dim: Size
    action_low: list[Finite] = Field(min_length=1)
    action_high: list[Finite]
    obs_layout: list[Annotated[tuple[str, Size], Field(strict=False)]] = Field([])
    action_dtype: Literal["float16", "float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _fit(self) -> _Spaces:
        pairs = list(zip(self.action_low, self.action_high, strict=False))
        if len(self.action_low) != len(self.action_high) or not all(a < b for a, b in pairs):
            raise ValueError("every action_low must have an action_high above it")
        if self.obs_layout and sum(size for _, size in self.obs_layout) != self.obs_dim:
            raise ValueError("obs_layout and obs_dim differ")
        return self


class _Reference(Checked):
    label: str
    random: Finite
    expert: Finite
    source: str

    @model_validator(mode="after")
    def _differ(self) -> _Reference:
        if self.random == self.expert:
            raise ValueError("random and expert are the same")
        return self


class _Observations(Checked):
    """What a dataset's observations are like, a number a dimension."""

    mean: list[Finite]
    std: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class DatasetFields(Checked):
    """The entry of a dataset in a checkpoint or a manifest."""

    id: Name
    sha256: Name
    return_mean: Finite | None = None
    reference: _Reference | None = None
    observations: _Observations | None = None


class _Evaluation(Checked):
    phase: Phase
    seed: Count
    gradient_steps: Count
    env_steps: Count
    episodes: Count
    return_mean: float
    return_std: float
    length_env_steps: float | None
    evaluation_episodes: Count
    wall_seconds: float
    source: Source = "evaluation"


class _Document(Checked):
    algo: str
    phase: Phase
    recipe: dict[str, Any]
    seeds: list[Count] = Field(min_length=1, max_length=MOST_SEEDS)
    env_id: Name | None
    env_args: dict[str, Any] = Field({})
    max_episode_steps: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    spaces: _Spaces
    return_range: list[Finite] = Field(min_length=2, max_length=2)
    dataset: DatasetFields | None
    gradient_steps: Count
    env_steps: Count
    history: list[_Evaluation]

    @model_validator(mode="after")
    def _agree(self) -> _Document:
        if self.algo not in METHODS:
            raise ValueError(f"'{self.algo}' is no method of this version")
        section = self.recipe.get(self.algo)
        if self.recipe.get("algo") != self.algo or not isinstance(section, dict):
            raise ValueError(f"its recipe is not one of '{self.algo}'")
        if "normalize_observations" not in section:
            raise ValueError("its recipe is not whole")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("it names a seed twice")
        if self.phase == "online" and self.env_id is None:
            raise ValueError("it acted online, and names no environment")
        check_arguments(self.env_args)
        known = None if self.dataset is None else self.dataset.observations
        if known and {len(known.mean), len(known.std)} != {self.spaces.obs_dim}:
            raise ValueError("its dataset's statistics are of other observations than its spaces")
        return self


class _State(Checked):
    """The state that every use of a checkpoint needs; for a resume see `resume_state.py`."""

    phase: Phase
    done: Count
    episodes: list[Count]
    threads: int = Field(ge=1, le=4096)
    sizes: Logs
    blocks: int = Field(ge=0, le=10**7)
    others: dict[Literal["offline", "model"], Annotated[int, Field(ge=0, le=10**7)]] = Field({})


def check_document(document: dict[str, Any], file: Path) -> None:
    """Raise DataError, naming the first key that is wrong, unless a document can be used."""
    check_content(_Document, document, file)


def check_state(state: dict[str, Any], document: dict[str, Any], file: Path) -> None:
    """Raise DataError unless a checkpoint's state can be used with its document."""
    check_content(_State, state, file)
    if state["phase"] != document["phase"] or len(state["episodes"]) != len(document["seeds"]):
        raise DataError(f"{file} is damaged: its phase or seeds are not those of the agent")


def check_agent(document: dict[str, Any], tensors: Tensors, file: Path) -> None:
    """Raise DataError unless the tensors are those of the agent that a checked document describes.

    The agent is built for it, of shapes without numbers.
    """
    _check_inputs(document["spaces"]["obs_dim"], tensors, file)
    own = {name: t for name, t in tensors.items() if not name.startswith(INPUTS)}
    seeds = len(document["seeds"])
    for name, tensor in own.items():
        if not tensor.ndim or len(tensor) != seeds:
            raise DataError(
                f"{file} is damaged: its tensor '{name}' has the shape {list(tensor.shape)} for "
                f"{seeds} seeds"
            )
    alone = document.get("kind") == BEHAVIOR
    agent = bare_agent(document, file)
    expected = agent.state_dict()
    if alone:
        parts = agent.acting_parts()
        expected = {name: t for name, t in expected.items() if name.startswith(parts)}
    _compare(own, expected, alone, file)


def bare_agent(document: dict[str, Any], file: Path) -> Agent:
    """Return the agent that a checked document describes, of shapes without numbers.

    Raises DataError where its recipe makes none.
    """
    try:
        recipe = reopen(document["recipe"], method_configs())
    except UsageError as error:
        raise Unreadable(
            f"{file} holds a recipe that this version refuses: {error}. Use the version that wrote "
            "it, or upgrade with 'pip install --upgrade baq-cli'."
        ) from error
    spaces = document["spaces"]
    sizes = spaces["obs_dim"], len(spaces["action_low"])
    spec = Spec(tuple(document["seeds"]), *sizes, device=torch.device("meta"))
    try:
        agent = make_agent(document["algo"], recipe.method, spec, document["phase"])
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise DataError(
            f"{file} is damaged: the networks of its recipe are not those of its tensors ({error})"
        ) from error
    return agent


def _compare(own: Tensors, expected: Tensors, halved: bool, file: Path) -> None:
    differ = sorted(own.keys() ^ expected.keys())
    if differ:
        more = "has" if differ[0] in own else "lacks"
        raise DataError(f"{file} is damaged: it {more} the tensor '{differ[0]}'")
    for name, tensor in expected.items():
        types = (tensor.dtype, torch.float16) if halved else (tensor.dtype,)
        if own[name].shape != tensor.shape or own[name].dtype not in types:
            raise DataError(
                f"{file} is damaged: its tensors don't fit the networks of its recipe: '{name}' is "
                f"{own[name].dtype} {list(own[name].shape)}, the recipe makes it {tensor.dtype} "
                f"{list(tensor.shape)}"
            )


def _check_inputs(obs_dim: int, tensors: Tensors, file: Path) -> None:
    for name, shape, dtype in (
        ("obs_mean", (obs_dim,), torch.float32),
        ("obs_std", (obs_dim,), torch.float32),
        ("reward", (2,), torch.float64),
    ):
        tensor = tensors.get(INPUTS + name)
        if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
            found = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise DataError(
                f"{file} is damaged: {name} is {found}, expected {dtype} {list(shape)} for "
                f"observations of {obs_dim} numbers"
            )
    if not all(math.isfinite(value) for value in tensors[INPUTS + "reward"].tolist()):
        raise DataError(f"{file} is damaged: the units of its rewards are not finite")


def check_streams(training: Tensors, seeds: int, folder: Path) -> None:
    """Raise DataError unless the random streams are there for every seed."""
    for name in STREAMS:
        if name not in training or training[name].shape[:1] != (seeds,):
            raise DataError(f"{folder} is damaged: it lacks the random stream '{name}'")


def check_blocks(store: str, blocks: Sequence[Tensors], seeds: int, folder: Path) -> None:
    """Raise DataError unless the blocks of a store hold rows of one width for every seed.

    Those of the dataset hold its `own` columns, others `rows` and, where they have any, priorities.
    """
    said = "its store" if store == "rows" else f"its {store} store"
    field, widths = "own" if store == "offline" else "rows", set()
    for number, block in enumerate(blocks):
        rows = block.get(field)
        if rows is None or rows.ndim != 3 or rows.dtype != torch.float32:
            raise DataError(f"{folder} is damaged: block {number} of {said} has no {field}")
        full = BLOCK_ROWS if number < len(blocks) - 1 else rows.shape[1]
        widths.add(rows.shape[2])
        if rows.shape[:2] != (seeds, full) or not 1 <= full <= BLOCK_ROWS or len(widths) > 1:
            raise DataError(
                f"{folder} is damaged: block {number} of {said} has the shape "
                f"{list(rows.shape)} for {seeds} seeds"
            )
        priorities = block.get("priorities")
        if priorities is not None and priorities.shape != rows.shape[:2]:
            raise DataError(f"{folder} is damaged: block {number} has other priorities than rows")
