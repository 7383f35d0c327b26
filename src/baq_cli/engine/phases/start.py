"""What a phase starts from: a checkpoint, its data and its method, checked together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Plan
from baq_cli.agents.registry import METHODS, make_agent, online_draws_from_data
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.handover import check_inputs, hand_over
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.engine.estimation.running import RunningEstimate
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.inputs import RETURNS_RANGE, Inputs, offline_store
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.phases.in_place import Somebody, who_takes_over
from baq_cli.engine.phases.limits import check_somebody_is_there, with_limits
from baq_cli.engine.phases.origin import Origin, checked_origin, offline_origin, online_origin
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.phases.resuming import check_schedule, saved_run
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import DataError, UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.folder import RunDirectory
from baq_cli.units import amount

REWARD_AIMS: dict[object, str] = {
    "returns": f"the dataset's returns span {RETURNS_RANGE:.0f}",
    "standard": "the dataset's rewards have a mean of 0 and a standard deviation of 1",
}
"""What a `reward_scale` that is no number is for."""


def open_checked(
    dataset_id: str, recipe: Recipe, known: ckpt.Checkpoint | None, observer: Observer
) -> Episodes:
    """Open a dataset; raise DataError when it is not the one that a checkpoint was made with."""
    episodes = open_dataset(dataset_id, observer, recipe.run.end_at_reward)
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


@dataclass
class Start:
    """What a phase begins or goes on with.

    `store` is the dataset, where it is drawn from; `saved` the checkpoint of this phase that it
    goes on from; `other` who may act in the policy's place; `estimator` what measures policies
    where there is no environment; `from_scratch` whether the run continues no checkpoint.
    """

    recipe: Recipe
    saved: ckpt.Checkpoint | None
    origin: Origin
    learner: Learner
    inputs: Inputs
    store: Store | None
    other: Somebody | None = None
    estimator: RunningEstimate | None = None
    from_scratch: bool = False


def open_offline(recipe: Recipe, dataset: str, order: RunRequest, device: torch.device) -> Start:
    """Open a pre-training: its run and its dataset, checked against each other."""
    saved, recipe = saved_run(RunDirectory(order.out), recipe, order, "offline")
    episodes = open_checked(dataset, recipe, saved, order.observer)
    origin = offline_origin(recipe, episodes, order.observer)
    origin = with_limits(origin, recipe, episodes, order.observer)
    spec = _spec(recipe, origin, episodes, device)
    agent = make_agent(recipe.run.algo, recipe.method, spec, "offline")
    check_schedule(agent, recipe, saved)
    learner = Learner(agent)
    _check_windows(recipe, learner.plan, episodes)
    inputs = _inputs(recipe, agent, saved, episodes, order.observer)
    store = offline_store(episodes, inputs, spec, columns_of(agent, learner.plan), learner.discount)
    start = Start(recipe, saved, origin, learner, inputs, store)
    if origin.env is None:
        start.estimator = RunningEstimate(recipe, agent, episodes, inputs)
        order.observer(Note(f"{start.estimator} (evaluation.estimate_updates)"))
    return start


def open_online(
    recipe: Recipe,
    order: RunRequest,
    source: ckpt.Checkpoint | None,
    device: torch.device,
    known_origin: Origin | None = None,
) -> Start:
    """Open a fine-tuning: its run, the checkpoint it continues and the dataset, checked together.

    A run that begins takes over what the source holds; one that is resumed has it already. With a
    known origin no environment is made.
    """
    saved, recipe = saved_run(RunDirectory(order.out), recipe, order, "online")
    from_scratch = _begun_from_scratch(saved, source)
    if saved is not None:  # how it began is not for its resume to say
        source = None if from_scratch else source or saved
    known = saved or source
    opened = from_scratch and known_origin is None
    episodes = _episodes(recipe, known, opened, order.observer)
    origin = known_origin or online_origin(recipe, source, episodes, order.observer)
    if source is not None and episodes is not None and known_origin is None:
        origin = checked_origin(origin, episodes, order.observer)
    if known_origin is None:
        check_somebody_is_there(recipe)
        origin = with_limits(origin, recipe, episodes, order.observer)
    spec = _spec(recipe, origin, episodes, device, known)
    agent = make_agent(recipe.run.algo, recipe.method, spec, "online")
    check_schedule(agent, recipe, saved)
    learner = Learner(agent, recipe.run.critic_updates or 0)
    if episodes is None and learner.plan.needs_offline:
        raise UsageError(_lacks_data(recipe, source))
    inputs = _inputs(recipe, agent, known, episodes, order.observer)
    if saved is None and source is not None:
        inputs = _with_units(inputs, recipe, source, episodes)
    store = None
    if episodes is not None:
        store = offline_store(
            episodes, inputs, spec, columns_of(agent, learner.plan), learner.discount
        )
    if source is not None:
        check_inputs(recipe, source, inputs)
    if source is not None and saved is None:
        window = Window.of(learner.plan)
        data = StoreReader(agent, stores_by_name(store), learner.discount, window=window)
        hand_over(learner, source, recipe, data, order.observer)
    for said in [] if saved is not None else _of_updates(recipe, learner, from_scratch):
        order.observer(Note(said))
    other = who_takes_over(recipe, origin, order.hand, order.observer)
    of_start = recipe, saved, origin, learner, inputs, store, other
    return Start(*of_start, from_scratch=from_scratch)


# -- parts


def _check_windows(recipe: Recipe, plan: Plan, episodes: Episodes) -> None:
    """Raise UsageError where no row of a dataset has as many that follow as the plan looks at."""
    longest = int(episodes.lengths.max())
    if plan.window > longest:
        algo = recipe.run.algo
        raise UsageError(
            f"critics of '{algo}' learn from {plan.window} steps in a row, and the longest episode "
            f"of '{episodes.dataset_id}' has {longest}: they would learn nothing. Lower "
            f"{algo}.chunk to {longest}, or give data with longer episodes."
        )


def _begun_from_scratch(saved: ckpt.Checkpoint | None, source: ckpt.Checkpoint | None) -> bool:
    """Return whether an online run continues no checkpoint; those of earlier versions don't say."""
    known = None if saved is None else saved.state.get("from_scratch")
    return source is None if known is None else bool(known)


