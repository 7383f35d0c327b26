"""The schema of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from baq_cli.machine import MOST_THREADS
from baq_cli.recipes.closed import MOST_COUNT, AgentConfig, Closed
from baq_cli.recipes.control import ControlConfig
from baq_cli.recipes.intervention import InterventionConfig
from baq_cli.recipes.safety import SafetyConfig
from baq_cli.untrusted import MOST_NAME, check_arguments, is_dataset_id

MOST_SEEDS = 10_000
"""Each has its own generators and networks; a list of more is a mistake."""
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


def _dataset_id(name: str) -> str:
    if not is_dataset_id(name):
        raise ValueError("a dataset's id has letters, digits, - and _, as me/task/name-v0")
    return name


DatasetId = Annotated[str, AfterValidator(_dataset_id)]


ProtocolName = Literal["published", "matched"]
ChosenFrom = Literal["online", "final", "pretraining", "offline"]
MOST_TRIALS = 1_000
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)


class EvaluationConfig(Closed):
    """When and how long policies are evaluated."""

    episodes: int = Field(10, ge=1, le=100_000, description="episodes a seed and evaluation")
    every_gradient_steps: int | None = Field(
        None, ge=1, description="offline; null: a tenth of the phase"
    )
    every_env_steps: int | None = Field(
        None, ge=1, description="online; null: a tenth of the phase"
    )
    background: bool | None = Field(
        None, description="in a process of its own, while training goes on; null: on free cores"
    )
    estimate_updates: int = Field(
        500, ge=1, le=MOST_COUNT, description="without an environment: updates of each estimate"
    )


class HarmBound(Closed):
    """How many bad online episodes a seed may have."""

    episode_return: float = Field(description="raw return below which an episode is bad")
    episodes: int = Field(0, ge=0, description="how many of them are allowed")


class GuardConfig(Closed):
    """What protects a policy from its own fine-tuning.

    It looks at the recipe's evaluations (`evaluation.every_env_steps`), seed by seed.
    """

    action: Literal["off", "warn", "stop", "rollback"] = Field(
        "off", description="what follows when a seed does too badly"
    )
    max_drop: float | None = Field(
        None, gt=0, description="raw return that evaluations may lie below the hand-over score"
    )
    patience: int = Field(2, ge=1, description="evaluations in a row that lie lower than that")
    shrink: float = Field(
        0.5, gt=0, le=1, description="rollback: what remains of the size of the seed's updates"
    )
    max_online_episodes_below: HarmBound | None = None

    @model_validator(mode="after")
    def _watches_something(self) -> GuardConfig:
        watched = self.max_drop is not None or self.max_online_episodes_below is not None
        if self.action != "off" and not watched:
            raise ValueError("a guard needs max_drop or max_online_episodes_below")
        return self


class RunConfig(Closed):
    """A recipe without its method's section."""

    algo: str = Field(description="the method's name")
    dataset: DatasetId | None = Field(None, description="a Minari dataset id")
    env: str | None = Field(
        None, max_length=MOST_NAME, description="a Gymnasium id; null: the dataset's environment"
    )
    env_args: dict[str, Any] | None = Field(
        None, description="the environment's arguments, by name"
    )
    max_episode_steps: int | None = Field(
        None, ge=1, le=MOST_COUNT, description="limit of an episode; null: the environment's"
    )
    end_at_reward: float | None = Field(
        None,
        description="the dataset's episodes end, terminated, at their first reward of at least "
        "this; null: as they were recorded",
    )
    no_env: bool = Field(
        False, description="offline: no environment is made; what a policy is worth is estimated"
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=MOST_SEEDS)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(
        None, ge=1, le=MOST_THREADS, description="CPU threads here; null: the faster of one and all"
    )
    capture: bool = Field(True, description="replay updates: graphs (CUDA), records (CPU)")
    tf32: bool = Field(False, description="CUDA: matrix products in TF32, faster and coarser")
    gradient_steps: int = Field(100_000, ge=1, le=MOST_COUNT, description="offline updates a seed")
    env_steps: int = Field(
        100_000, ge=1, le=MOST_COUNT, description="online environment steps a seed"
    )
    env_workers: bool | None = Field(
        None, description="step environments in processes of their own; null: when they are slow"
    )
    env_timeout_seconds: float | None = Field(
        None,
        gt=0,
        description="a step that takes longer has failed; steps in processes, evaluations' too",
    )
    env_restarts: int = Field(
        3, ge=0, description="how often environments that failed are made anew"
    )
    acting: Literal["auto", "cpu", "device"] = Field(
        "auto", description="where exploring actions are computed; auto: where that is faster"
    )
    overlap: bool = Field(
        False, description="update while the environments step: actions are one step older"
    )
    critic_updates: int | None = Field(
        None,
        ge=0,
        le=MOST_COUNT,
        description="online: updates of critics alone after the warm-up; null: none",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    guard: GuardConfig = GuardConfig()
    intervention: InterventionConfig | None = None
    safety: SafetyConfig | None = None
    shadow: str | None = Field(
        None, max_length=MOST_NAME, description="policy:PATH acts at every step; this one proposes"
    )
    control: ControlConfig | None = None
    keep_checkpoints: int = Field(2, ge=1, description="complete checkpoints kept a phase")
    keep_agents: bool = Field(False, description="keep agent.safetensors of older checkpoints")
    keep_transitions: bool = Field(
        True, description="online: keep every step in transitions.bin, for 'baq data from-run'"
    )
    track: tuple[TrackerName, ...] = Field((), description="where the run's rows go as well")
    protocol: ProtocolName | None = Field(
        None, description="the protocol of the comparison that the run is part of"
    )

    @field_validator("env_args")
    @classmethod
    def _arguments_fit(cls, args: dict[str, Any] | None) -> dict[str, Any] | None:
        check_arguments(args or {})
        return args or None

    @model_validator(mode="after")
    def _acts_somewhere_or_nowhere(self) -> RunConfig:
        said = [key for key in ("env", "env_args", "max_episode_steps") if getattr(self, key)]
        if self.no_env and said:
            raise ValueError(
                f"no_env (--no-env) and {said[0]} exclude each other: give one of them"
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must differ, found {list(seeds)}")
        if min(seeds) < 0:
            raise ValueError(f"seeds are 0 or more, found {min(seeds)}")
        if max(seeds) >= 2**63:
            raise ValueError(f"seeds are below 2^63, found {max(seeds)}")
        return seeds

    @field_validator("shadow")
    @classmethod
    def _another_acts(cls, shadow: str | None, known: ValidationInfo) -> str | None:
        kind, _, path = (shadow or "policy:x").partition(":")
        if kind != "policy" or not path:
            raise ValueError("expected policy:PATH")
        if shadow is not None and known.data.get("intervention") is not None:
            raise ValueError("another acts at every step already: leave 'intervention' out")
        return shadow

    @property
    def takes_over(self) -> InterventionConfig | None:
        """Who acts in the policy's place, and when: beside a shadow at every step."""
        if self.shadow is None:
            return self.intervention
        return InterventionConfig(by=self.shadow, step_probability=1.0, steps=None)


class CompareConfig(Closed):
    """A recipe's section `compare`: a matrix of runs, of which the recipe's other keys are true."""

    algos: tuple[str, ...] = Field(
        ("baq", "awac", "iql", "cql"),
        min_length=1,
        description="methods; all: every one; published: BAQ and those that are",
    )
    recipes: tuple[str, ...] = Field((), description="a task each; this file's own keys go first")
    datasets: tuple[DatasetId, ...] = Field((), description="a task each, by one recipe")
    grid: dict[str, list[Any]] = Field({}, description="values to try, by key")
    ablate: tuple[str, ...] = Field(
        (), description="methods that run without each of their parts as well, a cell each"
    )
    protocol: ProtocolName | None = Field(
        None,
        description="published: methods as their authors ran them; matched: alike but for "
        "what makes each one; null: as recipes say",
    )
    published: tuple[str, ...] = Field(
        (),
        description="methods whose sections in this file are their authors', or CORL's, for "
        "such tasks; all: of every method",
    )


class TuneConfig(Closed):
    """A recipe's section `tune`: a search of its method's keys."""

    search: dict[str, str | list[Any]] = Field(
        {}, max_length=100, description="by key: LOW..HIGH, LOW..HIGH:log, or a list of values"
    )
    trials: int = Field(20, ge=1, le=MOST_TRIALS, description="settings that are tried")
    chosen_from: ChosenFrom = Field(
        "online",
        description="online: the mean over the online phase's evaluations; final: the last of "
        "them; pretraining: the last one of pre-training; offline: its estimate from the dataset",
    )
    report_seeds: tuple[int, ...] = Field(
        (), max_length=MOST_SEEDS, description="seeds that the chosen setting is reported on"
    )
    env_steps_budget: int | None = Field(
        None,
        ge=1,
        le=MOST_COUNT,
        description="environment steps of all trials after which no further one begins",
    )
    at_once: int = Field(
        4, ge=1, le=1_000, description="settings proposed together, before any of them is known"
    )
    prune_below: float = Field(
        50.0,
        ge=0,
        le=100,
        description="percentile of earlier trials at the same evaluation below which a trial is "
        "stopped; 0: none is",
    )
    sampler_seed: int = Field(0, ge=0, lt=2**32, description="of the proposals")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: the run's own keys and its method's section."""

    run: RunConfig
    method: AgentConfig

    def as_dict(self) -> dict[str, object]:
        """Return the recipe as its YAML has it: the method's section under the method's name."""
        return {
            **self.run.model_dump(mode="json"),
            self.run.algo: self.method.model_dump(mode="json"),
        }
