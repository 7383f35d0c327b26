"""What is compared: each method's course on a task, from runs on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from baq_cli.envs.scores import Reference, known_reference
from baq_cli.errors import DataError, UsageError
from baq_cli.recipes.method_files import method_names
from baq_cli.report.curves import PhaseCurves, is_estimate, phase_curves
from baq_cli.report.estimates import read_estimate
from baq_cli.report.protocol import Protocol, protocol_of
from baq_cli.runs.checked import Checked, Count, Finite, GuardEvent, Name, check_content
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import MANIFEST, RECIPE, read_logged, read_metrics
from baq_cli.runs.log import MOST_SCORE
from baq_cli.untrusted import parse_yaml

ONLINE_FIELDS = ("env_steps", "evaluation.every_env_steps")
"""What a protocol says of the online phase."""
ALONE = (
    "pre-training had no environment: its estimates, which are discounted, don't lie beside these "
    "returns; the report of its own run shows them."
)
Unit = Literal["return", "normalized score", "estimated discounted return"]
"""What curves are in; estimates are of policies that weren't played."""
ESTIMATED: Unit = "estimated discounted return"


@dataclass(frozen=True, eq=False)
class Course:
    """A method on a task, all its seeds, from offline to online.

    `curves` are in `unit`. `runs` are the runs that made them, by phase, one after the other where
    seeds were trained apart; a course from a file of curves has none, and no protocol but what its
    counters say. `published` is one that ships with the tool, whose protocol is its authors' own.
    `notes` are what a reader must know of it.
    """

    task: str
    method: str
    curves: PhaseCurves
    unit: Unit
    protocol: Protocol
    runs: tuple[RunFacts, ...] = ()
    environment: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    reference: Reference | None = None
    steps_known: bool = True
    published: bool = False
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for c in self.curves.values() for seed in c.seeds))

    def normalized(self) -> Course:
        """Return the course in normalised scores.

        Raises UsageError when nothing says what its returns are measured against.
        """
        if self.unit == "normalized score":
            return self
        if self.unit == ESTIMATED:
            raise UsageError(
                f"{self.task}: '{self.method}' was trained without an environment, and its "
                "estimates lie beside no scores: report it apart"
            )
        if self.reference is None:
            raise UsageError(
                f"{self.task}: the returns of '{self.method}' can't be put beside normalised "
                "scores, for want of a reference: measure one with 'baq data score-reference'"
            )
        curves = {
            phase: replace(curve, returns=self.reference.normalize(curve.returns))
            for phase, curve in self.curves.items()
        }
        return replace(self, curves=curves, unit="normalized score")


@dataclass(frozen=True)
class RunFacts:
    """A finished run: where it is, its resolved recipe, its manifest, and estimates by seed."""

    folder: Path
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    estimate: dict[int, float] = field(default_factory=dict)


Score = Annotated[float, Field(ge=-MOST_SCORE, le=MOST_SCORE)]
Distance = Annotated[float, Field(ge=0, le=2)]
Plain = str | int | float | bool | None


class _ReferenceFields(Checked):
    label: str
    random: Score
    expert: Score
    source: str

    @model_validator(mode="after")
    def _differ(self) -> _ReferenceFields:
        if abs(self.expert - self.random) * MOST_SCORE < 1:
            raise ValueError("random and expert are the same")
        return self


class _EnvironmentFields(Checked):
    id: Name = Field(min_length=1)
    name: Name | None = None
    max_episode_steps: Count | None = None
    reference: _ReferenceFields | None = None


class _DatasetFields(Checked):
    id: Name = Field(min_length=1)
    sha256: Name
    episodes: Count
    transitions: Count
    return_mean: Score
    return_std: Score
    warnings: list[str]
    reference: _ReferenceFields | None = None


class _GuardFields(Checked):
    action: Name
    events: list[GuardEvent]
    bad_episodes: list[Count]
    stopped: bool


class _InterventionFields(Checked):
    env_steps: Count
    taken_over: list[Count]
    course: list[Annotated[tuple[Count, list[Count]], Field(strict=False)]] = Field([])
    successes: list[Count] = Field([])
    failures: list[Count] = Field([])


class _EstimateFields(Checked):
    discount: Annotated[float, Field(ge=0, lt=1)]
    updates: Count
    behavior_mean: Score
    behavior_std: Score


class _LimitFields(Checked):
    env_steps: Count
    acted: dict[Name, list[Count]]
    stops: list[GuardEvent]


class _ShadowFields(Checked):
    env_steps: Count
    near: Distance
    difference: list[Distance] = Field(min_length=1)
    agreed: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)


class _ControlFields(Checked):
    hz: Finite
    deadlines: Count
    missed: Count
    worst_ms: Finite
    p99_ms: Finite
    utd: Count
    utd_reached: Finite