def _of_updates(recipe: Recipe, learner: Learner, from_scratch: bool) -> Iterator[str]:
    """Say what comes before an online phase's updates, and what will come of none."""
    algo, run, plan = recipe.run.algo, recipe.run, learner.plan
    warmup = plan.warmup_env_steps
    if warmup >= run.env_steps:
        yield (
            f"the policy won't learn: its first {warmup:,} env_steps come without updates "
            f"({algo}.warmup_env_steps), and the run ends after {run.env_steps:,}. Give more "
            f"--env-steps, or a lower {algo}.warmup_env_steps."
        )
    elif plan.fit and not from_scratch:
        fit = amount(plan.fit.steps, "update")
        said = f"{warmup:,} env_steps with it as it is, then {fit} of critics"
        yield f"before the policy learns: {said}"
    if run.critic_updates and not plan.fit:
        yield f"'{algo}' has no critics: critic_updates={run.critic_updates} changes nothing"


def _episodes(
    recipe: Recipe, known: ckpt.Checkpoint | None, from_scratch: bool, observer: Observer
) -> Episodes | None:
    """Return the dataset, where there is one; a method that never draws from it needs none.

    From scratch it is opened all the same: it says what environment and returns are like.
    """
    dataset = recipe.run.dataset
    if dataset is None and known is not None and known.document["dataset"] is not None:
        dataset = known.document["dataset"]["id"]
    if dataset is None:
        return None
    continued = known is not None and not from_scratch
    if continued and not online_draws_from_data(recipe.run.algo, recipe.method):
        return None
    return open_checked(dataset, recipe, known, observer)


def _lacks_data(recipe: Recipe, source: ckpt.Checkpoint | None) -> str:
    """Return what is said where batches need a dataset, and there is none."""
    algo, run = recipe.run.algo, recipe.run
    command, other = "", ""
    if source is None:
        command = f", as in 'baq finetune --env {run.env} --dataset ID --algo {algo}'"
    if "online_share" not in recipe.method.unused:
        other = f", or {algo}.online_share=null to draw from what there is"
    return (
        f"'{algo}' draws a share of every batch from a dataset, and there is none: give --dataset "
        f"ID ('baq data list'){command}{other}."
    )


def _spec(
    recipe: Recipe,
    origin: Origin,
    episodes: Episodes | None,
    device: torch.device,
    known: ckpt.Checkpoint | None = None,
) -> Spec:
    returns = (0.0, 1.0)
    if known is not None:
        low, high = known.document["return_range"]
        returns = (low, high)
    elif episodes is not None:
        returns = (float(episodes.returns.min()), float(episodes.returns.max()))
    spaces = origin.spaces
    return Spec(recipe.run.seeds, spaces.obs_dim, spaces.action_dim, returns, device)


def _with_units(
    inputs: Inputs, recipe: Recipe, source: ckpt.Checkpoint, episodes: Episodes | None
) -> Inputs:
    """Return a checkpoint's inputs, with the recipe's units of rewards where it has fixed none."""
    if "reward_scale" not in METHODS[source.document["algo"]].Config.unused:
        return inputs
    asked = Inputs.fit(recipe.method, len(inputs.obs_mean), episodes)
    return replace(inputs, reward_scale=asked.reward_scale, reward_shift=asked.reward_shift)


def _inputs(
    recipe: Recipe,
    agent: Agent,
    known: ckpt.Checkpoint | None,
    episodes: Episodes | None,
    observer: Observer,
) -> Inputs:
    """Return the inputs that a checkpoint fixed, or those of a run that begins."""
    if known is not None:
        return Inputs.from_tensors(known.agent)
    inputs = Inputs.fit(recipe.method, agent.spec.obs_dim, episodes)
    if "reward_scale" in recipe.method.unused:
        return inputs
    scale, key = recipe.method.reward_scale, f"{recipe.run.algo}.reward_scale"
    if scale in REWARD_AIMS and (alike := _nothing_to_scale_by(scale, episodes)):
        observer(Note(f"{key}={scale} scales no rewards: {alike}"))
    elif scale in REWARD_AIMS:
        by = f"{inputs.reward_scale:.4g}"
        if inputs.reward_shift:
            by += f", plus {inputs.reward_shift:.4g}"
        aim = REWARD_AIMS[scale]
        observer(Note(f"updates multiply rewards by {by}, so that {aim} ({key}=1 leaves them)"))
    return inputs


def _nothing_to_scale_by(scale: object, episodes: Episodes | None) -> str:
    """Return why a dataset says nothing of how to scale rewards; empty where it does."""
    if episodes is None:
        return "there is no dataset to go by"
    if np.ptp(episodes.returns if scale == "returns" else episodes.reward) > 0:
        return ""
    what = "episodes of the dataset return" if scale == "returns" else "rewards of the dataset are"
    return f"all {what} the same"
