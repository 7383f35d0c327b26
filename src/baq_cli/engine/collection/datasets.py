"""Opening a dataset by name, building a reference one that isn't there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from baq_cli.data.door import every_finding, save
from baq_cli.data.episodes import Episodes, Finding
from baq_cli.data.goals import ended_at
from baq_cli.data.minari.commit import check_place
from baq_cli.data.minari.folder import check_new_id, dataset_path, open_minari
from baq_cli.data.minari.read import load_episodes, read_episodes
from baq_cli.data.recording import Recording
from baq_cli.data.suite import SUITE, Behavior, ReferenceDataset
from baq_cli.engine.collection.rollouts import roll_out
from baq_cli.envs.ref import EnvChoice
from baq_cli.errors import UsageError, nearest
from baq_cli.runs.events import Note, Observer


def open_dataset(
    dataset_id: str, observer: Observer, end_at_reward: float | None = None
) -> Episodes:
    """Load a dataset from the user's Minari folder; a reference one is built when missing.

    With `end_at_reward`, its episodes end where their task was done (`ended_at`).
    Raises DataError when it is neither there nor a reference dataset, is damaged, or has errors.
    """
    if dataset_id in SUITE and not dataset_path(dataset_id).exists():
        build(SUITE[dataset_id], observer)
    episodes = load_episodes(dataset_id, lambda text: observer(Note(text)))
    if end_at_reward is None:
        return episodes
    episodes, said = ended_at(episodes, end_at_reward)
    observer(Note(f"{dataset_id}: {said}"))
    return episodes


def check_dataset(dataset_id: str, choice: EnvChoice) -> list[Finding]:
    """Return everything that the checks find, errors and warnings.

    Without an id in `choice`, it is checked against the environment that a training on it would
    have, where it names one. Raises DataError when it can't be read at all.
    """
    return every_finding(read_episodes(open_minari(dataset_id)), choice)


def names_no_environment(dataset_id: str) -> bool:
    """Return whether a dataset names no environment, of its recording or for evaluation."""
    dataset = open_minari(dataset_id)
    return dataset.env_spec is None and dataset.eval_env_spec is None


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
        EnvChoice(wanted.env_id),
        wanted.transitions,
        wanted.seed,
        observer,
        wanted.deterministic,
        wanted.threads,
    )
    about = f"{wanted.about}; {wanted.transitions} environment steps, seed {wanted.seed}."
    described = _described(recording, [about, *lines])
    save(wanted.dataset_id, described, must_be_new=wanted != reference)
    return wanted.dataset_id


def collect_dataset(
    dataset_id: str,
    behaviors: Sequence[Behavior | Path],
    choice: EnvChoice,
    env_steps: int,
    seed: int,
    deterministic: bool,
    observer: Observer,
) -> Episodes:
    """Roll behaviours out into a new Minari dataset; it is checked first.

    Raises UsageError when the id is taken or malformed, DataError when the checks find errors.
    """
    check_new_id(dataset_id)
    check_place(dataset_id)
    recording, lines = roll_out(behaviors, choice, env_steps, seed, observer, deterministic)
    return save(dataset_id, _described(recording, lines))


def _described(recording: Recording, lines: Sequence[str]) -> Recording:
    about = {
        **recording.about,
        "algorithm_name": "baq data",
        "author": ["baq"],
        "description": "\n".join(lines),
    }
    return replace(recording, about=about)


def reference(dataset_id: str) -> ReferenceDataset:
    """Return a reference dataset's description.

    Raises UsageError for an unknown one, with the nearest.
    """
    if dataset_id not in SUITE:
        raise UsageError(
            f"'{dataset_id}' is not a reference dataset; {nearest(dataset_id, list(SUITE))}"
        )
    return SUITE[dataset_id]
