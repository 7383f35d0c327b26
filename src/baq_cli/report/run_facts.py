"""What a report takes from a finished run beside its evaluations: recipe, manifest, estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from baq_cli.errors import DataError
from baq_cli.recipes.method_files import method_names
from baq_cli.recipes.schema import ProtocolName
from baq_cli.runs.checked import Checked, Count, Finite, GuardEvent, Name, check_content
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import ESTIMATE, MANIFEST, RECIPE, read_logged
from baq_cli.runs.log import MOST_SCORE
from baq_cli.units import Phase
from baq_cli.untrusted import parse_yaml


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


class ReferenceFields(Checked):
    label: str
    random: Score
    expert: Score
    source: str

    @model_validator(mode="after")
    def _differ(self) -> ReferenceFields:
        if abs(self.expert - self.random) * MOST_SCORE < 1:
            raise ValueError("random and expert are the same")
        return self


class EnvironmentFields(Checked):
    id: Name = Field(min_length=1)
    name: Name | None = None
    max_episode_steps: Count | None = None
    reference: ReferenceFields | None = None


class DatasetFields(Checked):
    id: Name = Field(min_length=1)
    sha256: Name
    episodes: Count
    transitions: Count
    return_mean: Score
    return_std: Score
    warnings: list[str]
    reference: ReferenceFields | None = None


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


class ManifestFields(Checked):
    """Everything that a report takes from a manifest."""

    command: str
    environment: EnvironmentFields | None
    dataset: DatasetFields | None
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
    seeds: list[Count]
    protocol: ProtocolName | None = None
    evaluation: _EvaluationFields
    gradient_steps: Count
    env_steps: Count


class _EstimatedFields(Checked):
    value: Score


class _EstimatesFields(Checked):
    seeds: list[_EstimatedFields]


class _EstimateFileFields(Checked):
    """Everything that a report takes from an estimate."""

    kind: Literal["estimate"] = Field(alias="is")
    phase: Phase
    seeds: list[Count]
    estimate: _EstimatesFields


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
    check_recipe(recipe, folder / RECIPE)
    if "ended" not in manifest:
        raise DataError(f"the run in {folder} has not ended: continue it, then report it")
    check_content(ManifestFields, manifest, folder / MANIFEST)
    return RunFacts(folder, recipe, manifest, _read_estimate(folder))


def _read_estimate(run: Path) -> dict[int, float]:
    """Return what is estimated of a run's pre-trained policies, by seed; nothing without that.

    Raises DataError when it is damaged.
    """
    file = run / ESTIMATE
    if not file.exists():
        return {}
    found = read_json(file)
    check_content(_EstimateFileFields, found, file)
    if found["phase"] != "offline":
        return {}
    values = (of_seed["value"] for of_seed in found["estimate"]["seeds"])
    return dict(zip(found["seeds"], values, strict=False))


def check_recipe(recipe: Any, file: Path) -> None:
    """Raise DataError unless a resolved recipe has what a report takes from it."""
    check_content(_RecipeFields, recipe, file)
    if recipe["algo"] not in method_names():
        raise DataError(f"{file} is of '{recipe['algo']}', no method of this version")
    if not isinstance(recipe.get(recipe["algo"]), dict):
        raise DataError(f"{file} has no section '{recipe['algo']}'")
