"""Opening a dataset by name, building a reference one that isn't there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from baq_cli.data.checks import content_findings, environment_findings
from baq_cli.data.episodes import Episodes, Finding
from baq_cli.data.minari.folder import check_new_id, dataset_path, open_minari
from baq_cli.data.minari.place import check_place
from baq_cli.data.minari.read import load_episodes, read_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.data.suite import SUITE, Behavior, ReferenceDataset
from baq_cli.engine.collecting import roll_out
from baq_cli.engine.events import Note, Observer
from baq_cli.errors import EnvironmentMismatch, UsageError, nearest


def open_dataset(dataset_id: str, observer: Observer) -> Episodes:
    """Load a dataset from the user's Minari folder; a reference one is built when missing.

    Raises DataError when it is neither there nor a reference dataset, is damaged, or has errors.
    """
    if dataset_id in SUITE and not dataset_path(dataset_id).exists():
        build(SUITE[dataset_id], observer)
    return load_episodes(dataset_id, lambda text: observer(Note(text)))


def check_dataset(dataset_id: str, env_id: str | None) -> list[Finding]:
    """Return everything that the checks find, errors and warnings.

    Without `env_id` the dataset's own environment is checked against, where it names one.
    Raises DataError when it can't be read at all.
    """
    episodes = read_episodes(open_minari(dataset_id))
    found = content_findings(episodes)
    env = env_id or episodes.origin.env_id
    if env is None:
        return found
    try:
        return [*found, *environment_findings(episodes, env)]
    except EnvironmentMismatch as error:
        if env_id is not None:
            raise
        return [*found, Finding("warning", "environment", str(error))]


def build(
    reference: ReferenceDataset,
    observer: Observer,
    env_steps: int | None = None,
    seed: int | None = None,
    dataset_id: str | None = None,
) -> str:
    """Build a reference dataset into the user's Minari folder, and return its id.

    Another size or seed than the reference's needs an id of its own: under one id there is one
    content.
    Raises UsageError where it is missing, taken or another reference's.
    """
    wanted = replace(
        reference,
        transitions=reference.transitions if env_steps is None else env_steps,
        seed=reference.seed if seed is None else seed,
        dataset_id=dataset_id or reference.dataset_id,
    )
    if wanted != reference and dataset_id is None:
        raise UsageError(
            f"'{reference.dataset_id}' has {reference.transitions:,} steps from seed "
            f"{reference.seed}: another size or seed needs an id of its own, --id me/task/name-v0"
        )
    if wanted != reference:
        check_new_id(wanted.dataset_id)
    check_place(wanted.dataset_id)
    observer(Note(f"building {wanted.dataset_id}: {wanted.about}"))
    recording, lines = roll_out(
        wanted.behaviors,
        wanted.env_id,
        wanted.transitions,
        wanted.seed,
        observer,
        wanted.deterministic,
        wanted.threads,
    )
    about = f"{wanted.about}; {wanted.transitions} environment steps, seed {wanted.seed}."
    _save(wanted.dataset_id, recording, [about, *lines], must_be_new=wanted != reference)
    return wanted.dataset_id


def collect_dataset(
    dataset_id: str,
    behaviors: Sequence[Behavior | Path],
    env_id: str | None,
    env_steps: int,
    seed: int,
    deterministic: bool,
    observer: Observer,
) -> None:
    """Roll behaviours out into a new Minari dataset.

    Raises UsageError when the id is taken or malformed.
    """
    check_new_id(dataset_id)
    check_place(dataset_id)
    recording, lines = roll_out(behaviors, env_id, env_steps, seed, observer, deterministic)
    _save(dataset_id, recording, lines)


def _save(
    dataset_id: str, recording: Recording, lines: Sequence[str], must_be_new: bool = True
) -> None:
    about = {
        **recording.about,
        "algorithm_name": "baq data",
        "author": ["baq"],
        "description": "\n".join(lines),
    }
    write_minari(dataset_id, replace(recording, about=about), must_be_new)


def reference(dataset_id: str) -> ReferenceDataset:
    """Return a reference dataset's description.

    Raises UsageError for an unknown one, with the nearest.
    """
    if dataset_id not in SUITE:
        raise UsageError(
            f"'{dataset_id}' is not a reference dataset; {nearest(dataset_id, list(SUITE))}"
        )
    return SUITE[dataset_id]
