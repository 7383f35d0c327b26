"""Where a run's experience comes from: its environment and its data, checked against each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from baq_cli.data.env_checks import environment_findings
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.folder import open_minari
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import spaces_of
from baq_cli.engine.evaluation.environment import environment_of
from baq_cli.engine.experience.inputs import observation_statistics
from baq_cli.envs.faults import let_go
from baq_cli.envs.limits import own_limit, with_limit
from baq_cli.envs.making import as_registered, check_trusted, make_env
from baq_cli.envs.ref import (
    EnvChoice,
    EnvRef,
    argument_text,
    check_inherited,
    without_addresses,
)
from baq_cli.envs.safety import Rules
from baq_cli.envs.scores import known_reference, stored
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import EnvironmentMismatch, UsageError, clipped
from baq_cli.recipes.load import OF_ENVIRONMENT
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import MANIFEST, RunDirectory
from baq_cli.runs.log import Row


@dataclass(frozen=True)
class Origin:
    """Where a run's experience comes from: an environment, and a dataset in numbers.

    `environment` is what a manifest says of the environment, as it was made; `rules` are the limits
    that hold in it. Both it and `env` are None for a run that knows a dataset alone.
    """

    env: EnvRef | None
    spaces: Spaces
    environment: dict[str, Any] | None
    dataset: dict[str, Any] | None = None
    rules: Rules | None = None

    @property
    def acts_in(self) -> EnvRef:
        """The environment of a run that has one."""
        assert self.env is not None
        return self.env

    @classmethod
    def make(cls, env: EnvRef, observer: Observer, cut_after: int | None = None) -> Origin:
        """Make the environment once, to read its spaces and settings, and give it a limit.

        `cut_after` is where the data at hand was cut (env_steps), for one that says no limit.
        Raises EnvironmentMismatch and DataError, as making it and reading its spaces do.
        """
        made = make_env(env)
        try:
            env, said = with_limit(as_registered(env), made, cut_after)
            spaces, spec = Spaces.of(made.observation_space, made.action_space), made.spec
            limit = env.max_episode_steps or own_limit(made)
        finally:
            let_go(made)
        if said is not None:
            observer(Note(said))
        kwargs = {} if spec is None else {k: argument_text(v) for k, v in spec.kwargs.items()}
        settings = {"id": env.id, "max_episode_steps": limit, "kwargs": kwargs}
        return cls(env, spaces, settings | _named_whole(env))

    @classmethod
    def of_log(cls, episodes: Episodes, observer: Observer) -> Origin:
        """Return the origin of a run without an environment: spaces are those of the dataset."""
        for finding in episodes.findings:
            observer(Note(f"{episodes.dataset_id}: {finding.text}"))
        return cls(None, episodes.spaces, None).with_data(episodes)

    def with_data(self, episodes: Episodes) -> Origin:
        """Return the origin with a dataset, after checking that its spaces are the same."""
        if self.env is not None:
            episodes.spaces.check_same(
                self.spaces, f"dataset '{episodes.dataset_id}'", f"environment '{self.env}'"
            )
        kept = stored(open_minari(episodes.dataset_id).metadata, episodes.dataset_id)
        if kept is not None and self._acts_elsewhere(episodes):
            kept = None
        dataset = {
            "id": episodes.dataset_id,
            "sha256": episodes.content_hash,
            "episodes": len(episodes.starts),
            "transitions": len(episodes),
            "return_mean": float(episodes.returns.mean()),
            "return_std": float(episodes.returns.std()),
            "warnings": [finding.text for finding in episodes.findings],
            "reference": None if kept is None else asdict(kept),
            "observations": observation_statistics(episodes),
        }
        return replace(self, dataset=dataset)

    def _acts_elsewhere(self, episodes: Episodes) -> bool:
        """Return whether the environment has other arguments than the dataset's for evaluation.

        What the dataset keeps of returns was measured in that one.
        """
        theirs = episodes.origin.eval_env or episodes.origin.env
        if self.env is None or theirs is None or self.env.id != theirs.id:
            return False
        return self.env.args != as_registered(theirs).args


def _named_whole(env: EnvRef) -> dict[str, Any]:
    """Return what a manifest says of an environment with settings: its text, and its reference."""
    if str(env) == env.id:
        return {}
    reference = known_reference(env)
    return {"name": str(env)} | ({} if reference is None else {"reference": asdict(reference)})


def choice_of(recipe: Recipe) -> EnvChoice:
    """Return what a recipe says of the environment."""
    run = recipe.run
    return EnvChoice(run.env, run.env_args, run.max_episode_steps)


def named_nowhere(recipe: Recipe, episodes: Episodes) -> str | None:
    """Say why a run on a dataset has no environment; None where one is named."""
    if recipe.run.no_env:
        return "no_env asks for no environment"
    known = episodes.origin.eval_env or episodes.origin.env
    if choice_of(recipe).over(known) is None:
        return f"dataset '{episodes.dataset_id}' names no environment"
    return None


def environment_on(recipe: Recipe, episodes: Episodes, observer: Observer) -> EnvRef:
    """Return the environment of a run on a dataset: the recipe's, else the dataset's own.

    The dataset's is the one that it names for evaluation, where it does, else that of the
    recording. Raises EnvironmentMismatch when there is none, when its id would import a module, or
    when an argument of the dataset could name a file.
    """
    data, choice = f"the dataset '{episodes.dataset_id}'", choice_of(recipe)
    recorded, evaluated = episodes.origin.env, episodes.origin.eval_env
    env = choice.over(evaluated or recorded)
    if env is None or recipe.run.no_env:
        raise EnvironmentMismatch(f"{named_nowhere(recipe, episodes)}: give one with --env ID")
    check_trusted(env.id, data if choice.id is None else "the recipe")
    if choice.id is None:
        env = as_registered(env)
        check_inherited(env, data, choice.args)
    if choice.id is None and evaluated is not None:
        kept = "" if recorded is None else f"; it was recorded in {as_registered(recorded)}"
        observer(
            Note(f"policies act in {env}, which {data} names for evaluation (eval_env_spec){kept}")
        )
    return env


def offline_origin(recipe: Recipe, episodes: Episodes, observer: Observer) -> Origin:
    """Return the origin of a pre-training: with the environment of `acting_origin`, or without one.

    It has none where the recipe says so (`no_env`), and where neither it nor the dataset names any.
    An environment that is named and can't be made is none of these cases: whoever has forgotten to
    install it would learn too late that no episode was played.
    """
    if recipe.run.no_env:
        return Origin.of_log(episodes, observer)
    reason = named_nowhere(recipe, episodes)
    if reason is not None and choice_of(recipe) == EnvChoice():
        observer(Note(f"{reason}, so no episode will be played (--env ID names one)"))
        return Origin.of_log(episodes, observer)
    try:
        made = Origin.make(environment_on(recipe, episodes, observer), observer, episodes.cut_after)
    except EnvironmentMismatch as error:
        if recipe.run.env is not None:
            raise
        raise EnvironmentMismatch(
            f"{str(error).rstrip('.')}. Or add --no-env to do without: what a policy is worth is "
            "estimated from the data then."
        ) from error
    return checked_origin(made, episodes, observer)


def acting_origin(recipe: Recipe, episodes: Episodes, observer: Observer) -> Origin:
    """Return the origin of a run on a dataset, see `environment_on`; the data are checked."""
    env = environment_on(recipe, episodes, observer)
    return checked_origin(Origin.make(env, observer, episodes.cut_after), episodes, observer)


def checked_origin(origin: Origin, episodes: Episodes, observer: Observer) -> Origin:
    """Return the origin with a dataset that was checked against its environment.

    What the checks warn of is passed on, and kept with the origin.
    """
    origin.with_data(episodes)  # other spaces are refused before anything is compared in them
    found = (*episodes.findings, *environment_findings(episodes, origin.acts_in))
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
        return acting_origin(recipe, episodes, observer)
    if source is None:
        env = choice_of(recipe).over(None)
        if env is None:
            raise UsageError(
                "fine-tuning needs --checkpoint PATH, or --env ID to start from scratch"
            )
        check_trusted(env.id, "the recipe")
        return Origin.make(env, observer)
    origin = Origin.make(_continued(recipe, source), observer)
    spaces_of(source.document).check_same(
        origin.spaces, "the checkpoint", f"environment '{origin.env}'"
    )
    return replace(origin, dataset=source.document["dataset"])


def _continued(recipe: Recipe, source: ckpt.Checkpoint) -> EnvRef:
    """Return the environment in which a recipe continues a checkpoint.

    A recipe that asks for the same as the checkpoint's did has the same environment, with a limit
    that was found for it then. Raises EnvironmentMismatch where neither names one.
    """
    choice = choice_of(recipe)
    known = EnvRef.of_document(source.document)
    if known is None:
        return environment_of(source.document, choice, "the checkpoint")
    asked = {key: recipe.as_dict()[key] for key in ("env", *OF_ENVIRONMENT)}
    before = source.document["recipe"]
    env = known
    if any(before.get(key) != value for key, value in asked.items()):
        env = choice.over(known) or known
    check_trusted(env.id, "the checkpoint" if env.id == known.id else "the recipe")
    check_inherited(env, "the checkpoint", choice.args)
    return env


def comparable_history(
    recipe: Recipe, source: ckpt.Checkpoint, origin: Origin, observer: Observer
) -> list[Row]:
    """Return the evaluations of a checkpoint that lie beside those of a run which continues it.

    None where they were played in another environment, which the observer hears of. Estimates were
    played in none.
    """
    known = EnvRef.of_document(source.document)
    if known not in (None, origin.env, _continued(recipe, source)):
        said = f"the checkpoint was evaluated in {known}, and this run is in {origin.env}"
        observer(Note(f"{said}: its offline scores aren't beside those of this run"))
        return []
    rows: list[Row] = source.document["history"]
    return rows


def check_same_environment(directory: RunDirectory, saved: ckpt.Checkpoint, origin: Origin) -> None:
    """Raise UsageError where a run would be resumed in another environment than it was begun in.

    Its registration may have changed since, or what a dataset says of it. Runs of earlier versions
    didn't know their limits.
    """
    if "env_args" not in saved.document:
        return
    before = without_addresses(read_json(directory.path / MANIFEST)["environment"] or {})
    now = origin.environment or dict.fromkeys(before)
    changed = [
        f"{key} was {clipped(before.get(key))}, it is {clipped(value)} now"
        for key, value in now.items()
        if key != "name" and before.get(key) != value
    ]
    if changed:
        raise UsageError(
            f"cannot resume {directory.path}: its environment is another one now "
            f"({origin.env or 'none'}; {'; '.join(changed)}). Bring back the one it was begun in, "
            "or choose another --out."
        )
