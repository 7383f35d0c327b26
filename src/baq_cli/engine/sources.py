"""What a run starts from: its folder, its data and its environment, checked against each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from baq_cli.agents.registry import method_configs
from baq_cli.data.checks import environment_findings
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.folder import open_minari
from baq_cli.engine import checkpoint as ckpt
from baq_cli.engine.datasets import open_dataset
from baq_cli.engine.events import Note, Observer, Phase
from baq_cli.engine.restore import spaces_of
from baq_cli.engine.rundir import RunDirectory
from baq_cli.envs.faults import let_go
from baq_cli.envs.pool import check_trusted, make_env
from baq_cli.envs.scores import stored
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.recipes.load import as_begun, differences, reopen
from baq_cli.recipes.schema import Recipe


@dataclass(frozen=True)
class Order:
    """Where a run goes, what it was called with, and who watches.

    `command` is what the user typed, kept in the recipe's first line; `resume_command` is what
    continues the run.
    """

    out: Path
    observer: Observer
    command: str
    resume_command: str
    resume: bool = False


@dataclass(frozen=True)
class Origin:
    """Where a run's experience comes from: an environment, and a dataset in numbers."""

    env_id: str
    spaces: Spaces
    environment: dict[str, Any]
    dataset: dict[str, Any] | None = None

    @classmethod
    def make(cls, env_id: str, named_by: str = "") -> Origin:
        """Make the environment once, to read its spaces and settings.

        `named_by` says where its id comes from. Raises EnvironmentMismatch and DataError, as making
        it and reading its spaces do.
        """
        check_trusted(env_id, named_by)
        env = make_env(env_id)
        spaces, spec = Spaces.of(env.observation_space, env.action_space), env.spec
        let_go(env)
        settings = {
            "id": env_id,
            "max_episode_steps": None if spec is None else spec.max_episode_steps,
            "kwargs": {} if spec is None else {k: repr(v) for k, v in spec.kwargs.items()},
        }
        return cls(env_id, spaces, settings)

    def with_data(self, episodes: Episodes) -> Origin:
        """Return the origin with a dataset, after checking that its spaces are the same."""
        episodes.spaces.check_same(
            self.spaces, f"dataset '{episodes.dataset_id}'", f"environment '{self.env_id}'"
        )
        kept = stored(open_minari(episodes.dataset_id).metadata, episodes.dataset_id)
        dataset = {
            "id": episodes.dataset_id,
            "sha256": episodes.content_hash,
            "episodes": len(episodes.starts),
            "transitions": len(episodes),
            "return_mean": float(episodes.returns.mean()),
            "return_std": float(episodes.returns.std()),
            "warnings": [finding.text for finding in episodes.findings],
            "reference": None if kept is None else asdict(kept),
        }
        return replace(self, dataset=dataset)


def offline_origin(env: str | None, episodes: Episodes, observer: Observer) -> Origin:
    """Return the origin of a run on a dataset: its own environment, or the one that `env` names.

    Raises EnvironmentMismatch when there is none, or when the dataset's was made with settings of
    its own, which an id alone doesn't repeat.
    """
    recorded = episodes.origin
    env_id = env or recorded.env_id
    if env_id is None:
        raise EnvironmentMismatch(
            f"dataset '{episodes.dataset_id}' names no environment: give one with --env ID"
        )
    named_by = "the recipe" if env else f"the dataset '{episodes.dataset_id}'"
    origin = Origin.make(env_id, named_by)
    made = origin.environment
    settings = {"max_episode_steps": recorded.max_episode_steps, "kwargs": recorded.kwargs}
    if env is None and any(made[key] != value for key, value in settings.items()):
        raise EnvironmentMismatch(
            f"dataset '{episodes.dataset_id}' was recorded in {env_id} with {settings}, and it is "
            f"made here with {made}: another task. If that is what you want, say so "
            f"with --env {env_id}; or register the recorded one under an id of its own."
        )
    return checked_origin(origin, episodes, observer)


def checked_origin(origin: Origin, episodes: Episodes, observer: Observer) -> Origin:
    """Return the origin with a dataset that was checked against its environment.

    What the checks warn of is passed on, and kept with the origin.
    """
    origin.with_data(episodes)  # other spaces are refused before anything is compared in them
    found = (*episodes.findings, *environment_findings(episodes, origin.env_id))
    for finding in found:
        observer(Note(f"{episodes.dataset_id}: {finding.text}"))
    return origin.with_data(replace(episodes, findings=found))


