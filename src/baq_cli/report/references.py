"""What a task's returns are measured against: one reference, for every course of the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from baq_cli.envs.scores import Reference
from baq_cli.report.method_runs import Course, reference_of

Task = Mapping[str, Course]


def with_one_reference(task: Task) -> dict[str, Course]:
    """Return a task's courses, those in returns with the task's one reference.

    It is the dataset's own, of the run that ended last where runs know several, else the
    environment's: a method that opens no dataset is measured against the others' too.
    """
    known = [*_of_dataset(task), *(c.reference for c in task.values() if c.reference is not None)]
    return {
        name: replace(course, reference=known[0]) if known and course.unit == "return" else course
        for name, course in task.items()
    }


def disagreement(task: Task) -> list[str]:
    """Return a sentence where runs of a task know several references of its dataset."""
    name = next(iter(task.values())).task
    found = list(dict.fromkeys((own.random, own.expert) for own in _of_dataset(task)))
    if len(found) < 2:
        return []
    (random, expert), *others = found
    return [
        f"{name}: the dataset's reference scores were measured anew between these runs. All are "
        f"normalised by the later ones (random {random:g}, expert {expert:g}), not by "
        f"{' or '.join(f'{low:g} and {high:g}' for low, high in others)}."
    ]


def _of_dataset(task: Task) -> list[Reference]:
    """Return the references of the dataset's own that a task's runs know, the latest run first."""
    runs = [run.manifest for course in task.values() for run in course.runs]
    runs.sort(key=lambda manifest: str(manifest.get("ended")), reverse=True)
    found = (reference_of(None, manifest.get("dataset")) for manifest in runs)
    return [own for own in found if own is not None]
