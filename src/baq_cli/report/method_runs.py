"""What is compared: each method's course on a task, from runs on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from baq_cli.envs.ref import without_addresses
from baq_cli.envs.scores import Reference, known_reference
from baq_cli.errors import DataError, UsageError
from baq_cli.report.curves import PhaseCurves, is_estimate, phase_curves
from baq_cli.report.protocol import Protocol, protocol_of
from baq_cli.report.run_facts import RunFacts, read_run
from baq_cli.runs.folder import MANIFEST, read_metrics

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

    @property
    def can_be_normalized(self) -> bool:
        """Whether its scores are normalised, or returns with a reference; estimates have none."""
        measured = self.unit == "return" and self.reference is not None
        return measured or self.unit == "normalized score"

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
                "scores, for want of a reference: store one with the dataset ('baq data "
                "score-reference ENV --checkpoint PATH --dataset ID'). A run that begins after "
                "that knows it, and gives it to all runs of its task"
            )
        curves = {
            phase: replace(curve, returns=self.reference.normalize(curve.returns))
            for phase, curve in self.curves.items()
        }
        return replace(self, curves=curves, unit="normalized score")


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
        environment = environment and without_addresses(environment)
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
        if environment is not None:
            raise DataError(
                f"{last.folder}: no episode of its environment has ended yet, so there is no "
                "return to report: let it go on with --resume, report its pre-training's folder, "
                "or leave it out"
            )
        return _estimated(Course(task, label, curves, ESTIMATED, protocol, runs, dataset=dataset))
    notes = (f"{task}, {label}: {ALONE}",) if any(map(is_estimate, rows)) else ()
    reference = reference_of(environment, dataset)
    of_task = environment, dataset, reference
    return Course(*(task, label, curves, "return", protocol, runs), *of_task, notes=notes)


def plays_and_has_no_return(folder: Path) -> bool:
    """Return whether no episode has ended yet of a run that has an environment to play in.

    A robot's run has the returns of its own episodes alone. What its metrics may hold before the
    first of them are the estimates of a pre-training without an environment.
    """
    rows = read_metrics(folder)
    return not rows or (
        all(map(is_estimate, rows)) and read_run(folder).manifest["environment"] is not None
    )


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