def online_origin(
    recipe: Recipe,
    source: ckpt.Checkpoint | None,
    episodes: Episodes | None,
    observer: Observer,
) -> Origin:
    """Return the origin of an online phase, its spaces checked against the checkpoint's.

    Raises UsageError when nothing names an environment.
    """
    if source is None and episodes is not None:
        return offline_origin(recipe.run.env, episodes, observer)
    env_id = recipe.run.env or (source.document["env_id"] if source else None)
    if env_id is None:
        raise UsageError("fine-tuning needs --checkpoint PATH, or --env ID to start from scratch")
    inherited = source is not None and env_id == source.document["env_id"]
    origin = Origin.make(env_id, "the checkpoint" if inherited else "the recipe")
    if source is None:
        return origin
    spaces_of(source.document).check_same(
        origin.spaces, "the checkpoint", f"environment '{env_id}'"
    )
    return replace(origin, dataset=source.document["dataset"])


def open_checked(dataset_id: str, known: ckpt.Checkpoint | None, observer: Observer) -> Episodes:
    """Open a dataset; raise DataError when it is not the one that a checkpoint was made with."""
    episodes = open_dataset(dataset_id, observer)
    before = None if known is None else known.document["dataset"]
    if known is not None and before and "obs_layout" not in known.document["spaces"]:
        raise DataError(
            "the checkpoint was made by an earlier version, whose content hashes were others: "
            f"whether '{dataset_id}' is the one it was trained on can't be told. Pre-train again."
        )
    if before and before["id"] == dataset_id and before["sha256"] != episodes.content_hash:
        raise DataError(
            f"dataset '{dataset_id}' has changed: its content hash is "
            f"{episodes.content_hash[:12]}, the checkpoint was trained on {before['sha256'][:12]}. "
            "Restore that version, or pre-train again."
        )
    return episodes


def saved_run(
    directory: RunDirectory, recipe: Recipe, order: Order, phase: Phase
) -> tuple[ckpt.Checkpoint | None, Recipe]:
    """Return the checkpoint to resume from, or None to start; and the recipe of the run.

    That is the one given, but for defaults that have changed since the run began: those stay.
    Raises UsageError when the folder's run has another phase or recipe, or is there without
    --resume.
    """
    directory.check_free(order.resume)
    if not directory.holds_run:
        return None, recipe
    if not ckpt.complete(directory.path):
        order.observer(Note(f"no checkpoint in {directory.path} yet: starting from the beginning"))
        return None, recipe
    saved = ckpt.load_newest(directory.path, order.observer)
    if saved.document["phase"] != phase:
        raise UsageError(
            f"cannot resume {directory.path}: it holds an {saved.document['phase']} phase, and "
            f"this command runs an {phase} one. Choose another --out."
        )
    recipe = as_begun(recipe, reopen(saved.document["recipe"], method_configs()))
    changed = differences(saved.document["recipe"], recipe.as_dict())
    if changed:
        raise UsageError(
            f"cannot resume {directory.path} with another recipe: {'; '.join(changed)}. Give the "
            "run's own values (its recipe.yaml), or choose another --out."
        )
    return saved, recipe


def settle(directory: RunDirectory, saved: ckpt.Checkpoint | None, order: Order) -> None:
    """Look again at a folder that is held from now on, and put damaged checkpoints aside.

    Raises UsageError when it is not as it was when `saved` was read.
    """
    directory.check_free(order.resume)
    folders = ckpt.complete(directory.path)
    known = [] if saved is None else [saved.folder, *saved.damaged]
    if folders[len(folders) - len(known) :] != known or (folders and not known):
        raise UsageError(
            f"{directory.path} has checkpoints that this command hasn't read: another process "
            "wrote them meanwhile. Give the command again, or choose another --out."
        )
    if saved is None or saved.folder is None:
        return
    for folder in saved.damaged:
        order.observer(Note(f"what can't be read is kept as {ckpt.put_aside(folder)}"))
    ckpt.point_at(saved.folder)
