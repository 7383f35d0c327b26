"""Opening a dataset by name, building a reference one that isn't there yet."""

from __future__ import annotations

from pathlib import Path

from baq_cli.data.episodes import Episodes
from baq_cli.data.minari_source import check_new_id, load_episodes, local_datasets, write_minari
from baq_cli.data.suite import SUITE, ReferenceDataset
from baq_cli.engine.behaviors import roll_out
from baq_cli.engine.events import Note, Observer
from baq_cli.errors import UsageError, nearest


def open_dataset(dataset_id: str, observer: Observer) -> Episodes:
    """Load a dataset from the user's Minari folder; a reference one is built when missing.

    Raises DataError when it is neither there nor a reference dataset, or is damaged.
    """
    if dataset_id in SUITE and dataset_id not in local_datasets():
        build(SUITE[dataset_id], observer)
    return load_episodes(dataset_id)


def build(reference: ReferenceDataset, observer: Observer) -> None:
    """Build a reference dataset into the user's Minari folder."""
    observer(Note(f"building {reference.dataset_id}: {reference.about}"))
    env_id, episodes, lines = roll_out(
        reference.files(), None, reference.transitions, reference.seed, observer
    )
    about = "\n".join([f"{reference.about}; {reference.transitions} environment steps.", *lines])
    write_minari(
        reference.dataset_id,
        env_id,
        episodes,
        {"algorithm_name": "SAC, sampled actions", "author": "baq", "description": about},
    )


def collect_dataset(
    dataset_id: str,
    behaviors: list[Path],
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
    env, episodes, lines = roll_out(behaviors, env_id, env_steps, seed, observer, deterministic)
    write_minari(
        dataset_id,
        env,
        episodes,
        {"algorithm_name": "baq", "author": "baq", "description": "\n".join(lines)},
    )


def reference(dataset_id: str) -> ReferenceDataset:
    """Return a reference dataset's description.

    Raises UsageError for an unknown one, with the nearest.
    """
    if dataset_id not in SUITE:
        raise UsageError(
            f"'{dataset_id}' is not a reference dataset; {nearest(dataset_id, list(SUITE))}"
        )
    return SUITE[dataset_id]