class _ManifestFields(Checked):
    """Everything that a report takes from a manifest."""

    command: str
    environment: _EnvironmentFields | None
    dataset: _DatasetFields | None
    versions: dict[str, str] = Field({})
    hardware: dict[str, Plain] = Field({})
    git_revision: str | None = None
    started: Name | None = None
    ended: Name
    guard: _GuardFields | None = None
    intervention: _InterventionFields | None = None
    limits: _LimitFields | None = None
    shadow: _ShadowFields | None = None
    estimate: _EstimateFields | None = None
    control: _ControlFields | None = None


class _EvaluationFields(Checked):
    episodes: Count
    every_gradient_steps: Count | None
    every_env_steps: Count | None


class _RecipeFields(Checked):
    """What a report takes from a recipe, beside the method's own section."""

    algo: Name
    dataset: Name | None
    evaluation: _EvaluationFields
    gradient_steps: Count
    env_steps: Count


def read_run(folder: Path) -> RunFacts:
    """Read a run's recipe and manifest.

    Raises DataError when they are missing or damaged, or the run has not ended.
    """
    manifest = read_json(folder / MANIFEST)
    content, _ = read_logged(folder, RECIPE)
    try:
        recipe = parse_yaml(content.decode())
    except ValueError as error:
        raise DataError(f"{folder / RECIPE} can't be read as a recipe: {error}") from error
    check_content(_RecipeFields, recipe, folder / RECIPE)
    if recipe["algo"] not in method_names():
        raise DataError(f"{folder / RECIPE} is of '{recipe['algo']}', no method of this version")
    if not isinstance(recipe.get(recipe["algo"]), dict):
        raise DataError(f"{folder / RECIPE} has no section '{recipe['algo']}'")
    if "ended" not in manifest:
        raise DataError(f"the run in {folder} has not ended: continue it, then report it")
    check_content(_ManifestFields, manifest, folder / MANIFEST)
    return RunFacts(folder, recipe, manifest, read_estimate(folder))


def course_of(
    folders: Sequence[Path], method: str | None = None, task: str | None = None
) -> Course:
    """Return the course that finished runs make: one run, or an offline and an online one.

    The last run's metrics hold all evaluations. Without labels, the method's own name and the
    dataset's, or the environment's, are those.
    Raises DataError for what can't be read as runs.
    """
    runs = tuple(read_run(folder) for folder in folders)
    last = runs[-1]
    try:
        dataset, environment = last.manifest["dataset"], last.manifest["environment"]
        protocol = protocol_of(last.recipe) | {"environment": environment}
        if dataset is not None:
            protocol["dataset's sha256"] = dataset["sha256"]
        label = method or last.recipe["algo"]
        known = (task, last.recipe["dataset"], environment_name(environment))
        task = next(name for name in known if name)
    except (KeyError, TypeError) as error:
        raise DataError(f"{last.folder} can't be read as a run: {error!r} is missing") from error
    rows = read_metrics(last.folder)
    curves = phase_curves(rows, label)
    if "online" not in curves:  # what its recipe says of an online phase was never done
        protocol = {key: v for key, v in protocol.items() if key not in ONLINE_FIELDS}
    if any(curve.estimated for curve in curves.values()):
        return _estimated(Course(task, label, curves, ESTIMATED, protocol, runs, dataset=dataset))
    notes = (f"{task}, {label}: {ALONE}",) if any(map(is_estimate, rows)) else ()
    reference = reference_of(environment, dataset)
    of_task = environment, dataset, reference
    return Course(*(task, label, curves, "return", protocol, runs), *of_task, notes=notes)


def _estimated(course: Course) -> Course:
    """Return a course of estimates with what they are made by, and the data's discounted return.

    Raises DataError where its manifest doesn't say.
    """
    last = course.runs[-1]
    said = last.manifest.get("estimate")
    if said is None or course.dataset is None:
        raise DataError(f"{last.folder / MANIFEST} is damaged: it doesn't say how it estimates")
    protocol = {k: value for k, value in course.protocol.items() if k != "evaluation.episodes"}
    protocol["estimate"] = {key: said[key] for key in ("discount", "updates")}
    known = {"return_mean": said["behavior_mean"], "return_std": said["behavior_std"]}
    return replace(course, protocol=protocol, dataset=course.dataset | known)


def environment_name(environment: Mapping[str, Any] | None) -> str | None:
    """Return what a run's environment is called: its id, with the settings that it was given.

    None where it has none.
    """
    return None if environment is None else str(environment.get("name") or environment["id"])


def reference_of(
    environment: dict[str, Any] | None, dataset: dict[str, Any] | None
) -> Reference | None:
    """Return what returns of a task are measured against: the dataset's own reference first."""
    own = None if dataset is None else dataset.get("reference")
    own = own or (environment or {}).get("reference")
    if own is not None:
        return Reference(*(own[part.name] for part in fields(Reference)))
    name = environment_name(environment)
    return None if name is None else known_reference(name)
